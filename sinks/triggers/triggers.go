// Package triggers is where transitions and dead letters go: the trigger topic, the
// muted topic and the dead-letter topic, inside the transaction that commits the
// mark they were said at.
//
// It may encode, choose a topic, and read back what was said. It knows no rules,
// profiles or timers, decides nothing about an output but where it goes, and does
// not know how a transaction is made: its Session does.
package triggers

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"footfall/pipeline"
	"footfall/pipeline/worker"
	"footfall/schemas"
)

// Session is what the sink needs of Kafka; *kafka.Session is one.
type Session interface {
	// Transact writes records and commits the last mark of each partition among
	// outs, together or not at all. Its errors are those of pipeline.Committer, and
	// tooLarge. When it has returned nil nobody looks at the records any more.
	Transact(ctx context.Context, records []*kgo.Record, outs []*worker.Output) error

	// Committed reads a partition's mark by a stable fetch.
	Committed(ctx context.Context, partition int32) (mark schemas.Mark, found bool, err error)

	// Range returns a partition's first offset, its last stable one and its end.
	Range(ctx context.Context, topic string, partition int32) (start, stable, end int64, err error)

	// Fetch reads committed records, and markers, from offset on, and says where to go on from.
	Fetch(ctx context.Context, topic string, partition int32, offset int64) ([]*kgo.Record, int64, error)

	// Peek is Fetch of no more than a few batches.
	Peek(ctx context.Context, topic string, partition int32, offset int64) ([]*kgo.Record, int64, error)

	// Hanging names the transaction that keeps a partition undecided.
	Hanging(ctx context.Context, topic string, partition int32) string
}

// tooLarge is what Transact's error is when records were refused for their size.
// Nothing has happened then.
type tooLarge interface {
	error
	TooLarge() []*kgo.Record // largest first
}

// Config says what goes where and under which names. All of it is required but Wait.
type Config struct {
	Group string // of the instance that says it: source and id of the CloudEvents
	Input string // the input topic, where a cause's position lies

	Triggers, Muted, DeadLetters string // topics, with as many partitions as Input

	Currency string // the reporting currency

	// Now is the wall: the record timestamp of outputs. It is never a transition's
	// At: a broker deletes by record timestamp, and an At may be months old.
	Now func() schemas.Millis

	// Wait is how long Said waits for outputs that are committed and not visible
	// yet; default 30 s.
	Wait time.Duration
}

// Sink writes outputs and reads them back. It implements pipeline.Committer and
// the output half of pipeline.History. Its methods may be called concurrently.
type Sink struct {
	conf    Config
	session Session
	source  string
	topics  [3]string
	batches sync.Pool // of *batch, to be used again
}

// New makes a sink.
func New(conf Config, session Session) (*Sink, error) {
	var errs []error
	for _, f := range []struct{ what, value string }{
		{"group", conf.Group},
		{"input topic", conf.Input},
		{"trigger topic", conf.Triggers},
		{"muted topic", conf.Muted},
		{"dead-letter topic", conf.DeadLetters},
		{"currency", conf.Currency},
	} {
		if f.value == "" {
			errs = append(errs, fmt.Errorf("triggers: %s is missing", f.what))
		}
	}
	if conf.Triggers == conf.Muted || conf.Triggers == conf.DeadLetters || conf.Muted == conf.DeadLetters {
		errs = append(errs, errors.New("triggers: the trigger, muted and dead-letter topics must be three"))
	}
	if conf.Now == nil {
		errs = append(errs, errors.New("triggers: Now is missing"))
	}
	conf.Wait = cmp.Or(conf.Wait, 30*time.Second)
	return &Sink{
		conf:    conf,
		session: session,
		source:  schemas.SourceOf(conf.Group),
		topics:  [3]string{conf.Triggers, conf.Muted, conf.DeadLetters},
	}, errors.Join(errs...)
}

// Commit makes outputs and their marks visible together or not at all.
//
// A dead letter that its topic refuses for its size goes with hash and size
// instead of its value. A transition that is refused for its size is a topic set
// up wrongly: that does not mend itself.
func (s *Sink) Commit(ctx context.Context, outs []*worker.Output) error {
	batch := s.encode(outs)
	for again := false; ; again = true {
		err := s.session.Transact(ctx, batch.records, outs)
		if err == nil {
			if !again { // of what has failed something may still be under way
				s.giveBack(batch)
			}
			return nil
		}
		var large tooLarge
		if !errors.As(err, &large) {
			return err
		}
		if !s.shrink(batch, large.TooLarge()) {
			return fmt.Errorf("triggers: %w: %w", pipeline.ErrPermanent, err)
		}
	}
}

// Committed reads the partition's mark.
func (s *Sink) Committed(ctx context.Context, partition int32) (schemas.Mark, bool, error) {
	return s.session.Committed(ctx, partition)
}

