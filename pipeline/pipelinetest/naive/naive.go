// Package naive reads segment sets the dumb way: it has all events of a user in a list, and
// looks through them for everything that is asked, at every moment anew. It may share the
// parsers of YAML and CEL with the compiler, and nothing else: no types, no sets in order, no
// due times.
package naive

import (
	"fmt"
	"time"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/ast"
	"github.com/goccy/go-yaml"

	"footfall/schemas"
)

// Rules are sets as they are written.
type Rules struct {
	sets   []set
	Bounds map[string][]int64 // of each score, by Score.Key; without, sets that score say nothing
}

type set struct {
	name     string
	loc      *time.Location
	zone     string
	segments []string
	rules    []*ast.AST         // nil: everybody who is left
	scores   []map[int64]string // of each rule: how a score(...) is written, by its number in the tree
}

// Read reads sets, which are not checked: what the compiler would refuse, panics or means
// anything.
func Read(texts ...string) *Rules {
	env, err := cel.NewEnv(cel.ClearMacros(), cel.Macros(cel.ExistsMacro), cel.EnableMacroCallTracking())
	if err != nil {
		panic(err)
	}
	r := &Rules{}
	for _, text := range texts {
		var written struct {
			Set, Zone string
			Segments  []struct {
				Name, When string
				Otherwise  bool
			}
		}
		if err := yaml.Unmarshal([]byte(text), &written); err != nil {
			panic(fmt.Sprintf("%v\n%s", err, text))
		}
		s := set{name: written.Set, zone: written.Zone}
		if s.loc, err = time.LoadLocation(written.Zone); err != nil {
			panic(err)
		}
		for _, segment := range written.Segments {
			var rule *ast.AST
			scores := map[int64]string{}
			if !segment.Otherwise {
				parsed, issues := env.Parse(segment.When)
				if issues.Err() != nil {
					panic(issues.Err())
				}
				rule = parsed.NativeRep()
				rest := segment.When
				eachScore(rule, func(e ast.Expr) {
					var text string
					text, rest = nextScore(rest)
					scores[e.ID()] = text
				})
			}
			s.segments, s.rules, s.scores = append(s.segments, segment.Name), append(s.rules, rule), append(s.scores, scores)
		}
		r.sets = append(r.sets, s)
	}
	return r
}

// Segments are where a user is in each set at a moment, by what it did; empty where nothing
// can be said.
func (r *Rules) Segments(events []schemas.Event, now schemas.Millis) []string {
	all, in := make([]string, len(r.sets)), map[string]string{}
	for i := range r.sets {
		all[i] = r.segment(r.sets[i].name, events, now, in)
	}
	return all
}

// segment looks for the first rule of a set that holds; what it has found is in in.
func (r *Rules) segment(name string, events []schemas.Event, now schemas.Millis, in map[string]string) string {
	if found, known := in[name]; known {
		return found
	}
	for i := range r.sets {
		s := &r.sets[i]
		if s.name != name || r.Bounds == nil && r.NeedsBounds(name) {
			continue
		}
		for j, rule := range s.rules {
			o := reading{rules: r, events: events, now: now, loc: s.loc, ast: rule, scores: s.scores[j], in: in}
			if rule == nil || o.eval(rule.Expr()).(bool) {
				in[name] = s.segments[j]
				break
			}
		}
	}
	return in[name]
}

// NeedsBounds tells whether a set scores, or one that it asks for does.
func (r *Rules) NeedsBounds(name string) bool {
	for i := range r.sets {
		if r.sets[i].name != name {
			continue
		}
		for _, rule := range r.sets[i].rules {
			if needs := false; rule != nil {
				eachCall(rule.Expr(), func(e ast.Expr) {
					switch c := e.AsCall(); c.FunctionName() {
					case "score":
						needs = true
					case "segment":
						needs = needs || r.NeedsBounds(textOf(c.Args()[0]))
					}
				})
				if needs {
					return true
				}
			}
		}
	}
	return false
}

// Circle tells whether any set asks for itself, or for one that does in the end ask for it.
func (r *Rules) Circle() bool {
	asks := map[string][]string{}
	for i := range r.sets {
		for _, rule := range r.sets[i].rules {
			if rule != nil {
				eachCall(rule.Expr(), func(e ast.Expr) {
					if c := e.AsCall(); c.FunctionName() == "segment" {
						asks[r.sets[i].name] = append(asks[r.sets[i].name], textOf(c.Args()[0]))
					}
				})
			}
		}
	}
	for i := range r.sets { // walk on for as many steps as there are sets: who is still on the way goes round
		on := map[string]bool{r.sets[i].name: true}
		for range r.sets {
			next := map[string]bool{}
			for name := range on {
				for _, other := range asks[name] {
					next[other] = true
				}
			}
			on = next
		}
		if len(on) > 0 {
			return true
		}
	}
	return false
}

func textOf(e ast.Expr) string { return e.AsLiteral().Value().(string) }

// eachCall visits the calls of an expression, as they are written; those of what an event's
// items are asked for aside.
func eachCall(e ast.Expr, visit func(ast.Expr)) {
	switch e.Kind() {
	case ast.CallKind:
		visit(e)
		for _, a := range e.AsCall().Args() {
			eachCall(a, visit)
		}
	case ast.ListKind:
		for _, a := range e.AsList().Elements() {
			eachCall(a, visit)
		}
	default:
	}
}
