// Package file reads recorded events from CSV, text and NDJSON files, plain or
// compressed, by a mapping that is data and not code, and gives them in time order,
// in the form of the event contract.
//
// Not allowed here: publishing (that is for the caller), deciding what an event
// means, floats (an amount passes through as the decimal text of the file), and
// dropping a row without counting it.
package file

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"

	"golang.org/x/text/encoding/charmap"

	"footfall/schemas"
)

// Limits.
const (
	// SortBytesDefault is how many bytes of events Open sorts in memory.
	SortBytesDefault = 2 << 30

	groupsMax     = 100_000 // rows between two of one group
	reportsMax    = 10      // malformed rows told, of all that are counted
	reportMax     = 400     // bytes of such a report
	eventOverhead = 64      // bytes of an Event beside its key and value
)

// Malformed is the reason by which rows are skipped that cannot be read.
const Malformed = "malformed"

// Event is one event of the file. It owns its memory; the key may be a piece of the
// value's.
type Event struct {
	Key, Value []byte // the user's id; JSON of the event contract
	Time       schemas.Millis
}

// Stats is what became of the rows: every row went into an event or was skipped.
type Stats struct {
	Rows    int64            // rows read (of a nested file, its events), header and blank lines aside
	Events  int64            // events given
	Skipped map[string]int64 // rows that are no event, by reason
	Reports []string         // the first malformed rows, file:row: column: reason
}

// Options of Open. The zero value is good.
type Options struct {
	// SortBytes limits the events of a file that is not sorted, which are sorted in
	// memory; 0 is SortBytesDefault.
	SortBytes int64
}

// Reader gives the events of one file, once.
type Reader struct {
	name    string // without folder and .gz or .zst
	mapping *Mapping
	opts    Options
	program *program
	rows    rows
	lines   *bufio.Scanner // instead of program and rows: events as they are
	close   func() error
	stats   Stats
	read    atomic.Int64 // bytes of the file, compressed as it is
	size    int64        // 0: unknown
	given   atomic.Int64 // events, of a file that was sorted, of
	total   atomic.Int64
}

// Open begins to read a file by a mapping. It checks that the file has the columns
// the mapping names.
func Open(path string, m *Mapping, opts Options) (*Reader, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err // it names the file
	}
	info, err := f.Stat()
	if err == nil && info.IsDir() {
		err = fmt.Errorf("%s is a folder; give a file", path)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	r, err := New(f, filepath.Base(path), m, opts)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	closeStream := r.close
	r.close = func() error { return errors.Join(closeStream(), f.Close()) }
	r.size = info.Size()
	return r, nil
}

// New begins to read a stream, gzip or zstd or plain, as Open reads a file of that
// name. The name is part of every event id.
func New(in io.Reader, name string, m *Mapping, opts Options) (*Reader, error) {
	if opts.SortBytes == 0 {
		opts.SortBytes = SortBytesDefault
	}
	r := &Reader{mapping: m, opts: opts, stats: Stats{Skipped: map[string]int64{}}}
	r.name = strings.TrimSuffix(strings.TrimSuffix(name, ".gz"), ".zst")
	plain, closeStream, err := Decompress(&counter{in, &r.read})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", r.name, err)
	}
	r.close = closeStream
	if m.Encoding == "windows-1252" {
		plain = charmap.Windows1252.NewDecoder().Reader(plain)
	} else if plain, err = unmarked(plain); err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", r.name, err), closeStream())
	}
	if m.Format == "events" {
		r.lines = lines(plain)
		return r, nil
	}
	if r.program, err = compile(m); err != nil {
		return nil, errors.Join(fmt.Errorf("mapping %s: %w", m.Name, err), closeStream())
	}
	if r.rows, err = openRows(plain, m, r.program.columns); err != nil {
		return nil, errors.Join(fmt.Errorf("%s: mapping %s: %w", r.name, m.Name, err), closeStream())
	}
	return r, nil
}

