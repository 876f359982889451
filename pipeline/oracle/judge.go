package oracle

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"fmt"
	"slices"
	"sort"
	"strconv"
	"strings"
)

// Judge compares what was said with what the input should have come to. The
// output topics must have been read read_committed and to their end. It panics
// on options that no configuration check would pass.
func Judge(input, triggers, muted, deadLetters []Record, opt Options) *Report {
	c := compile(opt)
	if c.InputTopic == "" && len(input) > 0 {
		c.InputTopic = input[0].Topic
	}
	r := &Report{
		Reasons: map[string]int{}, max: c.FindingsMax,
		Segments: map[string]int{"lost": 0, "dormant": 0, "new": 0, "active": 0, "cooling": 0, "prospect": 0},
		Triggers: len(triggers), Muted: len(muted),
	}
	in, tr, mu, dl := byPartition(input), byPartition(triggers), byPartition(muted), byPartition(deadLetters)
	var ids []int32
	for _, parts := range []map[int32][]Record{in, tr, mu, dl} {
		for p := range parts {
			ids = append(ids, p)
		}
	}
	for p := range c.Marks {
		ids = append(ids, p)
	}
	slices.Sort(ids)
	for _, p := range slices.Compact(ids) {
		j := &judge{c: c, r: r, id: p}
		j.run(in[p], tr[p], mu[p], dl[p])
	}
	return r
}

// judge compares one partition.
type judge struct {
	c     *contract
	r     *Report
	id    int32
	marks []mark
	h     *history
}

func (j *judge) run(input, triggers, muted, deadLetters []Record) {
	input = j.applied(input)
	var outs []*output
	for _, topic := range []struct {
		records []Record
		read    func(rd *reader, r *Record) *output
	}{
		{triggers, func(rd *reader, r *Record) *output { return rd.transition(r, false) }},
		{muted, func(rd *reader, r *Record) *output { return rd.transition(r, true) }},
		{deadLetters, func(rd *reader, r *Record) *output { return rd.deadLetter(r) }},
	} {
		outs = append(outs, j.read(topic.records, topic.read)...)
	}
	slices.SortStableFunc(outs, func(a, b *output) int { return cmp.Compare(a.n, b.n) })
	j.checkSeries(outs)
	j.marksOf(outs)

	refused, said, spoken := j.sortOut(outs)
	ahead := func(offset int64) bool {
		return slices.ContainsFunc(refused[offset], func(o *output) bool { return o.reason == "future" })
	}
	if j.c.WallTicks {
		j.h = j.c.read(input, j.marks, ahead)
		j.bound(spoken)
	} else {
		j.h = j.c.read(input, nil, nil)
	}
	j.checkClocks()
	j.checkRefused(input, refused)
	j.checkUsers(said)
	j.count()
}

// applied cuts the input at the last mark.
func (j *judge) applied(input []Record) []Record {
	for i := 1; i < len(input); i++ {
		if input[i].Offset == input[i-1].Offset {
			j.r.wrong(j.at(input[i].Offset, "the offset twice in the input", "every record once"))
		}
	}
	m, ok := j.c.Marks[j.id]
	if !ok {
		return input
	}
	for i := range input {
		if input[i].Offset < m.Next {
			continue
		}
		j.r.Unapplied += len(input) - i
		if !j.c.Partial {
			j.r.lost(j.at(input[i].Offset, fmt.Sprintf("the last mark before it, at %d", m.Next),
				fmt.Sprintf("this record and %d more applied", len(input)-i-1)))
		}
		return input[:i]
	}
	return input
}

// read reads an output topic's records in offset order, and checks that n rises.
func (j *judge) read(records []Record, read func(rd *reader, r *Record) *output) []*output {
	var outs []*output
	for i := range records {
		rd := &reader{c: j.c}
		o := read(rd, &records[i])
		if i > 0 && o.n <= outs[i-1].n {
			rd.fault("n %d after %d", o.n, outs[i-1].n)
		}
		for _, fault := range rd.faults {
			j.r.wrong(j.finding(o, fault, "a record as the contract says"))
		}
		outs = append(outs, o)
	}
	return outs
}

// checkSeries checks that the numbers of all outputs are 1, 2, 3 and so on.
func (j *judge) checkSeries(outs []*output) {
	last := int64(0)
	for _, o := range outs {
		if o.n != last+1 {
			j.r.wrong(j.finding(o, fmt.Sprintf("n %d after %d", o.n, last), fmt.Sprintf("n %d", last+1)))
		}
		last = o.n
	}
}

