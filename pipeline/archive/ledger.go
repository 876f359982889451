package archive

import "footfall/schemas"

// Ledger is what a partition's rows must add up to: adjoining spans, oldest first,
// each with its sum. The last one grows until it has sealRows rows; the others are
// sealed. There are at most ledgerMax: when there are more, the two neighbours
// with the fewest rows together become one, so recent spans are short, old ones
// long, and the ledger fits in a commit's metadata for ever.
type Ledger struct {
	spans []entry
}

// entry is a span of a ledger, without its partition.
type entry struct {
	first, next int64
	sum         Sum

	// Not committed. Times are by the archive's clock.
	checked schemas.Millis // when the table was last seen to have it; 0: not since it grew
	since   schemas.Millis // the same, whether it has grown since or not; if never: when the audit first knew of it
	wrong   bool           // it differs, which has been said, and is not mended, because the log gave no answer
	extra   Sum            // what the table has besides, which has been said and only a person can remove
}

const (
	ledgerMax = 32
	sealRows  = 1 << 20
)

// add appends what was archived. It must adjoin what is there; a gap begins the
// ledger anew, for then offsets have been moved by hand and nothing is known.
func (l *Ledger) add(first, next int64, sum Sum, seal int64) {
	n := len(l.spans)
	if n > 0 && l.spans[n-1].next != first {
		l.spans, n = l.spans[:0], 0
	}
	if n > 0 && l.spans[n-1].sum.Rows < seal {
		e := &l.spans[n-1]
		e.next, e.checked = next, 0
		e.sum.plus(sum)
		return
	}
	l.spans = append(l.spans, entry{first: first, next: next, sum: sum})
	if len(l.spans) > ledgerMax {
		l.merge()
	}
}

// merge makes one of the two neighbours with the fewest rows; the one that grows
// is left out.
func (l *Ledger) merge() {
	best := 0
	for i := range len(l.spans) - 2 {
		if l.rows(i) < l.rows(best) {
			best = i
		}
	}
	a, b := &l.spans[best], l.spans[best+1]
	a.next, a.checked, a.since = b.next, min(a.checked, b.checked), min(a.since, b.since)
	a.sum.plus(b.sum)
	a.extra.plus(b.extra)
	a.wrong = a.wrong || b.wrong
	l.spans = append(l.spans[:best+1], l.spans[best+2:]...)
}

func (l *Ledger) rows(i int) int64 { return l.spans[i].sum.Rows + l.spans[i+1].sum.Rows }

// trim forgets sealed spans that lie before start, where the log begins: what is
// missing there can't be mended any more. The others stay where they are in memory.
func (l *Ledger) trim(start int64) {
	for len(l.spans) > 1 && l.spans[0].next <= start {
		l.spans = l.spans[1:]
	}
}
