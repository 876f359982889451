package schemas

import (
	"fmt"
	"math/rand/v2"
	"testing"
)

// typical is an event of about 260 bytes, as storefronts send most.
const typical = `{"event_id":"01JGZ4T3Q8W1K9M2N5P7R0S3T6","type":"add_to_cart","user_id":"u-48151623",` +
	`"time":"2026-01-01T12:34:56.789+01:00","session_id":"s-8f2e41c9","product_id":"p-100482",` +
	`"category":"electronics.audio","price":129.90,"quantity":1,"currency":"EUR","cart_id":"c-77120"}`

func newDecoder(tb testing.TB) *Decoder {
	tb.Helper()
	d, err := NewDecoder(Contract{Currency: "EUR", Rates: map[string]string{
		"USD": "0.91", "JPY": "0.0061", "KWD": "3.0000000001",
	}})
	if err != nil {
		tb.Fatal(err)
	}
	return d
}

func BenchmarkDecode(b *testing.B) {
	purchase := `{"event_id":"e1","type":"purchase","user_id":"u-48151623","time":1767225600000,"order_id":"o1","currency":"USD",` +
		`"items":[{"product_id":"p1","category":"shoes","price":59.95,"quantity":2},{"product_id":"p2","price":7.5}],"tax":2.1,"coupon":"X"}`
	for _, c := range []struct{ name, value string }{{"typical", typical}, {"purchase", purchase}} {
		b.Run(c.name, func(b *testing.B) {
			d := newDecoder(b)
			key, value := []byte("u-48151623"), []byte(c.value)
			var ev Event
			b.SetBytes(int64(len(value)))
			b.ReportAllocs()
			for b.Loop() {
				if err := d.Decode(key, value, &ev); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
		})
	}
}

// stream makes events of many users as one sender sends them, one after another in time:
// the fields of one are nearly those of the next, and what is in them is not.
func stream(n int) (keys, values [][]byte) {
	r := rand.New(rand.NewPCG(1, 1))
	at := Millis(1_767_225_600_000)
	for range n {
		at += Millis(r.IntN(3000))
		user, product, kind := r.IntN(1_000_000), r.IntN(500), r.IntN(100)
		b := fmt.Appendf(nil, `{"event_id":"%08x-%04x-4%03x-9%03x-%012x","type":"`, r.Uint32(), r.IntN(1<<16), r.IntN(1<<12), r.IntN(1<<12), r.Uint64N(1<<48))
		switch {
		case kind < 90:
			b = append(b, "view"...)
		case kind < 97:
			b = append(b, "add_to_cart"...)
		default:
			b = append(b, "purchase"...)
		}
		b = appendTime(fmt.Appendf(b, `","user_id":"u%07d","session_id":"s%08x","time":`, user, r.Uint32()), at)
		b = fmt.Appendf(b, `,"product_id":"p%d","category":"%s","price":%d.%02d`, product, []string{"books", "games", "shoes", "sports"}[r.IntN(4)], r.IntN(100), r.IntN(100))
		if kind >= 90 {
			b = fmt.Appendf(b, `,"quantity":%d`, 1+r.IntN(2))
		}
		b = append(b, `,"currency":"EUR"`...)
		if kind >= 97 {
			b = fmt.Appendf(b, `,"order_id":"o%08x"`, r.Uint32())
		}
		b = fmt.Appendf(b, `,"channel":"%s"`, []string{"web", "web", "ios", "android"}[r.IntN(4)])
		if kind < 97 {
			b = fmt.Appendf(b, `,"url":"/p/%d"`, product)
		}
		keys, values = append(keys, fmt.Appendf(nil, "u%07d", user)), append(values, append(b, '}'))
	}
	return keys, values
}

func BenchmarkDecodeStream(b *testing.B) {
	d := newDecoder(b)
	keys, values := stream(10_000)
	size := 0
	for _, v := range values {
		size += len(v)
	}
	var ev Event
	b.SetBytes(int64(size / len(values)))
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if err := d.Decode(keys[i%len(keys)], values[i%len(keys)], &ev); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
}
