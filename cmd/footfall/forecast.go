package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"footfall/pipeline/rehearsal"
	"footfall/pipeline/worker"
	"footfall/schemas"
)

func newForecast(g *global) *cobra.Command {
	var b brokersFlag
	f := forecasting{}
	cmd := &cobra.Command{
		Use:     "forecast",
		GroupID: "rules",
		Short:   "Who will change segment, and when, if nobody does anything",
		Long: `Adds up what silence alone will do: how many users will move from which segment to which, in
each coming hour, day or week, by set; and with --users who, the soonest first. It is exact:
the same rules and timers that will say it are asked for it. What shoppers do meanwhile
changes it.

The running instances are asked (found by the addresses in the group's commits; http.token,
where they have one, is read from this configuration too). With --from a file's history is
played instead, and the forecast begins at its last event. ` + "`run`" + ` keeps a forecast in
ClickHouse, too: table forecast, view forecast_now.`,
		Example: `  footfall forecast
  footfall forecast --only lifecycle --by week --for 90d
  footfall forecast --users 100 --output json
  footfall forecast --from orders.csv.gz --mapping online-retail`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := errors.Join(oneOf("output", f.output, "text", "json"), oneOf("by", f.by, "hour", "day", "week"), f.check()); err != nil {
				return err
			}
			c, err := g.config(b.settings()...)
			if err != nil {
				return err
			}
			answer, err := f.run(cmd.Context(), c, cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			if f.output == "json" {
				return json.NewEncoder(cmd.OutOrStdout()).Encode(answer)
			}
			return answer.print(cmd.OutOrStdout())
		},
	}
	b.add(cmd)
	f.history.fileFlags(cmd)
	fl := cmd.Flags()
	fl.StringVar(&f.set, "only", "", "only this segment `set`")
	fl.StringVar(&f.by, "by", "day", "hour, day or week (from Monday), in UTC")
	fl.StringVar(&f.horizon, "for", "30d", "look so far ahead")
	fl.IntVar(&f.users, "users", 0, "also show so many users, the soonest first")
	fl.StringVar(&f.output, "output", "text", "text or json")
	return cmd
}

// forecasting is one run of forecast.
type forecasting struct {
	history                  history
	set, by, horizon, output string
	users                    int
	span                     schemas.Millis
}

func (f *forecasting) check() error {
	span, err := parseDuration(f.horizon)
	if err != nil || span <= 0 {
		return &usageError{fmt.Errorf("--for %q: want a duration above zero, such as 30d", f.horizon)}
	}
	if millis(span) > horizonMax {
		return &usageError{fmt.Errorf("--for %q: want at most %s", f.horizon, formatDuration(time.Duration(horizonMax)*time.Millisecond))}
	}
	if f.users < 0 {
		return &usageError{fmt.Errorf("--users %d: want 0 or more", f.users)}
	}
	if f.users > forecastUsers && f.history.from == "" {
		return &usageError{fmt.Errorf("--users %d: an instance names at most %s", f.users, grouped(forecastUsers))}
	}
	f.span = millis(span)
	return f.history.check()
}

// Foreseen is what forecast prints.
type Foreseen struct {
	Clock Moment           `json:"clock"` // from when on
	Until Moment           `json:"until"`
	By    string           `json:"by"`
	Moves []ForeseenMoves  `json:"moves"` // by set, time, from and to
	Users []ForecastedUser `json:"users"` // the soonest first
	sets  []string
}

// ForeseenMoves is how many users move from one segment to another in a span of time.
type ForeseenMoves struct {
	Set   string `json:"set"`
	From  string `json:"from"`
	To    string `json:"to"`
	Start Moment `json:"start"` // of the hour, day or week
	Users int64  `json:"users"`
}

func (f *forecasting) run(ctx context.Context, c *Config, progress io.Writer) (*Foreseen, error) {
	rules, err := c.rules()
	if err != nil {
		return nil, err
	}
	sets := setNames(rules.Names())
	if f.set != "" {
		if !slices.Contains(sets, f.set) {
			return nil, &usageError{fmt.Errorf("--only %q is none of segments.sets: %s%s", f.set, strings.Join(sets, ", "), suggest(f.set, sets))}
		}
		sets = []string{f.set}
	}
	var all []*ForecastAnswer
	if f.history.from != "" {
		all, err = f.played(ctx, c, progress)
	} else {
		all, err = f.asked(ctx, c)
	}
	if err != nil {
		return nil, err
	}
	return f.sum(all, sets), nil
}

