package clickhouse

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"footfall/pipeline/archive"
	"footfall/schemas"
	"footfall/sinks/clickhouse/chdbtest"
)

// audit returns an audit of the test's topics.
func (k *kafka) audit(db *DB, change func(*ArchiveConfig)) *Audit {
	k.t.Helper()
	c := ArchiveConfig{
		DB: db, Client: k.opts, Group: "shop", Inputs: []InputTopic{{Name: "in"}}, Triggers: "triggers", Muted: "muted", Dead: "dead",
		Contract: schemas.Contract{Currency: "EUR", Rates: map[string]string{"USD": "0.5"}},
	}
	if change != nil {
		change(&c)
	}
	a, err := NewAudit(c)
	if err != nil {
		k.t.Fatal(err)
	}
	k.t.Cleanup(a.Close)
	return a
}

// compare compares everything and returns what was found, added up.
func compare(t *testing.T, a *Audit, o AuditOptions, sel AuditSelection) (sum archive.Compared, plan *AuditPlan) {
	t.Helper()
	plan, err := a.Plan(t.Context(), sel)
	if err != nil {
		t.Fatal(err)
	}
	found, err := a.Compare(t.Context(), plan, o)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range found {
		sum.Records += c.Records
		sum.Rows += c.Rows
		sum.Missing += c.Missing
		sum.Mended += c.Mended
		sum.Unmended += c.Unmended
		sum.Doubled += c.Doubled
		sum.Different += c.Different
		sum.Foreign += c.Foreign
		sum.Copies += c.Copies
		sum.Refused += c.Refused
		sum.Taken += c.Taken
		sum.Beyond += c.Beyond
		sum.Behind += c.Behind
		sum.Findings = append(sum.Findings, c.Findings...)
	}
	return sum, plan
}

// hostileText is a text with what a columns' text might trip over.
func hostileText(r *rand.Rand) string {
	parts := []string{"", "a", "\\x01", `\\\\`, `'`, "\\t", "é", "😀", "\\u0001\\u0002", "NULL", "\\N"}
	text := ""
	for range r.IntN(4) {
		text += parts[r.IntN(len(parts))]
	}
	return strings.ReplaceAll(strings.ReplaceAll(text, "\\x01", `\u0001`), `\N`, `\\N`)
}

// variedEvent is an event with any of the contract's fields.
func variedEvent(r *rand.Rand, i int) *kgo.Record {
	fields := fmt.Sprintf(`,"type":"%s"`, []string{"view", "add_to_cart", "search"}[r.IntN(3)])
	if r.IntN(2) == 0 {
		fields = fmt.Sprintf(`,"type":"%s","order_id":"o%d","revenue":%d.%06d,"currency":"%s"`,
			[]string{"purchase", "refund"}[r.IntN(2)], i, r.IntN(1e6), r.IntN(1e6), []string{"EUR", "USD"}[r.IntN(2)])
	}
	for _, name := range []string{"session_id", "product_id", "category", "brand", "cart_id", "channel", "campaign", "url", "timezone", "birthday"} {
		if r.IntN(2) == 0 {
			fields += fmt.Sprintf(`,"%s":"x%s"`, name, hostileText(r))
		}
	}
	for _, name := range []string{"price", "quantity"} {
		if r.IntN(2) == 0 {
			fields += fmt.Sprintf(`,"%s":%d.%d`, name, r.IntN(1e9), r.IntN(1e6))
		}
	}
	if r.IntN(3) == 0 {
		fields += fmt.Sprintf(`,"properties":{"k":"%s"},"extra_%d":[1,null,"%s"]`, hostileText(r), i, hostileText(r))
	}
	return event(i, fields)
}

