package kafka

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/zap"

	"footfall/pipeline"
)

// Session is one process in the group: its membership, its reading and its
// transactions. It implements pipeline.Source, the input half of pipeline.History,
// and what sinks/triggers needs to commit.
//
// One goroutine calls Poll; all other methods may be called by any. Locks are
// taken one at a time, ownership.mu and mu alike, and none is held while waiting.
type Session struct {
	conf  Config
	topic topicInfo
	names []string // of all topics, the input's first

	member atomic.Pointer[kgo.Client] // in the group; fetches nothing
	reader *kgo.Client                // fetches; in no group
	admin  *kgo.Client                // everything else: offsets, ends, history

	owns *ownership

	// idle holds the producers that are in no transaction, the longest idle first;
	// marking holds that of marks alone, which is marker.
	idle     chan *producer
	marking  chan *producer
	marker   *producer
	v2       bool // transactions v2: TxnOffsetCommit adds the offsets partition by itself
	maxBytes map[string]int32

	misplaced atomic.Int64
	hang      atomic.Int64 // partitions in which a transaction hangs
	marked    atomic.Int64 // markers that a broker had left out, and we have written
	broken    atomic.Int64 // connections that have ended
	markless  atomic.Bool  // marker is tended
	offsetsAt atomic.Int32 // partition of __consumer_offsets that has the group's; -1: not known

	// reading is touched by Poll alone: what the reader fetches now.
	reading map[int32]*cursor

	mu    sync.Mutex
	ends  map[int32]pipeline.End // asked for, not yet polled
	told  map[int32]int64        // ends as they were last told, polled or not
	metas map[string]topicInfo   // topics that were read from by offset, with their leaders
	sick  map[place]sickness     // partitions of output topics that take no writes
	met   map[place]*producer    // those that look well, and where one that is tended had no answer

	producers []*producer // all there are, the marker included
	turning   int         // of them, those that go through idle
	resting   []*producer // those that others have taken the turns of, without a client
	numbered  int         // how many have had a number for a name
	watching  bool        // watchSick is at work

	// life is the context of all clients: its end interrupts whatever they do.
	life    context.Context //nolint:containedctx // handed to clients that outlive the call that made them
	end     context.CancelFunc
	helpers sync.WaitGroup

	// tending is the context of producers' renewal beside the others. Close ends it first.
	tending    context.Context //nolint:containedctx // of helpers
	endTending context.CancelFunc
	tenders    sync.WaitGroup // what it ends
}

// cursor is where reading a partition stands.
type cursor struct {
	epoch int64
	next  int64 // no record before it is given out any more
}

// New joins the group. The producers are renewed first, which ends what an earlier process of
// this instance left open, so that nobody waits for it to time out.
//
// Some may be renewed later (first.go), and what is theirs may stay open until then. No recovery
// goes by its being ended, as none does of a partition that another instance had, whose producers
// nobody renews: the mark is read by a stable fetch, for which the group's coordinator has what is
// undecided of the partition's offsets, whoever can tell what becomes of it; what was said is read
// when nothing in the partition's output topics is undecided. A transaction that is not open by
// then has no offsets that our generation does not refuse, and so is never committed.
//
// The output topics are given so that records too large for them are found before
// they are sent.
func New(ctx context.Context, conf Config, outputs ...string) (_ *Session, err error) {
	conf, err = conf.withDefaults()
	if err != nil {
		return nil, err
	}
	s := &Session{
		conf:    conf,
		names:   append([]string{conf.Topic}, outputs...),
		owns:    newOwnership(),
		idle:    make(chan *producer, producersMax),
		marking: make(chan *producer, 1),
		reading: make(map[int32]*cursor),
		ends:    make(map[int32]pipeline.End),
		told:    make(map[int32]int64),
		metas:   make(map[string]topicInfo),
		sick:    make(map[place]sickness),
		met:     make(map[place]*producer),
	}
	s.offsetsAt.Store(-1)
	s.life, s.end = context.WithCancel(context.WithoutCancel(ctx))
	s.tending, s.endTending = context.WithCancel(s.life)
	defer func() {
		if err != nil {
			s.Close(context.WithoutCancel(ctx))
		}
	}()
	if err := s.dial(ctx); err != nil {
		return nil, err
	}
	if err := s.firstProducers(ctx); err != nil {
		return nil, err
	}
	if err := s.join(); err != nil {
		return nil, err
	}
	s.helpers.Go(func() { s.watch(s.life) })
	s.helpers.Go(func() { s.tick(s.life) })
	s.helpers.Go(func() { s.watchTopics(s.life) })
	s.helpers.Go(func() { s.watchMarkers(s.life) })
	return s, nil
}

