package worker

import "footfall/schemas"

// Record is one record of the input partition, as the broker gave it.
type Record struct {
	Offset     int64
	Time       schemas.Millis // record timestamp
	Key, Value []byte         // nil: no key; a tombstone
	Headers    []schemas.Header
	Lane       schemas.Lane
	Control    bool // a transaction marker of the input: it only moves Next
}

// Item is one numbered output: a transition or a dead letter, and the mark it was
// said at (Next, Clock, Fired), so that an outside checker can recompute it.
type Item struct {
	N            uint64
	Next         int64
	Clock, Fired schemas.Millis
	Transition   *schemas.Transition
	DeadLetter   *schemas.DeadLetter
}

// Output is what a call had to say, in order of N, and the mark it was said at.
type Output struct {
	Mark  schemas.Mark
	Epoch int64 // the ownership it was made under; set by pipeline, checked by the Committer
	Items []Item
	Sets  []schemas.SetNames // of the rules that it was said under: by a Transition's Set
}
