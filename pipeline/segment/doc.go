// Package segment decides which segment of each set a profile is in, and until
// when silence alone leaves it there.
//
// It is pure: a segment is a function of (profile, clock, rules) and of nothing
// else (design 3.2). It may not block, read a clock, or remember anything.
//
// A set is an ordered list of rules: the first that holds wins, and the last one
// holds always, so that every user is in exactly one segment of each set. The
// language of rules has a page of its own, schemas/SEGMENTS.md. A rule's way:
//
//	file.go              YAML to a set as it is written, every fault with its place
//	check.go language.go expressions parsed and typed by CEL; the functions there are
//	lower.go node.go     typed expressions to nodes, equal ones only once; what a
//	                     profile has to keep for them becomes a cell
//	reach.go             rules that can never hold are refused
//	compile.go           nodes to functions: nothing is interpreted when an event comes
//	program.go           the Program, which is immutable
//	evaluator.go         the Evaluator, which runs it
//
// Beside it: quantile.go and epochs.go (scores by the shop's own quantiles, frozen in
// epochs), policy.go (what is not said again), explain.go, behind.go and acts.go (why,
// by which event, and what else would lead elsewhere), sql.go (the same program as one
// ClickHouse statement).
package segment
