package segment

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"footfall/pipeline/profile"
	"footfall/schemas"
)

// naiveContact finds out when a user is best spoken to, out of all events.
func naiveContact(events []schemas.Event, at schemas.Millis, q Quiet, shop string) schemas.Contact {
	loc, err := time.LoadLocation(shop)
	if err != nil {
		panic(err)
	}
	c := schemas.Contact{Zone: shop, ZoneFrom: schemas.ZoneShop, BestHour: -1}
	if first := naiveNight(events); first >= 0 {
		ahead := -first
		if ahead < -11 {
			ahead += 24
		}
		sign := "+"
		if ahead < 0 {
			sign = "-"
		}
		c.Zone, c.ZoneFrom = fmt.Sprintf("UTC%s%02d:00", sign, max(ahead, -ahead)), schemas.ZoneActivity
		loc = time.FixedZone("", ahead*3600)
	}
	told := schemas.Event{}
	for _, ev := range events {
		if len(ev.Timezone) > 0 && (told.Timezone == nil || ev.At > told.At || ev.At == told.At && profile.HashText(ev.Timezone) < profile.HashText(told.Timezone)) {
			told = ev
		}
	}
	if slices.Contains(strings.Split(zoneNames, "\n"), string(told.Timezone)) && told.Timezone != nil {
		c.Zone, c.ZoneFrom = string(told.Timezone), schemas.ZoneEvent
		if loc, err = time.LoadLocation(c.Zone); err != nil {
			panic(err)
		}
	}
	if len(events) >= 5 {
		// Each event stands for the middle of its hour, and the clock for how it goes now.
		_, offset := time.UnixMilli(int64(at)).In(loc).Zone()
		count := map[int]int{}
		for _, ev := range events {
			middle := time.UnixMilli(int64(ev.At)).UTC().Truncate(time.Hour).Add(30*time.Minute + time.Duration(offset)*time.Second)
			count[middle.Hour()]++
		}
		most := 0
		for hour := 23; hour >= 0; hour-- {
			if count[hour] >= most {
				c.BestHour, most = int8(hour), count[hour]
			}
		}
	}
	if after := naiveAfter(q, at, loc); after != at {
		c.NotBefore = after
	}
	return c
}

// naiveNight gives the hour in UTC at which a user's night begins, or -1: it tries all.
func naiveNight(events []schemas.Event) int {
	within := func(first int) (n int) {
		for _, ev := range events {
			if (time.UnixMilli(int64(ev.At)).UTC().Hour()-first+24)%24 < 8 {
				n++
			}
		}
		return n
	}
	if len(events) < 20 {
		return -1
	}
	least := len(events)
	for first := range 24 {
		least = min(least, within(first))
	}
	if 10*least >= len(events) {
		return -1
	}
	best, longest := -1, 0
	for first := range 24 {
		run := 0
		for within((first+run)%24) == least {
			run++
		}
		if run > longest && within((first+23)%24) != least {
			best, longest = first, run
		}
	}
	return best
}

// someDays is what somebody does who lives somewhere, and may tell so.
func someDays(rng *rand.Rand) (events []schemas.Event) {
	awake, ahead := 1+rng.IntN(24), rng.IntN(24)
	tells := []string{"", "Europe/Berlin", "Asia/Kolkata", "Australia/Lord_Howe", "Mars/Olympus", "Local", "US/Pacific", "America/New_York "}
	at := start
	for range rng.IntN(60) {
		at += schemas.Millis(rng.Int64N(int64(3 * day)))
		local := at - at%day + schemas.Millis(ahead+rng.IntN(awake))*schemas.Hour + schemas.Millis(rng.Int64N(int64(schemas.Hour)))
		ev := schemas.Event{At: local, Kind: schemas.Kind(rng.IntN(int(schemas.Kinds))), Quantity: 1_000_000}
		if rng.IntN(50) == 0 {
			ev.At += schemas.Millis(rng.Int64N(int64(day)))
		}
		if tell := tells[rng.IntN(len(tells))]; tell != "" && rng.IntN(30) == 0 {
			ev.Timezone = []byte(tell)
		}
		events = append(events, ev)
	}
	return events
}