// sortOut gives the dead letters by offset, the transitions by user in order of
// n, and at which clock the events that caused one were applied.
func (j *judge) sortOut(outs []*output) (refused map[int64][]*output, said map[string][]*output, spoken map[int64]int64) {
	refused, said, spoken = map[int64][]*output{}, map[string][]*output{}, map[int64]int64{}
	for _, o := range outs {
		switch {
		case o.said != nil:
			said[o.said.User] = append(said[o.said.User], o)
			if j.has(o.said.Set) && o.said.Cause == "event" {
				spoken[o.said.CauseOffset] = o.said.At
			}
		case o.reason != "":
			refused[o.refusedAt] = append(refused[o.refusedAt], o)
		}
	}
	return refused, said, spoken
}

// checkRefused compares the dead letters with the records that deserve one.
func (j *judge) checkRefused(input []Record, refused map[int64][]*output) {
	for i := range input {
		r := &input[i]
		bad, letters := j.h.refused[r.Offset], refused[r.Offset]
		delete(refused, r.Offset)
		switch {
		case bad != nil && len(letters) == 0:
			j.r.lost(j.at(r.Offset, "no dead letter", fmt.Sprintf("one for %s (%s)", bad.reason, bad.detail)))
		case bad == nil && len(letters) > 0:
			j.r.wrong(j.finding(letters[0], fmt.Sprintf("a dead letter for %s", letters[0].reason), fmt.Sprintf("record %d applied", r.Offset)))
		case bad != nil:
			j.checkLetter(r, bad, letters[0])
		}
		for _, again := range letters[min(1, len(letters)):] {
			j.r.doubled(j.finding(again, fmt.Sprintf("another dead letter for record %d", r.Offset), "one"))
		}
	}
	for offset, letters := range refused {
		j.r.wrong(j.finding(letters[0], fmt.Sprintf("a dead letter for record %d", offset), "one for a record that was there to apply"))
	}
}

func (j *judge) checkLetter(r *Record, bad *refusal, o *output) {
	wrong := func(got, want string) { j.r.wrong(j.finding(o, got, want)) }
	if o.reason != bad.reason && !slices.Contains(bad.also, o.reason) {
		wrong(fmt.Sprintf("a dead letter for %s", o.reason), fmt.Sprintf("%s (%s)", bad.reason, bad.detail))
	}
	same := func(a, b []byte) bool { return bytes.Equal(a, b) && (a == nil) == (b == nil) }
	if !same(o.rec.Key, r.Key) {
		wrong(fmt.Sprintf("key %.80q", o.rec.Key), fmt.Sprintf("the original, %.80q", r.Key))
	}
	if left := leftOut(r, o.rec); !left && !same(o.rec.Value, r.Value) {
		wrong(fmt.Sprintf("value %.80q", o.rec.Value), fmt.Sprintf("the original, %.80q", r.Value))
	}
	sameHeader := func(a, b Header) bool { return a.Key == b.Key && same(a.Value, b.Value) }
	if n := len(r.Headers); len(o.rec.Headers) < n || !slices.EqualFunc(o.rec.Headers[:n], r.Headers, sameHeader) {
		wrong("other headers first", "the original's headers, and then ours")
	}
	if text, _ := header(o.rec.Headers, "dlq_time"); text != strconv.FormatInt(r.Time, 10) {
		wrong(fmt.Sprintf("dlq_time %q", text), strconv.FormatInt(r.Time, 10))
	}
	if o.next <= r.Offset {
		wrong(fmt.Sprintf("next %d", o.next), fmt.Sprintf("one after record %d", r.Offset))
	}
	if n, ok := j.due(r.Offset, unset); ok && o.n > n {
		wrong(fmt.Sprintf("n %d", o.n), fmt.Sprintf("%d at most: a mark there covers record %d", n, r.Offset))
	}
}

// keptMin is the size up to which a dead letter must keep the record's value.
// Larger ones may be too large for the topic, with the headers added.
const keptMin = 512 << 10

// leftOut tells whether a dead letter has a record's hash and size instead of its
// value, and may.
func leftOut(r, letter *Record) bool {
	hash, _ := header(letter.Headers, "dlq_sha256")
	size, _ := header(letter.Headers, "dlq_size")
	return len(r.Value) > keptMin && letter.Value == nil &&
		hash == fmt.Sprintf("%x", sha256.Sum256(r.Value)) && size == strconv.Itoa(len(r.Value))
}

// checkUsers compares the transitions, user by user.
func (j *judge) checkUsers(said map[string][]*output) {
	may, must := j.ends()
	for _, u := range j.h.users {
		outs := said[u.name]
		delete(said, u.name)
		bySet := map[string][]*output{}
		for _, o := range outs {
			if !j.has(o.said.Set) {
				j.r.wrong(j.finding(o, "a transition of set "+o.said.Set, "none but of "+strings.Join(j.c.Sets, ", ")))
				continue
			}
			bySet[o.said.Set] = append(bySet[o.said.Set], o)
		}
		for _, set := range j.c.Sets {
			if set != setName {
				j.checkOther(bySet[set])
			}
		}
		if j.has(setName) {
			j.checkUser(u, bySet[setName], may, must)
		}
		j.r.Users++
	}
	for _, outs := range said {
		for _, o := range outs {
			j.r.wrong(j.finding(o, "a transition of a user without an applied event here", "none"))
		}
	}
}

