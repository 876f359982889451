# make demo    see it work          make check   everything CI asks for
# make test    test it              make help    the rest

SHELL       := bash
.SHELLFLAGS := -euo pipefail -c
MAKEFLAGS   += --no-print-directory

cache := $(or $(FOOTFALL_CACHE),$(HOME)/.cache/footfall)
tools := $(cache)/tools

GOLANGCI_VERSION := v2.15.0
GOFUMPT_VERSION  := v0.12.0
golangci := $(tools)/golangci-lint-$(GOLANGCI_VERSION)/golangci-lint
gofumpt  := $(tools)/gofumpt-$(GOFUMPT_VERSION)/gofumpt

ARGS     ?=
PKG      ?= ./...
RACE     ?=
SEEDS    ?= 300
FUZZTIME ?= 5s
KAFKA_PORT ?= 19092
PEERS    ?= ../shared/peers
DATA     ?= ../shared/data

# The tests look for real data here, and say that they skip what needs it if it is absent.
export FOOTFALL_TEST_DATA := $(abspath $(DATA))

.PHONY: help mutants build demo test check generate generated format lint fix vet fuzz bench sim published test-kafka tools

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "%-12s%s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## the binary, in .build/
	@go build -trimpath -o .build/footfall ./cmd/footfall

demo: build ## all of it on embedded engines (ARGS="--for 30s", ARGS="--help")
	@exec ./.build/footfall demo $(ARGS)

test: ## the tests (needs Go; npm for those on the ClickHouse engine)
	go test $(RACE) -timeout 20m $(PKG)

check: generated format lint vet ## what CI runs
	$(MAKE) test RACE=-race
	$(MAKE) fuzz
	$(MAKE) sim
	$(MAKE) mutants

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

# The go command reports "context deadline exceeded" when FUZZTIME ends in the middle of an
# execution (golang.org/issue/75804): no input has failed then.
fuzz: | .build ## every fuzzer for FUZZTIME
	@grep -rlE '^func Fuzz' --include='*_test.go' . | xargs -rn1 dirname | sort -u | while read -r pkg; do \
	  grep -hoE '^func Fuzz[A-Za-z0-9_]*' "$$pkg"/*_test.go | sed 's/func //' | while read -r name; do \
	    echo "fuzz $$pkg $$name"; \
	    go test "$$pkg" -run '^$$' -fuzz "^$$name\$$" -fuzztime $(FUZZTIME) >.build/fuzz.log 2>&1 </dev/null && continue; \
	    if grep -q '^    context deadline exceeded$$' .build/fuzz.log && ! grep -q 'Failing input written' .build/fuzz.log; then continue; fi; \
	    cat .build/fuzz.log; exit 1; \
	  done; \
	done

bench: ## benchmarks of the pipeline
	go test -run '^$$' -bench . -benchmem ./pipeline/... ./schemas/...

mutants: ## seeded bugs of our own, each of which the simulation must find
	FOOTFALL_TEST_MUTANTS=1 go test -count 1 -timeout 15m -v -run Mutants ./pipeline/sim

sim: | .build ## SEEDS runs of the deterministic simulation, or the one run SEED=n
	@{ go test -count 1 -timeout 30m ./pipeline/sim -run Seeds $(if $(SEED),-seed $(SEED),-seeds $(SEEDS)) -v || true; } | tee .build/sim.log | grep -vE '^ +sim_test.go:[0-9]+: +[0-9]+ ' ; \
	grep -hoE '[0-9]+ seeds, [0-9]+ violations' .build/sim.log; ! grep -q '^FAIL' .build/sim.log

published: | .build ## footfall's results against the numbers published for each recorded data set (DATA=DIR)
	@{ go test -count 1 -timeout 20m ./cmd/footfall -run '^TestPublished$$' -v 2>&1 || true; } | tee .build/published.log | sed -nu 's/^published: //p'; \
	if ! grep -qE '^published: [1-9][0-9]* equal, 0 different$$' .build/published.log || grep -qE '^ *(--- )?FAIL' .build/published.log; then \
	  grep -vE '^(published:|=== RUN)' .build/published.log | tail -n 40 >&2; exit 1; fi

test-kafka: ## the end-to-end tests on a real Apache Kafka, started from PEERS
	@broker="$(abspath $(PEERS))/kafka/kafka"; \
	if [ ! -x "$$broker" ]; then echo "skipped: the tests on a real Kafka need $$broker to start one (make test-kafka PEERS=DIR)"; exit 0; fi; \
	dir=$$(mktemp -d); trap '"$$broker" wipe "$$dir" >/dev/null 2>&1 || true; rm -rf "$$dir"' EXIT; \
	KAFKA_PROPS="group.initial.rebalance.delay.ms=0 auto.create.topics.enable=false" "$$broker" start $(KAFKA_PORT) "$$dir"; \
	export FOOTFALL_TEST_KAFKA=$$("$$broker" bootstrap "$$dir") FOOTFALL_TEST_BROKER="$$broker" FOOTFALL_TEST_BROKER_DIR="$$dir"; \
	export FOOTFALL_TEST_KAFKA_LIBS=$$(ls -d $(cache)/kafka-*/libs | tail -n 1); \
	go test -count 1 -p 1 -timeout 15m ./sources/kafka ./sinks/triggers ./pipeline/pipelinetest; \
	go test -tags chaos -count 1 -p 1 -timeout 25m -run 'RealKafka|Chaos' ./cmd/... ./sources/storefront ./sinks/clickhouse

tools: $(golangci) $(gofumpt) ## the pinned linter and formatter, into the cache

$(golangci):
	GOBIN=$(@D) go install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_VERSION)

$(gofumpt):
	GOBIN=$(@D) go install mvdan.cc/gofumpt@$(GOFUMPT_VERSION)

.build:
	@mkdir -p $@