// everyProducer gives all there are.
func (s *Session) everyProducer() []*producer {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.producers)
}

// begin asks the first questions of a session, again while brokers that are on their way
// down or up leave them without an answer. One that turns us away may be such a broker, and
// more often is one that TLS or SASL is missing for: it is asked again some times only. An
// address that nobody answers at is told at once.
func (s *Session) begin(ctx context.Context, f func(ctx context.Context) error) error {
	refusals, told := 0, false
	return insistIf(ctx, startWait, func(err error) bool {
		again := transient(err) && !unreached(err) || errors.Is(err, kerr.UnsupportedVersion)
		if slow, ok := errors.AsType[net.Error](err); !ok || !slow.Timeout() {
			refusals++
			again = again && refusals < refusalsMax
		}
		if again && !told {
			s.conf.Log.Warn("the brokers do not answer, and are asked again", zap.Error(err))
			told = true
		}
		return again
	}, f)
}

// refusalsMax is how often a session that begins lets brokers turn it away: some three
// seconds.
const refusalsMax = 12

// options are those of every client of the session.
func (s *Session) options() ([]kgo.Opt, error) {
	opts, err := Options(s.conf)
	return append(opts, kgo.WithContext(s.life), kgo.WithHooks(disconnects{&s.broken})), err
}

// dial makes the clients that need no group, and asks what the brokers have.
func (s *Session) dial(ctx context.Context) error {
	opts, err := s.options()
	if err != nil {
		return err
	}
	if s.admin, err = kgo.NewClient(opts...); err != nil {
		return fmt.Errorf("kafka: %w", err)
	}
	err = s.begin(ctx, func(ctx context.Context) error { return reachable(ctx, s.admin, s.conf.Brokers) })
	if err != nil {
		return err
	}
	if err := s.lookAround(ctx); err != nil {
		return err
	}
	var have features
	err = s.begin(ctx, func(ctx context.Context) (err error) {
		have, err = featuresOf(ctx, s.admin)
		return err
	})
	if err != nil {
		return err
	}
	if err := s.conf.Protocol.supported(have); err != nil {
		return err
	}
	s.v2 = have.transactions >= 2
	if err := s.checkMarks(ctx); err != nil {
		return err
	}
	if s.maxBytes, err = maxMessageBytes(ctx, s.admin, s.names[1:]); err != nil {
		return err
	}
	opts = append(slices.Clone(opts), kgo.WithPools(fetchMemory{}))
	unpacker, err := newUnpacker(opts)
	if err != nil {
		return fmt.Errorf("kafka: %w", err)
	}
	s.reader, err = kgo.NewClient(append(opts,
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{}),
		kgo.ConsumeResetOffset(kgo.NoResetOffset()),
		kgo.KeepControlRecords(), // so that Next passes the markers too
		kgo.FetchMaxWait(fetchWait),
		kgo.FetchMaxBytes(s.fetchBytes()),
		kgo.FetchMaxPartitionBytes(fetchPartition),
		kgo.WithDecompressor(unpacker),
	)...)
	if err != nil {
		return fmt.Errorf("kafka: %w", err)
	}
	return nil
}

// fetchBytes is what one broker gives at a time. All that lead a partition are asked at once,
// and what they give lies in memory, unpacked, until it is polled.
func (s *Session) fetchBytes() int32 {
	leaders := slices.Sorted(slices.Values(s.topic.leaders))
	return min(fetchMaxBytes, max(fetchLeastBytes, fetchAllBytes/int32(max(1, len(slices.Compact(leaders))))))
}

// Poll waits until there is something to report: changes of ownership first, then
// ends, then records.
func (s *Session) Poll(ctx context.Context, into *pipeline.Batch) error {
	into.Lost, into.Revoked, into.Assigned = into.Lost[:0], into.Revoked[:0], into.Assigned[:0]
	into.Fetched, into.Ends = into.Fetched[:0], into.Ends[:0]
	for {
		if err := s.owns.failed(); err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		wait, cancel := context.WithCancel(ctx)
		starts, news := s.owns.poll(into, cancel)
		s.steer(into, starts)
		news = s.takeEnds(into) || news
		if news {
			s.owns.polled()
			cancel()
			return nil
		}
		fetches := s.reader.PollRecords(wait, s.conf.PollMax)
		s.owns.polled()
		cancel()
		if err := s.fill(into, fetches); err != nil {
			return err
		}
		if len(into.Fetched) > 0 {
			//failpoint:source.fetched
			return nil
		}
	}
}

