package oracle

import (
	"errors"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"time"
)

// Record is one Kafka record, as any reader sees it. A nil Key or Value is
// absent, which is not the same as empty.
type Record struct {
	Topic     string
	Partition int32
	Offset    int64
	Time      int64 // the record's timestamp, Unix ms
	Key       []byte
	Value     []byte
	Headers   []Header
}

// Header is one header of a record; a key can repeat.
type Header struct {
	Key   string
	Value []byte
}

// Mark is what was committed last for a partition of the input: everything
// before Next is applied, every timer due up to Fired has been said, the outputs
// end with number N.
type Mark struct {
	Next  int64
	Clock int64
	Fired int64
	N     int64
}

// Options are what the run under judgment was configured with. A zero duration
// or budget stands for footfall's default.
type Options struct {
	Currency   string            // reporting currency, ISO 4217; required
	Rates      map[string]string // 1 unit of the currency in units of the reporting one
	InputTopic string            // "" for the topic of the first input record
	Group      string            // consumer group, the first part of every ce_id; "" for whatever the first output says
	Rules      string            // the rules' hash as written in transitions; "" for any
	Lane       string            // lane of records that name none; "" for live
	Sets       []string          // segment sets of the run; nil for lifecycle alone, the only one recomputed

	DedupWindow int64 // ms; 1 h
	DedupBudget int64 // records; 1<<20
	FutureLimit int64 // ms an event time may be after its record's timestamp; 5 min
	MaxSkew     int64 // ms a record's timestamp may be ahead of the wall; 5 min; only with Wall

	// WallTicks tells that clocks moved between records too. Without it, records
	// alone move the clock.
	WallTicks bool

	// Wall tells what the wall was when a record was applied, if the caller knows.
	// Without it, a dead letter that says "future" for a record timestamp is
	// believed with wall ticks if it can be true, and never in log time.
	Wall func(r *Record) int64

	// Marks are the last committed marks. Without one, all of a partition's input
	// has been applied and, in log time, all of its timers have fired.
	Marks map[int32]Mark

	// Partial tells that the run was cut short: records from a mark's Next on
	// are still to be applied. Otherwise they count as lost.
	Partial bool

	// FindingsMax bounds how many findings of each kind are kept in words; all
	// are counted. 1,000 if zero.
	FindingsMax int
}

// Finding is one deviation.
type Finding struct {
	Topic     string // the topic that Offset is of: the input's for what is missing, else the output's
	Partition int32
	Offset    int64 // -1 if the finding is of no single record
	User      string
	Seq       int64 // 0 if none
	Got, Want string
}

// String writes a finding on one line.
func (f Finding) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s/%d", f.Topic, f.Partition)
	if f.Offset >= 0 {
		fmt.Fprintf(&b, "@%d", f.Offset)
	}
	if f.User != "" {
		fmt.Fprintf(&b, " user %q", f.User)
	}
	if f.Seq > 0 {
		fmt.Fprintf(&b, " seq %d", f.Seq)
	}
	fmt.Fprintf(&b, ": got %s, want %s", f.Got, f.Want)
	return b.String()
}

// Report is the judgment. Applied + Duplicates + DeadLetters + Unapplied is the
// number of input records; what is counted is what should have been, decided
// from the input.
type Report struct {
	Applied     int
	Duplicates  int
	DeadLetters int
	Reasons     map[string]int // dead letters by reason
	Unapplied   int            // records from the last marks on

	Expected int            // transitions that should have been said
	Others   int            // transitions said in other sets than lifecycle
	Triggers int            // transitions said on the trigger topic
	Muted    int            // transitions said on the muted topic
	Users    int            // with at least one applied event, counted in each partition
	Segments map[string]int // users by segment of the lifecycle set, at the end

	LostCount    int
	DoubledCount int
	WrongCount   int
	Lost         []Finding // should have been said, and was not
	Doubled      []Finding // said more than once
	Wrong        []Finding // said otherwise than it should have been

	max int
}

// Err is nil for a clean report; otherwise it counts the findings and shows some.
func (r *Report) Err() error {
	if r.LostCount+r.DoubledCount+r.WrongCount == 0 {
		return nil
	}
	var b strings.Builder
	fmt.Fprintf(&b, "oracle: %d lost, %d doubled, %d wrong, of %d transitions and %d dead letters",
		r.LostCount, r.DoubledCount, r.WrongCount, r.Expected, r.DeadLetters)
	for _, kind := range []struct {
		name string
		list []Finding
	}{{"lost", r.Lost}, {"doubled", r.Doubled}, {"wrong", r.Wrong}} {
		for _, f := range kind.list[:min(3, len(kind.list))] {
			fmt.Fprintf(&b, "\n  %s: %v", kind.name, f)
		}
	}
	return errors.New(b.String())
}

func (r *Report) lost(f Finding) {
	r.LostCount++
	if len(r.Lost) < r.max {
		r.Lost = append(r.Lost, f)
	}
}

func (r *Report) doubled(f Finding) {
	r.DoubledCount++
	if len(r.Doubled) < r.max {
		r.Doubled = append(r.Doubled, f)
	}
}

func (r *Report) wrong(f Finding) {
	r.WrongCount++
	if len(r.Wrong) < r.max {
		r.Wrong = append(r.Wrong, f)
	}
}

// contract is Options, checked and with its defaults.
type contract struct {
	Options
	currency    string
	rates       map[string]*big.Rat
	lane        string
	futureLimit int64
}

// compile panics on a currency or rate that no configuration check would pass.
func compile(opt Options) *contract {
	c := &contract{Options: opt, currency: opt.Currency, lane: orText(opt.Lane, "live"), rates: map[string]*big.Rat{}}
	if !isCurrency(opt.Currency) {
		panic(fmt.Sprintf("oracle: %q is no currency of ISO 4217", opt.Currency))
	}
	for code, rate := range opt.Rates {
		r, ok := new(big.Rat).SetString(rate)
		if !ok || r.Sign() <= 0 || !isCurrency(code) {
			panic(fmt.Sprintf("oracle: bad rate %q for %q", rate, code))
		}
		c.rates[code] = r
	}
	c.rates[opt.Currency] = big.NewRat(1, 1)
	if c.Sets == nil {
		c.Sets = []string{setName}
	}
	c.futureLimit = or(opt.FutureLimit, 5*time.Minute.Milliseconds())
	c.MaxSkew = or(opt.MaxSkew, 5*time.Minute.Milliseconds())
	c.DedupWindow = or(opt.DedupWindow, time.Hour.Milliseconds())
	c.DedupBudget = or(opt.DedupBudget, 1<<20)
	if c.FindingsMax == 0 {
		c.FindingsMax = 1000
	}
	return c
}

func or(v, otherwise int64) int64 {
	if v == 0 {
		return otherwise
	}
	return v
}

func orText(v, otherwise string) string {
	if v == "" {
		return otherwise
	}
	return v
}

// header returns the last header of that name.
func header(headers []Header, key string) (string, bool) {
	for _, header := range slices.Backward(headers) {
		if header.Key == key {
			return string(header.Value), true
		}
	}
	return "", false
}

// when writes a time as footfall does: RFC 3339, UTC, milliseconds.
func when(ms int64) string {
	return time.UnixMilli(ms).UTC().Format("2006-01-02T15:04:05.000Z")
}
