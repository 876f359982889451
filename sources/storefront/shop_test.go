package storefront

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"testing"
	"time"

	"footfall/schemas"
)

const start = schemas.Millis(1_767_225_600_000) // 2026-01-01

func shop(t testing.TB, cfg Config) *Shop {
	t.Helper()
	if cfg.Start == 0 {
		cfg.Start = start
	}
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestSameSeedSameBytes(t *testing.T) {
	cfg := Config{Seed: 7, Shoppers: 500, History: 20 * schemas.Day, Foreign: []string{"JPY", "KWD"}}
	a, b := shop(t, cfg), shop(t, cfg)
	cfg.Seed++
	other := shop(t, cfg)
	same := 0
	for i := range 30_000 {
		ra, na := a.Next()
		rb, nb := b.Next()
		ro, _ := other.Next()
		if !bytes.Equal(ra.Key, rb.Key) || !bytes.Equal(ra.Value, rb.Value) || ra.Time != rb.Time || na != nb {
			t.Fatalf("record %d differs:\n%s %s\n%s %s", i, ra.Key, ra.Value, rb.Key, rb.Value)
		}
		if bytes.Equal(ra.Value, ro.Value) {
			same++
		}
	}
	if same > 10 { // tombstones are alike
		t.Errorf("%d records are those of another seed", same)
	}
}

// decoded reads a record as footfall does.
func decoded(t testing.TB, d *schemas.Decoder, rec Record) (schemas.Event, schemas.Refusal, string) {
	t.Helper()
	var ev schemas.Event
	err := d.Decode(rec.Key, rec.Value, &ev)
	var refused *schemas.RefusedError
	switch {
	case errors.As(err, &refused):
		return ev, refused.Reason, refused.Detail
	case err != nil:
		t.Fatal(err)
	}
	if ev.At > rec.Time+5*schemas.Minute {
		return ev, schemas.Future, ""
	}
	return ev, schemas.Accepted, ""
}

func decoder(t testing.TB) *schemas.Decoder {
	t.Helper()
	d, err := schemas.NewDecoder(schemas.Contract{Currency: "EUR", Rates: map[string]string{"JPY": "0.006", "KWD": "3.0", "USD": "0.9"}})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// Every broken record is refused for the reason it says, and no other is refused.
func TestFaultsAreRefusedForTheirReason(t *testing.T) {
	faults := Faults{"duplicate": 0.05, "late": 0.05, "out_of_order": 0.05}
	for r := schemas.Accepted + 1; r < schemas.Refusals; r++ {
		faults[r.String()] = 0.02
	}
	faults["too_large"] = 0.001
	s := shop(t, Config{Seed: 3, Shoppers: 300, Faults: faults, Foreign: []string{"JPY", "KWD"}})
	d := decoder(t)
	var tally Tally
	const n = 30_000
	ids := map[string]int{}
	last := schemas.Millis(0)
	late := 0
	for range n {
		rec, note := s.Next()
		tally.Add(note)
		if rec.Time < last {
			t.Fatalf("time goes back from %d to %d", last, rec.Time)
		}
		last = rec.Time
		ev, reason, detail := decoded(t, d, rec)
		if reason != note.Refusal {
			t.Fatalf("refused as %s (%s), want %s: key %q, value %.2000q", reason, detail, note.Refusal, rec.Key, rec.Value)
		}
		if reason != schemas.Accepted {
			continue
		}
		if ev.Kind != note.Kind {
			t.Fatalf("%s is noted as %s", rec.Value, note.Kind)
		}
		ids[string(ev.ID)]++
		if again := ids[string(ev.ID)] > 1; again != (note.Fault == Duplicate) {
			t.Fatalf("event %s: seen %d times, noted as %s", ev.ID, ids[string(ev.ID)], note.Fault)
		}
		if note.Fault == Late && rec.Time-ev.At >= 2*schemas.Minute {
			late++
		}
		if note.Fault == NoFault && ev.At != rec.Time {
			t.Fatalf("event of %d sent at %d: %s", ev.At, rec.Time, rec.Value)
		}
	}
	sent := tally.Sent()
	if sent.Records != n || int(sent.Faults["late"]) != late || sent.Faults["duplicate"] < n/50 || sent.Faults["out_of_order"] < n/50 {
		t.Errorf("sent: %+v, of them %d at least 2 minutes late", sent, late)
	}
	for r := schemas.Accepted + 1; r < schemas.Refusals; r++ {
		if sent.Broken[r.String()] == 0 {
			t.Errorf("no record that is refused as %s in %d", r, n)
		}
	}
}

// The default faults are as frequent as they say, and history has none.
func TestFaultRates(t *testing.T) {
	s := shop(t, Config{Seed: 11, Shoppers: 3000, History: 30 * schemas.Day})
	var live, history Tally
	for {
		rec, note := s.Next()
		if rec.Time < s.Start() {
			history.Add(note)
			continue
		}
		live.Add(note)
		if live.Sent().Records == 100_000 {
			break
		}
	}
	if h := history.Sent(); h.Records < 30_000 || len(h.Faults)+len(h.Broken) > 0 {
		t.Errorf("history: %+v, want at least 30,000 records without faults", h)
	}
	got := live.Sent()
	var broken int64
	for _, n := range got.Broken {
		broken += n
	}
	for what, c := range map[string][3]int64{
		"duplicates": {got.Faults["duplicate"], 400, 600}, "late": {got.Faults["late"], 300, 500},
		"out of order": {got.Faults["out_of_order"], 850, 1150}, "broken": {broken, 120, 260},
	} {
		if c[0] < c[1] || c[0] > c[2] {
			t.Errorf("%s: %d of 100,000, want %d to %d", what, c[0], c[1], c[2])
		}
	}
}

// statistics of a year of a shop, as a reader of its events sees it.
type statistics struct {
	days     int
	kinds    [schemas.Kinds]int
	views    map[string]int // by product
	hours    [24]int
	weekdays [7]int
	months   [13]int
	orders   map[string][]schemas.Millis // by user
	last     map[string]schemas.Millis
	first    map[string]schemas.Millis
	carts    map[string]bool // true: bought
	channels map[string]int
	foreign  int
	amounts  map[string]int64
	refunds  int
	session  map[string]bool

	homes, birthdays map[string]string // by user
}

func observe(t *testing.T, s *Shop, days int) *statistics {
	t.Helper()
	st := &statistics{
		days: days, views: map[string]int{}, orders: map[string][]schemas.Millis{}, last: map[string]schemas.Millis{},
		first: map[string]schemas.Millis{}, carts: map[string]bool{}, channels: map[string]int{}, amounts: map[string]int64{},
		session: map[string]bool{}, homes: map[string]string{}, birthdays: map[string]string{},
	}
	d := decoder(t)
	for {
		rec, note := s.Next()
		if rec.Time >= s.Start() {
			return st
		}
		ev, reason, detail := decoded(t, d, rec)
		if reason != schemas.Accepted {
			t.Fatalf("%s %s: %s (%+v)", reason, detail, rec.Value, note)
		}
		st.add(t, rec, &ev)
	}
}

func (st *statistics) add(t *testing.T, rec Record, ev *schemas.Event) {
	t.Helper()
	user := string(rec.Key)
	at := time.UnixMilli(int64(ev.At)).UTC()
	st.kinds[ev.Kind]++
	if _, ok := st.first[user]; !ok {
		st.first[user] = ev.At
	}
	st.last[user] = ev.At
	known := func(of map[string]string, text []byte) {
		if was, ok := of[user]; ok && text != nil && was != string(text) {
			t.Fatalf("user %s: %s after %s", user, text, was)
		} else if text != nil {
			of[user] = string(text)
		}
	}
	known(st.homes, ev.Timezone)
	known(st.birthdays, ev.Birthday)
	if ev.Birthday != nil && schemas.BirthdayOf(ev.Birthday) == nil {
		t.Fatalf("birthday %s", ev.Birthday)
	}
	if ev.CartID != nil {
		st.carts[string(ev.CartID)] = st.carts[string(ev.CartID)] || ev.Kind == schemas.Purchase
	}
	if ev.Currency != [3]byte{'E', 'U', 'R'} {
		st.foreign++
	}
	if ev.SessionID != nil && !st.session[string(ev.SessionID)] {
		st.session[string(ev.SessionID)] = true
		st.hours[at.Hour()]++
		st.weekdays[at.Weekday()]++
		st.months[at.Month()]++
		st.channels[string(ev.Channel)]++
	}
	switch ev.Kind {
	case schemas.View:
		st.views[string(ev.ProductID)]++
	case schemas.Purchase:
		st.orders[user] = append(st.orders[user], ev.At)
		if ev.Amount <= 0 || st.amounts[string(ev.OrderID)] != 0 {
			t.Fatalf("amount %d, order seen before: %v: %s", ev.Amount, st.amounts[string(ev.OrderID)] != 0, rec.Value)
		}
		st.amounts[string(ev.OrderID)] = ev.Amount
	case schemas.Refund:
		st.refunds++
		if bought := st.amounts[string(ev.OrderID)]; ev.Amount <= 0 || ev.Amount > bought {
			t.Fatalf("refund of %d, order of %d: %s", ev.Amount, bought, rec.Value)
		}
	case schemas.AddToCart, schemas.RemoveFromCart, schemas.Search, schemas.Kinds:
	}
}

// between fails unless low <= got <= high.
func between(t *testing.T, what string, got, low, high float64) {
	t.Helper()
	if !(got >= low && got <= high) {
		t.Errorf("%s: got %.4g, want %g to %g", what, got, low, high)
	}
}

// The shop behaves as its description says, in generous bounds.
func TestShopBehavesLikeOne(t *testing.T) {
	const days, shoppers = 365, 800
	s := shop(t, Config{Seed: 5, Shoppers: shoppers, History: days * schemas.Day, Foreign: []string{"USD"}})
	st := observe(t, s, days)
	events := 0
	for _, n := range st.kinds {
		events += n
	}
	t.Logf("events %d, kinds %v, users %d, sessions %d, buyers %d", events, st.kinds, len(st.first), len(st.session), len(st.orders))
	between(t, "events per shopper and day", float64(events)/days/shoppers, 0.6*EventsPerShopperDay, 1.5*EventsPerShopperDay)
	between(t, "foreign currency", float64(st.foreign)/float64(events), 0.005, 0.05)

	// Zipf: views against rank in a log-log plot fall about as the exponent says.
	ranks := make([]int, 300)
	for p, n := range st.views {
		var k int
		if _, err := fmt.Sscanf(p, "p%d", &k); err != nil {
			t.Fatal(err)
		}
		if k -= 10_000; k < len(ranks) {
			ranks[k] += n
		}
	}
	top, tail := 0, 0
	for k, n := range ranks {
		if k < 12 {
			top += n
		} else if k >= 120 && k < 240 {
			tail += n
		}
	}
	slope := math.Log(float64(top)/12/(float64(tail)/120)) / math.Log(170.0/5)
	between(t, "Zipf exponent", slope, 0.7, 1.4)

	between(t, "evening to night", float64(st.hours[20])/float64(st.hours[3]), 8, 80)
	between(t, "Sunday to Friday", float64(st.weekdays[0])/float64(st.weekdays[5]), 1.05, 2)
	between(t, "December to July, growth aside", float64(st.months[12])/float64(st.months[7]), 1.1, 3)
	if len(st.channels) != len(channels) {
		t.Errorf("channels: %v", st.channels)
	}

	bought := 0
	for _, b := range st.carts {
		if b {
			bought++
		}
	}
	between(t, "carts abandoned", 1-float64(bought)/float64(len(st.carts)), 0.4, 0.85)
	between(t, "conversion of sessions", float64(st.kinds[schemas.Purchase])/float64(len(st.session)), 0.05, 0.25)
	between(t, "orders sent back", float64(st.refunds)/float64(st.kinds[schemas.Purchase]), 0.03, 0.09)
	between(t, "removals to adds", float64(st.kinds[schemas.RemoveFromCart])/float64(st.kinds[schemas.AddToCart]), 0.05, 0.5)
	between(t, "shoppers who gave their birthday, of those who ordered", float64(len(st.birthdays))/float64(len(st.orders)), 0.2, 0.3)
	between(t, "shoppers who used the app, and so told their zone", float64(len(st.homes))/float64(len(st.first)), 0.5, 1)
	st.loyalty(t, s.Start())
}

// loyalty checks who comes back, and who stays away.
func (st *statistics) loyalty(t *testing.T, now schemas.Millis) {
	t.Helper()
	repeat, gaps, gapDays := 0, 0, 0.0
	for _, times := range st.orders {
		if len(times) > 1 {
			repeat++
		}
		for i := 1; i < len(times); i++ {
			gaps++
			gapDays += float64(times[i]-times[i-1]) / float64(schemas.Day)
		}
	}
	between(t, "buyers who buy again", float64(repeat)/float64(len(st.orders)), 0.35, 0.9)
	between(t, "days between purchases", gapDays/float64(gaps), 14, 70)
	segments := map[string]int{}
	for user, last := range st.last {
		orders := st.orders[user]
		var since schemas.Millis
		if len(orders) > 0 {
			since = now - orders[len(orders)-1]
		}
		switch {
		case len(orders) > 0 && since >= 180*schemas.Day:
			segments["lost"]++
		case now-last >= 90*schemas.Day:
			segments["dormant"]++
		case len(orders) == 1 && since < 30*schemas.Day:
			segments["new"]++
		case len(orders) > 1 && since < 30*schemas.Day:
			segments["active"]++
		case len(orders) > 0:
			segments["cooling"]++
		default:
			segments["prospect"]++
		}
	}
	t.Logf("segments after %d days: %v", st.days, segments)
	for _, name := range []string{"lost", "dormant", "new", "active", "cooling", "prospect"} {
		between(t, "share of "+name, float64(segments[name])/float64(len(st.last)), 0.01, 0.6)
	}
}

func TestRFC3339(t *testing.T) {
	for i := range 20_000 {
		at := start + schemas.Millis(i)*7_919_777_123%(80*365*schemas.Day)
		offset := 60 * (i % 3)
		want := time.UnixMilli(int64(at)).In(time.FixedZone("", offset*60)).Format("2006-01-02T15:04:05.000Z07:00")
		if got := string(appendRFC3339(nil, at, offset)); got != want {
			t.Fatalf("%d: got %s, want %s", at, got, want)
		}
	}
}

func TestMembers(t *testing.T) {
	v := []byte(`{"event_id":"e","items":[{"price":1,"q":[2,3]}],"price":2.5,"url":"u"}`)
	for _, c := range []struct{ got, want string }{
		{string(set(v, "price", "-1")), `{"event_id":"e","items":[{"price":1,"q":[2,3]}],"price":-1,"url":"u"}`},
		{string(set(v, "items", "7")), `{"event_id":"e","items":7,"price":2.5,"url":"u"}`},
		{string(set(v, "url", "0")), `{"event_id":"e","items":[{"price":1,"q":[2,3]}],"price":2.5,"url":0}`},
		{string(set(v, "new", "0")), `{"event_id":"e","items":[{"price":1,"q":[2,3]}],"price":2.5,"url":"u","new":0}`},
		{string(drop(v, "event_id")), `{"items":[{"price":1,"q":[2,3]}],"price":2.5,"url":"u"}`},
		{string(drop(v, "url")), `{"event_id":"e","items":[{"price":1,"q":[2,3]}],"price":2.5}`},
		{string(drop(v, "none")), string(v)},
	} {
		if c.got != c.want || !json.Valid([]byte(c.got)) {
			t.Errorf("got %s, want %s", c.got, c.want)
		}
	}
}

func TestBadConfig(t *testing.T) {
	_, err := New(Config{Currency: "EURO", Products: -1, Faults: Faults{"lat": 0.1, "late": 2}})
	if err == nil {
		t.Fatal("accepted")
	}
	for _, want := range []string{"EURO", "products", "1990", `unknown fault "lat"`, "fault late: 2"} {
		if !bytes.Contains([]byte(err.Error()), []byte(want)) {
			t.Errorf("%q is not in %v", want, err)
		}
	}
}

func TestFaultsAddUp(t *testing.T) {
	_, err := New(Config{Faults: Faults{"late": 0.6, "duplicate": 0.7}})
	if err == nil || !bytes.Contains([]byte(err.Error()), []byte("the faults' shares add up to 1.3, more than 1")) {
		t.Errorf("got %v, want that the shares add up to more than 1", err)
	}
}

// Records a second that one core makes.
func BenchmarkNext(b *testing.B) {
	for _, n := range []int{5_000, 500_000} {
		b.Run(fmt.Sprintf("shoppers=%d", n), func(b *testing.B) {
			s := shop(b, Config{Seed: 1, Shoppers: n})
			b.ReportAllocs()
			bytes := 0
			for b.Loop() {
				rec, _ := s.Next()
				bytes += len(rec.Value)
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "records/s")
			b.ReportMetric(float64(bytes)/float64(b.N), "value-bytes/record")
		})
	}
}
