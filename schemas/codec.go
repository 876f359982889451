package schemas

import (
	"fmt"
	"math"
	"strconv"
)

// TransitionContext is what a transition's JSON says and the Transition itself
// does not hold.
type TransitionContext struct {
	ID       string     // of the CloudEvent: see OutputID
	Topic    string     // the input topic, where a cause's position lies
	Sets     []SetNames // by a Transition's Set
	Currency string     // the reporting currency
}

// AppendJSON appends the transition as its JSON (transition.schema.json). It
// allocates nothing but dst. A set or a segment that ctx does not name, or a
// currency without minor units, is a broken promise of the caller: it panics.
func (t *Transition) AppendJSON(dst []byte, ctx *TransitionContext) []byte {
	dst = appendQuoted(append(dst, `{"id":`...), ctx.ID)
	dst = appendQuoted(append(dst, `,"user":`...), t.User)
	set := ctx.Sets[t.Set]
	dst = appendQuoted(append(dst, `,"set":`...), set.Name)
	dst = strconv.AppendUint(append(dst, `,"seq":`...), uint64(t.Seq), 10)
	dst = append(dst, `,"from":`...)
	switch t.From {
	case NoSegment:
		dst = append(dst, "null"...)
	case Retired:
		dst = appendQuoted(dst, t.Names.From)
	default:
		dst = appendQuoted(dst, set.Segments[t.From])
	}
	dst = appendQuoted(append(dst, `,"to":`...), set.Segments[t.To])
	dst = appendTime(append(dst, `,"at":`...), t.At)
	dst = t.Cause.appendJSON(append(dst, `,"cause":`...), ctx.Topic)
	dst = t.Facts.appendJSON(append(dst, `,"profile":`...), t.At, ctx.Currency)
	dst = append(dst, `,"segments":{`...)
	comma := false
	for i, segment := range t.Segments {
		if segment == NoSegment {
			continue // a set that is still filling
		}
		if comma {
			dst = append(dst, ',')
		}
		comma = true
		dst = appendQuoted(dst, ctx.Sets[i].Name)
		dst = appendQuoted(append(dst, ':'), ctx.Sets[i].Segments[segment])
	}
	dst = append(dst, `},"expected":`...)
	if t.Expected.To == NoSegment {
		dst = append(dst, "null"...)
	} else {
		dst = appendQuoted(append(dst, `{"to":`...), set.Segments[t.Expected.To])
		dst = append(appendTime(append(dst, `,"at":`...), t.Expected.At), '}')
	}
	dst = t.Evidence.appendJSON(dst, ctx.Currency)
	if t.Cart != 0 {
		dst = append(appendHex16(append(dst, `,"cart":"`...), t.Cart), '"')
	}
	dst = t.Contact.appendJSON(dst)
	dst = append(appendHex16(append(dst, `,"rules":"`...), t.Rules), '"')
	if t.Muted != NotMuted {
		dst = appendQuoted(append(dst, `,"muted":`...), t.Muted.String())
	}
	return append(dst, '}')
}

func (c *Cause) appendJSON(dst []byte, topic string) []byte {
	dst = appendQuoted(append(dst, `{"kind":`...), c.Kind.String())
	switch c.Kind {
	case ByEvent:
		dst = appendQuoted(append(dst, `,"type":`...), c.Event.String())
		dst = appendQuoted(append(dst, `,"id":`...), c.ID)
		dst = appendQuoted(append(dst, `,"topic":`...), topic)
		dst = strconv.AppendInt(append(dst, `,"partition":`...), int64(c.Pos.Partition), 10)
		dst = strconv.AppendInt(append(dst, `,"offset":`...), c.Pos.Offset, 10)
	case ByTimer:
		dst = appendTime(append(dst, `,"due":`...), c.Due)
	case ByEpoch:
		dst = strconv.AppendUint(append(dst, `,"epoch":`...), c.Epoch, 10)
	case ByRules, ByRecovery:
	}
	return append(dst, '}')
}

