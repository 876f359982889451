// Package worker is the machine that owns one partition: a batch of records and a
// clock in; transitions, dead letters and a mark out (design 4).
//
// It is plain, deterministic and single-threaded. It may panic on a broken
// invariant. It may not read a clock, take a lock, start a goroutine, log, do I/O
// or return an error that goes away: everything hard (crashes, rebalances,
// retries, commits) is outside, so that a fuzzer, a benchmark or a simulation
// drives it just as well as Kafka does.
package worker

import (
	"errors"
	"fmt"
	"slices"

	"github.com/cespare/xxhash/v2"

	"footfall/pipeline/profile"
	"footfall/pipeline/segment"
	"footfall/schemas"
)

// Config is what a worker decides by.
type Config struct {
	Rules   *segment.Program
	Decoder *schemas.Decoder // the worker's own: it keeps scratch memory

	// Limits of time; design 3.5 and 4. All above zero.
	Ahead   schemas.Millis // how far an event time may lie after its record's timestamp
	MaxSkew schemas.Millis // how far a record's timestamp may lie after the wall
	MaxAge  schemas.Millis // transitions older than that are muted as stale

	DedupWindow schemas.Millis // of record timestamps
	DedupBudget int            // records remembered at most

	// Lane is that of a partition before its first record: a topic of history has no
	// wall ticks from the beginning.
	Lane schemas.Lane

	Slice int // timers of other users fired in one call at most
}

// ordersKept is how many order ids of a user are remembered (design 3.1).
const ordersKept = 8

// Worker owns one partition: its profiles, clock, timers, dedup window, and the
// number of its outputs. Only one goroutine may touch it at a time (R1).
type Worker struct {
	cfg   Config
	eval  *segment.Evaluator
	mark  schemas.Mark // but for Fired, which the wheel knows
	table profile.Table
	rows  profile.Slab[row]
	packs profile.Packer
	// cells is what the rules ask for besides the profile: a row of it for each row.
	cells *profile.Rows

	// names are all sets that were ever spoken of, with all their segments.
	names []schemas.SetNames

	naming
	spoken spoken

	// members holds, of each set of names, the member of each row.
	members []profile.Slab[said]
	long    map[chain]uint32   // seq of those who have moved often
	orders  profile.Slab[ring] // of each buyer of packs
	wheel   wheel
	dedup   dedup
	stats   Stats

	population [][]int // users of each segment of each set, as names has them

	dead      offsets        // refused records since the dedup window's start
	bootClock schemas.Millis // timers due up to here belong to the bootstrap
	reviewing reviewing      // what a change of rules has left to do
	ahead     []evaluated    // later than fired
	snap      *slicer        // the snapshot under way, or nil
	changes   changes        // since the last one
	taken     schemas.Millis // the wall when the last snapshot was begun, or this one's was
	replaying *replay        // between New or Read and Resume, else nil

	filling    []int   // cells of the rules of which the history is not known yet
	filledUpTo int64   // up to this input offset
	filler     *Worker // has found it, and joining are the rows that do not have it yet
	joining    sweep
	census     *census // under way, or nil

	entries  []profile.Entry  // scratch of reading
	event    schemas.Event    // scratch of the call under way
	warmed   uint64           // scratch of warm
	guesses  [warmAhead]int32 // scratch: what warm takes for the rows of the next records' users, or -1
	profile  profile.Profile  // scratch of profileOf
	before   profile.Profile  // scratch: the profile before the event was folded
	segments []uint16         // scratch, [sets of the rules]
	others   []uint16         // scratch, likewise, of Expected and evidence
	dues     []Due            // scratch of Forecast
	sum      []byte           // scratch of the running hash, and of what is said
	blanks   blanks
}

// row is what a user costs besides the id and the memberships: 40 bytes. What is looked at
// with every event stands together.
type row struct {
	link
	profile profile.Packed
}

// ring holds the hashes of a buyer's last orders: the n-th in place (n-1) % ordersKept.
type ring [ordersKept]uint64