// asked asks the owners of all partitions, page by page.
func (f *forecasting) asked(ctx context.Context, c *Config) (all []*ForecastAnswer, err error) {
	cl, err := c.connect(ctx)
	if err != nil {
		return nil, err
	}
	defer cl.Close()
	if err := c.allowed(ctx, cl, c.lookNeeds()); err != nil {
		return nil, err
	}
	committed, err := marks(ctx, c, cl)
	if err != nil {
		return nil, err
	}
	if len(committed) == 0 {
		return nil, fmt.Errorf("group %s has committed nothing yet; is footfall running?", c.Kafka.Group)
	}
	for p, m := range committed {
		if m.Address == "" {
			return nil, fmt.Errorf("partition %d was last committed by an instance without an address; set http.advertise there", p)
		}
		for row := int32(0); row >= 0; {
			var a ForecastAnswer
			err := ask(ctx, c, m.Address, "/forecast", url.Values{
				"partition": {fmt.Sprint(p)}, "row": {fmt.Sprint(row)}, "for": {fmt.Sprint(int64(f.span))}, "users": {fmt.Sprint(f.users)}, "set": {f.set},
			}, &a)
			if refused, ok := errors.AsType[*answerError](err); ok && refused.code == http.StatusMisdirectedRequest {
				return nil, fmt.Errorf("%w; the partition is moving to another instance, try again in some seconds", err)
			}
			if err != nil {
				return nil, err
			}
			all, row = append(all, &a), a.Next
		}
	}
	return all, nil
}

// played plays a file.
func (f *forecasting) played(ctx context.Context, c *Config, progress io.Writer) ([]*ForecastAnswer, error) {
	rules, err := c.rules()
	if err != nil {
		return nil, err
	}
	side, err := rehearsal.NewSide(rehearsal.SideConfig{
		Rules: rules, Contract: c.contract(), Dedup: rehearsal.Dedup{Window: millis(c.Dedup.Window), Budget: c.Dedup.Budget},
	})
	if err != nil {
		return nil, &usageError{err}
	}
	err = f.history.play(ctx, c, progress, func(p int32, r *worker.Record) error { side.Play(p, r); return nil })
	if err != nil {
		return nil, err
	}
	side.Advance(side.Now())
	a := newForecastAnswer(0, side.Now(), f.set, f.users)
	side.Forecast(side.Now()+f.span, func(w *worker.Worker, user []byte, dues []worker.Due) { a.add(w.Rules().Names(), user, dues) })
	return []*ForecastAnswer{a.done(-1)}, nil
}

// sum adds up what partitions foresee.
func (f *forecasting) sum(all []*ForecastAnswer, sets []string) *Foreseen {
	out := &Foreseen{By: f.by, Moves: []ForeseenMoves{}, Users: []ForecastedUser{}, sets: sets}
	total := map[ForeseenMoves]int64{}
	for _, a := range all {
		out.Clock = max(out.Clock, a.Clock)
		for _, m := range a.Moves {
			total[ForeseenMoves{Set: m.Set, From: m.From, To: m.To, Start: f.start(m.Hour)}] += m.Users
		}
		out.Users = append(out.Users, a.Users...)
	}
	out.Until = out.Clock + Moment(f.span)
	for m, n := range total {
		m.Users = n
		out.Moves = append(out.Moves, m)
	}
	slices.SortFunc(out.Moves, func(a, b ForeseenMoves) int {
		return cmp.Or(cmp.Compare(slices.Index(sets, a.Set), slices.Index(sets, b.Set)), cmp.Compare(a.Start, b.Start), strings.Compare(a.From, b.From), strings.Compare(a.To, b.To))
	})
	slices.SortFunc(out.Users, func(a, b ForecastedUser) int {
		return cmp.Or(cmp.Compare(a.At, b.At), strings.Compare(a.User, b.User), strings.Compare(a.Set, b.Set))
	})
	out.Users = out.Users[:min(len(out.Users), f.users)]
	return out
}

// start is when the hour, day or week of a moment begins.
func (f *forecasting) start(at Moment) Moment {
	t := time.UnixMilli(int64(at)).UTC()
	switch f.by {
	case "hour":
		t = t.Truncate(time.Hour)
	case "week":
		t = t.Truncate(24*time.Hour).AddDate(0, 0, -(int(t.Weekday())+6)%7)
	default:
		t = t.Truncate(24 * time.Hour)
	}
	return Moment(t.UnixMilli())
}

// print draws a table and a bar for each span of time, set by set.
func (a *Foreseen) print(to io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "What silence alone will do from %s to %s.\n", clock(schemas.Millis(a.Clock)), clock(schemas.Millis(a.Until)))
	for _, set := range a.sets {
		a.printSet(&b, set)
	}
	if len(a.Users) > 0 {
		b.WriteString("\nThe soonest:\n")
		w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
		for _, u := range a.Users {
			fmt.Fprintf(w, "  %s\t%s\t%s\t%s -> %s\n", clock(schemas.Millis(u.At)), u.User, u.Set, u.From, u.To)
		}
		_ = w.Flush()
	}
	_, err := io.WriteString(to, b.String())
	return err
}

// forecastBar is how long the longest bar is.
const forecastBar = 30

