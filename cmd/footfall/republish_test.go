package main

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"

	"footfall/schemas"
)

// Who breaks a republishing off is told what was published by then, and how long it may be
// published again.
func TestRepublishThatBreaksOff(t *testing.T) {
	h := prepareHouse(t, localKafka(t), "http://127.0.0.1:8123/none", schemas.Live)
	h.run("topics", "create")
	ctx, stop := context.WithCancel(t.Context())
	r := republisher{out: io.Discard}
	if err := r.open(ctx, h.conf); err != nil {
		t.Fatal(err)
	}
	defer r.client.Close()
	event := []byte(`{"event_id":"e1","type":"view","user_id":"u","time":"2026-01-01T00:00:00Z"}`)
	if err := errors.Join(r.text(ctx, "in:1", event), r.finish(ctx)); err != nil {
		t.Fatal(err)
	}
	stop()
	err := r.broken(h.conf, r.text(ctx, "in:2", event))
	if !errors.Is(err, context.Canceled) || !strings.HasSuffix(err.Error(), "; 1 event or more had been published: to publish them again is safe within dedup.window, "+h.conf.Dedup.Window.String()) {
		t.Errorf("got %v", err)
	}
}
