// Package brokersim is a simulation one level below package sim: whole processes of
// ours (the session of sources/kafka, the sink of sinks/triggers, the log of
// sinks/clickhouse, the real pipeline and archive) with the real Kafka client, on the
// broker in this process, in a bubble of virtual time, over a network that does to one
// kind of request what a test tells it. Its code is tests only; nothing imports it.
//
// A combination is: who is hit (the engine, or the archive), under which group
// protocol, with which request of Kafka's, before the broker has applied it or
// after, and what happens to it: it is answered with an error, its connection is
// closed, it or its answer is delayed beyond the time-outs, it is never answered.
// All of them are enumerated (table_test.go), each with any number of seeds. A seed
// decides how often it happens, when, to which of two processes, and what else goes
// on: what is published, who joins, leaves, is killed and comes back.
//
//	make brokersim SEEDS=3                          every combination, 3 seeds of each
//	make brokersim ONLY='EndTxn/after' SEEDS=50      those whose name matches, 50 seeds of each
//	make brokersim ONLY='^NAME$' SEED=7 COUNT=20     one run, 20 times
//
// A bubble gives virtual time, not a deterministic order: what failed once may have to
// be repeated until it fails again.
//
// After each run, what is committed is read by a client of its own, and judged:
//
//   - package oracle finds nothing lost, doubled or wrong in what was said;
//   - the input is read to its end, and every timer due has been said;
//   - a process that starts then recovers every partition;
//   - the archive has every committed record of the four topics, and no other, and,
//     unless one of its members was silent beyond its session, each once;
//   - no process has ended by itself, but for an error that says that it must.
//
// The requests of all runs are counted, of a usual one first and of those with faults: one
// that is sent and is not enumerated is a failure, and so is a combination that never
// happened. What is sent only in trouble has its trouble beside the fault: leaders that
// move, so that epochs are asked for, and a transaction of somebody else's that hangs, so
// that it is looked for.
//
// Besides there are scenarios (topics_test.go, scenario_test.go): topics that are
// deleted, made anew or expanded, offsets that expire, coordinators and leaders that
// move, brokers that restart, commits that arrive when they are long forgotten; and
// controls (control_test.go): bugs that have to be found.
package brokersim
