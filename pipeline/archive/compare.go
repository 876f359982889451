package archive

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
)

// CompareConfig is what a comparison needs besides an archive's Config, of which it
// uses Log (Bounds and Read), Now, Sleep and Report.
type CompareConfig struct {
	Config
	Table AuditTable

	Mend     bool // send what is missing
	Quick    bool // offsets and hashes of records only, not the rows' contents
	SpanRows int  // records in a span; 50,000

	Progress func(offsets int64) // how many more have been looked at; must not block; nil: nobody listens
}

// Comparison compares what a log has with what a table has, span by span: it reads
// the records once, asks the table what each span's rows add up to, and looks at
// single rows only where that differs. One goroutine runs it.
//
// It differs from the audit that an Archive makes of itself, which compares the
// ledgers with the table and reads only samples of the topics: that one finds what the
// table has lost, this one finds also every record that the archive may have forgotten to
// send, or sent wrong, and what somebody else has changed.
type Comparison struct {
	cfg   CompareConfig
	mends *Archive // owns nothing; it knows how to mend
	rows  Rows     // to decode with

	at    Share
	first int64    // of the span in the making
	sheet []record // its records, in order of offsets
	want  Tally    // what its rows must come to
	out   Compared
}

// record is a record of the span in the making.
type record struct {
	offset        int64
	hash, content uint64
	gives         bool // a row, by today's contract
}

// NewComparison returns a comparison.
func NewComparison(cfg CompareConfig) *Comparison {
	cfg.Config.Table = cfg.Table
	if cfg.SpanRows == 0 {
		cfg.SpanRows = 50_000
	}
	if cfg.Progress == nil {
		cfg.Progress = func(int64) {}
	}
	return &Comparison{cfg: cfg, mends: New(cfg.Config), rows: cfg.Table.Rows()}
}

// Compared is what comparing a share has found.
type Compared struct {
	Share
	Spans   int64 // compared
	Records int64 // of the log that give a row
	Rows    int64 // of the table, those that are alike counted once

	Missing   int64 // records without their row, before anything was mended
	Mended    int64 // rows sent
	Unmended  int64 // records still without their row
	Doubled   int64 // offsets with their row and another beside it
	Different int64 // offsets with another row than theirs
	Foreign   int64 // rows where the log has nothing that gives one, or does not reach

	Copies  int64 // rows that are the same as another: the table makes them one when it merges
	Refused int64 // records without a row that were refused when they came; a contract may change
	Taken   int64 // rows of records that today's contract refuses
	Beyond  int64 // rows before the log's beginning: nothing is left to compare them with
	Deleted int64 // offsets that retention deleted while they were looked for

	Findings []Finding // at most findingsMax

	Until int64 // what comes before it was compared: Next, unless an error ended it
}

// Rest is what is left to compare of a share after an error.
func (c *Compared) Rest() Share {
	rest := c.Share
	rest.First, rest.Stock = c.Until, Stock{} // rows outside the log were counted before all
	return rest
}

// Join adds what was found of the rest.
func (c *Compared) Join(rest *Compared) {
	for to, more := range map[*int64]int64{
		&c.Spans: rest.Spans, &c.Records: rest.Records, &c.Rows: rest.Rows, &c.Missing: rest.Missing, &c.Mended: rest.Mended, &c.Unmended: rest.Unmended,
		&c.Doubled: rest.Doubled, &c.Different: rest.Different, &c.Foreign: rest.Foreign, &c.Copies: rest.Copies,
		&c.Refused: rest.Refused, &c.Taken: rest.Taken, &c.Beyond: rest.Beyond, &c.Deleted: rest.Deleted,
	} {
		*to += more
	}
	c.Findings = append(c.Findings, rest.Findings[:min(len(rest.Findings), findingsMax-len(c.Findings))]...)
	c.Until = rest.Until
}

// Wrong is how many offsets are not as they should be.
func (c *Compared) Wrong() int64 { return c.Unmended + c.Doubled + c.Different + c.Foreign }

// Kind is what is wrong with a row.
type Kind string

// The kinds of findings.
const (
	Missing   Kind = "missing"
	Doubled   Kind = "doubled"
	Different Kind = "different"
	Foreign   Kind = "foreign"
	Copies    Kind = "copies"
)

// Finding names adjoining rows of which the same is to be said.
type Finding struct {
	Kind        Kind
	Partition   Partition
	First, Last int64 // offsets
	Offsets     int64 // how many between them it is true of
	Mended      bool
}

// findingsMax bounds what is named of a share; the rest is counted.
const findingsMax = 100