// steer makes the reader fetch what it should. Only Poll's goroutine changes what
// is fetched, and it looks at no fetch meanwhile: kgo drops what it has buffered
// of a removed partition, so nothing fetched before a restart comes after it.
func (s *Session) steer(into *pipeline.Batch, starts []start) {
	var remove []int32
	for _, p := range slices.Concat(into.Lost, into.Revoked) {
		if s.reading[p] != nil {
			remove = append(remove, p)
			delete(s.reading, p)
		}
	}
	add := make(map[int32]kgo.Offset)
	for _, st := range starts {
		if !s.owns.reading(st.partition, st.epoch) {
			continue
		}
		if s.reading[st.partition] != nil {
			remove = append(remove, st.partition)
		}
		s.reading[st.partition] = &cursor{epoch: st.epoch, next: st.offset}
		add[st.partition] = kgo.NewOffset().At(st.offset)
	}
	if len(remove) > 0 {
		s.reader.RemoveConsumePartitions(map[string][]int32{s.conf.Topic: remove})
	}
	if len(add) > 0 {
		s.reader.AddConsumePartitions(map[string]map[int32]kgo.Offset{s.conf.Topic: add})
	}
}

// fill turns fetches into runs of records. Records of partitions that are not ours
// to read any more are dropped; an offset that does not grow is fatal, since
// applying a record twice, or skipping one, would go unnoticed later.
func (s *Session) fill(into *pipeline.Batch, fetches kgo.Fetches) error {
	var errs []error
	fetches.EachPartition(func(f kgo.FetchTopicPartition) {
		if f.Err != nil {
			if err := s.fetchError(f); err != nil {
				errs = append(errs, err)
			}
			return
		}
		cur := s.reading[f.Partition]
		if len(f.Records) == 0 || cur == nil || !s.owns.reading(f.Partition, cur.epoch) {
			return
		}
		if first := f.Records[0].Offset; first < cur.next {
			errs = append(errs, fmt.Errorf("kafka: %s/%d: fetched offset %d, but %d was expected or a later one; restart, and report this",
				s.conf.Topic, f.Partition, first, cur.next))
			return
		}
		r := newRun(f.Records)
		r.reader, r.partition = s, f.Partition
		if err := r.read(s.conf.Lane); err != nil {
			errs = append(errs, err)
		}
		into.Fetched = append(into.Fetched, pipeline.Fetched{Partition: f.Partition, Records: r.records, Free: r.free})
		cur.next = f.Records[len(f.Records)-1].Offset + 1
	})
	return errors.Join(errs...)
}

// countMisplaced counts records that lie elsewhere than Kafka's own partitioner would
// have put them. Control records and records without a key have no place.
func (s *Session) countMisplaced(partition int32, records []*kgo.Record) {
	n, total := s.Partitions(), int64(0)
	for _, r := range records {
		if len(r.Key) > 0 && !r.Attrs.IsControl() && PartitionOf(r.Key, n) != partition {
			total++
		}
	}
	if total > 0 {
		s.misplaced.Add(total)
	}
}

// Misplaced returns how many records, of those that were applied, lay in another partition
// than that of their key (see PartitionOf): of producers with different partitioners one
// user counts as two.
func (s *Session) Misplaced() int64 { return s.misplaced.Load() }

// fetchError explains an error that kgo does not retry by itself, or returns nil
// for one that only says that waiting has ended.
func (s *Session) fetchError(f kgo.FetchTopicPartition) error {
	switch err := f.Err; {
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return nil
	case s.reading[f.Partition] == nil && f.Topic != "":
		return nil // of a partition we no longer read
	case errors.Is(err, kerr.OffsetOutOfRange):
		return &GoneError{Topic: f.Topic, Partition: f.Partition, Offset: s.reading[f.Partition].next, Start: -1}
	case errors.Is(err, kgo.ErrClientClosed):
		return fmt.Errorf("kafka: session is closed: %w", err)
	case errors.Is(err, kerr.UnknownServerError), closedAtOnce(err):
		s.conf.Log.Warn("fetch failed, and is tried again", zap.String("topic", f.Topic), zap.Int32("partition", f.Partition), zap.Error(err))
		return nil // the client fetches on from where it is
	case unknownTopic(err):
		return s.missing(s.life)
	default:
		return fmt.Errorf("kafka: fetch %s/%d: %w%s", f.Topic, f.Partition, Unreadable(err), remedy(err))
	}
}

// End returns a partition's end as the broker last told it, also while nobody polls;
// -1: not yet.
func (s *Session) End(partition int32) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if end, ok := s.told[partition]; ok {
		return end
	}
	return -1
}