// Go and SQL come to the same text of a row, whatever is in its columns.
func TestContentsAreTheSame(t *testing.T) {
	db, dsn := open(t)
	k := startKafka(t)
	r := rand.New(rand.NewPCG(4, 2))
	var batch []*kgo.Record
	for i := range 3000 {
		rec := variedEvent(r, i)
		if r.IntN(5) == 0 {
			rec.Headers = []kgo.RecordHeader{{Key: "lane", Value: []byte("backfill")}}
		}
		if i%100 == 0 { // beyond what a DateTime64 can be
			rec.Timestamp = time.Date(3000, 1, 1, 0, 0, 0, 0, time.UTC)
		}
		batch = append(batch, rec)
	}
	k.produce(batch...)
	for n := range uint64(300) {
		tr := schemas.Transition{
			User: fmt.Sprintf("u%d", n), From: schemas.NoSegment, To: uint16(n % 6), Seq: 1, At: schemas.Millis(at(int(n)).UnixMilli()),
			Cause:    schemas.Cause{Kind: schemas.ByEvent, Event: schemas.View, ID: "e", Pos: schemas.Position{Partition: 1, Offset: int64(n)}},
			Facts:    schemas.Facts{First: schemas.Millis(n), Last: 2000, Revenue: int64(n)*1e9 - 5},
			Segments: []uint16{uint16(n % 6)}, Expected: schemas.Expected{To: schemas.NoSegment, At: schemas.Never}, Rules: n * 0x9e3779b97f4a7c15,
		}
		if n%2 == 0 {
			tr.Cause = schemas.Cause{Kind: schemas.ByTimer, Due: tr.At - 1}
			tr.Expected = schemas.Expected{To: 3, At: tr.At + 5}
			tr.Facts.Orders, tr.Facts.FirstPurchase, tr.Facts.LastPurchase = 2, 5, 6
			tr.Evidence = schemas.Evidence{
				Clause: `last("view") == "\\x01'"`, Kind: schemas.ValueKind(n / 2 % 5), Was: 0,
				Is: []int64{int64(n), int64(schemas.Never)}[n/10%2],
			}
			if tr.Evidence.Kind == schemas.MomentValue {
				tr.Evidence.Is = int64(tr.At)
			}
		}
		if n%7 == 0 {
			tr.Cause = schemas.Cause{Kind: schemas.ByEpoch, Epoch: n}
		}
		if n%5 > 0 {
			tr.Contact = schemas.Contact{BestHour: int8(n%25) - 1, Zone: "UTC+03:00", ZoneFrom: schemas.ZoneActivity}
		}
		if n%5 > 2 {
			tr.Contact.NotBefore = tr.At + schemas.Millis(n)
		}
		dead := deadRecord(2*n+2, batch[n], int64(n), schemas.BadTime)
		if n%3 == 0 {
			dead.Key, dead.Value = nil, []byte{0xff, 0, 1, 2}
		}
		k.transact(true, transitionRecord("triggers", 2*n+1, &tr), dead)
	}
	a, stop := k.archive(db, nil)
	k.drain(a)
	stop()
	got, _ := compare(t, k.audit(db, nil), AuditOptions{SpanRows: 500}, AuditSelection{})
	if got.Wrong() > 0 || got.Records < 3000 || got.Rows != got.Records {
		got.Findings = got.Findings[:min(3, len(got.Findings))]
		t.Errorf("got %d records, %d rows, %+v, want nothing wrong", got.Records, got.Rows, got)
	}
	// Each column alone makes a row different.
	for _, table := range []*table{newTable("events", eventColumns), newTable("transitions", transitionColumns), newTable("dead_letters", deadLetterColumns)} {
		for _, c := range table.columns {
			if strings.HasPrefix(c.Name, "_") {
				continue
			}
			sql := fmt.Sprintf("SELECT uniqExact(h) FROM (SELECT %[1]s AS h FROM (SELECT * FROM %[2]s ORDER BY _topic, _partition, _offset LIMIT 1) UNION ALL SELECT %[1]s AS h FROM (SELECT * REPLACE (%[3]s AS %[4]s) FROM %[2]s ORDER BY _topic, _partition, _offset LIMIT 1))",
				table.contentSQL(), table.name, another(c.Name, c.Type), c.Name)
			if slices.Contains(convertedColumns, c.Name) && table.name == "events" {
				sql = strings.ReplaceAll(sql, "SELECT * FROM events", "SELECT * FROM events WHERE currency = 'EUR'")
				sql = strings.ReplaceAll(sql, c.Name+") FROM events", c.Name+") FROM events WHERE currency = 'EUR'")
			}
			if got := chdbtest.Exec(t, dsn, sql); got != "2" {
				t.Errorf("%s.%s: another value gives %s different contents, want 2", table.name, c.Name, got)
			}
		}
	}
}

