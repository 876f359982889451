package triggers

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/twmb/franz-go/pkg/kgo"

	"footfall/pipeline"
	"footfall/pipeline/pipelinetest"
	"footfall/pipeline/worker"
)

// What was said is read back as it was; a record that was changed anywhere, or is
// another's, is read or refused with an error that names its place, and never panics.
func FuzzSaid(f *testing.F) {
	s, err := New(config(""), nil)
	if err != nil {
		f.Fatal(err)
	}
	sets := outputOf(pipeline.Assignment{}, transition(1, 0)).Sets
	said := func(item worker.Item, cut bool) *kgo.Record {
		r := &kgo.Record{Partition: 1, Offset: 5}
		s.fill(&batch{}, r, &item, sets, cut)
		return r
	}
	for _, r := range []*kgo.Record{said(transition(7, 0), false), said(transition(8, 1), false), said(deadLetter(9, "{"), false), said(deadLetter(10, "{"), true)} {
		for i := range r.Headers {
			f.Add(uint8(i), r.Topic != "dead", r.Key, r.Value, r.Headers[i].Key, r.Headers[i].Value)
		}
	}
	f.Fuzz(func(t *testing.T, at uint8, isTransition bool, key, value []byte, name string, text []byte) {
		item := deadLetter(9, string(value))
		if isTransition {
			item = transition(7, 0)
		}
		r := said(item, false)
		back, err := s.decode(r)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(pipelinetest.Told(item, sets), back, cmpopts.EquateEmpty()); d != "" {
			t.Fatalf("-said +read\n%s", d)
		}
		r.Headers[int(at)%len(r.Headers)] = kgo.RecordHeader{Key: name, Value: text}
		if isTransition {
			r.Key, r.Value = key, value
		}
		n, errN := s.numberOf(r)
		back, err = s.decode(r)
		for _, err := range []error{errN, err} {
			if err != nil && (!strings.Contains(err.Error(), r.Topic+"/1 at offset 5") || len(err.Error()) > 8<<10) {
				t.Errorf("an error without its place, or of %d bytes: %.300v", len(err.Error()), err)
			}
		}
		if err == nil && (errN != nil || back.N != n) {
			t.Errorf("number %d, %v; the item has %d", n, errN, back.N)
		}
	})
}
