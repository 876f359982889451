package pipeline_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"footfall/pipeline"
	"footfall/pipeline/segment"
	"footfall/pipeline/worker"
	"footfall/schemas"
)

// rulesOf are shipped sets under the test's contract.
func (b *bubble) rulesOf(sets ...string) *segment.Program {
	b.t.Helper()
	decoder := b.cfg.Decoder()
	p, err := segment.Shipped(segment.Options{Contract: decoder.Hash(), Exponent: 2}, sets...)
	if err != nil {
		b.t.Fatal(err)
	}
	return p
}

// spender publishes an order of 600.00 and one that is refused.
func (b *bubble) spend(user string, id int) {
	b.log.Publish(0,
		event("purchase", user, id, fmt.Sprintf(`,"order_id":"%s-%d","revenue":600,"currency":"EUR"`, user, id)),
		worker.Record{Key: []byte(user), Value: []byte("{")})
}

// setOf counts the outputs of one set, and gives the last of a user.
func (b *bubble) setOf(set, user string) (n int, last *schemas.Transition) {
	for i, it := range b.log.Told(0) {
		if t := it.Transition; t != nil && t.Names.Set == set {
			if n++; t.User == user {
				last = b.log.Told(0)[i].Transition
			}
		}
	}
	return n, last
}

// succeed takes the partition from a life, which loses it without a last word, and
// gives it to the next.
func (b *bubble) succeed(l *life, rules *segment.Program) *life {
	b.t.Helper()
	b.next()
	b.cfg.Worker.Rules = rules
	b.member.Give(0)
	synctest.Wait()
	if err := l.end(b.t); err != nil {
		b.t.Fatal(err)
	}
	l = b.run()
	synctest.Wait()
	return l
}

// settled waits until a partition has been evaluated under its rules so many times.
func (b *bubble) settled(times int) {
	b.t.Helper()
	for range 1000 {
		synctest.Wait()
		if count[pipeline.Settled](b) >= times {
			return
		}
		time.Sleep(time.Second)
	}
	b.t.Fatalf("settled %d times, want %d", count[pipeline.Settled](b), times)
}

// A search for history waits while the log is away, and begins again where retention
// has overtaken it; live records go on beside it.
func TestFillingWaitsForTheLog(t *testing.T) {
	for name, fault := range map[string]error{"away": pipeline.ErrAway, "overtaken by retention": pipeline.ErrExpired} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, 1, func(t *testing.T, b *bubble) {
				b.cfg.SnapshotEvery = schemas.Hour
				b.member.Give(0)
				l := b.run()
				synctest.Wait()
				b.spend("rich", 0)
				b.committed(0)
				var back atomic.Bool
				fail := func(context.Context, int32) error {
					if back.Load() {
						return nil
					}
					return errors.Join(errTest, fault)
				}
				b.member.BeforeInput.Set(fail)
				l.Switch(b.rulesOf("loyalty", "lifecycle"))
				time.Sleep(10 * time.Minute)
				b.log.Publish(0, view("meanwhile", 0))
				b.committed(0)
				if n := count[pipeline.FillingWaits](b); n < 30 {
					t.Errorf("it was tried again %d times in ten minutes", n)
				}
				back.Store(true)
				b.settled(1)
				b.committed(0)
				if n, last := b.setOf("loyalty", "rich"); n != 2 || last.Names.To != "silver" {
					t.Errorf("%d loyalty transitions, the spender's last %+v (%+v), want silver", n, last, last.Names)
				}
				if err := l.end(t); err != nil {
					t.Fatal(err)
				}
			})
		})
	}
}

