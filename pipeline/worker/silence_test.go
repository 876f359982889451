package worker

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"footfall/pipeline/segment"
	"footfall/schemas"
)

// Silence is said at the exact millisecond, whatever the window and the zone, and
// whenever anybody looks: ticks are seconds to weeks apart, with snapshots and crashes
// between them. What is expected is worked out by hand: a duration is added, and a day,
// week, month or year begins where a search minute by minute finds its first moment.
func TestSilenceIsExact(t *testing.T) {
	seeds(t, 400, func(t *testing.T, rng *rand.Rand) {
		zone := zonesOfTest[rng.IntN(len(zonesOfTest))]
		loc, err := time.LoadLocation(zone)
		if err != nil {
			t.Fatal(err)
		}
		seen := schemas.Millis(time.Date(2015+rng.IntN(12), time.Month(1+rng.IntN(12)), 1+rng.IntN(31), rng.IntN(24), rng.IntN(60), rng.IntN(60), rng.IntN(1e9), time.UTC).UnixMilli())
		var files []segment.File
		var want []string
		until := seen + 800*schemas.Day
		for i, r := range silences(rng, seen, loc) {
			name := fmt.Sprintf("set%d", i)
			files = append(files, segment.File{Name: name, Text: fmt.Appendf(nil, "set: %s\nzone: %s\nsegments:\n  - {name: yes, when: '%s'}\n  - {name: no, otherwise: true}\n", name, zone, r.rule)})
			for _, m := range r.moves {
				if m.at <= until {
					want = append(want, fmt.Sprintf("%s of %s: %s at %d", name, r.rule, m.to, m.at))
				}
			}
		}
		slices.Sort(want)
		cfg := config(t)
		if cfg.Rules, err = segment.Compile(segment.Options{Exponent: 2}, files...); err != nil {
			t.Fatal(err)
		}
		got := silence(t, rng, cfg, files, view(0, "u", seen), until)
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("zone %s, seen %s (-want +got):\n%s", zone, time.UnixMilli(int64(seen)).In(loc), d)
		}
	})
}

// zonesOfTest change their clocks at midnight, by half an hour, over the date line, at
// the end of the year, and not at all.
var zonesOfTest = []string{
	"UTC", "Europe/Berlin", "America/New_York", "America/Sao_Paulo", "America/Santiago", "Australia/Lord_Howe",
	"Pacific/Apia", "Asia/Kathmandu", "Africa/Casablanca", "Asia/Beirut",
}

// move is a transition that is expected.
type move struct {
	to string
	at schemas.Millis
}

// silent is a rule, and where it puts a user who was seen once.
type silent struct {
	rule  string
	moves []move
}

// silences are a rule of each kind, with a random window.
func silences(rng *rand.Rand, seen schemas.Millis, loc *time.Location) []silent {
	span, text := randomSpan(rng)
	unit := []string{"day", "week", "month", "quarter", "year"}[rng.IntN(5)]
	ends := firstMoment(loc, seen, unit, 1)
	after := firstMoment(loc, seen, unit, 2)
	all := []silent{
		{fmt.Sprintf("since(last()) >= %s", text), []move{{"no", seen}, {"yes", seen + span}}},
		{fmt.Sprintf(`count("view", %s) > 0`, text), []move{{"yes", seen}, {"no", seen + span}}},
		{fmt.Sprintf(`distinct("any", event.session_id, %s) == 0 && since(first("view")) > %s`, text, text), []move{{"no", seen}, {"yes", seen + span + 1}}},
		{fmt.Sprintf(`count("view", calendar("%s")) == 0`, unit), []move{{"no", seen}, {"yes", ends}}},
		{fmt.Sprintf(`count("view", calendar("%s", 1)) == 1`, unit), []move{{"no", seen}, {"yes", ends}, {"no", after}}},
	}
	day := silent{"anniversary(first())", []move{{"no", seen}}}
	born := time.UnixMilli(int64(seen)).In(loc)
	for year := born.Year() + 1; year < born.Year()+4; year++ {
		date := time.Date(year, born.Month(), born.Day(), 12, 0, 0, 0, time.UTC) // 29 February is 1 March
		day.moves = append(day.moves, move{"yes", dayBegins(loc, date)}, move{"no", dayBegins(loc, date.AddDate(0, 0, 1))})
	}
	return append(all, day)
}

