package segment

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/cespare/xxhash/v2"

	"footfall/pipeline/profile"
	"footfall/schemas"
	"footfall/schemas/segments"
)

// Options are what rules mean besides their text.
type Options struct {
	// Contract is the hash of what else decides a segment: the version of the event
	// contract and the currencies' rates (design 3.2).
	Contract uint64
	Exponent int    // decimals of the reporting currency
	Zone     string // of sets that name none; empty: UTC

	// EpochAt is the time of day, in Zone, at which epochs of quantiles begin.
	EpochAt schemas.Millis
	// Hysteresis, in percent: a bound of quantiles that moves by less stays.
	Hysteresis int

	Cap Cap

	// Quiet are the quiet hours of sets that name none.
	Quiet Quiet

	// SayChanges has said aloud what a change of rules makes of users; else it is muted.
	SayChanges bool
}

// Limits of a program (R4).
const (
	setsMax     = 64
	segmentsMax = 1000 // of a set
	errorsMax   = 100  // in expressions, before the rest of them is not looked at: each wrong name is compared with all that there are
)

// semantics is part of the rules' hash: it grows when the same rules come to mean
// something else.
const semantics = 3

// shiftsSemantics is that of rules that add durations to moments alone, so that it leaves the
// others their hash: with 1, never stays never.
const shiftsSemantics = 1

// rule puts a user into a segment.
type rule struct {
	when    *node     // nil: everybody who is left
	holds   condition // of when
	clauses []clause  // of when
	where   *Error    // its place, for who has to point at it
	reentry Reentry   // into its segment
}

// set is a segment set: the first rule that holds wins.
type set struct {
	name, about string
	file        string
	zone        *zone
	rules       []rule
	abouts      []string // of the segments
	uses        []int    // sets that its rules name
	needs       uint64   // bit i: set i has to be evaluated for it; itself, what it uses, and so on
	touched     Touched  // what an evaluation looks at
	asks        []bool   // [cells] likewise
	apart       bool     // its transitions are not capped
	quiet       Quiet
	scores      bool // it, or a set it uses, scores by quantiles: it says nothing without an epoch
}

// Program is a checked and compiled list of segment sets. It is immutable and may be
// shared; an Evaluator runs it.
type Program struct {
	sets   []set
	order  []int // of evaluation: a set after those that it uses
	names  []schemas.SetNames
	layout *profile.Layout
	cells  []*cell // by number
	nodes  int
	hash   uint64

	exponent   int // of the reporting currency
	quantiles  []*quantile
	hysteresis int
	epochs     epochTimes
	epoch      Epoch
	cap        Cap

	saysChanges bool
	contact     *contacts // nil: no set has quiet hours
}

// Touched is what an event may have changed of a user: cells, and fields of the
// Profile.
type Touched struct {
	cells profile.Changed
	base  uint16 // 1: the times of any event; 1 << (kind + 1): what events of that kind change
}

// TouchedBy is what a folded event has touched.
func TouchedBy(kind schemas.Kind, cells profile.Changed) Touched {
	return Touched{cells, 1 | 1<<(kind+1)}
}

// Everything is touched when it is not known what is.
func Everything() Touched { return Touched{^profile.Changed(0), ^uint16(0)} }

func (t Touched) meets(o Touched) bool { return t.cells&o.cells != 0 || t.base&o.base != 0 }

func (t *Touched) add(o Touched) { t.cells |= o.cells; t.base |= o.base }

// Compile compiles sets, or returns everything that is wrong with them; of expressions
// with very many errors the first ones.
func Compile(opt Options, files ...File) (*Program, error) {
	c, err := newCompilation(opt)
	if err != nil {
		return nil, err
	}
	for _, f := range files {
		c.read(f)
	}
	if len(c.errs) == 0 {
		c.check()
	}
	if len(c.errs) == 0 {
		c.arrange()
	}
	var p *Program
	if len(c.errs) == 0 {
		p = c.program()
	}
	if len(c.errs) > 0 {
		return nil, sorted(c.errs)
	}
	return p, nil
}

// compilation is a Compile under way.
type compilation struct {
	opt     Options
	checker *checker
	graph   *graph
	zone    *zone
	written []*written
	sets    []set
	contact *contacts
	errs    []error
	said    bool // that there are too many
}

func newCompilation(opt Options) (*compilation, error) {
	if opt.Zone == "" {
		opt.Zone = "UTC"
	}
	z, err := loadZone(opt.Zone)
	if err != nil {
		return nil, err
	}
	checker, err := newChecker()
	if err != nil {
		return nil, err
	}
	return &compilation{opt: opt, checker: checker, graph: newGraph(opt.Exponent), zone: z}, nil
}

