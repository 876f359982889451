package clickhouse

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"footfall/schemas"
	"footfall/sinks/clickhouse/chdbtest"
)

// count is how many rows of events there are, and how many different ones.
func count(t testing.TB, dsn string) (rows, positions int) {
	t.Helper()
	got := strings.Split(chdbtest.Exec(t, dsn, "SELECT count(), uniqExact(_topic, _partition, _offset) FROM events"), "\t")
	rows, _ = strconv.Atoi(got[0])
	positions, _ = strconv.Atoi(got[1])
	return rows, positions
}

// The engine is killed in the middle of inserts, again and again, and so is the
// archive: in the end every record has its row.
func TestKillsOfTheEngine(t *testing.T) {
	const kills = 10
	k := startKafka(t)
	dir := t.TempDir()
	engine := chdbtest.StartIn(t, dir, "")
	db := openAt(t, engine.DSN("shop"))
	if err := db.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	a, stop := k.archive(db, nil)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan struct{})
	go func() { // a storefront that does not know of any of it
		defer close(done)
		for i := 0; ctx.Err() == nil; i++ {
			var batch []*kgo.Record
			for j := range 200 {
				r := event(10+i*200+j, `,"type":"view"`)
				r.Timestamp = at(740 + i%8) // two months: two blocks, now and then
				batch = append(batch, r)
			}
			_ = k.client.ProduceSync(ctx, batch...)
			time.Sleep(50 * time.Millisecond)
		}
	}()
	random := rand.New(rand.NewPCG(1, 2))
	for i := range kills {
		before := a.Stats().Batches.Load()
		k.eventually("a batch", func() bool { return a.Stats().Batches.Load() > before })
		time.Sleep(time.Duration(random.IntN(200)) * time.Millisecond) // anywhere in a batch
		addr := engine.Addr()
		if err := engine.Kill(); err != nil {
			t.Fatal(err)
		}
		if i%2 == 1 { // and the archive with it: it forgets, as if killed
			stop()
		}
		engine = chdbtest.StartIn(t, dir, addr)
		if i%2 == 1 {
			a, stop = k.archive(db, nil)
		}
	}
	cancel()
	<-done
	k.drain(a)
	audited(t, k, a)
	stop()
	records := int(ends(t, k, "in"))
	rows, positions := count(t, engine.DSN("shop"))
	t.Logf("%d records, %d rows, %d positions after %d kills; %d inserts in doubt, %d partitions taken over in doubt, %d times missing rows sent",
		records, rows, positions, kills, k.times("insert failed"), k.times("taken over"), k.times("sent"))
	if positions != records {
		t.Errorf("positions in the table: got %d, want %d\n%s", positions, records, k.reported())
	}
	expect(t, engine.DSN("shop"), "SELECT count() FROM events_accepted", fmt.Sprint(records))
}

// audited waits until the audit has been round without finding anything.
func audited(t testing.TB, k *kafka, a *Archive) {
	t.Helper()
	wrong, spans := a.Stats().Wrong.Load(), a.Stats().Audited.Load()
	k.eventually("a round of the audit", func() bool {
		if w := a.Stats().Wrong.Load(); w != wrong {
			wrong, spans = w, a.Stats().Audited.Load()
		}
		return a.Stats().Audited.Load() >= spans+1
	})
}

// ends is the sum of a topic's end offsets.
func ends(t testing.TB, k *kafka, topic string) (sum int64) {
	t.Helper()
	listed, err := kadm.NewClient(k.client).ListEndOffsets(t.Context(), topic)
	if err != nil {
		t.Fatal(err)
	}
	listed.Each(func(o kadm.ListedOffset) { sum += o.Offset })
	return sum
}

// proxy stands before an engine and does to inserts what networks do.
type proxy struct {
	*httptest.Server
	fault atomic.Pointer[func(w http.ResponseWriter, r *http.Request, forward http.Handler) (done bool)]
}

func newProxy(t testing.TB, dsn string) *proxy {
	t.Helper()
	target, err := url.Parse(dsn)
	if err != nil {
		t.Fatal(err)
	}
	target.Path = ""
	forward := httputil.NewSingleHostReverseProxy(target)
	p := &proxy{}
	p.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if f := p.fault.Load(); f != nil && strings.HasPrefix(r.URL.Query().Get("query"), "INSERT INTO events") {
			if (*f)(w, r, forward) {
				return
			}
		}
		forward.ServeHTTP(w, r)
	}))
	t.Cleanup(p.Close)
	return p
}

