package storefront

import (
	"time"

	"footfall/schemas"
)

// What is known of who a shopper is follows from the number of the shopper alone, and
// nothing is drawn for it. The app sends the zone that the phone is in; a shopper in
// four gives the birthday with orders.

// homes are the zones that shoppers live in, as often as they stand here.
var homes = [...]string{ //nolint:gochecknoglobals // a table
	"Europe/Berlin", "Europe/Berlin", "Europe/Berlin", "Europe/Paris", "Europe/Madrid", "Europe/London", "Europe/Lisbon", "Europe/Helsinki",
}

const givesBirthday = 4 // one shopper in so many

// person is a shopper, as a number that looks random.
func (ev *event) person() uint64 {
	h := uint64(14695981039346656037) // FNV-1a
	for _, c := range ev.shopper.id {
		h = (h ^ uint64(c)) * 1099511628211
	}
	return h ^ h>>29
}

// appendPerson writes what an event says of its shopper.
func (ev *event) appendPerson(b []byte) []byte {
	if ev.session == nil {
		return b
	}
	if ev.session.app {
		b = text(b, "timezone", homes[ev.person()%uint64(len(homes))])
	}
	if n := ev.person() / uint64(len(homes)); ev.kind == schemas.Purchase && n%givesBirthday == 0 {
		day := time.Date(2000, 1, 1+int(n/givesBirthday%366), 0, 0, 0, 0, time.UTC)
		b = append(b, `,"birthday":"--`...)
		b = append(day.AppendFormat(b, "01-02"), '"')
	}
	return b
}