func (c *compilation) read(f File) {
	w, err := f.read()
	if err != nil {
		c.errs = append(c.errs, err)
		return
	}
	for _, other := range c.written {
		if other.name == w.name {
			c.errs = append(c.errs, &Error{w.file, w.at.Position.Line, w.at.Position.Column, fmt.Sprintf("set %q is in %s too", w.name, other.file)})
		}
	}
	if len(w.segments) > segmentsMax {
		c.errs = append(c.errs, &Error{w.file, w.at.Position.Line, w.at.Position.Column, fmt.Sprintf("%d segments, and a set has at most %d", len(w.segments), segmentsMax)})
	}
	c.written = append(c.written, w)
	if len(c.written) > setsMax {
		c.errs = append(c.errs, &Error{File: w.file, What: fmt.Sprintf("%d sets, and there are at most %d", len(c.written), setsMax)})
	}
}

// check type-checks and lowers all expressions.
func (c *compilation) check() {
	var names []string
	for _, w := range c.written {
		names = append(names, w.name)
	}
	for _, w := range c.written {
		c.sets = append(c.sets, c.set(w, names))
	}
	c.contacts()
}

func (c *compilation) set(w *written, names []string) set {
	s := set{name: w.name, about: w.about, file: w.file, zone: c.zone}
	if w.zone != "" {
		z, err := loadZone(w.zone)
		if err != nil {
			c.errs = append(c.errs, &Error{w.file, w.zoneAt.Position.Line, w.zoneAt.Position.Column, err.Error()})
			return s
		}
		s.zone = z
	}
	checker := *c.checker
	low := &lowerer{
		g: c.graph, zone: s.zone, exponent: c.opt.Exponent, defined: map[string]*node{}, setNames: names,
		sets: func(name string) (int, []string) {
			i := slices.Index(names, name)
			if i < 0 {
				return -1, nil
			}
			if !slices.Contains(s.uses, i) {
				s.uses = append(s.uses, i)
			}
			return i, segmentNames(c.written[i])
		},
	}
	for _, d := range w.defines {
		if !c.full(w) {
			c.definition(w, &d, &checker, low)
		}
	}
	for i := range w.segments {
		seg := &w.segments[i]
		r := rule{where: &Error{File: w.file, Line: seg.at.Position.Line, Column: seg.at.Position.Column}}
		if seg.when != nil && !c.full(w) {
			checked, _, faults := checker.check(seg.when.text)
			if faults == nil {
				n, err := low.rule(checked)
				faults = splitFaults(err)
				r.when = n
			}
			c.faults(w.file, seg.when, faults)
		}
		s.rules = append(s.rules, r)
		s.abouts = append(s.abouts, seg.about)
	}
	c.policies(w, &s)
	return s
}

// full tells that there are errors enough, and says so, once.
func (c *compilation) full(w *written) bool {
	if len(c.errs) >= errorsMax && !c.said {
		c.said = true
		c.errs = append(c.errs, &Error{File: w.file, What: fmt.Sprintf("%d errors or more; mend these, and the rest is looked at", errorsMax)})
	}
	return c.said
}

func segmentNames(w *written) (names []string) {
	for _, s := range w.segments {
		names = append(names, s.name)
	}
	return names
}

func splitFaults(err error) (all []error) {
	for _, f := range faultsOf(err) {
		all = append(all, f)
	}
	return all
}

func (c *compilation) definition(w *written, d *named, checker *checker, low *lowerer) {
	if d.when == nil {
		return
	}
	if slices.Contains(checker.names, d.name) {
		c.errs = append(c.errs, &Error{w.file, d.at.Position.Line, d.at.Position.Column, fmt.Sprintf("define: %s has a meaning already; choose another name", d.name)})
		return
	}
	checked, t, faults := checker.check(d.when.text)
	if faults == nil {
		n, err := low.definition(checked)
		if faults = splitFaults(err); err == nil {
			low.defined[d.name] = n
			if err := checker.define(d.name, t); err != nil {
				faults = append(faults, &fault{1, 1, err.Error()})
			}
		}
	}
	c.faults(w.file, d.when, faults)
}

func (c *compilation) faults(file string, e *expression, faults []error) {
	for _, err := range faults {
		if f, ok := errors.AsType[*fault](err); ok {
			c.errs = append(c.errs, e.at(file, f))
		}
	}
}

