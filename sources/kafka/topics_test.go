package kafka

import (
	"errors"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"footfall/pipeline"
	"footfall/pipeline/worker"
	"footfall/schemas"
)

// Known values of Kafka's UtilsTest.testMurmur2 and of MurmurHash2's four tails.
func TestPartitionOfIsJavas(t *testing.T) {
	for key, want := range map[string]int32{
		"21": -973932308, "foobar": -790332482, "a-little-bit-long-string": -985981536, "a-little-bit-longer-string": -1486304829,
		"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971, "abc": 479470107,
	} {
		if got := int32(murmur2([]byte(key))); got != want {
			t.Errorf("%q: got %d, want %d", key, got, want)
		}
		if got, want := PartitionOf([]byte(key), 7), (want&0x7fffffff)%7; got != want {
			t.Errorf("%q: got partition %d, want %d", key, got, want)
		}
	}
}

// A broker may not know at once what another has created: it is asked again.
func TestTopicsNotKnownYet(t *testing.T) {
	e := local(t, 2)
	unheard := func(key kmsg.Key) {
		e.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{key}, Err: kerr.UnknownTopicOrPartition, Count: 3})
	}
	unheard(kmsg.DescribeConfigs)
	plan := TopicPlan{Input: e.input + "-n", Outputs: []string{e.input + "-o"}, Partitions: 2}
	if problems, err := CreateTopics(t.Context(), e.cl, plan); err != nil || len(problems) != 0 {
		t.Errorf("got %v, error %v", problems, err)
	}
	unheard(kmsg.DescribeConfigs)
	unheard(kmsg.Metadata)
	s := e.session(e.config("a"))
	assigned(t, s, 2)
	unheard(kmsg.Metadata)
	if err := s.missing(t.Context()); err != nil {
		t.Errorf("of topics that a broker does not know yet: %v", err)
	}
	e.publish(0, "a", "b")
	for _, unknown := range []*kerr.Error{kerr.UnknownTopicOrPartition, kerr.UnknownTopicID} {
		e.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Fetch}, Err: unknown, Count: 3})
		n := 0
		err := s.Input(t.Context(), 0, 0, 2, func(records []worker.Record) error {
			n += len(records)
			return nil
		})
		if err != nil || n != 2 {
			t.Errorf("a recovery that a broker tells %v: read %d records, error %v, want both", unknown, n, err)
		}
	}
}

// The topics are made alike; what exists is not changed but told.
func TestTopics(t *testing.T) {
	onBrokers(t, 3, func(t *testing.T, e *env) {
		plan := TopicPlan{Input: e.input + "-r", Outputs: []string{e.input + "-t", e.input + "-d"}, Lane: schemas.Replay, Partitions: 5}
		problems, err := CheckTopics(t.Context(), e.cl, plan)
		if err != nil || len(problems) != 3 {
			t.Fatalf("before they exist: got %v, error %v", problems, err)
		}
		for range 2 { // creating again changes nothing
			if problems, err = CreateTopics(t.Context(), e.cl, plan); err != nil || len(problems) != 0 {
				t.Fatalf("created: got %v, error %v", problems, err)
			}
		}
		settings := map[string]*string{"cleanup.policy": new("compact"), "retention.ms": new("604800000")}
		if _, err := kadm.NewClient(e.cl).CreateTopic(t.Context(), 3, -1, settings, e.input+"-x"); err != nil {
			t.Fatal(err)
		}
		for known := false; !known; { // a broker may not know at once what it has created
			topics, err := lookUp(t.Context(), e.cl, e.input+"-x")
			if err != nil {
				t.Fatal(err)
			}
			_, known = topics[e.input+"-x"]
		}
		// An input of lane replay on a broker's defaults, an output of another count.
		wrong := TopicPlan{Input: e.input + "-x", Outputs: []string{e.input + "-t"}, Lane: schemas.Replay}
		if problems, err = CreateTopics(t.Context(), e.cl, wrong); err != nil {
			t.Fatal(err)
		}
		all := ""
		for _, p := range problems {
			all += p.String() + "\n"
		}
		for _, want := range []string{
			"-t has 5 partitions and the input " + e.input + "-x has 3", "it is compacted", "retention.ms=",
			"kafka-configs.sh --alter --entity-type topics --entity-name " + e.input + "-x --add-config retention.ms=-1",
		} {
			if !strings.Contains(all, want) {
				t.Errorf("got\n%swant %q", all, want)
			}
		}
		// A session refuses such topics too.
		conf := e.config("a")
		conf.Topic = wrong.Input
		if _, err := New(t.Context(), conf, wrong.Outputs...); err == nil || !strings.Contains(err.Error(), "see: footfall check") {
			t.Errorf("got %v, want the counts refused", err)
		}
	})
}

