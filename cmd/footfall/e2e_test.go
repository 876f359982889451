package main

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"footfall/pipeline/oracle"
	"footfall/schemas"
	"footfall/sinks/clickhouse"
	"footfall/sources/storefront"
)

// The end-to-end tests run footfall as processes, as a user does, against a broker
// and the real ClickHouse engine, kill them, and have the oracle judge what is in
// the topics and in ClickHouse. TestEndToEnd... run on the broker in this process;
// TestRealKafka... are the same on the broker that FOOTFALL_TEST_KAFKA names.

func TestEndToEndKilled(t *testing.T)  { killed(t, localKafka(t), 6) }
func TestRealKafkaKilled(t *testing.T) { killed(t, realKafka(t), 10) }

// killed lives through a year of a simulated shop in log time, with footfall killed
// (SIGKILL) again and again at random moments.
func killed(t *testing.T, broker string, kills int) {
	h := newHouse(t, broker, schemas.Replay, "clock.max_age=3650d")
	instance := h.start()
	h.ready()
	var publishing sync.WaitGroup
	publishing.Go(func() { h.publishShop(60_000 / raceSlower) })
	random := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 1)) //nolint:gosec // any moment will do
	for range kills {
		time.Sleep(time.Duration(200+random.IntN(1500)) * time.Millisecond)
		instance.kill()
		instance = h.start()
	}
	publishing.Wait()
	h.applied()
	h.archived()
	h.stop(instance)
	report, _ := h.judge(false)
	if raceSlower == 1 && (report.Triggers == 0 || report.DeadLetters == 0 || report.Segments["lost"] == 0) {
		t.Errorf("got %+v: the shop has not lived long enough for this to prove anything", report)
	}
	t.Logf("%d kills; %d applied, %d duplicates, %d dead letters, %d triggers, %d muted, segments %v",
		kills, report.Applied, report.Duplicates, report.DeadLetters, report.Triggers, report.Muted, report.Segments)
}

func TestEndToEndScaled(t *testing.T)  { scaled(t, localKafka(t)) }
func TestRealKafkaScaled(t *testing.T) { scaled(t, realKafka(t)) }

// scaled has instances come and go while a shop is published: partitions are handed
// over, and taken over from the dead.
func scaled(t *testing.T, broker string) {
	h := newHouse(t, broker, schemas.Replay, "clock.max_age=3650d")
	one := h.start()
	h.ready()
	var publishing sync.WaitGroup
	publishing.Go(func() { h.publishShop(40_000 / raceSlower) })
	time.Sleep(2 * time.Second)
	two := h.start("--set", "kafka.instance=two")
	time.Sleep(3 * time.Second)
	three := h.start("--set", "kafka.instance=three")
	time.Sleep(3 * time.Second)
	h.stop(one)
	time.Sleep(time.Second)
	two.kill()
	publishing.Wait()
	h.applied()
	h.archived()
	h.stop(three)
	report, _ := h.judge(false)
	t.Logf("%d applied, %d triggers, segments %v", report.Applied, report.Triggers, report.Segments)
}

func TestEndToEndSilence(t *testing.T)  { silence(t, localKafka(t)) }
func TestRealKafkaSilence(t *testing.T) { silence(t, realKafka(t)) }

// silence has shoppers move by the wall's time alone: orders 30 days old but for
// some seconds, and a kill before and after those are over.
func silence(t *testing.T, broker string) {
	h := newHouse(t, broker, schemas.Live)
	instance := h.start()
	h.ready()
	ctx := t.Context()
	pub, err := h.conf.publisher(ctx, storefront.PublisherConfig{})
	if err != nil {
		t.Fatal(err)
	}
	const users = 200
	for i := range users {
		at := wall() - 30*schemas.Day + 4*schemas.Second + schemas.Millis(i*20)
		value := fmt.Sprintf(`{"event_id":"e%d","type":"purchase","user_id":"u%d","order_id":"o%d","time":%d,"revenue":12.5}`, i, i, i, at)
		if err := pub.Publish(ctx, storefront.Record{Key: fmt.Appendf(nil, "u%d", i), Value: []byte(value)}); err != nil {
			t.Fatal(err)
		}
	}
	if err := pub.Close(); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		time.Sleep(2 * time.Second)
		instance.kill()
		instance = h.start()
	}
	h.until("all shoppers are cooling", func() bool {
		report, err := h.peek()
		return err == nil && report.Segments["cooling"] == users
	})
	h.archived()
	h.stop(instance)
	report, _ := h.judge(true)
	if report.Triggers != 2*users || report.Muted != 0 {
		t.Errorf("got %d triggers and %d muted, want %d (new, and then cooling) and 0", report.Triggers, report.Muted, 2*users)
	}
}

// dataSet is a recorded file and the numbers published for it.
type dataSet struct {
	file, mapping, currency string
	events                  map[string]uint64 // by type, in ClickHouse
	users                   int
	buyers                  uint64
	revenue                 string // of purchases, in ClickHouse
}

func dataSets() []dataSet {
	return []dataSet{
		{"rees46-2019-10-01-sample/events.csv.gz", "rees46", "USD", map[string]uint64{"view": 17055, "add_to_cart": 165, "purchase": 214}, 4504, 193, "59442.63"},
		{"cdnow/CDNOW_master.txt.gz", "cdnow", "USD", map[string]uint64{"purchase": 69659}, 23570, 23570, "2500315.63"},
		// Users: all customers but one whose only rows are without a price.
		{"online-retail-uci/online_retail.csv.gz", "online-retail", "GBP", map[string]uint64{"purchase": 18532, "refund": 3654}, 4371, 4338, "8911407.9"},
	}
}

