package clickhouse

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"footfall/pipeline/archive"
	"footfall/schemas"
)

// ArchiveConfig says what an archive copies, and where to.
type ArchiveConfig struct {
	DB     *DB       // migrated
	Client []kgo.Opt // how to reach Kafka: brokers, TLS, SASL

	Group    string // of the workers; the archive's own is this with "-archive"
	Inputs   []InputTopic
	Triggers string // topic
	Muted    string // topic
	Dead     string // topic of the dead letters

	Contract schemas.Contract // as the workers have it

	Report func(archive.Fact) // must not block; nil: nobody listens

	// Limits; zero is the default, see archive.Config.
	RowsMax    int
	AgeMax     time.Duration
	AuditEvery time.Duration
	AuditAgain time.Duration
}

// InputTopic is a topic with events, and the lane of those that name none.
type InputTopic struct {
	Name string
	Lane schemas.Lane
}

// Stats are an archive's counters. They may be read at any time.
type Stats struct {
	*archive.Stats
	Events, Transitions, DeadLetters atomic.Int64 // rows acknowledged, by table
}

func (s *Stats) of(b *table, t *tables) *atomic.Int64 {
	switch b {
	case t.transitions:
		return &s.Transitions
	case t.deadLetters:
		return &s.DeadLetters
	}
	return &s.Events
}

// Archive copies the input, trigger, muted and dead-letter topics into ClickHouse.
type Archive struct {
	inner  *archive.Archive
	log    *Log
	group  string
	topics []string
	stats  *Stats
}

// tables returns the tables that the topics belong into, and the topics' names.
func (c *ArchiveConfig) tables(stats *Stats) (*tables, []string, error) {
	if _, err := schemas.NewDecoder(c.Contract); err != nil {
		return nil, nil, err
	}
	exponent, ok := schemas.Exponent(c.Contract.Currency)
	if !ok {
		return nil, nil, fmt.Errorf("reporting currency %q has no minor unit", c.Contract.Currency)
	}
	t := &tables{
		db: c.DB, contract: c.Contract, exponent: exponent, stats: stats, topics: map[string]topic{},
		events:      newTable("events", eventColumns),
		transitions: newTable("transitions", transitionColumns),
		deadLetters: newTable("dead_letters", deadLetterColumns),
	}
	var names []string
	add := func(name string, to topic) error {
		if _, twice := t.topics[name]; twice || name == "" {
			return fmt.Errorf("archive: topic %q: want a name for each of the inputs, triggers, muted and dead letters, all different", name)
		}
		t.topics[name] = to
		names = append(names, name)
		return nil
	}
	var errs []error
	for _, in := range c.Inputs {
		errs = append(errs, add(in.Name, topic{t.events, in.Lane}))
	}
	errs = append(errs, add(c.Triggers, topic{table: t.transitions}), add(c.Muted, topic{table: t.transitions}), add(c.Dead, topic{table: t.deadLetters}))
	return t, names, errors.Join(errs...)
}

// group is the archive's consumer group.
func (c *ArchiveConfig) group() string { return c.Group + "-archive" }

// NewArchive returns an archive. It joins its consumer group at once: close it by
// ending the context of Run.
func NewArchive(c ArchiveConfig) (*Archive, error) {
	stats := &Stats{}
	t, names, err := c.tables(stats)
	if err != nil {
		return nil, err
	}
	report := c.Report
	if report == nil {
		report = func(archive.Fact) {}
	}
	group := c.group()
	l, err := NewLog(group, names, c.Client, now, report)
	if err != nil {
		return nil, err
	}
	a := &Archive{log: l, group: group, topics: names, stats: stats}
	a.inner = archive.New(archive.Config{
		Log: l, Table: t, Now: now, Sleep: sleep, Report: report,
		RowsMax: c.RowsMax, AgeMax: millis(c.AgeMax), AuditEvery: millis(c.AuditEvery), AuditAgain: millis(c.AuditAgain),
	})
	stats.Stats = a.inner.Stats()
	return a, nil
}

func now() schemas.Millis                   { return schemas.Millis(time.Now().UnixMilli()) }
func millis(d time.Duration) schemas.Millis { return schemas.Millis(d.Milliseconds()) }

// Group is the archive's consumer group.
func (a *Archive) Group() string { return a.group }

// Stats returns the archive's counters.
func (a *Archive) Stats() *Stats { return a.stats }

// drainMax is how long the archive has, when it is to end, to send what is in the
// making.
const drainMax = 10 * time.Second

// Run copies until ctx ends, and then sends what is in the making, leaves the group
// and returns nil, unless what it sent is refused for good; or until something is wrong that waiting does not mend. ClickHouse
// being away is waited for, however long. It is called once.
func (a *Archive) Run(ctx context.Context) error {
	defer a.log.Close()
	work, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	defer context.AfterFunc(ctx, func() {
		if sleep(work, millis(drainMax)) == nil {
			stop()
		}
	})()
	err := a.inner.Run(ctx, work)
	if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
		return nil
	}
	return err
}

// Behind returns how many records the topics hold that are not archived yet, from
// the group's committed offsets and the topics' last stable ones. At 0 every record
// that was committed when it was called is in ClickHouse. (Transaction markers
// count as records until the archive has passed them.)
func (a *Archive) Behind(ctx context.Context) (records int64, err error) {
	return Behind(ctx, a.log.client, a.group, a.topics...)
}

// Behind is Archive.Behind for an archive that another process runs.
func Behind(ctx context.Context, client *kgo.Client, group string, topics ...string) (records int64, err error) {
	admin := kadm.NewClient(client)
	starts, err := admin.ListStartOffsets(ctx, topics...)
	if err != nil {
		return 0, fmt.Errorf("kafka: %w", err)
	}
	ends, err := admin.ListCommittedOffsets(ctx, topics...)
	if err != nil {
		return 0, fmt.Errorf("kafka: %w", err)
	}
	committed, err := admin.FetchOffsets(ctx, group)
	if err != nil {
		return 0, fmt.Errorf("kafka: %w", err)
	}
	if err := errors.Join(starts.Error(), ends.Error(), committed.Error()); err != nil {
		return 0, fmt.Errorf("kafka: %w", err)
	}
	ends.Each(func(end kadm.ListedOffset) {
		from := int64(0)
		if s, ok := starts.Lookup(end.Topic, end.Partition); ok {
			from = s.Offset
		}
		if c, ok := committed.Lookup(end.Topic, end.Partition); ok {
			from = max(from, c.At)
		}
		records += max(0, end.Offset-from)
	})
	return records, nil
}