// arrange puts the sets into an order in which each comes after those it uses, and
// refuses circles and rules that can never be reached.
func (c *compilation) arrange() {
	state := make([]int, len(c.sets)) // 1: under way, 2: done
	var visit func(i int, path []string)
	visit = func(i int, path []string) {
		s := &c.sets[i]
		path = append(path, s.name)
		switch state[i] {
		case 1:
			c.errs = append(c.errs, &Error{File: s.file, Line: c.written[i].at.Position.Line, Column: c.written[i].at.Position.Column, What: "sets ask for each other in a circle: " + strings.Join(path, " -> ")})
		case 0:
			state[i] = 1
			for _, u := range s.uses {
				visit(u, path)
			}
		}
		state[i] = 2
	}
	for i := range c.sets {
		visit(i, nil)
	}
	for i := range c.sets {
		c.errs = append(c.errs, unreachable(&c.sets[i], segmentNames(c.written[i]))...)
	}
}

// program compiles what is checked, unless it asks for too much.
func (c *compilation) program() *Program {
	p := &Program{sets: c.sets, nodes: len(c.graph.nodes), exponent: c.opt.Exponent}
	if p.layout, p.cells = c.layout(); p.layout == nil {
		return nil
	}
	compile := &compiler{numbers: map[*node]number{}, conditions: map[*node]condition{}}
	for i := range p.sets {
		s := &p.sets[i]
		for j := range s.rules {
			if r := &s.rules[j]; r.when != nil {
				r.when.uses++
				r.holds = compile.condition(r.when)
				r.clauses = compile.clausesOf(r.when, false)
			}
		}
		p.names = append(p.names, schemas.SetNames{Name: s.name, Segments: segmentNames(c.written[i])})
	}
	done := make([]bool, len(p.sets))
	var visit func(int)
	visit = func(i int) {
		if done[i] {
			return
		}
		done[i] = true
		p.sets[i].needs = 1 << i // of at most setsMax
		for _, u := range p.sets[i].uses {
			visit(u)
			p.sets[i].needs |= p.sets[u].needs
			p.sets[i].touched.add(p.sets[u].touched)
			for cell, asks := range p.sets[u].asks {
				p.sets[i].asks[cell] = p.sets[i].asks[cell] || asks
			}
			p.sets[i].scores = p.sets[i].scores || p.sets[u].scores
		}
		p.order = append(p.order, i)
	}
	for i := range p.sets {
		set := &p.sets[i]
		set.asks = make([]bool, len(p.cells))
		for _, r := range set.rules {
			looksAt(r.when, set.asks)
			set.touched.add(touches(r.when))
			set.scores = set.scores || has(r.when, opQuantile)
		}
	}
	for i := range p.sets {
		visit(i) // before it, what it uses
	}
	for _, q := range c.graph.quantiles {
		q.number = compile.number(q.value)
	}
	p.quantiles, p.hysteresis, p.epochs = c.graph.quantiles, c.opt.Hysteresis, epochTimes{c.opt.EpochAt, c.zone}
	p.cap, p.contact, p.saysChanges = c.opt.Cap, c.contact, c.opt.SayChanges
	p.hash = c.hash()
	return p
}

// layout lays out the cells that rules look at, unless there are too many.
func (c *compilation) layout() (*profile.Layout, []*cell) {
	seen := map[*node]bool{}
	var used []*cell
	var walk func(*node)
	look := func(cl *cell, n *node) {
		if cl == nil {
			return
		}
		if !slices.Contains(used, cl) {
			used = append(used, cl)
		}
		w := n.win
		if n.op == opFollowed && cl == n.cell && w.span > 0 {
			w.span += schemas.Millis(n.n)
		}
		if !slices.Contains(cl.windows, w) && cl.Keeps != profile.Carts {
			cl.windows = append(cl.windows, w)
		}
		if n.op == opAtLeast {
			cl.K = max(cl.K, int(n.n))
		}
	}
	walk = func(n *node) {
		if n == nil || seen[n] {
			return
		}
		seen[n] = true
		look(n.cell, n)
		look(n.other, n)
		for _, a := range n.args {
			walk(a)
		}
	}
	for i := range c.sets {
		for _, r := range c.sets[i].rules {
			walk(r.when)
		}
	}
	for _, q := range c.graph.quantiles {
		walk(q.value)
	}
	if c.contact != nil {
		walk(c.contact.hours)
		walk(c.contact.told)
	}
	if len(used) > profile.CellsMax {
		c.errs = append(c.errs, &Error{File: c.written[len(c.written)-1].file, What: fmt.Sprintf("the rules of all sets ask for %d different things to be kept of every user, and at most %d are", len(used), profile.CellsMax)})
		return nil, nil
	}
	slices.SortFunc(used, func(a, b *cell) int { return strings.Compare(a.Name, b.Name) })
	cells := make([]profile.Cell, len(used))
	for i, cl := range used {
		cl.number = i
		cl.Since = since(cl.windows)
		for _, w := range cl.windows {
			cl.Keep = max(cl.Keep, w.reach())
		}
		if len(cl.windows) == 0 || cl.Keep == profile.Forever {
			cl.Since, cl.Keep = nil, profile.Forever
		}
		cells[i] = cl.Cell
	}
	return profile.NewLayout(cells), used
}

