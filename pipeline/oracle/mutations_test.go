package oracle

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"math/rand"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// mutation damages a clean output in one place. It returns false if there is no
// such place.
type mutation struct {
	name string
	kind string // what must be found: lost, doubled or wrong
	do   func(d *Dump, rnd *rand.Rand) bool
}

func TestMutationsAreFound(t *testing.T) {
	for _, ticks := range []bool{false, true} {
		var clean [6]*Dump
		var marks [6]map[int32]Mark
		for seed := range clean {
			clean[seed], marks[seed] = perform(shop(int64(seed), 300, 12), options(ticks), int64(seed), "")
		}
		for _, mu := range mutations() {
			places := 0
			for seed := 0; seed < len(clean) && places < 2; seed++ {
				d := &Dump{
					Input: clean[seed].Input, Triggers: slices.Clone(clean[seed].Triggers),
					Muted: slices.Clone(clean[seed].Muted), DeadLetters: slices.Clone(clean[seed].DeadLetters),
				}
				if !mu.do(d, rand.New(rand.NewSource(int64(seed)))) {
					continue
				}
				places++
				opt := options(ticks)
				opt.Marks = marks[seed]
				r := d.Judge(opt)
				n := map[string]int{"lost": r.LostCount, "doubled": r.DoubledCount, "wrong": r.WrongCount}[mu.kind]
				if n == 0 || n > 1 && mu.kind != "wrong" {
					t.Errorf("ticks %v, seed %d: %s: got %v, want one thing %s", ticks, seed, mu.name, r.Err(), mu.kind)
				}
			}
			if places == 0 {
				t.Errorf("ticks %v: %s: no seed has a place for it", ticks, mu.name)
			}
		}
	}
}

func mutations() []mutation {
	return slices.Concat(missing(), values(), headersAndKeys(), letters())
}

// missing are the outputs dropped, doubled and moved.
func missing() []mutation {
	return []mutation{
		{"a trigger dropped", "lost", func(d *Dump, rnd *rand.Rand) bool { return drop(&d.Triggers, rnd.Intn(len(d.Triggers))) }},
		{"the first trigger dropped", "lost", func(d *Dump, _ *rand.Rand) bool { return drop(&d.Triggers, 0) }},
		{"the last trigger dropped", "lost", func(d *Dump, _ *rand.Rand) bool { return drop(&d.Triggers, len(d.Triggers)-1) }},
		{"a muted transition dropped", "lost", func(d *Dump, rnd *rand.Rand) bool { return drop(&d.Muted, rnd.Intn(len(d.Muted))) }},
		{"a timer's transition dropped", "lost", func(d *Dump, rnd *rand.Rand) bool {
			return drop(&d.Triggers, find(d.Triggers, rnd, withCause("timer")))
		}},
		{"a dead letter dropped", "lost", func(d *Dump, rnd *rand.Rand) bool { return drop(&d.DeadLetters, rnd.Intn(len(d.DeadLetters))) }},
		{"dropped, and n and seq closed up", "lost", dropQuietly},
		{"a trigger doubled", "doubled", func(d *Dump, rnd *rand.Rand) bool { return double(&d.Triggers, rnd) }},
		{"a muted transition doubled", "doubled", func(d *Dump, rnd *rand.Rand) bool { return double(&d.Muted, rnd) }},
		{"a dead letter doubled", "doubled", func(d *Dump, rnd *rand.Rand) bool { return double(&d.DeadLetters, rnd) }},
		{"a trigger on both topics", "doubled", func(d *Dump, rnd *rand.Rand) bool {
			r := edit(d.Triggers[rnd.Intn(len(d.Triggers))], func(v map[string]any) { v["muted"] = "stale" })
			d.Muted = append(d.Muted, r)
			return true
		}},
		{"two triggers swapped", "wrong", func(d *Dump, rnd *rand.Rand) bool {
			i := find(d.Triggers[1:], rnd, func(Record) bool { return true })
			a, b := &d.Triggers[i], &d.Triggers[i+1]
			a.Offset, b.Offset = b.Offset, a.Offset
			return a.Partition == b.Partition
		}},
		{"two numbers of one user swapped", "wrong", func(d *Dump, _ *rand.Rand) bool {
			for i, a := range d.Triggers {
				for k, b := range d.Triggers[i+1:] {
					if bytes.Equal(a.Key, b.Key) {
						d.Triggers[i], d.Triggers[i+1+k] = renumber(a, numberOf(b)), renumber(b, numberOf(a))
						return true
					}
				}
			}
			return false
		}},
		{"a gap in n", "wrong", func(d *Dump, rnd *rand.Rand) bool {
			from := rnd.Intn(len(d.Triggers))
			p, n := d.Triggers[from].Partition, numberOf(d.Triggers[from])
			for _, list := range [][]Record{d.Triggers, d.Muted} {
				for i := range list {
					if list[i].Partition == p && numberOf(list[i]) >= n {
						list[i] = renumber(list[i], numberOf(list[i])+1)
					}
				}
			}
			for i := range d.DeadLetters {
				if r := &d.DeadLetters[i]; r.Partition == p && numberOf(*r) >= n {
					*r = setHeader(*r, "dlq_n", strconv.FormatInt(numberOf(*r)+1, 10))
				}
			}
			return true
		}},
		{"said in another partition", "lost", func(d *Dump, rnd *rand.Rand) bool {
			i := rnd.Intn(len(d.Triggers))
			d.Triggers[i].Partition = 1 - d.Triggers[i].Partition
			return true
		}},
		{"a transition nobody asked for", "wrong", func(d *Dump, rnd *rand.Rand) bool {
			r := d.Triggers[rnd.Intn(len(d.Triggers))]
			d.Triggers = append(d.Triggers, edit(r, func(v map[string]any) {
				v["cause"] = map[string]any{"kind": "timer", "due": when(t0 + 1)}
				v["seq"] = 1000
			}))
			return true
		}},
		{"said too late", "wrong", func(d *Dump, _ *rand.Rand) bool {
			// The first of a partition changes places with its last: mark, n and all.
			first, last := &d.Triggers[0], &d.Triggers[0]
			for i := range d.Triggers {
				if d.Triggers[i].Partition == first.Partition {
					last = &d.Triggers[i]
				}
			}
			first.Headers, last.Headers = last.Headers, first.Headers
			*first, *last = renumber(*first, numberOf(*first)), renumber(*last, numberOf(*last))
			first.Offset, last.Offset = last.Offset, first.Offset
			return first != last
		}},
	}
}