// another is an expression of a column's type that is not its value.
func another(name, chType string) string {
	inner := strings.TrimSuffix(strings.TrimPrefix(chType, "Nullable("), ")")
	switch {
	case strings.Contains(chType, "String") && !strings.Contains(chType, "("), chType == "LowCardinality(String)":
		return "concat(" + name + ", 'x')"
	case strings.HasPrefix(chType, "Map("):
		return "mapUpdate(" + name + ", map('another', 'x'))"
	case strings.HasPrefix(chType, "Array("):
		return "arrayPushBack(" + name + ", ('a', 'b'))"
	case strings.Contains(inner, "DateTime64"):
		return "ifNull(addMilliseconds(" + name + ", 1), toDateTime64(0, 3, 'UTC'))"
	case strings.Contains(chType, "Nullable(String"):
		return "ifNull(concat(" + name + ", 'x'), '')"
	}
	return "ifNull(" + name + " + 1, 0)"
}

// The archive's tables after every kind of harm: each is named, and what is missing
// comes back.
func TestAuditNamesHarm(t *testing.T) {
	db, dsn := open(t)
	k := startKafka(t)
	for i := range 700 {
		k.produce(event(10+i, `,"type":"purchase","order_id":"o","revenue":5`))
	}
	k.produce(event(20, `,"type":"dance"`))
	a, stop := k.archive(db, nil)
	k.drain(a)
	stop()
	audit := k.audit(db, nil)
	if got, _ := compare(t, audit, AuditOptions{}, AuditSelection{}); got.Wrong() > 0 || got.Rows != 700 || got.Records != 700 {
		t.Fatalf("before any harm: got %+v", got)
	}
	for _, sql := range []string{
		"ALTER TABLE events DELETE WHERE _partition = 1 AND _offset BETWEEN 50 AND 59 SETTINGS mutations_sync = 2",
		"ALTER TABLE events UPDATE amount = 6, amount_minor = 600 WHERE _partition = 3 AND _offset = 7 SETTINGS mutations_sync = 2",
		"ALTER TABLE events UPDATE _hash = _hash + 5 WHERE _partition = 3 AND _offset = 9 SETTINGS mutations_sync = 2",
		"SYSTEM STOP MERGES events", // what follows is to stay as it is
		"INSERT INTO events SELECT * FROM events WHERE _partition = 0 AND _offset < 3",                                              // copies
		"INSERT INTO events SELECT * REPLACE (_hash + 1 AS _hash) FROM events WHERE _partition = 0 AND _offset = 10",                // doubled
		"INSERT INTO events SELECT * REPLACE (addMonths(_time, 1) AS _time) FROM events WHERE _partition = 0 AND _offset = 11",      // doubled, and never merged
		"INSERT INTO events SELECT * REPLACE (1000000 AS _offset) FROM (SELECT * FROM events WHERE _partition = 2 AND _offset = 5)", // beyond the end
		"INSERT INTO events SELECT * REPLACE (99 AS _partition) FROM (SELECT * FROM events WHERE _partition = 2 AND _offset = 5)",   // a partition that is not there
		"INSERT INTO events SELECT * REPLACE ('old' AS _topic) FROM events WHERE _partition = 2 AND _offset = 5",                    // another topic
	} {
		chdbtest.Exec(t, dsn, sql)
	}
	got, plan := compare(t, audit, AuditOptions{SpanRows: 70}, AuditSelection{})
	if n := fmt.Sprint(got.Missing, got.Copies, got.Doubled, got.Different, got.Foreign, len(plan.Foreign), len(plan.Others)); n != "10 3 2 2 1 1 1" {
		t.Errorf("got %s missing, copies, doubled, different, foreign, foreign partitions, other topics; want 10 3 2 2 1 1 1", n)
	}
	in := func(n int32) archive.Partition { return archive.Partition{Topic: "in", Number: n} }
	want := []archive.Finding{
		{Kind: archive.Copies, Partition: in(0), First: 0, Last: 2, Offsets: 3},
		{Kind: archive.Doubled, Partition: in(0), First: 10, Last: 11, Offsets: 2},
		{Kind: archive.Missing, Partition: in(1), First: 50, Last: 59, Offsets: 10},
		{Kind: archive.Foreign, Partition: in(2), First: 100, Last: 1000000, Offsets: 1},
		{Kind: archive.Different, Partition: in(3), First: 7, Last: 7, Offsets: 1},
		{Kind: archive.Different, Partition: in(3), First: 9, Last: 9, Offsets: 1},
	}
	ends, err := kadm.NewClient(k.client).ListEndOffsets(t.Context(), "in")
	if err != nil {
		t.Fatal(err)
	}
	want[3].First = ends["in"][2].Offset
	if d := cmp.Diff(want, got.Findings); d != "" {
		t.Errorf("findings (-want +got):\n%s", d)
	}
	// By the hashes alone a changed column is not seen.
	if got, _ := compare(t, audit, AuditOptions{Quick: true}, AuditSelection{}); got.Different != 1 || got.Doubled != 1 || got.Copies != 4 {
		t.Errorf("quick: got %d different, %d doubled, %d copies, want 1, 1 and 4", got.Different, got.Doubled, got.Copies)
	}
	got, _ = compare(t, audit, AuditOptions{Mend: true}, AuditSelection{})
	if got.Missing != 10 || got.Mended < 10 || got.Unmended != 0 || got.Wrong() != got.Doubled+got.Different+got.Foreign {
		t.Errorf("mended: got %+v, want 10 missing rows sent", got)
	}
	if got, _ := compare(t, audit, AuditOptions{}, AuditSelection{}); got.Missing != 0 {
		t.Errorf("afterwards: got %d missing, want none", got.Missing)
	}
}

