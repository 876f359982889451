package main

import (
	"fmt"
	"math"
	"strings"

	"footfall/schemas"
)

// publishedSets are the data sets, with the numbers of the README in each one's folder.
func publishedSets() []publishedSet {
	return []publishedSet{
		{
			file: "rees46-2019-10-01-sample/events.csv.gz", mapping: "rees46", parity: true, currency: "USD", rows: 17_434,
			queries: rees46Numbers(), more: rees46Engine,
		},
		{
			file: "otto-sessions-sample/sessions.jsonl.gz", mapping: "otto", parity: true, currency: "EUR", rows: 862,
			queries: []publishedNumber{
				{"events, clicks, carts, orders", "862\t800\t52\t10", "SELECT count(), countIf(type = 'view'), countIf(type = 'add_to_cart'), countIf(type = 'purchase') FROM events_once"},
				{"sessions", "20", "SELECT uniqExact(user_id) FROM events_once"},
				{"sessions with a cart, with an order", "7\t3", "SELECT uniqExactIf(user_id, type = 'add_to_cart'), uniqExactIf(user_id, type = 'purchase') FROM events_once"},
				{"first and last ts", "1659304800025\t1661723997885", "SELECT toUnixTimestamp64Milli(min(time)), toUnixTimestamp64Milli(max(time)) FROM events_once"},
			},
		},
		{
			file: "online-retail-uci/online_retail.csv.gz", mapping: "online-retail", parity: true, currency: "GBP", rows: 541_909,
			skipped: map[string]int64{"no_customer": 135_080},
			queries: []publishedNumber{
				{"cleaned rows", "397884", "SELECT sum(length(JSONExtractArrayRaw(items))) FROM events_once WHERE type = 'purchase'"},
				{"customers, invoices", "4338\t18532", "SELECT uniqExact(user_id), uniqExact(order_id) FROM events_once WHERE type = 'purchase'"},
				{"revenue", "8911407.90", "SELECT toDecimalString(sum(amount), 2) FROM events_once WHERE type = 'purchase'"},
				{"first and last invoice", "2010-12-01 08:26:00\t2011-12-09 12:50:00", "SELECT toDateTime(min(time), 'UTC'), toDateTime(max(time), 'UTC') FROM events_once"},
			},
			more: onlineRetailRFM,
		},
		{
			file: "cdnow/CDNOW_master.txt.gz", mapping: "cdnow", parity: true, currency: "USD", rows: 69_659,
			queries: []publishedNumber{
				{"customers", "23570", "SELECT uniqExact(user_id) FROM events_once"},
				{"CDs", "167881", "SELECT sum(quantity) FROM events_once"},
				{"dollars", "2500315.63", "SELECT sum(amount) FROM events_once"},
				{"customer-day repeats", "2068", "SELECT count() - uniqExact(user_id, toDate(time)) FROM events_once"},
				{"rows of 0.00 dollars", "80", "SELECT countIf(amount = 0) FROM events_once"},
				{"first and last day", "1997-01-01\t1998-06-30", "SELECT toDate(min(time)), toDate(max(time)) FROM events_once"},
			},
		},
		{
			file: "cdnow/CDNOW_sample.txt.gz", mapping: "cdnow-sample", currency: "USD", rows: 6_919,
			queries: []publishedNumber{
				{"sample: customers", "2357", "SELECT uniqExact(user_id) FROM events_once"},
				{"sample: CDs", "16479", "SELECT sum(quantity) FROM events_once"},
				{"sample: dollars", "244091.94", "SELECT sum(amount) FROM events_once"},
				{"sample: rows of the calibration period, later rows", "4960\t1959", "SELECT countIf(time < '1997-10-01'), countIf(time >= '1997-10-01') FROM events_once"},
				{"sample: later customer-days", "1882", "SELECT uniqExactIf((user_id, toDate(time)), time >= '1997-10-01') FROM events_once"},
			},
		},
		{
			file: "cdnow/CDNOW_sample.txt.gz", mapping: "cdnow-calibration", currency: "USD", rows: 6_919,
			skipped: map[string]int64{"after_calibration": 1_959},
			more:    cdnowRFM,
		},
		{
			file: "rfm-r-orders/orders.csv.gz", mapping: "rfm-r-orders", parity: true, currency: "EUR", rows: 4_906,
			queries: []publishedNumber{
				{"customers, orders, revenue", "995\t4906\t464158", "SELECT uniqExact(user_id), count(), toInt64(sum(amount)) FROM events_once"},
				{"first and last order", "2001-10-29\t2006-12-30", "SELECT toDate(min(time)), toDate(max(time)) FROM events_once"},
			},
			more: rfmOfR,
		},
	}
}

