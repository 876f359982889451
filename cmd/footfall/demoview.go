package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	tea "github.com/charmbracelet/bubbletea"
	"github.com/charmbracelet/lipgloss"
	"github.com/schollz/progressbar/v3"

	"footfall/schemas"
	"footfall/sinks/clickhouse"
	"footfall/sinks/clickhouse/chdb"
)

// demoView is the live view: a picture of the run four times a second, drawn from
// what the engine and the watch publish.
type demoView struct {
	d        *demonstration
	watch    *demoWatch
	stop     func()
	draining atomic.Bool

	rows   atomic.Pointer[demoRows]
	width  int
	before demoSample
	now    demoSample
}

// demoSample is what rates are made of.
type demoSample struct {
	at                   time.Time
	applied, transitions uint64
	dead, duplicates     uint64
	users                int
	segments             []int
	clock                schemas.Millis
}

// demoRows is what ClickHouse said last.
type demoRows struct {
	events, transitions     uint64
	viewed, carted, ordered uint64
	day                     string
	err                     error
}

func newDemoView(d *demonstration, watch *demoWatch) *demoView { return &demoView{d: d, watch: watch} }

// drained tells the view that no more is published.
func (v *demoView) drained() { v.draining.Store(true) }

// run draws until ctx ends or the person ends it.
func (v *demoView) run(ctx context.Context, stop func()) error {
	v.stop = stop
	v.now = v.sample()
	asking, end := context.WithCancel(ctx)
	defer end()
	go v.ask(asking)
	program := tea.NewProgram(v, tea.WithContext(ctx), tea.WithOutput(v.d.err), tea.WithAltScreen(), tea.WithoutSignalHandler())
	_, err := program.Run()
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// ask asks ClickHouse now and then; it ends with ctx.
func (v *demoView) ask(ctx context.Context) {
	db, err := clickhouse.Open(v.d.conf.clickhouseDSN())
	if err != nil {
		v.rows.Store(&demoRows{err: err})
		return
	}
	defer func() { _ = db.Close() }()
	for ctx.Err() == nil {
		v.rows.Store(v.askOnce(ctx, db))
		select {
		case <-time.After(2 * time.Second):
		case <-ctx.Done():
		}
	}
}

func (v *demoView) askOnce(ctx context.Context, db *clickhouse.DB) *demoRows {
	r := &demoRows{}
	r.err = db.QueryRow(ctx, "SELECT (SELECT count() FROM events), (SELECT count() FROM transitions)").Scan(&r.events, &r.transitions)
	if r.err != nil {
		return r
	}
	// The newest whole day of the shop.
	day := time.UnixMilli(int64(v.d.clock.Now() - schemas.Day)).UTC()
	r.day = day.Format("2006-01-02")
	r.err = db.QueryRow(ctx, `SELECT uniqExactIf(user_id, type = 'view'), uniqExactIf(user_id, type = 'add_to_cart'), uniqExactIf(user_id, type = 'purchase')
		FROM events WHERE toDate(time) = ?`, r.day).Scan(&r.viewed, &r.carted, &r.ordered)
	return r
}

func (v *demoView) sample() demoSample {
	s := demoSample{at: time.Now(), segments: make([]int, len(v.d.engine.rules.Names()[0].Segments))}
	for _, p := range v.d.engine.pipe.Status() {
		if p.Recovering {
			continue
		}
		s.applied += p.Stats.Applied
		s.transitions += p.Stats.Transitions
		s.duplicates += p.Stats.Duplicates
		for _, n := range p.Stats.DeadLetters {
			s.dead += n
		}
		s.users += p.Users
		s.clock = max(s.clock, p.Mark.Clock)
		for i, n := range p.Population[0] {
			s.segments[i] += n
		}
	}
	return s
}

type redraw time.Time

func tick() tea.Cmd {
	return tea.Tick(250*time.Millisecond, func(t time.Time) tea.Msg { return redraw(t) })
}

// Init is tea.Model.
func (v *demoView) Init() tea.Cmd { return tick() }

// Update is tea.Model.
func (v *demoView) Update(m tea.Msg) (tea.Model, tea.Cmd) {
	switch m := m.(type) {
	case tea.WindowSizeMsg:
		v.width = m.Width
	case tea.KeyMsg:
		if slices.Contains([]string{"ctrl+c", "q", "esc"}, m.String()) {
			v.stop()
			return v, tea.Quit
		}
	case redraw:
		if s := v.sample(); s.at.Sub(v.now.at) >= time.Second {
			v.before, v.now = v.now, s
		} else {
			s.at = v.now.at
			s.applied, s.transitions = v.now.applied, v.now.transitions
			v.now = s
		}
		return v, tick()
	}
	return v, nil
}

// View is tea.Model.
func (v *demoView) View() string {
	bold := lipgloss.NewStyle().Bold(true)
	dim := lipgloss.NewStyle().Faint(true)
	var b strings.Builder
	state := "a day of the shop takes " + v.daySpan()
	if v.draining.Load() {
		state = "no more is published; waiting until all of it is through"
	}
	fmt.Fprintf(&b, "%s  %s  %s\n\n", bold.Render("footfall demo"),
		time.UnixMilli(int64(v.now.clock)).UTC().Format("Mon 2006-01-02 15:04"), dim.Render(state))
	v.rates(&b)
	v.segments(&b, bold)
	v.transitions(&b, bold, dim)
	v.clickhouse(&b, bold, dim)
	for _, line := range v.hints() {
		b.WriteString(dim.Render(line) + "\n")
	}
	return b.String()
}

func (v *demoView) daySpan() string {
	if v.d.clock.speed == 0 {
		return "no time: a recorded log is replayed"
	}
	return (time.Duration(86400/v.d.clock.speed*1000) * time.Millisecond).String()
}

func (v *demoView) rates(b *strings.Builder) {
	span := v.now.at.Sub(v.before.at).Seconds()
	perSecond := func(now, before uint64) float64 {
		if v.before.at.IsZero() || span <= 0 {
			return 0
		}
		return float64(now-before) / span
	}
	l := v.watch.latency()
	fmt.Fprintf(b, "%8.0f events/s    %8.0f transitions/s    %d repeated, %d dead letters\n",
		perSecond(v.now.applied, v.before.applied), perSecond(v.now.transitions, v.before.transitions), v.now.duplicates, v.now.dead)
	if l.N > 0 {
		fmt.Fprintf(b, "event to trigger    p50 %.1f ms    p99 %.1f ms    (%d measured)\n", *l.P50, *l.P99, l.N)
	}
	b.WriteString("\n")
}

func (v *demoView) segments(b *strings.Builder, bold lipgloss.Style) {
	fmt.Fprintf(b, "%s\n", bold.Render(fmt.Sprintf("%d users, by segment", v.now.users)))
	colours := []string{"1", "5", "6", "2", "3", "4"}
	most := max(1, slices.Max(v.now.segments))
	room := max(10, min(v.width, 100)-26)
	for i, name := range v.d.engine.rules.Names()[0].Segments {
		n := v.now.segments[i]
		bar := strings.Repeat("█", n*room/most)
		fmt.Fprintf(b, "  %-9s %7d  %s\n", name, n, lipgloss.NewStyle().Foreground(lipgloss.Color(colours[i%len(colours)])).Render(bar))
	}
	b.WriteString("\n")
}

func (v *demoView) transitions(b *strings.Builder, bold, dim lipgloss.Style) {
	v.watch.mu.Lock()
	last := slices.Clone(v.watch.last)
	triggers, muted := v.watch.triggers, v.watch.muted
	v.watch.mu.Unlock()
	fmt.Fprintf(b, "%s\n", bold.Render(fmt.Sprintf("transitions: %d triggers, %d muted", triggers, muted)))
	for _, t := range last[max(0, len(last)-8):] {
		line := fmt.Sprintf("  %s  %-14s %9s -> %-9s by %s", time.UnixMilli(int64(t.at)).UTC().Format("01-02 15:04"), t.user, t.from, t.to, t.cause)
		if t.muted != "" && t.muted != schemas.NotMuted.String() {
			line = dim.Render(line + " (muted: " + t.muted + ")")
		}
		b.WriteString(line + "\n")
	}
	b.WriteString("\n")
}

func (v *demoView) clickhouse(b *strings.Builder, bold, dim lipgloss.Style) {
	r := v.rows.Load()
	switch {
	case r == nil:
	case r.err != nil:
		fmt.Fprintf(b, "%s\n\n", dim.Render("ClickHouse: "+r.err.Error()))
	default:
		fmt.Fprintf(b, "%s\n", bold.Render(fmt.Sprintf("ClickHouse: %d events, %d transitions", r.events, r.transitions)))
		fmt.Fprintf(b, "  %s: %d users viewed, %d put into a cart, %d ordered\n\n", r.day, r.viewed, r.carted, r.ordered)
	}
}

// hints are the addresses, with a command to try for each.
func (v *demoView) hints() []string {
	d := v.d
	user := "USER"
	v.watch.mu.Lock()
	if n := len(v.watch.last); n > 0 {
		user = v.watch.last[n-1].user
	}
	v.watch.mu.Unlock()
	broker, house := d.broker.Addr(), d.house.Addr()
	return []string{
		"Kafka       kcat -b " + broker + " -t triggers -X isolation.level=read_committed",
		"ClickHouse  curl -s 'http://" + house + "/?database=footfall' -d 'SELECT * FROM segment_daily ORDER BY day DESC LIMIT 6 FORMAT PrettyCompact'",
		"Why, when?  footfall explain " + user + " --brokers " + broker + " --set kafka.group=demo",
		"Metrics     curl -s http://" + d.conf.HTTP.Advertise + "/metrics",
	}
}

// print is the summary for people.
func (r *demoReport) print(to io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%9d records published\n%9d events applied, %d repeated, %d dead letters\n", r.RecordsPublished, r.EventsApplied, r.Duplicates, r.DeadLetters.Total)
	fmt.Fprintf(&b, "%9d transitions: %d triggers, %d muted\n%9d users:", r.Transitions, r.Triggers, r.Muted, r.Users)
	for i, name := range slices.Sorted(maps.Keys(r.Segments)) {
		if i > 0 {
			b.WriteString(",")
		}
		fmt.Fprintf(&b, " %d %s", r.Segments[name], name)
	}
	fmt.Fprintf(&b, "\n%9d events and %d transitions in ClickHouse\n", r.ClickHouse["events"], r.ClickHouse["transitions"])
	if r.Latency.N > 0 {
		fmt.Fprintf(&b, "event to trigger: p50 %.1f ms, p99 %.1f ms (%d measured)\n", *r.Latency.P50, *r.Latency.P99, r.Latency.N)
	}
	fmt.Fprintf(&b, "compared with an independent oracle, record by record: %d lost, %d doubled\n", r.Lost, r.Doubled)
	_, err := io.WriteString(to, b.String())
	return err
}

// fetchBar shows how far the engine's library is.
type fetchBar struct {
	to    io.Writer
	bar   *progressbar.ProgressBar
	stage string
}

func newFetchBar(to io.Writer) *fetchBar { return &fetchBar{to: to} }

func (f *fetchBar) progress(p chdb.Progress) {
	if p.Stage != f.stage {
		f.end()
		f.stage = p.Stage
		if !isTerminal(f.to) {
			fmt.Fprintf(f.to, "ClickHouse engine, once: %s\n", p.Stage)
			return
		}
		f.bar = progressbar.NewOptions64(p.Total, progressbar.OptionSetWriter(f.to),
			progressbar.OptionSetDescription("ClickHouse engine, once: "+p.Stage), progressbar.OptionShowBytes(true),
			progressbar.OptionThrottle(100*time.Millisecond), progressbar.OptionClearOnFinish())
	}
	if f.bar != nil {
		_ = f.bar.Set64(p.Done) // a bar that can't be drawn is no reason to stop
	}
}

func (f *fetchBar) end() {
	if f.bar != nil {
		_ = f.bar.Finish()
		f.bar = nil
	}
}
