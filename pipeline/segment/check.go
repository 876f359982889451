package segment

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/ast"
	"github.com/agnivade/levenshtein"
)

// Limits of a rule's text (R4).
const (
	expressionMax = 10_000 // characters
	depthMax      = 100    // levels of nesting
	sourceMax     = 50_000 // characters, with the definitions that it names written out
	namesMax      = 100    // of a name for which another is suggested: the cost is the product of their lengths
)

// fault is an error within an expression, at a line and column of it from 1.
type fault struct {
	line, column int
	what         string
}

func (f *fault) Error() string { return f.what }

// checker type-checks expressions of one set, which may name its definitions.
type checker struct {
	env   *cel.Env
	names []string // of variables and functions, for suggestions
}

func newChecker() (*checker, error) {
	opts := []cel.EnvOption{
		cel.ClearMacros(), cel.Macros(cel.ExistsMacro), cel.EnableMacroCallTracking(),
		cel.CrossTypeNumericComparisons(true),
		cel.ParserExpressionSizeLimit(expressionMax), cel.ParserRecursionLimit(depthMax),
		cel.Variable("event.items", cel.ListType(cel.MapType(cel.StringType, cel.StringType))),
	}
	c := &checker{names: []string{"event.items"}}
	for _, f := range eventFields() {
		t := cel.StringType
		if f.text == nil {
			t = cel.DoubleType
		}
		opts = append(opts, cel.Variable("event."+f.name, t))
		c.names = append(c.names, "event."+f.name)
	}
	for _, f := range functions() {
		var overloads []cel.FunctionOpt
		for i, args := range f.takes {
			overloads = append(overloads, cel.Overload(fmt.Sprintf("footfall_%s_%d", f.name, i), args, f.returns))
		}
		opts = append(opts, cel.Function(f.name, overloads...))
		c.names = append(c.names, f.name)
	}
	env, err := cel.NewEnv(opts...)
	if err != nil {
		return nil, fmt.Errorf("segment: the language's declarations: %w", err)
	}
	c.env = env
	return c, nil
}

// define makes a definition's name known to the expressions after it.
func (c *checker) define(name string, t *cel.Type) error {
	env, err := c.env.Extend(cel.Variable(name, t))
	if err != nil {
		return err
	}
	c.env, c.names = env, append(slices.Clip(c.names), name)
	return nil
}

// check parses and type-checks an expression, or returns every fault in it.
func (c *checker) check(text string) (*ast.AST, *cel.Type, []error) {
	checked, issues := c.env.Compile(text)
	if issues == nil || issues.Err() == nil {
		return checked.NativeRep(), checked.OutputType(), nil
	}
	var faults []error
	for _, e := range issues.Errors() {
		// What is too large or too deep has no place of its own, but -1.
		faults = append(faults, &fault{max(1, e.Location.Line()), max(0, e.Location.Column()) + 1, c.inOurWords(e.Message)})
	}
	return nil, nil, faults
}

var (
	undeclared = regexp.MustCompile(`^undeclared reference to '([^']*)'`)
	mismatched = regexp.MustCompile(`^Syntax error: (?:mismatched|extraneous|no viable alternative at) input '(.*?)'`)
	noOverload = regexp.MustCompile(`^found no matching overload for '([^']*)' applied to '\(([^']*)\)'`)
)

// inOurWords says what the type checker found as the reference would.
func (c *checker) inOurWords(message string) string {
	if m := undeclared.FindStringSubmatch(message); m != nil {
		return fmt.Sprintf("unknown name %q%s", m[1], suggest(m[1], c.names))
	}
	if m := noOverload.FindStringSubmatch(message); m != nil {
		for _, f := range functions() {
			if f.name == m[1] {
				return fmt.Sprintf("%s does not take (%s); write for example %s", f.name, m[2], strings.Join(f.usage, " or "))
			}
		}
		return fmt.Sprintf("%s can't be applied to (%s)", strings.Trim(m[1], "_@"), m[2])
	}
	if m := mismatched.FindStringSubmatch(message); m != nil {
		if m[1] == "<EOF>" {
			return "the expression ends here, and something is missing"
		}
		return fmt.Sprintf("%s can't stand here", m[1])
	}
	first, _, _ := strings.Cut(message, "\n")
	return strings.TrimPrefix(first, "Syntax error: ")
}

// suggest names the nearest of names, if one is near.
func suggest(got string, names []string) string {
	if len(got) > namesMax {
		return ""
	}
	best, least := "", 1+len(got)/3
	for _, name := range names {
		if d := levenshtein.ComputeDistance(got, name); d <= least && (best == "" || d < least) {
			best, least = name, d
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf("; did you mean %q?", best)
}

// inside turns an error of lowering into a fault at an expression.
func inside(a *ast.AST, e ast.Expr, format string, args ...any) error {
	at := a.SourceInfo().GetStartLocation(e.ID())
	return &fault{max(1, at.Line()), max(0, at.Column()) + 1, fmt.Sprintf(format, args...)}
}

// faultsOf unpacks joined faults.
func faultsOf(err error) (all []*fault) {
	if err == nil {
		return nil
	}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		for _, e := range joined.Unwrap() {
			all = append(all, faultsOf(e)...)
		}
		return all
	}
	if f, ok := errors.AsType[*fault](err); ok {
		return []*fault{f}
	}
	return []*fault{{1, 1, err.Error()}}
}
