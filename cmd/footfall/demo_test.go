package main

import (
	"strings"
	"testing"
	"time"
)

// The shop's past is as long as can be published before a person has lost patience,
// however fast its time runs.
func TestDemoPast(t *testing.T) {
	for _, c := range []struct {
		speed, history string
		rate           float64
		want           time.Duration
		err            string
	}{
		{"86400x", "", 1500, pastDefault, ""},
		{"1x", "", 50, 100 * time.Minute, ""},
		{"1x", "2h", 50, 2 * time.Hour, ""},
		{"86400x", "400d", 1500, 400 * 24 * time.Hour, ""},
		{"1x", "60d", 100, 0, "--history 60d: at --rate 100 and --speed 1x that is more than 5,000,000 events to publish before the shop opens; want at most 13h53m"},
		{"1x", "soon", 100, 0, `--history "soon": want a duration`},
	} {
		o := demoOptions{speed: c.speed, rate: c.rate, history: c.history}
		speed, err := o.factor()
		if err != nil {
			t.Fatal(err)
		}
		got, err := o.past(speed)
		switch {
		case c.err == "" && (err != nil || got != c.want):
			t.Errorf("%+v: got %s, %v, want %s", c, got, err, c.want)
		case c.err != "" && (err == nil || !strings.HasPrefix(err.Error(), c.err)):
			t.Errorf("%+v: got %v, want %s", c, err, c.err)
		}
	}
}
