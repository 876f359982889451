package segment

import (
	"fmt"
	"math/bits"
	"slices"
	"strings"

	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/operators"

	"footfall/schemas"
)

// eventValue lowers the text or amount that an aggregation is about.
func (l *lowerer) eventValue(e ast.Expr) (*filter, error) {
	name, ok := l.eventName(e)
	if !ok {
		return nil, l.fault(e, "want a field of event, as in event.product_id")
	}
	return fieldNamed(name), nil
}

// eventName is the name of a field of event.
func (l *lowerer) eventName(e ast.Expr) (string, bool) {
	ref := l.ast.ReferenceMap()[e.ID()]
	if ref == nil {
		return "", false
	}
	name, ok := strings.CutPrefix(ref.Name, "event.")
	return name, ok && name != "items"
}

// eventFilter lowers a condition on event.
func (l *lowerer) eventFilter(e ast.Expr) (*filter, error) {
	if e.Kind() == ast.ComprehensionKind {
		return l.itemFilter(e)
	}
	if e.Kind() != ast.CallKind {
		return nil, l.fault(e, "want a condition on event, as in event.category == \"shoes\"")
	}
	call := e.AsCall()
	args := call.Args()
	switch name := call.FunctionName(); name {
	case operators.LogicalAnd, operators.LogicalOr:
		a, err := l.eventFilter(args[0])
		if err != nil {
			return nil, err
		}
		b, err := l.eventFilter(args[1])
		if err != nil {
			return nil, err
		}
		if name == operators.LogicalAnd {
			return filterAnd(a, b), nil
		}
		return filterOr(a, b), nil
	case operators.LogicalNot:
		a, err := l.eventFilter(args[0])
		if err != nil {
			return nil, err
		}
		return filterNot(a), nil
	case operators.NotEquals:
		f, err := l.eventCompare(e, operators.Equals)
		if err != nil {
			return nil, err
		}
		return filterNot(f), nil
	case "startsWith", "endsWith", "contains":
		field, err := l.eventValue(call.Target())
		if err != nil {
			return nil, err
		}
		part, err := l.texts(args[0])
		if err != nil {
			return nil, err
		}
		return textLike(name, field, part[0]), nil
	default:
		return l.eventCompare(e, name)
	}
}

// eventCompare lowers a comparison of a field of event with constants.
func (l *lowerer) eventCompare(e ast.Expr, name string) (*filter, error) {
	args := e.AsCall().Args()
	if len(args) != 2 {
		return nil, l.fault(e, "want a condition on event, as in event.category == \"shoes\"")
	}
	left, right := args[0], args[1]
	sign := map[string]string{
		operators.Equals: "==", operators.Less: "<", operators.LessEquals: "<=", operators.Greater: ">", operators.GreaterEquals: ">=", operators.In: "in",
	}[name]
	if _, ok := l.eventName(left); !ok && sign != "in" {
		left, right = right, left
		sign = map[string]string{"==": "==", "<": ">", "<=": ">=", ">": "<", ">=": "<="}[sign]
	}
	field, err := l.eventValue(left)
	if err != nil {
		return nil, err
	}
	if field.text == nil {
		return l.numberCompare(e, field, sign, right)
	}
	list, err := l.texts(right)
	switch {
	case err != nil:
		return nil, err
	case sign == "in":
		return textIn(field, list), nil
	case sign == "==":
		return textEquals(field, list[0]), nil
	}
	return nil, l.fault(e, "texts are compared by ==, !=, in, startsWith, endsWith and contains")
}

func (l *lowerer) numberCompare(e ast.Expr, field *filter, sign string, right ast.Expr) (*filter, error) {
	n, err := l.expr(right)
	if err != nil {
		return nil, err
	}
	v, ok := n.isConst()
	if !ok || sign == "" || sign == "in" {
		return nil, l.fault(e, "%s is compared with a constant number", field.source)
	}
	get, scale := field.amount, l.exponent
	if field.whole != nil {
		get, scale = field.whole, 6
	}
	if n.typ == integer {
		for range scale {
			v = compute(opMul, v, 10)
		}
	} else if field.whole != nil {
		for range 6 - l.exponent {
			v = compute(opMul, v, 10)
		}
	}
	if bits.Len64(absolute(v)) > 60 {
		return nil, l.fault(right, "%s is too large", n.source)
	}
	shown := n.source
	sqlValue := fmt.Sprint(v)
	if field.whole != nil {
		sqlValue = fmt.Sprintf("toDecimal128('%s', 6)", decimal(v, 6)) // of a number without quotes it would make a float first
	}
	return &filter{
		source: field.source + " " + sign + " " + shown,
		sql:    field.sql + " " + strings.Replace(sign, "==", "=", 1) + " " + sqlValue,
		truth:  compareNumbers(get, sign, v),
	}, nil
}

// itemFilter lowers event.items.exists(i, i.category == "shoes").
func (l *lowerer) itemFilter(e ast.Expr) (*filter, error) {
	const want = "want event.items.exists(i, i.category == \"shoes\")"
	macro, ok := l.ast.SourceInfo().GetMacroCall(e.ID())
	if !ok || macro.AsCall().FunctionName() != "exists" {
		return nil, l.fault(e, want)
	}
	args := macro.AsCall().Args()
	condition := args[1]
	if condition.Kind() != ast.CallKind || len(condition.AsCall().Args()) != 2 {
		return nil, l.fault(e, want)
	}
	field, value := condition.AsCall().Args()[0], condition.AsCall().Args()[1]
	if field.Kind() != ast.SelectKind || field.AsSelect().Operand().Kind() != ast.IdentKind || field.AsSelect().Operand().AsIdent() != args[0].AsIdent() {
		return nil, l.fault(e, want)
	}
	fields := itemFields()
	at := slices.IndexFunc(fields, func(f itemField) bool { return f.name == field.AsSelect().FieldName() })
	if at < 0 {
		return nil, l.fault(e, "an item has product_id, category and brand, and not %q", field.AsSelect().FieldName())
	}
	list, err := l.texts(value)
	if err != nil {
		return nil, err
	}
	name := fields[at].name
	column := "JSONExtractString(i, " + sqlText(name) + ")"
	var f *filter
	switch condition.AsCall().FunctionName() {
	case operators.Equals, operators.In:
		f = textIn(&filter{source: name, sql: column, text: func(*schemas.Event) []byte { return nil }}, list)
	default:
		return nil, l.fault(e, "items are compared by == and in")
	}
	set := map[string]bool{}
	for _, s := range list {
		set[s] = true
	}
	return anyItem(fields[at], func(b []byte) bool { return set[string(b)] }, f.source, f.sql), nil
}
