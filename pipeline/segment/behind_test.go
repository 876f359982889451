package segment

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"footfall/pipeline/profile"
	"footfall/schemas"
)

// foldedUser is a user of whom a history was folded.
type foldedUser struct {
	pr   profile.Profile
	rows *profile.Rows
}

func folded(p *Program, events []schemas.Event, now schemas.Millis) *foldedUser {
	s := &foldedUser{rows: profile.NewRows(p.Layout())}
	s.rows.Append()
	for i := range events {
		s.pr.Fold(&events[i])
		s.rows.Fold(0, &events[i], now)
	}
	return s
}

// The event behind a question is what the evaluator's value is of: of moments it has the
// time, of texts the text, and what answers a count is as many as it says.
func TestBehindIsWhatTheValueIsOf(t *testing.T) {
	kinds := map[op]int{}
	for seed := range uint64(1500 / raceSlower) {
		rng := rand.New(rand.NewPCG(seed, 8))
		events := someHistory(rng)
		p, err := Compile(Options{Exponent: 2}, File{"one.yaml", []byte(someSet(rng, "one", "Europe/Berlin", []string{someQuestion(rng), someQuestion(rng)}))})
		if err != nil || len(events) == 0 {
			continue
		}
		now := events[len(events)-1].At + schemas.Millis(rng.Int64N(int64(40*day)))
		s := folded(p, events, now)
		e := p.Evaluator()
		fr := e.begin(&s.pr, s.rows.View(0), now, make([]uint16, 1))
		for segment := range uint16(2) {
			when := p.sets[0].rules[segment].when
			found := p.Behind(0, segment, now, events)
			clauses := e.Clauses(Moment{&s.pr, s.rows.View(0), now, make([]uint16, 1)}, 0, segment)
			if len(found) != len(clauses) {
				t.Fatalf("seed %d: events behind %d clauses, and there are %d", seed, len(found), len(clauses))
			}
			for i, n := range clauseNodes(when) {
				for _, q := range asking(n, nil) {
					at := slices.IndexFunc(found[i], func(b Behind) bool { return b.Question == q.source })
					var b *Behind
					if at >= 0 {
						b = &found[i][at]
					}
					if why := judgeBehind(e, fr, q, b, events); why != "" {
						t.Fatalf("seed %d: %s: %s\nfound %+v\n%s", seed, q.source, why, found[i], when.source)
					}
					kinds[q.op]++
				}
			}
		}
	}
	for _, o := range []op{opAtLeast, opFollowed, opBase, opNumber, opWhole, opCount, opSum, opDistinct, opTextOf, opTop, opTopKey, opGap, opCarts, opCart, opBirthday} {
		if kinds[o] < 5 {
			t.Errorf("questions of kind %d were asked %d times only", o, kinds[o])
		}
	}
}

// judgeBehind tells what is wrong with the event found for a question.
func judgeBehind(e *Evaluator, fr *frame, q *node, b *Behind, events []schemas.Event) string {
	if q.op == opAtLeast || q.op == opFollowed {
		if q.op == opFollowed && e.truth(fr, q) != (b != nil) || e.truth(fr, q) && (b == nil || b.Of < int(q.n) && q.op == opAtLeast) {
			return fmt.Sprintf("holds %v", e.truth(fr, q))
		}
		return ""
	}
	if q.op == opBirthday {
		hash := fr.v.Text(q.cell.number)
		if b == nil && hash != 0 || b != nil && hash != profile.HashText([]byte(b.Text)) {
			return birthdayText(hash)
		}
		return ""
	}
	v := e.number(fr, q)
	is := func(holds bool) string {
		if !holds {
			return fmt.Sprintf("the value is %d", v)
		}
		return ""
	}
	var ev schemas.Event
	if b != nil {
		ev = events[b.Event]
	}
	switch {
	case q.typ == moment && q.op != opCart:
		return is(v == int64(ev.At))
	case q.op == opTextOf, q.op == opTop:
		text := ""
		if b != nil {
			text = b.Text
		}
		return is(uint64(v) == profile.HashText([]byte(text)))
	case q.op == opTopKey:
		return is(b == nil || v == q.cell.Bucket(ev.At))
	case q.op == opNumber, q.op == opCount, q.op == opBase && q.n >= baseCount:
		return is(v == 0 && b == nil || b != nil && v == int64(b.Of))
	case q.op == opWhole && q.cell.Keeps == profile.Greatest:
		return is(v == 0 || v == q.cell.Value(&ev))
	case q.op == opSum:
		return is(v == 0 || b != nil)
	}
	return ""
}