// An insert whose outcome is not known is read back: what the table has is not
// sent again, what it lacks is.
func TestDoubtIsReadBack(t *testing.T) { protocols(t, doubtIsReadBack) }

func doubtIsReadBack(t *testing.T, over func(dsn string) string) {
	for name, broken := range map[string]func(n int64, w http.ResponseWriter, r *http.Request, forward http.Handler) (done bool){
		"applied, answer lost": func(_ int64, _ http.ResponseWriter, r *http.Request, forward http.Handler) bool {
			forward.ServeHTTP(httptest.NewRecorder(), r)
			panic(http.ErrAbortHandler)
		},
		"not applied, connection lost": func(_ int64, _ http.ResponseWriter, r *http.Request, _ http.Handler) bool {
			_, _ = io.Copy(io.Discard, r.Body)
			panic(http.ErrAbortHandler)
		},
		"not applied, and said to be": func(_ int64, _ http.ResponseWriter, r *http.Request, _ http.Handler) bool {
			_, _ = io.Copy(io.Discard, r.Body)
			return true // 200
		},
		"one block of two": func(n int64, w http.ResponseWriter, r *http.Request, _ http.Handler) bool {
			if n == 1 {
				return false
			}
			_, _ = io.Copy(io.Discard, r.Body)
			http.Error(w, "Code: 252. DB::Exception: Too many parts", http.StatusInternalServerError)
			return true
		},
	} {
		t.Run(name, func(t *testing.T) {
			db, dsn := open(t)
			p := newProxy(t, dsn)
			through := openAt(t, over(p.URL+"/"+db.Database()))
			k := startKafka(t)
			for i := range 300 { // the end of January and the beginning of February
				k.produce(event(600+i, `,"type":"view"`))
			}
			var n atomic.Int64
			fault := func(w http.ResponseWriter, r *http.Request, forward http.Handler) bool {
				if n.Add(1) > 2 {
					return false
				}
				return broken(n.Load(), w, r, forward)
			}
			p.fault.Store(&fault)
			a, stop := k.archive(through, nil)
			k.drain(a)
			audited(t, k, a)
			stop()
			if rows, positions := count(t, dsn); rows != 300 || positions != 300 {
				t.Errorf("got %d rows of %d positions, want 300 of 300\n%s", rows, positions, k.reported())
			}
		})
	}
}

// Killed between the insert and the commit: the next one finds the span written
// down, and the rows in the table.
func TestKilledBeforeCommit(t *testing.T) {
	db, dsn := open(t)
	k := startKafka(t)
	for i := range 100 {
		k.produce(event(10+i, `,"type":"view"`))
	}
	ctx, cancel := context.WithCancel(t.Context())
	p := newProxy(t, dsn)
	fault := func(w http.ResponseWriter, r *http.Request, forward http.Handler) bool {
		forward.ServeHTTP(w, r)
		cancel() // here it dies
		return true
	}
	p.fault.Store(&fault)
	dying, err := NewArchive(ArchiveConfig{
		DB: openAt(t, p.URL+"/"+db.Database()), Client: k.opts, Group: "shop", Inputs: []InputTopic{{Name: "in"}}, Triggers: "triggers", Muted: "muted", Dead: "dead",
		Contract: schemas.Contract{Currency: "EUR"}, AgeMax: 10 * time.Millisecond,
	})
	if err != nil {
		t.Fatal(err)
	}
	// Without the time that Run has to send what is in the making.
	if err := dying.inner.Run(ctx, ctx); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	dying.log.Close()
	if rows, _ := count(t, dsn); rows == 0 {
		t.Fatal("it died too early for this test")
	}
	a, stop := k.archive(db, nil)
	k.drain(a)
	stop()
	if rows, positions := count(t, dsn); rows != 100 || positions != 100 {
		t.Errorf("got %d rows of %d positions, want 100 of 100\n%s", rows, positions, k.reported())
	}
	if !strings.Contains(k.reported(), "may be in the table") {
		t.Errorf("no partition was taken over with a doubt:\n%s", k.reported())
	}
}

// ClickHouse away for a while: the archive waits, says so, and goes on.
func TestWaitsForClickHouse(t *testing.T) { protocols(t, waitsForClickHouse) }

