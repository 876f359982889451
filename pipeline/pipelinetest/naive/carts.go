package naive

import (
	"bytes"
	"cmp"
	"math"
	"slices"

	"footfall/pipeline/profile"
	"footfall/schemas"
)

// cart looks at the open carts: lines of the last 30 days that no order of their time
// or later has closed.
func (o *reading) cart(name string) any {
	type cart struct {
		id           string
		changed      schemas.Millis
		items, value int64
		of           map[string][2]int64 // pieces and worth of each product
	}
	recent := func(at schemas.Millis) bool { return o.now-at < 30*schemas.Day }
	var carts []cart
	events := slices.Clone(o.events)
	slices.SortStableFunc(events, func(a, b schemas.Event) int { return cmp.Or(cmp.Compare(a.At, b.At), cmp.Compare(a.Kind, b.Kind)) })
	for _, line := range events {
		if line.Kind != schemas.AddToCart && line.Kind != schemas.RemoveFromCart || !recent(line.At) {
			continue
		}
		if slices.ContainsFunc(o.events, func(order schemas.Event) bool { return recent(order.At) && closesLine(&order, &line) }) {
			continue
		}
		at := slices.IndexFunc(carts, func(c cart) bool { return c.id == string(line.CartID) })
		if at < 0 {
			at = len(carts)
			carts = append(carts, cart{id: string(line.CartID), of: map[string][2]int64{}})
		}
		sign := int64(1)
		if line.Kind == schemas.RemoveFromCart {
			sign = -1
		}
		carts[at].changed = max(carts[at].changed, line.At)
		const most = 10_000_000_000 * 1_000_000 // of a line, in millionths
		of := carts[at].of[string(line.ProductID)]
		if of[0], of[1] = of[0]+sign*min(line.Quantity, most), of[1]+sign*line.Worth; of[0] <= 0 { // no less than nothing
			of = [2]int64{}
		}
		carts[at].of[string(line.ProductID)] = of
	}
	for i := range carts {
		for _, of := range carts[i].of {
			carts[i].items += of[0]
			carts[i].value += of[1]
		}
	}
	carts = slices.DeleteFunc(carts, func(c cart) bool { return c.items <= 0 })
	slices.SortFunc(carts, func(a, b cart) int {
		return cmp.Or(cmp.Compare(b.changed, a.changed), cmp.Compare(profile.HashText([]byte(a.id)), profile.HashText([]byte(b.id))))
	})
	switch {
	case name == "open_carts":
		return int64(len(carts))
	case name == "cart_changed" && len(carts) == 0:
		return never
	case name == "cart_changed":
		return carts[0].changed
	case name == "cart_items" && len(carts) == 0:
		return int64(0)
	case name == "cart_items":
		return int64(math.RoundToEven(float64(carts[0].items) / 1e6))
	case len(carts) == 0:
		return 0.0
	}
	return float64(carts[0].value) / 100
}

func closesLine(order, line *schemas.Event) bool {
	if order.Kind != schemas.Purchase || order.At < line.At {
		return false
	}
	named := len(order.CartID) > 0 || len(order.ProductID) > 0
	closes := len(order.CartID) > 0 && bytes.Equal(order.CartID, line.CartID) || len(order.ProductID) > 0 && bytes.Equal(order.ProductID, line.ProductID)
	schemas.EachItem(order.Items, func(it schemas.Item) {
		if len(it.ProductID) > 0 {
			named = true
			closes = closes || bytes.Equal(it.ProductID, line.ProductID)
		}
	})
	return closes || !named
}
