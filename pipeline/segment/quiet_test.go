package segment

import (
	"archive/zip"
	"math/rand/v2"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"footfall/schemas"
)

// Every zone that is listed can be loaded, and every one that Go has is listed.
func TestTheZonesAreGos(t *testing.T) {
	names := strings.Fields(zoneNames)
	if !slices.IsSorted(names) {
		t.Error("zones.txt is not sorted")
	}
	zones, err := zonesByHash()
	if err != nil {
		t.Fatal(err)
	}
	if len(zones) != len(names) || len(names) < 500 {
		t.Errorf("got %d zones of %d names: two have one hash", len(zones), len(names))
	}
	for _, c := range []struct {
		name string
		want bool
	}{{"Europe/Berlin", true}, {"UTC", true}, {"Zulu", true}, {"Africa/Abidjan", true}, {"", false}, {"Local", false}, {"europe/berlin", false}, {"Europe", false}, {"Factory", false}, {"UTC\nZulu", false}, {"\nUTC", false}, {"Abidjan", false}} {
		if got := IsZone(c.name); got != c.want {
			t.Errorf("%q: got %v, want %v", c.name, got, c.want)
		}
	}
	root, err := exec.CommandContext(t.Context(), "go", "env", "GOROOT").Output()
	if err != nil {
		t.Skipf("go env GOROOT: %v", err)
	}
	database, err := zip.OpenReader(filepath.Join(strings.TrimSpace(string(root)), "lib", "time", "zoneinfo.zip"))
	if err != nil {
		t.Skipf("Go's database of zones is not here: %v", err)
	}
	defer database.Close()
	for _, f := range database.File {
		if name := f.Name; !strings.HasSuffix(name, "/") && name != "Factory" && !IsZone(name) {
			t.Errorf("%s is missing in zones.txt", name)
		}
	}
}

func TestQuietIsReadAsWritten(t *testing.T) {
	for _, text := range []string{"none", "21:00-08:00", "00:00-00:01", "23:59-00:00", "12:30-13:45"} {
		q, err := ParseQuiet(text)
		if err != nil || q.String() != text {
			t.Errorf("%s: got %s, %v", text, q, err)
		}
	}
	for _, text := range []string{"", "None", "21-08", "21:00", "21:00-24:00", "9:00-10:00", "21:00 - 08:00", "21:60-08:00", "08:00-08:00", "00:00-00:00", "21:00-08:00 "} {
		if q, err := ParseQuiet(text); err == nil {
			t.Errorf("%q: got %s, want an error", text, q)
		}
	}
}

// naiveQuiet looks at a clock on a wall.
func naiveQuiet(q Quiet, at schemas.Millis, loc *time.Location) bool {
	if q.None() {
		return false
	}
	now := time.UnixMilli(int64(at)).In(loc).Format("15:04")
	from, to := q.String()[:5], q.String()[6:]
	if from < to {
		return from <= now && now < to
	}
	return from <= now || now < to
}

// naiveAfter waits, minute by minute, until it is not quiet. The zones of today are whole
// minutes from UTC.
func naiveAfter(q Quiet, at schemas.Millis, loc *time.Location) schemas.Millis {
	for naiveQuiet(q, at, loc) {
		at += schemas.Minute - at%schemas.Minute
	}
	return at
}

// someMoment is within 40 years from 2000 on, often near a change of the clocks.
func someMoment(rng *rand.Rand, loc *time.Location) schemas.Millis {
	from := time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)
	at := from.Add(time.Duration(rng.IntN(40*365*24*60*60*1000)) * time.Millisecond)
	if _, changes := at.In(loc).ZoneBounds(); !changes.IsZero() && rng.IntN(2) == 0 && changes.Year() < 2040 {
		at = changes.Add(time.Duration(rng.IntN(48*60*60*1000)-36*60*60*1000) * time.Millisecond)
	}
	if rng.IntN(3) == 0 {
		at = at.Truncate(15 * time.Minute).Add(time.Duration(rng.IntN(3)-1) * time.Millisecond)
	}
	return schemas.Millis(at.UnixMilli())
}

func someQuiet(rng *rand.Rand) Quiet {
	if rng.IntN(2) == 0 {
		return Quiet{From: 15 * rng.IntN(96), To: 15 * rng.IntN(96)} // may be none
	}
	return Quiet{From: rng.IntN(24 * 60), To: rng.IntN(24 * 60)}
}

// Quiet hours end when a clock on the wall says so, in every zone, whatever is done to
// the clocks meanwhile.
func TestQuietHoursEndAsOnTheWall(t *testing.T) {
	names := strings.Fields(zoneNames)
	often := []string{"Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "America/Sao_Paulo", "Asia/Kolkata", "Pacific/Apia", "Africa/Casablanca", "Antarctica/Troll", "Asia/Tehran", "America/Caracas", "Asia/Pyongyang"}
	quiet, changed := 0, 0
	for seed := range uint64(10_000) {
		rng := rand.New(rand.NewPCG(seed, 11))
		name := often[rng.IntN(len(often))]
		if rng.IntN(2) == 0 {
			name = names[rng.IntN(len(names))]
		}
		z, err := loadZone(name)
		if err != nil {
			t.Fatal(err)
		}
		q, at := someQuiet(rng), someMoment(rng, z.loc)
		if q.None() {
			continue
		}
		got, want := z.after(q, at), naiveAfter(q, at, z.loc)
		if got != want {
			t.Fatalf("seed %d: %s in %s: quiet %s: got %s, want %s", seed, time.UnixMilli(int64(at)).UTC(), name, q, time.UnixMilli(int64(got)).In(z.loc), time.UnixMilli(int64(want)).In(z.loc))
		}
		if got != at {
			quiet++
			if _, changes := time.UnixMilli(int64(at)).In(z.loc).ZoneBounds(); !changes.IsZero() && changes.UnixMilli() <= int64(got) {
				changed++
			}
		}
	}
	if quiet < 3000 || changed < 300 {
		t.Errorf("%d moments were quiet, and in %d of them the clocks were changed: too few", quiet, changed)
	}
}

// Years from which on Go extends what is known of a zone have quiet hours that end, too.
func TestQuietHoursEndInYearsToCome(t *testing.T) {
	for _, name := range []string{"Europe/Berlin", "America/New_York", "Africa/Cairo"} {
		z, err := loadZone(name)
		if err != nil {
			t.Fatal(err)
		}
		q := Quiet{From: 21 * 60, To: 8 * 60}
		for day := time.Date(2040, 12, 25, 22, 0, 0, 0, z.loc); day.Year() < 2042; day = day.AddDate(0, 0, 1) {
			at := schemas.Millis(day.UnixMilli())
			if got, want := z.after(q, at), naiveAfter(q, at, z.loc); got != want {
				t.Fatalf("%s in %s: got %s, want %s", day, name, time.UnixMilli(int64(got)).In(z.loc), time.UnixMilli(int64(want)).In(z.loc))
			}
		}
	}
}
