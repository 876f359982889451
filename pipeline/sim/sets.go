package sim

import (
	"fmt"
	"slices"
	"strings"
	"sync"

	"footfall/pipeline/segment"
	"footfall/schemas"
	"footfall/schemas/segments"
)

// lifecycle is the set that the oracle knows, and that rules always have.
const lifecycle = "lifecycle"

// tastes asks for cells of every kind, by calendars whose days are not all as long, and
// for another set's segment. Its other version has lost one segment, renamed another, and
// asks for more of the same cells.
const tastes = `set: tastes
zone: Europe/Berlin
quiet: "20:30-07:15"
reentry: hours(36)
segments:
  - name: reader
    when: top("any", event.channel) == "email" && count("view", event.category != "", days(30)) >= 2
  - name: evening
    when: top_hour("any") >= 18 && since(last()) < days(3) || first_value("any", event.channel) == "ads"
    reentry: always
  - name: spender
    when: largest_order() > 350 && sum("purchase", event.amount, event.channel != "seo") > spend(calendar("month"))
  - name: quick
    when: followed("view", "purchase", hours(12), days(60)) || ever("refund", event.amount > 400)
    reentry: once
  - name: daily
    when: count("view", calendar("day")) >= 2 || count("view", calendar("week")) >= 3
  - name: loser
    when: segment("lifecycle") in ["lost", "dormant"] && last("view", event.category == "tv") < last("search")
  - name: rest
    otherwise: true
`

const tastesOther = `set: tastes
zone: America/New_York
segments:
  - name: reader
    when: top("any", event.channel) == "email" && count("view", event.category != "", days(90)) >= 4
    reentry: days(2)
  - name: evening
    when: top_hour("any") >= 18 && since(last()) < days(3)
  - name: sprinter
    when: followed("view", "purchase", hours(12), days(90)) || segment("lifecycle") == "active"
  - name: daily
    when: count("view", calendar("day")) >= 3 || spend(calendar("month", 1)) > 900
  - name: rest
    otherwise: true
`

// nudge is spoken of by policies of every kind, which stay the same when its conditions
// change, so that what they mute can be recounted.
const nudge = `set: nudge
reentry: days(3)
segments:
  - name: left_cart
    when: open_carts() > 0 && since(cart_changed()) >= hours(4)
    reentry: cart
  - name: bought
    when: orders() >= 1 && since(last("purchase")) < hours(20)
    reentry: once
  - name: back
    when: since(last()) < hours(12)
  - name: curious
    when: distinct("view", event.product_id, days(14)) >= 3
  - name: regular
    when: orders() >= 3
    reentry: always
  - name: gone
    otherwise: true
`

// aside is not capped.
const aside = `set: aside
capped: false
segments:
  - name: seen
    when: since(last()) < hours(6)
  - name: away
    otherwise: true
`

// recipe is what rules are made of.
type recipe struct {
	opt  segment.Options
	sets []string // lifecycle besides; the text of one, or the name of a shipped one
}

// recipes are what a world's rules can be, in families: a world has some of one.
func recipes() [][]recipe {
	later := strings.NewReplacer("hours(4)", "hours(8)", "hours(12)", "hours(30)", "days(14)", "days(40)").Replace(nudge)
	quiet := segment.Options{Quiet: segment.Quiet{From: 21 * 60, To: 8 * 60}}
	capped := segment.Options{Cap: segment.Cap{Triggers: 2, Within: 2 * schemas.Day}, Hysteresis: 5, EpochAt: 4 * schemas.Hour, Zone: "Europe/Berlin"}
	return [][]recipe{
		{
			{},
			{quiet, nil}, // which differ in nothing that moves anybody
			{sets: []string{"cart", "engagement"}},
			{sets: []string{tastes, "loyalty"}},
			{quiet, []string{tastesOther, "browse"}},
			{sets: []string{"rfm", "engagement"}},
			{sets: []string{"milestones", "replenishment", tastes, "cart"}},
			{sets: []string{tastesOther, "rfm"}},
		},
		{
			{capped, []string{nudge, aside}},
			{capped, []string{"cart", aside, nudge}},
			{capped, []string{later, aside, "rfm"}},
			{capped, []string{nudge, aside, "loyalty", "engagement"}},
			{capped, []string{later, aside, tastesOther}}, // whose own policies are not recounted
		},
	}
}

// constant is the family whose policies are the same in all its rules, in all sets but
// those that are not recounted.
const constant = 1