// Close gives the file back.
func (r *Reader) Close() error { return r.close() }

// Stats returns the counts so far; they are final when Events has ended.
func (r *Reader) Stats() Stats {
	s := r.stats
	s.Skipped = maps.Clone(s.Skipped)
	s.Reports = slices.Clone(s.Reports)
	return s
}

// Progress returns the share of the file that has been given, from 0 to 1: of its
// bytes while it is streamed, of its events once it is sorted. It may be called while
// Events runs elsewhere.
func (r *Reader) Progress() float64 {
	done, total := r.read.Load(), r.size
	if !r.mapping.Sorted {
		done, total = r.given.Load(), r.total.Load()
	}
	if total == 0 {
		return 0
	}
	return min(1, float64(done)/float64(total))
}

// Events gives the events in order of time, those of one time in the order of the
// file. The same file and mapping give the same events, byte for byte. It ends after
// an error; a malformed row is none, but counted.
func (r *Reader) Events() iter.Seq2[Event, error] {
	if r.mapping.Sorted {
		return r.streamed
	}
	return r.sorted
}

// streamed gives the events of a file that promises to be sorted.
func (r *Reader) streamed(yield func(Event, error) bool) {
	last, lastLine := schemas.Millis(0), int64(0)
	err := r.inFileOrder(func(d *draft) error {
		if d.time < last {
			return fmt.Errorf("%s:%d: time goes back from row %d, but the mapping says sorted: true; leave that away to sort in memory",
				r.name, d.line, lastLine)
		}
		last, lastLine = d.time, d.line
		return r.give(d, yield)
	})
	if err != nil && !errors.Is(err, errStopped) {
		yield(Event{}, err)
	}
}

// sorted reads all events before it gives the first. It takes O(n) memory.
func (r *Reader) sorted(yield func(Event, error) bool) {
	var drafts []*draft
	used := int64(0)
	err := r.inFileOrder(func(d *draft) error {
		used += d.size()
		if used > r.opts.SortBytes {
			return fmt.Errorf("%s:%d: the events so far take more than %d bytes to sort in memory; sort the file by time and say sorted: true in the mapping",
				r.name, d.line, r.opts.SortBytes)
		}
		drafts = append(drafts, d)
		return nil
	})
	if err != nil {
		yield(Event{}, err)
		return
	}
	slices.SortStableFunc(drafts, func(a, b *draft) int {
		switch {
		case a.time < b.time:
			return -1
		case a.time > b.time:
			return 1
		}
		return 0
	})
	r.total.Store(int64(len(drafts)))
	for i, d := range drafts {
		drafts[i] = nil // given away
		r.given.Add(1)
		if r.give(d, yield) != nil {
			return
		}
	}
}

// errStopped says that the caller wants no more events.
var errStopped = errors.New("stopped")

func (r *Reader) give(d *draft, yield func(Event, error) bool) error {
	r.stats.Events++
	ev := Event{Value: d.finish(), Time: d.time}
	if d.keyAt > 0 {
		ev.Key = ev.Value[d.keyAt:d.keyTo:d.keyTo]
	} else {
		ev.Key = []byte(d.key)
	}
	if !yield(ev, nil) {
		return errStopped
	}
	return nil
}

// inFileOrder calls each with every event, in the order of their first rows.
func (r *Reader) inFileOrder(each func(*draft) error) error {
	if r.lines != nil {
		return r.asTheyAre(each)
	}
	enc := &encoder{program: r.program, file: r.name}
	g := groups{by: r.program.by, within: int64(r.program.within), open: map[string]*draft{}}
	for {
		row, err := r.rows.next()
		var bad *rowError
		if errors.Is(err, io.EOF) {
			return g.emit(true, each)
		}
		if err != nil && !errors.As(err, &bad) {
			return fmt.Errorf("%s:%w", r.name, err)
		}
		r.stats.Rows++
		if err == nil {
			err = r.take(enc, row, &g)
		}
		if errors.As(err, &bad) {
			r.malformed(bad)
		} else if err != nil {
			return err
		} else if err := g.emit(false, each); err != nil {
			return err
		}
		if g.held > r.opts.SortBytes {
			return fmt.Errorf("%s:%d: the events whose rows may still go on take more than %d bytes; say a smaller within in the mapping",
				r.name, row.line, r.opts.SortBytes)
		}
	}
}

