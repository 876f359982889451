package schemas

import "strconv"

// Contact is when the user of a transition is best spoken to, where the rules know of
// quiet hours. The zero value is: nothing is known, and nothing asked for.
type Contact struct {
	NotBefore Millis // At lies in the set's quiet hours, which end then; 0: it does not
	BestHour  int8   // of the day, 0 to 23 in Zone, with the most events; -1: too few are known
	Zone      string // of the user: an IANA name, or UTC+03:00 where it was inferred
	ZoneFrom  ZoneSource
}

// ZoneSource is where a user's time zone is known from.
type ZoneSource uint8

// The sources, the better ones first.
const (
	NoZone       ZoneSource = iota // no zone was asked for
	ZoneEvent                      // the newest event that tells one
	ZoneActivity                   // the hours at which the user sleeps
	ZoneShop                       // nothing is known of the user: the shop's
)

// appendJSON appends the members of a transition that tell of contact, if there are any.
func (c *Contact) appendJSON(dst []byte) []byte {
	if c.ZoneFrom == NoZone {
		return dst
	}
	if c.NotBefore != 0 {
		dst = appendTime(append(dst, `,"not_before":`...), c.NotBefore)
	}
	if c.BestHour >= 0 {
		dst = strconv.AppendInt(append(dst, `,"best_hour":`...), int64(c.BestHour), 10)
	}
	dst = appendQuoted(append(dst, `,"zone":`...), c.Zone)
	return appendQuoted(append(dst, `,"zone_from":`...), c.ZoneFrom.String())
}

// contact reads the members of a transition that tell of contact.
func (r *reader) contact(top token) (c Contact) {
	from := r.get(top, "zone_from")
	if from.kind == absent {
		return c
	}
	c.ZoneFrom = parsed(r, from, "zone_from", ParseZoneSource)
	c.Zone = r.string(r.get(top, "zone"), "zone")
	c.BestHour = -1
	if v := r.get(top, "best_hour"); v.kind != absent {
		c.BestHour = int8(r.integer(v, "best_hour", 0, 23))
	}
	if v := r.get(top, "not_before"); v.kind != absent {
		c.NotBefore = r.moment(v, "not_before")
	}
	return c
}
