package brokersim

import (
	"context"
	"fmt"
	"strconv"
	"sync"

	arch "footfall/pipeline/archive"
)

// place is a record's.
type place struct {
	partition arch.Partition
	offset    int64
}

// table is an honest one in memory: it has every row that it was given, as often as
// it was given it.
type table struct {
	mu   sync.Mutex
	rows map[place][]uint64 // hashes
}

// Rows is archive.Table.
func (t *table) Rows() arch.Rows { return &rows{table: t} }

// Present is archive.Table.
func (t *table) Present(_ context.Context, s arch.Span) (there []arch.Row, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for at, hashes := range t.rows {
		if at.partition == s.Partition && s.First <= at.offset && at.offset < s.Next {
			for _, h := range hashes {
				there = append(there, arch.Row{Offset: at.offset, Hash: h})
			}
		}
	}
	return there, nil
}

// Sums is archive.Table.
func (t *table) Sums(_ context.Context, spans []arch.Span) ([]arch.Sum, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	sums := make([]arch.Sum, len(spans))
	for i, s := range spans {
		for at, hashes := range t.rows {
			if at.partition == s.Partition && s.First <= at.offset && at.offset < s.Next {
				sums[i].Rows++
				sums[i].Hash += hashes[0]
			}
		}
	}
	return sums, nil
}

// After is archive.Table.
func (t *table) After(_ context.Context, p arch.Partition, first int64) (int64, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for at := range t.rows {
		if at.partition == p {
			first = max(first, at.offset+1)
		}
	}
	return first, nil
}

// Settle is archive.Table: an insert takes no time.
func (t *table) Settle(context.Context) error { return nil }

// Epoch is archive.Table.
func (t *table) Epoch(context.Context) (string, error) { return "up", nil }

// rows are a batch in the making: a row for every record.
type rows struct {
	table *table
	next  place
	at    []place
	hash  []uint64
}

// Decode is archive.Rows.
func (r *rows) Decode(p arch.Partition, rec *arch.Record) bool {
	r.next = place{p, rec.Offset}
	return true
}

// Add is archive.Rows.
func (r *rows) Add(hash uint64) { r.at, r.hash = append(r.at, r.next), append(r.hash, hash) }

// Content is archive.Rows.
func (r *rows) Foreign() bool              { return false }
func (r *rows) Content(hash uint64) uint64 { return hash }

// Len is archive.Rows.
func (r *rows) Len() int { return len(r.at) }

// Size is archive.Rows.
func (r *rows) Size() int { return 100 * len(r.at) }

// Reset is archive.Rows.
func (r *rows) Reset() { r.at, r.hash = nil, nil }

// Insert is archive.Rows.
func (r *rows) Insert(ctx context.Context, _ string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	r.table.mu.Lock()
	defer r.table.mu.Unlock()
	for i, at := range r.at {
		r.table.rows[at] = append(r.table.rows[at], r.hash[i])
	}
	return nil
}

func errorText(v any) string { return fmt.Sprint(v) }

func number(n int64) string { return strconv.FormatInt(n, 10) }
