package clickhouse

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"footfall/schemas"
	source "footfall/sources/kafka"
)

// A batch that expands without measure stops the archive with what to do. The client
// tells of it once, and then reads that partition no more: nothing would come of
// waiting. The words are the source's, which knows the setting.
func TestBatchBombStopsTheArchive(t *testing.T) {
	db, _ := open(t)
	k := startKafka(t)
	bomber := k.connect(kgo.ProducerBatchMaxBytes(32<<20), kgo.ProducerBatchCompression(kgo.GzipCompression()))
	bomb := &kgo.Record{Topic: "in", Value: []byte(strings.Repeat("0", 8<<20))}
	if err := bomber.ProduceSync(t.Context(), bomb).FirstErr(); err != nil {
		t.Fatal(err)
	}
	a, err := NewArchive(ArchiveConfig{
		DB: db, Client: append(slices.Clone(k.opts), kgo.MaxDecompressBatchBytes(4<<20)), Group: "shop", Inputs: []InputTopic{{Name: "in"}},
		Triggers: "triggers", Muted: "muted", Dead: "dead", Contract: schemas.Contract{Currency: "EUR"},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := source.Unreadable(a.Run(ctx)); !errors.Is(err, kgo.ErrMaxDecompress) || !strings.Contains(err.Error(), "in/0") || !strings.Contains(err.Error(), "kafka.batch_max") {
		t.Errorf("got %v, want an error that names the partition and what to do", err)
	}
}

// A database's name goes into SQL as it is, so it must be one.
func TestOpenRefusesWhatIsNoName(t *testing.T) {
	for _, name := range []string{"a;b", "a b", "a`b", "a'b", "a-b", "1a", "a%3Bb", "\u00fc", "a/b"} {
		if db, err := Open("http://127.0.0.1:1/" + name); err == nil {
			db.Close()
			t.Errorf("%q: taken for the name of a database", name)
		}
	}
}
