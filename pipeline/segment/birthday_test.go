package segment

import (
	"fmt"
	"strings"
	"testing"

	"footfall/schemas"
	"footfall/sinks/clickhouse/chdbtest"
)

func TestEveryDayHasItsHash(t *testing.T) {
	if n := len(yearDays()); n != 366 {
		t.Errorf("got %d days, want 366: two texts have one hash", n)
	}
}

// ClickHouse reads of a text the birthday that the event contract does.
func TestBirthdayOfARow(t *testing.T) {
	dsn := chdbtest.Database(t)
	texts := []string{"", "-", "--", "--0415", "04-15", "1990", "1990-04", "19900415", "1990-4-15", "15.04.1990", "1990-04-15T00:00:00Z", "--04-15 ", " --04-15", "--04-15\n", "199x-04-15"}
	for month := range 14 {
		for day := range 33 {
			for _, year := range []string{"-", "0000", "1600", "1900", "1990", "2000", "2004", "2012", "2096", "2100", "9996", "9999"} {
				texts = append(texts, fmt.Sprintf("%s-%02d-%02d", year, month, day))
			}
		}
	}
	var values, want []string
	for i, text := range texts {
		values = append(values, fmt.Sprintf("(%d, %s)", i, sqlText(text)))
		want = append(want, string(schemas.BirthdayOf([]byte(text))))
	}
	chdbtest.Exec(t, dsn, "CREATE TABLE texts (n UInt32, birthday String) ENGINE = MergeTree ORDER BY n")
	chdbtest.Exec(t, dsn, "INSERT INTO texts VALUES "+strings.Join(values, ", "))
	got := strings.Split(chdbtest.Exec(t, dsn, "SELECT '<' || "+birthdaySQL+" || '>' FROM texts ORDER BY n"), "\n")
	if len(got) != len(want) {
		t.Fatalf("got %d rows, want %d", len(got), len(want))
	}
	for i := range want {
		if got[i] != "<"+want[i]+">" {
			t.Errorf("%q: got %s, want <%s>", texts[i], got[i], want[i])
		}
	}
}
