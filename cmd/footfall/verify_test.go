package main

import (
	"fmt"
	"testing"

	"footfall/pipeline/rehearsal"
	"footfall/pipeline/segment"
	"footfall/pipeline/worker"
	"footfall/schemas"
)

// A user may come into one segment twice within one moment of the clock, which goes by the
// records' timestamps: each of the two triggers follows.
func TestVerifyTwoTriggersOfOneMoment(t *testing.T) {
	c := defaultConfig()
	rules, err := segment.Compile(segment.Options{Exponent: 2}, segment.File{Name: "a.yaml", Text: []byte(`set: a
segments:
  - name: looking
    when: last("view") > last("add_to_cart")
  - name: putting
    otherwise: true
`)})
	if err != nil {
		t.Fatal(err)
	}
	decoder, err := schemas.NewDecoder(c.contract())
	if err != nil {
		t.Fatal(err)
	}
	const at = 1767225600000
	v := &verifying{rules: rules}
	v.trigger.User = "u"
	stage := rehearsal.New(0, 0, rehearsal.Config{Rules: rules, Decoder: decoder, Dedup: rehearsal.DefaultDedup(), Say: v.hear})
	for i, kind := range []string{"view", "add_to_cart", "view"} {
		value := fmt.Sprintf(`{"event_id":"e%d","user_id":"u","type":%q,"time":%d}`, i, kind, at-10+i)
		stage.Play(&worker.Record{Offset: int64(i), Time: at, Key: []byte("u"), Value: []byte(value)})
	}
	if len(v.said) != 3 {
		t.Fatalf("said %d times, want 3", len(v.said))
	}
	for i, trigger := range v.said {
		v.trigger, v.names = trigger, schemas.RetiredNames{Set: "a", To: []string{"looking", "putting"}[i%2]}
		if i > 0 {
			v.names.From = []string{"putting", "looking"}[i%2]
		}
		if got := v.judge(c, stage); !got.Follows {
			t.Errorf("trigger %d: %s", trigger.Seq, got.Why)
		}
	}
	v.trigger.Seq = 7
	if got := v.judge(c, stage); got.Follows {
		t.Error("one of another number follows")
	}
}