// batch is the records of one transaction and the items they stand for. Its memory is used
// again for a later one.
type batch struct {
	records []*kgo.Record
	items   []*worker.Item // items[i] is what records[i] says
	cut     []bool         // records[i] is a dead letter without its value

	// What records are, and what they point at, is cut from few large pieces.
	store   []kgo.Record
	bytes   pieces[byte]
	headers pieces[kgo.RecordHeader]
}

// Sizes of the pieces. A transition takes some 900 bytes, and eleven headers.
const (
	bytesPiece   = 64 << 10
	bytesSpare   = 2 << 10
	headersPiece = 1024
	headersSpare = 16
)

// pieces is memory in pieces, of which the first ones are in use.
type pieces[T any] struct {
	all  [][]T // in full length
	used int
	last []T // the last one that is in use, as far as it is
}

// room gives where to append what comes next, which is likely to need no more than so much.
func (p *pieces[T]) room(spare, piece int) []T {
	if cap(p.last)-len(p.last) < spare {
		if p.used == len(p.all) {
			p.all = append(p.all, make([]T, piece))
		}
		p.last = p.all[p.used][:0]
		p.used++
	}
	return p.last
}

// encode makes the records of outputs.
func (s *Sink) encode(outs []*worker.Output) *batch {
	n := 0
	for _, out := range outs {
		n += len(out.Items)
	}
	b, ok := s.batches.Get().(*batch)
	if !ok {
		b = &batch{}
	}
	b.records, b.items = slices.Grow(b.records, n), slices.Grow(b.items, n)
	b.cut, b.store = slices.Grow(b.cut, n)[:n], slices.Grow(b.store, n)[:n]
	now := time.UnixMilli(int64(s.conf.Now()))
	for _, out := range outs {
		for i := range out.Items {
			item := &out.Items[i]
			r := &b.store[len(b.records)]
			r.Partition, r.Timestamp = out.Mark.Partition, now
			s.fill(b, r, item, out.Sets, false)
			b.records, b.items = append(b.records, r), append(b.items, item)
		}
	}
	return b
}

// giveBack leaves a batch's memory to the next one.
func (s *Sink) giveBack(b *batch) {
	clear(b.records)
	clear(b.items)
	clear(b.cut)
	clear(b.store)
	b.records, b.items, b.cut, b.store = b.records[:0], b.items[:0], b.cut[:0], b.store[:0]
	b.bytes.used, b.bytes.last, b.headers.used, b.headers.last = 0, nil, 0, nil
	s.batches.Put(b)
}

// fill writes an item, a transition of one of sets, into a record whose partition is set.
func (s *Sink) fill(b *batch, r *kgo.Record, item *worker.Item, sets []schemas.SetNames, cut bool) {
	h := schemas.OutputHeaders{N: item.N, Next: item.Next, Clock: item.Clock, Fired: item.Fired}
	if d := item.DeadLetter; d != nil {
		rec := d.Encode(s.conf.Input, &h, cut)
		r.Topic, r.Key, r.Value = s.conf.DeadLetters, rec.Key, rec.Value
		r.Headers = make([]kgo.RecordHeader, 0, len(rec.Headers))
		for _, h := range rec.Headers {
			r.Headers = append(r.Headers, kgo.RecordHeader(h))
		}
		return
	}
	t := item.Transition
	h.ID = schemas.OutputID(s.conf.Group, r.Partition, item.N)
	r.Topic = s.conf.Triggers
	if t.Muted != schemas.NotMuted {
		r.Topic = s.conf.Muted
	}
	buf := b.bytes.room(bytesSpare, bytesPiece)
	from := len(buf)
	buf = append(buf, t.User...)
	r.Key = buf[from:len(buf):len(buf)]
	from = len(buf)
	buf = t.AppendJSON(buf, &schemas.TransitionContext{
		ID: h.ID, Topic: s.conf.Input, Sets: sets, Currency: s.conf.Currency,
	})
	r.Value = buf[from:len(buf):len(buf)]
	headers := b.headers.room(headersSpare, headersPiece)
	from = len(headers)
	b.headers.last, b.bytes.last = schemas.AppendTransitionHeaders(headers, buf, &h, s.source, t)
	r.Headers = slices.Clip(b.headers.last[from:])
}

// shrink takes the values out of the dead letters that are to blame, and says
// whether there were any. A broker refuses a whole batch, so small ones may be
// among the refused; only those within half the size of the largest are taken.
func (s *Sink) shrink(b *batch, refused []*kgo.Record) bool {
	blamed := make(map[*kgo.Record]bool, len(refused))
	largest := -1
	for i, r := range b.records {
		for _, bad := range refused {
			if bad == r && b.items[i].DeadLetter != nil && !b.cut[i] {
				blamed[r] = true
				largest = max(largest, len(r.Value))
			}
		}
	}
	for i, r := range b.records {
		if blamed[r] && len(r.Value) >= largest/2 {
			b.cut[i] = true
			s.fill(b, r, b.items[i], nil, true)
		}
	}
	return len(blamed) > 0
}
