package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"footfall/pipeline/parity"
	"footfall/pipeline/segment"
	"footfall/schemas"
	"footfall/sinks/clickhouse"
	"footfall/sources/kafka"
)

// evidence looks for the events behind an instance's explanation: in ClickHouse, which
// has them all, or else at the end of the user's partition of the topic. Where neither
// can be asked the explanation stands without them, and says why.
type evidence struct {
	c       *Config
	from    string // auto, clickhouse, log or none
	records int    // of the log, at most
	a       *ExplainAnswer

	events []schemas.Event // that count, as far as known
	at     []int64         // their offsets
	whole  bool            // these are all there are
}

// add adds what it finds to the answer.
func (e *evidence) add(ctx context.Context) error {
	switch {
	case e.from == "none":
		return nil
	case e.from == "clickhouse" && !e.c.ClickHouse.Enabled:
		return &usageError{errors.New("clickhouse.enabled is false: there is nothing to ask for events; use --events log")}
	}
	rules, err := e.c.rules()
	if err != nil {
		return err
	}
	if hash := fmt.Sprintf("%016x", rules.Hash()); hash != e.a.Rules {
		e.a.Note = fmt.Sprintf("no events are shown: the instance goes by rules %s, and this configuration's are %s", e.a.Rules, hash)
		return nil
	}
	if e.from != "log" && e.c.ClickHouse.Enabled {
		if err := e.askClickHouse(ctx); err != nil {
			e.a.Note = fmt.Sprintf("ClickHouse could not be asked for events: %v", remedied(err))
		}
	}
	if !e.whole && e.from != "clickhouse" {
		if err := e.readLog(ctx); err != nil {
			e.a.Note = fmt.Sprintf("the topic could not be read for events: %v", err)
		}
	}
	if e.a.Found != "" {
		e.attach(rules)
	}
	return nil
}

// settle is how long ClickHouse is waited for, when it does not have the newest events
// yet.
const settle = 3 * time.Second

// askClickHouse reads the user's events, and how the user came into its segments.
func (e *evidence) askClickHouse(ctx context.Context) error {
	db, err := clickhouse.Open(e.c.clickhouseDSN())
	if err != nil {
		return err
	}
	defer func() { _ = db.Close() }() // nothing is under way
	opts, err := kafka.Options(e.c.kafka())
	if err != nil {
		return &usageError{err}
	}
	tables, err := clickhouse.NewParity(e.c.archiveConfig(db, opts), false)
	if err != nil {
		return err
	}
	defer tables.Close()
	mark := schemas.Mark{Partition: e.a.Partition, Next: e.a.Next, N: math.MaxInt64}
	for began := time.Now(); ; {
		histories, err := tables.Histories(ctx, mark, []string{e.a.User})
		if err != nil {
			return err
		}
		e.take(histories[0].Events)
		if e.whole || time.Since(began) > settle {
			break
		}
		backoff(ctx, 5)
	}
	came, err := tables.Came(ctx, mark, e.a.User)
	if err != nil {
		return err
	}
	for i := range e.a.Sets {
		s := &e.a.Sets[i]
		if l, ok := came[s.Set]; ok && l.Seq == s.Seq && l.To == s.Segment {
			s.Came = &ExplainCame{
				From: l.From, Cause: l.Cause, Type: l.Type, EventID: l.EventID, Topic: l.Topic, Partition: l.Partition, Offset: l.Offset,
				Clause: l.Clause, Was: l.Was, Is: l.Is,
			}
		}
	}
	switch {
	case e.whole:
		e.a.Found = "clickhouse"
	case e.from == "clickhouse":
		e.a.Note = fmt.Sprintf("no events are shown: ClickHouse has %s, and footfall counts %s", kindsText(e.kinds()), kindsText(e.a.Events))
	}
	return nil
}

// take keeps the events that count.
func (e *evidence) take(events []parity.Event) {
	e.events, e.at = e.events[:0], e.at[:0]
	for i := range events {
		if events[i].Counts {
			e.events, e.at = append(e.events, events[i].Event), append(e.at, events[i].Offset)
		}
	}
	e.check()
}

// check tells whether the events are those of the profile.
func (e *evidence) check() {
	kinds := e.kinds()
	e.whole = true
	for kind := range schemas.Kinds {
		e.whole = e.whole && kinds[kind.String()] == e.a.Events[kind.String()]
	}
}

func (e *evidence) kinds() map[string]int64 {
	kinds := map[string]int64{}
	for i := range e.events {
		kinds[e.events[i].Kind.String()]++
	}
	return kinds
}

