package chdb_test

import (
	"testing"

	"footfall/sinks/clickhouse/chdbtest"
)

func TestMain(m *testing.M) { chdbtest.Main(m) }
