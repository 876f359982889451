package kafka

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"

	"footfall/pipeline"
	"footfall/pipeline/worker"
	"footfall/schemas"
)

// What was committed before the broker was closed is there when it is started again
// on the same directory, at the address asked for.
func TestLocalPersists(t *testing.T) {
	conf := LocalConfig{DataDir: t.TempDir()}
	broker, err := StartLocal(conf)
	if err != nil {
		t.Fatal(err)
	}
	e := newEnv(t, broker.Addr(), broker.Cluster(), 1)
	s := e.session(e.config("a"))
	a := assigned(t, s, 1)[0]
	out := output(a, 3, 1)
	if err := s.Transact(t.Context(), e.records(0, "kept"), []*worker.Output{out}); err != nil {
		t.Fatal(err)
	}
	s.Close(t.Context())
	e.cl.Close()
	conf.Addr = broker.Addr()
	broker.Close()

	if broker, err = StartLocal(conf); err != nil {
		t.Fatal(err)
	}
	defer broker.Close()
	if broker.Addr() != conf.Addr {
		t.Errorf("address: got %s, want %s", broker.Addr(), conf.Addr)
	}
	if e.cl, err = kgo.NewClient(kgo.SeedBrokers(broker.Addr())); err != nil {
		t.Fatal(err)
	}
	defer e.cl.Close()
	again := e.session(e.config("a"))
	mark, found, err := again.Committed(t.Context(), 0)
	if err != nil || !found || mark != out.Mark {
		t.Errorf("got %+v, found %t, error %v; want %+v", mark, found, err, out.Mark)
	}
	if got := e.visible(e.out[0], 0); !slices.Equal(got, []string{"kept"}) {
		t.Errorf("said: %q", got)
	}
	if again.TopicID() != s.TopicID() || again.TopicID() == "" {
		t.Errorf("the topic's id was %q and is %q", s.TopicID(), again.TopicID())
	}
	again.Close(t.Context())
}

func TestLocalRefusesOpenAddresses(t *testing.T) {
	for addr, want := range map[string]string{"0.0.0.0:9092": "not on loopback", "nonsense": "give 127.0.0.1:port", "127.0.0.1:99999": "value out of range"} {
		if _, err := StartLocal(LocalConfig{Addr: addr}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", addr, err, want)
		}
	}
}

// Transactions work the same on brokers before transactions v2.
func TestTransactionsV1(t *testing.T) {
	e := local(t, 1, kfake.MaxVersions(kversion.V3_7_0()))
	s := e.session(e.config("a"))
	if s.v2 {
		t.Fatal("the broker offers transactions v2; the test proves nothing")
	}
	a := assigned(t, s, 1)[0]
	var want []string
	for n := range uint64(5) {
		v := string(rune('a' + n))
		want = append(want, v)
		if err := s.Transact(t.Context(), e.records(0, v), []*worker.Output{output(a, int64(n+1), n+1)}); err != nil {
			t.Fatal(err)
		}
	}
	if got := e.visible(e.out[0], 0); !slices.Equal(got, want) {
		t.Errorf("said: got %q, want %q", got, want)
	}
	if offset, _ := e.committed(0); offset != 5 {
		t.Errorf("committed: got %d, want 5", offset)
	}
}

// Every way to log in works, also over TLS with a client certificate's place filled;
// a wrong password and an unknown broker say what is wrong.
func TestSASLAndTLS(t *testing.T) {
	dir := t.TempDir()
	server, ca := certificate(t, dir)
	for _, mechanism := range []string{"PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"} {
		t.Run(mechanism, func(t *testing.T) {
			broker, err := StartLocal(LocalConfig{Options: []kfake.Opt{
				kfake.EnableSASL(), kfake.Superuser(mechanism, "shop", "secret"), kfake.TLS(server),
			}})
			if err != nil {
				t.Fatal(err)
			}
			defer broker.Close()
			conf := Config{
				Brokers: []string{broker.Addr()},
				TLS:     &TLS{CAFile: ca, ServerName: "localhost"},
				SASL:    &SASL{Mechanism: mechanism, User: "shop", Password: "secret"},
			}
			if err := ping(t, conf); err != nil {
				t.Errorf("right password: %v", err)
			}
			conf.SASL.Password = "wrong"
			if err := ping(t, conf); err == nil || !strings.Contains(err.Error(), "check the address, TLS and SASL") {
				t.Errorf("wrong password: got %v", err)
			}
		})
	}
}

func ping(t *testing.T, conf Config) error {
	t.Helper()
	opts, err := Options(conf)
	if err != nil {
		t.Fatal(err)
	}
	cl, err := kgo.NewClient(opts...)
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	return reachable(ctx, cl, conf.Brokers)
}

// certificate makes a self-signed one for localhost, in ca.pem and key.pem, and returns a
// server's configuration and the file a client is to trust.
func certificate(t *testing.T, dir string) (*tls.Config, string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "localhost"}, DNSNames: []string{"localhost"},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "key.pem"), pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: private}), 0o600); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "ca.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}, MinVersion: tls.VersionTLS12}, file
}

