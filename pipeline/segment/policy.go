package segment

import (
	"fmt"
	"math"
	"regexp"
	"slices"
	"strconv"

	"github.com/goccy/go-yaml/ast"

	"footfall/pipeline/profile"
	"footfall/schemas"
)

// Reentry is whether it is said aloud that a user comes into a segment again. What is not
// is muted: it is numbered and told all the same.
type Reentry struct {
	Kind  ReentryKind
	After schemas.Millis // of ReentryAfter: so long after it was said last
}

// ReentryKind is a kind of Reentry.
type ReentryKind uint8

// The kinds.
const (
	ReentryAlways ReentryKind = iota // every time
	ReentryOnce                      // once ever
	ReentryCart                      // once for each cart
	ReentryAfter                     // not again within a while
)

// Cap is how many transitions of a user, over all sets that do not stand apart, are said
// aloud within a while. Triggers 0: as many as there are.
type Cap struct {
	Triggers int
	Within   schemas.Millis
}

// CapMost is the most triggers that a Cap may count (R4).
const CapMost = 32

// Reentry is what a set says of coming into a segment again.
func (p *Program) Reentry(set int, segment uint16) Reentry { return p.sets[set].rules[segment].reentry }

// Cap is how many transitions of a user are said within a while.
func (p *Program) Cap() Cap { return p.cap }

// Capped tells whether a set's transitions count, and are muted when there were too many.
func (p *Program) Capped(set int) bool { return p.cap.Triggers > 0 && !p.sets[set].apart }

// PolicyBytes is what all policies take of every user: a word for each segment into
// which not every transition is said, and one for each trigger that the cap counts.
func (p *Program) PolicyBytes() int {
	words := p.cap.Triggers
	for i := range p.sets {
		for _, r := range p.sets[i].rules {
			if r.reentry.Kind != ReentryAlways {
				words++
			}
		}
	}
	return 4 * words
}

// String is the policy as a set has it.
func (r Reentry) String() string {
	switch r.Kind {
	case ReentryOnce:
		return "once"
	case ReentryCart:
		return "cart"
	case ReentryAfter:
		return spanSource(int64(r.After))
	default:
		return "always"
	}
}

// Cart is the identity of the user's open cart that was changed last: the hash of its id
// or, of one without an id, of the time of its first line. 0: there is none.
func (e *Evaluator) Cart(pr *profile.Profile, v profile.View, now schemas.Millis) uint64 {
	cell := slices.IndexFunc(e.p.cells, func(c *cell) bool { return c.Keeps == profile.Carts })
	if cell < 0 {
		return 0
	}
	fr := e.begin(pr, v, now, nil)
	if fr.carts, _ = v.Carts(cell, now, fr.carts); len(fr.carts) == 0 {
		return 0
	}
	if c := fr.carts[0]; c.ID == 0 {
		return profile.HashText(strconv.AppendInt(nil, int64(c.First), 10))
	}
	return fr.carts[0].ID
}

var spanForm = regexp.MustCompile(`^(days|hours|minutes)\(([0-9]{1,6})\)$`)

// reentry reads a policy of a set or segment.
func (r *fileReader) reentry(node ast.Node) *Reentry {
	s, ok := r.text(node)
	if !ok {
		return nil
	}
	switch s {
	case "always":
		return &Reentry{Kind: ReentryAlways}
	case "once":
		return &Reentry{Kind: ReentryOnce}
	case "cart":
		return &Reentry{Kind: ReentryCart}
	}
	if m := spanForm.FindStringSubmatch(s); m != nil {
		n, _ := strconv.ParseInt(m[2], 10, 64) // of six digits at most
		after := schemas.Millis(n) * map[string]schemas.Millis{"days": schemas.Day, "hours": schemas.Hour, "minutes": schemas.Minute}[m[1]]
		if after > 0 && after < math.MaxUint32*schemas.Second {
			return &Reentry{Kind: ReentryAfter, After: after}
		}
	}
	r.errorf(node.GetToken(), "reentry: want always, once, cart, or a while such as days(30), got %q%s", s, suggest(s, []string{"always", "once", "cart"}))
	return nil
}

// policies gives the segments of a set what it says of coming into them again.
func (c *compilation) policies(w *written, s *set) {
	s.apart, s.quiet = w.apart, c.opt.Quiet
	if w.quiet != nil {
		s.quiet = *w.quiet
	}
	for i := range s.rules {
		seg := &w.segments[i]
		p, at := w.reentry, w.reentryAt
		if seg.reentry != nil {
			p, at = seg.reentry, seg.reentryAt
		}
		if p == nil {
			continue
		}
		s.rules[i].reentry = *p
		if p.Kind == ReentryCart && !c.faulty(w, s) && !slices.ContainsFunc(s.rules, func(r rule) bool { return looksAtCarts(r.when) }) {
			c.errs = append(c.errs, &Error{w.file, at.Position.Line, at.Position.Column, fmt.Sprintf("reentry: once for each cart, and no rule of set %q looks at carts", w.name)})
			return
		}
	}
}

// faulty tells that a rule of a set could not be understood: what it looks at is not known.
func (c *compilation) faulty(w *written, s *set) bool {
	for i := range s.rules {
		if w.segments[i].when != nil && s.rules[i].when == nil {
			return true
		}
	}
	return false
}

func looksAtCarts(n *node) bool {
	if n == nil {
		return false
	}
	return n.cell != nil && n.cell.Keeps == profile.Carts || slices.ContainsFunc(n.args, looksAtCarts)
}
