package clickhouse

import (
	"cmp"
	"compress/gzip"
	"encoding/csv"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"footfall/sinks/clickhouse/chdbtest"
)

// row is an event as a test puts it straight into the table.
type row struct {
	partition, offset int
	id, kind, user    string
	time              string // also of the record
	more              string // "column = value, ..." in SQL
}

// insert puts events into the table.
func insert(t testing.TB, dsn string, rows ...row) {
	t.Helper()
	for _, r := range rows {
		columns, values := "", ""
		for assignment := range strings.SplitSeq(r.more, ";") {
			if column, value, ok := strings.Cut(assignment, "="); ok {
				columns += ", " + column
				values += ", " + value
			}
		}
		chdbtest.Exec(t, dsn, fmt.Sprintf("INSERT INTO events (_topic, _partition, _offset, _time, event_id, type, user_id, time, reporting_currency%s) VALUES ('in', %d, %d, '%s', '%s', '%s', '%s', '%s', 'EUR'%s)",
			columns, r.partition, r.offset, r.time, r.id, r.kind, r.user, r.time, values))
	}
}

// unmerged keeps rows that were sent twice apart, as they are before a merge.
func unmerged(t testing.TB, dsn string) {
	t.Helper()
	chdbtest.Exec(t, dsn, "SYSTEM STOP MERGES events")
	chdbtest.Exec(t, dsn, "SYSTEM STOP MERGES transitions")
}

func TestEventsOnce(t *testing.T) {
	_, dsn := open(t)
	unmerged(t, dsn)
	insert(t, dsn,
		row{0, 5, "a", "view", "u1", "2026-01-01 10:00:00", ""},
		row{0, 5, "a", "view", "u1", "2026-01-01 10:00:00", "url='the same row, sent twice'"},
		row{0, 2, "a", "view", "u1", "2026-01-01 10:00:00", "url='the first in the log'"},
		row{0, 9, "a", "purchase", "u1", "2026-01-02 10:00:00", "order_id='o0';url='the same id, another event'"},
		row{1, 1, "a", "view", "u1", "2026-01-01 10:00:00", "url='the same id, in another partition'"},
		row{0, 10, "b", "purchase", "u1", "2026-01-02 10:00:00", "order_id='o0';amount=10;url='an order, first'"},
		row{0, 12, "c", "purchase", "u1", "2026-01-02 11:00:00", "order_id='o0';amount=10;url='the order again'"},
		row{2, 1, "d", "purchase", "u2", "2026-01-02 11:00:00", "order_id='o0';amount=20;url='the order of another user'"},
		row{0, 13, "e", "refund", "u1", "2026-01-02 12:00:00", "order_id='o0';amount=3"},
		row{0, 14, "f", "refund", "u1", "2026-01-02 12:00:00", "order_id='o0';amount=3;url='a second refund'"},
		row{3, 1, "g", "view", "u3", "2299-01-01 00:00:00", "url='refused: from the future'"},
		row{3, 2, "g", "view", "u3", "2026-01-03 00:00:00", "url='the same id, accepted'"},
	)
	chdbtest.Exec(t, dsn, "INSERT INTO dead_letters (_topic, _partition, _offset, reason, source_topic, source_partition, source_offset) VALUES ('dead', 3, 0, 'future', 'in', 3, 1), ('dead', 3, 0, 'future', 'in', 3, 1)")

	expect(t, dsn, "SELECT _partition, _offset FROM events_once ORDER BY _partition, _offset", "0\t2\n0\t10\n0\t13\n0\t14\n2\t1\n3\t2")
	expect(t, dsn, "SELECT count() FROM events_accepted", "10")
	expect(t, dsn, "SELECT _partition, _offset FROM event_repeats ORDER BY _partition, _offset", "0\t5\n0\t9\n1\t1")
	expect(t, dsn, "SELECT _partition, _offset, user_id, order_id FROM order_repeats", "0\t12\tu1\to0")
	expect(t, dsn, "SELECT * FROM revenue_daily", "2026-01-02\tEUR\t2\t2\t30\t2\t6\t24\t15")
	expect(t, dsn, "SELECT day, view_users, purchase_users FROM funnel_daily ORDER BY day", "2026-01-01\t1\t0\n2026-01-02\t0\t2\n2026-01-03\t1\t0")
	// From another database: the views know where their tables are.
	expect(t, dsn[:strings.LastIndexByte(dsn, '/')]+"/default", "SELECT count() FROM "+dsn[strings.LastIndexByte(dsn, '/')+1:]+".events_once", "6")
}

