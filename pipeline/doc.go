// Package pipeline is the runtime: it fetches, routes, applies, commits, and brings
// partitions to life and to rest. It is the only package that starts goroutines for
// the hot path. It may wait and decide to recover; it may not name Kafka or
// ClickHouse, nor know a rule.
//
// # A record's way
//
//	Source.Poll ─> route ─> partition.inbox ─> Worker.Apply ─> stream ─> Committer.Commit
//	   fetcher       │        one goroutine a partition          │       one goroutine
//	                 └─ assigned, revoked, lost                  └─ outputs and marks, group commit
//
// The partition is the unit of everything: users, clock, timers, dedup window,
// numbered outputs, snapshots, ownership. To scale out, start another process.
//
// # Rules of the code
//
//   - R1 One owner. A worker is touched by one goroutine at a time; between
//     processes, the committer's fencing decides.
//   - R2 Deterministic core. Same rules, snapshot, records and clock: same profiles
//     and transitions, whatever the batch sizes.
//   - R3 Order of marks. Committed <= applied; a snapshot ahead of what is committed
//     is ignored; a mark never passes what has not been said.
//   - R4 Limits. Every queue, batch and burst has one: see the constants in
//     pipeline.go.
//   - R5 One way to life. Start and rebalance go through recover.go. An aborted commit
//     is sent again; a lost partition is dropped. Nothing is undone in place.
//
// # Decisions, with the option not taken
//
//   - Recovery evaluates a user at e, the moment at which it was last evaluated before
//     the mark, and fires what was due after e one by one. Evaluating everyone
//     touched at the mark's clock is simpler, but skips a transition when two
//     timers were pending, so chains would depend on where the crash was. That e is
//     known at all rests on a tick never moving the clock beyond what has fired
//     (worker.tick, worker.Resume).
//   - The dedup window forgets an id when it was not seen for the window, repeats
//     included; not when its first record is older. So the window is a function of the
//     log's last hour and can be rebuilt by reading just that (worker.dedup).
//   - An empty snapshot is published before a partition's first commit. So from
//     the first commit on recovery always has a snapshot to begin with, and
//     "committed, but no snapshot" is always an accident.
//   - A snapshot is a delta of the one before it, named by its cut and the sum of its
//     bytes, as often as it may be (partition.cut). Deltas since the last whole one, of
//     which a recovery would read but one, are simpler; but a row that changed once is
//     then written again and again until the next whole one. What a delta was written upon
//     stands in its file and not in its name, so that the newest is still found by name.
//   - What changed is one bit a row, set where the row is kept for the snapshot under way
//     anyway (worker.touch). A version number in each row would tell more, and cost every
//     user memory.
//   - Retention counts whole snapshots, each with all that builds upon it, not cuts: the
//     newest three cuts may rest upon one file.
//   - A delta of which anything is in doubt is not made: after a change of what rows are
//     made of, or when the file that it would build upon is missing or was seen to be
//     damaged, the next is whole. What a snapshot held of which it is not known that it
//     was stored is held by the next once more.
//   - A mark carries a running hash of all outputs. A snapshot whose outputs, with
//     those read back after it, do not come to the committed hash belongs to a past
//     that was never committed: it is skipped for the one before.
//   - Outputs while a record is applied carry next = its offset + 1, the user's own
//     timers included: their clock already counts the record's timestamp.
//   - A change of rules keeps the old hash in the mark until everyone has been
//     evaluated, in slices behind live records; a crash begins the round again,
//     which says nothing twice, because only differences are said.
//   - A mark that nothing was said for is committed in a transaction too. A plain
//     offset commit is a request less, but nothing fences one that was given up and is
//     carried out later, over what was committed since (sources/kafka, marks.go).
//   - One committer goroutine makes one transaction after the other and lets three
//     producers take turns; concurrent transactions over disjoint partitions were
//     not needed: what arrives meanwhile goes into the next one.
//   - The next transaction begins as soon as one has ended. A least time between two
//     beginnings was tried: 3 ms save a third of the transactions and 15 % of the broker's
//     CPU, 5 ms more than half and 30 %; but p50 grows by 1.5 ms and by 3, and p99 is no better.
//     Group commit paces itself: a slow broker makes transactions large.
//   - Timers wait while more than some outputs are uncommitted, and then fire only a few a
//     record (partition.receive). To let them go as fast as the worker can is simpler, but
//     what an event says waits behind all of them: 300,000 that fell due within one second
//     made p99 503 ms; so it is 48, as without them, and a million are said in 7 seconds.
//
// # Non-obvious
//
//   - A batch's records are the partition's from the moment they are routed: Poll must
//     not fill that memory again (Pipeline.route) until they are freed (Fetched.Free), and
//     a worker keeps nothing of them when Apply has returned. The tests' sources and
//     worlds write over what was freed.
//   - A member of a group that was expelled and joins again may be given what it had, and
//     its client says nothing of that: ownerships are told apart by the member's id
//     (sources/kafka, ownership.go; sinks/clickhouse, log.go).
//   - A stream is per ownership, not per partition: after a loss and a new assignment
//     the old goroutine may still run, but what it pushes is dropped, and its epoch
//     is refused by the Committer.
//   - A lost partition must free its goroutine even while that waits for room: the
//     stream's change channel is closed for every waiter, not signalled to one.
//
// # How it is proved
//
// What holds the promises, the command that runs it, how much of it every run of CI does,
// and how much the campaign is to do (make campaign; hours, and it goes on where it
// stopped; make campaign-report prints what it has come to, and none in N is told as
// "< 3/N at 95 %"):
//
//	what                                        command           CI      campaign
//	deterministic simulation, seeds             make sim          3,000   300,000
//	every fault of the broker's requests        make brokersim    x 3     x 100
//	kill -9 of footfall at its failpoints       make chaos        15      1,000
//	kill -9 of the broker, of ClickHouse        make chaos        3, 10   100, 300
//	SIGSTOP beyond the time-outs, rebalances    make chaos        2, 20   50, 500
//	recoveries after a kill, timed in parts     make chaos        1       3, of 300,000 users
//	corruptions of snapshots                    make corruptions  10,000  1,000,000
//	bugs of our own that must be found          make mutants      all     all
//	fuzzers                                     make fuzz         10 s    10^8 executions
//	published numbers of real shops             make published    all     -
//
// The simulation and the oracle share no code with the worker. Its shoppers live by a dozen
// families of rules; rules of the whole language are made by chance in property tests
// (pipelinetest/randomrules), of sets that ask for each other: a naive reading of them
// (pipelinetest/naive) answers as they do, in zones and at moments where clocks change, and
// workers change from some to others, count for epochs, and recover. Chaos runs on a real Apache
// Kafka and the ClickHouse engine, and is judged by programs that share nothing with the
// engine. A fault of the broker's own (sources/kafka, doc.go) is told apart, counted beside
// the figures, and ended by footfall topics hanging, as an operator would. What the campaign
// did of a line counts until the code changes that the line runs on, and fuzzers go on
// from what they have found interesting. What all that has found stands in FOUND.md, and how
// fast it is in SPEED.md.
//
// # Dependencies
//
//   - cespare/xxhash: hash of ids, blocks and rules; fast, and stable for ever.
//   - gocloud.dev/blob (snapshot): one interface to folders, S3, GCS and Azure.
//   - uber-go/zap (facts): levels and fields only; nothing here logs.
//   - twmb/franz-go (sources, sinks): the one Go client with all that design 5 needs.
//   - segmentio/kafka-go (storefront): the outside world's client, so that two
//     implementations agree.
//   - ClickHouse/clickhouse-go, ch-go (sinks): native columns over HTTP and TCP.
//   - ebitengine/purego (chdb): calls libchdb without cgo.
//   - spf13/cobra (cmd): commands, help and completion; goccy/go-yaml: YAML with
//     positions; agnivade/levenshtein: the nearest valid name.
//   - prometheus/client_golang (cmd): the format of /metrics. golang.org/x/net/netutil
//     (cmd): a listener that holds no more connections than it should.
//   - charmbracelet/bubbletea, lipgloss, schollz/progressbar (cmd): what people watch.
//   - klauspost/compress (file, chdb): zstd and LZ4 frames. pierrec/lz4 (sources): blocks of LZ4, as franz-go has them.
//   - For tests: google/go-cmp, cockroachdb/datadriven, rogpeppe/go-internal,
//     santhosh-tekuri/jsonschema, compose-spec/compose-go.
package pipeline