// values are the transitions with one thing wrong in their value.
func values() []mutation {
	in := func(name string, is func(Record) bool, change func(v map[string]any)) mutation {
		return mutation{name, "wrong", func(d *Dump, rnd *rand.Rand) bool {
			i := find(d.Triggers, rnd, is)
			if i < 0 {
				return false
			}
			before := d.Triggers[i]
			d.Triggers[i] = edit(before, change)
			return !bytes.Equal(before.Value, d.Triggers[i].Value)
		}}
	}
	object := func(v map[string]any, name string) map[string]any { return v[name].(map[string]any) }
	add := func(v map[string]any, name string, by int64) {
		n, _ := v[name].(json.Number).Int64()
		v[name] = n + by
	}
	later := func(at any) string { return strings.Replace(at.(string), "Z", "1Z", 1) }
	number := func(name string) mutation {
		return in("profile."+name+" off by one", always, func(v map[string]any) { add(object(v, "profile"), name, 1) })
	}
	list := []mutation{
		in("wrong from", always, func(v map[string]any) { v["from"] = "vip" }),
		in("from empty", always, func(v map[string]any) { v["from"] = "" }),
		in("no from", always, func(v map[string]any) { delete(v, "from") }),
		in("wrong to", always, func(v map[string]any) {
			v["to"] = "vip"
			v["segments"] = map[string]any{setName: "vip"}
		}),
		in("segments disagree", always, func(v map[string]any) { v["segments"] = map[string]any{setName: "vip"} }),
		in("a gap in seq", always, func(v map[string]any) { add(v, "seq", 1) }),
		in("wrong set", always, func(v map[string]any) { v["set"] = "tiers" }),
		in("at a millisecond later than due", withCause("timer"), func(v map[string]any) { v["at"] = shift(v["at"], 1) }),
		in("at a millisecond sooner than due", withCause("timer"), func(v map[string]any) { v["at"] = shift(v["at"], -1) }),
		in("at before the record", withCause("event"), func(v map[string]any) { v["at"] = shift(v["at"], -1000*day) }),
		in("at after the mark", withCause("event"), func(v map[string]any) { v["at"] = shift(v["at"], 1000*day) }),
		in("at with a fourth decimal", always, func(v map[string]any) { v["at"] = later(v["at"]) }),
		in("at with an offset", always, func(v map[string]any) { v["at"] = strings.Replace(v["at"].(string), "Z", "+00:00", 1) }),
		in("due a millisecond later", withCause("timer"), func(v map[string]any) {
			object(v, "cause")["due"] = shift(object(v, "cause")["due"], 1)
			v["at"] = shift(v["at"], 1)
		}),
		in("another cause", withCause("timer"), func(v map[string]any) { v["cause"] = map[string]any{"kind": "recovery"} }),
		in("a cause unheard of", always, func(v map[string]any) { v["cause"] = map[string]any{"kind": "whim"} }),
		in("no cause", always, func(v map[string]any) { delete(v, "cause") }),
		in("cause offset off by one", withCause("event"), func(v map[string]any) { add(object(v, "cause"), "offset", 1) }),
		in("cause in another partition", withCause("event"), func(v map[string]any) { add(object(v, "cause"), "partition", 1) }),
		in("cause in another topic", withCause("event"), func(v map[string]any) { object(v, "cause")["topic"] = "other" }),
		in("cause of another type", withCause("event"), func(v map[string]any) { object(v, "cause")["type"] = "search" }),
		in("cause with another id", withCause("event"), func(v map[string]any) { object(v, "cause")["id"] = "x" }),
		in("revenue and its minor units differ", always, func(v map[string]any) { object(v, "profile")["revenue"] = "0.01" }),
		in("revenue with an exponent", always, func(v map[string]any) {
			object(v, "profile")["revenue"] = object(v, "profile")["revenue"].(string) + "e0"
		}),
		in("another currency", always, func(v map[string]any) { object(v, "profile")["currency"] = "USD" }),
		in("nothing expected", hasExpected, func(v map[string]any) { v["expected"] = nil }),
		in("expected a millisecond later", hasExpected, func(v map[string]any) {
			object(v, "expected")["at"] = shift(object(v, "expected")["at"], 1)
		}),
		in("expected elsewhere", hasExpected, func(v map[string]any) { object(v, "expected")["to"] = "vip" }),
		in("expected left out", always, func(v map[string]any) { delete(v, "expected") }),
		in("rules not hexadecimal", always, func(v map[string]any) { v["rules"] = "r1" }),
		in("muted on the trigger topic", always, func(v map[string]any) { v["muted"] = "stale" }),
		in("another user", always, func(v map[string]any) { v["user"] = "nobody" }),
		in("another id", always, func(v map[string]any) { v["id"] = "footfall/0/0" }),
		number("recency_seconds"), number("orders"),
		{"no reason on the muted topic", "wrong", func(d *Dump, rnd *rand.Rand) bool {
			i := rnd.Intn(len(d.Muted))
			d.Muted[i] = edit(d.Muted[i], func(v map[string]any) { delete(v, "muted") })
			return true
		}},
		{"a reason unheard of", "wrong", func(d *Dump, rnd *rand.Rand) bool {
			i := rnd.Intn(len(d.Muted))
			d.Muted[i] = edit(d.Muted[i], func(v map[string]any) { v["muted"] = "whim" })
			return true
		}},
		{"not muted for the lane it came by", "wrong", func(d *Dump, rnd *rand.Rand) bool {
			i := find(d.Muted, rnd, func(r Record) bool { return bytes.Contains(r.Value, []byte(`"muted":"backfill"`)) })
			if i < 0 {
				return false
			}
			r := edit(d.Muted[i], func(v map[string]any) { delete(v, "muted") })
			drop(&d.Muted, i)
			r.Offset = -1
			d.Triggers = append(d.Triggers, r)
			return true
		}},
		in("not JSON", always, nil),
	}
	for _, name := range []string{"first", "last"} {
		list = append(list, in(name+" a millisecond later", always, func(v map[string]any) {
			object(v, "profile")[name] = shift(object(v, "profile")[name], 1)
		}))
	}
	for _, name := range []string{"first_purchase", "last_purchase"} {
		list = append(list, in(name+" null", bought, func(v map[string]any) { object(v, "profile")[name] = nil }))
	}
	return list
}

