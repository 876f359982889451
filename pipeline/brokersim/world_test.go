package brokersim

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kversion"

	"footfall/pipeline/pipelinetest"
	"footfall/pipeline/segment"
	"footfall/schemas"
	"footfall/sources/kafka"
)

// Names of what a run is about.
const (
	group     = "shop"
	events    = "events"
	triggers  = "triggers"
	muted     = "muted"
	dead      = "dead-letters"
	partCount = 2
)

// options are what a run is made of.
type options struct {
	setting
	static bool   // instances keep their name in the group
	disk   bool   // brokers keep their data when they are stopped
	dir    string // there
	bug    sabotage
	seed   uint64
	wait   time.Duration // for outputs to be decided; 30 s
}

// world is a cluster and the processes on it, in a bubble.
type world struct {
	t       *testing.T
	opt     options
	rng     *rand.Rand
	rng2    *rand.Rand      // of what goes on beside
	ctx     context.Context // of all processes
	net     *network
	cluster *kfake.Cluster
	client  *kgo.Client // the world's own: no fault reaches it
	adm     *kadm.Client
	bucket  *pipelinetest.Bucket
	table   *table
	rules   *segment.Program

	mu      sync.Mutex
	ended   []string // processes that have ended by themselves, and why
	doubled int      // rows that the archive has twice
	faults  []error  // what does not hold
	log     []string
}

func contract() schemas.Contract {
	return schemas.Contract{Currency: "EUR", Rates: map[string]string{"USD": "0.905"}}
}

// newWorld starts brokers and makes the topics.
func newWorld(t *testing.T, opt options) *world {
	probe, err := schemas.NewDecoder(contract())
	if err != nil {
		t.Fatal(err)
	}
	opt.wait = cmp.Or(opt.wait, 30*time.Second)
	w := &world{
		t: t, opt: opt, rng: rand.New(rand.NewPCG(opt.seed, 11)), rng2: rand.New(rand.NewPCG(opt.seed, 12)), ctx: t.Context(),
		net:    &network{links: map[*link]bool{}, sent: census{}},
		bucket: pipelinetest.NewBucket(), rules: segment.Lifecycle(probe.Hash()),
		table: &table{rows: map[place][]uint64{}},
	}
	w.start()
	w.connect()
	problems, err := kafka.CreateTopics(w.ctx, w.client, kafka.TopicPlan{Input: events, Outputs: outputs(), Partitions: partCount})
	if err != nil || len(problems) > 0 {
		w.t.Fatalf("create topics: %v, %v", problems, err)
	}
	return w
}

// start starts the brokers.
func (w *world) start() {
	opts := []kfake.Opt{
		kfake.NumBrokers(2), kfake.ListenFn(w.net.virtual.Listen), kfake.Ports(9092, 9093),
		kfake.BrokerConfigs(map[string]string{
			"group.consumer.heartbeat.interval.ms": "1000", "group.consumer.session.timeout.ms": "6000",
		}),
	}
	if w.opt.old {
		opts = append(opts, kfake.MaxVersions(kversion.V3_8_0()))
	}
	if w.opt.disk {
		opts = append(opts, kfake.DataDir(w.opt.dir))
	}
	cluster, err := kfake.NewCluster(opts...)
	if err != nil {
		w.t.Fatal(err)
	}
	w.cluster = cluster
}

// connect gives the world its client.
func (w *world) connect() {
	opts, err := kafka.Options(kafka.Config{Brokers: brokers(), Options: []kgo.Opt{kgo.Dialer(w.net.virtual.DialContext)}})
	if err != nil {
		w.t.Fatal(err)
	}
	w.client, err = kgo.NewClient(append(opts, kgo.RecordPartitioner(kgo.ManualPartitioner()))...)
	if err != nil {
		w.t.Fatal(err)
	}
	w.adm = kadm.NewClient(w.client)
}

// close ends the world, and tells of connections that processes have left open.
func (w *world) close() {
	w.client.Close()
	synctest.Wait() // connections that are closed are known to be
	for _, who := range w.net.close() {
		if w.t.Failed() {
			break // it may not have come to end its processes
		}
		w.fault(fmt.Errorf("%s has left a connection open", who))
	}
	w.cluster.Close()
}

func brokers() []string { return []string{"127.0.0.1:9092", "127.0.0.1:9093"} }

func outputs() []string { return []string{triggers, muted, dead} }

func now() schemas.Millis { return schemas.Millis(time.Now().UnixMilli()) }

// note keeps what happened, to be shown if the run fails.
func (w *world) note(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.log = append(w.log, fmt.Sprintf("%s ", time.Now().Format("04:05.000"))+fmt.Sprintf(format, args...))
}

// end notes that a process has ended by itself.
func (w *world) end(who string, err error) {
	w.note("%s ended: %v", who, err)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ended = append(w.ended, fmt.Sprintf("%s: %v", who, err))
}

// marks are the committed ones, by partition.
func (w *world) marks() map[int32]schemas.Mark {
	offsets, err := w.adm.FetchOffsets(w.ctx, group)
	if err != nil {
		return nil
	}
	found := map[int32]schemas.Mark{}
	for p, o := range offsets[events] {
		if o.At < 0 || o.Err != nil {
			continue
		}
		m, err := schemas.ParseMark(p, o.At, o.Metadata)
		if err != nil {
			w.t.Fatalf("the mark of partition %d: %v", p, err)
		}
		found[p] = m
	}
	return found
}