// looksAt notes the cells that a node looks at.
func looksAt(n *node, into []bool) {
	if n == nil {
		return
	}
	for _, c := range []*cell{n.cell, n.other} {
		if c != nil {
			into[c.number] = true
		}
	}
	for _, a := range n.args {
		looksAt(a, into)
	}
}

// has tells whether a node, or what it is made of, is of a kind.
func has(n *node, o op) bool {
	return n != nil && (n.op == o || slices.ContainsFunc(n.args, func(a *node) bool { return has(a, o) }))
}

// touches is what a node looks at.
func touches(n *node) (t Touched) {
	if n == nil {
		return t
	}
	for _, c := range []*cell{n.cell, n.other} {
		if c != nil {
			t.cells |= profile.ChangedBy(c.number)
		}
	}
	if n.op == opBase {
		switch n.n {
		case baseFirst, baseLast:
			t.base |= 1
		case baseFirstPurchase, baseLastPurchase:
			t.base |= 1 << (schemas.Purchase + 1)
		case baseRevenue:
			t.base |= 1<<(schemas.Purchase+1) | 1<<(schemas.Refund+1)
		default:
			t.base |= 1 << (n.n - baseCount + 1)
		}
	}
	for _, a := range n.args {
		t.add(touches(a))
	}
	return t
}

// hash is of all that decides a segment: the same for rules that decide the same,
// whatever their layout in the files. Where machines know a zone differently, as when its
// law has changed, the same files are other rules. Policies are not in it: who is where does not
// depend on what is said of it.
func (c *compilation) hash() uint64 {
	sum := binary.LittleEndian.AppendUint64(nil, semantics)
	sum = binary.LittleEndian.AppendUint64(sum, c.opt.Contract)
	text := func(s string) {
		sum = binary.LittleEndian.AppendUint32(sum, uint32(len(s)))
		sum = append(sum, s...)
	}
	shifting := false
	for i := range c.sets {
		s := &c.sets[i]
		text(s.name)
		text(s.zone.name)
		sum = s.zone.appendOffsets(sum)
		for j, name := range segmentNames(c.written[i]) {
			text(name)
			if when := s.rules[j].when; when != nil {
				text(when.source)
				shifting = shifting || when.shifting()
			}
		}
	}
	if shifting {
		sum = append(sum, shiftsSemantics)
	}
	return xxhash.Sum64(sum)
}

// Hash is equal for programs that put users into the same segments.
func (p *Program) Hash() uint64 { return p.hash }

// SaysChanges tells that what these rules make of users when they take over is said aloud.
func (p *Program) SaysChanges() bool { return p.saysChanges }

// Names are the names of the sets and of their segments, by the numbers that Eval gives.
func (p *Program) Names() []schemas.SetNames { return p.names }

// Asks tells whether a set, or one that it uses, looks at a cell.
func (p *Program) Asks(set, cell int) bool { return p.sets[set].asks[cell] }

// NeedsEpoch tells whether a set of the rules scores by quantiles, or one that it uses
// does: it says nothing without an epoch.
func (p *Program) NeedsEpoch(set string) bool {
	for i := range p.sets {
		if p.sets[i].name == set {
			return p.sets[i].scores
		}
	}
	return false
}

// Sets is how many sets there are.
func (p *Program) Sets() int { return len(p.sets) }

// Layout is what the program keeps of a user besides the Profile.
func (p *Program) Layout() *profile.Layout { return p.layout }

// Shipped compiles sets that footfall is shipped with.
func Shipped(opt Options, names ...string) (*Program, error) {
	var files []File
	for _, name := range names {
		text, err := segments.Read(name)
		if err != nil {
			return nil, err
		}
		files = append(files, File{Name: "segments/" + name + ".yaml", Text: text})
	}
	return Compile(opt, files...)
}

// Lifecycle compiles the built-in lifecycle set. contract is the hash of what else
// decides a segment: the version of the event contract and the currencies' rates.
func Lifecycle(contract uint64) *Program {
	p, err := Shipped(Options{Contract: contract}, "lifecycle")
	if err != nil {
		panic(err) // it is shipped, and tested
	}
	return p
}
