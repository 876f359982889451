package worker

// What a user takes besides its id and what the rules ask for (R4). A test holds these
// against the types.
const (
	rowBytes    = 72 // the profile, and where a buyer's orders are
	linkBytes   = 16 // its place in the wheel
	refBytes    = 16 // where its id stands
	cellBytes   = 14 // of the index by id, which is between 7/16 and 7/8 full
	memberBytes = 12 // a set
	buyerBytes  = 72 // of who has bought
)

// Bytes is what users take in memory.
type Bytes struct {
	Users   int // how many there are
	Fixed   int // of every user: profile, timer, index, memberships, cells, policies
	Ids     int // all of them
	Buyers  int // what only buyers have, all of them
	Lists   int // of cells, all of them
	PerUser int // all of it, by users
}

// FixedBytes is what every user takes besides its id and the cells and policies of the
// rules, and what it takes for each set.
func FixedBytes() (everybody, set int) {
	return rowBytes + linkBytes + refBytes + cellBytes, memberBytes
}

// Bytes is what the worker's users take.
func (w *Worker) Bytes() Bytes {
	everybody, set := FixedBytes()
	_, lists := w.cells.Bytes()
	b := Bytes{
		Users: w.Users(), Fixed: everybody + set*len(w.names) + w.cfg.Rules.Layout().Bytes() + w.cfg.Rules.PolicyBytes(),
		Buyers: w.buyers.Len() * buyerBytes, Lists: lists,
	}
	for user := range int32(b.Users) {
		b.Ids += len(w.table.ID(user))
	}
	if b.Users > 0 {
		b.PerUser = b.Fixed + (b.Ids+b.Buyers+b.Lists)/b.Users
	}
	return b
}
