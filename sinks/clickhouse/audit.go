package clickhouse

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"golang.org/x/sync/errgroup"

	"footfall/pipeline/archive"
	"footfall/schemas"
)

// Audit compares the topics with the tables, and the rows with each other. It is
// apart from the archive: that may run meanwhile, here or elsewhere, or not at all.
type Audit struct {
	conf   ArchiveConfig
	tables *tables
	names  []string // of the topics
	log    *Log
}

// compareAtOnce is how many partitions are compared at a time.
const compareAtOnce = 4

// attemptsMax is how often an audit tries something before it gives up.
const attemptsMax = 6

// NewAudit returns an audit of what an archive of this configuration copies. The
// limits play no part. Close it.
func NewAudit(c ArchiveConfig) (*Audit, error) {
	t, names, err := c.tables(&Stats{})
	if err != nil {
		return nil, err
	}
	if c.Report == nil {
		c.Report = func(archive.Fact) {}
	}
	l, err := newReader(c.Client, c.Report)
	if err != nil {
		return nil, err
	}
	return &Audit{conf: c, tables: t, names: names, log: l}, nil
}

// Close closes what the audit has opened; the DB is the caller's.
func (a *Audit) Close() { a.log.Close() }

// AuditSelection is which part of the topics is compared.
type AuditSelection struct {
	archive.Selection
	Topics []string       // none: all
	Since  schemas.Millis // record timestamp; 0: all
}

// AuditPlan is what there is to compare.
type AuditPlan struct {
	Shares  []archive.Share
	Foreign []archive.Stock // rows of partitions that the topics do not have
	Others  []archive.Stock // rows of other topics: not compared
	Offsets int64           // to look at
}

// Plan asks both sides what they have. The tables come first: what is in them was in
// the topics before.
func (a *Audit) Plan(ctx context.Context, sel AuditSelection) (*AuditPlan, error) {
	topics := sel.Topics
	if len(topics) == 0 {
		topics = a.names
	}
	stock, err := a.tables.Stock(ctx)
	if err != nil {
		return nil, fmt.Errorf("clickhouse: %w", err)
	}
	extents, running, err := a.extents(ctx, topics, sel.Since)
	if err != nil {
		return nil, err
	}
	p := &AuditPlan{}
	p.Shares, p.Foreign, p.Others = archive.Plan(stock, extents, sel.Selection, running)
	p.Others = slices.DeleteFunc(p.Others, func(s archive.Stock) bool { return slices.Contains(a.names, s.Partition.Topic) })
	for _, s := range p.Shares {
		p.Offsets += s.Next - s.First
	}
	return p, nil
}

// extents asks how far the partitions of topics reach, how far the archive has come
// with each, and whether one is at work.
func (a *Audit) extents(ctx context.Context, topics []string, since schemas.Millis) (extents []archive.Extent, running bool, err error) {
	committed, running, err := a.committed(ctx)
	if err != nil {
		return nil, false, err
	}
	admin := a.log.admin
	starts, err1 := admin.ListStartOffsets(ctx, topics...)
	ends, err2 := admin.ListCommittedOffsets(ctx, topics...)
	after := kadm.ListedOffsets{}
	var err3 error
	if since > 0 {
		after, err3 = admin.ListOffsetsAfterMilli(ctx, int64(since), topics...)
	}
	if err := errors.Join(err1, err2, err3); err != nil {
		return nil, false, fmt.Errorf("kafka: offsets: %w", err)
	}
	if err := errors.Join(starts.Error(), ends.Error(), after.Error()); err != nil {
		return nil, false, fmt.Errorf("kafka: offsets: %w", err)
	}
	for _, topic := range topics {
		for n := range int32(len(ends[topic])) {
			e := archive.Extent{Partition: archive.Partition{Topic: topic, Number: n}, Committed: -1}
			e.Start, e.End = starts[topic][n].Offset, ends[topic][n].Offset
			if o, ok := after.Lookup(topic, n); ok {
				e.Since = o.Offset
			}
			if o, ok := committed.Lookup(topic, n); ok {
				e.Committed = o.At
			}
			extents = append(extents, e)
		}
	}
	return extents, running, nil
}

// committed returns what the archive's group has committed, and whether it has members.
func (a *Audit) committed(ctx context.Context) (offsets kadm.OffsetResponses, running bool, err error) {
	group := a.conf.group()
	groups, err := a.log.admin.DescribeGroups(ctx, group)
	if err != nil {
		return nil, false, fmt.Errorf("kafka: group %s: %w", group, err)
	}
	offsets, err = a.log.admin.FetchOffsets(ctx, group)
	if err == nil {
		err = offsets.Error()
	}
	if err != nil && !errors.Is(err, kerr.GroupIDNotFound) {
		return nil, false, fmt.Errorf("kafka: offsets of group %s: %w", group, err)
	}
	members := len(groups[group].Members)
	if members == 0 { // of the other protocol (KIP-848), if the brokers know it
		if consumers, err := a.log.admin.DescribeConsumerGroups(ctx, group); err == nil {
			members = len(consumers[group].Members)
		}
	}
	return offsets, members > 0, nil
}

// AuditOptions is how a plan is carried out.
type AuditOptions struct {
	Mend, Quick bool
	SpanRows    int // 0: archive.CompareConfig's default

	Progress func(offsets int64) // how many more have been looked at; must not block, may be called by several goroutines
}

// Compare carries a plan out, and returns what it found by the plan's shares.
func (a *Audit) Compare(ctx context.Context, p *AuditPlan, o AuditOptions) ([]*archive.Compared, error) {
	found := make([]*archive.Compared, len(p.Shares))
	progress := o.Progress
	if progress == nil {
		progress = func(int64) {}
	}
	shares := make(chan int)
	all, ctx := errgroup.WithContext(ctx)
	all.Go(func() error {
		defer close(shares)
		for i := range p.Shares {
			select {
			case shares <- i:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		return nil
	})
	var mu sync.Mutex // guards report, which archives call one at a time
	for range compareAtOnce {
		all.Go(func() error {
			c := a.comparison(o, progress, func(f archive.Fact) {
				mu.Lock()
				defer mu.Unlock()
				a.conf.Report(f)
			})
			for i := range shares {
				var err error
				if found[i], err = c.Compare(ctx, p.Shares[i]); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return found, all.Wait()
}

// comparison returns one that gives up after some attempts: a person waits for it.
func (a *Audit) comparison(o AuditOptions, progress func(int64), report func(archive.Fact)) *archive.Comparison {
	var last archive.Waiting
	return archive.NewComparison(archive.CompareConfig{
		Config: archive.Config{
			Log: a.log, Now: now,
			Report: func(f archive.Fact) {
				if w, ok := f.(archive.Waiting); ok {
					last = w
				}
				report(f)
			},
			Sleep: func(ctx context.Context, d schemas.Millis) error {
				if last.Attempt >= attemptsMax {
					return fmt.Errorf("%s: %w; gave up after %d attempts", last.What, last.Err, last.Attempt)
				}
				return sleep(ctx, d)
			},
		},
		Table: a.tables, Mend: o.Mend, Quick: o.Quick, SpanRows: o.SpanRows, Progress: progress,
	})
}
