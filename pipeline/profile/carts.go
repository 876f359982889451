package profile

import (
	"cmp"
	"slices"

	"footfall/schemas"
)

// A Carts cell keeps the lines of a user's carts that no order has closed, and the
// orders that may close lines which come late. A line takes three entries:
//
//	0  A cart's hash, 0 where none was given   B event time
//	1  A product's hash, 0 likewise            B what it is: lineAdd, lineRemove, or an order's
//	2  A quantity, millionths                  B value, minor units of the reporting currency
//
// An order closes the lines of its time or before that are of its cart, or of one
// of its products; an order that names neither closes all. So what is open is a
// function of the set of lines and orders, in whatever order they came. Both are
// forgotten Keep after their time.
const (
	lineAdd = iota
	lineRemove
	orderCart    // closes a cart
	orderProduct // closes a product
	orderAll     // closes everything
)

const (
	lineEntries = 3
	// CartLinesMax is how many lines and orders of a user are kept.
	CartLinesMax = 96
	// CartEntriesMax is how many entries of a list they take.
	CartEntriesMax = CartLinesMax * lineEntries
	// CartQuantityMax is how much of a line's quantity counts, millionths: an event's may be
	// the largest int64, and two of them came to less than nothing.
	CartQuantityMax = 10_000_000_000 * 1_000_000
)

// cartLine is three entries, read.
type cartLine struct {
	cart, product   int64
	at              int64
	what            int64
	quantity, value int64
}

func lineAt(list []Entry, i int) cartLine {
	e := list[lineEntries*i : lineEntries*i+lineEntries]
	return cartLine{e[0].A, e[1].A, e[0].B, e[1].B, e[2].A, e[2].B}
}

func (l *cartLine) entries() [lineEntries]Entry {
	return [lineEntries]Entry{{l.cart, l.at}, {l.product, l.what}, {l.quantity, l.value}}
}

// compare puts lines into an order that does not depend on when they came.
func (l *cartLine) compare(m *cartLine) int {
	return cmp.Or(cmp.Compare(l.at, m.at), cmp.Compare(l.what, m.what), cmp.Compare(l.cart, m.cart),
		cmp.Compare(l.product, m.product), cmp.Compare(l.quantity, m.quantity), cmp.Compare(l.value, m.value))
}

// closes tells whether an order closes a line.
func (l *cartLine) closes(m *cartLine) bool {
	if m.at > l.at {
		return false
	}
	switch l.what {
	case orderCart:
		return m.cart == l.cart
	case orderProduct:
		return m.product == l.product
	case orderAll:
		return true
	}
	return false
}

func (l *cartLine) order() bool { return l.what >= orderCart }

// CartValue is how much a line of an event is worth: minor units of the reporting
// currency for its price times its quantity. The rates of the currencies are the
// contract's, which profile does not know.
type CartValue = func(*schemas.Event) int64

// foldCarts adds an event's lines.
func (r *Rows) foldCarts(c *Cell, w []uint32, ev *schemas.Event, clock schemas.Millis) bool {
	list, newest := r.lists.get(w[0]), ev.At
	if n := len(list) / lineEntries; n > 0 {
		newest = max(newest, schemas.Millis(lineAt(list, n-1).at))
	}
	from := int64(c.from(min(clock, newest))) // as foldMoment does
	if int64(ev.At) < from {
		return false
	}
	r.undo.save(w, list)
	lines := r.carts.lines[:0]
	for i := range len(list) / lineEntries {
		if l := lineAt(list, i); l.at >= from {
			lines = append(lines, l)
		}
	}
	lines = linesOf(lines, c, ev)
	r.carts.lines = lines
	w[0] = r.lists.set(w[0], r.carts.write(r.carts.settle(lines)))
	return true
}

// write turns lines into entries. Of too many the products of orders go first, the oldest
// of them: they close only what comes late. Then it is the oldest of all.
func (s *cartScratch) write(lines []cartLine) []Entry {
	s.entries = s.entries[:0]
	surplus := len(lines) - CartLinesMax
	for i := range lines {
		if surplus > 0 && lines[i].what == orderProduct {
			surplus--
			continue
		}
		e := lines[i].entries()
		s.entries = append(s.entries, e[:]...)
	}
	return s.entries[max(0, surplus)*lineEntries:]
}

