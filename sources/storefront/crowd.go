package storefront

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"strconv"

	"footfall/schemas"
)

// CrowdConfig is a crowd. Zero fields take the defaults named; equal ones give equal
// records, byte for byte.
type CrowdConfig struct {
	Seed     uint64
	Users    int64 // each of whom is in the first Events events
	Events   int64
	Uniform  bool   // everybody comes as often as everybody else; else some come far more often (Zipf)
	Currency string // EUR
}

// Crowd is an endless stream of events for load: of users without habits, whose number is
// exactly what it should be, and cheap to make. A Shop is life; a Crowd is weight.
//
// Of a hundred events ninety are views, seven put something into the cart, and three are
// purchases. Every (Events/Users)-th event is of the user whose turn it is, so that all of
// them come; the others are anybody's. One goroutine may use a Crowd.
type Crowd struct {
	cfg    CrowdConfig
	rng    *rand.Rand
	zipf   *rand.Zipf
	number int64 // of the next event
	turn   int64 // the user whose turn is next
	memory slab
}

// Limits of a crowd.
const (
	crowdUsersMax  = 1 << 28
	crowdEventsMax = 1 << 34
)

// How unlike users are: the rank r comes in proportion to (crowdOffset + r) ^ -crowdExponent.
const (
	crowdExponent = 1.1
	crowdOffset   = 100
)

// NewCrowd returns a crowd at its beginning.
func NewCrowd(cfg CrowdConfig) (*Crowd, error) {
	cfg.Currency = cmp.Or(cfg.Currency, "EUR")
	if cfg.Users < 1 || cfg.Users > crowdUsersMax || cfg.Events < cfg.Users || cfg.Events > crowdEventsMax {
		return nil, fmt.Errorf("a crowd has 1 to %d users, and from one event a user to %d events, not %d users and %d events",
			crowdUsersMax, int64(crowdEventsMax), cfg.Users, cfg.Events)
	}
	if _, ok := schemas.Exponent(cfg.Currency); !ok {
		return nil, fmt.Errorf("currency %q is not in ISO 4217", cfg.Currency)
	}
	c := &Crowd{cfg: cfg, rng: rand.New(rand.NewPCG(cfg.Seed, 0x63726f7764))}
	if !cfg.Uniform && cfg.Users > 1 {
		c.zipf = rand.NewZipf(c.rng, crowdExponent, crowdOffset, uint64(cfg.Users)-1)
	}
	return c, nil
}

// Next returns the next event, which happens at a time. Its memory is the caller's.
func (c *Crowd) Next(at schemas.Millis) Record {
	user := c.user()
	dice := c.rng.Uint64()
	kind, product, quantity := dice%100, dice>>8%5000, 1+dice>>24%8/6
	if dice>>40%4 > 0 {
		product %= 500 // what is popular
	}
	b := c.memory.room(valueBytes)
	b = c.appendID(append(b, `{"event_id":"`...))
	switch {
	case kind < 90:
		b = append(b, `","type":"view","user_id":"`...)
	case kind < 97:
		b = append(b, `","type":"add_to_cart","user_id":"`...)
	default:
		b = append(b, `","type":"purchase","user_id":"`...)
	}
	from := len(b)
	b = appendUser(b, user)
	to := len(b)
	b = append(b, `","session_id":"s`...)
	b = strconv.AppendUint(b, uint64(user)<<20^uint64(at/(30*schemas.Minute)), 36)
	b = append(appendRFC3339(append(b, `","time":"`...), at, 0), `","product_id":"p`...)
	b = append(strconv.AppendUint(b, 10_000+product, 10), '"')
	b = text(b, "category", category(uint32(product)))
	b = append(strconv.AppendUint(append(b, `,"price":`...), 2+product*7919%98, 10), `.90,"currency":"`...)
	b = append(append(b, c.cfg.Currency...), '"')
	if kind >= 90 {
		b = strconv.AppendUint(append(b, `,"quantity":`...), quantity, 10)
	}
	if kind >= 97 {
		b = append(appendHex(append(b, `,"order_id":"o`...), uint64(c.number)), '"')
	}
	b = text(b, "channel", channels[dice>>32%uint64(len(channels))])
	b = append(b, `,"url":"/p/`...)
	b = append(strconv.AppendUint(b, 10_000+product, 10), `"}`...)
	b = c.memory.keep(b)
	c.number++
	return Record{Key: b[from:to:to], Value: b, Time: at}
}

// user chooses whose event it is: the next one's in turn, or anybody's.
func (c *Crowd) user() int64 {
	// The turn of user k comes with event k * Events / Users.
	if c.turn < c.cfg.Users && c.turn*c.cfg.Events <= c.number*c.cfg.Users {
		c.turn++
		return c.turn - 1
	}
	if c.zipf == nil {
		return c.rng.Int64N(c.cfg.Users)
	}
	return int64(c.zipf.Uint64())
}

// UserID is the id of the user with a number, from 0: 16 bytes.
func (c *Crowd) UserID(number int64) string { return string(appendUser(nil, number)) }

// appendUser writes an id: its number, spread over 56 bits one to one, so that ids do not
// come in the order of the alphabet.
func appendUser(b []byte, number int64) []byte {
	const odd = 0x9e3779b97f4a7c15
	b = append(b, 'u', '-')
	at := len(b)
	b = appendHex(b, uint64(number)*odd<<8) // the low byte is dropped
	return b[:at+14]
}

// appendID writes an event's id as a UUID, whose last twelve digits are its number.
func (c *Crowd) appendID(b []byte) []byte {
	var uuid [16]byte
	binary.BigEndian.PutUint64(uuid[:], c.rng.Uint64())
	binary.BigEndian.PutUint64(uuid[8:], uint64(c.number))
	uuid[6], uuid[8] = uuid[6]&0x0f|0x40, 0x80
	for i, of := range uuid {
		if i == 4 || i == 6 || i == 8 || i == 10 {
			b = append(b, '-')
		}
		b = append(b, hexDigits[of>>4], hexDigits[of&15])
	}
	return b
}

// NumberOf is the number of the event with an id, from 0; false: it is none of a crowd's.
func NumberOf(id string) (int64, bool) {
	if len(id) != 36 {
		return 0, false
	}
	n, err := strconv.ParseInt(id[24:], 16, 64)
	return n, err == nil
}