// Compare compares a share. With an error it returns what it has found until then, nil if
// nothing was compared.
func (c *Comparison) Compare(ctx context.Context, s Share) (*Compared, error) {
	c.at, c.out = s, Compared{Share: s}
	if err := c.outside(ctx); err != nil {
		return nil, fmt.Errorf("compare %s/%d: %w", s.Partition.Topic, s.Partition.Number, err)
	}
	c.begin(s.First)
	for c.first < s.Next {
		err := c.cfg.Log.Read(ctx, s.Partition, c.first, s.Next, func(run []Record) error { return c.collect(ctx, run) })
		if errors.Is(err, ErrGone) {
			err = c.overtaken(ctx)
		} else if err == nil && c.first < s.Next {
			err = c.settle(ctx, s.Next)
		}
		if err != nil {
			out := c.out
			out.Until = c.first
			return &out, fmt.Errorf("compare %s/%d: %w", s.Partition.Topic, s.Partition.Number, err)
		}
	}
	out := c.out
	out.Until = s.Next
	return &out, nil
}

// outside counts the rows before and behind the log.
func (c *Comparison) outside(ctx context.Context) error {
	s := &c.at
	spans := []Span{{Partition: s.Partition, First: s.Stock.First, Next: s.Start}, {Partition: s.Partition, First: s.End, Next: s.Stock.Last + 1}}
	if s.Stock.Rows == 0 || s.Stock.First >= s.Start && s.Stock.Last < s.End {
		return nil
	}
	tallies, err := c.cfg.Table.Tallies(ctx, spans, false)
	if err != nil {
		return err
	}
	c.out.Beyond = tallies[0].Rows
	if n := tallies[1].Rows; n > 0 {
		c.out.Foreign += n
		c.name(Finding{Kind: Foreign, First: s.End, Last: s.Stock.Last, Offsets: n})
	}
	return nil
}

// overtaken goes on where the log begins now: retention has deleted what was to be
// read next.
func (c *Comparison) overtaken(ctx context.Context) error {
	start, _, err := c.cfg.Log.Bounds(ctx, c.at.Partition)
	if err != nil {
		return err
	}
	if start <= c.first {
		return fmt.Errorf("offset %d is not in the log, which begins at %d: %w", c.first, start, ErrGone)
	}
	start = min(start, c.at.Next)
	c.out.Deleted += start - c.first
	c.cfg.Progress(start - c.first)
	c.begin(start)
	return nil
}

// begin begins a span.
func (c *Comparison) begin(first int64) {
	c.first, c.sheet, c.want = first, c.sheet[:0], Tally{}
}

// collect adds a run to the span, and settles the span when it is long enough.
func (c *Comparison) collect(ctx context.Context, run []Record) error {
	for i := range run {
		r := &run[i]
		if r.Control || r.Offset < c.first {
			continue
		}
		rec := record{offset: r.Offset, hash: Hash(r), gives: c.rows.Decode(c.at.Partition, r)}
		if rec.gives {
			if !c.cfg.Quick {
				rec.content = c.rows.Content(rec.hash)
			}
			c.want.add(rec.hash)
			c.want.Content += rec.content
		}
		c.sheet = append(c.sheet, rec)
	}
	if len(c.sheet) < c.cfg.SpanRows {
		return nil
	}
	return c.settle(ctx, run[len(run)-1].Offset+1)
}

// settle compares the span, which ends before next, and begins the next one.
func (c *Comparison) settle(ctx context.Context, next int64) error {
	span := Span{Partition: c.at.Partition, First: c.first, Next: next, Sum: c.want.Sum}
	tallies, err := c.cfg.Table.Tallies(ctx, []Span{span}, !c.cfg.Quick)
	if err != nil {
		return err
	}
	if tallies[0] == c.want {
		c.out.Rows += c.want.Rows
	} else if err := c.look(ctx, span); err != nil {
		return err
	}
	c.out.Spans++
	c.out.Records += c.want.Rows
	c.cfg.Progress(next - c.first)
	c.begin(next)
	return nil
}

// look looks at the rows of a span one by one, has what is missing sent where that
// is wanted, and looks again.
func (c *Comparison) look(ctx context.Context, span Span) error {
	seen, err := c.inspect(ctx, span)
	if err != nil {
		return err
	}
	missing := seen.missing
	if c.cfg.Mend && seen.unsent > 0 {
		before := c.mends.stats.Mended.Load()
		err := c.mend(ctx, span.Partition, seen.from, seen.to+1)
		c.out.Mended += c.mends.stats.Mended.Load() - before
		if err != nil {
			return err
		}
		again, err := c.inspect(ctx, span)
		if err != nil {
			return err
		}
		for _, f := range seen.findings {
			if f.Kind == Missing && again.missing == 0 {
				f.Mended = true
				c.name(f)
			}
		}
		seen = again
	}
	for _, f := range seen.findings {
		c.name(f)
	}
	c.out.Rows += seen.rows
	c.out.Missing += missing
	c.out.Unmended += seen.missing
	c.out.Doubled += seen.doubled
	c.out.Different += seen.different
	c.out.Foreign += seen.foreign
	c.out.Copies += seen.copies
	c.out.Refused += seen.refused
	c.out.Taken += seen.taken
	return nil
}

