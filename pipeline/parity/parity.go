// Package parity compares two engines: what footfall has said of users, and where the
// same rules, as SQL, put them by the same events in ClickHouse. Both are asked at one
// moment of a partition, and every difference is explained as far as it can be.
//
// The moment is a committed mark: the state after every input before an offset and
// none after, at a clock, with all that was said up to a number. So nobody has to be
// asked or to stand still: the group's commits and ClickHouse's tables are enough, once
// these have what the mark speaks of.
//
// It may decide what is asked, and what a difference comes from. It may not speak SQL
// of its own or Kafka: Tables does, in sinks/clickhouse.
package parity

import (
	"context"
	"fmt"
	"slices"

	"footfall/pipeline/segment"
	"footfall/schemas"
)

// Tables is what is asked of ClickHouse.
type Tables interface {
	// Ask compares, over the users of a partition, the memberships that a statement
	// gives with those that were said.
	Ask(ctx context.Context, q *Question) (*Answer, error)

	// Histories gives what is known of users, in their order.
	Histories(ctx context.Context, mark schemas.Mark, users []string) ([]History, error)

	// Draw draws users of a partition, at most n.
	Draw(ctx context.Context, mark schemas.Mark, n int, how Draw) ([]string, error)
}

// Draw is how users are drawn.
type Draw struct {
	Seed uint64

	// Cheap draws those of some neighbouring events and outputs, which costs little
	// however large the tables are, and prefers users with many. Otherwise every user is
	// as likely as another.
	Cheap bool
}

// Question is one comparison.
type Question struct {
	Mark  schemas.Mark
	Sets  []string                   // compared, in this order
	Users []string                   // nil: all
	SQL   func(events string) string // gives user_id and a column for each set, over a table of events
	Named int                        // how many users that differ are returned
}

// Answer is what both engines say.
type Answer struct {
	Users     int64   // whom either knows
	Same      []int64 // by set
	Different []int64 // by set
	Named     []Named // some of the users that differ
}

// Named is a user that differs; "" is nowhere.
type Named struct {
	User        string
	Asked, Said []string // by set
}

// History is what ClickHouse knows of a user up to a mark.
type History struct {
	User   string
	Events []Event // that were not refused, by offset
	Said   []Said  // the last transition in each set, in no order
	FromN  uint64  // first number of an output of the partition that is there; 0: none is
}

// EventsMax is how many events of a user are looked into; History holds one more when
// there are more.
const EventsMax = 100_000

// Event is one record of a user. It owns its memory.
type Event struct {
	schemas.Event
	Offset int64
	Time   schemas.Millis // of the record
	Counts bool           // for ClickHouse, which counts an event id and an order id once for ever

	// Before is the nearest record before it in the partition with the same event id,
	// whoever's; nil: none.
	Before *Before

	// First is where the event id was seen first, if that is in another partition;
	// else empty.
	First string
}

// Before is an earlier record with the same event id.
type Before struct {
	Offset  int64
	Ago     schemas.Millis // of the partition's latest record timestamps
	Between int64          // records between the two that were not refused
}

// Said is a user's last transition in a set.
type Said struct {
	Set, To   string
	Seq       uint32
	FirstSeen schemas.Millis // the profile's, then
	Orders    uint32         // likewise
}

// Config is what a comparison needs.
type Config struct {
	Rules  *segment.Program
	Tables Tables

	// As the worker has them.
	DedupWindow schemas.Millis
	DedupBudget int

	// Named is how many users that differ are looked into, of a partition.
	Named int
}

// Selection is whom and what is compared.
type Selection struct {
	Sets   []string // none: all
	Users  []string // none: a sample, or all
	Sample int      // users of the partition; 0: all
	Draw   Draw
}

// Result is what a comparison of a partition has found.
type Result struct {
	Mark        schemas.Mark
	Users       int64 // compared
	Sets        []SetResult
	Differences []Difference
	Left        []Left // sets that can't be compared
}

// SetResult is how one set came out.
type SetResult struct {
	Set         string
	Same        int64
	Explained   int64
	Unexplained int64 // those that were not looked into, too
}

// Left is a set that can't be compared.
type Left struct{ Set, Why string }

// Difference is a user whom the engines put into different segments.
type Difference struct {
	User, Set string
	Said      string // by footfall; "": nothing yet
	Asked     string // where ClickHouse's events put the user; "": there are none
	Reason    Reason
	Why       string
}