// Acts lead where they would: an event of that kind, and the least amount.
func TestActsLeadThere(t *testing.T) {
	p, err := Shipped(Options{Exponent: 2}, "lifecycle", "loyalty", "cart")
	if err != nil {
		t.Fatal(err)
	}
	names := p.Names()
	at := start + 100*day
	for _, c := range []struct {
		what   string
		events []schemas.Event
		want   []string
	}{
		{"nobody yet", []schemas.Event{{At: at - 5*day, Kind: schemas.View}}, []string{
			"add_to_cart: cart active", "purchase: lifecycle new", "purchase: loyalty member", "purchase of 50000: loyalty silver", "purchase of 100000: loyalty gold", "purchase of 500000: loyalty platinum",
		}},
		{"a buyer", []schemas.Event{{At: at - 5*day, Kind: schemas.Purchase, Amount: 41199}}, []string{
			"add_to_cart: cart active", "purchase: lifecycle active", "purchase of 8801: loyalty silver", "purchase of 58801: loyalty gold", "purchase of 458801: loyalty platinum",
		}},
		{"one with a cart, long silent", []schemas.Event{{At: at - 95*day, Kind: schemas.Purchase, Amount: 60000}, {At: at - 2*schemas.Hour, Kind: schemas.AddToCart, ProductID: []byte("p"), Quantity: 1_000_000, Worth: 500}}, []string{
			"add_to_cart: cart active", "purchase: lifecycle active", "purchase of 40000: loyalty gold", "purchase of 440000: loyalty platinum", "purchase: cart none", "refund of 10001: loyalty member",
		}},
	} {
		s := folded(p, c.events, at)
		before := s.rows.View(0).Copy()
		e := p.Evaluator()
		in := make([]uint16, p.Sets())
		e.Eval(&s.pr, s.rows.View(0), at, in)
		var got []string
		for _, a := range e.Acts(Moment{&s.pr, s.rows.View(0), at, in}) {
			amount := ""
			if a.Amount > 0 {
				amount = fmt.Sprintf(" of %d", a.Amount)
			}
			got = append(got, fmt.Sprintf("%v%s: %s %s", a.Kind, amount, names[a.Set].Name, names[a.Set].Segments[a.To]))
			// It does lead there, and what is a cent less does not.
			for _, less := range []int64{0, 1} {
				if less == 1 && a.Amount == 0 {
					continue
				}
				ev := schemas.Event{At: at, Kind: a.Kind, Amount: a.Amount - less, Worth: a.Amount - less, Quantity: 1_000_000}
				after := folded(p, append(slices.Clone(c.events), ev), at)
				into := make([]uint16, p.Sets())
				if e.Eval(&after.pr, after.rows.View(0), at, into); (into[a.Set] == a.To) != (less == 0) {
					t.Errorf("%s: %s, and %d less: got %s", c.what, got[len(got)-1], less, names[a.Set].Segments[into[a.Set]])
				}
			}
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: got\n%q\nwant\n%q", c.what, got, c.want)
		}
		for i := range p.Layout().Cells() {
			if !slices.Equal(before.View(0).Words(i), s.rows.View(0).Words(i)) && !p.Layout().Cells()[i].Keeps.Lists() || p.Layout().Cells()[i].Keeps.Lists() && !slices.Equal(before.View(0).List(i), s.rows.View(0).List(i)) {
				t.Errorf("%s: trying has changed cell %s", c.what, p.Layout().Cells()[i].Name)
			}
		}
	}
}

// Texts are told by what the rule has, and never by their hashes.
func TestTextsInWords(t *testing.T) {
	p, err := Compile(Options{Exponent: 2}, File{"s.yaml", []byte(`
set: s
segments:
  - name: a
    when: top("view", event.brand) == "acme" && last_value("any", event.channel) != "email" && first_value("any", event.channel) == last_value("any", event.channel)
  - name: b
    otherwise: true
`)})
	if err != nil {
		t.Fatal(err)
	}
	e := p.Evaluator()
	for _, c := range []struct {
		brand, channels string
		want            []string
	}{
		{"", "", []string{`top("view", event.brand) is none`, `last_value("any", event.channel) is none`, `first_value("any", event.channel) is none`}},
		{"acme", "a", []string{`top("view", event.brand) is "acme"`, `last_value("any", event.channel) is another one`, `first_value("any", event.channel) and last_value("any", event.channel) are the same`}},
		{"zenith", "ae", []string{`top("view", event.brand) is another one`, `last_value("any", event.channel) is "email"`, `first_value("any", event.channel) and last_value("any", event.channel) are not the same`}},
	} {
		events := []schemas.Event{{At: start, Kind: schemas.View, Brand: []byte(c.brand)}}
		for i, ch := range c.channels {
			events = append(events, schemas.Event{At: start + schemas.Millis(i), Kind: schemas.Search, Channel: map[rune][]byte{'a': []byte("ads"), 'e': []byte("email")}[ch]})
		}
		s := folded(p, events, start)
		var got []string
		for _, clause := range e.Clauses(Moment{&s.pr, s.rows.View(0), start, make([]uint16, 1)}, 0, 0) {
			got = append(got, clause.Value)
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("got %q, want %q", got, c.want)
		}
	}
}
