package clickhouse

import (
	"context"
	"testing"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
)

// replica is a server that says when it was started, and nothing else.
type replica struct {
	driver.Conn
	driver.Row
	started int64
}

func (r *replica) QueryRow(context.Context, string, ...any) driver.Row { return r }

func (r *replica) Scan(into ...any) error {
	*into[0].(*int64) = r.started
	return nil
}

// Replicas behind one address are not taken for one server that is restarted whenever
// another answers: all that there is would be audited again and again.
func TestEpochOfReplicas(t *testing.T) {
	const first, second = 1767225600, 1767312000
	tables := testTables()
	before := ""
	for i, c := range []struct {
		started   int64
		restarted bool
	}{
		{first, true}, {first + 2, false}, {second, true}, {first, false}, {second - 2, false}, {second + 60, true}, {second, false}, {first, false},
	} {
		tables.db = &DB{Conn: &replica{started: c.started}}
		epoch, err := tables.Epoch(t.Context())
		if err != nil || epoch != before != c.restarted {
			t.Errorf("answer %d: got epoch %q after %q, %v; want a new one: %v", i, epoch, before, err, c.restarted)
		}
		before = epoch
	}
}
