package main

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"footfall/pipeline/profile"
	"footfall/pipeline/segment"
	"footfall/schemas"
)

// dayOf is the first moment of a day, UTC.
func dayOf(t *testing.T, day string) int64 {
	t.Helper()
	at, err := time.Parse(time.DateOnly, day)
	if err != nil {
		t.Fatal(err)
	}
	return at.UnixMilli()
}

// rfmOfR compares recency, frequency, monetary value, scores and segments of all 995
// customers with the table and the segments that the R package publishes.
func rfmOfR(p *numbers) {
	const day = int64(schemas.Day)
	now := dayOf(p.t, "2006-12-31")
	users := p.users()
	var recency, frequency, amount int
	reference := csvOf(p.t, "rfm-r-orders/rfm_table_reference.csv.gz")
	for _, row := range reference {
		u := users[row["customer_id"]]
		if fmt.Sprint((now-int64(u.LastPurchase))/day) == row["recency_days"] {
			recency++
		}
		if fmt.Sprint(u.Orders) == row["transaction_count"] {
			frequency++
		}
		if u.Revenue == row["amount"]+".00" {
			amount++
		}
	}
	p.is("footfall: customers whose recency is the published one", 995, recency)
	p.is("footfall: customers whose number of orders is", 995, frequency)
	p.is("footfall: customers whose revenue is", 995, amount)

	rules := rfmRules(p.t)
	at := epochOf(p.t, rules, users, schemas.Millis(now))
	p.is("bounds of recency (days)", "[115 181 297.4 482]", inUnits(at.Epoch().Bounds[0:4], float64(day)))
	p.is("bounds of the number of orders", "[4 5 6 8]", inUnits(at.Epoch().Bounds[4:8], 1))
	p.is("bounds of revenue", "[255.8 382 506.4 666]", inUnits(at.Epoch().Bounds[8:12], 100))
	evaluated := membershipsOf(at, users, schemas.Millis(now))
	asked := p.house.memberships(at, schemas.Millis(now))
	for _, side := range []struct {
		name string
		of   map[string]map[string]string
	}{{"footfall", evaluated}, {"ClickHouse", asked}} {
		compareRFM(p, side.name, side.of, users, reference)
	}
}

// compareRFM holds memberships of one engine against what is published.
func compareRFM(p *numbers, engine string, of map[string]map[string]string, users map[string]ExplainAnswer, reference []map[string]string) {
	score := func(user string) string {
		s := of[user]
		return strings.ReplaceAll(s["score_r"]+s["score_f"]+s["score_m"], "s", "")
	}
	for _, c := range []struct{ user, score string }{
		{"Abbey O'Reilly", "343"},
		{"Add Senger", "412"},
		{"Aden Lesch", "323"},
		{"Aden Murphy", "544"},
		{"Admiral Senger", "433"},
		{"Agness O'Keefe", "555"},
		{"Aileen Barton", "555"},
		{"Ailene Hermann", "355"},
		{"Aiyanna Bruen", "321"},
		{"Akeelah Walsh", "445"},
	} {
		p.is(engine+": score of "+c.user, c.score, score(c.user))
	}
	scores, segments := 0, 0
	for _, row := range reference {
		if score(row["customer_id"]) == row["rfm_score"] {
			scores++
		}
		if of[row["customer_id"]]["rfm_r"] == segmentName(row["segment"]) {
			segments++
		}
	}
	p.is(engine+": customers whose score is the published one", 995, scores)
	p.is(engine+": customers whose segment is", 995, segments)
	sum := func(set, segment string) string {
		var customers, orders int64
		revenue := 0.0
		for user, u := range users {
			if of[user][set] == segment {
				customers++
				orders += u.Orders64()
				revenue += number(p.t, u.Revenue)
			}
		}
		return fmt.Sprintf("%d %d %.0f", customers, orders, revenue)
	}
	for _, c := range []struct{ segment, want string }{
		{"Champions", "35 316 31646"},
		{"Potential Loyalist", "342 2211 204856"},
		{"Loyal Customers", "170 799 76562"},
		{"Promising", "9 28 4249"},
		{"New Customers", "104 329 28837"},
		{"Can't Lose Them", "47 274 32446"},
		{"At Risk", "28 216 22227"},
		{"Need Attention", "10 57 4562"},
		{"About To Sleep", "102 283 23449"},
		{"Lost", "148 393 35324"},
	} {
		p.is(engine+": "+c.segment+": customers, orders, revenue", c.want, sum("rfm_r", segmentName(c.segment)))
	}
	p.is(engine+": Champions of the other ranges: customers, orders, revenue", "158 1234 120178", sum("rfm_r_champions", "champions"))
}

