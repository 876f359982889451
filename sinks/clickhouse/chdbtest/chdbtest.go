// Package chdbtest gives tests the real ClickHouse engine. It may start and stop
// it; it may not hide that a test was skipped for want of it: it says why.
package chdbtest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"footfall/sinks/clickhouse/chdb"
)

// Main is the TestMain of a package whose tests use the engine:
//
//	func TestMain(m *testing.M) { chdbtest.Main(m) }
//
// The engine is the test binary itself, started once more.
func Main(m *testing.M) {
	if code, ran := chdb.Helper(); ran {
		os.Exit(code)
	}
	os.Exit(Run(m))
}

// Run is what Main does with the tests, for a TestMain that has more to do: it runs
// them, stops the engine that they shared, and returns the exit code.
func Run(m *testing.M) (code int) {
	code = m.Run()
	if err := shared.stop(); err != nil { // a data race in the engine's process, say
		fmt.Fprintln(os.Stderr, err)
		code = max(code, 1)
	}
	return code
}

// Library returns the path of the engine's library, and skips the test where it
// cannot be had. With FOOTFALL_REQUIRE_CLICKHOUSE set it fails instead: for CI,
// where a skipped test should not look like one that passed.
func Library(t testing.TB) string {
	t.Helper()
	path, err := chdb.Fetch(t.Context(), nil)
	if errors.Is(err, chdb.ErrUnavailable) && os.Getenv("FOOTFALL_REQUIRE_CLICKHOUSE") == "" {
		t.Skipf("skipped: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// Start starts an engine of the test's own, on an empty directory, and stops it
// when the test ends.
func Start(t testing.TB) *chdb.Local {
	t.Helper()
	return StartIn(t, t.TempDir(), "")
}

// StartIn starts an engine on dir, at addr if that is not empty: to start one again
// where another was killed.
func StartIn(t testing.TB, dir, addr string) *chdb.Local {
	t.Helper()
	l, err := chdb.StartLocal(t.Context(), chdb.LocalOptions{Library: Library(t), Dir: dir, Addr: addr})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		// A test that killed it knows; t.Context has ended here.
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		_ = l.Stop(ctx)
	})
	return l
}

// Database makes a new database in an engine that the tests of this binary share,
// and returns the DSN for it, for clickhouse-go. It is dropped when the test ends.
func Database(t testing.TB) (dsn string) {
	t.Helper()
	l := shared.start(t)
	name := fmt.Sprintf("test_%d", shared.databases.Add(1))
	Exec(t, l.DSN(""), "CREATE DATABASE "+name+" ENGINE = Atomic")
	t.Cleanup(func() {
		if _, err := post(context.Background(), l.DSN(""), "DROP DATABASE IF EXISTS "+name+" SYNC"); err != nil {
			t.Errorf("drop %s: %v", name, err)
		}
	})
	return l.DSN(name)
}

// Exec runs a statement and returns what it printed, tab-separated, without the
// last line break. It fails the test on an error.
func Exec(t testing.TB, dsn, sql string) string {
	t.Helper()
	out, err := post(t.Context(), dsn, sql)
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return strings.TrimSuffix(out, "\n")
}

func post(ctx context.Context, dsn, sql string) (string, error) {
	base, database := dsn[:strings.LastIndexByte(dsn, '/')], dsn[strings.LastIndexByte(dsn, '/')+1:]
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, base+"/?database="+database, strings.NewReader(sql))
	if err != nil {
		return "", err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", err
	}
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		return "", err
	}
	if res.StatusCode != http.StatusOK {
		return "", errors.New(strings.TrimSpace(string(body)))
	}
	return string(body), nil
}

// shared is the engine that Database uses: started by the first test that needs
// it, stopped by Main.
//
//nolint:gochecknoglobals // an engine takes half a second and 200 MB: one for all tests of a binary
var shared engine

type engine struct {
	mu        sync.Mutex // guards local and dir
	local     *chdb.Local
	dir       string
	databases atomic.Int64
}

func (e *engine) start(t testing.TB) *chdb.Local {
	t.Helper()
	library := Library(t)
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.local != nil {
		return e.local
	}
	dir, err := os.MkdirTemp("", "footfall-clickhouse-")
	if err != nil {
		t.Fatal(err)
	}
	local, err := chdb.StartLocal(t.Context(), chdb.LocalOptions{Library: library, Dir: filepath.Join(dir, "data")})
	if err != nil {
		_ = os.RemoveAll(dir)
		t.Fatal(err)
	}
	e.local, e.dir = local, dir
	return local
}

func (e *engine) stop() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.local == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	err := e.local.Stop(ctx)
	e.local = nil
	return errors.Join(err, os.RemoveAll(e.dir))
}
