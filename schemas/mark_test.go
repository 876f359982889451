package schemas

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func goldenMark() Mark {
	return Mark{
		Partition: 3, Next: 120_332, Clock: noon + 123, Fired: noon, N: 17, Hash: 0xff, Rules: 0x1f3870be274f6c49,
		Since: noon - 5, Epoch: 21, Topic: 0xfedcba9876543210, Of: 8,
		Bootstrap: 100, Lane: Backfill, Paused: true, Address: "10.0.0.7:9400",
	}
}

func goldenMark2() Mark {
	m := goldenMark()
	m.Since, m.Epoch = 0, 0
	return m
}

func goldenMark1() Mark {
	m := goldenMark2()
	m.Topic, m.Of = 0, 0
	return m
}

func TestMarkGolden(t *testing.T) {
	m := goldenMark()
	text, err := m.AppendText([]byte(nil))
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "mark3.txt", append(text, '\n'))
	for name, m := range map[string]Mark{"mark.txt": goldenMark1(), "mark2.txt": goldenMark2(), "mark3.txt": m} {
		old, err := os.ReadFile(filepath.Join("testdata", "v1", name))
		if err != nil {
			t.Fatal(err)
		}
		back, err := ParseMark(m.Partition, m.Next, strings.TrimSpace(string(old)))
		if diff := cmp.Diff(m, back); err != nil || diff != "" {
			t.Errorf("%s: %v: want -, got +\n%s", name, err, diff)
		}
	}
}

func TestLongestMarkFits(t *testing.T) {
	for _, m := range []Mark{
		{},
		{
			Partition: math.MaxInt32, Next: math.MaxInt64, Clock: math.MinInt64, Fired: math.MinInt64, N: math.MaxUint64,
			Hash: math.MaxUint64, Rules: math.MaxUint64, Since: math.MinInt64, Epoch: math.MaxUint64, Bootstrap: math.MinInt64, Lane: Backfill, Address: strings.Repeat("~", AddressMax),
			Topic: math.MaxUint64, Of: math.MaxInt32,
		},
	} {
		text, err := m.AppendText(nil)
		if err != nil || len(text) >= MarkMax {
			t.Fatalf("%d bytes, %v, want less than %d", len(text), err, MarkMax)
		}
		back, err := ParseMark(m.Partition, m.Next, string(text))
		if diff := cmp.Diff(m, back); err != nil || diff != "" {
			t.Errorf("%v: want -, got +\n%s", err, diff)
		}
	}
}

func TestAppendMarkRefuses(t *testing.T) {
	for _, c := range []struct {
		mark Mark
		want string
	}{
		{Mark{Address: strings.Repeat("x", 201)}, `mark: address "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"...: got 201 bytes, want at most 200`},
		{Mark{Address: "a b"}, `mark: address "a b": want printable ASCII without spaces`},
		{Mark{Address: "ü"}, `mark: address "ü": want printable ASCII without spaces`},
		{Mark{Lane: 3}, `mark: Lane(3): no such lane`},
		{Mark{Of: -1}, `mark: -1 partitions`},
	} {
		if text, err := c.mark.AppendText([]byte("x")); fmt.Sprint(err) != c.want || string(text) != "x" {
			t.Errorf("got %q, %v, want %s", text, err, c.want)
		}
	}
}

func TestParseMarkRefuses(t *testing.T) {
	m := goldenMark()
	text, _ := m.AppendText(nil)
	s := string(text)
	const sum = "checksum does not match: cut, edited, or committed with another offset"
	for _, c := range []struct {
		next    int64
		s, want string
	}{
		{m.Next, "", "not written by footfall; was the group's offset set by another tool?"},
		{m.Next, "other", "not written by footfall; was the group's offset set by another tool?"},
		{m.Next, strings.Replace(s, "footfall/3", "footfall/4", 1), `version "footfall/4": this footfall reads footfall/1, footfall/2 and footfall/3`},
		{m.Next, strings.Replace(s, "footfall/3", "footfall/2", 1), sum},
		{m.Next, strings.Replace(s, "n=17", "n=18", 1), sum},
		{m.Next, s[:len(s)-1], sum},
		{m.Next, s + " ", sum},
		{m.Next + 1, s, sum},
	} {
		want := fmt.Sprintf("mark of partition 3 at offset %d, %.60q: %s", c.next, c.s, c.want)
		if _, err := ParseMark(m.Partition, c.next, c.s); fmt.Sprint(err) != want {
			t.Errorf("got  %v\nwant %s", err, want)
		}
	}
	if _, err := ParseMark(m.Partition+1, m.Next, s); err == nil {
		t.Error("a mark of another partition parses")
	}
}

// FuzzParseMark sees to it that a wrong checksum does not keep the fuzzer out.
func FuzzParseMark(f *testing.F) {
	m := goldenMark()
	text, _ := m.AppendText(nil)
	body, _, _ := strings.Cut(string(text), " sum=")
	f.Add(int32(3), int64(120_332), body)
	for _, name := range []string{"mark.txt", "mark2.txt"} {
		old, err := os.ReadFile(filepath.Join("testdata", "v1", name))
		if err != nil {
			f.Fatal(err)
		}
		body, _, _ := strings.Cut(string(old), " sum=")
		f.Add(int32(3), int64(120_332), body)
	}
	f.Add(int32(0), int64(0), "footfall/1")
	f.Add(int32(0), int64(0), "footfall/3")
	f.Add(int32(0), int64(0), strings.Replace(body, "paused=true", "paused=T", 1))
	f.Add(int32(0), int64(0), strings.Replace(body, "n=17", "n=017", 1))
	f.Fuzz(func(t *testing.T, partition int32, next int64, body string) {
		s := body + " sum=" + string(appendHex16(nil, markSum([]byte(body), partition, next))[8:])
		m, err := ParseMark(partition, next, s)
		if err != nil {
			return
		}
		text, err := m.AppendText(nil)
		if err != nil || strings.HasPrefix(s, "footfall/3 ") && string(text) != s {
			t.Fatalf("%q parses and becomes %q, %v", s, text, err)
		}
		if again, err := ParseMark(partition, next, string(text)); err != nil || again != m {
			t.Fatalf("%q parses as %+v and, written anew, as %+v, %v", s, m, again, err)
		}
	})
}

func FuzzMarkRoundTrip(f *testing.F) {
	f.Add(int32(1), int64(2), int64(3), int64(4), uint64(5), uint64(6), uint64(7), int64(8), uint8(1), true, "127.0.0.1:9400", uint64(9), int32(10), int64(11), uint64(12))
	f.Fuzz(func(t *testing.T, partition int32, next, clock, fired int64, n, hash, rules uint64, boot int64, lane uint8, paused bool, addr string, topic uint64, of int32, since int64, epoch uint64) {
		m := Mark{
			Partition: partition, Next: next, Clock: Millis(clock), Fired: Millis(fired), N: n, Hash: hash, Rules: rules,
			Bootstrap: boot, Lane: Lane(lane), Paused: paused, Address: addr,
			Topic: topic, Of: of, Since: Millis(since), Epoch: epoch,
		}
		text, err := m.AppendText(nil)
		if err != nil {
			return
		}
		back, err := ParseMark(partition, next, string(text))
		if diff := cmp.Diff(m, back); err != nil || diff != "" || len(text) >= MarkMax {
			t.Fatalf("%q: %v\n%s", text, err, diff)
		}
	})
}