// What does not exist is told with its remedy.
func TestNoTopic(t *testing.T) {
	e := local(t, 1)
	conf := e.config("a")
	conf.Topic = "none"
	if _, err := New(t.Context(), conf); err == nil || !strings.Contains(err.Error(), "footfall topics create") {
		t.Errorf("got %v, want it to say how to create it", err)
	}
}

// An input that was expanded is refused: users have moved, their profiles have not.
// So it is when nothing ran meanwhile, by what was committed.
func TestExpansionIsRefused(t *testing.T) {
	onBrokers(t, 2, func(t *testing.T, e *env) {
		s := e.session(e.config("a"))
		a := assigned(t, s, 2)[0]
		if err := s.Transact(t.Context(), nil, []*worker.Output{output(a, 1, 0)}); err != nil {
			t.Fatal(err)
		}
		d := drive(t, s)
		if _, err := kadm.NewClient(e.cl).UpdatePartitions(t.Context(), 3, e.input); err != nil {
			t.Fatal(err)
		}
		<-d.done
		if d.err == nil || !strings.Contains(d.err.Error(), "had 2 partitions when this process started and has 3 now") {
			t.Errorf("got %v, want the expansion refused", d.err)
		}
		for _, out := range e.out {
			if _, err := kadm.NewClient(e.cl).UpdatePartitions(t.Context(), 3, out); err != nil {
				t.Fatal(err)
			}
		}
		eventually(t, "all have three", func() bool {
			infos, err := lookUp(t.Context(), e.cl, append(e.out, e.input)...)
			return err == nil && len(infos[e.input].leaders) == 3 && len(infos[e.out[0]].leaders) == 3 && len(infos[e.out[1]].leaders) == 3
		})
		next, err := New(t.Context(), e.config("b"), e.out...)
		if err == nil {
			next.Close(t.Context())
		}
		if err == nil || !strings.Contains(err.Error(), "had 2 partitions when offset 1 of partition 0 was committed and has 3 now") {
			t.Errorf("got %v, want the expansion refused", err)
		}
	})
}

// A topic that is deleted and made anew is another topic, under any name.
func TestTopicMadeAnew(t *testing.T) {
	onBrokers(t, 1, func(t *testing.T, e *env) {
		d := drive(t, e.session(e.config("a")))
		eventually(t, "it is assigned", func() bool { return len(d.owns()) == 1 })
		adm := kadm.NewClient(e.cl)
		if _, err := adm.DeleteTopic(t.Context(), e.input); err != nil {
			t.Fatal(err)
		}
		eventually(t, "it is made anew", func() bool {
			_, err := adm.CreateTopic(t.Context(), 1, -1, nil, e.input)
			return err == nil
		})
		<-d.done
		if d.err == nil || !strings.Contains(d.err.Error(), "deleted and made anew after this process started") || !strings.Contains(d.err.Error(), "begin anew") {
			t.Errorf("got %v, want it refused", d.err)
		}
	})
}

// A mark of another topic of the name is refused.
func TestMarkOfAnotherTopic(t *testing.T) {
	e := local(t, 1)
	mark := output(pipeline.Assignment{}, 7, 2).Mark
	mark.Topic, mark.Of = 42, 1
	text, err := mark.AppendText(nil)
	if err != nil {
		t.Fatal(err)
	}
	offsets := kadm.Offsets{}
	offsets.Add(kadm.Offset{Topic: e.input, Partition: 0, At: 7, LeaderEpoch: -1, Metadata: string(text)})
	if err := kadm.NewClient(e.cl).CommitAllOffsets(t.Context(), e.group, offsets); err != nil {
		t.Fatal(err)
	}
	s, err := New(t.Context(), e.config("a"), e.out...)
	if err == nil {
		s.Close(t.Context())
	}
	if !errors.Is(err, pipeline.ErrPermanent) || !strings.Contains(err.Error(), "deleted and made anew after offset 7 of partition 0 was committed") {
		t.Errorf("got %v, want it refused", err)
	}
}