// take adds a row to the events under construction, or counts it as skipped. An
// error is a *rowError.
func (r *Reader) take(enc *encoder, row row, g *groups) error {
	reason, err := r.program.skipped(row)
	if err != nil {
		return err
	}
	if reason != "" {
		r.stats.Skipped[reason]++
		return nil
	}
	if d := g.find(row); d != nil {
		before := d.size()
		err := enc.item(d, row)
		g.held += d.size() - before
		return err
	}
	d, err := enc.draft(row)
	if err == nil && len(g.by) > 0 {
		err = enc.item(d, row)
	}
	if err == nil {
		g.add(d)
	}
	return err
}

func (r *Reader) malformed(bad *rowError) {
	r.stats.Skipped[Malformed]++
	if len(r.stats.Reports) < reportsMax {
		report := r.name + ":" + bad.Error()
		if len(report) > reportMax {
			report = strings.ToValidUTF8(report[:reportMax], "") + "..."
		}
		r.stats.Reports = append(r.stats.Reports, report)
	}
}

// groups are the events to which rows may still be added, in the order of their
// first rows. Without grouping they are complete at once.
type groups struct {
	by     []int // columns; empty: no grouping
	within int64
	taken  int64  // rows that went into an event
	held   int64  // bytes of the queue
	key    []byte // scratch
	open   map[string]*draft
	queue  []*draft
	first  int // of the queue: those before it are given away
}

// find returns the event a row belongs to, or nil if it begins one, which add then
// takes.
func (g *groups) find(r row) *draft {
	if len(g.by) == 0 {
		return nil
	}
	g.key = g.key[:0]
	for i, at := range g.by {
		if i > 0 {
			g.key = append(g.key, 0)
		}
		g.key = append(g.key, r.values[at]...)
	}
	d := g.open[string(g.key)]
	if d == nil || g.taken-d.last > g.within {
		return nil
	}
	g.taken++
	d.last = g.taken
	return d
}

func (g *groups) add(d *draft) {
	g.taken++
	d.last = g.taken
	if len(g.by) > 0 {
		d.by = string(g.key)
		g.open[d.by] = d
	}
	g.queue = append(g.queue, d)
	g.held += d.size()
}

// emit gives away the events at the front of the queue that are complete, or all.
func (g *groups) emit(all bool, each func(*draft) error) error {
	for g.first < len(g.queue) && (all || len(g.by) == 0 || g.taken-g.queue[g.first].last > g.within) {
		d := g.queue[g.first]
		g.queue[g.first] = nil
		g.first++
		g.held -= d.size()
		if g.open[d.by] == d {
			delete(g.open, d.by)
		}
		if err := each(d); err != nil {
			return err
		}
	}
	if 2*g.first >= len(g.queue) { // as many are moved as were given away
		g.queue = slices.Delete(g.queue, 0, g.first)
		g.first = 0
	}
	return nil
}

// skipped returns the reason why a row is no event, or "".
func (p *program) skipped(r row) (string, error) {
	for i := range p.skips {
		s := &p.skips[i]
		holds, err := p.holds(s, r)
		if err != nil {
			return "", err
		}
		if holds && s.unless != nil {
			var except bool
			if except, err = p.holds(s.unless, r); err != nil {
				return "", err
			}
			holds = !except
		}
		if holds {
			return s.reason, nil
		}
	}
	return "", nil
}

func (p *program) holds(s *skip, r row) (bool, error) {
	holds, err := s.test.holds(r.values[s.column])
	if err != nil {
		return false, &rowError{r.line, p.columns[s.column], err.Error()}
	}
	return holds, nil
}