// headersAndKeys are the transitions with one thing wrong around their value.
func headersAndKeys() []mutation {
	set := func(name, key, value string) mutation {
		return mutation{name, "wrong", func(d *Dump, rnd *rand.Rand) bool {
			i := rnd.Intn(len(d.Triggers))
			d.Triggers[i] = setHeader(d.Triggers[i], key, value)
			return true
		}}
	}
	add := func(name, key string, by int64) mutation {
		return mutation{name, "wrong", func(d *Dump, rnd *rand.Rand) bool {
			i := rnd.Intn(len(d.Triggers))
			text, _ := header(d.Triggers[i].Headers, key)
			n, _ := strconv.ParseInt(text, 10, 64)
			d.Triggers[i] = setHeader(d.Triggers[i], key, strconv.FormatInt(n+by, 10))
			return true
		}}
	}
	return []mutation{
		set("ce_id of another number", "ce_id", "footfall/0/0"),
		set("ce_id of another group", "ce_id", "other/0/1"),
		set("ce_id malformed", "ce_id", "1"),
		set("another version of CloudEvents", "ce_specversion", "0.3"),
		set("no ce_source", "ce_source", ""),
		set("no ce_type", "ce_type", ""),
		set("ce_time other than at", "ce_time", when(t0-1)),
		set("ce_subject other than the user", "ce_subject", "nobody"),
		set("another content type", "content-type", "text/plain"),
		set("n not a number", "n", "one"),
		set("no clock", "clock", ""),
		add("n off by one", "n", 1),
		add("next before the cause", "next", -1_000_000),
		add("clock before at", "clock", -1000*day),
		add("clock beyond the last", "clock", 1000*day),
		add("fired beyond the clock", "fired", 1000*day),
		{"another key", "wrong", func(d *Dump, rnd *rand.Rand) bool {
			d.Triggers[rnd.Intn(len(d.Triggers))].Key = []byte("nobody")
			return true
		}},
		{"no key", "wrong", func(d *Dump, rnd *rand.Rand) bool {
			d.Triggers[rnd.Intn(len(d.Triggers))].Key = nil
			return true
		}},
	}
}