// A change of rates is no harm: converted amounts are of their day, what was refused
// stays refused, and what was accepted stays.
func TestAuditAfterChangeOfRates(t *testing.T) {
	db, _ := open(t)
	k := startKafka(t)
	for i := range 100 {
		k.produce(event(10+i, fmt.Sprintf(`,"type":"purchase","order_id":"o","revenue":5,"currency":"%s"`, []string{"EUR", "USD", "GBP"}[i%3])))
	}
	ends, err := kadm.NewClient(k.client).ListEndOffsets(t.Context(), "in")
	if err != nil {
		t.Fatal(err)
	}
	n := uint64(0)
	ends.Each(func(o kadm.ListedOffset) {
		for at := range o.Offset { // as the engine does with those in pounds; here with all
			n++
			k.transact(true, deadRecord(n, &kgo.Record{Partition: o.Partition, Timestamp: time.Now()}, at, schemas.UnknownCurrency))
		}
	})
	a, stop := k.archive(db, nil)
	k.drain(a)
	stop()
	got, _ := compare(t, k.audit(db, func(c *ArchiveConfig) { c.Contract.Rates = map[string]string{"USD": "0.9", "GBP": "1.2"} }), AuditOptions{}, AuditSelection{Topics: []string{"in"}})
	if got.Wrong() != 0 || got.Refused != 33 {
		t.Errorf("a rate more: got %+v, want nothing wrong and 33 refused before", got)
	}
	got, _ = compare(t, k.audit(db, func(c *ArchiveConfig) { c.Contract.Rates = nil }), AuditOptions{}, AuditSelection{Topics: []string{"in"}})
	if got.Wrong() != 0 || got.Taken != 33 {
		t.Errorf("a rate less: got %+v, want nothing wrong and 33 accepted before", got)
	}
}