// kindsText writes events by their kinds: 3 view, 1 purchase.
func kindsText(kinds map[string]int64) string {
	text := ""
	for kind := range schemas.Kinds {
		if n := kinds[kind.String()]; n > 0 {
			if text != "" {
				text += ", "
			}
			text += fmt.Sprintf("%d %s", n, kind)
		}
	}
	if text == "" {
		return "no events"
	}
	return text
}

// readLog reads the user's events at the end of the partition, up to so many records
// back. An event or order that is repeated counts once.
func (e *evidence) readLog(ctx context.Context) error {
	decoder, err := schemas.NewDecoder(e.c.contract())
	if err != nil {
		return err
	}
	e.events, e.at = nil, nil
	seen := map[string]bool{}
	topic, first := e.c.Kafka.Topics.Events, int64(0)
	err = readFrom(ctx, e.c, topic, func(r *kgo.Record) error {
		var ev schemas.Event
		theirs := string(r.Key) == e.a.User && r.Offset < e.a.Next
		if taken := theirs && decoder.Decode(r.Key, r.Value, &ev) == nil; !taken || ev.At-ahead > schemas.Millis(r.Timestamp.UnixMilli()) {
			return nil
		}
		id, order := "e"+string(ev.ID), "o"+string(ev.OrderID)
		if seen[id] || ev.Kind == schemas.Purchase && seen[order] {
			return nil
		}
		seen[id] = true
		if ev.Kind == schemas.Purchase {
			seen[order] = true
		}
		e.events, e.at = append(e.events, owned(&ev)), append(e.at, r.Offset)
		return nil
	}, func(adm *kadm.Client, ends kadm.ListedOffsets) (kadm.ListedOffsets, error) {
		starts, err := adm.ListStartOffsets(ctx, topic)
		for p, end := range ends[topic] {
			s := starts[topic][p]
			if p == e.a.Partition {
				first = max(s.Offset, e.a.Next-int64(e.records))
				s.Offset = min(first, end.Offset)
			} else {
				s.Offset = end.Offset // nothing of it
			}
			if starts[topic] != nil {
				starts[topic][p] = s
			}
		}
		return starts, err
	})
	if err != nil {
		return err
	}
	e.check()
	e.a.Found, e.a.Note = "log", ""
	if !e.whole {
		e.a.Note = fmt.Sprintf("events were looked for in %s/%d from offset %d on, where there are %s of the user's; where an older one may decide none is shown",
			topic, e.a.Partition, first, kindsText(e.kinds()))
	}
	return nil
}

// owned is an event that keeps its memory.
func owned(ev *schemas.Event) schemas.Event {
	out := *ev
	for _, b := range []*[]byte{
		&out.ID, &out.User, &out.OrderID, &out.SessionID, &out.CartID, &out.ProductID, &out.Category, &out.Brand,
		&out.Channel, &out.Campaign, &out.URL, &out.Timezone, &out.Birthday, &out.Items, &out.Properties, &out.Extra,
	} {
		*b = slices.Clone(*b)
	}
	return out
}

// attach puts the events beside the clauses that look at them.
func (e *evidence) attach(rules *segment.Program) {
	names := rules.Names()
	for i := range e.a.Sets {
		s := &e.a.Sets[i]
		set := setIndex(names, s.Set)
		if set < 0 {
			continue
		}
		behind := func(name string) [][]segment.Behind {
			n := slices.Index(names[set].Segments, name)
			if n < 0 {
				return nil
			}
			return rules.Behind(set, uint16(n), schemas.Millis(e.a.Clock), e.events)
		}
		for j, found := range behind(s.Segment) {
			if j < len(s.Clauses) {
				s.Clauses[j].Events = e.shown(found)
			}
		}
		for j := range s.Not {
			if found := behind(s.Not[j].Segment); s.Not[j].Clause < len(found) {
				s.Not[j].Events = e.shown(found[s.Not[j].Clause])
			}
		}
	}
}

// shown are events for people. Where not all are known, only those that decide whatever
// came before them.
func (e *evidence) shown(found []segment.Behind) []ExplainEvent {
	out := []ExplainEvent{}
	for _, b := range found {
		if !e.whole && !b.Newest {
			continue
		}
		ev := &e.events[b.Event]
		out = append(out, ExplainEvent{
			Of: b.Question, Count: b.Of, Text: b.Text, Newest: b.Newest, Topic: e.c.Kafka.Topics.Events, Partition: e.a.Partition, Offset: e.at[b.Event],
			EventID: string(ev.ID), Type: ev.Kind.String(), Time: Moment(ev.At),
		})
	}
	return out
}