// checkUser pairs what was said of a user with what should have been, by cause:
// a user has at most one transition an event and one a due time. What is left on
// both sides with the same seq is one transition with the wrong cause.
func (j *judge) checkUser(u *user, outs []*output, may, must int64) {
	steps := chain(j.id, u, u.choose(wordsOf(outs), may, must), may)
	taken := make([]*output, len(steps))
	byCause := make(map[string]int, len(steps))
	for i := range steps {
		byCause[steps[i].key()] = i
	}
	var strangers []*output
	kept, latest := outs[:0:0], -1
	for _, o := range outs {
		i, ok := byCause[o.said.key()]
		switch {
		case !ok:
			strangers = append(strangers, o)
		case taken[i] != nil:
			j.r.doubled(j.finding(o, "again: "+o.said.words(), "once"))
			continue
		case i < latest:
			j.r.wrong(j.finding(o, o.said.words(), "it before "+steps[latest].words()))
			fallthrough
		default:
			taken[i], latest = o, max(latest, i)
		}
		kept = append(kept, o)
	}
	j.checkChain(kept)
	for _, o := range strangers {
		i := int(o.said.Seq) - 1
		if i < 0 || i >= len(steps) || taken[i] != nil {
			j.r.wrong(j.finding(o, o.said.words(), "nothing said"))
			continue
		}
		taken[i] = o
	}
	final := ""
	for i := range steps {
		s := &steps[i]
		if optional := s.Cause == "timer" && s.until < 0 && s.Due > must; optional && taken[i] == nil {
			continue
		}
		final = s.To
		j.r.Expected++
		if taken[i] == nil {
			f := j.at(s.after, "nothing said", s.words())
			f.User, f.Seq = u.name, s.Seq
			j.r.lost(f)
			continue
		}
		j.checkTransition(u, s, taken[i])
	}
	j.r.Segments[final]++
}

// has tells whether the run has a set.
func (j *judge) has(set string) bool { return slices.Contains(j.c.Sets, set) }

// checkOther checks what was said of a user in a set that is not recomputed.
func (j *judge) checkOther(outs []*output) {
	j.r.Others += len(outs)
	causes := map[string]bool{}
	kept := outs[:0:0]
	for _, o := range outs {
		if key := o.said.key(); causes[key] {
			j.r.doubled(j.finding(o, "again: "+o.said.words(), "once"))
			continue
		} else if o.said.Cause == "event" || o.said.Cause == "timer" {
			causes[key] = true
		}
		kept = append(kept, o)
	}
	j.checkChain(kept)
}

func wordsOf(outs []*output) words {
	w := words{events: map[int64]int64{}, timers: map[int64]*Transition{}}
	for _, o := range outs {
		switch o.said.Cause {
		case "event":
			w.events[o.said.CauseOffset] = o.said.At
		case "timer":
			if w.timers[o.said.Due] == nil {
				w.timers[o.said.Due] = &o.said.Transition
				w.dues = append(w.dues, o.said.Due)
			}
		}
	}
	slices.Sort(w.dues)
	return w
}

// checkChain checks what was said of a user against itself.
func (j *judge) checkChain(outs []*output) {
	last := Transition{}
	for _, o := range outs {
		if o.said.Seq != last.Seq+1 {
			j.r.wrong(j.finding(o, fmt.Sprintf("seq %d after %d", o.said.Seq, last.Seq), fmt.Sprintf("seq %d", last.Seq+1)))
		}
		if o.said.From != last.To {
			j.r.wrong(j.finding(o, fmt.Sprintf("from %q", o.said.From), fmt.Sprintf("%q, where the last one led", last.To)))
		}
		last = o.said.Transition
	}
}

