package schemas

import (
	"bytes"
	"cmp"
	"slices"
	"strconv"
)

func itemName(i int) string { return "items[" + strconv.Itoa(i) + "]" }

// itemSum is what the items of a record say of its amount.
type itemSum struct {
	total  wide // sum of price times quantity, in 10^-12 units
	priced bool // at least one has a price
}

// items checks the items and adds them up.
func (d *Decoder) items(ev *Event) (itemSum, *RefusedError) {
	var sum itemSum
	t := d.fields[fieldItems]
	if !t.given() {
		return sum, nil
	}
	if t.kind != array {
		return sum, wrongType(place{-1, fieldItems}, d.scan.raw(t), "an array of objects")
	}
	i := int(t.start) + 1
	for n := 0; ; n++ {
		el, next := d.scan.element(i, 0, n == 0)
		if el.kind == absent {
			return sum, nil
		}
		if el.kind != object {
			return sum, refuse(WrongType, "%s: got %s, want an object", itemName(n), got(d.scan.raw(el)))
		}
		it, r := d.item(el, n)
		if r != nil {
			return sum, r
		}
		if it.HasPrice {
			sum.priced = true
			sum.total.addProduct(uint64(it.Price), uint64(it.Quantity))
		}
		ev.Items = d.scan.raw(t)
		i = next
	}
}

// item checks the n-th item. Its strings are not kept: what was needed of the
// scratch memory is given back.
func (d *Decoder) item(el token, n int) (Item, *RefusedError) {
	it := Item{Quantity: million}
	f := d.scan.itemTokens(el, &d.scratch)
	mark := len(d.scratch)
	var r *RefusedError
	step := func(bad *RefusedError) bool { r = bad; return bad != nil }
	switch {
	case f[itemProductID].given() &&
		step(d.idAt(f[itemProductID], place{n, fieldProductID}, &it.ProductID)),
		step(d.textAt(f[itemCategory], place{n, fieldCategory}, &it.Category)),
		step(d.textAt(f[itemBrand], place{n, fieldBrand}, &it.Brand)),
		step(d.decimalAt(f[itemPrice], place{n, fieldPrice}, &it.Price, &it.HasPrice)),
		step(d.decimalAt(f[itemQuantity], place{n, fieldQuantity}, &it.Quantity, &it.HasQuantity)):
		return it, r
	}
	d.scratch = d.scratch[:mark]
	return it, nil
}

// itemTokens returns the values of an item's known fields, the last of each name.
func (s *scanner) itemTokens(el token, scratch *[]byte) (found [itemFields]token) {
	i := int(el.start) + 1
	for first := true; ; first = false {
		key, val, next := s.member(i, 0, first)
		if key.kind == absent {
			return found
		}
		var name []byte
		from := len(*scratch)
		name, *scratch = s.unquote(key, *scratch)
		if f := itemField(name); f < itemFields {
			found[f] = val
		}
		*scratch = (*scratch)[:from]
		i = next
	}
}

// EachItem calls each for the items of an accepted event, in their order. A
// string with escapes is new memory, the others alias items. For bytes that are
// not the items of an accepted event, it stops at the first that does not fit.
func EachItem(items []byte, each func(Item)) {
	s := scanner{text: items, lone: -1}
	if whole, next := s.value(s.space(0), 0); next < 0 || whole.kind != array {
		return
	}
	var scratch []byte
	read := func(t token, into *[]byte) {
		if t.kind == text && t.end-t.start > 2 {
			*into, scratch = s.unquote(t, scratch)
		}
	}
	count := func(t token, into *int64) bool {
		if t.kind != number {
			return false
		}
		v, reason := millionths(s.raw(t))
		if reason != Accepted {
			return false
		}
		*into = v
		return true
	}
	i := s.space(0) + 1
	for first := true; ; first = false {
		el, next := s.element(i, 0, first)
		if el.kind != object {
			return
		}
		f := s.itemTokens(el, &scratch)
		it := Item{Quantity: million}
		read(f[itemProductID], &it.ProductID)
		read(f[itemCategory], &it.Category)
		read(f[itemBrand], &it.Brand)
		it.HasPrice = count(f[itemPrice], &it.Price)
		it.HasQuantity = count(f[itemQuantity], &it.Quantity)
		each(it)
		i = next
	}
}

// extra builds the object of unknown fields, each name once, with its last
// value, in the order in which those stood.
func (d *Decoder) extra(ev *Event) {
	if len(d.unknown) == 0 {
		return
	}
	d.repeats()
	from := len(d.scratch)
	sep := byte('{')
	for _, m := range d.unknown {
		if m.repeated {
			continue
		}
		d.scratch = append(d.scratch, sep)
		d.scratch = append(d.scratch, d.scan.raw(m.key)...)
		d.scratch = append(d.scratch, ':')
		d.scratch = append(d.scratch, d.scan.raw(m.val)...)
		sep = ','
	}
	d.scratch = append(d.scratch, '}')
	ev.Extra = d.scratch[from:len(d.scratch):len(d.scratch)]
}

// repeats marks every unknown field that a later one repeats. A record may hold
// a hundred thousand of them, so names are sorted, not compared each with each.
func (d *Decoder) repeats() {
	if len(d.unknown) == 1 {
		return
	}
	d.order = d.order[:0]
	for i := range d.unknown {
		d.order = append(d.order, int32(i))
	}
	slices.SortFunc(d.order, func(a, b int32) int {
		return cmp.Or(bytes.Compare(d.unknown[a].name, d.unknown[b].name), cmp.Compare(a, b))
	})
	for i := 1; i < len(d.order); i++ {
		before, m := &d.unknown[d.order[i-1]], &d.unknown[d.order[i]]
		before.repeated = bytes.Equal(before.name, m.name)
	}
}
