package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
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
	at       demoPlaces
	stop     func()
	draining atomic.Bool

	rows   atomic.Pointer[demoRows]
	width  int
	height int
	before demoSample
	now    demoSample
}

// demoSample is what the engine has counted so far; rates are made of two.
type demoSample struct {
	at                   time.Time
	applied, transitions uint64
	dead, duplicates     uint64
	users                int
	sets                 []SetStatus
	clock                schemas.Millis
}

// demoPlaces is where what runs can be reached, and how this program is called.
type demoPlaces struct{ broker, house, engine, program string }

// demoRows is what ClickHouse said last.
type demoRows struct {
	events, transitions     uint64
	viewed, carted, ordered uint64 // users of the day, stage by stage
	day                     string
	err                     error
}

func newDemoView(d *demonstration, watch *demoWatch) *demoView {
	return &demoView{d: d, watch: watch, at: demoPlaces{d.broker.Addr(), d.house.Addr(), d.conf.HTTP.Advertise, program()}}
}

// drained tells the view that no more is published.
func (v *demoView) drained() { v.draining.Store(true) }

// run draws until ctx ends or the person ends it.
func (v *demoView) run(ctx context.Context, stop func()) error {
	v.stop = stop
	v.now = v.d.engine.sample()
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
	// The newest whole day of the shop; today where days are long.
	now := v.d.clock.Now()
	if v.d.clock.speed >= fastSpeed {
		now -= schemas.Day
	}
	if now <= 0 {
		return r // a recorded log whose time has not begun
	}
	day := time.UnixMilli(int64(now)).UTC()
	r.day = day.Format(time.DateOnly)
	r.err = db.QueryRow(ctx, fmt.Sprintf(`SELECT sumIf(in_order, step = 1), sumIf(in_order, step = 2), sumIf(in_order, step = 3)
		FROM funnel(from = '%s', to = '%s', window = 86400)`, r.day, day.AddDate(0, 0, 1).Format(time.DateOnly))).Scan(&r.viewed, &r.carted, &r.ordered)
	return r
}