// checkTransition compares one transition with what it should be, and its mark
// with when it should have been said.
func (j *judge) checkTransition(u *user, s *step, o *output) {
	wrong := func(got, want string) { j.r.wrong(j.finding(o, got, want)) }
	if o.said.Transition != s.Transition {
		wrong(o.said.differences(&s.Transition))
	}
	if s.cause != nil {
		if o.said.causeTopic != j.c.InputTopic || o.said.causePartition != int64(j.id) {
			wrong(fmt.Sprintf("a cause in %s/%d", o.said.causeTopic, o.said.causePartition), fmt.Sprintf("%s/%d", j.c.InputTopic, j.id))
		}
		if backfill := s.cause.lane == "backfill"; backfill && !o.said.isMuted || !backfill && o.said.muted == "backfill" {
			wrong(fmt.Sprintf("muted %q", o.said.muted), "what an event of lane "+s.cause.lane+" asks for")
		}
	}
	if o.next <= s.after || s.cause != nil && o.next <= s.CauseOffset || o.clock < s.At {
		wrong(fmt.Sprintf("the mark next %d, clock %d", o.next, o.clock), fmt.Sprintf("one that covers record %d and the time %d", max(s.after, s.CauseOffset), s.At))
	}
	if n, ok := j.deadline(u, s); ok && o.n > n {
		wrong(fmt.Sprintf("n %d", o.n), fmt.Sprintf("%d at most: a mark there covers it", n))
	}
}

// deadline is the number of the last output that may say a step.
func (j *judge) deadline(u *user, s *step) (int64, bool) {
	if s.cause != nil {
		return j.due(s.CauseOffset, unset)
	}
	n, ok := j.due(s.after, s.Due)
	sooner := func(offset int64) {
		if m, covered := j.due(offset, unset); covered && (!ok || m < n) {
			n, ok = m, true
		}
	}
	if s.until >= 0 {
		sooner(s.until)
	}
	// A duplicate lets the user's timers fire as well. Offsets and clocks both rise.
	first := sort.Search(len(u.repeat), func(i int) bool { return u.repeat[i].offset > s.after && u.repeat[i].lo >= s.Due })
	if first < len(u.repeat) {
		sooner(u.repeat[first].offset)
	}
	return n, ok
}

// count adds up what the input came to.
func (j *judge) count() {
	for i := range j.h.events {
		if j.h.events[i].duplicate {
			j.r.Duplicates++
		} else {
			j.r.Applied++
		}
	}
	for _, bad := range j.h.refused {
		j.r.DeadLetters++
		j.r.Reasons[bad.reason]++
	}
}

// at is a finding about an input record.
func (j *judge) at(offset int64, got, want string) Finding {
	return Finding{Topic: j.c.InputTopic, Partition: j.id, Offset: offset, Got: got, Want: want}
}

// finding is one about an output.
func (j *judge) finding(o *output, got, want string) Finding {
	f := Finding{Topic: o.rec.Topic, Partition: j.id, Offset: o.rec.Offset, Got: got, Want: want}
	if o.said != nil {
		f.User, f.Seq = o.said.User, o.said.Seq
	}
	return f
}

// key is what identifies a transition among its user's: its cause.
func (t *Transition) key() string {
	switch t.Cause {
	case "event":
		return fmt.Sprint("event ", t.CauseOffset)
	case "timer":
		return fmt.Sprint("timer ", t.Due)
	}
	return t.Cause
}

// words writes a transition for people.
func (t *Transition) words() string {
	cause := t.Cause
	switch cause {
	case "event":
		cause = fmt.Sprintf("record %d", t.CauseOffset)
	case "timer":
		cause = "silence until " + when(t.Due)
	}
	from := t.From
	if from == "" {
		from = "nothing"
	}
	return fmt.Sprintf("%s to %s at %s by %s", from, t.To, when(t.At), cause)
}

// differences says in which fields t differs from want.
func (t *Transition) differences(want *Transition) (got, wanted string) {
	var gots, wants []string
	for _, f := range []struct {
		name string
		a, b any
	}{
		{"partition", t.Partition, want.Partition},
		{"seq", t.Seq, want.Seq},
		{"from", t.From, want.From},
		{"to", t.To, want.To},
		{"at", t.At, want.At},
		{"cause", t.Cause, want.Cause},
		{"cause.type", t.CauseType, want.CauseType},
		{"cause.id", t.CauseID, want.CauseID},
		{"cause.offset", t.CauseOffset, want.CauseOffset},
		{"due", t.Due, want.Due},
		{"recency_seconds", t.Recency, want.Recency},
		{"orders", t.Orders, want.Orders},
		{"revenue_minor", t.RevenueMinor, want.RevenueMinor},
		{"first", t.First, want.First},
		{"last", t.Last, want.Last},
		{"first_purchase", t.FirstPurchase, want.FirstPurchase},
		{"last_purchase", t.LastPurchase, want.LastPurchase},
		{"expected.to", t.ExpectedTo, want.ExpectedTo},
		{"expected.at", t.ExpectedAt, want.ExpectedAt},
	} {
		if f.a != f.b {
			gots = append(gots, fmt.Sprintf("%s %v", f.name, f.a))
			wants = append(wants, fmt.Sprintf("%s %v", f.name, f.b))
		}
	}
	return strings.Join(gots, ", "), strings.Join(wants, ", ")
}
