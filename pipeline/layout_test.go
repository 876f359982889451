package pipeline

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"

	"footfall/pipeline/snapshot"
)

// object is a bucket that holds a layout, and nothing else.
type object string

func (o object) Put(context.Context, string, func(io.Writer) error) error {
	return errors.New("the layout is written over")
}

func (o object) Get(context.Context, string) (io.ReadCloser, error) {
	return io.NopCloser(bytes.NewReader([]byte(o))), nil
}

func (o object) List(context.Context, string) ([]string, error) { return []string{"layout"}, nil }

func (o object) Delete(context.Context, string) error {
	return errors.New("the layout is deleted")
}

// check gives what is said of a bucket with this layout by who has another, or the same.
func (l Layout) check(t *testing.T, text string) error {
	t.Helper()
	p := &Pipeline{cfg: Config{Layout: l, Snapshots: snapshot.NewStore(object(text), 3)}}
	return p.checkLayout(t.Context())
}

// written is what the first version of footfall that had layouts wrote, and all since.
const written = `footfall-layout/1 topic="shop.events" id="5TMVb2lzR8O0rG9eXhVK0g" partitions=12` + "\n"

// Layouts are read for ever, and say in which way the input is another one.
func TestLayoutIsHeld(t *testing.T) {
	ours := Layout{Topic: "shop.events", ID: "5TMVb2lzR8O0rG9eXhVK0g", Partitions: 12}
	if ours.String() != written {
		t.Errorf("got %q, want %q: buckets that were filled by an older footfall would be refused", ours, written)
	}
	for text, want := range map[string]string{
		written:                                  "",
		strings.Replace(written, "=12", "=8", 1): "had 8 partitions when this group began and has 12 now",
		strings.Replace(written, "5TMV", "6TMV", 1):     "was deleted and made again, or is another cluster's",
		strings.Replace(written, "events", "others", 1): "are of topic shop.others",
		strings.Replace(written, "/1", "/2", 1):         "which this footfall cannot read",
		strings.Replace(written, "=12\n", "=12", 1):     "which this footfall cannot read", // the beginning of 128, perhaps
		written + "more":           "which this footfall cannot read",
		written[:40]:               "which this footfall cannot read",
		"":                         "which this footfall cannot read",
		"<html>503 Slow Down":      "which this footfall cannot read",
		strings.Repeat("\x00", 64): "which this footfall cannot read",
	} {
		err := ours.check(t, text)
		if want == "" && err != nil || want != "" && (!errors.Is(err, ErrPermanent) || !strings.Contains(err.Error(), want)) {
			t.Errorf("%q: got %v, want %q", text, err, want)
		}
	}
}

// FuzzLayout holds that whatever lies in the bucket, only a layout that says what the
// input is lets anybody begin.
func FuzzLayout(f *testing.F) {
	for _, s := range []string{written, "", "footfall-layout/1 topic=`a` id=\"\" partitions=1", written[:60], written + written} {
		f.Add(s)
	}
	ours := Layout{Topic: "shop.events", ID: "5TMVb2lzR8O0rG9eXhVK0g", Partitions: 12}
	f.Fuzz(func(t *testing.T, text string) {
		err := ours.check(t, text)
		if err == nil && text != written {
			t.Errorf("%q is taken for %q", text, written)
		}
		if err != nil && len(err.Error()) > 20_000 {
			t.Errorf("an error of %d bytes", len(err.Error()))
		}
	})
}
