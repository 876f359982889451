package oracle

import (
	"encoding/json"
	"fmt"
	"math/big"
	"strconv"
	"strings"
	"time"
)

// output is one record of an output topic and the mark it was said at.
type output struct {
	rec                   *Record
	n, next, clock, fired int64
	said                  *said  // nil for a dead letter
	refusedAt             int64  // the dead letter's dlq_offset
	reason                string // the dead letter's dlq_reason
	stray                 bool   // its ce_id is not of this partition and number: its mark is no mark of ours
}

// said is a transition as it was said.
type said struct {
	Transition
	causeTopic     string
	causePartition int64
	muted          string
	isMuted        bool
}

// message is a transition's value. Pointers and raw values tell absent from
// null and zero.
type message struct {
	ID       *string           `json:"id"`
	User     *string           `json:"user"`
	Set      *string           `json:"set"`
	Seq      *int64            `json:"seq"`
	From     json.RawMessage   `json:"from"`
	To       *string           `json:"to"`
	At       *string           `json:"at"`
	Cause    *causeMessage     `json:"cause"`
	Profile  *profileMessage   `json:"profile"`
	Segments map[string]string `json:"segments"`
	Expected json.RawMessage   `json:"expected"`
	Rules    *string           `json:"rules"`
	Muted    *string           `json:"muted"`
}

type causeMessage struct {
	Kind      string  `json:"kind"`
	Type      string  `json:"type"`
	ID        string  `json:"id"`
	Topic     string  `json:"topic"`
	Partition *int64  `json:"partition"`
	Offset    *int64  `json:"offset"`
	Due       *string `json:"due"`
	Epoch     *int64  `json:"epoch"`
}

type profileMessage struct {
	Recency       *int64          `json:"recency_seconds"`
	Orders        *int64          `json:"orders"`
	Revenue       *string         `json:"revenue"`
	RevenueMinor  *int64          `json:"revenue_minor"`
	Currency      *string         `json:"currency"`
	First         json.RawMessage `json:"first"`
	Last          json.RawMessage `json:"last"`
	FirstPurchase json.RawMessage `json:"first_purchase"`
	LastPurchase  json.RawMessage `json:"last_purchase"`
}

// reader reads one output record and gathers what is wrong with it as such.
type reader struct {
	c      *contract
	faults []string
}

func (rd *reader) fault(format string, args ...any) {
	rd.faults = append(rd.faults, fmt.Sprintf(format, args...))
}

// transition reads a record of the trigger or the muted topic. It is nil only if
// the value is not even a JSON object of the right kinds.
func (rd *reader) transition(r *Record, muted bool) *output {
	o := &output{rec: r}
	o.n, o.next = rd.decimal(r, "n"), rd.decimal(r, "next")
	o.clock, o.fired = rd.decimal(r, "clock"), rd.decimal(r, "fired")
	var m message
	if err := json.Unmarshal(r.Value, &m); err != nil {
		rd.fault("a value that cannot be read: %v", err)
		return o
	}
	s := &said{isMuted: muted}
	o.said = s
	s.User, s.Set, s.To = rd.str("user", m.User), rd.str("set", m.Set), rd.str("to", m.To)
	s.Seq = rd.integer("seq", m.Seq)
	s.At = rd.instant("at", m.At)
	s.From = rd.from(m.From)
	rd.cause(s, m.Cause)
	rd.profile(s, m.Profile)
	rd.expected(s, m.Expected)
	if m.Segments[s.Set] != s.To {
		rd.fault("segments has %q for set %s, to is %q", m.Segments[s.Set], s.Set, s.To)
	}
	if string(r.Key) != s.User {
		rd.fault("key %q of user %q", r.Key, s.User)
	}
	rd.rules(m.Rules)
	rd.muting(s, m.Muted)
	rd.cloudEvent(o, rd.str("id", m.ID))
	s.Partition = r.Partition
	return o
}

func (rd *reader) decimal(r *Record, key string) int64 {
	v, ok := header(r.Headers, key)
	n, err := strconv.ParseInt(v, 10, 64)
	if !ok || err != nil {
		rd.fault("header %s = %q, no decimal number", key, v)
	}
	return n
}

func (rd *reader) str(name string, v *string) string {
	if v == nil || *v == "" {
		rd.fault("no %s", name)
		return ""
	}
	return *v
}

func (rd *reader) integer(name string, v *int64) int64 {
	if v == nil {
		rd.fault("no %s", name)
		return 0
	}
	return *v
}

// instant reads a time, which has exactly one spelling.
func (rd *reader) instant(name string, v *string) int64 {
	s := rd.str(name, v)
	if s == "" {
		return 0
	}
	t, err := time.Parse(time.RFC3339Nano, s)
	if err != nil || when(t.UnixMilli()) != s {
		rd.fault("%s %q, not RFC 3339 in UTC with milliseconds", name, s)
	}
	return t.UnixMilli()
}

// maybeInstant reads a time that may be null, but not absent; 0 for null.
func (rd *reader) maybeInstant(name string, v json.RawMessage) int64 {
	if string(v) == "null" {
		return 0
	}
	var s string
	if len(v) == 0 || json.Unmarshal(v, &s) != nil {
		rd.fault("%s is %q, neither a time nor null", name, v)
		return 0
	}
	return rd.instant(name, &s)
}

func (rd *reader) from(v json.RawMessage) string {
	var s *string
	if len(v) == 0 || json.Unmarshal(v, &s) != nil || s != nil && *s == "" {
		rd.fault("from is %q, neither a segment nor null", v)
		return ""
	}
	if s == nil {
		return ""
	}
	return *s
}