// appendJSON appends the evidence, if there is any. Spans are in whole seconds.
func (e *Evidence) appendJSON(dst []byte, currency string) []byte {
	if e.Clause == "" {
		return dst
	}
	dst = appendQuoted(append(dst, `,"evidence":{"clause":`...), e.Clause)
	dst = e.appendValue(append(dst, `,"was":`...), e.Was, currency)
	dst = e.appendValue(append(dst, `,"is":`...), e.Is, currency)
	return append(dst, '}')
}

// Text is one of the evidence's values as the JSON has it.
func (e *Evidence) Text(v int64, currency string) string {
	return string(e.appendValue(nil, v, currency))
}

func (e *Evidence) appendValue(dst []byte, v int64, currency string) []byte {
	switch e.Kind {
	case TruthValue:
		return strconv.AppendBool(dst, v != 0)
	case MoneyValue:
		decimals, _ := Exponent(currency)
		return append(appendMinor(append(dst, '"'), v, decimals), '"')
	case MomentValue:
		return appendTimeOrNull(dst, Millis(v))
	case SpanValue:
		if Millis(v) >= Never {
			return append(dst, "null"...)
		}
		return strconv.AppendInt(dst, v/int64(Second), 10)
	case NumberValue:
	}
	return strconv.AppendInt(dst, v, 10)
}

// recency returns the whole seconds from the last interaction to at; an event
// from the near future counts as now.
func (f *Facts) recency(at Millis) int64 { return int64(max(0, at-f.Last) / Second) }

func (f *Facts) appendJSON(dst []byte, at Millis, currency string) []byte {
	decimals, ok := Exponent(currency)
	if !ok {
		panic(fmt.Sprintf("schemas: reporting currency %q has no minor unit", currency))
	}
	dst = strconv.AppendInt(append(dst, `{"recency_seconds":`...), f.recency(at), 10)
	dst = strconv.AppendUint(append(dst, `,"orders":`...), uint64(f.Orders), 10)
	dst = append(appendMinor(append(dst, `,"revenue":"`...), f.Revenue, decimals), '"')
	dst = strconv.AppendInt(append(dst, `,"revenue_minor":`...), f.Revenue, 10)
	dst = appendQuoted(append(dst, `,"currency":`...), currency)
	dst = appendTimeOrNull(append(dst, `,"first":`...), f.First)
	dst = appendTimeOrNull(append(dst, `,"last":`...), f.Last)
	dst = appendTimeOrNull(append(dst, `,"first_purchase":`...), f.FirstPurchase)
	dst = appendTimeOrNull(append(dst, `,"last_purchase":`...), f.LastPurchase)
	return append(dst, '}')
}

// appendHex16 appends v as sixteen hex digits.
func appendHex16(dst []byte, v uint64) []byte {
	const hex = "0123456789abcdef"
	for shift := 60; shift >= 0; shift -= 4 {
		dst = append(dst, hex[v>>shift&15])
	}
	return dst
}

// DecodeTransition is the inverse of AppendJSON for every field of a Transition but
// Evidence, which only informs. Fields it does not know are skipped: a newer version
// may have written them.
//
// A set, from or to that sets does not name is Retired, and its name in Names: it was
// said under other rules. An unknown set or segment among the current segments is left
// out, an unknown expected one is none.
func DecodeTransition(value []byte, sets []SetNames) (Transition, error) {
	r := reader{scanner: scanner{text: value, lone: -1}}
	top := r.whole()
	var t Transition
	r.object(top, "", func(name string, v token) {
		switch name {
		case "user":
			t.User = r.string(v, name)
		case "seq":
			t.Seq = uint32(r.integer(v, name, 1, math.MaxUint32))
		case "at":
			t.At = r.moment(v, name)
		case "rules":
			t.Rules = r.hex(v, name)
		case "cart":
			t.Cart = r.hex(v, name)
		case "muted":
			t.Muted = parsed(&r, v, name, ParseMuted)
		}
	}, "user", "seq", "at", "rules")
	t.Cause = r.cause(r.get(top, "cause"))
	t.Facts = r.facts(r.get(top, "profile"))
	var names RetiredNames
	var set SetNames
	if t.Set = r.setOf(r.get(top, "set"), sets, &names.Set); t.Set != Retired {
		set = sets[t.Set]
	}
	t.From = NoSegment
	if from := r.get(top, "from"); from.kind != null {
		t.From = r.segmentOf(from, "from", set, &names.From)
	}
	t.To = r.segmentOf(r.get(top, "to"), "to", set, &names.To)
	t.Segments = r.segments(r.get(top, "segments"), sets)
	t.Expected = r.expected(r.get(top, "expected"), set)
	t.Contact = r.contact(top)
	if r.err != nil {
		return Transition{}, r.err
	}
	if names != (RetiredNames{}) {
		t.Names = &names
	}
	return t, nil
}

