// Package rehearsal plays histories to workers and listens to what they would say,
// with no effect on anyone: the examples that stand beside rules, a change of rules
// against the one before it, a trigger that is to be recomputed.
//
// It is pure: no clock, no lock, no goroutine, no I/O. What it plays was read by its
// caller, and what it finds is for its caller to print.
package rehearsal

import (
	"errors"
	"io"

	"footfall/pipeline/segment"
	"footfall/pipeline/worker"
	"footfall/schemas"
)

// Config is what a stage decides by.
type Config struct {
	Rules   *segment.Program
	Decoder *schemas.Decoder // the stage's own
	Dedup   Dedup
	Say     func(*worker.Item) // what is said, in order; it must not keep the item
}

// Dedup is how far back a repeated event is recognised.
type Dedup struct {
	Window schemas.Millis
	Budget int
}

// DefaultDedup is the configuration's default.
func DefaultDedup() Dedup { return Dedup{schemas.Hour, 1 << 20} }

// eternity is a limit of time that nothing reaches: nothing rehearsed is stale, or
// ahead of a wall.
const eternity = 1000 * 365 * schemas.Day

// ahead is how far an event time may lie after its record's timestamp (design 4).
const ahead = 5 * schemas.Minute

// Stage is a worker that is driven by hand: records, and time. Only one goroutine may
// touch it at a time.
type Stage struct {
	cfg    Config
	worker *worker.Worker
	out    worker.Output
	record [1]worker.Record
	from   int64
}

func (c *Config) worker() worker.Config {
	return worker.Config{
		Rules: c.Rules, Decoder: c.Decoder, Ahead: ahead, MaxSkew: eternity, MaxAge: eternity,
		DedupWindow: c.Dedup.Window, DedupBudget: c.Dedup.Budget, Slice: 1 << 20,
	}
}

// New makes a stage on which nothing has happened yet, of a partition's records from
// offset next on.
func New(partition int32, next int64, cfg Config) *Stage {
	s := &Stage{cfg: cfg, worker: worker.New(partition, cfg.worker()), from: next}
	s.worker.Begin(next, 0)
	return s
}

// Load makes a stage on which everything has happened that a snapshot holds. It refuses
// a snapshot that does not hold all that the rules ask for. Where it is of other rules,
// everybody has been evaluated under these. each gives the bytes of its chain to read.
func Load(partition int32, each func(read func(io.Reader) error) error, cfg Config) (*Stage, error) {
	w, err := worker.ReadChain(each, partition, cfg.worker())
	if err != nil {
		return nil, err
	}
	if w.Filling() {
		return nil, ErrUnkept
	}
	mark := w.Mark()
	s := &Stage{cfg: cfg, worker: w, from: min(w.DedupStart(), mark.Next)}
	mark.Bootstrap, mark.Lane = 0, schemas.Live
	if err := w.Resume(mark, worker.Conditions{Wall: mark.Clock}, &s.out); err != nil {
		return nil, err
	}
	s.cfg.Say = nil // what other rules make of it is no part of the history
	s.settle()
	s.cfg.Say = cfg.Say
	return s, nil
}

// From is the first offset that the stage wants to play: behind it is the dedup window.
func (s *Stage) From() int64 { return s.from }

// ErrUnkept says that a snapshot does not hold what rules ask for.
var ErrUnkept = errors.New("the rules ask for what the snapshot does not hold")

// settle fires what is due, and evaluates who is to be evaluated.
func (s *Stage) settle() {
	for s.worker.Busy() {
		s.apply(nil, 0, schemas.Live)
	}
}

// Census moves time on to a moment and counts users, as they are there, by the values of
// the rules' quantiles.
func (s *Stage) Census(at schemas.Millis) []segment.Distribution {
	s.Advance(at)
	s.worker.Census()
	s.settle()
	_, of, done := s.worker.Counted()
	if !done {
		panic("rehearsal: a census that is over and not done")
	}
	return of
}

// Switch makes the worker go by other rules, from here on.
func (s *Stage) Switch(rules *segment.Program) {
	s.cfg.Rules = rules
	s.worker.Switch(rules)
	s.settle()
}

// Play applies a record; one from before a snapshot is remembered as seen. Records come
// in offset order. What a record of lane backfill causes is said muted, as it would be;
// otherwise lanes make no difference here, where time is what the caller says.
func (s *Stage) Play(r *worker.Record) {
	lane := r.Lane
	s.record[0] = *r
	if r.Offset < s.worker.Mark().Next {
		s.worker.Remember(s.record[:])
		return
	}
	s.record[0].Lane = schemas.Live // of no other lane may time go on by itself
	s.apply(s.record[:], 0, lane)
	s.settle()
}

// Advance moves time on to a moment, and fires every timer until then.
func (s *Stage) Advance(to schemas.Millis) {
	for to > s.worker.Mark().Clock || s.worker.Pending() {
		s.apply(nil, to, schemas.Live)
	}
}

func (s *Stage) apply(records []worker.Record, tick schemas.Millis, lane schemas.Lane) {
	wall := tick
	if len(records) > 0 {
		wall = records[0].Time
	}
	s.worker.Apply(records, worker.Conditions{Wall: wall, Tick: tick}, &s.out)
	for i := range s.out.Items {
		it := &s.out.Items[i]
		if t := it.Transition; t != nil && t.Cause.Kind == schemas.ByEvent && lane == schemas.Backfill && t.Muted == schemas.NotMuted {
			t.Muted = schemas.MutedBackfill
		}
		if s.cfg.Say != nil {
			s.cfg.Say(it)
		}
	}
}

// Clock is where time stands.
func (s *Stage) Clock() schemas.Millis { return s.worker.Mark().Clock }

// Worker is the worker on the stage, to be looked at.
func (s *Stage) Worker() *worker.Worker { return s.worker }