func rees46Numbers() []publishedNumber {
	const of = " FROM events_once"
	return []publishedNumber{
		{"views, carts, purchases", "17055\t165\t214", "SELECT countIf(type = 'view'), countIf(type = 'add_to_cart'), countIf(type = 'purchase')" + of},
		{"users, sessions, products", "4504\t5066\t6493", "SELECT uniqExact(user_id), uniqExact(session_id), uniqExact(product_id)" + of},
		{"rows without a category, without a brand", "5746\t2477", "SELECT countIf(category = ''), countIf(brand = '')" + of},
		{"revenue, buyers, sessions with a purchase", "59442.63\t193\t200", "SELECT sumIf(amount, type = 'purchase'), uniqExactIf(user_id, type = 'purchase'), uniqExactIf(session_id, type = 'purchase')" + of},
		{"users who viewed, put into the cart, bought (funnel)", "4504\n111\n193", "SELECT users FROM funnel(from = '2019-10-01', to = '2019-10-02', window = 86400) ORDER BY step"},
		{"users who did all three", "62", "SELECT count() FROM (SELECT user_id, countIf(type = 'view') AS v, countIf(type = 'add_to_cart') AS c, countIf(type = 'purchase') AS p" + of + " GROUP BY user_id) WHERE v > 0 AND c > 0 AND p > 0"},
		{"buyers without a cart, without a view", "131\t0", "SELECT countIf(c = 0), countIf(v = 0) FROM (SELECT user_id, countIf(type = 'view') AS v, countIf(type = 'add_to_cart') AS c, countIf(type = 'purchase') AS p" + of + " GROUP BY user_id) WHERE p > 0"},
		{"rows that repeat an earlier one", "5", "SELECT count() - uniqExact((time, type, product_id, properties, category, brand, ifNull(price, 0), user_id, session_id))" + of},
		{"first and last event", "2019-10-01 00:00:00\t2019-10-01 02:50:00", "SELECT toDateTime(min(time), 'UTC'), toDateTime(max(time), 'UTC')" + of},
		{"users that footfall has said something of", "4504", "SELECT uniqExact(user_id) FROM segment_now WHERE segment_set = 'lifecycle'"},
		{"buyers, by their segments (new, active)", "193", "SELECT countIf(segment IN ('new', 'active')) FROM segment_now WHERE segment_set = 'lifecycle'"},
	}
}

// rees46Engine asks the workers what they know of every user.
func rees46Engine(p *numbers) {
	var views, carts, orders, buyers int64
	revenue := 0.0
	for _, u := range p.users() {
		views += u.Events["view"]
		carts += u.Events["add_to_cart"]
		orders += u.Orders64()
		if u.Orders > 0 {
			buyers++
		}
		revenue += number(p.t, u.Revenue)
	}
	p.is("footfall: views, carts, purchases", "17055 165 214", fmt.Sprint(views, carts, orders))
	p.is("footfall: revenue of buyers", "59442.63 193", fmt.Sprintf("%.2f %d", revenue, buyers))
}

// Orders64 is Orders, to be added up.
func (a ExplainAnswer) Orders64() int64 { return int64(a.Orders) }

