package worker

// What a user takes besides its id and what the rules ask for (R4). A test holds these
// against the types and the heap.
const (
	rowBytes    = 40 // the profile, and its place in the wheel
	indexBytes  = 8  // where its id stands, and its place in the index by id: 7.2 to 7.8
	memberBytes = 8  // a set
	dealBytes   = 22 // of who has bought
	ringBytes   = 64 // of who has bought: the last order ids
)

// Bytes is what users take in memory.
type Bytes struct {
	Users   int // how many there are
	Fixed   int // of every user: profile, timer, index, memberships, cells, policies
	Ids     int // all of them
	Buyers  int // what only buyers' profiles have, all of them
	Orders  int // buyers' last order ids, all of them
	Lists   int // of cells, all of them
	PerUser int // all of it, by users
}

// FixedBytes is what every user takes besides its id and the cells and policies of the
// rules, and what it takes for each set.
func FixedBytes() (everybody, set int) { return rowBytes + indexBytes, memberBytes }

// BuyerBytes is what a buyer takes besides: for its profile, and for its order ids.
func BuyerBytes() (profile, orders int) { return dealBytes, ringBytes }

// Bytes is what the worker's users take.
func (w *Worker) Bytes() Bytes {
	everybody, set := FixedBytes()
	_, lists := w.cells.Bytes()
	b := Bytes{
		Users: w.Users(), Fixed: everybody + set*len(w.names) + w.cfg.Rules.Layout().Bytes() + w.cfg.Rules.PolicyBytes(),
		Ids: w.table.Bytes(), Buyers: w.packs.Bytes(), Orders: w.orders.Len() * ringBytes, Lists: lists,
	}
	b.share()
	return b
}

// Add adds what the users of another partition take.
func (b *Bytes) Add(other Bytes) {
	b.Users += other.Users
	b.Fixed = other.Fixed
	b.Ids += other.Ids
	b.Buyers += other.Buyers
	b.Orders += other.Orders
	b.Lists += other.Lists
	b.share()
}

func (b *Bytes) share() {
	if b.Users > 0 {
		b.PerUser = b.Fixed + (b.Ids+b.Buyers+b.Orders+b.Lists)/b.Users
	}
}
