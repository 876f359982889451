package rehearsal

import (
	"fmt"
	"io"
	"math"
	"slices"

	"footfall/pipeline/segment"
	"footfall/pipeline/worker"
	"footfall/schemas"
)

// Side is a history under one list of rules: a stage for each partition, and a tally of
// what is said. Only one goroutine may touch it at a time.
type Side struct {
	rules    *segment.Program
	contract schemas.Contract
	dedup    Dedup

	stages map[int32]*Stage
	tally  tally

	now     schemas.Millis
	first   schemas.Millis // moment of the first record; Never: there was none
	nextCut schemas.Millis // when the next epoch is due; Never: the rules score by no quantile
	records int
	refused int
	whole   schemas.Millis // from when on all partitions are played
}

// SideConfig is what a side is made of.
type SideConfig struct {
	Rules    *segment.Program
	Contract schemas.Contract
	Dedup    Dedup
}

// NewSide makes a side on which nothing has happened. It refuses a contract that no
// decoder can be made of.
func NewSide(cfg SideConfig) (*Side, error) {
	if _, err := schemas.NewDecoder(cfg.Contract); err != nil {
		return nil, err
	}
	s := &Side{
		rules: cfg.Rules, contract: cfg.Contract, dedup: cfg.Dedup,
		stages: map[int32]*Stage{}, first: schemas.Never, nextCut: schemas.Never,
	}
	s.tally = newTally(cfg.Rules)
	return s, nil
}

func (s *Side) config() Config {
	d, err := schemas.NewDecoder(s.contract)
	if err != nil {
		panic(err) // one could be made
	}
	return Config{Rules: s.rules, Decoder: d, Dedup: s.dedup, Say: s.hear}
}

// Read makes a stage for a partition out of a snapshot. It refuses one that does not hold
// all that the rules ask for. each gives the bytes of its chain to read, one after the
// other.
func (s *Side) Read(partition int32, each func(read func(io.Reader) error) error) (*Stage, error) {
	return Load(partition, each, s.config())
}

// Begin begins a partition with a stage instead of nothing.
func (s *Side) Begin(partition int32, stage *Stage) {
	s.stages[partition] = stage
	s.begin(stage.Clock())
	s.whole = max(s.whole, stage.Clock())
}

// From is the first offset of a partition that the side wants to play.
func (s *Side) From(partition int32) int64 {
	if stage := s.stages[partition]; stage != nil {
		return stage.From()
	}
	return 0
}

// begin notes a moment of the history, of which the first begins it.
func (s *Side) begin(at schemas.Millis) {
	if at < s.first {
		s.first = at
		if s.rules.Quantiles() > 0 {
			_, s.nextCut = s.rules.EpochAt(at)
		}
	}
	s.now = max(s.now, at)
}

// Play applies a record of a partition. Those of a partition come in offset order; where
// the rules score by quantiles, those of all partitions in the order of time.
func (s *Side) Play(partition int32, r *worker.Record) {
	s.begin(r.Time)
	for s.nextCut <= s.now {
		s.cut(s.nextCut)
	}
	stage := s.stages[partition]
	if stage == nil {
		stage = New(partition, r.Offset, s.config())
		s.stages[partition] = stage
	}
	s.records++
	stage.Play(r)
}

// Advance moves time on, in every partition.
func (s *Side) Advance(to schemas.Millis) {
	for s.nextCut <= to {
		s.cut(s.nextCut)
	}
	s.now = max(s.now, to)
	for _, p := range s.partitions() {
		s.stages[p].Advance(s.now)
	}
}

// Forecast calls each with every user of whom silence alone will move some, partition by
// partition (worker.Forecast).
func (s *Side) Forecast(until schemas.Millis, each func(w *worker.Worker, user []byte, dues []worker.Due)) {
	for _, p := range s.partitions() {
		w := s.stages[p].Worker()
		for row := int32(0); row >= 0; {
			row = w.Forecast(row, math.MaxInt32, until, func(user []byte, dues []worker.Due) { each(w, user, dues) })
		}
	}
}

// Now is where time stands.
func (s *Side) Now() schemas.Millis { return s.now }

func (s *Side) partitions() (all []int32) {
	for p := range s.stages {
		all = append(all, p)
	}
	slices.Sort(all)
	return all
}

// cut makes the epoch of a moment: what users of all partitions are worth there, and the
// bounds between them.
func (s *Side) cut(at schemas.Millis) {
	number, next := s.rules.EpochAt(at)
	s.nextCut = next
	of := make([]segment.Distribution, s.rules.Quantiles())
	for _, p := range s.partitions() {
		for i, d := range s.stages[p].Census(at) {
			of[i].Merge(&d)
		}
	}
	epoch, ok := s.rules.Cut(number, at, of)
	if !ok {
		return // nobody has bought yet
	}
	var err error
	if s.rules, err = s.rules.With(epoch); err != nil {
		panic(fmt.Sprintf("rehearsal: an epoch of the rules' own: %v", err))
	}
	for _, p := range s.partitions() {
		s.stages[p].Switch(s.rules)
	}
}

func (s *Side) hear(it *worker.Item) {
	if it.DeadLetter != nil {
		s.refused++
		return
	}
	s.tally.add(it.Transition)
}

// tally counts transitions by the hour and the day.
type tally struct {
	days  map[int64][][]flow // by day since 1970: [sets][segments]
	hours map[int64][]int    // triggers, by hour since 1970: [sets]
	shape []int              // segments of each set
}

// flow is how many came and went.
type flow struct{ entries, exits int }

func newTally(rules *segment.Program) tally {
	t := tally{days: map[int64][][]flow{}, hours: map[int64][]int{}}
	for _, names := range rules.Names() {
		t.shape = append(t.shape, len(names.Segments))
	}
	return t
}

func (t *tally) add(tr *schemas.Transition) {
	day := int64(tr.At / schemas.Day)
	sets := t.days[day]
	if sets == nil {
		sets = make([][]flow, len(t.shape))
		for i, n := range t.shape {
			sets[i] = make([]flow, n)
		}
		t.days[day] = sets
	}
	sets[tr.Set][tr.To].entries++
	if tr.From < schemas.Retired {
		sets[tr.Set][tr.From].exits++
	}
	if tr.Muted != schemas.NotMuted {
		return
	}
	hour := int64(tr.At / schemas.Hour)
	if t.hours[hour] == nil {
		t.hours[hour] = make([]int, len(t.shape))
	}
	t.hours[hour][tr.Set]++
}

// Rate is how many triggers there are in an hour.
type Rate struct {
	Total  int
	Mean   float64
	Peak   int
	PeakAt schemas.Millis // the hour; 0: there were none
}

// rate is that of a set, or of all where set is negative, in hours from..to-1.
func (t *tally) rate(set int, from, to int64) (r Rate) {
	for hour := from; hour < to; hour++ {
		n := 0
		for i, triggers := range t.hours[hour] {
			if set < 0 || i == set {
				n += triggers
			}
		}
		r.Total += n
		if n > r.Peak {
			r.Peak, r.PeakAt = n, schemas.Millis(hour)*schemas.Hour
		}
	}
	r.Mean = float64(r.Total) / math.Max(1, float64(to-from))
	return r
}