// hang keeps a transaction of somebody else's open in the trigger topic for a while, and
// returns how to wait for its end.
func (w *world) hang(while time.Duration) (over func()) {
	opts, err := kafka.Options(kafka.Config{Brokers: brokers(), Options: []kgo.Opt{kgo.Dialer(w.net.virtual.DialContext)}})
	if err != nil {
		w.t.Fatal(err)
	}
	cl, err := kgo.NewClient(append(opts, kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.TransactionalID("hangs"), kgo.TransactionTimeout(time.Minute))...)
	if err == nil {
		err = cl.BeginTransaction()
	}
	for p := int32(0); err == nil && p < partCount; p++ {
		err = cl.ProduceSync(w.ctx, &kgo.Record{Topic: triggers, Partition: p, Value: []byte("undecided")}).FirstErr()
	}
	if err != nil {
		w.t.Fatalf("hang: %v", err)
	}
	var ended sync.WaitGroup
	ended.Go(func() {
		defer cl.Close()
		time.Sleep(while)
		if err := cl.EndTransaction(w.ctx, kgo.TryAbort); err != nil {
			w.fault(fmt.Errorf("hang: %w", err))
		}
	})
	return ended.Wait
}

// lead moves the partitions' leaders every few seconds while the shop is open, and returns
// how to wait for the end of that.
func (w *world) lead() (over func()) {
	var ended sync.WaitGroup
	closing := time.Now().Add(working)
	ended.Go(func() {
		for time.Sleep(3 * time.Second); time.Now().Before(closing); time.Sleep(3 * time.Second) {
			w.cluster.ShufflePartitionLeaders()
		}
	})
	return ended.Wait
}

// ends are the ends of a topic's partitions.
func (w *world) ends(topic string) map[int32]int64 {
	listed, err := w.adm.ListCommittedOffsets(w.ctx, topic)
	if err != nil {
		w.t.Fatalf("ends of %s: %v", topic, err)
	}
	found := map[int32]int64{}
	listed.Each(func(o kadm.ListedOffset) { found[o.Partition] = o.Offset })
	return found
}

// restless is how long everything may take to come to rest once faults are over.
const restless = 5 * time.Minute

// rest waits until the input is read to its end, every timer due by then has been
// said, and the archive has everything.
func (w *world) rest(by schemas.Millis) error {
	deadline := time.Now().Add(restless)
	for time.Sleep(time.Second); ; time.Sleep(time.Second) {
		open := w.open(by)
		if open == "" {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("does not come to rest within %v: %s", restless, open)
		}
	}
}

// open says what is still to be done, or nothing.
func (w *world) open(by schemas.Millis) string {
	marks := w.marks()
	for p, end := range w.ends(events) {
		if m := marks[p]; m.Next < end || m.Fired < by {
			return fmt.Sprintf("partition %d ends at %d, is committed up to %d, and has fired up to %d of %d", p, end, m.Next, m.Fired, by)
		}
	}
	offsets, err := w.adm.FetchOffsets(w.ctx, group+"-archive")
	if err != nil {
		return fmt.Sprintf("the archive's offsets: %v", err)
	}
	for _, topic := range append(outputs(), events) {
		for p, end := range w.ends(topic) {
			if o, ok := offsets.Lookup(topic, p); end > 0 && (!ok || o.At < end) {
				return fmt.Sprintf("%s/%d ends at %d and is archived up to %d", topic, p, end, o.At)
			}
		}
	}
	return ""
}

// records reads a topic as any consumer does, read_committed, to its end.
func (w *world) records(topic string) []*kgo.Record {
	opts, err := kafka.Options(kafka.Config{Brokers: brokers(), Options: []kgo.Opt{kgo.Dialer(w.net.virtual.DialContext)}})
	if err != nil {
		w.t.Fatal(err)
	}
	from := map[int32]kgo.Offset{}
	left := map[int32]int64{}
	for p, end := range w.ends(topic) {
		if end > 0 {
			from[p], left[p] = kgo.NewOffset().AtStart(), end
		}
	}
	cl, err := kgo.NewClient(append(opts, kgo.KeepControlRecords(), kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: from}))...)
	if err != nil {
		w.t.Fatal(err)
	}
	defer cl.Close()
	ctx, cancel := context.WithTimeout(w.ctx, time.Minute)
	defer cancel()
	var got []*kgo.Record
	for len(left) > 0 {
		fetches := cl.PollFetches(ctx)
		if err := ctx.Err(); err != nil {
			w.t.Fatalf("read %s: %v; left are %v", topic, err, left)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			if !r.Attrs.IsControl() {
				got = append(got, r)
			}
			if end, ok := left[r.Partition]; ok && r.Offset >= end-1 {
				delete(left, r.Partition)
			}
		})
	}
	slices.SortStableFunc(got, func(a, b *kgo.Record) int { return int(a.Partition - b.Partition) })
	return got
}

// publish writes a record to the input.
func (w *world) publish(r *kgo.Record) {
	r.Topic = events
	if err := w.client.ProduceSync(w.ctx, r).FirstErr(); err != nil && !errors.Is(err, context.Canceled) {
		w.t.Fatalf("publish: %v", err)
	}
}
