# make demo    see it work          make check   everything CI asks for
# make test    test it              make help    the rest

SHELL       := bash
.SHELLFLAGS := -euo pipefail -c
MAKEFLAGS   += --no-print-directory

cache := $(or $(FOOTFALL_CACHE),$(HOME)/.cache/footfall)
tools := $(cache)/tools

GOLANGCI_VERSION := v2.15.0
GOFUMPT_VERSION  := v0.12.0
GOVULN_VERSION   := v1.9.0
golangci := $(tools)/golangci-lint-$(GOLANGCI_VERSION)/golangci-lint
gofumpt  := $(tools)/gofumpt-$(GOFUMPT_VERSION)/gofumpt
govuln   := $(tools)/govulncheck-$(GOVULN_VERSION)/govulncheck

ARGS     ?=
PKG      ?= ./...
SEEDS    ?= 3000
FROM     ?= 1
FUZZTIME ?= 10s
FUZZJOBS ?= 2
FUZZ     ?=
KAFKA_PORT ?= 19092
KAFKA_VERSION ?= 4.3.1
PEERS    ?= ../shared/peers
DATA     ?= ../shared/data

# The tests look for real data here, and say that they skip what needs it if it is absent.
export FOOTFALL_TEST_DATA := $(abspath $(DATA))

# Only what users get is compiled by cmd/footfall/default.pgo: all of it is compiled anew for that.
export GOFLAGS := $(GOFLAGS) -pgo=off

.PHONY: help mutants vuln build demo test check generate generated format lint fix vet fuzz bench bench-peers profile bench-scale bench-rates sim brokersim published test-kafka chaos corruptions campaign campaign-report tools

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "%-17s%s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## the binary, in .build/
	@go build -trimpath -pgo=auto -o .build/footfall ./cmd/footfall

demo: build ## all of it on embedded engines (ARGS="--for 30s", ARGS="--help")
	@exec ./.build/footfall demo $(ARGS)

# In these no two goroutines share anything: the race detector, with which tests take five times as long, would find nothing.
alone := ./pipeline/oracle ./pipeline/profile ./pipeline/rehearsal ./pipeline/segment ./pipeline/sim ./pipeline/worker ./schemas/...

test: ## the tests (needs Go; npm for those on the ClickHouse engine; RACE=1: with the race detector, where goroutines share anything)
	go test -timeout 40m $(if $(RACE),$(alone),$(PKG))
	$(if $(RACE),go test -race -timeout 40m $$(go list $(PKG) | grep -vxFf <(go list $(alone))))

check: ## what CI runs, and how long each part takes (PARTS="lint test": only those; BUT="sim": all but those)
	@for part in $(filter-out $(BUT),$(or $(PARTS),generated format lint vet vuln test fuzz sim brokersim mutants)); do \
	  began=$$SECONDS; $(MAKE) $$part RACE=1; printf '%s: %d s\n' $$part $$((SECONDS - began)); \
	done

generate: ## write again what is generated
	go generate ./...

generated: # fails when generated files are not up to date
	@before=$$(git diff | sha256sum); go generate ./...; after=$$(git diff | sha256sum); \
	if [ "$$before" != "$$after" ]; then echo "generated files were not up to date; commit these:" >&2; git diff --stat >&2; exit 1; fi

format: $(gofumpt) # fails when a file is not formatted
	@bad=$$($(gofumpt) -l cmd pipeline schemas sinks sources); \
	if [ -n "$$bad" ]; then printf 'not formatted (gofumpt -w):\n%s\n' "$$bad" >&2; exit 1; fi

lint: $(golangci) ## golangci-lint, at the version pinned above
	$(golangci) run ./...

fix: $(golangci) $(gofumpt) ## format, and mend what the linter can
	$(gofumpt) -w cmd pipeline schemas sinks sources
	$(golangci) run --fix ./...

vet:
	go vet ./...
	go vet -tags chaos,smallpieces,synctests ./...
	go vet -tags gcs,azure ./cmd/footfall

GOVULNDB ?= https://vuln.go.dev
export GOVULNDB

vuln: ## known vulnerabilities in what we call (govulncheck), where its database answers
	@if ! curl -fsS -m 20 -o /dev/null $(GOVULNDB)/index/modules.json; then echo "skipped: the database of vulnerabilities, $(GOVULNDB), does not answer"; exit 0; fi; \
	$(MAKE) $(govuln) && $(govuln) ./... && $(govuln) -tags gcs,azure ./cmd/footfall