// mend makes the table have every row of a span. It waits for the log, too: nothing else of
// the share can be compared meanwhile.
func (c *Comparison) mend(ctx context.Context, p Partition, first, next int64) (failed error) {
	m := mending{first: first, at: first, next: next}
	err := c.mends.retry(ctx, fmt.Sprintf("mend %s/%d", p.Topic, p.Number), func() error {
		failed = c.mends.mend(ctx, p, &m)
		if none, ok := errors.AsType[*unanswered](failed); ok {
			return none
		}
		return nil
	})
	return cmp.Or(err, failed)
}

// name keeps a finding, as far as there is room.
func (c *Comparison) name(f Finding) {
	f.Partition = c.at.Partition
	if len(c.out.Findings) < findingsMax {
		c.out.Findings = append(c.out.Findings, f)
	}
}

// inspected is what a look at the rows of a span has found.
type inspected struct {
	rows, missing, doubled, different, foreign, copies, refused, taken int64

	unsent   int64 // records whose own row is not there; those refused are not among them
	from, to int64 // the first of them and the last
	findings []Finding
	last     Kind // of the offset before; "": nothing was wrong with it
}

// inspect compares the records of the span with its rows.
func (c *Comparison) inspect(ctx context.Context, span Span) (*inspected, error) {
	found, err := c.cfg.Table.Found(ctx, span, !c.cfg.Quick)
	if err != nil {
		return nil, err
	}
	var refused []int64
	asked := false
	var in inspected
	for i := 0; i < len(c.sheet) || len(found) > 0; {
		// The next offset is that of a record, of rows, or of both.
		var r *record
		at := int64(0)
		if i < len(c.sheet) {
			r, at = &c.sheet[i], c.sheet[i].offset
		}
		if len(found) > 0 && (r == nil || found[0].Offset < at) {
			r, at = nil, found[0].Offset
		}
		n := 0
		for n < len(found) && found[n].Offset == at {
			n++
		}
		here := found[:n]
		found = found[n:]
		if r != nil {
			i++
			if r.gives && n == 0 && !asked {
				asked = true
				if refused, err = c.cfg.Table.Refused(ctx, span); err != nil {
					return nil, err
				}
			}
		}
		in.take(r, at, here, refused)
	}
	return &in, nil
}

// take compares the record at an offset, nil for none, with the rows there.
func (in *inspected) take(r *record, at int64, rows []Found, refused []int64) {
	right, wrong := 0, 0
	for _, row := range rows {
		in.rows++
		in.copies += row.Copies - 1
		switch {
		case r == nil, row.Hash != r.hash, r.gives && row.Content != r.content:
			wrong++
		default:
			right++
		}
	}
	kind := Kind("")
	switch {
	case r != nil && r.gives && len(rows) == 0:
		if _, known := slices.BinarySearch(refused, at); known {
			in.refused++
			break
		}
		kind = Missing
		in.missing++
		in.absent(at)
	case r == nil || !r.gives:
		in.taken += int64(right)
		in.foreign += int64(wrong)
		if wrong > 0 {
			kind = Foreign
		}
	case wrong > 0 && right > 0:
		kind = Doubled
		in.doubled++
	case wrong > 0:
		kind = Different
		in.different++
		if !slices.ContainsFunc(rows, func(row Found) bool { return row.Hash == r.hash }) {
			in.absent(at)
		}
	case rows[0].Copies > 1:
		kind = Copies
	}
	in.name(kind, at)
}

// absent notes an offset that mending will send: one without a row of its record.
func (in *inspected) absent(at int64) {
	if in.unsent == 0 {
		in.from = at
	}
	in.unsent++
	in.to = at
}

// name says what there is to say of an offset, together with the one before if that
// is the same.
func (in *inspected) name(kind Kind, at int64) {
	if n := len(in.findings); kind != "" && kind == in.last {
		in.findings[n-1].Last = at
		in.findings[n-1].Offsets++
	} else if kind != "" {
		in.findings = append(in.findings, Finding{Kind: kind, First: at, Last: at, Offsets: 1})
	}
	in.last = kind
}