func waitsForClickHouse(t *testing.T, over func(dsn string) string) {
	dir := t.TempDir()
	engine := chdbtest.StartIn(t, dir, "")
	db := openAt(t, over(engine.DSN("shop")))
	if err := db.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	k := startKafka(t)
	a, _ := k.archive(db, nil)
	k.produce(event(1, `,"type":"view"`))
	k.drain(a)
	addr := engine.Addr()
	if err := engine.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	k.produce(event(2, `,"type":"view"`))
	k.eventually("it to say that it waits", func() bool { return a.Stats().Retries.Load() > 1 })
	again := chdbtest.StartIn(t, dir, addr)
	k.drain(a)
	expect(t, again.DSN("shop"), "SELECT count() FROM events", "2")
}

// Rows that vanish later are found by the audit, and sent again.
func TestAuditMends(t *testing.T) { protocols(t, auditMends) }

func auditMends(t *testing.T, over func(dsn string) string) {
	_, dsn := open(t)
	db := openAt(t, over(dsn))
	k := startKafka(t)
	for i := range 500 {
		k.produce(event(10+i, `,"type":"view"`))
	}
	a, _ := k.archive(db, nil)
	k.drain(a)
	audited(t, k, a)
	chdbtest.Exec(t, dsn, "ALTER TABLE events DELETE WHERE _offset % 7 = 3 SETTINGS mutations_sync = 2")
	k.produce(event(900, `,"type":"view"`)) // the span grows, so it is looked at
	for i := range 7 {
		k.produce(event(901+i, `,"type":"view"`))
	}
	k.eventually("the audit to mend", func() bool { return a.Stats().Wrong.Load() > 0 })
	k.drain(a)
	audited(t, k, a)
	if rows, positions := count(t, dsn); rows != 508 || positions != 508 {
		t.Errorf("got %d rows of %d positions, want 508 of 508\n%s", rows, positions, k.reported())
	}
}

// forget deletes the group of an archive that has stopped, with its commits.
func (k *kafka) forget(a *Archive) {
	k.t.Helper()
	admin := kadm.NewClient(k.client)
	k.eventually("the group to go", func() bool {
		_, err := admin.DeleteGroup(k.t.Context(), a.Group())
		return err == nil
	})
}

// The group's commits are gone, the rows are not: they are read back, not sent again.
func TestCommitsExpired(t *testing.T) {
	db, dsn := open(t)
	k := startKafka(t)
	for i := range 300 {
		k.produce(event(10+i, `,"type":"view"`))
	}
	a, stop := k.archive(db, nil)
	k.drain(a)
	stop()
	k.forget(a)
	b, stop := k.archive(db, nil)
	k.drain(b)
	stop()
	if rows, positions := count(t, dsn); rows != 300 || positions != 300 {
		t.Errorf("got %d rows of %d positions, want 300 of 300\n%s", rows, positions, k.reported())
	}
}

// A part that the engine cannot read any more, as a full disk may leave one: the archive
// says which and what to do, and when that is done its rows are sent again.
func TestBrokenPart(t *testing.T) { protocols(t, brokenPartIsNamed) }

func brokenPartIsNamed(t *testing.T, over func(dsn string) string) {
	own := chdbtest.Start(t).DSN("shop")
	db := openAt(t, over(own))
	if err := db.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	k := startKafka(t)
	for i := range 300 {
		k.produce(event(10+i, `,"type":"view"`))
	}
	a, stop := k.archive(db, nil)
	k.drain(a)
	stop()
	k.forget(a) // so that all rows are in doubt
	part := chdbtest.Exec(t, own, "SELECT path FROM system.parts WHERE database = 'shop' AND table = 'events' AND active ORDER BY rows DESC LIMIT 1")
	marks, err := filepath.Glob(filepath.Join(part, "*.cmrk*"))
	if err != nil || len(marks) == 0 {
		t.Fatalf("%s: got %v (%v), want marks", part, marks, err)
	}
	for _, f := range marks {
		if err := os.Truncate(f, 0); err != nil {
			t.Fatal(err)
		}
	}
	chdbtest.Exec(t, own, "SYSTEM DROP MARK CACHE")
	b, stop := k.archive(db, nil)
	k.eventually("it to say what to do", func() bool { return k.times("DETACH PART") > 1 })
	detach := "ALTER TABLE shop.events DETACH PART '" + filepath.Base(part) + "'"
	if k.times(detach) == 0 {
		t.Fatalf("want %q in\n%s", detach, k.reported())
	}
	chdbtest.Exec(t, own, detach)
	k.drain(b)
	stop()
	if rows, positions := count(t, own); rows != 300 || positions != 300 {
		t.Errorf("got %d rows of %d positions, want 300 of 300\n%s", rows, positions, k.reported())
	}
}

