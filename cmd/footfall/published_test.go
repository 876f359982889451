package main

import (
	"compress/gzip"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"math"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"footfall/schemas"
	"footfall/sinks/clickhouse/chdbtest"
)

// TestPublished sends each recorded data set through the whole pipeline (publish by a
// mapping, a broker, footfall run, ClickHouse), and compares what comes out of it with
// the numbers that are published for it, which its README has. `make published` shows
// the lines.
func TestPublished(t *testing.T) {
	if raceSlower > 1 {
		t.Skip("the end-to-end tests look for races; this one for numbers, with all of the data")
	}
	chdbtest.Library(t)
	total := &numbers{}
	for _, s := range publishedSets() {
		folder, _, _ := strings.Cut(s.file, "/")
		different := total.different
		ran := t.Run(s.mapping, func(t *testing.T) {
			defer func() {
				if t.Skipped() {
					fmt.Printf("published: skipped    %-24s it is not here (FOOTFALL_TEST_DATA)\n", folder)
				}
			}()
			p := &numbers{t: t, folder: folder, total: total}
			p.send(s)
			for _, q := range s.queries {
				p.is("ClickHouse: "+q.what, q.want, p.house.sql(q.sql))
			}
			if s.more != nil {
				s.more(p)
			}
			if s.parity {
				p.parity()
			}
		})
		if !ran && total.different == different {
			total.different++
			fmt.Printf("published: different  %-24s it came to no number; the test says why\n", folder)
		}
	}
	// Hillstrom's is not a clickstream: one row a customer with totals of a year, without an id, a date
	// or an event; and its outcomes (visit, conversion, spend) have no time either. There
	// is nothing to publish, and what is published for it are lifts of a mailing.
	fmt.Println("published: left out   hillstrom-email-test     one row a customer, without dates or events, so there is nothing to send")
	fmt.Printf("published: %d equal, %d different\n", total.equal, total.different)
}

// publishedSet is a file with the numbers that are published for it.
type publishedSet struct {
	file, mapping, currency string
	rows                    int64
	skipped                 map[string]int64 // rows that are no events, by reason
	queries                 []publishedNumber
	more                    func(*numbers)
	parity                  bool // is every user's segment compared, too?
}

// publishedNumber is a number, and what gives it in ClickHouse.
type publishedNumber struct{ what, want, sql string }

// numbers compares, and counts.
type numbers struct {
	t      *testing.T
	folder string
	house  *house
	total  *numbers

	equal, different int
}

// is compares a published number with one of ours, and prints a line.
func (p *numbers) is(what string, want, got any) {
	p.t.Helper()
	text := func(v any) string { return strings.NewReplacer("\t", ", ", "\n", ", ").Replace(fmt.Sprint(v)) }
	if text(want) == text(got) {
		p.total.equal++
		fmt.Printf("published: equal      %-24s %s: %s\n", p.folder, what, text(got))
		return
	}
	p.total.different++
	fmt.Printf("published: different  %-24s %s: published %s, got %s\n", p.folder, what, text(want), text(got))
	p.t.Errorf("%s: got %s, published is %s", what, text(got), text(want))
}

// near is is for numbers that are published to so many decimals: what lies half of the
// last one away may have been rounded to either side (674.485 is published as 674.48).
func (p *numbers) near(what string, want, got float64, decimals int) {
	p.t.Helper()
	text := func(v float64) string { return strconv.FormatFloat(v, 'f', decimals, 64) }
	if math.Abs(want-got) <= math.Pow10(-decimals)/2+1e-9 {
		p.is(what, text(want), text(want))
		return
	}
	p.is(what, text(want), text(got))
}

// send publishes the file and waits until all of it is in ClickHouse. The instance runs
// on, to be asked.
func (p *numbers) send(s publishedSet) {
	path := dataPath(p.t, s.file)
	p.house = newHouse(p.t, localKafka(p.t), schemas.Replay, "kafka.partitions=4", "shop.currency="+s.currency, "http.listen=127.0.0.1:"+freePort(p.t),
		"segments.sets="+strings.Join(paritySets(), ","))
	p.house.start()
	p.house.ready()
	var done published
	if err := json.Unmarshal([]byte(p.house.run("publish", path, "--mapping", s.mapping, "--lane", "replay", "--output", "json")), &done); err != nil {
		p.t.Fatal(err)
	}
	p.is("rows of the file", s.rows, done.Rows)
	for reason, n := range s.skipped {
		p.is("rows skipped, "+reason, n, done.Skipped[reason])
	}
	p.house.applied()
	p.house.lastEpoch() // what sets with scores say comes after the last event
	p.house.archived()
	var applied, others int64
	p.house.until("the instance tells of all that it has committed", func() bool {
		status, err := readStatus(p.t.Context(), p.house.conf)
		if err != nil {
			p.t.Fatal(err)
		}
		applied, others = 0, 0
		told := true
		for _, part := range status.Partitions {
			applied += part.Owner.Applied
			others += part.Owner.Duplicates + part.Owner.DeadLetters
			told = told && part.Owner.Next == part.Committed
		}
		return told
	})
	p.is("footfall: events applied", done.Published, applied)
	p.is("footfall: duplicates and dead letters", 0, others)
	p.judge()
}