// letters are the dead letters with one thing wrong.
func letters() []mutation {
	set := func(name, key, value string) mutation {
		return mutation{name, "wrong", func(d *Dump, rnd *rand.Rand) bool {
			i := rnd.Intn(len(d.DeadLetters))
			d.DeadLetters[i] = setHeader(d.DeadLetters[i], key, value)
			return true
		}}
	}
	return []mutation{
		set("dead for another reason", "dlq_reason", "too_large"),
		set("dead for a reason unheard of", "dlq_reason", "whim"),
		set("dead of another topic", "dlq_topic", "other"),
		set("dead of another partition", "dlq_partition", "7"),
		set("dead of no offset", "dlq_offset", "x"),
		set("dead of another time", "dlq_time", "1"),
		set("dead without n", "dlq_n", ""),
		set("dead without detail", "dlq_detail", ""),
		{"dead with another value", "wrong", func(d *Dump, rnd *rand.Rand) bool {
			d.DeadLetters[rnd.Intn(len(d.DeadLetters))].Value = []byte("{}")
			return true
		}},
		{"dead with another key", "wrong", func(d *Dump, rnd *rand.Rand) bool {
			d.DeadLetters[rnd.Intn(len(d.DeadLetters))].Key = []byte("nobody")
			return true
		}},
		{"a tombstone's value empty instead of absent", "wrong", func(d *Dump, rnd *rand.Rand) bool {
			i := find(d.DeadLetters, rnd, func(r Record) bool { return r.Value == nil })
			if i < 0 {
				return false
			}
			d.DeadLetters[i].Value = []byte{}
			return true
		}},
		{"dead without an original header", "wrong", func(d *Dump, rnd *rand.Rand) bool {
			i := find(d.DeadLetters, rnd, func(r Record) bool { return r.Headers[0].Key == "trace" })
			if i < 0 {
				return false
			}
			d.DeadLetters[i].Headers = d.DeadLetters[i].Headers[1:]
			return true
		}},
		{"dead with our headers first", "wrong", func(d *Dump, rnd *rand.Rand) bool {
			i := find(d.DeadLetters, rnd, func(r Record) bool { return r.Headers[0].Key == "trace" })
			if i < 0 {
				return false
			}
			headers := d.DeadLetters[i].Headers
			d.DeadLetters[i].Headers = append(slices.Clone(headers[1:]), headers[0])
			return true
		}},
		{"dead without its value", "wrong", func(d *Dump, rnd *rand.Rand) bool {
			i := find(d.DeadLetters, rnd, func(r Record) bool { return r.Value != nil })
			r := d.DeadLetters[i]
			r.Headers = append(slices.Clone(r.Headers),
				Header{"dlq_sha256", fmt.Appendf(nil, "%x", sha256.Sum256(r.Value))}, Header{"dlq_size", fmt.Append(nil, len(r.Value))})
			r.Value = nil
			d.DeadLetters[i] = r
			return true
		}},
		{"a good record dead", "wrong", func(d *Dump, _ *rand.Rand) bool {
			for i := range d.Input {
				r := &d.Input[i]
				if !slices.ContainsFunc(d.DeadLetters, func(l Record) bool {
					offset, _ := header(l.Headers, "dlq_offset")
					return l.Partition == r.Partition && offset == fmt.Sprint(r.Offset)
				}) {
					d.DeadLetters = append(d.DeadLetters, encodeLetter(r, "not_json", 1, mark{}))
					return true
				}
			}
			return false
		}},
		{"a dead letter of nothing", "wrong", func(d *Dump, _ *rand.Rand) bool {
			r := Record{Topic: inputTopic, Offset: 1 << 40}
			d.DeadLetters = append(d.DeadLetters, encodeLetter(&r, "tombstone", 1, mark{}))
			return true
		}},
	}
}