// evaluated is when a row was evaluated.
type evaluated struct {
	row int32
	at  schemas.Millis
}

// Stats counts what a worker did since it came to life.
type Stats struct {
	Applied     uint64
	Duplicates  uint64
	DeadLetters [schemas.Refusals]uint64
	Transitions uint64
	Timers      uint64 // fired, also those that only found a later due time
}

// Conditions is what the outside says of a call: the wall's time, and the choices
// of the operator.
type Conditions struct {
	Wall   schemas.Millis
	Tick   schemas.Millis // above 0: the clock may go there when the records are applied
	Paused bool           // mute every transition
	Most   int            // timers of users without a record that may fire, save those of a tick; 0: Config.Slice
}

// New makes the worker of a partition of which nothing is known. Like one made by
// Read it is not live before Resume.
func New(partition int32, cfg Config) *Worker {
	w := &Worker{
		cfg:       cfg,
		cells:     profile.NewRows(cfg.Rules.Layout()),
		mark:      schemas.Mark{Partition: partition, Rules: cfg.Rules.Hash(), Epoch: cfg.Rules.Epoch().Number, Lane: cfg.Lane},
		dedup:     dedup{window: cfg.DedupWindow, budget: cfg.DedupBudget},
		wheel:     wheel{now: 1},
		replaying: &replay{},
	}
	w.wheel.rows = &w.rows
	w.use(cfg.Rules)
	return w
}

// Mark is the worker's cut: everything before Next applied, everything up to N said.
func (w *Worker) Mark() schemas.Mark {
	m := w.mark
	m.Fired = w.fired()
	return m
}

// Stats counts what the worker did since it came to life.
func (w *Worker) Stats() Stats { return w.stats }

// Users is how many users the worker knows.
func (w *Worker) Users() int { return w.table.Len() }

// Rules are those in force.
func (w *Worker) Rules() *segment.Program { return w.cfg.Rules }

// Window is how far back the dedup window really reaches.
func (w *Worker) Window() schemas.Millis { return w.dedup.span() }

// Population gives the users of each segment of each set of the rules: [sets][segments].
func (w *Worker) Population() [][]int {
	out := make([][]int, len(w.place))
	for set, place := range w.place {
		out[set] = make([]int, len(w.to[set]))
		for i, own := range w.to[set] {
			out[set][i] = w.population[place][own]
		}
	}
	return out
}

// fired is up to when timers have been said: all that were due before the wheel's
// now, and never more than the clock.
func (w *Worker) fired() schemas.Millis { return min(w.mark.Clock, w.wheel.now-1) }

// Pending tells that timers are due which a call has left to the next one, or that not
// everybody has been evaluated under new rules.
func (w *Worker) Pending() bool { return w.fired() < w.mark.Clock || !w.reviewing.over() }

// Busy tells that a call without records has something to do.
func (w *Worker) Busy() bool {
	return w.Pending() || w.cells.Relaying() || w.filler != nil || w.census != nil && !w.census.over()
}

// Apply folds the partition's records, in offset order. It fills out, reusing its
// memory. Timers of users without a record fire in slices, one before the records
// and one after; Pending tells when some are left. Conditions may make the slices
// smaller; a tick's is not, because the next one is a second away.
func (w *Worker) Apply(records []Record, at Conditions, out *Output) {
	if w.replaying != nil {
		panic(fmt.Sprintf("worker %d: applied before it was resumed", w.mark.Partition))
	}
	out.Items = out.Items[:0]
	w.mark.Paused = at.Paused
	most := w.cfg.Slice
	if at.Most > 0 {
		most = min(most, at.Most)
	}
	kept := w.cfg.Slice - most
	budget := w.fire(most, at, out)
	for i := range records {
		if i%warmAhead == 0 {
			w.warm(records[i:min(i+warmAhead, len(records))])
		}
		w.apply(&records[i], w.guesses[i%warmAhead], at, out)
	}
	budget = w.reviewSlice(w.fire(budget, at, out), at, out)
	budget = w.censusSlice(w.joinSlice(w.cells.Relay(budget)))
	if at.Tick > w.mark.Clock && w.mark.Lane == schemas.Live && !w.Pending() {
		w.tick(at.Tick, budget+kept, at, out)
	}
	if w.mark.Bootstrap > 0 && w.mark.Next >= w.mark.Bootstrap && !w.Pending() {
		w.mark.Bootstrap = 0
	}
	if !w.Pending() {
		w.ahead = w.ahead[:0]
	}
	out.Mark, out.Sets = w.Mark(), w.cfg.Rules.Names()
}