// onlineRetailRFM compares the recency and frequency that the workers have with those of
// the README, and the monetary value, which is before refunds there, with ClickHouse.
func onlineRetailRFM(p *numbers) {
	const day = int64(schemas.Day)
	analysis := dayOf(p.t, "2011-12-10")
	users := p.users()
	money := map[string]float64{}
	for line := range strings.Lines(p.house.sql("SELECT user_id, sum(amount) FROM events_once WHERE type = 'purchase' GROUP BY user_id")) {
		user, amount, _ := strings.Cut(strings.TrimSpace(line), "\t")
		money[user] = number(p.t, amount)
	}
	var r, f, m []float64
	recency := func(a ExplainAnswer) float64 { return float64(analysis/day - int64(a.LastPurchase)/day) }
	for id, u := range users {
		if u.Orders > 0 {
			r, f, m = append(r, recency(u)), append(f, float64(u.Orders)), append(m, money[id])
		}
	}
	for _, c := range []struct {
		name      string
		of        []float64
		mean      float64
		quartiles [3]float64
	}{
		{"footfall: recency", r, 93.06, [3]float64{18, 51, 142.75}},
		{"footfall: frequency", f, 4.27, [3]float64{1, 2, 5}},
		{"ClickHouse: monetary value", m, 2054.27, [3]float64{307.41, 674.48, 1661.74}},
	} {
		p.near(c.name+", mean", c.mean, mean(c.of), 2)
		for i, want := range c.quartiles {
			p.near(fmt.Sprintf("%s, quartile %d", c.name, i+1), want, quantile(c.of, float64(i+1)/4), 2)
		}
	}
	p.is("footfall: customers", 4338, len(f))
	p.near("footfall: greatest frequency", 209, quantile(f, 1), 0)
	p.near("ClickHouse: greatest monetary value", 280206.02, quantile(m, 1), 2)
	for _, c := range []struct {
		user string
		r, f float64
		m    string
	}{
		{"14646", 2, 73, "280206.02"},
		{"18102", 1, 60, "259657.30"},
		{"17450", 9, 46, "194550.79"},
		{"12347", 3, 7, "4310.00"},
		{"17850", 373, 34, "5391.21"},
		{"12346", 326, 1, "77183.60"},
	} {
		u := users[c.user]
		p.is("customer "+c.user+": R F M", fmt.Sprintf("%v %v %s", c.r, c.f, c.m), fmt.Sprintf("%v %d %.2f", recency(u), u.Orders, money[c.user]))
	}
	p.is("footfall: customer 12346, whose one order was cancelled, net of it", "0.00", users["12346"].Revenue)
}

// cdnowRFM compares every customer of the sample with its line in the published
// summaries, at the end of the calibration period.
func cdnowRFM(p *numbers) {
	const week = float64(7 * schemas.Day)
	end := dayOf(p.t, "1997-09-30")
	users := p.users()
	type customer struct {
		user string
		zbar float64
	}
	by := map[string]customer{} // by the number in the sample
	for line := range strings.Lines(p.house.sql("SELECT toString(toInt32(any(JSONExtractString(properties, 'sample_id')))), user_id, if(count() = 1, 0, (sum(amount) - argMin(amount, time)) / (count() - 1)) FROM events_once GROUP BY user_id")) {
		cols := strings.Split(strings.TrimSpace(line), "\t")
		by[cols[0]] = customer{cols[1], number(p.t, cols[2])}
	}
	places := func(v float64) string { return fmt.Sprintf("%.2f", v) }
	published := func(text string) string { return places(number(p.t, text)) }
	var x, tx, age, zbar, again, repeats, sum int64
	rows := csvOf(p.t, "cdnow/cdnow_customers_summary_with_transactions.csv.gz")
	second := csvOf(p.t, "cdnow/cdnow_customers_summary.csv.gz")
	count := func(n *int64, holds bool) {
		if holds {
			*n++
		}
	}
	for i, row := range rows {
		c := by[row["ID"]]
		u := users[c.user]
		frequency := int64(u.Orders) - 1
		recency := places(float64(u.LastPurchase-u.FirstPurchase) / week)
		observed := places(float64(end-int64(u.FirstPurchase)) / week)
		count(&x, fmt.Sprint(frequency) == row["x"])
		count(&tx, recency == published(row["t_x"]))
		count(&age, observed == published(row["T"]))
		count(&zbar, math.Abs(c.zbar-number(p.t, row["zbar"])) <= 0.005+1e-9) // rounding
		other := second[i]
		count(&again, other["ID"] == row["ID"] && number(p.t, other["frequency"]) == float64(frequency) && published(other["recency"]) == recency && published(other["T"]) == observed)
		count(&repeats, frequency > 0)
		sum += frequency
	}
	p.is("footfall: customers whose frequency is the published one", 2357, x)
	p.is("footfall: customers whose recency is", 2357, tx)
	p.is("footfall: customers whose age T is", 2357, age)
	p.is("ClickHouse: customers whose mean spend on days after the first is", 2357, zbar)
	p.is("footfall: customers all of whose line in the other summary is", 2357, again)
	p.is("footfall: sum of frequency", 2457, sum)
	p.is("footfall: customers who came back", 946, repeats)
}
