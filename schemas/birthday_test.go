package schemas

import (
	"fmt"
	"testing"
	"time"
)

// A birthday is a day that Go's calendar has, in one of two forms.
func TestBirthdayOf(t *testing.T) {
	want := func(text string) string {
		if d, err := time.Parse("2006-01-02", text); err == nil {
			return d.Format("01-02")
		}
		if d, err := time.Parse("--01-02", text); err == nil { // of the year 0, which has a 29 February
			return d.Format("01-02")
		}
		return ""
	}
	check := func(text string) {
		t.Helper()
		if got := string(BirthdayOf([]byte(text))); got != want(text) {
			t.Errorf("%q: got %q, want %q", text, got, want(text))
		}
	}
	for month := range 14 {
		for day := range 33 {
			check(fmt.Sprintf("--%02d-%02d", month, day))
			for _, year := range []int{0, 1600, 1900, 1990, 1999, 2000, 2024, 9999} {
				check(fmt.Sprintf("%04d-%02d-%02d", year, month, day))
			}
		}
	}
	for _, text := range []string{
		"", "-", "--", "--0415", "04-15", "1990", "1990-04", "19900415", "1990-4-15", "15.04.1990", "1990/04/15", "1990-04-15T00:00:00Z",
		"--04-15 ", " --04-15", "--4-15", "-1990-04-15", "199x-04-15", "1990-0x-15", "1990-04-1x", "--04x15", "1990-04x15", "1990x04-15",
		"\xff\xff04-15", "--+4-15", "+990-04-15",
	} {
		check(text)
	}
}