func TestFunnel(t *testing.T) {
	_, dsn := open(t)
	unmerged(t, dsn)
	insert(t, dsn,
		// all the way, over midnight, beyond the end of the time asked for
		row{0, 1, "a1", "view", "all", "2026-01-01 23:00:00", "product_id='p1';category='c1'"},
		row{0, 2, "a2", "add_to_cart", "all", "2026-01-01 23:59:59", "product_id='p1';category='c1';channel='mail'"},
		row{0, 3, "a3", "purchase", "all", "2026-01-02 00:30:00", `product_id='';category='';channel='ads';order_id='o';items='[{"product_id":"p1","category":"c1"},{"product_id":"p2"},{"product_id":"p2"}]'`},
		row{0, 3, "a3", "purchase", "all", "2026-01-02 00:30:00", `product_id='';category='';channel='ads';order_id='o';items='[{"product_id":"p1","category":"c1"},{"product_id":"p2"},{"product_id":"p2"}]'`},
		// a cart too late for the window of the first view, but not for that of the second
		row{1, 1, "b1", "view", "second", "2026-01-01 01:00:00", "product_id='p1'"},
		row{1, 2, "b2", "view", "second", "2026-01-01 05:00:00", "product_id='p1'"},
		row{1, 3, "b3", "add_to_cart", "second", "2026-01-01 06:00:00", "product_id='p1'"},
		// a cart too late
		row{1, 4, "c1", "view", "late", "2026-01-01 01:00:00", "product_id='p1'"},
		row{1, 5, "c2", "add_to_cart", "late", "2026-01-01 03:00:01", "product_id='p1'"},
		// bought without a cart
		row{1, 6, "d1", "view", "direct", "2026-01-01 10:00:00", "product_id='p1'"},
		row{1, 7, "d2", "purchase", "direct", "2026-01-01 10:00:00", "product_id='p1';order_id='x'"},
		// everything within the same moment
		row{1, 8, "e3", "purchase", "moment", "2026-01-01 11:00:00", "product_id='p1';order_id='y'"},
		row{1, 9, "e2", "add_to_cart", "moment", "2026-01-01 11:00:00", "product_id='p1'"},
		row{1, 10, "e1", "view", "moment", "2026-01-01 11:00:00", "product_id='p1'"},
		// viewed a moment ago, and before the time asked for
		row{1, 11, "f0", "view", "recent", "2025-12-31 23:59:59", "product_id='p1'"},
		row{1, 12, "f1", "view", "recent", "2026-01-01 23:30:00", "product_id='p1'"},
		// after the time asked for, but for somebody's window
		row{1, 13, "g1", "view", "after", "2026-01-02 00:00:00", "product_id='p1'"},
		// refused
		row{1, 14, "h1", "view", "refused", "2026-01-01 12:00:00", "product_id='p1'"},
	)
	chdbtest.Exec(t, dsn, "INSERT INTO dead_letters (_topic, _partition, _offset, source_topic, source_partition, source_offset) VALUES ('dead', 1, 0, 'in', 1, 14)")
	const args = "(from = '2026-01-01', to = '2026-01-02 00:00:00', window = 7200)"
	expect(t, dsn, "SELECT * FROM funnel"+args,
		"1\tview\t6\t6\t1\t1\t1\t2\n2\tadd_to_cart\t4\t3\t0.5\t0.5\t0\t1\n3\tpurchase\t2\t2\t0.3333333333333333\t0.6666666666666666\t0\t0")
	expect(t, dsn, "SELECT * FROM funnel_by_product"+args+" ORDER BY product_id",
		"p1\t6\t4\t2\t3\t2\t0.3333333333333333\t1")
	expect(t, dsn, "SELECT * FROM funnel_by_category"+args+" ORDER BY category",
		"\t5\t3\t2\t2\t1\t0.2\t1\nc1\t1\t1\t0\t1\t1\t1\t0")
	expect(t, dsn, "SELECT * FROM funnel_by_channel"+args+" ORDER BY channel",
		"\t5\t3\t2\t2\t1\t0.2\t1\nmail\t1\t1\t0\t1\t1\t1\t0")
	expect(t, dsn, "SELECT * FROM funnel_daily WHERE day = '2026-01-01'",
		"2026-01-01\t6\t4\t2\t4\t1\t0.6666666666666666\t0.16666666666666666\t0.3333333333333333")
	expect(t, dsn, "SELECT * FROM funnel(from = '2027-01-01', to = '2027-02-01', window = 60)",
		"1\tview\t0\t0\t\\N\t\\N\t0\t0\n2\tadd_to_cart\t0\t0\t\\N\t\\N\t0\t0\n3\tpurchase\t0\t0\t\\N\t\\N\t0\t0")
}

