package segment

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"footfall/schemas"
)

// Words writes an evidence for people: what its clause looked at before and after.
func (p *Program) Words(e schemas.Evidence) (was, is string) {
	return p.valueWords(e.Kind, e.Was), p.valueWords(e.Kind, e.Is)
}

func (p *Program) valueWords(kind schemas.ValueKind, v int64) string {
	switch kind {
	case schemas.TruthValue:
		return fmt.Sprint(v != 0)
	case schemas.MoneyValue:
		return decimal(v, p.exponent)
	case schemas.MomentValue:
		return momentText(v)
	case schemas.SpanValue:
		if v >= forever {
			return "for ever"
		}
		return spanText(v)
	case schemas.NumberValue:
	}
	return fmt.Sprint(v)
}

// Score is a value by whose quantiles rules score users.
type Score struct {
	Source string // as a person would write it
	Scores int    // one more than it has bounds
	Kind   schemas.ValueKind
}

// Scores are the values by whose quantiles the rules score users, in the order of an
// Epoch's bounds.
func (p *Program) Scores() (all []Score) {
	for _, q := range p.quantiles {
		s := Score{Source: q.source, Scores: q.n, Kind: q.value.typ.kind()}
		if q.since {
			s.Kind = schemas.SpanValue
		}
		all = append(all, s)
	}
	return all
}

// kind is what a type's values are to a reader.
func (t typ) kind() schemas.ValueKind {
	switch t {
	case integer:
		return schemas.NumberValue
	case money:
		return schemas.MoneyValue
	case moment:
		return schemas.MomentValue
	case span:
		return schemas.SpanValue
	case truth, text:
	}
	return schemas.TruthValue
}

// Suggest names the nearest of names for a word that is none of them, as errors do;
// empty if none is near.
func Suggest(got string, names []string) string { return suggest(got, names) }

// Join joins errors in the order of files and places; nil if there is none.
func Join(errs []error) error { return sorted(errs) }

// Zone is the time zone of a set's calendar days.
func (p *Program) Zone(set int) string { return p.sets[set].zone.name }

// ParseValue reads a value as people write it: 12, 12.50, 30d.
func (p *Program) ParseValue(kind schemas.ValueKind, text string) (int64, error) {
	switch kind {
	case schemas.SpanValue:
		v, err := schemas.ParseSpan(text)
		return int64(v), err
	case schemas.MoneyValue:
		f, err := strconv.ParseFloat(text, 64)
		whole, rest, _ := strings.Cut(text, ".")
		if err != nil || strings.ContainsAny(text, "eExX_") || len(rest) > p.exponent || math.Abs(f) > 1e13 {
			return 0, fmt.Errorf("%q is no amount with at most %d decimals", text, p.exponent)
		}
		return strconv.ParseInt(whole+rest+strings.Repeat("0", p.exponent-len(rest)), 10, 64)
	case schemas.NumberValue, schemas.TruthValue, schemas.MomentValue:
	}
	v, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%q is no whole number", text)
	}
	return v, nil
}

// SetName reads the name of the set that a file holds, whatever else is wrong with it.
func (f File) SetName() (string, error) {
	w, err := f.read()
	if w == nil || w.name == "" {
		return "", err
	}
	return w.name, nil
}
