package pipeline

import (
	"testing"

	"footfall/pipeline/worker"
	"footfall/schemas"
)

// A partition that always has a whole transaction's worth to say, as of a long backfill,
// lets the others have their say.
func TestEveryPartitionIsCommittedInTurn(t *testing.T) {
	const most, partitions = 4, 3
	c := newCommits(&Config{Now: func() schemas.Millis { return 0 }, LazyCommit: 1, TransactionMax: most})
	say := func(s *stream, n int) { s.push(&worker.Output{Items: make([]worker.Item, n)}) }
	for n := range int32(partitions) {
		say(c.stream(Assignment{Partition: n, Epoch: 1}), 1)
	}
	busy := c.streams[0]
	committed := map[int32]int{}
	for range 2 * partitions {
		for range most {
			say(busy, 1)
		}
		for _, s := range c.collect() {
			committed[s.number]++
		}
	}
	for n := range int32(partitions) {
		if committed[n] == 0 {
			t.Errorf("partition %d is in none of %d transactions", n, 2*partitions)
		}
	}
}

// A clock that is set back lets marks wait no longer than one that is not.
func TestMarksDoNotWaitForAClockThatWentBack(t *testing.T) {
	clock := 10 * schemas.Hour
	c := newCommits(&Config{Now: func() schemas.Millis { return clock }, LazyCommit: schemas.Second, TransactionMax: 1})
	c.collect()
	clock = schemas.Hour
	c.stream(Assignment{}).push(&worker.Output{})
	c.nudge()
	select {
	case <-c.wake:
	default:
		t.Error("nobody looks at them")
	}
	if all := c.collect(); len(all) != 1 {
		t.Errorf("got %d parts of a transaction, want 1", len(all))
	}
}

// Marks of more partitions than one transaction takes are committed in several, soon.
func TestMarksOfManyPartitions(t *testing.T) {
	c := newCommits(&Config{Now: func() schemas.Millis { return 0 }, LazyCommit: 1, TransactionMax: transactionMax})
	const partitions = 2*marksMax + 1
	for n := range int32(partitions) {
		c.stream(Assignment{Partition: n}).push(&worker.Output{})
	}
	committed := map[int32]bool{}
	for _, want := range []int{marksMax, marksMax, 1, 0} {
		all := c.collect()
		if len(all) != want {
			t.Errorf("a transaction has the marks of %d partitions, want %d", len(all), want)
		}
		for _, s := range all {
			committed[s.number] = true
		}
	}
	if len(committed) != partitions {
		t.Errorf("marks of %d partitions were committed, want %d", len(committed), partitions)
	}
}
