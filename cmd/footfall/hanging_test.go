package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"footfall/schemas"
	"footfall/sources/kafka"
)

// forged is what a coordinator says of transactional ids, as one does that has forgotten
// their transactions or left out their markers.
type forged struct {
	mu      sync.Mutex
	states  map[string]kmsg.DescribeTransactionsResponseTransactionState
	unknown map[int64]bool // producers of which none has heard
}

// manyEpochs is how far a producer has gone on that is at work still.
const manyEpochs = 20

// forge has a broker's coordinator say so.
func forge(broker *kafka.Local) *forged {
	f := &forged{states: map[string]kmsg.DescribeTransactionsResponseTransactionState{}, unknown: map[int64]bool{}}
	broker.Cluster().ControlKey(int16(kmsg.ListTransactions), func(r kmsg.Request) (kmsg.Response, error, bool) {
		broker.Cluster().KeepControl()
		f.mu.Lock()
		defer f.mu.Unlock()
		req, ok := r.(*kmsg.ListTransactionsRequest)
		if !ok || len(req.ProducerIDFilters) != 1 || !f.unknown[req.ProducerIDFilters[0]] {
			return nil, nil, false
		}
		return req.ResponseKind(), nil, true
	})
	broker.Cluster().ControlKey(int16(kmsg.DescribeTransactions), func(r kmsg.Request) (kmsg.Response, error, bool) {
		broker.Cluster().KeepControl()
		f.mu.Lock()
		defer f.mu.Unlock()
		req, ok := r.(*kmsg.DescribeTransactionsRequest)
		if !ok || len(req.TransactionalIDs) != 1 {
			return nil, nil, false
		}
		state, ok := f.states[req.TransactionalIDs[0]]
		if !ok {
			return nil, nil, false
		}
		resp := req.ResponseKind().(*kmsg.DescribeTransactionsResponse)
		resp.TransactionStates = append(resp.TransactionStates, state)
		if state.ProducerEpoch > manyEpochs { // its producer goes on meanwhile
			state.ProducerEpoch++
			f.states[req.TransactionalIDs[0]] = state
		}
		return resp, nil, true
	})
	return f
}

// say writes an output in a transaction of its own, and leaves that open.
func (h *house) say(topic string, partition int32, n int) (cl *kgo.Client, id string) {
	h.t.Helper()
	return h.sayAt(topic, partition, n, time.Now())
}