// warmAhead is how many records warm looks at: enough that the memory answers many
// questions at once, and few enough that nothing is out of the cache again.
const warmAhead = 32

// warm asks the memory for what the next records will look at. One event after another
// would wait for each line of its user: of a million users none is in the cache. Here
// nothing depends on what was loaded before it, so the processor waits for all at once.
func (w *Worker) warm(records []Record) {
	var hashes [warmAhead]uint64
	var loaded uint64 // of no use but that the loads are made
	for i := range records {
		hash, n := w.table.Ask(records[i].Key)
		hashes[i] = hash
		loaded += n
	}
	var rows [warmAhead]int32
	known := 0
	for i, hash := range hashes[:len(records)] {
		row := w.table.Guess(hash)
		if w.guesses[i] = row; row >= 0 {
			rows[known] = row
			known++
		}
	}
	for _, row := range rows[:known] {
		user := w.rows.At(row) // which may lie across two lines
		loaded += uint64(user.due) + user.profile[2] + uint64(w.table.Touch(row))
		for _, place := range w.place {
			loaded += uint64(w.members[place].At(row).seq)
		}
	}
	for _, row := range rows[:known] {
		loaded += uint64(w.table.ID(row)[0]) + w.packs.Touch(&w.rows.At(row).profile)
	}
	w.warmed = loaded
}

// apply takes the steps of design 4, "exactly what happens on a record". guess is the user's
// row, in all likelihood.
func (w *Worker) apply(r *Record, guess int32, at Conditions, out *Output) {
	if r.Offset < w.mark.Next {
		panic(fmt.Sprintf("worker %d: record %d given after %d (R3)", w.mark.Partition, r.Offset, w.mark.Next-1))
	}
	w.mark.Next = r.Offset + 1
	if !r.Control && w.accept(r, at, out) {
		w.advance(r)
		user := w.table.FindGuessed(w.event.User, guess)
		if user >= 0 {
			w.review(user, at, out)
			w.fireUser(user, at, out)
		}
		user, touched, counts := w.count(r, user, w.mark.Clock)
		if user >= 0 {
			w.noteAhead(user, w.mark.Clock)
		}
		if !counts {
			w.stats.Duplicates++
			return
		}
		w.stats.Applied++
		w.evaluate(user, w.mark.Clock, touched, w.because(r), w.mutedEvent(r), at, out)
	}
}

// noteAhead notes that a user was evaluated at a moment that is later than fired, as it is
// while timers of others are due: who recovers here has to know of it.
func (w *Worker) noteAhead(user int32, at schemas.Millis) {
	fired := w.fired()
	if at <= fired { // and so are all before it
		w.ahead = w.ahead[:0]
		return
	}
	if len(w.ahead) > 2*w.rows.Len()+100 { // of each row the last is enough
		last := map[int32]schemas.Millis{}
		for _, e := range w.ahead {
			last[e.row] = e.at
		}
		w.ahead = w.ahead[:0]
		for row := range int32(w.rows.Len()) {
			if at := last[row]; at > fired {
				w.ahead = append(w.ahead, evaluated{row, at})
			}
		}
	}
	w.ahead = append(w.ahead, evaluated{user, at})
}