// A client certificate that is renewed is the one that the next connection shows.
func TestClientCertificateIsRenewed(t *testing.T) {
	dir := t.TempDir()
	of := &TLS{CertFile: filepath.Join(dir, "ca.pem"), KeyFile: filepath.Join(dir, "key.pem")}
	var conf *tls.Config
	for range 2 {
		want, _ := certificate(t, dir)
		if conf == nil {
			var err error
			if conf, err = of.config(); err != nil {
				t.Fatal(err)
			}
		}
		got, err := conf.GetClientCertificate(&tls.CertificateRequestInfo{})
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got.Certificate[0], want.Certificates[0].Certificate[0]) {
			t.Error("it shows an old one")
		}
	}
	if err := os.Remove(of.KeyFile); err != nil {
		t.Fatal(err)
	}
	if _, err := conf.GetClientCertificate(&tls.CertificateRequestInfo{}); err == nil || !strings.Contains(err.Error(), "client certificate") {
		t.Errorf("without its key: got %v", err)
	}
}

// A bad configuration is told in full, before anything is dialled.
func TestConfigRefuses(t *testing.T) {
	_, err := New(t.Context(), Config{RevokeLimit: time.Hour, TickInterval: -1})
	for _, want := range []string{"brokers are missing", "group is missing", "instance is missing", "topic is missing", "Now is missing", "below the rebalance timeout", "negative duration"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want it to name %q", err, want)
		}
	}
	for want, conf := range map[string]Config{
		"unknown mechanism \"GSSAPI\"":  {SASL: &SASL{Mechanism: "GSSAPI", User: "u"}},
		"user is missing":               {SASL: &SASL{Mechanism: "PLAIN"}},
		"no such file":                  {TLS: &TLS{CAFile: filepath.Join(t.TempDir(), "none")}},
		"both its file and its key's":   {TLS: &TLS{CertFile: "c.pem"}},
		"has no certificate":            {TLS: &TLS{CAFile: os.DevNull}},
		"client certificate: open none": {TLS: &TLS{CertFile: "none", KeyFile: "none"}},
	} {
		conf.Brokers = []string{"127.0.0.1:1"}
		if _, err := Options(conf); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
	if _, err := compression("lzma"); err == nil {
		t.Error("compression lzma was taken")
	}
}

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

// The transaction that keeps a partition undecided is named.
func TestHangingNamesTheTransaction(t *testing.T) {
	onBrokers(t, 1, func(t *testing.T, e *env) {
		e.publish(0, "a")
		open := e.producer("-hangs")
		defer open.Close()
		e.begin(open, 0, "undecided")
		s := e.asSession(e.input)
		text := s.Hanging(t.Context(), e.input, 0)
		for _, want := range []string{e.group + "-hangs", "offset 1", "Ongoing"} {
			if !strings.Contains(text, want) {
				t.Errorf("got %q, want %q in it", text, want)
			}
		}
		if err := open.EndTransaction(t.Context(), kgo.TryAbort); err != nil {
			t.Fatal(err)
		}
		eventually(t, "nothing hangs", func() bool {
			return strings.Contains(s.Hanging(t.Context(), e.input, 0), "no producer has an open transaction")
		})
	})
}

// What is to become of a transaction that hangs goes by its state and epoch, and, where those
// say nothing of its records any more, by what is committed.
func TestHangVerdicts(t *testing.T) {
	for _, c := range []struct {
		state string
		v2    bool
		epoch int16 // that of the records is 7
		want  Verdict
		left  bool // footfall writes its marker by itself
	}{
		{"CompleteCommit", false, 7, Commits, false},
		{"CompleteCommit", true, 8, Commits, true},
		{"PrepareCommit", true, 8, Waits, false},
		{"Ongoing", true, 7, Waits, false},
		{"PrepareAbort", true, 8, Waits, false},
		{"CompleteAbort", true, 8, Aborts, true},
		{"CompleteAbort", false, 7, Aborts, false},
		{"CompleteCommit", true, 7, Aborts, false}, // it is the one before
		{"Empty", true, 7, Aborts, false},
		{"CompleteCommit", true, 46, ByNumber, false},
		{"CompleteAbort", true, 46, ByNumber, false},
		{"Empty", true, 8, ByNumber, false},
		{"Empty", true, 9, ByNumber, false},
		{"Empty", false, 8, ByNumber, false},
	} {
		h := &Hang{ID: "x", State: c.state, IDEpoch: c.epoch, Epoch: 7, v2: c.v2}
		if got, why := h.Verdict(); got != c.want || why == "" || h.leftOut() != c.left {
			t.Errorf("%s at epoch %d, v2 %v: got %s (%s), left out %v, want %s, %v", c.state, c.epoch, c.v2, got, why, h.leftOut(), c.want, c.left)
		}
	}
	for away, want := range map[string]Verdict{"": ByNumber, "one has no leader": Waits} {
		h := Hang{v2: true, away: away}
		if got, why := h.Verdict(); got != want || !strings.Contains(why, away) || h.Fenced() != (want == ByNumber) {
			t.Errorf("of which no coordinator knows, and %q: got %s (%s), want %s", away, got, why, want)
		}
	}
}