func (h *house) sayAt(topic string, partition int32, n int, at time.Time) (cl *kgo.Client, id string) {
	h.t.Helper()
	id = h.conf.Kafka.Group + "/" + rand.Text()
	cl, err := h.conf.client(kgo.TransactionalID(id), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(cl.Close)
	if err := cl.BeginTransaction(); err != nil {
		h.t.Fatal(err)
	}
	r := &kgo.Record{Timestamp: at, Topic: topic, Partition: partition, Value: fmt.Appendf(nil, "output %d", n), Headers: []kgo.RecordHeader{{Key: schemas.HeaderN, Value: fmt.Append(nil, n)}}}
	if topic == h.conf.Kafka.Topics.DeadLetters {
		r.Headers[0].Key = schemas.HeaderDeadN
		original := kgo.RecordHeader{Key: schemas.HeaderDeadN, Value: []byte("999")} // of the record that was refused
		r.Headers = append([]kgo.RecordHeader{original}, r.Headers...)
	}
	if err := cl.ProduceSync(h.t.Context(), r).FirstErr(); err != nil {
		h.t.Fatal(err)
	}
	return cl, id
}

// says does so, and ends it.
func (h *house) says(topic string, partition int32, n int, how kgo.TransactionEndTry) {
	h.t.Helper()
	cl, _ := h.say(topic, partition, n)
	if err := cl.EndTransaction(h.t.Context(), how); err != nil {
		h.t.Fatal(err)
	}
}

// Transactions that hang are told apart by what their coordinators know of them, and by what
// is committed where those know nothing, and are ended so that each output is there as it
// was committed: once, or not at all.
func TestHanging(t *testing.T) {
	t.Run("by the command", func(t *testing.T) {
		hangs(t, func(h *house, most int) {
			if got := h.run("topics", "hanging", "--end"); !strings.Contains(got, fmt.Sprintf("%d transactions ended", most)) {
				t.Errorf("got\n%s\nwant all ended but the one at work", got)
			}
		})
	})
	t.Run("by an instance", func(t *testing.T) {
		hangs(t, func(h *house, most int) {
			written := 0
			err := h.conf.endHangs(t.Context(), func(ctx context.Context, x *kafka.Hang, commit bool) error {
				written++
				cl, err := h.conf.connect(ctx)
				if err != nil {
					return err
				}
				defer cl.Close()
				return x.End(ctx, cl, commit)
			})
			if err != nil || written != most {
				t.Errorf("%d markers written, and %v; want %d", written, err, most)
			}
		})
	})
}

// hangs makes transactions hang, of each kind, has all ended but the one that somebody is at
// work on, and looks what has become of them.
func hangs(t *testing.T, end func(h *house, most int)) {
	t.Helper()
	broker, err := kafka.StartLocal(kafka.LocalConfig{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(broker.Close)
	coordinator := forge(broker)
	h := prepareHouse(t, broker.Addr(), "http://127.0.0.1:8123/none", schemas.Live, "clickhouse.enabled=false", "kafka.partitions=16")
	h.run("topics", "create")
	if got := h.run("topics", "hanging"); got != "nothing is undecided\n" {
		t.Errorf("got %q", got)
	}
	topics := &h.conf.Kafka.Topics
	const committed = 3
	var all kadm.Offsets
	for p := range int32(16) {
		mark := schemas.Mark{Partition: p, Next: 9, N: committed}
		text, err := mark.AppendText(nil)
		if err != nil {
			t.Fatal(err)
		}
		all.Add(kadm.Offset{Topic: topics.Events, Partition: p, At: 9, LeaderEpoch: -1, Metadata: string(text)})
	}
	cl, err := h.conf.connect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	if err := kadm.NewClient(cl).CommitAllOffsets(t.Context(), h.conf.Kafka.Group, all); err != nil {
		t.Fatal(err)
	}

	cases := []struct {
		what  string
		topic string
		n     int
		state string // "": as it is
		epoch int16  // more than its own
		again func(p int32)

		elsewhere bool // it has a marker, which commits it, in another partition
		next      bool // its producer's next transaction has
		unknown   bool // no coordinator knows it
		late      bool // it was written long after it was sent

		want    string // what is to be done
		because string
		visible []string
	}{
		{what: "at work", topic: topics.Triggers, n: 4, want: "wait", because: "the broker aborts it after its timeout"},
		{what: "without its markers", topic: topics.Triggers, n: 3, state: "CompleteCommit", epoch: 1, want: "commit", because: "its marker was never written", visible: []string{"output 3"}},
		{what: "aborted without its markers", topic: topics.Muted, n: 4, state: "CompleteAbort", epoch: 1, want: "abort", because: "its marker was never written"},
		{what: "forgotten before it was committed", topic: topics.Triggers, n: 4, state: "Empty", epoch: 2, want: "abort", because: "its first output is number 4, and up to 3 are committed"},
		{what: "forgotten after it was", topic: topics.Triggers, n: 3, state: "Empty", epoch: 2, want: "commit", because: "number 3, which is committed and nowhere else", visible: []string{"output 3"}},
		{
			what: "said again behind it", topic: topics.Triggers, n: 2, state: "CompleteCommit", epoch: 30,
			again: func(p int32) { h.says(topics.Triggers, p, 2, kgo.TryCommit) }, want: "abort", because: "was said again, and committed, at " + topics.Triggers, visible: []string{"output 2"},
		},
		{
			what: "said again behind it, and aborted", topic: topics.DeadLetters, n: 3, state: "Empty", epoch: 2,
			again: func(p int32) { h.says(topics.DeadLetters, p, 3, kgo.TryAbort) }, want: "commit", because: "nowhere else", visible: []string{"output 3"},
		},
		{
			what: "forgotten, and committed elsewhere", topic: topics.Triggers, n: 5, state: "Empty", epoch: 2, elsewhere: true,
			want: "commit", because: "its marker in " + topics.Muted, visible: []string{"output 5"},
		},
		{
			what: "said again in another topic", topic: topics.Triggers, n: 3, state: "Empty", epoch: 2,
			again: func(p int32) { h.says(topics.Muted, p, 3, kgo.TryCommit) }, want: "abort", because: "was said again, and committed, at " + topics.Muted,
		},
		{
			what: "said again before it came", topic: topics.Triggers, n: 3, state: "Empty", epoch: 2, late: true,
			again: func(p int32) { h.says(topics.Triggers, p, 3, kgo.TryCommit) }, want: "abort", because: "was said again, and committed, at " + topics.Triggers, visible: []string{"output 3"},
		},
		{what: "forgotten, and the next one committed elsewhere", topic: topics.Triggers, n: 5, state: "Empty", epoch: 2, next: true, want: "abort", because: "up to 3 are committed"},
		{what: "of a producer that has another number now, and committed", topic: topics.Muted, n: 3, state: "Empty", unknown: true, want: "commit", because: "number 3, which is committed and nowhere else", visible: []string{"output 3"}},
		{what: "of such a producer, and not committed", topic: topics.Muted, n: 4, state: "Empty", unknown: true, want: "abort", because: "up to 3 are committed"},
	}
	for p, c := range cases {
		at := time.Now()
		if c.late {
			at = at.Add(-time.Minute)
			c.again(int32(p))
			c.again = nil
		}
		open, name := h.sayAt(c.topic, int32(p), c.n, at)
		if c.again != nil {
			c.again(int32(p))
		}
		if c.state == "" { // as it is
			continue
		}
		id, epoch, err := open.ProducerID(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		state := kmsg.NewDescribeTransactionsResponseTransactionState()
		state.TransactionalID, state.ProducerID, state.ProducerEpoch, state.State = name, id, epoch+c.epoch, c.state
		if c.elsewhere || c.next {
			marker := kadm.TxnMarkers{ProducerID: id, ProducerEpoch: epoch + 1, Commit: true}
			if c.elsewhere {
				if err := open.ProduceSync(t.Context(), &kgo.Record{Topic: topics.Muted, Partition: 14}).FirstErr(); err != nil {
					t.Fatal(err)
				}
				marker.Topics.Add(topics.Muted, 14)
			} else {
				marker.Topics.Add(topics.Muted, 15)
			}
			if _, err := kadm.NewClient(cl).WriteTxnMarkers(t.Context(), marker); err != nil {
				t.Fatal(err)
			}
		}
		coordinator.mu.Lock()
		coordinator.states[state.TransactionalID], coordinator.unknown[id] = state, c.unknown
		coordinator.mu.Unlock()
	}

	said := h.left("topics", "hanging")
	for p, c := range cases {
		place := fmt.Sprintf("%s/%d ", c.topic, p)
		i := slices.IndexFunc(strings.Split(said, "\n"), func(line string) bool { return strings.HasPrefix(line, place) })
		if i < 0 {
			t.Errorf("%s: %s is not among\n%s", c.what, place, said)
			continue
		}
		line := strings.Split(said, "\n")[i]
		if words := strings.Fields(line); len(words) < 5 || words[4] != c.want || !strings.Contains(line, c.because) {
			t.Errorf("%s: got\n%s\nwant %s, because %s", c.what, line, c.want, c.because)
		}
	}
	if !strings.Contains(said, "to end them: footfall topics hanging --end") {
		t.Errorf("got\n%s\nwant to be told how they are ended", said)
	}
	end(h, len(cases)-1)
	if got := h.run("topics", "hanging"); strings.Count(got, "\n") != 2 || !strings.Contains(got, "wait") {
		t.Errorf("got\n%s\nwant the one at work alone", got)
	}
	for p, c := range cases {
		if c.want == "wait" {
			continue
		}
		if got := h.visible(c.topic, int32(p)); !slices.Equal(got, c.visible) {
			t.Errorf("%s: visible %q, want %q", c.what, got, c.visible)
		}
	}
}

// visible gives what any reader sees in a partition.
func (h *house) visible(topic string, partition int32) (values []string) {
	h.t.Helper()
	cl, err := h.conf.connect(h.t.Context(), kgo.KeepControlRecords(), kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: {partition: kgo.NewOffset().AtStart()}}))
	if err != nil {
		h.t.Fatal(err)
	}
	defer cl.Close()
	ends, err := kadm.NewClient(cl).ListEndOffsets(h.t.Context(), topic)
	if err != nil {
		h.t.Fatal(err)
	}
	end, _ := ends.Lookup(topic, partition)
	for next := int64(0); next < end.Offset; {
		fetches := cl.PollFetches(h.t.Context())
		if err := fetches.Err(); err != nil {
			h.t.Fatal(err)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			if next = r.Offset + 1; !r.Attrs.IsControl() {
				values = append(values, string(r.Value))
			}
		})
	}
	return values
}

// left runs a command that ends with exit code 1: something is left to do.
func (h *house) left(args ...string) string {
	h.t.Helper()
	c := h.command(args...)
	out, err := c.Output()
	if exit, ok := errors.AsType[*exec.ExitError](err); !ok || exit.ExitCode() != exitFailed {
		h.t.Fatalf("footfall %s: %v, want exit code 1", strings.Join(args, " "), err)
	}
	return string(out)
}
