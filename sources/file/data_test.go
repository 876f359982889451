package file

import (
	"encoding/json"
	"math/big"
	"os"
	"path/filepath"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"

	"footfall/schemas"
)

// dataFile returns a file of the recorded data sets, which are not part of the
// repository.
func dataFile(t *testing.T, name string) string {
	t.Helper()
	folder := os.Getenv("FOOTFALL_TEST_DATA")
	if folder == "" {
		folder = filepath.Join("..", "..", "..", "shared", "data")
	}
	path := filepath.Join(folder, filepath.FromSlash(name))
	if _, err := os.Stat(path); err != nil {
		t.Skipf("the recorded data set is not here (%v); set FOOTFALL_TEST_DATA to the folder that has it", err)
	}
	return path
}

// decoded is an event as a consumer that knows only the contract reads it.
type decoded struct {
	EventID string      `json:"event_id"`
	Type    string      `json:"type"`
	UserID  string      `json:"user_id"`
	Time    int64       `json:"time"`
	Session string      `json:"session_id"`
	Price   json.Number `json:"price"`
	Revenue json.Number `json:"revenue"`
	Order   string      `json:"order_id"`
	Items   []struct {
		Price    json.Number `json:"price"`
		Quantity json.Number `json:"quantity"`
	} `json:"items"`
	Quantity json.Number `json:"quantity"`
}

// amount is the contract's amount in whole units, exactly.
func (d *decoded) amount(t *testing.T) *big.Rat {
	t.Helper()
	rat := func(n json.Number) *big.Rat {
		if n == "" {
			n = "1" // a quantity that was not given
		}
		r, ok := new(big.Rat).SetString(string(n))
		if !ok {
			t.Fatalf("event %s: %q is no number", d.EventID, n)
		}
		return r
	}
	sum := new(big.Rat)
	switch {
	case d.Revenue != "":
		return rat(d.Revenue)
	case len(d.Items) > 0:
		for _, it := range d.Items {
			sum.Add(sum, new(big.Rat).Mul(rat(it.Price), rat(it.Quantity)))
		}
	case d.Price != "":
		return rat(d.Price)
	}
	return sum
}

// tally is what a data set's README tells.
type tally struct {
	Rows, Events int64
	Skipped      map[string]int64
	Types        map[string]int
	Users        map[string]int // by type
	Revenue      map[string]string
	Items        map[string]int
	Orders       map[string]int
	First, Last  schemas.Millis
}

func count(t *testing.T, path, mapping string) tally {
	t.Helper()
	m, err := LoadMapping(mapping)
	if err != nil {
		t.Fatal(err)
	}
	r, err := Open(path, m, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}()
	got := tally{Types: map[string]int{}, Users: map[string]int{}, Revenue: map[string]string{}, Items: map[string]int{}, Orders: map[string]int{}}
	users, orders, money := map[[2]string]bool{}, map[[2]string]bool{}, map[string]*big.Rat{}
	ids := map[string]bool{}
	dec, err := schemas.NewDecoder(schemas.Contract{Currency: "EUR", Rates: map[string]string{"USD": "0.9", "GBP": "1.2"}})
	if err != nil {
		t.Fatal(err)
	}
	for ev, err := range r.Events() {
		if err != nil {
			t.Fatal(err)
		}
		if ev.Time < got.Last {
			t.Fatalf("time goes back from %d to %d: %s", got.Last, ev.Time, ev.Value)
		}
		if got.First == 0 {
			got.First = ev.Time
		}
		got.Last = ev.Time
		var d decoded
		if err := json.Unmarshal(ev.Value, &d); err != nil {
			t.Fatalf("%s: %v", ev.Value, err)
		}
		if d.UserID != string(ev.Key) || d.Time != int64(ev.Time) || ids[d.EventID] {
			t.Fatalf("key %q, time %d, id %q (seen %v) of %s", ev.Key, ev.Time, d.EventID, ids[d.EventID], ev.Value)
		}
		ids[d.EventID] = true
		var accepted schemas.Event
		if err := dec.Decode(ev.Key, ev.Value, &accepted); err != nil {
			t.Fatalf("%s is refused: %v", ev.Value, err)
		}
		got.Types[d.Type]++
		got.Items[d.Type] += len(d.Items)
		users[[2]string{d.Type, d.UserID}] = true
		if d.Type == "purchase" || d.Type == "refund" {
			orders[[2]string{d.Type, d.Order}] = true
			if money[d.Type] == nil {
				money[d.Type] = new(big.Rat)
			}
			money[d.Type].Add(money[d.Type], d.amount(t))
		}
	}
	for k := range users {
		got.Users[k[0]]++
	}
	for k := range orders {
		got.Orders[k[0]]++
	}
	for k, v := range money {
		got.Revenue[k] = v.FloatString(3)
	}
	s := r.Stats()
	got.Rows, got.Events, got.Skipped = s.Rows, s.Events, s.Skipped
	if len(s.Reports) > 0 {
		t.Errorf("malformed rows: %q", s.Reports)
	}
	return got
}