// Records deleted before they were archived: an error that says what to do.
func TestOffsetOutOfRange(t *testing.T) {
	db, _ := open(t)
	k := startKafka(t)
	for i := range 100 {
		k.produce(event(7*i, `,"type":"view"`)) // all in partition 0
	}
	a, stop := k.archive(db, nil)
	k.drain(a)
	stop()
	for i := range 100 {
		k.produce(event(7*i, `,"type":"view"`))
	}
	admin := kadm.NewClient(k.client)
	var before kadm.Offsets
	before.Add(kadm.Offset{Topic: "in", Partition: 0, At: 150})
	if _, err := admin.DeleteRecords(t.Context(), before); err != nil {
		t.Fatal(err)
	}
	b, err := NewArchive(ArchiveConfig{
		DB: db, Client: k.opts, Group: "shop", Inputs: []InputTopic{{Name: "in"}}, Triggers: "triggers", Muted: "muted", Dead: "dead", Contract: schemas.Contract{Currency: "EUR"},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	err = b.Run(ctx)
	if err == nil || !strings.Contains(err.Error(), "in/0") || !strings.Contains(err.Error(), "to go on without them") {
		t.Errorf("got %v, want an error that names the partition and what to do", err)
	}
}

// Two members share the partitions, one leaves: every record has its row.
func TestTwoMembers(t *testing.T) {
	db, dsn := open(t)
	k := startKafka(t)
	a, _ := k.archive(db, nil)
	put := func(from int) {
		for i := range 200 {
			k.produce(event(from+i, `,"type":"view"`))
		}
	}
	put(10)
	b, leave := k.archive(db, nil)
	put(300)
	k.eventually("both to have partitions", func() bool {
		return a.Stats().Partitions.Load() > 0 && b.Stats().Partitions.Load() > 0
	})
	put(600)
	leave()
	put(900)
	k.drain(a)
	expect(t, dsn, "SELECT uniqExact(_topic, _partition, _offset) FROM events", "800")
	expect(t, dsn, "SELECT count() FROM events_accepted", "800")
}

// A commit that fails is tried again; one whose answer is lost, too.
func TestCommitsFail(t *testing.T) {
	db, dsn := open(t)
	k := startKafka(t)
	for i := range 50 {
		k.produce(event(10+i, `,"type":"view"`))
	}
	k.cluster.ControlKey(kmsg.OffsetCommit.Int16(), func(kmsg.Request) (kmsg.Response, error, bool) {
		return nil, errors.New("connection lost"), true
	})
	a, _ := k.archive(db, nil)
	k.drain(a)
	expect(t, dsn, "SELECT count() FROM events", "50")
}

// Handed over while inserts are under way, again and again: nothing is sent by both,
// because who lets a partition go has sent and committed what it had of it.
func TestHandedOverOnce(t *testing.T) {
	db, dsn := open(t)
	k := startKafka(t)
	p := newProxy(t, dsn)
	slow := func(w http.ResponseWriter, r *http.Request, forward http.Handler) bool {
		time.Sleep(100 * time.Millisecond) // an insert takes its time, so that changes fall into it
		return false
	}
	p.fault.Store(&slow)
	through := openAt(t, p.URL+"/"+db.Database())
	a, stop := k.archive(through, nil)
	done, produced := make(chan struct{}), make(chan int)
	go func() {
		for n := 0; ; n++ {
			select {
			case <-done:
				produced <- n
				return
			default:
				k.produce(event(10+n%500, `,"type":"view"`))
			}
		}
	}()
	for range 3 {
		b, stopB := k.archive(through, nil)
		k.eventually("the new member to have partitions", func() bool { return b.Stats().Partitions.Load() > 0 })
		stop()
		k.eventually("the new member to have all partitions", func() bool { return b.Stats().Partitions.Load() == 4*partitions })
		a, stop = b, stopB
	}
	close(done)
	want := <-produced
	k.drain(a)
	stop()
	if rows, positions := count(t, dsn); rows != want || positions != want {
		t.Errorf("got %d rows of %d positions, want %d of as many\n%s", rows, positions, want, k.reported())
	}
}
