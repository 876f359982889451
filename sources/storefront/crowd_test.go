package storefront

import (
	"bytes"
	"testing"

	"footfall/schemas"
)

// A crowd's events are of the contract, none is refused; every user comes, as often as is
// asked for, and each event is known by its id.
func TestCrowd(t *testing.T) {
	for _, c := range []CrowdConfig{
		{Users: 1000, Events: 1000},
		{Users: 1000, Events: 3000},
		{Users: 1000, Events: 20_000, Seed: 7, Uniform: true},
		{Users: 1, Events: 10},
		{Users: 700, Events: 9999, Currency: "USD"},
	} {
		crowd, err := NewCrowd(c)
		if err != nil {
			t.Fatal(err)
		}
		decoder, err := schemas.NewDecoder(schemas.Contract{Currency: "USD", Rates: map[string]string{"EUR": "1.1"}})
		if err != nil {
			t.Fatal(err)
		}
		users, kinds := map[string]int{}, map[schemas.Kind]int{}
		for n := range c.Events {
			at := 1_700_000_000_000 + schemas.Millis(n)
			r := crowd.Next(at)
			var ev schemas.Event
			if err := decoder.Decode(r.Key, r.Value, &ev); err != nil {
				t.Fatalf("%+v: event %d is refused: %v\n%s", c, n, err, r.Value)
			}
			if number, ok := NumberOf(string(ev.ID)); !ok || number != n || ev.At != at || r.Time != at || len(ev.User) != 16 {
				t.Fatalf("%+v: event %d is %s", c, n, r.Value)
			}
			users[string(ev.User)]++
			kinds[ev.Kind]++
		}
		if int64(len(users)) != c.Users {
			t.Errorf("%+v: got %d users", c, len(users))
		}
		most := 0
		for n := range c.Users {
			events := users[crowd.UserID(n)]
			if most = max(most, events); events == 0 {
				t.Fatalf("%+v: user %d never came", c, n)
			}
		}
		if share := float64(kinds[schemas.View]) / float64(c.Events); c.Events >= 1000 && (share < 0.85 || share > 0.95) {
			t.Errorf("%+v: kinds are %v", c, kinds)
		}
		if even := int(c.Events / c.Users); c.Uniform && most > 3*even {
			t.Errorf("%+v: somebody came %d times, and everybody should come as often as everybody else", c, most)
		}
	}
}

// Equal crowds are equal byte for byte.
func TestCrowdRepeats(t *testing.T) {
	a, b := crowdOf(t), crowdOf(t)
	for range 1000 {
		if x, y := a.Next(1_700_000_000_000), b.Next(1_700_000_000_000); !bytes.Equal(x.Value, y.Value) || !bytes.Equal(x.Key, y.Key) {
			t.Fatalf("got %s and %s of one seed", x.Value, y.Value)
		}
	}
}

func TestCrowdMistakes(t *testing.T) {
	for _, c := range []CrowdConfig{{}, {Users: 10, Events: 9}, {Users: 1 << 40, Events: 1 << 41}, {Users: 1, Events: 1, Currency: "EURO"}} {
		if _, err := NewCrowd(c); err == nil {
			t.Errorf("%+v is taken", c)
		}
	}
	for _, id := range []string{"", "e0123456789abcdef", "ec0fa1f0-5f5c-4d9e-8000-00000000zzzz"} {
		if n, ok := NumberOf(id); ok {
			t.Errorf("%q is event %d", id, n)
		}
	}
}

func crowdOf(t testing.TB) *Crowd {
	t.Helper()
	c, err := NewCrowd(CrowdConfig{Users: 1_000_000, Events: 3_000_000})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func BenchmarkCrowd(b *testing.B) {
	c, bytes := crowdOf(b), 0
	for b.Loop() {
		bytes += len(c.Next(1_700_000_000_000).Value)
	}
	b.ReportMetric(float64(bytes)/float64(b.N), "bytes/event")
}
