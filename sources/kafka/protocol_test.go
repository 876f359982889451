package kafka

import (
	"context"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"

	"footfall/pipeline"
)

// Brokers that do not serve the protocol Consumer are refused at once, and nothing
// joins by another.
func TestConsumerProtocolIsNotServed(t *testing.T) {
	t.Run("by the version", func(t *testing.T) {
		e := local(t, 1, kfake.MaxVersions(kversion.V3_8_0()))
		e.groups = Consumer
		s, err := New(t.Context(), e.config("a"), e.out...)
		if err == nil {
			s.Close(t.Context())
		}
		wantUnserved(t, err)
	})
	t.Run("when it comes to it", func(t *testing.T) {
		e := local(t, 1)
		e.groups = Consumer
		joined := false
		e.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.JoinGroup}, Observe: true, Count: -1, TopLevel: true, When: func(kmsg.Request) bool {
			joined = true
			return false
		}})
		e.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.ConsumerGroupHeartbeat}, Err: kerr.UnsupportedVersion, Count: -1})
		s := e.session(e.config("a"))
		ctx, cancel := context.WithTimeout(t.Context(), limit)
		defer cancel()
		var b pipeline.Batch
		wantUnserved(t, s.Poll(ctx, &b))
		e.cluster.Close()
		if joined {
			t.Error("it joined by the classic protocol")
		}
	})
}

func wantUnserved(t *testing.T, err error) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), "do not serve the group protocol consumer") || !strings.Contains(err.Error(), "kafka-features.sh") {
		t.Errorf("got %v, want an error that says what is missing and what to do", err)
	}
}