// An order that is sent again under another event_id is not bought again: not in the
// funnel of a day, and neither in those of a time.
func TestOrdersOnceInFunnels(t *testing.T) {
	_, dsn := open(t)
	insert(t, dsn,
		row{0, 1, "a", "purchase", "u1", "2026-01-01 10:00:00", "order_id='o1';product_id='p';category='c'"},
		row{0, 2, "b", "view", "u1", "2026-01-01 11:00:00", "product_id='p';category='c'"},
		row{0, 3, "c", "add_to_cart", "u1", "2026-01-01 11:05:00", "product_id='p';category='c'"},
		row{0, 4, "d", "purchase", "u1", "2026-01-01 11:10:00", "order_id='o1';product_id='p';category='c'"},
		row{0, 5, "e", "purchase", "u2", "2026-01-01 10:00:00", "order_id='o1';product_id='p';category='c'"},
		row{0, 6, "e", "view", "u2", "2026-01-01 10:00:00", ""},
	)
	const args = "(from = '2026-01-01', to = '2026-01-02', window = 86400)"
	expect(t, dsn, "SELECT cart_users, purchase_users, carted_in_order, bought_in_order FROM funnel_daily", "1\t2\t1\t0")
	expect(t, dsn, "SELECT groupArray(users), groupArray(in_order) FROM (SELECT * FROM funnel"+args+" ORDER BY step)", "[1,1,2]\t[1,1,0]")
	for _, by := range []string{"product", "category", "channel"} {
		expect(t, dsn, "SELECT cart_users, purchase_users, carted_in_order, bought_in_order FROM funnel_by_"+by+args, "1\t2\t1\t0")
	}
}

// An order whose items name no category is of the event's, or of none.
func TestCategoryOfItems(t *testing.T) {
	_, dsn := open(t)
	insert(t, dsn,
		row{0, 1, "a", "purchase", "u1", "2026-01-01 10:00:00", `order_id='a';category='shoes';items='[{"product_id":"p1","price":1},{"product_id":"p2","category":null}]'`},
		row{0, 2, "b", "purchase", "u2", "2026-01-01 10:00:00", `order_id='b';items='[{"product_id":"p1","price":1}]'`},
		row{0, 3, "c", "purchase", "u3", "2026-01-01 10:00:00", `order_id='c';category='shoes';items='[{"product_id":"p1","category":"hats"},{"product_id":"p2"},{}]'`},
		row{0, 4, "d", "purchase", "u4", "2026-01-01 10:00:00", `order_id='d';category='shoes';product_id='p1'`},
	)
	expect(t, dsn, "SELECT category, purchase_users FROM funnel_by_category(from = '2026-01-01', to = '2026-01-02', window = 7200) ORDER BY category",
		"\t1\nhats\t1\nshoes\t3")
}

// A number that ClickHouse's parser does not read takes nothing else with it, and the
// product of an order is bought with its items.
func TestItemsWithLargeNumbers(t *testing.T) {
	_, dsn := open(t)
	insert(t, dsn,
		row{0, 1, "a", "purchase", "u1", "2026-01-01 10:00:00", `order_id='a';category='shoes';items='[{"product_id":"p1","serial":123456789012345678901234}]'`},
		row{0, 2, "b", "purchase", "u2", "2026-01-01 10:00:00", `order_id='b';items='[{"category": "ha\\\\ts","x":-1E+999,"product_id":"p\\"1 2e999"},{"y":[0, 1.5],"z":null}]'`},
		row{0, 3, "c", "purchase", "u3", "2026-01-01 10:00:00", `order_id='c';product_id='p1';items='[{"price":5}]'`},
		row{0, 4, "d", "purchase", "u4", "2026-01-01 10:00:00", `order_id='d';product_id='p1';items='[{"product_id":"p1"},{"product_id":"p2"}]'`},
	)
	const args = "(from = '2026-01-01', to = '2026-01-02', window = 7200)"
	expect(t, dsn, "SELECT product_id, purchase_users FROM funnel_by_product"+args+" ORDER BY product_id", "p\"1 2e999\t1\np1\t3\np2\t1")
	expect(t, dsn, "SELECT category, purchase_users FROM funnel_by_category"+args+" ORDER BY category", "\t3\nha\\\\ts\t1\nshoes\t1")
}