// takeEnds moves the ends that were asked for into the batch.
func (s *Session) takeEnds(into *pipeline.Batch) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for p, end := range s.ends {
		if cur := s.reading[p]; cur != nil && s.owns.reading(p, cur.epoch) {
			into.Ends = append(into.Ends, end)
		}
	}
	clear(s.ends)
	slices.SortFunc(into.Ends, func(a, b pipeline.End) int { return int(a.Partition - b.Partition) })
	return len(into.Ends) > 0
}

// Start begins, or begins again, to read a partition at offset.
func (s *Session) Start(partition int32, offset int64) { s.owns.start(partition, offset) }

// Joined tells that the group has given this instance its share, if only of nothing.
func (s *Session) Joined() bool { return s.owns.joined() }

// Release lets a revoked partition go to its next owner.
func (s *Session) Release(partition int32) { s.owns.release(partition) }

// Partitions returns how many partitions the input topic had at start.
func (s *Session) Partitions() int32 { return int32(len(s.topic.leaders)) }

// TopicID returns the id of the input topic, which another one of the same name does
// not have.
func (s *Session) TopicID() string { return s.topic.id.String() }

// Group returns the consumer group, Topic the input topic.
func (s *Session) Group() string { return s.conf.Group }

// Topic returns the input topic.
func (s *Session) Topic() string { return s.conf.Topic }

// Close leaves the group (a static member stays until its session ends) and closes
// all clients, within ctx: transactions under way are waited for, and what is not
// done by then is interrupted. A callback that waits for Release is let through.
//
// Closing again does nothing.
func (s *Session) Close(ctx context.Context) {
	if !s.owns.close() {
		return
	}
	s.owns.fail(kgo.ErrClientClosed)
	s.mu.Lock()
	s.endTending() // no more are tended from here on
	s.mu.Unlock()
	tended := make(chan struct{}) // all have given their producers back
	go func() {
		s.tenders.Wait()
		close(tended)
	}()
	select {
	case <-tended:
	case <-ctx.Done():
	}
	s.mu.Lock()
	left := s.turning
	s.mu.Unlock()
	if s.marker != nil {
		left++
	}
	var idle []*producer
	for range left {
		select {
		case p := <-s.idle:
			idle = append(idle, p)
		case p := <-s.marking:
			idle = append(idle, p)
		case <-ctx.Done(): // its transaction is left to the broker, or to our successor
		}
	}
	if member := s.member.Load(); member != nil {
		//failpoint:group.leaving
		member.LeaveGroupContext(ctx) //nolint:errcheck // the session timeout does it too
	}
	s.end() // from here on nothing waits for a broker
	s.helpers.Wait()
	<-tended
	for _, p := range idle {
		p.close()
	}
	for len(s.idle) > 0 { // who came back too late
		(<-s.idle).close()
	}
	for len(s.marking) > 0 {
		(<-s.marking).close()
	}
	for _, cl := range []*kgo.Client{s.member.Load(), s.reader, s.admin} {
		if cl != nil {
			cl.Close()
		}
	}
}

// maxMessageBytes returns max.message.bytes of the topics, where it may be read:
// without the right to, the broker's default is assumed.
func maxMessageBytes(ctx context.Context, cl *kgo.Client, topics []string) (map[string]int32, error) {
	sizes := make(map[string]int32)
	if len(topics) == 0 {
		return sizes, nil
	}
	const key = "max.message.bytes"
	req := kmsg.NewPtrDescribeConfigsRequest()
	for _, name := range topics {
		r := kmsg.NewDescribeConfigsRequestResource()
		r.ResourceType, r.ResourceName, r.ConfigNames = kmsg.ConfigResourceTypeTopic, name, []string{key}
		req.Resources = append(req.Resources, r)
	}
	err := insistOnTopic(ctx, startWait, func(ctx context.Context) error {
		resp, err := req.RequestWith(ctx, cl)
		if err != nil {
			return err
		}
		for _, r := range resp.Resources {
			err := kerr.ErrorForCode(r.ErrorCode)
			if err != nil && !errors.Is(err, kerr.TopicAuthorizationFailed) {
				return err
			}
			for _, c := range r.Configs {
				if n, err := strconv.ParseInt(unwrap(c.Value), 10, 32); c.Name == key && err == nil {
					sizes[r.ResourceName] = int32(n)
				}
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("kafka: read the configuration of %v: %w", topics, err)
	}
	return sizes, nil
}

func unwrap(text *string) string {
	if text == nil {
		return ""
	}
	return *text
}