// The numbers of the data sets' own descriptions.
func TestRecordedDataSets(t *testing.T) {
	for _, c := range []struct {
		file, mapping string
		want          tally
	}{
		{"rees46-2019-10-01-sample/events.csv.gz", "rees46", tally{
			Rows: 17_434, Events: 17_434, Skipped: map[string]int64{},
			Types:   map[string]int{"view": 17_055, "add_to_cart": 165, "purchase": 214},
			Users:   map[string]int{"view": 4_504, "add_to_cart": 111, "purchase": 193},
			Revenue: map[string]string{"purchase": "59442.630"},
			Items:   map[string]int{"view": 0, "add_to_cart": 0, "purchase": 0},
			Orders:  map[string]int{"purchase": 214},
			First:   1569888000000, Last: 1569898200000,
		}},
		{"otto-sessions-sample/sessions.jsonl.gz", "otto", tally{
			Rows: 862, Events: 862, Skipped: map[string]int64{},
			Types:   map[string]int{"view": 800, "add_to_cart": 52, "purchase": 10},
			Users:   map[string]int{"view": 20, "add_to_cart": 7, "purchase": 3},
			Revenue: map[string]string{"purchase": "0.000"},
			Items:   map[string]int{"view": 0, "add_to_cart": 0, "purchase": 0},
			Orders:  map[string]int{"purchase": 10},
			First:   1659304800025, Last: 1661723997885,
		}},
		{"online-retail-uci/online_retail.csv.gz", "online-retail", tally{
			Rows: 541_909, Events: 22_186,
			Skipped: map[string]int64{"no_customer": 135_080, "no_price": 40},
			Types:   map[string]int{"purchase": 18_532, "refund": 3_654},
			Users:   map[string]int{"purchase": 4_338, "refund": 1_589},
			Revenue: map[string]string{"purchase": "8911407.904", "refund": "611342.090"},
			Items:   map[string]int{"purchase": 397_884, "refund": 8_905},
			Orders:  map[string]int{"purchase": 18_532, "refund": 3_654},
			First:   1291191960000, Last: 1323435000000,
		}},
		{"cdnow/CDNOW_master.txt.gz", "cdnow", tally{
			Rows: 69_659, Events: 69_659, Skipped: map[string]int64{},
			Types:   map[string]int{"purchase": 69_659},
			Users:   map[string]int{"purchase": 23_570},
			Revenue: map[string]string{"purchase": "2500315.630"},
			Items:   map[string]int{"purchase": 0},
			Orders:  map[string]int{"purchase": 69_659},
			First:   852076800000, Last: 899164800000,
		}},
		{"cdnow/CDNOW_sample.txt.gz", "cdnow-sample", tally{
			Rows: 6_919, Events: 6_919, Skipped: map[string]int64{},
			Types:   map[string]int{"purchase": 6_919},
			Users:   map[string]int{"purchase": 2_357},
			Revenue: map[string]string{"purchase": "244091.940"},
			Items:   map[string]int{"purchase": 0},
			Orders:  map[string]int{"purchase": 6_919},
			First:   852076800000, Last: 899164800000,
		}},
		{"cdnow/CDNOW_sample.txt.gz", "cdnow-calibration", tally{
			Rows: 6_919, Events: 4_814, Skipped: map[string]int64{"after_calibration": 1_959},
			Types:   map[string]int{"purchase": 4_814},
			Users:   map[string]int{"purchase": 2_357},
			Revenue: map[string]string{"purchase": "173115.550"},
			Items:   map[string]int{"purchase": 4_960},
			Orders:  map[string]int{"purchase": 4_814},
			First:   852076800000, Last: 875577600000,
		}},
		{"rfm-r-orders/orders.csv.gz", "rfm-r-orders", tally{
			Rows: 4_906, Events: 4_906, Skipped: map[string]int64{},
			Types:   map[string]int{"purchase": 4_906},
			Users:   map[string]int{"purchase": 995},
			Revenue: map[string]string{"purchase": "464158.000"},
			Items:   map[string]int{"purchase": 0},
			Orders:  map[string]int{"purchase": 4_906},
			First:   1004313600000, Last: 1167436800000,
		}},
	} {
		t.Run(c.mapping, func(t *testing.T) {
			got := count(t, dataFile(t, c.file), c.mapping)
			if diff := gocmp.Diff(c.want, got); diff != "" {
				t.Errorf("%s (-want +got):\n%s", c.file, diff)
			}
		})
	}
}