func (a *Foreseen) printSet(b *strings.Builder, set string) {
	var columns []string
	var rows []Moment
	count := map[Moment]map[string]int64{}
	totals := map[Moment]int64{}
	most := int64(1)
	for _, m := range a.Moves {
		if m.Set != set {
			continue
		}
		column := m.From + " -> " + m.To
		if !slices.Contains(columns, column) {
			columns = append(columns, column)
		}
		if count[m.Start] == nil {
			count[m.Start] = map[string]int64{}
			rows = append(rows, m.Start)
		}
		count[m.Start][column] += m.Users
		totals[m.Start] += m.Users
		most = max(most, totals[m.Start])
	}
	if len(rows) == 0 {
		fmt.Fprintf(b, "\n%s: nobody will move\n", set)
		return
	}
	slices.Sort(columns)
	fmt.Fprintf(b, "\n%s\n", set)
	w := tabwriter.NewWriter(b, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(w, "%s\t%s\tall\t\n", a.By, strings.Join(columns, "\t"))
	layout := "2006-01-02"
	if a.By == "hour" {
		layout = "2006-01-02 15:04"
	}
	for _, start := range rows {
		fmt.Fprintf(w, "%s\t", time.UnixMilli(int64(start)).UTC().Format(layout))
		for _, column := range columns {
			text := "."
			if n := count[start][column]; n > 0 {
				text = grouped(n)
			}
			fmt.Fprintf(w, "%s\t", text)
		}
		fmt.Fprintf(w, "%s\t %s\n", grouped(totals[start]), strings.Repeat("#", int((totals[start]*forecastBar+most-1)/most)))
	}
	_ = w.Flush()
}

// forecastAnswer is a ForecastAnswer in the making.
type forecastAnswer struct {
	ForecastAnswer
	set   string
	limit int
	total map[ForecastedMoves]int64
}

func newForecastAnswer(partition int32, clock schemas.Millis, set string, users int) *forecastAnswer {
	return &forecastAnswer{
		ForecastAnswer: ForecastAnswer{Partition: partition, Clock: Moment(clock), Moves: []ForecastedMoves{}, Users: []ForecastedUser{}},
		set:            set, limit: users, total: map[ForecastedMoves]int64{},
	}
}

// add adds a user.
func (a *forecastAnswer) add(names []schemas.SetNames, user []byte, dues []worker.Due) {
	for _, d := range dues {
		set := names[d.Set]
		if a.set != "" && set.Name != a.set {
			continue
		}
		from, to := set.Segments[d.From], set.Segments[d.To]
		a.total[ForecastedMoves{Set: set.Name, From: from, To: to, Hour: Moment(d.At / schemas.Hour * schemas.Hour)}]++
		if a.limit > 0 {
			a.Users = append(a.Users, ForecastedUser{User: string(user), Set: set.Name, From: from, To: to, At: Moment(d.At)})
		}
	}
}

// done completes it.
func (a *forecastAnswer) done(next int32) *ForecastAnswer {
	for m, n := range a.total {
		m.Users = n
		a.Moves = append(a.Moves, m)
	}
	slices.SortFunc(a.Users, func(x, y ForecastedUser) int { return cmp.Compare(x.At, y.At) })
	a.Users = a.Users[:min(len(a.Users), a.limit)]
	a.Next = next
	return &a.ForecastAnswer
}

// Limits of one page (R4): rows that are looked at between two tasks of a partition, in
// all, and users that are named.
const (
	forecastSlice = 500
	forecastPage  = 10_000
	forecastUsers = 10_000
)

// forecast asks the worker of a partition for a page, in slices between live events.
func (e *engine) forecast(ctx context.Context, q *forecastQuery) (*ForecastAnswer, error) {
	var a *forecastAnswer
	row := q.row
	for read := 0; row >= 0 && read < forecastPage; read += forecastSlice {
		err := e.pipe.Ask(ctx, q.partition, func(w *worker.Worker) {
			clock := w.Mark().Clock
			if a == nil {
				a = newForecastAnswer(q.partition, clock, q.set, q.users)
			}
			row = w.Forecast(row, forecastSlice, clock+q.span, func(user []byte, dues []worker.Due) { a.add(w.Rules().Names(), user, dues) })
		})
		if err != nil {
			return nil, err
		}
	}
	return a.done(row), nil
}

// forecastQuery is what /forecast is asked for.
type forecastQuery struct {
	partition, row int32
	span           schemas.Millis
	users          int
	set            string
}

// horizonMax is how far ahead is looked.
const horizonMax = 100 * 365 * schemas.Day

func parseForecast(q url.Values) (*forecastQuery, error) {
	number := func(name string, most int64) (int64, error) {
		text := q.Get(name)
		if text == "" && name != "partition" && name != "for" {
			return 0, nil
		}
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil || n < 0 || n > most {
			return 0, fmt.Errorf("%s=%q: want a number from 0 to %d", name, text, most)
		}
		return n, nil
	}
	partition, err1 := number("partition", 1<<30)
	row, err2 := number("row", 1<<30)
	span, err3 := number("for", int64(horizonMax))
	users, err4 := number("users", forecastUsers)
	return &forecastQuery{int32(partition), int32(row), schemas.Millis(span), int(users), q.Get("set")}, errors.Join(err1, err2, err3, err4)
}
