package storefront

import (
	"math"
	"math/rand/v2"
)

// The shop's words. The tables never change.
//
//nolint:gochecknoglobals // tables
var (
	categories = [...]string{
		"home.kitchen", "home.garden", "apparel.women", "apparel.men", "apparel.shoes", "electronics.audio",
		"electronics.phones", "sport.outdoor", "toys", "books", "beauty", "food.coffee",
	}
	brands    = [...]string{"", "acme", "norda", "lumen", "kite", "oakley & sons", "terra", "vela", "mono", "fjell"}
	channels  = [...]string{"direct", "organic", "email", "paid", "social", "affiliate"}
	campaigns = [...]string{"", "spring", "newsletter", "last_chance", "brand", "winback"}
	queries   = [...]string{"shoes", "gift", "coffee", "red dress", "headphones", "tent", "lego", "serum"}
)

// channel draws how a visit began.
func (s *Shop) channel() uint8 {
	switch r := s.rng.IntN(100); {
	case r < 30:
		return 0
	case r < 55:
		return 1
	case r < 70:
		return 2
	case r < 85:
		return 3
	case r < 95:
		return 4
	default:
		return 5
	}
}

// paid tells whether a channel has campaigns.
func paid(channel uint8) bool { return channel >= 2 && channel <= 4 }

// zipfExponent is that of the products' popularity: the k-th is looked at about
// 1/k^1.07 as often as the first.
const zipfExponent = 1.07

// catalog is the products, the most popular first. Product k is of category
// k mod len(categories).
type catalog struct {
	prices []int64 // minor units
	zipf   zipf
}

func newCatalog(rng *rand.Rand, n int) *catalog {
	c := &catalog{prices: make([]int64, n), zipf: newZipf(n, zipfExponent)}
	for i := range c.prices {
		price := int64(2500 * math.Exp(0.9*rng.NormFloat64()))
		c.prices[i] = min(max(price, 200), 250_000)/10*10 + 9 // ends on 9, as prices do
	}
	return c
}

func (c *catalog) price(product uint32) int64 { return c.prices[product] }

// choose draws a product: by popularity, and every other time moved into the
// shopper's favourite category.
func (c *catalog) choose(rng *rand.Rand, taste uint16) uint32 {
	k := c.zipf.draw(rng)
	if rng.IntN(2) == 0 {
		if moved := k - k%len(categories) + int(taste); moved < len(c.prices) {
			k = moved
		}
	}
	return uint32(k)
}

func category(product uint32) string { return categories[int(product)%len(categories)] }

// brand gives some products none.
func brand(product uint32) string { return brands[int(product*7/3)%len(brands)] }

// zipf draws ranks from 0 with probability proportional to 1/(rank+1)^s by Vose's
// alias method (IEEE Trans. Software Eng. 17(9), 1991): O(1) a draw, without the
// logarithms of rejection sampling.
type zipf struct {
	chance []float64
	alias  []int32
}

func newZipf(n int, s float64) zipf {
	z := zipf{chance: make([]float64, n), alias: make([]int32, n)}
	sum := 0.0
	for i := range z.chance {
		z.chance[i] = math.Pow(float64(i+1), -s)
		sum += z.chance[i]
	}
	var small, large []int32
	for i := range z.chance {
		z.chance[i] *= float64(n) / sum
		z.alias[i] = int32(i)
		if z.chance[i] < 1 {
			small = append(small, int32(i))
		} else {
			large = append(large, int32(i))
		}
	}
	for len(small) > 0 && len(large) > 0 {
		a, b := small[len(small)-1], large[len(large)-1]
		small = small[:len(small)-1]
		z.alias[a] = b
		z.chance[b] -= 1 - z.chance[a]
		if z.chance[b] < 1 {
			large = large[:len(large)-1]
			small = append(small, b)
		}
	}
	for _, rest := range [][]int32{small, large} { // full, but for rounding
		for _, i := range rest {
			z.chance[i] = 1
		}
	}
	return z
}

func (z *zipf) draw(rng *rand.Rand) int {
	i := rng.IntN(len(z.chance))
	if rng.Float64() < z.chance[i] {
		return i
	}
	return int(z.alias[i])
}
