package worker

import (
	"fmt"
	"strings"
	"testing"

	"footfall/pipeline/segment"
)

// tens writes so many segments, ten to a set, whose rules look at what ask names: %d is
// a number, another one in each, which no user reaches.
func tens(segments int, name, ask string) (files []segment.File) {
	for set := 0; set*10 < segments; set++ {
		var b strings.Builder
		fmt.Fprintf(&b, "set: %s%d\nsegments:\n", name, set)
		for i := range min(10, segments-set*10) - 1 {
			fmt.Fprintf(&b, "  - {name: s%d, when: '%s'}\n", i, fmt.Sprintf(ask, 1_000_000*(set+1)-10*i))
		}
		b.WriteString("  - {name: rest, otherwise: true}\n")
		files = append(files, segment.File{Name: fmt.Sprintf("%s%d.yaml", name, set), Text: []byte(b.String())})
	}
	return files
}

// BenchmarkSegments is what an event costs (adding to a cart, by known users) by how many
// segments there are: each of which it may change, or none but one, as with most events of
// a shop and most of its segments.
func BenchmarkSegments(b *testing.B) {
	for _, c := range []struct{ name, ask string }{
		{"all", `count("add_to_cart", days(30)) >= %d`},
		{"one", `revenue(days(90)) >= %d.00 && orders(days(90)) >= 2`},
	} {
		for _, n := range []int{1, 2, 5, 10, 20, 50, 100, 200} {
			b.Run(fmt.Sprintf("touched=%s/segments=%d", c.name, n), func(b *testing.B) {
				files := tens(n, "set", c.ask)
				if c.name == "one" {
					files = append(tens(2, "touched", `count("add_to_cart", days(30)) >= %d`), tens(n-1, "set", c.ask)...)
				}
				rules, err := segment.Compile(segment.Options{Exponent: 2}, files...)
				if err != nil {
					b.Fatal(err)
				}
				newShop(b, 10_000, rules).measure(b, stage{"apply", "event", true, 1000, (*shop).apply})
			})
		}
	}
}