# A package's test binary is built once, with coverage, and runs its fuzzers in its own
# folder, FUZZJOBS at a time. It reports "context deadline exceeded" when FUZZTIME ends in
# the middle of an execution (golang.org/issue/75804): no input has failed then. What they
# have found interesting is kept in the cache, so that the next run goes on from there.
fuzz: | .build ## every fuzzer for FUZZTIME, FUZZJOBS at a time (FUZZ=regexp: only those)
	@rm -rf .build/fuzz; mkdir -p .build/fuzz "$(cache)/fuzz"; \
	grep -rlE '^func Fuzz' --include='*_test.go' . | xargs -n1 dirname | sort -u | while read -r pkg; do \
	  names=$$(grep -hoE '^func Fuzz[A-Za-z0-9_]*' "$$pkg"/*_test.go | sed 's/func //' | { grep -E '$(FUZZ)' || true; }); \
	  [ -n "$$names" ] || continue; \
	  bin="$(CURDIR)/.build/fuzz/$$(echo "$$pkg" | tr ./ __).test"; \
	  go test -c -fuzz=. -o "$$bin" "$$pkg"; \
	  for name in $$names; do echo "$$pkg $$name $$bin"; done; \
	done >.build/fuzz/list; \
	one() { \
	  log="$(CURDIR)/.build/fuzz/$$(basename "$$3").$$2.log"; \
	  if ! (cd "$$1" && "$$3" -test.run '^$$' -test.fuzz "^$$2\$$" -test.fuzztime $(FUZZTIME) -test.fuzzminimizetime 500x \
	      -test.parallel 1 -test.fuzzcachedir "$(abspath $(cache))/fuzz/$$(basename "$$3" .test)") >"$$log" 2>&1 </dev/null && \
	    { ! grep -q '^    context deadline exceeded$$' "$$log" || grep -q 'Failing input written' "$$log"; }; then \
	    echo "FAILED $$1 $$2"; cat "$$log"; echo "to repeat: go test $$1 -run '^$$2$$'"; return 1; \
	  fi; \
	  printf '%-32s %-24s %12d executions\n' "$$1" "$$2" "$$(sed -nE 's/.*execs: ([0-9]+).*/\1/p' "$$log" | tail -n 1)"; \
	}; \
	export -f one; \
	failed=0; xargs -r -P $(FUZZJOBS) -L 1 bash -c 'one "$$@"' one <.build/fuzz/list || failed=1; \
	total=$$(for log in .build/fuzz/*.log; do sed -nE 's/.*execs: ([0-9]+).*/\1/p' "$$log" | tail -n 1; done | awk '{n += $$1} END {print n + 0}'); \
	echo "$$(wc -l <.build/fuzz/list) fuzzers, $$total executions, $$(grep -lE '^FAIL|Failing input' .build/fuzz/*.log | { xargs -r grep -LE '^    context deadline exceeded$$' || true; } | wc -l) failures"; \
	[ $$failed = 0 ]

# The whole processes are compared where PEERS is there; make bench PEERS= leaves them out.
bench: | .build ## what each stage costs at 1K, 1M and 10M users, and footfall beside its peers: one table (COUNT runs; .build/bench.txt is for benchstat)
	go test -run '^$$' -bench '^BenchmarkStage$$' -cpu 1 -count $(or $(COUNT),5) -benchtime 0.2s -timeout 30m ./pipeline/worker >.build/bench.txt || { tail -n 20 .build/bench.txt; exit 1; }
	@rm -f .build/bench-peers.txt; \
	if [ -n "$(PEERS)" ] && [ -x "$(abspath $(PEERS))/run" ]; then \
	  $(MAKE) bench-peers EVENTS=$(or $(EVENTS),3000000) RATE=0 ONLY='$(or $(ONLY),^(footfall|consume|streams-memory|flink-memory)$$)' >.build/bench-peers.txt 2>.build/bench-peers.log || { tail -n 20 .build/bench-peers.log; exit 1; }; fi; \
	go run ./pipeline/pipelinetest/bench table -peers "$$(ls .build/bench-peers.txt 2>/dev/null)" <.build/bench.txt

bench-peers: build ## footfall and its peers at the same job on one real Kafka, from PEERS (EVENTS, REPS, ONLY=regexp, RATE=n,n of the latency runs, 0: none; TIMERS due meanwhile)
	@if [ ! -x "$(abspath $(PEERS))/run" ]; then echo "skipped: there is no $(PEERS)/run to run the peers with (make $@ PEERS=DIR)"; exit 0; fi; \
	go run ./pipeline/pipelinetest/benchpeers -peers '$(abspath $(PEERS))' -only '$(ONLY)' \
	  -events $(or $(EVENTS),10000000) -reps $(or $(REPS),1) -rate $(or $(RATE),5000) -seconds $(or $(SECONDS),60) -timers $(or $(TIMERS),0) -profile '$(PROFILE)'

profile: ## cmd/footfall/default.pgo anew, by which the compiler optimises: bench-peers' runs of footfall, on PEERS
	@rm -rf .build/profiles; mkdir -p .build/profiles; \
	$(MAKE) bench-peers REPS=3 RATE=0 ONLY='^footfall$$' PROFILE=.build/profiles; \
	go tool pprof -proto -output cmd/footfall/default.pgo .build/profiles/*.pprof

bench-scale: REBALANCE_DELAY := 3000
bench-scale: build ## CPU per event by users, segments and, on a real Kafka from PEERS, partitions and processes (RECORDS, USERS and ONLY: regexps)
	@if [ -x "$(abspath $(PEERS))/kafka/kafka" ]; then $(with-kafka); fi; \
	go run ./pipeline/pipelinetest/bench scale -records $(or $(RECORDS),3000000) -users '$(or $(USERS),10K|100K|1M|10M|50M)' -only '$(ONLY)'

bench-rates: build ## simulate, publish and the archive on a real Kafka from PEERS, records per CPU second (RECORDS, ONLY=regexp, PROFILE=file of the archive)
	@$(with-kafka); go run ./pipeline/pipelinetest/bench rates -records $(or $(RECORDS),3000000) -only '$(ONLY)' -profile '$(PROFILE)'

mutants: | .build ## bugs of our own, each of which must be found by what is named beside it (ONLY=words in their names)
	@FOOTFALL_TEST_MUTANTS="1$(ONLY)" go test -count 1 -timeout 20m -v -run Mutants ./pipeline/sim >.build/mutants.log 2>&1 || { cat .build/mutants.log; exit 1; }; \
	grep -E '^ *[0-9]+ ' .build/mutants.log | grep -v missed$$; grep -hoE '^[0-9]+ caught, [0-9]+ missed' .build/mutants.log

sim: | .build ## SEEDS runs of the deterministic simulation, or the one run SEED=n (ARGS=-trace: all that happens)
	@failed=0; go test -tags smallpieces -count 1 -timeout 60m -v -run '^TestSeeds$$' ./pipeline/sim -args $(if $(SEED),-seed $(SEED),-from $(FROM) -seeds $(SEEDS)) $(ARGS) >.build/sim.log 2>&1 || failed=$$?; \
	sed -E -e '/^(=== |---|PASS|FAIL|ok )/d' -e 's/^ +sim_test.go:[0-9]+: //' -e '/^[0-9]+ seeds, /d' .build/sim.log $(if $(SEED)$(VERBOSE),,| grep -vE '^ +[0-9]+ '); \
	grep -hoE '[0-9]+ seeds, [0-9]+ violations' .build/sim.log | tail -n 1; exit $$failed

# Unless they are given: 3 seeds, from 0 on; one where the first is given.
brokersim: SEEDS := $(if $(filter file,$(origin SEEDS)),$(if $(SEED),1,3),$(SEEDS))
# A third of the time of so many short lives is collecting their garbage. And goroutines that wait for one another
# all the time do so in half the time on one processor: so each has a process of its own, and its share.
brokersim: | .build ## SEEDS runs (3), from SEED on (0), of every fault of Kafka's, or of those whose name ONLY matches
	go test -tags synctests -c -o .build/brokersim.test ./pipeline/brokersim
	@rm -f .build/brokersim.*.log; n=$$(getconf _NPROCESSORS_ONLN); cd pipeline/brokersim; started=; \
	for i in $$(seq 0 $$((n - 1))); do \
	  [ $$i = 0 ] && tests='$(if $(ONLY)$(SEED),Combinations)' || tests=Combinations; \
	  GOGC=400 GOMAXPROCS=1 ../../.build/brokersim.test -test.timeout 24h -test.run "$$tests" -share $$i -of $$n \
	    -test.count $(or $(COUNT),1) -seeds $(SEEDS) -from $(or $(SEED),0) -only '$(ONLY)' >../../.build/brokersim.$$i.log 2>&1 & started="$$started $$!"; \
	done; \
	trap "kill $$started; exit 1" INT TERM; failed=0; \
	for p in $$started; do wait $$p || failed=1; done; \
	cat ../../.build/brokersim.*.log | { grep -vE '^(PASS|FAIL|[0-9]+ combinations x .*)$$' || true; }; \
	cat ../../.build/brokersim.*.log | awk '/^[0-9]+ combinations x /{n += $$1; seeds = $$4; bad += $$6} END {print n " combinations x " seeds " seeds, " bad " violations"}'; \
	exit $$failed

published: | .build ## footfall's results against the numbers published for each recorded data set (DATA=DIR)
	@{ go test -count 1 -timeout 20m ./cmd/footfall -run '^TestPublished$$' -v 2>&1 || true; } | tee .build/published.log | sed -nu 's/^published: //p'; \
	if ! grep -qE '^published: [1-9][0-9]* equal, 0 different$$' .build/published.log || grep -qE '^ *(--- )?FAIL' .build/published.log; then \
	  grep -vE '^(published:|=== RUN)' .build/published.log | tail -n 40 >&2; exit 1; fi

# with-kafka runs the shell words after it with a real Apache Kafka of their own, started
# from PEERS and removed at the end. Its brokers look for dead transactions every second,
# not every ten, so that tests need not wait for that.
with-kafka = broker="$(abspath $(PEERS))/kafka/kafka"; \
	if [ ! -x "$$broker" ]; then echo "skipped: the tests on a real Kafka need $$broker to start one (make $@ PEERS=DIR)"; exit 0; fi; \
	dir=$$(mktemp -d); trap '"$$broker" wipe "$$dir" >/dev/null 2>&1 || true; rm -rf "$$dir"' EXIT; \
	export KAFKA_VERSION=$(KAFKA_VERSION) KAFKA_PROPS="group.initial.rebalance.delay.ms=$(or $(REBALANCE_DELAY),0) auto.create.topics.enable=false transaction.abort.timed.out.transaction.cleanup.interval.ms=1000 \
	  group.consumer.min.session.timeout.ms=6000 group.consumer.session.timeout.ms=6000 group.consumer.min.heartbeat.interval.ms=100 group.consumer.heartbeat.interval.ms=200"; \
	"$$broker" start $(KAFKA_PORT) "$$dir"; \
	export FOOTFALL_TEST_KAFKA=$$("$$broker" bootstrap "$$dir") FOOTFALL_TEST_BROKER="$$broker" FOOTFALL_TEST_BROKER_DIR="$$dir"; \
	export FOOTFALL_TEST_KAFKA_LIBS=$$(ls -d $(cache)/kafka-$(KAFKA_VERSION)/libs 2>/dev/null || true)

# The conformance tests run on the broker in the process and on a real one, by onBrokers;
# what is left out here is the former, and the tests that know no other: make test has both.
brokers := sources/kafka sinks/triggers pipeline/pipelinetest
on-brokers = $$(awk '/^func / { name = "" } /^func Test/ { name = $$2; sub(/\(.*/, "", name) } name && /onBrokers\(t|t\.Run\("real/ { print name }' \
	  $(addsuffix /*_test.go,$(brokers)) | sort -u | paste -sd '|')

test-kafka: ## the end-to-end tests on a real Apache Kafka, started from PEERS, and CI's share of chaos
	@$(with-kafka); \
	go test -count 1 -p 1 -timeout 15m -run "^($(on-brokers)|Test.*KilledBroker)\$$" -skip /local $(addprefix ./,$(brokers)); \
	go test -tags chaos -count 1 -p 1 -timeout 30m -run 'RealKafka|Chaos' ./cmd/... ./sources/storefront ./sinks/clickhouse

chaos: ONLY ?= Chaos
chaos: ## kills of everything on a real Kafka (ONLY=regexp of tests, ARGS="-chaos.kills 100": see cmd/footfall/chaos_test.go)
	@$(with-kafka); \
	go test -tags chaos -count 1 -timeout 6h -v -run '$(ONLY)' ./cmd/footfall -args $(ARGS)

corruptions: N ?= 10000
corruptions: FROM ?= 1
corruptions: ## N random corruptions of snapshots, from FROM on, and every flipped bit of a small one
	@go test -count 1 -timeout 2h -v -run 'Corruptions|FlippedBit' ./pipeline/worker -args -corruptions $(N) -corruptions.from $(FROM)

campaign: ## all that takes hours, going on where it stopped (FOR=2h, ONLY=regexp of parts, FIRST=seed)
	@KAFKA_PORT=$(KAFKA_PORT) PEERS=$(abspath $(PEERS)) go run ./pipeline/pipelinetest/campaign -for $(or $(FOR),0) -first $(or $(FIRST),1) -only '$(ONLY)'

campaign-report: ## what the campaign has come to, on this tree or else on the newest that it ran on
	@go run ./pipeline/pipelinetest/campaign -report

tools: $(golangci) $(gofumpt) ## the pinned linter and formatter, into the cache

$(golangci):
	GOBIN=$(@D) go install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_VERSION)

$(govuln):
	GOBIN=$(@D) go install golang.org/x/vuln/cmd/govulncheck@$(GOVULN_VERSION)

$(gofumpt):
	GOBIN=$(@D) go install mvdan.cc/gofumpt@$(GOFUMPT_VERSION)

.build:
	@mkdir -p $@