// Rules that ask for what was never kept find it in the log while the partition lives:
// what they make of it first is muted, and what happens next is said.
func TestSwitchFillsFromTheLog(t *testing.T) {
	inBubble(t, 1, func(t *testing.T, b *bubble) {
		b.cfg.SnapshotEvery = schemas.Hour
		b.member.Give(0)
		l := b.run()
		synctest.Wait()
		b.spend("rich", 0)
		b.log.Publish(0, view("poor", 0))
		b.committed(0)
		held := make(chan struct{})
		b.member.BeforeInput.Set(func(ctx context.Context, _ int32) error {
			select {
			case <-held:
			case <-ctx.Done():
			}
			return ctx.Err()
		})
		l.Switch(b.rulesOf("loyalty", "lifecycle"))
		time.Sleep(time.Minute)
		b.spend("rich", 1) // live goes on beside the search
		b.committed(0)
		if n, _ := b.setOf("loyalty", "rich"); n > 0 || count[pipeline.Settled](b) > 0 {
			t.Fatalf("%d loyalty transitions before their history was found", n)
		}
		close(held)
		b.settled(1)
		b.committed(0)
		n, last := b.setOf("loyalty", "rich")
		if n != 2 || last.Names.To != "gold" || last.Muted != schemas.MutedRules || last.Cause.Kind != schemas.ByRules {
			t.Fatalf("%d loyalty transitions, the spender's last %+v (%+v), want gold, muted as the rules'", n, last, last.Names)
		}
		for i := range 7 {
			b.spend("rich", 2+i)
		}
		b.committed(0)
		if _, last = b.setOf("loyalty", "rich"); last.Names.To != "platinum" || last.Muted != schemas.NotMuted || last.Seq != 2 || last.Names.From != "gold" {
			t.Errorf("after nine orders %+v (%+v), want platinum, said aloud", last, last.Names)
		}
		if got := l.Rules().Names()[0].Name; got != "loyalty" {
			t.Errorf("the pipeline's rules begin with %s", got)
		}
		if count[pipeline.Switched](b) != 1 || count[pipeline.Filled](b) != 1 {
			t.Errorf("%d switched, %d filled, want one each", count[pipeline.Switched](b), count[pipeline.Filled](b))
		}
		// A snapshot was taken at once: a crash now does not look for it all again.
		ids, err := b.cfg.Snapshots.List(t.Context(), 0)
		if err != nil || len(ids) == 0 || ids[0].Next < 4 {
			t.Errorf("snapshots after the search: %v, %v", ids, err)
		}
		before := len(b.log.Outputs(0))
		l = b.succeed(l, l.Rules())
		synctest.Wait()
		b.spend("rich", 10)
		b.committed(0)
		if count[pipeline.Filled](b) != 1 {
			t.Error("the second life looked for the history again")
		}
		if _, last = b.setOf("loyalty", "rich"); last.Names.To != "platinum" || len(b.log.Outputs(0)) != before+1 {
			t.Errorf("the second life said %d more, want the one dead letter; the spender is %s", len(b.log.Outputs(0))-before, last.Names.To)
		}
		if err := l.end(t); err != nil {
			t.Fatal(err)
		}
	})
}

// archived is an archive of a partition's input.
type archived struct {
	records []worker.Record
	without int   // as many of the oldest are missing
	away    error // nil: it answers
	asked   int
}

func (a *archived) Older(_ context.Context, _ int32, before int64, each func([]worker.Record) error) (kept int64, err error) {
	if a.asked++; a.asked < 3 && a.away != nil {
		return 0, a.away
	}
	for _, r := range a.records[a.without:before] {
		kept++
		if string(r.Value) == "{" {
			continue // it was refused
		}
		if err := each([]worker.Record{r}); err != nil {
			return 0, err
		}
	}
	return kept, nil
}

func (a *archived) Refused(_ context.Context, _ int32, before int64) (all []int64, err error) {
	for _, r := range a.records[a.without:before] {
		if string(r.Value) == "{" {
			all = append(all, r.Offset)
		}
	}
	return all, nil
}