func (e *engine) sample() demoSample {
	s := demoSample{at: time.Now(), sets: e.population()}
	for _, p := range e.pipe.Status() {
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
		v.width, v.height = m.Width, m.Height
	case tea.KeyMsg:
		if slices.Contains([]string{"ctrl+c", "q", "esc"}, m.String()) {
			v.stop()
			return v, tea.Quit
		}
	case redraw:
		if s := v.d.engine.sample(); s.at.Sub(v.now.at) >= time.Second {
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
	v.segments(&b, bold, dim)
	v.transitions(&b, bold, dim)
	v.clickhouse(&b, bold, dim)
	b.WriteString(dim.Render(strings.Join(v.hints(v.width), "\n")))
	if v.small() {
		return strings.ReplaceAll(b.String(), "\n\n", "\n")
	}
	return b.String()
}

// Lines of the view besides the transitions, and how many transitions it shows. What
// does not fit is cut at the top, where the rates are.
const (
	viewLines      = 18 // and the hints
	viewBlank      = 5  // of them: those that are empty
	transitionsMin = 1
	transitionsMax = 20
)

// small tells that the terminal has no lines to spare, as one of 24 has not.
func (v *demoView) small() bool { return v.height < viewLines+v.setLines()+len(v.hints(v.width))+8 }

// room is for how many transitions there is room.
func (v *demoView) room() int {
	lines := viewLines + v.setLines() + len(v.hints(v.width))
	if v.small() {
		lines -= viewBlank
	}
	return min(max(v.height-lines, transitionsMin), transitionsMax)
}

func (v *demoView) daySpan() string {
	if v.d.clock.speed == 0 {
		return "no time: a recorded log is replayed"
	}
	if v.d.clock.speed == 1 {
		return "a day: it is real time"
	}
	return formatDuration(time.Duration(86400/v.d.clock.speed*1000) * time.Millisecond)
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
	fmt.Fprintf(b, "%8.0f events/s    %8.0f transitions/s    %s repeated, %s dead letters\n",
		perSecond(v.now.applied, v.before.applied), perSecond(v.now.transitions, v.before.transitions), grouped(int64(v.now.duplicates)), grouped(int64(v.now.dead)))
	if l.N > 0 {
		fmt.Fprintf(b, "event to trigger    p50 %.1f ms    p99 %.1f ms    (%s measured)\n", *l.P50, *l.P99, grouped(int64(l.N)))
	} else {
		b.WriteString("event to trigger    nothing to measure yet\n")
	}
	b.WriteString("\n")
}

func (v *demoView) transitions(b *strings.Builder, bold, dim lipgloss.Style) {
	v.watch.mu.Lock()
	last := slices.Clone(v.watch.last)
	triggers, muted := v.watch.triggers, v.watch.muted
	v.watch.mu.Unlock()
	fmt.Fprintf(b, "%s\n", bold.Render(fmt.Sprintf("transitions: %s triggers, %s muted", grouped(int64(triggers)), grouped(int64(muted)))))
	for _, t := range last[max(0, len(last)-v.room()):] {
		set := ""
		if len(v.now.sets) > 1 {
			set = fmt.Sprintf("%-12s ", t.set)
		}
		line := fmt.Sprintf("  %s  %-14s %s%9s -> %-9s by %s", time.UnixMilli(int64(t.at)).UTC().Format("01-02 15:04"), t.user, set, t.from, t.to, t.cause)
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
		fmt.Fprintf(b, "%s\n\n", dim.Render("ClickHouse: being asked"))
	case r.err != nil:
		fmt.Fprintf(b, "%s\n\n", dim.Render("ClickHouse: "+r.err.Error()))
	default:
		fmt.Fprintf(b, "%s\n", bold.Render(fmt.Sprintf("ClickHouse: %s events, %s transitions", grouped(int64(r.events)), grouped(int64(r.transitions)))))
		if r.day == "" {
			b.WriteString("  its first day is still to come\n\n")
			return
		}
		of := func(n uint64) string {
			return fmt.Sprintf("(%.0f %%)", 100*float64(n)/float64(max(1, r.viewed)))
		}
		fmt.Fprintf(b, "  %s: %s users viewed, %s then carted %s, %s then ordered %s\n\n",
			r.day, grouped(int64(r.viewed)), grouped(int64(r.carted)), of(r.carted), grouped(int64(r.ordered)), of(r.ordered))
	}
}

// hints are the addresses, with a command to try for each, in lines of at most width: to
// be copied as they stand, so what is longer goes on in the next line as shells have it.
func (v *demoView) hints(width int) (lines []string) {
	user := "USER"
	v.watch.mu.Lock()
	if n := len(v.watch.last); n > 0 {
		user = v.watch.last[n-1].user
	}
	v.watch.mu.Unlock()
	for _, hint := range []string{
		"kafka    kcat -C -b " + v.at.broker + " -t triggers -X isolation.level=read_committed -f '%k %s\\n'",
		"sql      curl " + v.at.house + " -d 'SELECT * FROM footfall.funnel_daily FORMAT Pretty'",
		"why      " + v.at.program + " explain " + user + " --brokers " + v.at.broker,
		"metrics  curl -s " + v.at.engine + "/metrics",
	} {
		for len(hint) > width {
			at := strings.LastIndex(hint[:max(0, width-1)], " -") // with the backslash it fits
			if at < len("kafka    ") {
				break
			}
			lines = append(lines, hint[:at]+" \\")
			hint = strings.Repeat(" ", 8) + hint[at:]
		}
		lines = append(lines, hint)
	}
	return lines
}

// program is how this program was called: what a person types to call it again.
func program() string {
	if strings.ContainsAny(os.Args[0], `/\`) {
		if here, err := os.Getwd(); err == nil {
			if rel, err := filepath.Rel(here, os.Args[0]); err == nil && filepath.IsAbs(os.Args[0]) && !strings.HasPrefix(rel, "..") {
				return "." + string(filepath.Separator) + rel
			}
		}
	}
	return os.Args[0]
}

// print is the summary for people.
func (r *demoReport) print(to io.Writer) error {
	var b strings.Builder
	n := func(n int) string { return grouped(int64(n)) }
	fmt.Fprintf(&b, "%11s records published\n%11s events applied, %s repeated, %s dead letters\n", grouped(r.RecordsPublished), n(r.EventsApplied), n(r.Duplicates), n(r.DeadLetters.Total))
	fmt.Fprintf(&b, "%11s transitions: %s triggers, %s muted\n%11s users\n", n(r.Transitions), n(r.Triggers), n(r.Muted), n(r.Users))
	for _, set := range r.Sets {
		indent := "   "
		if len(r.Sets) > 1 {
			fmt.Fprintf(&b, "%11s   %s\n", "", set.Set)
			indent = "     "
		}
		for _, s := range set.Segments {
			fmt.Fprintf(&b, "%11s%s%s\n", grouped(s.Users), indent, s.Segment)
		}
	}
	fmt.Fprintf(&b, "%11s events and %s transitions in ClickHouse\n", grouped(r.ClickHouse["events"]), grouped(r.ClickHouse["transitions"]))
	if r.Latency.N > 0 {
		fmt.Fprintf(&b, "event to trigger: p50 %.1f ms, p99 %.1f ms (%s measured)\n", *r.Latency.P50, *r.Latency.P99, n(r.Latency.N))
	}
	fmt.Fprintf(&b, "compared with an independent oracle, record by record: %d lost, %d doubled\n", r.Lost, r.Doubled)
	switch {
	case !r.Judged:
		fmt.Fprintf(&b, "(it knows the set lifecycle, which is not among segments.sets: of the transitions only their chains were looked at)\n")
	case r.Others > 0:
		fmt.Fprintf(&b, "(it knows the set lifecycle; of the %s transitions of other sets only their chains were looked at)\n", n(r.Others))
	}
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
