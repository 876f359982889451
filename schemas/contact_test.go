package schemas

import (
	"fmt"
	"strings"
	"testing"
)

func TestDecodeContactRefuses(t *testing.T) {
	tr := goldenTransitions()["transition-quiet"]
	value := string(tr.AppendJSON(nil, testContext(17)))
	for _, c := range []struct{ old, new, want string }{
		{`"best_hour":18`, `"best_hour":24`, `transition: best_hour: got 24, want a whole number from 0 to 23`},
		{`"best_hour":18`, `"best_hour":null`, `transition: best_hour: got null, want a whole number from 0 to 23`},
		{`"not_before":"2026-01-01T07:00:00.000Z"`, `"not_before":1767250800000`, `transition: not_before: got 1767250800000, want a time`},
		{`"zone":"Europe/Berlin",`, ``, `transition: zone: missing, want a string`},
		{`"zone_from":"event"`, `"zone_from":"guess"`, `transition: zone_from: got "guess", want a known one`},
	} {
		if !strings.Contains(value, c.old) {
			t.Fatalf("no %s in %s", c.old, value)
		}
		_, err := DecodeTransition([]byte(strings.Replace(value, c.old, c.new, 1)), testSets)
		if fmt.Sprint(err) != c.want {
			t.Errorf("%s for %s:\ngot  %v\nwant %s", c.new, c.old, err, c.want)
		}
	}
}
