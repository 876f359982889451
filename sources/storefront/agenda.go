package storefront

import "footfall/schemas"

// action is what happens next.
type action uint8

const (
	arrival  action = iota // of a new shopper
	visit                  // a shopper begins a session
	step                   // of a session
	delivery               // of a record that is late
	refund                 // of an order
)

// appointment is an action at a time; index is the shopper, session, parcel or order.
type appointment struct {
	at    schemas.Millis
	index uint32
	what  action
}

// agenda is a heap of appointments by time, with four children a node: half the
// depth of a binary one, and the children lie in one cache line. Those of one time
// come in an order that depends on nothing but what was pushed and popped.
type agenda []appointment

func (a *agenda) push(at schemas.Millis, what action, index uint32) {
	h := append(*a, appointment{})
	*a = h
	i := len(h) - 1
	for i > 0 {
		parent := (i - 1) / 4
		if h[parent].at <= at {
			break
		}
		h[i] = h[parent]
		i = parent
	}
	h[i] = appointment{at, index, what}
}

// pop removes the earliest. It panics on an empty agenda, which a shop never has:
// there is always a next arrival.
func (a *agenda) pop() (at schemas.Millis, what action, index uint32) {
	h := *a
	first, last := h[0], h[len(h)-1]
	h = h[:len(h)-1]
	*a = h
	for i := 0; len(h) > 0; {
		child := 4*i + 1
		if child >= len(h) {
			h[i] = last
			break
		}
		for c := child + 1; c < min(4*i+5, len(h)); c++ {
			if h[c].at < h[child].at {
				child = c
			}
		}
		if h[child].at >= last.at {
			h[i] = last
			break
		}
		h[i] = h[child]
		i = child
	}
	return first.at, first.what, first.index
}