// advance moves the clock to a record that was accepted (step 2).
func (w *Worker) advance(r *Record) {
	w.mark.Clock = max(w.mark.Clock, r.Time)
	w.mark.Lane = r.Lane
	if r.Offset < w.mark.Bootstrap {
		w.bootClock = w.mark.Clock
	}
}

func (w *Worker) because(r *Record) schemas.Cause {
	return schemas.Cause{
		Kind: schemas.ByEvent, Event: w.event.Kind,
		Pos: schemas.Position{Partition: w.mark.Partition, Offset: r.Offset},
	}
}

func (w *Worker) mutedEvent(r *Record) schemas.Muted {
	switch {
	case r.Offset < w.mark.Bootstrap:
		return schemas.MutedBootstrap
	case r.Lane == schemas.Backfill:
		return schemas.MutedBackfill
	}
	return schemas.NotMuted
}

// accept decodes a record into w.event, or says its dead letter: step 1 and the
// check of step 2.
func (w *Worker) accept(r *Record, at Conditions, out *Output) bool {
	if err := w.cfg.Decoder.Decode(r.Key, r.Value, &w.event); err != nil {
		var refused *schemas.RefusedError
		if !errors.As(err, &refused) {
			panic(fmt.Sprintf("worker %d: record %d: the decoder fails without a reason: %v", w.mark.Partition, r.Offset, err))
		}
		w.refuse(r, refused.Reason, refused.Detail, out)
		return false
	}
	if detail := w.tooEarly(r, at.Wall); detail != "" {
		w.refuse(r, schemas.Future, detail, out)
		return false
	}
	return true
}

// tooEarly says in which way the record in w.event is too far ahead of its time, if it is
// (step 2). No difference of two times is taken: any of them may be the greatest or
// the least there is.
func (w *Worker) tooEarly(r *Record, wall schemas.Millis) string {
	switch {
	case w.event.At-w.cfg.Ahead > r.Time:
		return fmt.Sprintf("time: got %d, want at most %d ms after the record's timestamp, %d", w.event.At, w.cfg.Ahead, r.Time)
	case r.Time > wall+w.cfg.MaxSkew:
		return fmt.Sprintf("record timestamp: got %d, want at most %d ms after the time at which it was read, %d", r.Time, w.cfg.MaxSkew, wall)
	}
	return ""
}

func (w *Worker) refuse(r *Record, reason schemas.Refusal, detail string, out *Output) {
	w.stats.DeadLetters[reason]++
	w.dead.add(r.Offset)
	w.sayDead(r, reason, detail, out)
}

// count decides whether the record in w.event counts or repeats another (step 4),
// and if it counts folds it into the user's row, which it makes when user is -1, and
// tells what it has touched. Nobody will be evaluated before the moment since.
func (w *Worker) count(r *Record, user int32, since schemas.Millis) (int32, segment.Touched, bool) {
	ev := &w.event
	if w.dedup.add(xxhash.Sum64(ev.ID), r.Time, r.Offset) {
		return user, segment.Touched{}, false
	}
	if ev.Kind == schemas.Purchase && user >= 0 && w.ordered(user, xxhash.Sum64(ev.OrderID)) {
		return user, segment.Touched{}, false
	}
	if user < 0 {
		user = w.add(ev.User)
		w.fold(user, ev, since)
		return user, segment.Everything(), true
	}
	return user, w.fold(user, ev, since), true
}

// ordered tells whether an order is among the user's last ones.
func (w *Worker) ordered(user int32, order uint64) bool {
	buyer := w.packs.Buyer(&w.rows.At(user).profile)
	if buyer < 0 {
		return false
	}
	n := w.profileOf(user).Orders()
	return slices.Contains(w.orders.At(buyer)[:min(n, ordersKept)], order)
}

// profileOf is a user's profile: to be read, until the next call.
func (w *Worker) profileOf(user int32) *profile.Profile {
	w.packs.Unpack(&w.rows.At(user).profile, &w.profile)
	return &w.profile
}