func (s *dataSet) path(t *testing.T) string {
	dir := os.Getenv("FOOTFALL_TEST_DATA")
	if dir == "" {
		dir = filepath.Join("..", "..", "..", "shared", "data")
	}
	path := filepath.Join(dir, s.file)
	if _, err := os.Stat(path); err != nil {
		t.Skipf("real data is not here (set FOOTFALL_TEST_DATA): %v", err)
	}
	return path
}

// TestRealKafkaDataSets publishes every data set into a real Kafka and compares
// what footfall makes of it with the oracle and with the published numbers.
func TestRealKafkaDataSets(t *testing.T) {
	broker := realKafka(t)
	for _, s := range dataSets() {
		t.Run(s.mapping, func(t *testing.T) {
			path := s.path(t)
			h := newHouse(t, broker, schemas.Replay, "clock.max_age=3650d", "shop.currency="+s.currency)
			instance := h.start()
			h.ready()
			h.run("publish", path, "--mapping", s.mapping, "--lane", "replay")
			h.applied()
			h.archived()
			h.stop(instance)
			report, counts := h.judge(false)
			t.Logf("%d applied, %d triggers, %d muted, %d users %v; ClickHouse %v",
				report.Applied, report.Triggers, report.Muted, report.Users, report.Segments, counts.ClickHouse)
			h.compare(s, report)
		})
	}
}

// compare holds ClickHouse against the numbers published for a data set.
func (h *house) compare(s dataSet, report *oracle.Report) {
	h.t.Helper()
	if s.users > 0 && report.Users != s.users {
		h.t.Errorf("got %d users, want %d", report.Users, s.users)
	}
	db, err := clickhouse.Open(h.conf.clickhouseDSN())
	if err != nil {
		h.t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	rows, err := db.Query(h.t.Context(), "SELECT type, count() FROM events_once GROUP BY type")
	if err != nil {
		h.t.Fatal(err)
	}
	got := map[string]uint64{}
	for rows.Next() {
		var kind string
		var n uint64
		if err := rows.Scan(&kind, &n); err != nil {
			h.t.Fatal(err)
		}
		got[kind] = n
	}
	if err := rows.Err(); err != nil {
		h.t.Fatal(err)
	}
	if diff := cmp.Diff(s.events, got); diff != "" {
		h.t.Errorf("events by type in ClickHouse (-want +got):\n%s", diff)
	}
	var revenue string
	var buyers uint64
	err = db.QueryRow(h.t.Context(), "SELECT toString(toDecimal64(sum(amount), 2)), uniqExact(user_id) FROM events_once WHERE type = 'purchase'").Scan(&revenue, &buyers)
	if err != nil || revenue != s.revenue || buyers != s.buyers {
		h.t.Errorf("got revenue %s of %d buyers (%v), want %s of %d", revenue, buyers, err, s.revenue, s.buyers)
	}
	if s.mapping != "rees46" {
		return
	}
	var stages []uint64
	err = db.QueryRow(h.t.Context(), "SELECT groupArray(users) FROM (SELECT users FROM funnel(from = '2019-10-01', to = '2019-10-02', window = 86400) ORDER BY step)").Scan(&stages)
	if err != nil {
		h.t.Fatal(err)
	}
	if diff := cmp.Diff([]uint64{4504, 111, 193}, stages); diff != "" {
		h.t.Errorf("users who viewed, put into a cart, bought (-want +got):\n%s", diff)
	}
}

// TestEndToEndHTTP asks a running instance for what operators ask for.
func TestEndToEndHTTP(t *testing.T) {
	h := newHouse(t, localKafka(t), schemas.Live, "http.listen=127.0.0.1:"+freePort(t))
	instance := h.start()
	h.ready()
	base := "http://" + h.conf.HTTP.Listen
	h.until("ready", func() bool {
		res, err := http.Get(base + "/readyz")
		if err != nil {
			return false
		}
		_ = res.Body.Close()
		return res.StatusCode == http.StatusOK
	})
	h.run("simulate", "--count", "500", "--no-faults", "--lane", "backfill", "--ago", "30d")
	h.until("the metrics count what was published", func() bool {
		return strings.Contains(h.run("status"), "live") && h.lags()[0] == 0
	})
	h.archived() // the archive's metrics are there once it has begun
	for path, want := range map[string]string{
		"/healthz": "ok", "/metrics": "footfall_events_applied_total", "/metrics?name": "footfall_archive_audit_age_seconds ",
		"/status": `"state":"running"`, "/status?archive": `"audit":{"spans":`,
	} {
		res, err := http.Get(base + path)
		if err != nil {
			t.Fatal(err)
		}
		var body bytes.Buffer
		_, err = body.ReadFrom(res.Body)
		_ = res.Body.Close()
		if err != nil || res.StatusCode != http.StatusOK || !strings.Contains(body.String(), want) {
			t.Errorf("%s: got %d %v without %q:\n%s", path, res.StatusCode, err, want, body.String())
		}
		if user := regexp.MustCompile(`u\d{7}`).FindString(body.String()); user != "" { // explain alone tells of one
			t.Errorf("%s tells of user %s:\n%s", path, user, body.String())
		}
	}
	h.stop(instance)
}