// What retention has removed from the log is found in the archive; what is in neither is
// counted, and an archive that does not answer is asked again.
func TestSwitchFillsFromTheArchive(t *testing.T) {
	for name, c := range map[string]struct {
		past *archived
		want pipeline.Filled
		to   string
	}{
		"whole":                      {&archived{}, pipeline.Filled{Records: 10, Archived: 8, To: 18}, "platinum"},
		"away":                       {&archived{away: errors.Join(errTest, pipeline.ErrAway)}, pipeline.Filled{Records: 10, Archived: 8, To: 18}, "platinum"},
		"without its oldest records": {&archived{without: 14}, pipeline.Filled{From: 14, Records: 3, Archived: 1, Missing: 14, To: 18}, "gold"},
		"none":                       {nil, pipeline.Filled{From: 16, Records: 2, Missing: 16, To: 18}, "silver"},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, 1, func(t *testing.T, b *bubble) {
				b.cfg.SnapshotEvery = schemas.Hour
				b.member.Give(0)
				if c.past != nil {
					b.cfg.Past = c.past
				}
				l := b.run()
				synctest.Wait()
				for i := range 9 {
					b.spend("rich", i)
				}
				b.committed(0)
				if c.past != nil {
					if err := b.member.Input(t.Context(), 0, 0, 18, func(run []worker.Record) error {
						c.past.records = run
						return nil
					}); err != nil {
						t.Fatal(err)
					}
				}
				b.log.Retain(0, 16)
				l.Switch(b.rulesOf("loyalty", "lifecycle"))
				b.settled(1)
				b.committed(0)
				if n, last := b.setOf("loyalty", "rich"); n != 1 || last.Names.To != c.to {
					t.Errorf("%d loyalty transitions, the last %+v, want one, to %s", n, last, c.to)
				}
				b.mu.Lock()
				if !slices.Contains(b.facts, pipeline.Fact(c.want)) {
					t.Errorf("want %+v among %+v", c.want, b.facts)
				}
				b.mu.Unlock()
				if c.past != nil && c.past.away != nil && count[pipeline.FillingWaits](b) != 2 {
					t.Errorf("%d times away, want 2", count[pipeline.FillingWaits](b))
				}
				if err := l.end(t); err != nil {
					t.Fatal(err)
				}
			})
		})
	}
}

// A process that dies while it looks for the history leaves it to the next, which says
// what the first had not said, once.
func TestSearchSurvivesACrash(t *testing.T) {
	inBubble(t, 1, func(t *testing.T, b *bubble) {
		b.member.Give(0)
		l := b.run()
		synctest.Wait()
		b.spend("rich", 0)
		b.committed(0)
		b.member.BeforeInput.Set(func(ctx context.Context, _ int32) error {
			<-ctx.Done()
			return ctx.Err()
		})
		rules := b.rulesOf("lifecycle", "cart", "loyalty")
		l.Switch(rules)
		time.Sleep(2 * time.Minute) // a snapshot without the history is taken meanwhile
		b.spend("rich", 1)
		b.committed(0)
		l = b.succeed(l, rules)
		for range 2 {
			b.settled(1)
			b.committed(0)
			if n, last := b.setOf("loyalty", "rich"); n != 1 || last.Names.To != "gold" {
				t.Fatalf("%d loyalty transitions, the last %+v, want one, to gold", n, last)
			}
			l = b.succeed(l, rules)
		}
		if err := l.end(t); err != nil {
			t.Fatal(err)
		}
		if got := count[pipeline.Filled](b); got != 1 {
			t.Errorf("%d searches came to an end, want one", got)
		}
	})
}

// Switching again gives up the search of the rules before; switching back needs none.
func TestSwitchGivesUpTheSearchBefore(t *testing.T) {
	inBubble(t, 1, func(t *testing.T, b *bubble) {
		b.member.Give(0)
		l := b.run()
		synctest.Wait()
		b.spend("rich", 0)
		b.committed(0)
		b.member.BeforeInput.Set(func(ctx context.Context, _ int32) error {
			<-ctx.Done()
			return ctx.Err()
		})
		first := l.Rules()
		l.Switch(b.rulesOf("lifecycle", "loyalty"))
		time.Sleep(time.Minute)
		l.Switch(first)
		b.settled(1)
		b.member.BeforeInput.Clear()
		time.Sleep(time.Minute)
		if n, _ := b.setOf("loyalty", "rich"); n > 0 || count[pipeline.Filled](b) > 0 {
			t.Errorf("%d loyalty transitions of rules that are gone", n)
		}
		l.Switch(b.rulesOf("loyalty", "lifecycle"))
		b.settled(2)
		b.committed(0)
		if n, last := b.setOf("loyalty", "rich"); n != 1 || last.Names.To != "silver" {
			t.Errorf("%d loyalty transitions, the last %+v, want one, to silver", n, last)
		}
		if err := l.end(t); err != nil {
			t.Fatal(err)
		}
	})
}