// What is chosen is compared, what retention has deleted is counted, and an audit
// without commits goes by the rows.
func TestAuditSelects(t *testing.T) {
	db, dsn := open(t)
	k := startKafka(t)
	for i := range 400 {
		k.produce(event(7*i, `,"type":"view"`)) // all in partition 0
	}
	a, stop := k.archive(db, nil)
	k.drain(a)
	stop()
	audit := k.audit(db, nil)
	if got, _ := compare(t, audit, AuditOptions{}, AuditSelection{Since: schemas.Millis(at(7 * 390).UnixMilli())}); got.Records != 10 {
		t.Errorf("since: got %d records, want 10", got.Records)
	}
	if got, _ := compare(t, audit, AuditOptions{}, AuditSelection{Selection: archive.Selection{First: 20, Next: 50}}); got.Records != 30 {
		t.Errorf("offsets: got %d records, want 30", got.Records)
	}
	admin := kadm.NewClient(k.client)
	var before kadm.Offsets
	before.Add(kadm.Offset{Topic: "in", Partition: 0, At: 150})
	if _, err := admin.DeleteRecords(t.Context(), before); err != nil {
		t.Fatal(err)
	}
	if got, _ := compare(t, audit, AuditOptions{}, AuditSelection{}); got.Records != 250 || got.Beyond != 150 || got.Wrong() != 0 {
		t.Errorf("after retention: got %+v, want 250 records and 150 rows beyond it", got)
	}
	k.produce(event(7, `,"type":"view"`))
	k.eventually("the group to go", func() bool {
		_, err := admin.DeleteGroup(t.Context(), a.Group())
		return err == nil
	})
	chdbtest.Exec(t, dsn, "ALTER TABLE events DELETE WHERE _offset = 200 SETTINGS mutations_sync = 2")
	if got, _ := compare(t, audit, AuditOptions{}, AuditSelection{}); got.Records != 250 || got.Missing != 1 || got.Behind != 1 {
		t.Errorf("without commits: got %+v, want 250 records up to the last row, and one missing", got)
	}
}

// say puts a chain of transitions of one user into the topics, each n with its seq.
func (k *kafka) say(user string, outputs ...[2]int) {
	k.t.Helper()
	for i, o := range outputs {
		tr := schemas.Transition{
			User: user, From: uint16(o[1] % 2), To: uint16((o[1] + 1) % 2), Seq: uint32(o[1]), At: schemas.Millis(at(i).UnixMilli()),
			Cause: schemas.Cause{Kind: schemas.ByTimer, Due: 5}, Segments: []uint16{0},
			Facts:    schemas.Facts{First: 1, Last: 2},
			Expected: schemas.Expected{To: schemas.NoSegment, At: schemas.Never},
		}
		topic := "triggers"
		if o[1] == 1 {
			tr.From = schemas.NoSegment
		}
		if o[0]%2 == 0 {
			topic, tr.Muted = "muted", schemas.MutedStale
		}
		k.transact(true, transitionRecord(topic, uint64(o[0]), &tr))
	}
}

// chains checks the chains, and returns what is broken, in words.
func chains(t *testing.T, a *Audit, said map[int32]uint64) (c *Chains, broken string) {
	t.Helper()
	c, err := a.Chains(t.Context(), said)
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, v := range c.Violations {
		lines = append(lines, strings.TrimSpace(fmt.Sprintf("%s %s %s", v.Rule, v.User, v.What)))
	}
	return c, strings.Join(lines, "\n")
}

