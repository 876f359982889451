//go:build chaos

package main

import (
	"fmt"
	"maps"
	"math"
	"math/big"
	"slices"
	"strconv"
	"strings"
	"time"

	"footfall/pipeline/oracle"
)

// verifyViews computes what the views should say, from the topics, and asks them.
func (h *house) verifyViews(dump *oracle.Dump, v *verdict) {
	h.t.Helper()
	type stay struct {
		segment string
		seq     int
	}
	now, entries := map[string]stay{}, map[string]int{}
	for _, records := range [][]oracle.Record{dump.Triggers, dump.Muted} {
		for i := range records {
			f := fieldsOf(&records[i])
			seq, _ := strconv.Atoi(textOf(f["seq"]))
			entries[textOf(f["to"])]++
			if user := textOf(f["user"]); seq > now[user].seq {
				now[user] = stay{textOf(f["to"]), seq}
			}
		}
	}
	members := map[string]int{}
	for _, s := range now {
		members[s.segment]++
	}
	expected := maps.Clone(v.Segments)
	maps.DeleteFunc(expected, func(_ string, n int) bool { return n == 0 })
	same(h.t, "users by segment, in the topics and by the oracle", expected, members)
	same(h.t, "segment_now", members, h.counts("SELECT segment, toString(count()) FROM segment_now GROUP BY segment"))
	same(h.t, "segment_daily, members on the last day", members,
		h.counts("SELECT segment, toString(members) FROM segment_daily WHERE members != 0 AND day = (SELECT max(day) FROM segment_daily)"))
	same(h.t, "segment_daily, entries", entries, h.counts("SELECT segment, toString(sum(entries)) FROM segment_daily GROUP BY segment HAVING sum(entries) > 0"))
	same(h.t, "segment_history, stays", entries, h.counts("SELECT segment, toString(count()) FROM segment_history GROUP BY segment"))
	if n := h.number(`SELECT count() FROM (
		SELECT seq, from_segment, row_number() OVER w AS number, lagInFrame(to_segment) OVER w AS before
		FROM (SELECT * FROM transitions FINAL) WINDOW w AS (PARTITION BY user_id, segment_set ORDER BY seq ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING)
	) WHERE seq != number OR from_segment != before`); n > 0 {
		h.t.Errorf("ClickHouse finds %d transitions that do not begin where the one before ended", n)
	}
	once := h.onceOf(dump)
	want, got := byType(once), map[string]string{}
	h.query("SELECT type, toString(count()), toString(sum(toDecimal128(ifNull(revenue, 0), 6))) FROM events_once GROUP BY type", func(row []string) {
		sum, _ := new(big.Rat).SetString(row[2])
		got[row[0]] = row[1] + " events, revenue " + sum.FloatString(6)
	})
	same(h.t, "events_once, by type", want, got)
	same(h.t, "revenue_daily", revenueDaily(once), h.asked(`SELECT toString(day), toString(orders), toString(buyers),
		toString(toInt64(gross * 100)), toString(refunds), toString(toInt64(refunded * 100)), toString(toInt64(net * 100)),
		`+millionths("average_order_value")+` FROM revenue_daily WHERE currency = '`+h.conf.Shop.Currency+`'`))
	same(h.t, "funnel_daily", funnelDaily(once), h.asked(`SELECT toString(day), toString(view_users), toString(cart_users), toString(purchase_users),
		toString(carted_in_order), toString(bought_in_order), `+millionths("cart_conversion")+", "+millionths("conversion")+", "+millionths("buyer_conversion")+` FROM funnel_daily`))
	same(h.t, "cohort_retention", cohorts(once), h.asked(`SELECT toString(cohort) || ' + ' || toString(month), toString(users), toString(active),
		`+millionths("retention")+`, toString(orders), toString(toInt64(revenue * 100)) FROM cohort_retention`))
}

// asked gives the rows of a query by their first column.
func (h *house) asked(sql string) map[string]string {
	h.t.Helper()
	rows := map[string]string{}
	h.query(sql, func(row []string) {
		if rows[row[0]] != "" {
			h.t.Errorf("%s: two rows for %s", sql, row[0])
		}
		rows[row[0]] = strings.Join(row[1:], " ")
	})
	return rows
}

// millionths asks for a share as a whole number.
func millionths(column string) string {
	return "ifNull(toString(round(" + column + " * 1e6)), '" + null + "')"
}

// shareOf is a by b, as millionths asks for it.
func shareOf(a, b int) string {
	if b == 0 {
		return null
	}
	return strconv.FormatInt(int64(math.Round(float64(a)/float64(b)*1e6)), 10)
}

// occurrence is one event that counts.
type occurrence struct {
	kind, user, revenue string
	at                  time.Time
	cents               int // of a purchase or a refund
}

func (c *occurrence) day() string { return c.at.Format(time.DateOnly) }