// cause reads a cause.
func (r *reader) cause(v token) (c Cause) {
	c.Kind = parsed(r, r.get(v, "kind"), "cause.kind", ParseCauseKind)
	switch {
	case r.err != nil:
	case c.Kind == ByEvent:
		c.Event = parsed(r, r.get(v, "type"), "cause.type", ParseKind)
		c.ID = r.string(r.get(v, "id"), "cause.id")
		c.Pos.Partition = int32(r.integer(r.get(v, "partition"), "cause.partition", 0, math.MaxInt32))
		c.Pos.Offset = r.integer(r.get(v, "offset"), "cause.offset", 0, math.MaxInt64)
	case c.Kind == ByTimer:
		c.Due = r.moment(r.get(v, "due"), "cause.due")
	case c.Kind == ByEpoch:
		c.Epoch = uint64(r.integer(r.get(v, "epoch"), "cause.epoch", 0, math.MaxInt64))
	}
	return c
}

// facts reads what the profile was.
func (r *reader) facts(v token) (f Facts) {
	orNone := func(name string) Millis {
		if t := r.get(v, name); t.kind != null {
			return r.moment(t, "profile."+name)
		}
		return 0
	}
	f.Orders = uint32(r.integer(r.get(v, "orders"), "profile.orders", 0, math.MaxUint32))
	f.Revenue = r.integer(r.get(v, "revenue_minor"), "profile.revenue_minor", math.MinInt64, math.MaxInt64)
	f.First, f.Last = orNone("first"), orNone("last")
	f.FirstPurchase, f.LastPurchase = orNone("first_purchase"), orNone("last_purchase")
	return f
}

func (r *reader) setOf(v token, sets []SetNames, retired *string) uint16 {
	name := r.string(v, "set")
	for i := range sets {
		if sets[i].Name == name {
			return uint16(i)
		}
	}
	*retired = r.named(name, v, "set")
	return Retired
}

func (r *reader) segmentOf(v token, field string, set SetNames, retired *string) uint16 {
	name := r.string(v, field)
	if s := set.index(name); s != NoSegment {
		return s
	}
	*retired = r.named(name, v, field)
	return Retired
}

// NameMax is how many bytes the name of a set or of a segment has at most.
const NameMax = 64

// named refuses a name that nothing can have had.
func (r *reader) named(name string, v token, field string) string {
	if name == "" || len(name) > NameMax {
		r.wrong(field, v, fmt.Sprintf("a name of at most %d bytes", NameMax))
	}
	return name
}

// index returns the number of a segment, or NoSegment.
func (s SetNames) index(segment string) uint16 {
	for i, name := range s.Segments {
		if name == segment {
			return uint16(i)
		}
	}
	return NoSegment
}

func (r *reader) segments(v token, sets []SetNames) []uint16 {
	into := make([]uint16, len(sets))
	for i := range into {
		into[i] = NoSegment
	}
	r.object(v, "segments", func(name string, v token) {
		segment := r.string(v, "segments")
		for i := range sets {
			if sets[i].Name == name {
				into[i] = sets[i].index(segment)
			}
		}
	})
	return into
}

func (r *reader) expected(v token, set SetNames) Expected {
	none := Expected{To: NoSegment, At: Never}
	if v.kind == null {
		return none
	}
	e := Expected{
		To: set.index(r.string(r.get(v, "to"), "expected.to")),
		At: r.moment(r.get(v, "at"), "expected.at"),
	}
	if e.To == NoSegment {
		return none
	}
	return e
}