// segmentName is a published name as one of a segment.
func segmentName(name string) string {
	return strings.ToLower(strings.NewReplacer(" ", "_", "'", "").Replace(name))
}

func inUnits(bounds []int64, unit float64) []float64 {
	out := make([]float64, len(bounds))
	for i, b := range bounds {
		out[i] = float64(b) / unit
	}
	return out
}

// rfmRules compiles the sets of the R package's arithmetic.
func rfmRules(t *testing.T) *segment.Program {
	t.Helper()
	var files []segment.File
	for _, name := range []string{"score_r", "score_f", "score_m", "rfm_r", "rfm_r_champions"} {
		path := publishedFile(name + ".yaml")
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, segment.File{Name: path, Text: text})
	}
	rules, err := segment.Compile(segment.Options{Exponent: 2}, files...)
	if err != nil {
		t.Fatal(err)
	}
	return rules
}

// epochOf cuts the epoch of a moment from the profiles that the workers have, as
// partitions that agree on one do: a distribution of each quantile's value over the
// users of each, merged. It is all that stands between a pipeline that scores in its
// own time and this test.
func epochOf(t *testing.T, rules *segment.Program, users map[string]ExplainAnswer, now schemas.Millis) *segment.Program {
	t.Helper()
	parts := map[int32][]segment.Distribution{}
	e := rules.Evaluator()
	for _, u := range users {
		if parts[u.Partition] == nil {
			parts[u.Partition] = make([]segment.Distribution, rules.Quantiles())
		}
		pr, v := profileOf(rules, &u)
		for q := range rules.Quantiles() {
			if value, ok := e.Quantity(q, &pr, v, now); ok {
				parts[u.Partition][q].Add(segment.Valued{Value: value, Users: 1})
			}
		}
	}
	all := make([]segment.Distribution, rules.Quantiles())
	for _, part := range parts {
		for q := range part {
			all[q].Merge(&part[q])
		}
	}
	epoch, ok := rules.Cut(1, now, all)
	if !ok {
		t.Fatal("nobody has bought")
	}
	with, err := rules.With(epoch)
	if err != nil {
		t.Fatal(err)
	}
	return with
}

// profileOf is a user's profile as it was explained. The sets here look at nothing else.
func profileOf(rules *segment.Program, u *ExplainAnswer) (profile.Profile, profile.View) {
	pr := profile.Profile{
		First: schemas.Millis(u.First), Last: schemas.Millis(u.Last), FirstPurchase: schemas.Millis(u.FirstPurchase), LastPurchase: schemas.Millis(u.LastPurchase),
	}
	for kind := range schemas.Kinds {
		pr.Counts[kind] = uint32(u.Events[kind.String()])
	}
	var whole, cents int64
	if _, err := fmt.Sscanf(u.Revenue, "%d.%d", &whole, &cents); err != nil {
		panic(fmt.Sprintf("revenue %q: %v", u.Revenue, err))
	}
	pr.Revenue = 100*whole + cents
	rows := profile.NewRows(rules.Layout())
	rows.Append()
	return pr, rows.View(0)
}

// membershipsOf are the segments of every user, by set, as the evaluator says.
func membershipsOf(rules *segment.Program, users map[string]ExplainAnswer, now schemas.Millis) map[string]map[string]string {
	e, into, out := rules.Evaluator(), make([]uint16, rules.Sets()), map[string]map[string]string{}
	for id, u := range users {
		pr, v := profileOf(rules, &u)
		e.Eval(&pr, v, now, into)
		out[id] = map[string]string{}
		for set, names := range rules.Names() {
			out[id][names.Name] = names.Segments[into[set]]
		}
	}
	return out
}

// memberships are the same, as ClickHouse says.
func (h *house) memberships(rules *segment.Program, now schemas.Millis) map[string]map[string]string {
	h.t.Helper()
	columns, out := rules.Columns(), map[string]map[string]string{}
	for line := range strings.Lines(h.sql("SELECT user_id, " + strings.Join(columns, ", ") + " FROM (" + rules.SQL(now, "") + ")")) {
		cols := strings.Split(strings.TrimSuffix(line, "\n"), "\t")
		out[cols[0]] = map[string]string{}
		for i, set := range columns {
			out[cols[0]][set] = cols[i+1]
		}
	}
	if len(columns) != rules.Sets() || !slices.IsSorted(columns) {
		h.t.Errorf("ClickHouse answers %v, want all of the %d sets", columns, rules.Sets())
	}
	return out
}