func quietSets(t testing.TB, q Quiet, shop string) *Program {
	t.Helper()
	set := func(name, more string) File {
		return File{name + ".yaml", []byte("set: " + name + "\n" + more + "segments:\n  - name: bought\n    when: orders() > 0\n  - name: rest\n    otherwise: true\n")}
	}
	p, err := Compile(Options{Exponent: 2, Zone: shop, Quiet: Quiet{23 * 60, 7 * 60}}, set("own", "quiet: "+q.String()+"\n"), set("shops", ""), set("loud", "zone: Asia/Tokyo\nquiet: none\n"))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// A contact is what all events of the user say, in whichever order they came.
func TestContactIsTheNaiveOne(t *testing.T) {
	from := map[schemas.ZoneSource]int{}
	for seed := range uint64(400) {
		rng := rand.New(rand.NewPCG(seed, 12))
		q, shop := someQuiet(rng), []string{"UTC", "Europe/Lisbon", "America/Sao_Paulo"}[rng.IntN(3)]
		p := quietSets(t, q, shop)
		events := someDays(rng)
		rows := profile.NewRows(p.Layout())
		rows.Append()
		rows.Append()
		for _, i := range rng.Perm(len(events)) {
			rows.Fold(1, &events[i], start)
		}
		e := p.Evaluator()
		for range 5 {
			at := start + schemas.Millis(rng.Int64N(int64(700*day)))
			for set, q := range []Quiet{q, {23 * 60, 7 * 60}, {}} {
				got := e.Contact(rows.View(1), set, at, nil)
				if diff := cmp.Diff(naiveContact(events, at, q, shop), got); diff != "" {
					t.Fatalf("seed %d, quiet %s, at %s (-naive +got):\n%s", seed, q, time.UnixMilli(int64(at)).UTC(), diff)
				}
				from[got.ZoneFrom]++
			}
			if got, want := e.Contact(rows.View(1), 0, at, []int{0, 1}), naiveContact(nil, at, q, shop); got != want {
				t.Fatalf("seed %d: without their history: got %+v, want %+v", seed, got, want)
			}
		}
	}
	for _, z := range []schemas.ZoneSource{schemas.ZoneEvent, schemas.ZoneActivity, schemas.ZoneShop} {
		if from[z] < 500 {
			t.Errorf("zones from %s: %d, which is too few", z, from[z])
		}
	}
}

// The night is where people in a zone sleep, as far as the clock there goes by whole hours.
func TestTheNightIsFound(t *testing.T) {
	for ahead := -11; ahead <= 12; ahead++ {
		for _, c := range []struct {
			what     string
			from, to int // awake, local
			east     int // hours that the guess is wrong
		}{{"all day", 8, 24, 0}, {"short nights", 7, 24, 1}, {"noon to midnight", 12, 24, 0}, {"evenings", 18, 23, 1}, {"office hours", 9, 18, 6}} {
			var h dayHours
			for hour := c.from; hour < c.to; hour++ {
				h[(hour-ahead+24)%24] = 10
			}
			got, found := h.ahead()
			if want := (ahead+c.east+west+24)%24 - west; got != want || !found {
				t.Errorf("%s at UTC%+d: got %d, %v, want %d", c.what, ahead, got, found, want)
			}
		}
	}
	for _, h := range []dayHours{{}, {0: 19}, {0: 10, 8: 10, 16: 10}} {
		if ahead, found := h.ahead(); found {
			t.Errorf("%v: got %d, want none", h, ahead)
		}
	}
}

// Cells are kept for quiet hours only where a set has some, and are those that rules
// which ask the same have.
func TestWhatQuietHoursCost(t *testing.T) {
	cells := func(p *Program) (names []string) {
		for _, c := range p.Layout().Cells() {
			names = append(names, c.Name)
		}
		return names
	}
	if got := cells(quietSets(t, Quiet{60, 120}, "UTC")); len(got) != 2 {
		t.Errorf("got cells %q, want two", got)
	}
	rules := "set: s\nquiet: %s\nsegments:\n  - name: a\n    when: top_hour(\"any\") > 3 || last_value(\"any\", event.timezone) == \"UTC\"\n  - name: b\n    otherwise: true\n"
	loud, err := Compile(Options{}, File{"s.yaml", fmt.Appendf(nil, rules, "none")})
	if err != nil {
		t.Fatal(err)
	}
	quiet, err := Compile(Options{}, File{"s.yaml", fmt.Appendf(nil, rules, "21:00-08:00")})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(cells(loud), cells(quiet)); diff != "" || len(cells(loud)) != 2 {
		t.Errorf("cells (-asked by rules +and by quiet hours):\n%s", diff)
	}
	if loud.Hash() != quiet.Hash() {
		t.Error("quiet hours decide no segment, and change the rules' hash")
	}
	if got := Lifecycle(0).Evaluator().Contact(profile.View{}, 0, start, nil); got != (schemas.Contact{}) {
		t.Errorf("without quiet hours: got %+v, want nothing", got)
	}
}

// What quiet hours keep is told of the sets that have some.
func TestQuietHoursAreDescribed(t *testing.T) {
	all := quietSets(t, Quiet{60, 120}, "UTC").Describe()
	for i, want := range []string{`quiet: "01:00-02:00"`, `quiet: "23:00-07:00"`, ""} {
		d := all[i]
		if want == "" {
			if len(d.Kept) > 0 {
				t.Errorf("%s: got %+v, want nothing kept", d.Set, d.Kept)
			}
			continue
		}
		if len(d.Kept) != 2 || d.Bytes != 20 || !slices.Contains(d.Kept[0].Asked, want) || !slices.Contains(d.Kept[1].Asked, want) {
			t.Errorf("%s: got %+v, want two kept for %s", d.Set, d.Kept, want)
		}
	}
}

func TestContactAllocatesNothing(t *testing.T) {
	p := quietSets(t, Quiet{21 * 60, 8 * 60}, "UTC")
	rows := profile.NewRows(p.Layout())
	rows.Append()
	e := p.Evaluator()
	for i, zone := range []string{"", "", "Europe/Berlin"} {
		for j := range 10 {
			rows.Fold(0, &schemas.Event{At: start + schemas.Millis(i*10+j)*schemas.Minute, Timezone: []byte(zone)}, start)
		}
		if n := testing.AllocsPerRun(100, func() { e.Contact(rows.View(0), 0, start, nil) }); n != 0 {
			t.Errorf("zone %q: got %v allocations, want 0", zone, n)
		}
	}
}

func BenchmarkContact(b *testing.B) {
	p := quietSets(b, Quiet{21 * 60, 8 * 60}, "Europe/Berlin")
	rows := profile.NewRows(p.Layout())
	rows.Append()
	for i := range 24 {
		rows.Fold(0, &schemas.Event{At: start + schemas.Millis(i)*schemas.Hour}, start)
	}
	e := p.Evaluator()
	b.ReportAllocs()
	for b.Loop() {
		e.Contact(rows.View(0), 0, start, nil)
	}
}