// linesOf are the lines of one event.
func linesOf(into []cartLine, c *Cell, ev *schemas.Event) []cartLine {
	cart := int64(HashText(ev.CartID))
	base := cartLine{cart: cart, product: int64(HashText(ev.ProductID)), at: int64(ev.At), quantity: ev.Quantity}
	switch ev.Kind {
	case schemas.AddToCart, schemas.RemoveFromCart:
		base.value = c.Value(ev)
		if base.what = lineAdd; ev.Kind == schemas.RemoveFromCart {
			base.what, base.quantity, base.value = lineRemove, -base.quantity, -base.value
		}
		return append(into, base)
	case schemas.Purchase:
		n := len(into)
		base.quantity = 0
		if cart != 0 {
			closer := base
			closer.what, closer.product = orderCart, 0
			into = append(into, closer)
		}
		product := func(id []byte) {
			if len(id) > 0 {
				closer := base
				closer.what, closer.cart, closer.product = orderProduct, 0, int64(HashText(id))
				into = append(into, closer)
			}
		}
		product(ev.ProductID)
		schemas.EachItem(ev.Items, func(it schemas.Item) { product(it.ProductID) })
		if len(into) == n {
			base.what, base.product = orderAll, 0
			into = append(into, base)
		}
	case schemas.View, schemas.Refund, schemas.Search:
	default:
	}
	return into
}

// cartScratch is memory that folding lines into carts uses again.
type cartScratch struct {
	lines, kept []cartLine
	entries     []Entry
}

// settle sorts lines, and leaves out repeated orders and the lines that an order
// closes.
func (s *cartScratch) settle(lines []cartLine) []cartLine {
	slices.SortFunc(lines, func(a, b cartLine) int { return a.compare(&b) })
	kept := s.kept[:0]
	for i := range lines {
		l := &lines[i]
		if l.order() {
			if i == 0 || lines[i-1] != *l {
				kept = append(kept, *l)
			}
			continue
		}
		// Orders sort behind the lines of their moment, which they close too.
		if !slices.ContainsFunc(lines[i+1:], func(o cartLine) bool { return o.closes(l) }) {
			kept = append(kept, *l)
		}
	}
	s.kept = kept
	return kept
}

// Cart is an open cart.
type Cart struct {
	ID      uint64         // hash of its id; 0: lines without one
	First   schemas.Millis // its first line since there was nothing in it
	Changed schemas.Millis // its last change
	Items   int64          // pieces in it, millionths
	Value   int64          // minor units of the reporting currency
}

// balance is what a cart has of a product.
type balance struct {
	cart, product   int64
	quantity, value int64
}

// Carts gives the open carts that have something in them, as of a clock, those first
// whose last change is the newest, and the time of the oldest line that counts, Never
// without one; into is used again. Lines from the near future count. Of no product is
// there ever less than nothing: what is taken out beyond what was put in, because it was
// bought or is forgotten, takes nothing else out.
func (v View) Carts(cell int, clock schemas.Millis, into []Cart) (carts []Cart, oldest schemas.Millis) {
	into, oldest = into[:0], schemas.Never
	list := v.List(cell)
	from := int64(v.rows.layout.cells[cell].from(clock))
	var memory [CartLinesMax]balance
	balances := memory[:0]
	for i := range len(list) / lineEntries { // in the order of their times
		l := lineAt(list, i)
		if l.order() || l.at < from {
			continue
		}
		oldest = min(oldest, schemas.Millis(l.at))
		at := slices.IndexFunc(into, func(c Cart) bool { return c.ID == uint64(l.cart) })
		if at < 0 {
			at = len(into)
			into = append(into, Cart{ID: uint64(l.cart), First: schemas.Never})
		}
		of := slices.IndexFunc(balances, func(b balance) bool { return b.cart == l.cart && b.product == l.product })
		if of < 0 {
			of = len(balances)
			balances = append(balances, balance{cart: l.cart, product: l.product})
		}
		into[at].add(&l, &balances[of])
	}
	into = slices.DeleteFunc(into, func(c Cart) bool { return c.Items <= 0 })
	slices.SortFunc(into, func(a, b Cart) int { return cmp.Or(cmp.Compare(b.Changed, a.Changed), cmp.Compare(a.ID, b.ID)) })
	return into, oldest
}

// add puts a line in, or takes it out, of a product of which the cart has so much.
func (c *Cart) add(l *cartLine, b *balance) {
	c.Items -= b.quantity
	c.Value -= b.value
	b.quantity += min(max(l.quantity, -CartQuantityMax), CartQuantityMax)
	b.value += l.value
	if b.quantity <= 0 {
		b.quantity, b.value = 0, 0
	}
	c.Items += b.quantity
	c.Value += b.value
	c.Changed = schemas.Millis(l.at)
	if c.First == schemas.Never {
		c.First = c.Changed
	}
	if c.Items == 0 {
		c.First = schemas.Never
	}
}