// programs are the compiled recipes: they are immutable, and all worlds share them.
//
//nolint:gochecknoglobals // to compile them takes longer than to run a seed
var programs = sync.OnceValue(func() (all [][]*segment.Program) {
	probe, err := schemas.NewDecoder(contracts()[0])
	if err != nil {
		panic(err)
	}
	for _, family := range recipes() {
		var compiled []*segment.Program
		for _, r := range family {
			opt := r.opt
			opt.Contract, opt.Exponent = probe.Hash(), 2
			p, err := segment.Compile(opt, r.files()...)
			if err != nil {
				panic(err)
			}
			compiled = append(compiled, p)
		}
		all = append(all, compiled)
	}
	return all
})

func (r *recipe) files() (files []segment.File) {
	for _, s := range append([]string{lifecycle}, r.sets...) {
		text := []byte(s)
		if !strings.Contains(s, "\n") {
			var err error
			if text, err = segments.Read(s); err != nil {
				panic(err) // it is shipped
			}
		}
		files = append(files, segment.File{Name: s, Text: text})
	}
	return files
}

// chooseRules gives a world of many sets its rules.
func (w *world) chooseRules(decoder func() *schemas.Decoder) {
	all := programs()
	w.family = w.sets.IntN(len(all))
	w.rules = nil
	for _, i := range w.sets.Perm(len(all[w.family]))[:2+w.sets.IntN(3)] {
		w.rules = append(w.rules, rules{all[w.family][i], decoder})
	}
}

// rulesOf tells which of the world's rules the names of sets are of.
func (w *world) rulesOf(sets []schemas.SetNames) int {
	for i := range w.rules {
		if names := w.rules[i].program.Names(); &names[0] == &sets[0] {
			return i
		}
	}
	return 0 // made up, for outputs of a life that was never lived
}

// setNames are the names of all sets that any of the world's rules have.
func (w *world) setNames() (names []string) {
	for i := range w.rules {
		for _, s := range w.rules[i].program.Names() {
			if !slices.Contains(names, s.Name) {
				names = append(names, s.Name)
			}
		}
	}
	return names
}

// reconfigure lets somebody write other rules into the configuration, which processes
// that begin go by at once, and those that live when they are told: each by itself, so
// that for a while some go by these and some by those.
func (w *world) reconfigure() {
	if !w.opt.Sets {
		return
	}
	if !w.ended() && w.sets.IntN(25) == 0 {
		w.using = w.sets.IntN(len(w.rules))
		w.trace("other rules are written: %d", w.using)
	}
	for _, p := range w.lives {
		if !p.over && !p.fenced && p.variant != w.using && (w.ended() || p.frozen == 0 && w.sets.IntN(6) == 0) {
			w.result.Switches++
			p.hangUp()
		}
	}
}

// hangUp is SIGHUP: the process reads the rules again.
func (p *process) hangUp() {
	p.variant, p.using = p.world.using, p.rules[p.world.using]
	p.trace("%s is told to go by rules %d", p.name, p.variant)
	p.epochs.follow(p.using.program)
}

// goBy is what its epochs tell the process to go by.
func (p *process) goBy(program *segment.Program) {
	p.programs = append(p.programs, program)
	if p.pipeline != nil {
		p.pipeline.Switch(program)
	}
}

// goesBy gives the rules of the process that a mark of its own is of: everybody has been
// evaluated under them. ok is false where nobody has, or where several have its hash.
func (p *process) goesBy(m *schemas.Mark) (of rules, ok bool) {
	of = p.using
	for _, program := range p.programs {
		if m.Since != 0 || program.Hash() != m.Rules || program.Epoch().Number != m.Epoch {
			continue
		}
		if ok && &of.program.Names()[0] != &program.Names()[0] {
			return of, false
		}
		of.program, ok = program, true
	}
	return of, ok
}

// enrich gives an event what sets ask for besides what lifecycle does.
func (s *shop) enrich(kind string) (text string) {
	some := func(field string, values ...string) {
		if s.rng.IntN(3) > 0 {
			text += fmt.Sprintf(`,%q:%q`, field, values[s.rng.IntN(len(values))])
		}
	}
	some("product_id", "p1", "p2", "p3", "p4")
	some("category", "tv", "toys")
	some("channel", "email", "ads", "seo")
	switch {
	case kind == "add_to_cart", s.rng.IntN(4) == 0:
		some("cart_id", "c1", "c2", "c3")
	case s.rng.IntN(20) == 0:
		some("birthday", "1990-02-28", "--03-01", "soon")
	case s.rng.IntN(9) == 0:
		some("timezone", "Europe/Berlin", "America/Santiago", "Australia/Lord_Howe", "Mars/Olympus")
	}
	return text
}
