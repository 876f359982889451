package schemas

import "testing"

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