func (rd *reader) cause(s *said, m *causeMessage) {
	if m == nil {
		rd.fault("no cause")
		return
	}
	s.Cause = m.Kind
	switch m.Kind {
	case "event":
		s.CauseType, s.CauseID, s.causeTopic = m.Type, m.ID, m.Topic
		s.CauseOffset, s.causePartition = rd.integer("cause.offset", m.Offset), rd.integer("cause.partition", m.Partition)
	case "timer":
		s.Due = rd.instant("cause.due", m.Due)
	case "threshold_epoch":
		if rd.integer("cause.epoch", m.Epoch) <= 0 {
			rd.fault("a threshold_epoch without its number")
		}
	case "rules", "recovery":
	default:
		rd.fault("cause of kind %q", m.Kind)
	}
}

func (rd *reader) profile(s *said, m *profileMessage) {
	if m == nil {
		rd.fault("no profile")
		return
	}
	s.Recency, s.Orders = rd.integer("recency_seconds", m.Recency), rd.integer("orders", m.Orders)
	s.RevenueMinor = rd.integer("revenue_minor", m.RevenueMinor)
	s.First, s.Last = rd.maybeInstant("first", m.First), rd.maybeInstant("last", m.Last)
	s.FirstPurchase = rd.maybeInstant("first_purchase", m.FirstPurchase)
	s.LastPurchase = rd.maybeInstant("last_purchase", m.LastPurchase)
	if code := rd.str("currency", m.Currency); code != rd.c.currency {
		rd.fault("currency %q, not %s", code, rd.c.currency)
	}
	text := rd.str("revenue", m.Revenue)
	amount, ok := new(big.Rat).SetString(text)
	want, _ := new(big.Rat).SetString(major(s.RevenueMinor, rd.c.currency))
	if !ok || amount.Cmp(want) != 0 || strings.ContainsAny(text, "eE/+_xX ") {
		rd.fault("revenue %q for %d minor units", text, s.RevenueMinor)
	}
}

func (rd *reader) expected(s *said, v json.RawMessage) {
	var m *struct {
		To *string `json:"to"`
		At *string `json:"at"`
	}
	if len(v) == 0 || json.Unmarshal(v, &m) != nil {
		rd.fault("expected is %q, neither a transition nor null", v)
		return
	}
	if m != nil {
		s.ExpectedTo, s.ExpectedAt = rd.str("expected.to", m.To), rd.instant("expected.at", m.At)
	}
}

func (rd *reader) rules(v *string) {
	hash := rd.str("rules", v)
	if len(hash) != 16 || strings.Trim(hash, "0123456789abcdef") != "" {
		rd.fault("rules %q, not 16 hexadecimal digits", hash)
	}
	if rd.c.Rules != "" && hash != rd.c.Rules {
		rd.fault("rules %q, not %q", hash, rd.c.Rules)
	}
}

func (rd *reader) muting(s *said, v *string) {
	switch {
	case !s.isMuted && v != nil:
		rd.fault("muted %q on the trigger topic", *v)
	case s.isMuted && v == nil:
		rd.fault("no reason on the muted topic")
	case s.isMuted:
		s.muted = *v
		switch s.muted {
		case "stale", "backfill", "bootstrap", "paused", "reentry", "cap":
		case "rules":
			if s.Cause == "event" || s.Cause == "timer" {
				rd.fault("muted for a change of rules, with cause %s", s.Cause)
			}
		default:
			rd.fault("muted for %q, no such reason", s.muted)
		}
	}
}

// cloudEvent checks the headers of CloudEvents 1.0, in binary mode. ce_id is
// group/partition/n.
func (rd *reader) cloudEvent(o *output, id string) {
	r := o.rec
	ceID, _ := header(r.Headers, "ce_id")
	tail := fmt.Sprintf("/%d/%d", r.Partition, o.n)
	group, ok := strings.CutSuffix(ceID, tail)
	if !ok || group == "" {
		o.stray = true
		rd.fault("ce_id %q, not group%s", ceID, tail)
	} else if rd.c.Group == "" {
		rd.c.Group = group
	} else if group != rd.c.Group {
		rd.fault("ce_id %q of group %q", ceID, rd.c.Group)
	}
	if id != ceID {
		rd.fault("id %q, ce_id %q", id, ceID)
	}
	for _, want := range []Header{
		{"ce_specversion", []byte("1.0")},
		{"ce_source", []byte("/footfall/" + rd.c.Group)},
		{"ce_type", []byte("footfall.transition.v1")},
		{"ce_time", []byte(when(o.said.At))},
		{"ce_subject", []byte(o.said.User)},
		{"content-type", []byte("application/json")},
	} {
		if v, ok := header(r.Headers, want.Key); !ok || v != string(want.Value) {
			rd.fault("%s %q, not %q", want.Key, v, want.Value)
		}
	}
}

// deadLetter reads a record of the dead-letter topic.
func (rd *reader) deadLetter(r *Record) *output {
	o := &output{rec: r}
	o.n, o.next = rd.decimal(r, "dlq_n"), rd.decimal(r, "next")
	o.clock, o.fired = rd.decimal(r, "clock"), rd.decimal(r, "fired")
	o.refusedAt = rd.decimal(r, "dlq_offset")
	o.reason, _ = header(r.Headers, "dlq_reason")
	if detail, ok := header(r.Headers, "dlq_detail"); !ok || detail == "" {
		rd.fault("no dlq_detail")
	}
	if p := rd.decimal(r, "dlq_partition"); p != int64(r.Partition) {
		rd.fault("dlq_partition %d in partition %d", p, r.Partition)
	}
	if topic, _ := header(r.Headers, "dlq_topic"); topic != rd.c.InputTopic {
		rd.fault("dlq_topic %q, not %q", topic, rd.c.InputTopic)
	}
	return o
}