// keep makes a profile the user's. Of who has had a purchase or refund there is a ring of
// orders.
func (w *Worker) keep(user int32, pr *profile.Profile) {
	w.packs.Pack(pr, &w.rows.At(user).profile)
	w.orders.Extend(w.packs.Buyers())
}

// add makes the row of a new user.
func (w *Worker) add(id []byte) int32 {
	user, added := w.findOrAdd(id)
	if !added {
		panic(fmt.Sprintf("worker %d: user %q added twice", w.mark.Partition, id))
	}
	return user
}

// findOrAdd gives the row of a user, and makes it where there is none.
func (w *Worker) findOrAdd(id []byte) (user int32, added bool) {
	if user, added = w.table.FindOrAdd(id); !added {
		return user, false
	}
	if int(user) != w.rows.Len() {
		panic(fmt.Sprintf("worker %d: user %q has row %d of %d", w.mark.Partition, id, user, w.rows.Len()))
	}
	w.wheel.grow()
	w.cells.Append()
	for set := range w.members {
		w.members[set].Append()
	}
	w.spoken.append()
	w.changes.grow(user)
	return user, true
}

// fold adds an event that counts to the user's profile and cells, and tells what it has
// touched. What cells keep of a time before since is of no use to anyone.
func (w *Worker) fold(user int32, ev *schemas.Event, since schemas.Millis) segment.Touched {
	w.touch(user)
	w.join(user)
	pr := w.profileOf(user)
	w.before = *pr
	pr.Fold(ev)
	w.keep(user, pr)
	if ev.Kind == schemas.Purchase {
		buyer := w.packs.Buyer(&w.rows.At(user).profile)
		w.orders.At(buyer)[(pr.Orders()-1)%ordersKept] = xxhash.Sum64(ev.OrderID)
	}
	return segment.TouchedBy(ev.Kind, w.cells.Fold(user, ev, since))
}

// fireUser fires the user's timers due at or before the clock, each evaluated at
// its due time (step 3).
func (w *Worker) fireUser(user int32, at Conditions, out *Output) {
	for due := w.wheel.due(user); due <= w.mark.Clock; due = w.wheel.due(user) {
		w.fireAt(user, due, at, out)
	}
}

// fire fires timers of anybody due at or before the clock, at most budget, and
// returns what is left of the budget. While not everybody has been evaluated under new
// rules nobody knows which is next, and fired must not pass it.
func (w *Worker) fire(budget int, at Conditions, out *Output) int {
	if !w.reviewing.over() {
		return budget
	}
	for ; budget > 0; budget-- {
		user, due := w.wheel.turn(w.mark.Clock)
		if user < 0 {
			break
		}
		w.fireAt(user, due, at, out)
	}
	return budget
}

// tick moves the clock to a moment of the wall or, when more timers are due by
// then than the budget allows, only as far as they have fired: so no event is
// ever applied between a tick and the timers that it makes due. Recovery rests on
// it (see Resume).
func (w *Worker) tick(to schemas.Millis, budget int, at Conditions, out *Output) {
	for ; budget > 0; budget-- {
		user, due := w.wheel.turn(to)
		if user < 0 {
			w.mark.Clock = to
			return
		}
		w.mark.Clock = due
		w.fireAt(user, due, at, out)
	}
}

// fireAt evaluates a user at the due time of its timer, and arms the next one.
func (w *Worker) fireAt(user int32, due schemas.Millis, at Conditions, out *Output) {
	w.stats.Timers++
	w.touch(user)
	w.wheel.remove(user)
	w.evaluate(user, due, segment.Everything(), schemas.Cause{Kind: schemas.ByTimer, Due: due}, w.mutedTimer(due), at, out)
}

// mutedTimer mutes what a silence within the history before the first start says.
func (w *Worker) mutedTimer(due schemas.Millis) schemas.Muted {
	if w.mark.Bootstrap > 0 && due <= w.bootClock {
		return schemas.MutedBootstrap
	}
	return schemas.NotMuted
}