// randomSpan is minutes to two years.
func randomSpan(rng *rand.Rand) (schemas.Millis, string) {
	switch rng.IntN(3) {
	case 0:
		n := 1 + rng.IntN(600)
		return schemas.Millis(n) * schemas.Minute, fmt.Sprintf("minutes(%d)", n)
	case 1:
		n := 1 + rng.IntN(100)
		return schemas.Millis(n) * schemas.Hour, fmt.Sprintf("hours(%d)", n)
	}
	n := 1 + rng.IntN(730)
	return schemas.Millis(n) * schemas.Day, fmt.Sprintf("days(%d)", n)
}

// firstMoment is when the period that at is in has ended n times.
func firstMoment(loc *time.Location, at schemas.Millis, unit string, n int) schemas.Millis {
	y, m, d := time.UnixMilli(int64(at)).In(loc).Date()
	date := time.Date(y, m, d, 12, 0, 0, 0, time.UTC)
	switch unit {
	case "day":
		date = date.AddDate(0, 0, n)
	case "week":
		for date.Weekday() != time.Monday {
			date = date.AddDate(0, 0, -1)
		}
		date = date.AddDate(0, 0, 7*n)
	case "month":
		date = time.Date(y, m+time.Month(n), 1, 12, 0, 0, 0, time.UTC)
	case "quarter":
		for (date.Month()-1)%3 != 0 {
			date = date.AddDate(0, 0, -date.Day())
		}
		date = time.Date(date.Year(), date.Month()+time.Month(3*n), 1, 12, 0, 0, 0, time.UTC)
	case "year":
		date = time.Date(y+n, 1, 1, 12, 0, 0, 0, time.UTC)
	}
	return dayBegins(loc, date)
}

// dayBegins looks for the first minute that is of a date, or of a later one where the
// zone has left it out.
func dayBegins(loc *time.Location, date time.Time) schemas.Millis {
	want := date.Format("2006-01-02")
	for t := date.Add(-40 * time.Hour); ; t = t.Add(time.Minute) {
		if t.In(loc).Format("2006-01-02") >= want {
			return schemas.Millis(t.UnixMilli())
		}
	}
}

// silence gives what a worker says of one record and of the silence after it.
func silence(t *testing.T, rng *rand.Rand, cfg Config, files []segment.File, r Record, until schemas.Millis) (told []string) {
	w := newWorld(t, cfg, 0)
	w.log = []Record{r}
	w.apply(w.log, Conditions{Wall: r.Time})
	for clock := r.Time; clock < until; {
		step := []schemas.Millis{schemas.Second, schemas.Minute, schemas.Hour, schemas.Day, 20 * schemas.Day}[rng.IntN(5)]
		clock = min(until, clock+1+schemas.Millis(rng.Int64N(int64(step)*int64(1+rng.IntN(30)))))
		at := Conditions{Wall: clock, Tick: clock}
		w.apply(nil, at)
		w.settle(at)
		switch rng.IntN(12) {
		case 0:
			w.commit()
		case 1:
			w.snapshot(t, clock, 1<<20)
			w.commit()
		case 2:
			w.crash(t, rng.IntN(len(w.snapshots)), w.cfg, Conditions{Wall: clock})
			w.apply(w.between(w.committed.Next, r.Offset+1), Conditions{Wall: clock})
		}
	}
	w.apply(nil, Conditions{Wall: until, Tick: until}) // after a crash at the end
	w.settle(Conditions{Wall: until, Tick: until})
	for _, it := range w.said {
		tr := it.Transition
		names := cfg.Rules.Names()[tr.Set]
		_, rule, _ := strings.Cut(string(files[tr.Set].Text), "when: '")
		rule, _, _ = strings.Cut(rule, "'")
		told = append(told, fmt.Sprintf("%s of %s: %s at %d", names.Name, rule, names.Segments[tr.To], tr.At))
	}
	slices.Sort(told)
	return told
}
