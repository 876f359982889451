// Package oracle is a second opinion on what footfall has said. It reads the
// raw topics (the input, and the read_committed triggers, muted transitions and
// dead letters) and says what is lost, doubled or wrong, and why.
//
// Not allowed here: any other package of this module, tests included, and any
// cleverness. A fault shared with the worker would be invisible, so everything
// is written again from the text of the event contract and the design, with
// maps, encoding/json and math/big, the whole log in memory. It starts no
// goroutine, reads no clock and keeps no state between calls.
//
// # What is recomputed
//
// From the input alone: which records are refused and with which reason, which
// are duplicates, and, given the clock of the partition at each record, every
// user's chain of transitions in full: sequence number, from, to, at, cause,
// profile, the transition expected next.
//
// In log time the clock is the greatest record timestamp so far, so the chains
// are a function of the input and are compared one by one. With wall ticks the
// clock also moves between records. Then each output's mark (the headers next,
// clock and fired) bounds the clock at every record: a mark's clock is at most
// that of the records from next on and at least that of those before. A record
// that said something gives its clock away in at. For a silent one, any clock
// within its bounds that explains the silence will do.
//
// A mark is also a promise: whatever the records before next, and the timers
// due up to fired, have to say was said by the last output that carries it.
//
// # What is not
//
// Sets other than lifecycle: of a transition in one that Options.Sets names, the
// oracle checks that it is said once a cause, and that a user's transitions in the
// set are a chain. Where lifecycle is not among them, it recomputes no chain at all.
//
// Whether a transition should have been muted for its age, for a start from
// nothing or by the kill switch depends on the wall, which no topic records.
// Only what follows from the record is checked: a transition caused by a
// backfilled event is muted. Nor is it checked how far ticks let the clock go.
// A record refused because its timestamp is ahead of the wall is believed if it
// is ahead of the partition's clock, unless Options.Wall knows better.
package oracle