// A group's partition of __consumer_offsets is found as the broker finds it: Java's
// hash, of UTF-16, without its sign.
func TestGroupPartition(t *testing.T) {
	for group, want := range map[string]int32{"": 0, "footfall": 23, "lifecycle": 12, "polygenelubricants": 0} { // positive, negative, the least
		if got := GroupPartition(group, 50); got != want {
			t.Errorf("%q: got partition %d of 50, want %d", group, got, want)
		}
	}
	for s, want := range map[string]int32{"": 0, "a": 97, "footfall": 394788073, "h\u00e9\U0001F600": 5095076} {
		if got := javaHash(s); got != want {
			t.Errorf("%q: got %d, want %d", s, got, want)
		}
	}
}

// Batches keep Lost, Revoked, Assigned in this order and name a partition once.
func TestChangesKeepTheirOrder(t *testing.T) {
	o := newOwnership()
	o.assigned(membership{"m", 1}, []int32{0, 1})
	o.lost(membership{"m", 1}, []int32{0})
	o.assigned(membership{"m", 2}, []int32{0, 2})
	o.assigned(membership{"m", 3}, []int32{1}) // again, without having been taken
	want := []pipeline.Batch{
		{Assigned: []pipeline.Assignment{{Partition: 0, Epoch: 1}, {Partition: 1, Epoch: 2}}},
		{Lost: []int32{0}},
		{Assigned: []pipeline.Assignment{{Partition: 0, Epoch: 3}, {Partition: 2, Epoch: 4}}},
		{Lost: []int32{1}},
		{Assigned: []pipeline.Assignment{{Partition: 1, Epoch: 5}}},
		{},
	}
	var got []pipeline.Batch
	for range want {
		var b pipeline.Batch
		o.poll(&b, nil)
		got = append(got, b)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("batches (-want +got):\n%s", diff)
	}
}

// A start comes from the ownership that Poll has told. One that was given meanwhile is
// not read before it has been recovered.
func TestStartOfAnOwnershipThatIsOver(t *testing.T) {
	o := newOwnership()
	as := membership{"m", 1}
	poll := func() (b pipeline.Batch, starts []start) {
		starts, _ = o.poll(&b, func() {})
		return b, starts
	}
	o.assigned(as, []int32{0})
	first, _ := poll()
	o.lost(as, []int32{0})
	o.assigned(membership{"m", 2}, []int32{0})
	o.start(0, 5)
	if b, starts := poll(); len(b.Lost) != 1 || len(starts) != 0 {
		t.Errorf("got %+v, starts %+v, want the loss and no start", b, starts)
	}
	b, starts := poll()
	if len(b.Assigned) != 1 || b.Assigned[0].Epoch <= first.Assigned[0].Epoch || len(starts) != 0 || len(o.startedPartitions()) != 0 {
		t.Errorf("got %+v, starts %+v, want the new assignment and no start", b, starts)
	}
	o.start(0, 7)
	if _, starts := poll(); len(starts) != 1 || starts[0].offset != 7 || starts[0].epoch != b.Assigned[0].Epoch {
		t.Errorf("got starts %+v, want one at 7 under the new epoch", starts)
	}
}

// However little a reader takes at once, what was aborted is not read as committed.
func TestLocalTellsOfAborts(t *testing.T) {
	broker, err := StartLocal(LocalConfig{Options: []kfake.Opt{kfake.SeedTopics(1, "out")}})
	if err != nil {
		t.Fatal(err)
	}
	defer broker.Close()
	writer, err := kgo.NewClient(kgo.SeedBrokers(broker.Addr()), kgo.TransactionalID("a"), kgo.DefaultProduceTopic("out"))
	if err != nil {
		t.Fatal(err)
	}
	defer writer.Close()
	for i, commit := range []kgo.TransactionEndTry{kgo.TryCommit, kgo.TryAbort, kgo.TryAbort, kgo.TryCommit} {
		if err := writer.BeginTransaction(); err != nil {
			t.Fatal(err)
		}
		for range 3 { // batches
			if err := writer.ProduceSync(t.Context(), kgo.StringRecord(strconv.Itoa(i))).FirstErr(); err != nil {
				t.Fatal(err)
			}
		}
		if err := writer.EndTransaction(t.Context(), commit); err != nil {
			t.Fatal(err)
		}
	}
	reader, err := kgo.NewClient(kgo.SeedBrokers(broker.Addr()), kgo.ConsumeTopics("out"), kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.FetchMaxBytes(1), kgo.FetchMaxPartitionBytes(1))
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	var got []string
	for len(got) < 6 {
		fetches := reader.PollFetches(t.Context())
		if err := fetches.Err(); err != nil {
			t.Fatal(err)
		}
		fetches.EachRecord(func(r *kgo.Record) { got = append(got, string(r.Value)) })
	}
	if want := []string{"0", "0", "0", "3", "3", "3"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}