func TestChains(t *testing.T) {
	db, dsn := open(t)
	k := startKafka(t)
	k.say("anna", [2]int{1, 1}, [2]int{2, 2}, [2]int{3, 3}, [2]int{4, 4})
	k.say("ben", [2]int{5, 1}, [2]int{6, 2})
	k.transact(true, deadRecord(7, &kgo.Record{Partition: 1, Timestamp: at(1)}, 5, schemas.BadTime))
	k.say("ben", [2]int{8, 3})
	a, stop := k.archive(db, nil)
	k.drain(a)
	audit := k.audit(db, nil)
	said := map[int32]uint64{1: 8}
	c, broken := chains(t, audit, said)
	if broken != "" || c.Outputs != 8 || c.Transitions != 7 || c.Users != 2 || c.Parts[1] != (ChainPart{Partition: 1, From: 1, To: 8}) {
		t.Errorf("got %+v, want 8 outputs and nothing broken:\n%s", c, broken)
	}
	stop()
	if _, broken := chains(t, audit, map[int32]uint64{1: 9}); broken != "n  outputs 9 to 9 are in no table" {
		t.Errorf("more was said than is there: got %q", broken)
	}
	for _, harm := range []struct{ sql, want string }{
		{"ALTER TABLE dead_letters DELETE WHERE n = 7 SETTINGS mutations_sync = 2", "n  output 7 is in no table"},
		{"ALTER TABLE transitions DELETE WHERE n IN (2, 3) SETTINGS mutations_sync = 2", "n  outputs 2 to 3 are in no table\nseq anna transition 4 follows 1\nn  output 7 is in no table"},
		{"ALTER TABLE transitions UPDATE to_segment = 'nowhere' WHERE n = 5 SETTINGS mutations_sync = 2", "from ben transition 2 leaves lost, but 1 entered nowhere"},
		{"INSERT INTO transitions SELECT * REPLACE (_offset + 1000 AS _offset) FROM transitions WHERE n = 6", "n  output 6 is there 2 times, at different offsets\nseq ben transition 2 is there twice, at different offsets"},
		{"ALTER TABLE transitions DELETE WHERE n = 5 SETTINGS mutations_sync = 2", "seq ben the first transition is number 2"},
	} {
		chdbtest.Exec(t, dsn, harm.sql)
		_, broken := chains(t, audit, said)
		for line := range strings.SplitSeq(harm.want, "\n") {
			if !strings.Contains(broken, line) {
				t.Errorf("after %s:\ngot:\n%s\nwant:\n%s", harm.sql, broken, line)
			}
		}
	}
	// What is older than all that is left is no harm.
	chdbtest.Exec(t, dsn, "ALTER TABLE transitions DELETE WHERE n < 6 SETTINGS mutations_sync = 2")
	chdbtest.Exec(t, dsn, "ALTER TABLE transitions DELETE WHERE _offset > 999 SETTINGS mutations_sync = 2")
	if c, broken := chains(t, audit, said); c.Late != 1 || broken != "n  output 7 is in no table" {
		t.Errorf("older rows dropped: got %d chains that begin before, and:\n%s", c.Late, broken)
	}
}

// What is not archived yet breaks no chain: an archive that has come further with one
// topic than with another is not believed beyond the other.
func TestChainsBehind(t *testing.T) {
	db, dsn := open(t)
	k := startKafka(t)
	k.say("anna", [2]int{1, 1}, [2]int{2, 2}, [2]int{3, 3}, [2]int{4, 4})
	a, stop := k.archive(db, nil)
	k.drain(a)
	stop()
	k.say("anna", [2]int{5, 5}, [2]int{6, 6}, [2]int{7, 7}) // triggers 5 and 7, muted 6
	// As if the archive had come to the triggers, and not yet to the muted ones.
	admin := kadm.NewClient(k.client)
	at, err := admin.FetchOffsets(t.Context(), a.Group())
	if err != nil {
		t.Fatal(err)
	}
	muted, _ := at.Lookup("muted", 1)
	b, stop := k.archive(db, nil)
	k.drain(b)
	stop()
	chdbtest.Exec(t, dsn, "ALTER TABLE transitions DELETE WHERE n = 6 SETTINGS mutations_sync = 2")
	k.eventually("the group to be empty", func() bool {
		return admin.CommitAllOffsets(t.Context(), a.Group(), kadm.OffsetsFromRecords(kgo.Record{Topic: "muted", Partition: 1, Offset: muted.At - 1, LeaderEpoch: -1})) == nil
	})
	c, broken := chains(t, k.audit(db, nil), map[int32]uint64{1: 7})
	if broken != "" || c.Parts[1].To != 4 || !c.Parts[1].Pending {
		t.Errorf("got %+v, want nothing broken and all checked up to 4:\n%s", c.Parts[1], broken)
	}
}
