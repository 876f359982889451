package naive

import (
	"math/big"
	"slices"
	"strings"
	"time"

	"cel.dev/cel-go/common/ast"

	"footfall/schemas"
)

// Score is a score(...) of the rules.
type Score struct {
	Text string // as it is written
	Key  string // the same for those that are the same
	N    int    // how many scores

	rules *Rules
	loc   *time.Location
	ast   *ast.AST
	args  []ast.Expr
}

// Scores are all score(...) of the rules, each once, in the order of writing.
func (r *Rules) Scores() (all []Score) {
	for i := range r.sets {
		s := &r.sets[i]
		for j, rule := range s.rules {
			if rule == nil {
				continue
			}
			o := reading{rules: r, loc: s.loc, ast: rule, scores: s.scores[j]}
			eachScore(rule, func(e ast.Expr) {
				score := o.scoreOf(e)
				if !slices.ContainsFunc(all, func(other Score) bool { return other.Key == score.Key }) {
					all = append(all, score)
				}
			})
		}
	}
	return all
}

func (o *reading) scoreOf(e ast.Expr) Score {
	args := e.AsCall().Args()
	s := Score{Text: o.scores[e.ID()], N: int(o.eval(args[1]).(int64)), rules: o.rules, loc: o.loc, ast: o.ast, args: args}
	if s.Key = s.Text; strings.Contains(s.Text, "calendar(") { // whose days are its own
		s.Key += " in " + o.loc.String()
	}
	return s
}

// eachScore visits each score(...) of a rule, in the order of writing.
func eachScore(rule *ast.AST, visit func(ast.Expr)) {
	eachCall(rule.Expr(), func(e ast.Expr) {
		if e.AsCall().FunctionName() == "score" {
			visit(e)
		}
	})
}

// nextScore is the next score(...) of a text, and what follows. No text within has brackets.
func nextScore(text string) (score, rest string) {
	from := strings.Index(text, "score(")
	for i, open := from, 0; ; i++ {
		switch text[i] {
		case '(':
			open++
		case ')':
			if open--; open == 0 {
				return text[from : i+1], text[i+1:]
			}
		}
	}
}

// gapless is the rhythm of who has none.
const gapless = int64(schemas.Never) / 4

// value is what is scored, in milliseconds, minor units or whole numbers.
func (o *reading) value(e ast.Expr) int64 {
	switch v := o.eval(e).(type) {
	case int64:
		return v
	case float64:
		return minor(v)
	case time.Duration:
		switch c := e.AsCall(); {
		case c.FunctionName() == "since":
			return int64(max(0, o.now-o.eval(c.Args()[0]).(schemas.Millis))) // never is as long ago as can be
		case v == eternity/2:
			return gapless
		}
		return v.Milliseconds()
	}
	panic("a score of what has no value")
}

func minor(v float64) int64 {
	if v < 0 {
		return int64(v*100 - 0.5)
	}
	return int64(v*100 + 0.5)
}

// score is 0 for who never bought, else one more than the bounds that are reached.
func (o *reading) score(e ast.Expr) int64 {
	args := e.AsCall().Args()
	if o.aggregate("orders", nil).(int64) == 0 {
		return 0
	}
	value := o.value(args[0])
	if o.eval(args[0]) == eternity { // longer than any
		value = int64(schemas.Never)
	}
	n := int64(1)
	for _, b := range o.rules.Bounds[o.scoreOf(e).Key] {
		if value >= b {
			n++
		}
	}
	return n
}

// Value is a user's at a moment; ok is false for who never bought, and does not count.
func (s *Score) Value(events []schemas.Event, now schemas.Millis) (value int64, ok bool) {
	o := reading{rules: s.rules, events: events, now: now, loc: s.loc, ast: s.ast}
	return o.value(s.args[0]), o.aggregate("orders", nil).(int64) > 0
}

// Cut gives the bounds that part the values of users into the score's n parts: the least
// whole numbers above their quantiles (numpy's, and R's type 7) or, where the rule asks for
// something more than the quantile, not less than that.
func (s *Score) Cut(values []int64) (bounds []int64) {
	values = slices.Sorted(slices.Values(values))
	for i := 1; i < s.N; i++ {
		place := big.NewRat(int64(len(values)-1)*int64(i), int64(s.N))
		whole := new(big.Int).Quo(place.Num(), place.Denom()).Int64()
		low, high := rat(values[whole]), rat(values[min(int(whole)+1, len(values)-1)])
		part := new(big.Rat).Sub(place, rat(whole))
		at := new(big.Rat).Add(low, new(big.Rat).Mul(part, new(big.Rat).Sub(high, low)))
		if len(s.args) == 3 {
			at.Add(at, rat((&reading{ast: s.ast}).value(s.args[2])))
			bounds = append(bounds, -floor(new(big.Rat).Neg(at)))
		} else {
			bounds = append(bounds, floor(at)+1)
		}
	}
	return bounds
}

func rat(n int64) *big.Rat { return new(big.Rat).SetInt64(n) }

func floor(r *big.Rat) int64 { return new(big.Int).Div(r.Num(), r.Denom()).Int64() }
