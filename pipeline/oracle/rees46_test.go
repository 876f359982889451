package oracle

import (
	"compress/gzip"
	"encoding/csv"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

// The oracle against figures that others have computed from a real clickstream
// (the README next to the data).
func TestREES46(t *testing.T) {
	const path = "../../../shared/data/rees46-2019-10-01-sample/events.csv.gz"
	f, err := os.Open(path)
	if err != nil {
		t.Skipf("the data set is not here: %v", err)
	}
	defer f.Close()
	unzipped, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	rows, err := csv.NewReader(unzipped).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	var input []Record
	for i, row := range rows[1:] {
		at, err := time.Parse("2006-01-02 15:04:05 MST", row[0])
		if err != nil {
			t.Fatal(err)
		}
		fields := []string{
			fmt.Sprintf(`event_id="%d"`, i), fmt.Sprintf("user_id=%q", row[7]), fmt.Sprintf("time=%d", at.UnixMilli()),
			fmt.Sprintf("type=%q", strings.Replace(row[1], "cart", "add_to_cart", 1)), "price=" + row[6], fmt.Sprintf("session_id=%q", row[8]),
		}
		if row[1] == "purchase" {
			fields = append(fields, fmt.Sprintf(`order_id="%d"`, i))
		}
		input = append(input, Record{Topic: inputTopic, Offset: int64(i), Time: at.UnixMilli(), Key: []byte(row[7]), Value: []byte(value(fields...))})
	}
	opt := Options{Currency: "USD"}
	h := compile(opt).read(input, nil, nil)
	got := map[string]int64{}
	buyers := map[string]bool{}
	for _, ev := range h.events {
		got[ev.kind]++
		got["revenue"] += ev.amount
		if ev.kind == "purchase" {
			buyers[ev.user] = true
		}
	}
	got["users"], got["buyers"], got["refused"] = int64(len(h.users)), int64(len(buyers)), int64(len(h.refused))
	for name, want := range map[string]int64{
		"view": 17_055, "add_to_cart": 165, "purchase": 214, "revenue": 5_944_263, "users": 4_504, "buyers": 193, "refused": 0,
	} {
		if got[name] != want {
			t.Errorf("%s: got %d, want %d", name, got[name], want)
		}
	}
	r := Judge(input, publish(input, opt).Triggers, nil, nil, opt)
	if err := r.Err(); err != nil {
		t.Error(err)
	}
	if r.Segments["new"]+r.Segments["active"] != 193 || r.Segments["prospect"] != 4_504-193 || r.Expected != r.Triggers {
		t.Errorf("got %+v", r)
	}
}
