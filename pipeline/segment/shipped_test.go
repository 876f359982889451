package segment

import (
	"testing"

	"footfall/schemas/segments"
)

// Every shipped set compiles, alone and with all others; nobody is out of reach.
func TestShippedSets(t *testing.T) {
	for _, name := range segments.Names() {
		p, err := Shipped(Options{Exponent: 2}, name)
		if err != nil {
			t.Errorf("%v", err)
			continue
		}
		t.Logf("%-16s %3d segments, %4d bytes a user", name, len(p.Names()[0].Segments), p.Layout().Bytes())
	}
	if _, err := Shipped(Options{Exponent: 2}, segments.Names()...); err != nil {
		t.Error(err)
	}
}