// judge has the oracle recompute every transition of the lifecycle from the input, and
// compare them with what was said, one by one. These numbers are ours, like parity's.
func (p *numbers) judge() {
	p.t.Helper()
	r, _ := p.house.judge(false)
	found := r.LostCount + r.DoubledCount + r.WrongCount
	fmt.Printf("published: oracle     %-24s lifecycle: %d transitions of %d users expected; %d lost, %d doubled, %d wrong\n", p.folder, r.Expected, r.Users, r.LostCount, r.DoubledCount, r.WrongCount)
	if found > 0 || r.Expected == 0 {
		p.total.different++
		p.t.Errorf("got %d findings of the oracle, want none; %d transitions expected, want some", found, r.Expected)
	}
}

// users asks the running instance to explain every user.
func (p *numbers) users() map[string]ExplainAnswer {
	p.t.Helper()
	ids := strings.Split(p.house.sql("SELECT DISTINCT user_id FROM events ORDER BY user_id"), "\n")
	answers := make([]ExplainAnswer, len(ids))
	next := make(chan int)
	var asking sync.WaitGroup
	for range 4 {
		asking.Go(func() {
			for i := range next {
				if err := ask(p.t.Context(), p.house.conf, p.house.conf.HTTP.Listen, "/explain", url.Values{"user": {ids[i]}}, &answers[i]); err != nil {
					p.t.Errorf("%s: %v", ids[i], err)
				}
			}
		})
	}
	for i := range ids {
		next <- i
	}
	close(next)
	asking.Wait()
	all := map[string]ExplainAnswer{}
	for i, id := range ids {
		all[id] = answers[i]
	}
	return all
}

// paritySets are the shipped sets.
func paritySets() []string {
	return []string{"lifecycle", "rfm", "rfm_eleven", "loyalty", "cart", "browse", "replenishment", "engagement", "milestones"}
}

// parity compares every user's segment of every set with ClickHouse. These numbers are
// nobody's but ours, so they are not counted among the published ones.
func (p *numbers) parity() {
	p.t.Helper()
	users := p.house.sql("SELECT uniqExact(user_id) FROM events")
	r := p.house.parity(false, "--all")
	for _, s := range r.Sets {
		fmt.Printf("published: parity     %-24s %s: %d of %s users in the same segment in footfall and ClickHouse\n", p.folder, s.Set, s.Same, users)
		if fmt.Sprint(s.Same) != users || s.Left != "" {
			p.total.different++
			p.t.Errorf("%s: got %+v, want all of %s users the same; %+v", s.Set, s, users, r.Differences[:min(len(r.Differences), 5)])
		}
	}
	if len(r.Sets) != len(paritySets()) {
		p.t.Errorf("got %d sets, want %d", len(r.Sets), len(paritySets()))
	}
}

// sql asks ClickHouse.
func (h *house) sql(statement string) string {
	h.t.Helper()
	return chdbtest.Exec(h.t, h.dsn(), statement+" FORMAT TSVRaw")
}

func (h *house) dsn() string {
	u, err := url.Parse(h.conf.clickhouseDSN())
	if err != nil {
		h.t.Fatal(err)
	}
	return "http://" + u.Host + u.Path
}

// dataPath is the path of a recorded file.
func dataPath(t *testing.T, file string) string {
	return (&dataSet{file: file}).path(t)
}

// csvOf reads a compressed CSV of the recorded data: its rows, by the header's names.
func csvOf(t *testing.T, file string) (rows []map[string]string) {
	t.Helper()
	f, err := os.Open(dataPath(t, file))
	if err != nil {
		t.Fatal(err)
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
	for _, line := range lines[1:] {
		row := map[string]string{}
		for i, name := range lines[0] {
			row[name] = line[i]
		}
		rows = append(rows, row)
	}
	return rows
}

func number(t *testing.T, text string) float64 {
	t.Helper()
	v, err := strconv.ParseFloat(text, 64)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// mean and quantile are as pandas and R have them.
func mean(values []float64) float64 {
	sum := 0.0
	for _, v := range values {
		sum += v
	}
	return sum / float64(len(values))
}

// quantile interpolates linearly between the two values around it (type 7 of Hyndman and
// Fan).
func quantile(values []float64, q float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	at := q * float64(len(sorted)-1)
	low := int(math.Floor(at))
	high := min(low+1, len(sorted)-1)
	return sorted[low] + (at-float64(low))*(sorted[high]-sorted[low])
}

// publishedFile is a file of this test's own.
func publishedFile(name string) string { return filepath.Join("testdata", "published", name) }