// Instances agree on the bounds of quantiles through a log: everyone has a score when all
// partitions have counted, and moves when others do at the next epoch, and only then.
func TestEpochs(t *testing.T) {
	inBubble(t, 2, func(t *testing.T, b *bubble) {
		rules := b.rulesOf("lifecycle", "rfm")
		b.cfg.Worker.Rules = rules
		epochs := segment.NewEpochs(rules, 2)
		var log sync.Mutex
		var l *life
		write := func(r segment.LogRecord) { // the log, and its only reader
			began, err := epochs.Read(r)
			if err != nil {
				t.Error(err)
			}
			if began {
				with, err := rules.With(epochs.Epoch())
				if err != nil {
					t.Error(err)
				}
				l.Switch(with)
			}
		}
		b.cfg.Counted = func(partition int32, by *segment.Program, of segment.Count) {
			log.Lock()
			defer log.Unlock()
			r, err := epochs.Count(partition, of)
			if err != nil || by.Hash() != rules.Hash() {
				t.Error(err)
			}
			write(r)
			if cut, ok := epochs.Cut(); ok {
				write(cut)
			}
		}
		buy := func(partition int32, user string, revenue int) {
			b.log.Publish(partition, event("purchase", user, int(now()), fmt.Sprintf(`,"order_id":"%s-%d","revenue":%d,"currency":"EUR"`, user, now(), revenue)))
		}
		for i := range 10 {
			buy(int32(i%2), fmt.Sprint("u", i), 10*(i+1))
			time.Sleep(time.Minute)
		}
		b.member.Ends = time.Second
		b.member.Give(0, 1)
		log.Lock() // until it is known here who is to be switched
		l = b.run()
		log.Unlock()
		b.settled(2)
		b.committed(0)
		b.committed(1)
		scored := func() (muted, said, byEpoch int) {
			for n := range int32(2) {
				for _, it := range b.log.Told(n) {
					if tr := it.Transition; tr != nil && tr.Names.Set == "rfm" {
						if tr.Muted == schemas.MutedRules {
							muted++
						} else {
							said++
						}
						if tr.Cause.Kind == schemas.ByEpoch {
							byEpoch++
						}
					}
				}
			}
			return muted, said, byEpoch
		}
		muted, said, byEpoch := scored()
		if muted+said < 10 || byEpoch != muted || muted == 0 {
			t.Fatalf("after the first epoch: %d muted, %d said, %d by the epoch, of 10 users", muted, said, byEpoch)
		}
		first := epochs.Epoch()
		time.Sleep(time.Hour)
		buy(0, "whale", 1_000_000) // a user whose place is said at once, by bounds that stand
		b.committed(0)
		if epochs.Epoch().Number != first.Number {
			t.Fatalf("epoch %d on the same day as %d", epochs.Epoch().Number, first.Number)
		}
		_, before, _ := scored()
		for i := range 40 { // the shop's buyers change; who has bought early is late now
			buy(int32(i%2), fmt.Sprint("v", i), 5000)
			time.Sleep(time.Minute)
		}
		time.Sleep(25 * time.Hour)
		b.settled(4)
		b.committed(0)
		b.committed(1)
		_, after, more := scored()
		if epochs.Epoch().Number <= first.Number || more <= byEpoch || after < before+40 {
			t.Errorf("epoch %d after %d; %d said after %d, %d by epochs after %d", epochs.Epoch().Number, first.Number, after, before, more, byEpoch)
		}
		for n := range int32(2) {
			if m, _ := b.log.Mark(n); m.Epoch != epochs.Epoch().Number {
				t.Errorf("partition %d is in epoch %d, want %d", n, m.Epoch, epochs.Epoch().Number)
			}
		}
		if err := l.end(t); err != nil {
			t.Fatal(err)
		}
		// Who takes over, and has not heard of the newest epoch yet, waits for it.
		newest := epochs.Epoch()
		behind, err := rules.With(first)
		if err != nil {
			t.Fatal(err)
		}
		b.next()
		b.cfg.Worker.Rules = behind
		b.member.Ends = time.Second
		b.member.Give(0, 1)
		b.cfg.Backoff = func(context.Context, int) { time.Sleep(10 * time.Second) }
		l = b.run()
		time.Sleep(5 * time.Second) // who went on would commit by the clock, once a second
		ahead, err := rules.With(newest)
		if err != nil {
			t.Fatal(err)
		}
		for n := range int32(2) {
			if m, _ := b.log.Mark(n); m.Epoch != newest.Number {
				t.Errorf("partition %d has gone from epoch %d back to %d", n, newest.Number, m.Epoch)
			}
		}
		l.Switch(ahead)
		time.Sleep(time.Minute)
		synctest.Wait()
		if n := count[pipeline.Recovered](b); n != 2 {
			t.Errorf("%d recoveries, want both", n)
		}
		if err := l.end(t); err != nil {
			t.Fatal(err)
		}
	})
}