func always(Record) bool { return true }

func withCause(kind string) func(Record) bool {
	return func(r Record) bool { return bytes.Contains(r.Value, []byte(`"kind":"`+kind+`"`)) }
}

func hasExpected(r Record) bool { return !bytes.Contains(r.Value, []byte(`"expected":null`)) }
func bought(r Record) bool      { return !bytes.Contains(r.Value, []byte(`"first_purchase":null`)) }

// find picks a record at random among those that are as wanted, -1 if none is.
func find(records []Record, rnd *rand.Rand, is func(Record) bool) int {
	var fit []int
	for i, r := range records {
		if is(r) {
			fit = append(fit, i)
		}
	}
	if len(fit) == 0 {
		return -1
	}
	return fit[rnd.Intn(len(fit))]
}

func drop(records *[]Record, i int) bool {
	if i >= 0 {
		*records = slices.Delete(slices.Clone(*records), i, i+1)
	}
	return i >= 0
}

func double(records *[]Record, rnd *rand.Rand) bool {
	again := (*records)[rnd.Intn(len(*records))]
	again.Offset = 1 << 40
	*records = append(*records, again)
	return true
}

// dropQuietly drops a trigger and hides it: later numbers move up, and its
// user's later seq too.
func dropQuietly(d *Dump, rnd *rand.Rand) bool {
	i := rnd.Intn(len(d.Triggers))
	gone := d.Triggers[i]
	drop(&d.Triggers, i)
	for _, list := range [][]Record{d.Triggers, d.Muted, d.DeadLetters} {
		for i, r := range list {
			if r.Partition != gone.Partition || numberOf(r) < numberOf(gone) {
				continue
			}
			if _, dead := header(r.Headers, "dlq_n"); dead {
				list[i] = setHeader(r, "dlq_n", strconv.FormatInt(numberOf(r)-1, 10))
				continue
			}
			if bytes.Equal(r.Key, gone.Key) {
				r = edit(r, func(v map[string]any) {
					seq, _ := v["seq"].(json.Number).Int64()
					v["seq"] = seq - 1
				})
			}
			list[i] = renumber(r, numberOf(r)-1)
		}
	}
	return true
}

func edit(r Record, change func(v map[string]any)) Record {
	if change == nil {
		r.Value = r.Value[1:]
		return r
	}
	v := map[string]any{}
	dec := json.NewDecoder(bytes.NewReader(r.Value))
	dec.UseNumber()
	if err := dec.Decode(&v); err != nil {
		panic(err)
	}
	change(v)
	r.Value, _ = json.Marshal(v)
	return r
}

func setHeader(r Record, key, value string) Record {
	r.Headers = slices.Clone(r.Headers)
	for i := range r.Headers {
		if r.Headers[i].Key == key {
			r.Headers[i].Value = []byte(value)
		}
	}
	return r
}

func numberOf(r Record) int64 {
	text, ok := header(r.Headers, "n")
	if !ok {
		text, _ = header(r.Headers, "dlq_n")
	}
	n, _ := strconv.ParseInt(text, 10, 64)
	return n
}

// renumber gives a transition another number, everywhere.
func renumber(r Record, n int64) Record {
	id := fmt.Sprintf("footfall/%d/%d", r.Partition, n)
	r = edit(r, func(v map[string]any) { v["id"] = id })
	return setHeader(setHeader(r, "n", strconv.FormatInt(n, 10)), "ce_id", id)
}

func shift(at any, by int64) string {
	t, err := time.Parse(time.RFC3339Nano, at.(string))
	if err != nil {
		panic(err)
	}
	return when(t.UnixMilli() + by)
}
