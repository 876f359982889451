package segment

import (
	"fmt"
	"slices"
	"strings"

	"cel.dev/cel-go/common/ast"
)

// segmentOf gives the set of a call segment("set"), or nil.
func (l *lowerer) segmentOf(e ast.Expr) ast.Expr {
	if e.Kind() == ast.CallKind && e.AsCall().FunctionName() == "segment" {
		return e.AsCall().Args()[0]
	}
	return nil
}

// isSegment lowers segment("set") == "name", on either side; nil for anything else.
func (l *lowerer) isSegment(e ast.Expr, args []ast.Expr, not bool) (*node, error) {
	for i, arg := range args {
		if set := l.segmentOf(arg); set != nil {
			names, err := l.texts(args[1-i])
			if err != nil {
				return nil, err
			}
			n, err := l.inSegments(e, set, names)
			if err == nil && not {
				n = l.g.not(n)
			}
			return n, err
		}
	}
	return nil, nil
}

func (l *lowerer) inSegments(e, set ast.Expr, names []string) (*node, error) {
	setName, err := l.texts(set)
	if err != nil {
		return nil, err
	}
	index, segments := l.sets(setName[0])
	if index < 0 {
		return nil, l.fault(set, "unknown set %q%s", setName[0], suggest(setName[0], l.setNames))
	}
	if len(names) == 0 { // as any other value is in no empty list
		return l.g.yes(false), nil
	}
	slices.Sort(names)
	names = slices.Compact(names)
	for _, name := range names {
		if !slices.Contains(segments, name) {
			return nil, l.fault(e, "set %q has no segment %q%s", setName[0], name, suggest(name, segments))
		}
	}
	source := fmt.Sprintf("segment(%q) == %q", setName[0], names[0])
	if len(names) > 1 {
		var quoted []string
		for _, name := range names {
			quoted = append(quoted, quote(name))
		}
		source = fmt.Sprintf("segment(%q) in [%s]", setName[0], strings.Join(quoted, ", "))
	}
	return l.g.add(&node{op: opIsSegment, n: int64(index), list: names, source: source}), nil
}