// Unexplained is how many users differ without an explanation, added over the sets.
func (r *Result) Unexplained() (n int64) {
	for _, s := range r.Sets {
		n += s.Unexplained
	}
	return n
}

// Compare compares a partition at its mark. The tables must have every event before
// mark.Next and every output up to mark.N.
func Compare(ctx context.Context, c Config, mark schemas.Mark, sel Selection) (*Result, error) {
	r := &Result{Mark: mark}
	sets := sel.Sets
	if len(sets) == 0 {
		for _, names := range c.Rules.Names() {
			sets = append(sets, names.Name)
		}
	}
	r.Left, sets = c.answerable(mark, sets)
	if len(sets) == 0 {
		return r, nil
	}
	users := sel.Users
	if users == nil && sel.Sample > 0 {
		var err error
		if users, err = c.Tables.Draw(ctx, mark, sel.Sample, sel.Draw); err != nil {
			return nil, err
		}
		if users == nil {
			users = []string{} // nobody; not all
		}
	}
	a, err := c.Tables.Ask(ctx, &Question{
		Mark: mark, Sets: sets, Users: users, Named: c.Named,
		SQL: func(events string) string { return c.Rules.SQLOver(events, mark.Clock, "") },
	})
	if err != nil {
		return nil, err
	}
	if len(a.Same) != len(sets) || len(a.Different) != len(sets) {
		return nil, fmt.Errorf("parity: an answer for %d sets, and %d were asked for", len(a.Same), len(sets))
	}
	r.Users = a.Users
	if r.Differences, err = c.explain(ctx, mark, sets, a.Named); err != nil {
		return nil, err
	}
	for i, set := range sets {
		s := SetResult{Set: set, Same: a.Same[i]}
		for j := range r.Differences {
			if d := &r.Differences[j]; d.Set == set && d.Reason != Unexplained {
				s.Explained++
			}
		}
		s.Unexplained = a.Different[i] - s.Explained
		r.Sets = append(r.Sets, s)
	}
	return r, nil
}

// answerable leaves out sets that ClickHouse can't answer: those that score by
// quantiles, without the bounds that the partition goes by.
func (c *Config) answerable(mark schemas.Mark, sets []string) (left []Left, asked []string) {
	columns := c.Rules.Columns()
	for _, set := range sets {
		scores := c.Rules.NeedsEpoch(set)
		switch epoch := c.Rules.Epoch().Number; {
		case scores && mark.Epoch == 0:
			left = append(left, Left{set, "it scores by the shop's quantiles, and there are no bounds yet"})
		case scores && (epoch != mark.Epoch || !slices.Contains(columns, set)):
			left = append(left, Left{set, fmt.Sprintf("it scores by the bounds of epoch %d, which are not known here", mark.Epoch)})
		default:
			asked = append(asked, set)
		}
	}
	return left, asked
}

// batch is how many users' histories are asked for at once (R4).
const batch = 100

// explain looks into the users that differ.
func (c *Config) explain(ctx context.Context, mark schemas.Mark, sets []string, named []Named) (all []Difference, err error) {
	if general := c.general(mark); general.Reason != Unexplained {
		for i := range named {
			all = append(all, named[i].differences(sets, func(string, string, string) Finding { return general })...)
		}
		return all, nil
	}
	for some := range slices.Chunk(named, batch) {
		var users []string
		for i := range some {
			users = append(users, some[i].User)
		}
		histories, err := c.Tables.Histories(ctx, mark, users)
		if err != nil {
			return nil, err
		}
		if len(histories) != len(some) {
			return nil, fmt.Errorf("parity: %d histories of %d users", len(histories), len(some))
		}
		for i := range some {
			x := c.examine(mark, &histories[i])
			all = append(all, some[i].differences(sets, x.why)...)
		}
	}
	return all, nil
}

// differences are those of a user, each explained by why, which is given the set, what
// was said and what was asked.
func (n *Named) differences(sets []string, why func(set, said, asked string) Finding) (all []Difference) {
	for i, set := range sets {
		if n.Asked[i] != n.Said[i] {
			f := why(set, n.Said[i], n.Asked[i])
			all = append(all, Difference{User: n.User, Set: set, Said: n.Said[i], Asked: n.Asked[i], Reason: f.Reason, Why: f.Why})
		}
	}
	return all
}