func TestSegments(t *testing.T) {
	_, dsn := open(t)
	unmerged(t, dsn)
	const put = "INSERT INTO transitions (_topic, _partition, _offset, user_id, segment_set, seq, from_segment, to_segment, at, cause, muted, orders, last_purchase) VALUES "
	chdbtest.Exec(t, dsn, put+"('triggers', 0, 1, 'u1', 'lifecycle', 1, '', 'prospect', '2026-01-01 10:00:00', 'event', '', 0, NULL)")
	chdbtest.Exec(t, dsn, put+"('triggers', 0, 3, 'u1', 'lifecycle', 2, 'prospect', 'new', '2026-01-01 11:00:00', 'event', '', 1, '2026-01-01 11:00:00')")
	chdbtest.Exec(t, dsn, put+"('triggers', 0, 3, 'u1', 'lifecycle', 2, 'prospect', 'new', '2026-01-01 11:00:00', 'event', '', 1, '2026-01-01 11:00:00')")
	chdbtest.Exec(t, dsn, put+"('muted', 0, 1, 'u1', 'lifecycle', 3, 'new', 'prospect', '2026-01-04 09:00:00', 'timer', 'stale', 1, NULL)")
	chdbtest.Exec(t, dsn, put+"('triggers', 1, 1, 'u2', 'lifecycle', 1, '', 'prospect', '2026-01-02 10:00:00', 'event', '', 0, NULL)")
	expect(t, dsn, "SELECT user_id, segment, since, previous_segment, seq, muted, orders, last_purchase FROM segment_now ORDER BY user_id",
		"u1\tprospect\t2026-01-04 09:00:00.000\tnew\t3\tstale\t1\t\\N\nu2\tprospect\t2026-01-02 10:00:00.000\t\t1\t\t0\t\\N")
	expect(t, dsn, "SELECT user_id, segment, valid_from, valid_to, next_segment, seq, cause, muted FROM segment_history ORDER BY user_id, seq",
		"u1\tprospect\t2026-01-01 10:00:00.000\t2026-01-01 11:00:00.000\tnew\t1\tevent\t\n"+
			"u1\tnew\t2026-01-01 11:00:00.000\t2026-01-04 09:00:00.000\tprospect\t2\tevent\t\n"+
			"u1\tprospect\t2026-01-04 09:00:00.000\t\\N\t\t3\ttimer\tstale\n"+
			"u2\tprospect\t2026-01-02 10:00:00.000\t\\N\t\t1\tevent\t")
	expect(t, dsn, "SELECT day, segment, members, entries, exits FROM segment_daily ORDER BY day, segment",
		"2026-01-01\tnew\t1\t1\t0\n2026-01-01\tprospect\t0\t1\t1\n"+
			"2026-01-02\tnew\t1\t0\t0\n2026-01-02\tprospect\t1\t1\t0\n"+
			"2026-01-03\tnew\t1\t0\t0\n2026-01-03\tprospect\t1\t0\t0\n"+
			"2026-01-04\tnew\t0\t0\t1\n2026-01-04\tprospect\t2\t1\t0")
	// Whoever joins as the standard says gets the same.
	expect(t, dsn, "SELECT segment, members, entries FROM segment_daily WHERE day = '2026-01-03' ORDER BY segment SETTINGS join_use_nulls = 1", "new\t1\t0\nprospect\t1\t0")
}

// Views say the same to who has ClickHouse behave as the SQL standard has it.
func TestViewsByTheStandard(t *testing.T) {
	_, dsn := open(t)
	insert(t, dsn,
		row{0, 1, "a", "view", "u1", "2026-01-01 23:00:00", "product_id='p1';channel='ads'"},
		row{0, 2, "b", "purchase", "u1", "2026-01-02 00:30:00", "product_id='p1';order_id='o';amount=7;currency='USD'"},
		row{0, 3, "c", "purchase", "u2", "2026-03-01 05:00:00", "order_id='o';amount=9;currency='EUR'"},
		row{0, 4, "d", "refund", "u2", "2026-04-01 05:00:00", "order_id='o';amount=9"},
		row{0, 5, "e", "add_to_cart", "u3", "2026-01-01 07:00:00", ""},
		row{0, 6, "f", "view", "u4", "2026-01-01 08:00:00", "product_id='p1';category='c'"},
	)
	chdbtest.Exec(t, dsn, "INSERT INTO transitions (_topic, _partition, _offset, user_id, segment_set, seq, from_segment, to_segment, at, cause) VALUES "+
		"('triggers', 0, 1, 'u1', 'lifecycle', 1, '', 'prospect', '2026-01-01 10:00:00', 'event'), ('triggers', 0, 2, 'u1', 'lifecycle', 2, 'prospect', 'new', '2026-01-03 11:00:00', 'event')")
	chdbtest.Exec(t, dsn, "INSERT INTO forecast (made, clock, partition, segment_set, to_segment, due, users) VALUES ('2026-01-01', '2026-01-01', 0, 'lifecycle', 'lost', '2026-02-01', 3)")
	views := strings.Fields(chdbtest.Exec(t, dsn, "SELECT name FROM system.tables WHERE database = currentDatabase() AND engine = 'View' ORDER BY name"))
	for i, view := range views {
		if strings.HasPrefix(view, "funnel") && view != "funnel_daily" {
			views[i] += "(from = '2026-01-01', to = '2026-01-02', window = 86400)"
			views = append(views, view+"(from = '2025-01-01', to = '2025-01-02', window = 86400)") // when there was nothing
		}
	}
	if len(views) < 15 {
		t.Errorf("got only the views %v", views)
	}
	for _, view := range views {
		want := chdbtest.Exec(t, dsn, "SELECT * FROM "+view+" ORDER BY ALL")
		for _, setting := range []string{"join_use_nulls", "group_by_use_nulls", "aggregate_functions_null_for_empty", "prefer_column_name_to_alias"} {
			expect(t, dsn, "SELECT * FROM "+view+" ORDER BY ALL SETTINGS "+setting+" = 1", want)
		}
	}
}

