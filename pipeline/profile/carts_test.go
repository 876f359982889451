package profile

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"footfall/schemas"
)

// cartsOf are rows of one user that keep carts for 30 days, after some events.
func cartsOf(events ...schemas.Event) (r *Rows, clock schemas.Millis) {
	r = NewRows(NewLayout([]Cell{{
		Name: "carts", Keeps: Carts, Kinds: KindsOf(schemas.AddToCart, schemas.RemoveFromCart, schemas.Purchase),
		Value: func(ev *schemas.Event) int64 { return ev.Worth }, Keep: 30 * schemas.Day, K: CartEntriesMax,
	}}))
	r.Append()
	for i := range events {
		clock = max(clock, events[i].At)
		r.Fold(0, &events[i], clock)
	}
	return r, clock
}

func addition(at schemas.Millis, cart, product string) schemas.Event {
	return schemas.Event{Kind: schemas.AddToCart, At: at, CartID: []byte(cart), ProductID: []byte(product), Quantity: 1_000_000, Worth: 100}
}

// An order of more items than lines are kept takes no place from what it does not close,
// and what comes late of its cart is closed by it all the same.
func TestALargeOrderLeavesOtherCarts(t *testing.T) {
	const at = 100 * schemas.Day
	var items []string
	for i := range CartLinesMax + 10 {
		items = append(items, fmt.Sprintf(`{"product_id":"p%d"}`, i))
	}
	order := schemas.Event{Kind: schemas.Purchase, At: at + 10, CartID: []byte("bought"), Items: []byte("[" + strings.Join(items, ",") + "]")}
	r, clock := cartsOf(addition(at, "left", "lamp"), addition(at+1, "bought", "p1"), order, addition(at+2, "bought", "late"))
	carts, _ := r.View(0).Carts(0, clock, nil)
	if len(carts) != 1 || carts[0].ID != HashText([]byte("left")) || carts[0].Items != 1_000_000 {
		t.Errorf("got %+v, want the cart that was left", carts)
	}
	if n := len(r.View(0).List(0)); n > CartEntriesMax {
		t.Errorf("got %d entries, want at most %d", n, CartEntriesMax)
	}
}

// What is let go of goes by the log: a clock that ticks have moved beyond it leaves the same
// as a replay, which knows no ticks, though there are more lines than are kept.
func TestTicksLeaveTheSameCarts(t *testing.T) {
	const from, day = 100 * schemas.Day, schemas.Day
	var events []schemas.Event
	for i := range CartLinesMax {
		events = append(events, addition(from+schemas.Millis(i), "old", fmt.Sprint("p", i)))
	}
	events = append(events,
		schemas.Event{Kind: schemas.Purchase, At: from + 29*day, Items: []byte(`[{"product_id":"x"}]`)},
		addition(from+29*day-1, "late", "x"))
	replayed, _ := cartsOf(events...)
	ticked, _ := cartsOf(events[:CartLinesMax]...)
	for i := range events[CartLinesMax:] {
		ticked.Fold(0, &events[CartLinesMax+i], from+31*day)
	}
	want, _ := replayed.View(0).Carts(0, from+31*day, nil)
	if got, _ := ticked.View(0).Carts(0, from+31*day, nil); !slices.Equal(got, want) {
		t.Errorf("got %+v, a replay has %+v", got, want)
	}
}

// More pieces than can be counted are many, and not less than none: of each line so many
// count that no cart's lines come to more than there is room for.
func TestAbsurdQuantitiesLeaveTheCartOpen(t *testing.T) {
	absurd := func(at schemas.Millis, kind schemas.Kind, product string, millionths int64) schemas.Event {
		ev := addition(at, "c", product)
		ev.Kind, ev.Quantity = kind, millionths
		return ev
	}
	events := []schemas.Event{absurd(1, schemas.AddToCart, "a", 1_000_000)}
	for i := range schemas.Millis(CartLinesMax - 1) {
		events = append(events, absurd(2+i, schemas.AddToCart, string('a'+rune(i%3)), math.MaxInt64-int64(i)))
	}
	r, clock := cartsOf(events...)
	carts, _ := r.View(0).Carts(0, clock, nil)
	if want := (CartLinesMax-1)*int64(CartQuantityMax) + 1_000_000; len(carts) != 1 || carts[0].Items != want {
		t.Errorf("got %+v, want a cart of %d millionths", carts, want)
	}
	r, clock = cartsOf(
		absurd(1, schemas.AddToCart, "a", math.MaxInt64), absurd(2, schemas.AddToCart, "a", 3_000_000),
		absurd(3, schemas.RemoveFromCart, "a", math.MaxInt64), absurd(4, schemas.RemoveFromCart, "b", math.MaxInt64),
	)
	if carts, _ = r.View(0).Carts(0, clock, carts); len(carts) != 1 || carts[0].Items != 3_000_000 {
		t.Errorf("what was taken out again: got %+v, want a cart of 3 pieces", carts)
	}
}