// onceOf gives the events that count: an event_id once, a user's purchase of an order
// once, and nothing that was refused.
func (h *house) onceOf(dump *oracle.Dump) (once []occurrence) {
	refused, ids, orders := map[string]bool{}, map[string]bool{}, map[string]bool{}
	for i := range dump.DeadLetters {
		r := &dump.DeadLetters[i]
		refused[headerOf(r, "dlq_partition")+"@"+headerOf(r, "dlq_offset")] = true
	}
	input := slices.Clone(dump.Input)
	slices.SortStableFunc(input, func(a, b oracle.Record) int { return int(a.Partition - b.Partition) })
	for i := range input {
		r := &input[i]
		if refused[fmt.Sprintf("%d@%d", r.Partition, r.Offset)] {
			continue
		}
		f := fieldsOf(r)
		id, kind, order := textOf(f["event_id"]), textOf(f["type"]), textOf(f["user_id"])+"\x1f"+textOf(f["order_id"])
		if ids[id] || kind == "purchase" && orders[order] {
			continue
		}
		ids[id] = true
		if kind == "purchase" {
			orders[order] = true
		}
		at, _ := strconv.ParseInt(millisOf(f["time"]), 10, 64)
		once = append(once, occurrence{kind, textOf(f["user_id"]), textOf(f["revenue"]), time.UnixMilli(at).UTC(), int(h.amountOf(f).Int64())})
	}
	return once
}

// byType counts them and adds up their revenue.
func byType(once []occurrence) map[string]string {
	counts, sums := map[string]int{}, map[string]*big.Rat{}
	for _, c := range once {
		counts[c.kind]++
		if sums[c.kind] == nil {
			sums[c.kind] = new(big.Rat)
		}
		sums[c.kind].Add(sums[c.kind], ratOf(c.revenue, 0))
	}
	rows := map[string]string{}
	for kind, n := range counts {
		rows[kind] = fmt.Sprintf("%d events, revenue %s", n, sums[kind].FloatString(6))
	}
	return rows
}

// takings are orders and refunds, in cents.
type takings struct {
	orders, gross, refunds, refunded int
	buyers                           map[string]bool
}

func (t *takings) add(c *occurrence) {
	if c.kind == "refund" {
		t.refunds++
		t.refunded += c.cents
		return
	}
	t.orders++
	t.gross += c.cents
	t.buyers[c.user] = true
}

// takingsBy adds up the money of all that have the same name.
func takingsBy(once []occurrence, name func(*occurrence) string) map[string]*takings {
	all := map[string]*takings{}
	for i := range once {
		c := &once[i]
		if c.kind != "purchase" && c.kind != "refund" {
			continue
		}
		t := all[name(c)]
		if t == nil {
			t = &takings{buyers: map[string]bool{}}
			all[name(c)] = t
		}
		t.add(c)
	}
	return all
}

func revenueDaily(once []occurrence) map[string]string {
	rows := map[string]string{}
	for day, t := range takingsBy(once, (*occurrence).day) {
		rows[day] = fmt.Sprint(t.orders, " ", len(t.buyers), " ", t.gross, " ", t.refunds, " ", t.refunded, " ", t.gross-t.refunded, " ", shareOf(t.gross, 100*t.orders))
	}
	return rows
}

// cohorts follows those who first bought in a month through the months after it.
func cohorts(once []occurrence) map[string]string {
	month := func(c *occurrence) int { return 12*c.at.Year() + int(c.at.Month()) - 1 }
	first, latest := map[string]int{}, 0
	purchases := slices.DeleteFunc(slices.Clone(once), func(c occurrence) bool { return c.kind != "purchase" })
	for i := range purchases {
		c := &purchases[i]
		if m, known := first[c.user]; !known || month(c) < m {
			first[c.user] = month(c)
		}
		latest = max(latest, month(c))
	}
	users := map[int]int{}
	for _, m := range first {
		users[m]++
	}
	named := func(cohort, month int) string {
		return fmt.Sprintf("%04d-%02d-01 + %d", cohort/12, cohort%12+1, month-cohort)
	}
	found := takingsBy(purchases, func(c *occurrence) string { return named(first[c.user], month(c)) })
	rows := map[string]string{}
	for cohort, n := range users {
		for m := cohort; m <= latest; m++ {
			t := found[named(cohort, m)]
			if t == nil {
				t = &takings{}
			}
			rows[named(cohort, m)] = fmt.Sprint(n, " ", len(t.buyers), " ", shareOf(len(t.buyers), n), " ", t.orders, " ", t.gross)
		}
	}
	return rows
}

// funnelDaily follows each user through each day: did a stage at all, and came to it from
// the ones before. Equal times are in the order of the stages.
func funnelDaily(once []occurrence) map[string]string {
	stages := []string{"view", "add_to_cart", "purchase"}
	type journey struct{ day, user string }
	times := map[journey]*[3][]time.Time{}
	for i := range once {
		c := &once[i]
		stage := slices.Index(stages, c.kind)
		if stage < 0 {
			continue
		}
		j := journey{c.day(), c.user}
		if times[j] == nil {
			times[j] = new([3][]time.Time)
		}
		times[j][stage] = append(times[j][stage], c.at)
	}
	type day struct{ did, came [3]int }
	days := map[string]*day{}
	for j, at := range times {
		d := days[j.day]
		if d == nil {
			d = &day{}
			days[j.day] = d
		}
		var reached time.Time
		comes := true
		for stage := range stages {
			slices.SortFunc(at[stage], time.Time.Compare)
			next := slices.IndexFunc(at[stage], func(t time.Time) bool { return !t.Before(reached) })
			if len(at[stage]) > 0 {
				d.did[stage]++
			}
			if comes = comes && next >= 0; comes {
				d.came[stage]++
				reached = at[stage][next]
			}
		}
	}
	rows := map[string]string{}
	for name, d := range days {
		rows[name] = fmt.Sprint(d.did[0], " ", d.did[1], " ", d.did[2], " ", d.came[1], " ", d.came[2], " ",
			shareOf(d.came[1], d.did[0]), " ", shareOf(d.came[2], d.did[0]), " ", shareOf(d.did[2], d.did[0]))
	}
	return rows
}