func TestCohorts(t *testing.T) {
	_, dsn := open(t)
	for i, p := range []struct{ user, day string }{{"u1", "2026-01-05"}, {"u1", "2026-01-06"}, {"u1", "2026-03-01"}, {"u2", "2026-01-31"}, {"u3", "2026-02-01"}} {
		insert(t, dsn, row{0, i, fmt.Sprint(i), "purchase", p.user, p.day + " 00:00:00", fmt.Sprintf("amount=10;order_id='%d'", i)})
	}
	expect(t, dsn, "SELECT * FROM cohort_retention ORDER BY cohort, month",
		"2026-01-01\t0\t2\t2\t1\t3\t30\n2026-01-01\t1\t2\t0\t0\t0\t0\n2026-01-01\t2\t2\t1\t0.5\t1\t10\n"+
			"2026-02-01\t0\t1\t1\t1\t1\t10\n2026-02-01\t1\t1\t0\t0\t0\t0")
}

// The first hours of a real shop: the numbers are those of the data's README, which
// were computed elsewhere.
func TestRealShop(t *testing.T) {
	folder := cmp.Or(os.Getenv("FOOTFALL_TEST_DATA"), "../../../shared/data")
	f, err := os.Open(filepath.Join(folder, "rees46-2019-10-01-sample", "events.csv.gz"))
	if err != nil {
		t.Skipf("skipped: the REES46 sample is not there (FOOTFALL_TEST_DATA names its folder): %v", err)
	}
	defer f.Close()
	unzipped, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	lines, err := csv.NewReader(unzipped).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	_, dsn := open(t)
	k := startKafka(t)
	for i, l := range lines[1:] { // event_time, event_type, product_id, category_id, category_code, brand, price, user_id, user_session
		kind, order := l[1], ""
		switch kind {
		case "cart":
			kind = "add_to_cart"
		case "purchase":
			order = fmt.Sprintf(`,"order_id":"%d"`, i)
		}
		r := event(i, fmt.Sprintf(`,"type":"%s","time":"%s","user_id":"%s","product_id":"%s","category":"%s","brand":"%s","price":%s%s`,
			kind, strings.Replace(strings.TrimSuffix(l[0], " UTC"), " ", "T", 1)+"Z", l[7], l[2], l[4], l[5], l[6], order))
		r.Key, r.Timestamp, r.Partition = []byte(l[7]), at(0), int32(len(l[7])+int(l[7][8]))%partitions
		k.client.Produce(t.Context(), r, nil)
	}
	if err := k.client.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	a, stop := k.archive(openAt(t, dsn), nil)
	k.drain(a)
	stop()
	expect(t, dsn, "SELECT type, count() FROM events_once GROUP BY type ORDER BY type", "add_to_cart\t165\npurchase\t214\nview\t17055")
	expect(t, dsn, "SELECT orders, buyers, net FROM revenue_daily", "214\t193\t59442.63")
	expect(t, dsn, "SELECT stage, users, in_order FROM funnel(from = '2019-10-01', to = '2019-10-02', window = 86400)",
		"view\t4504\t4504\nadd_to_cart\t111\t111\npurchase\t193\t62")
	expect(t, dsn, "SELECT view_users, cart_users, purchase_users, bought_in_order FROM funnel_daily", "4504\t111\t193\t62")
}
