package archive

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"math/rand/v2"
	"slices"

	"footfall/schemas"
)

// sample reads some records again that this archive has copied, and compares them with
// their rows. The ledgers tell what the table has lost of what was sent; this tells what
// was never sent, or sent as something else, of which nothing else here knows. The whole
// span is mended then, and its ledger goes by the log again.
//
// One run at a time bounds what it costs, whatever the topics hold: what is wrong in few
// places is found late, and a Comparison finds it at once.
func (a *Archive) sample(ctx context.Context) error {
	now := a.now()
	if now < a.audit.sampling {
		return nil
	}
	a.audit.sampling = now + a.cfg.AuditAgain
	p, span := a.draw(now)
	if p == nil {
		return nil
	}
	rows := a.cfg.Table.Rows()
	err := a.cfg.Log.Read(ctx, span.Partition, span.First, span.Next, func(run []Record) error {
		for i := range run {
			if !run[i].Control && rows.Decode(span.Partition, &run[i]) {
				span.Sum.add(Hash(&run[i]))
			}
		}
		return nil
	})
	var got []Sum
	if err == nil {
		got, err = a.cfg.Table.Sums(ctx, []Span{span})
	}
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, ErrGone): // retention was faster
		return nil
	case err != nil:
		a.cfg.Report(Waiting{What: "compare a sample", Err: err, Attempt: 1, Wait: a.cfg.AuditAgain})
		return nil //nolint:nilerr // it was told, and the next hour has another
	}
	a.stats.Sampled.Add(span.Sum.Rows)
	if got[0] == span.Sum {
		return nil
	}
	a.stats.WrongSamples.Add(1)
	a.cfg.Report(Strayed{Span: span, Got: got[0]})
	spans := p.ledger.spans // of which mending may forget the first, where the log does not begin with them any more
	for i := range spans {
		if e := &spans[i]; e.first < span.Next && span.First < e.next {
			if err := a.repair(ctx, target{p, e}); err != nil {
				return err
			}
		}
	}
	return nil
}

// draw chooses a run of what was copied since its partition is ours, each offset as likely
// as any. What is older may have been copied under another contract, under which other
// records give a row.
func (a *Archive) draw(now schemas.Millis) (*part, Span) {
	parts := slices.SortedFunc(maps.Values(a.parts), func(x, y *part) int {
		return cmp.Or(cmp.Compare(x.partition.Topic, y.partition.Topic), cmp.Compare(x.partition.Number, y.partition.Number))
	})
	total := int64(0)
	for _, p := range parts {
		total += p.committed - p.since
	}
	if total == 0 {
		return nil, Span{}
	}
	at := rand.New(rand.NewPCG(uint64(now), uint64(total))).Int64N(total) //nolint:gosec // which is looked at is no secret
	for _, p := range parts {
		if n := p.committed - p.since; at >= n {
			at -= n
			continue
		}
		first := p.since + at - at%RunMax
		return p, Span{Partition: p.partition, First: first, Next: min(first+RunMax, p.committed)}
	}
	panic("archive: drew beyond what there is")
}
