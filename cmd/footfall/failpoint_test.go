package main

import (
	"path/filepath"
	"testing"

	"footfall/pipeline/pipelinetest"
)

// circumstance is what has to happen for a process to come to a failpoint.
type circumstance int

const (
	running   circumstance = iota // nothing: it comes there again and again
	starting                      // it is started where another was killed
	beginning                     // it is started where nothing was ever said
	stopping                      // it is asked to stop
	joined                        // another one joins the group
	doubting                      // it is started where another was killed amid an insert
	unheard                       // ClickHouse is killed under it
	unknown                       // the broker is killed under it
	rebuilt                       // it is started with --rebuild, and no snapshot
)

// failpoint is a place at which a process is killed or stopped.
type failpoint struct {
	name  string
	when  circumstance
	often int // it is one of the first so many times that it comes there
}

// failpoints are all there are: the markers in the code, and how a process is brought
// to each.
func failpoints() []failpoint {
	return []failpoint{
		{"source.fetched", running, 40},

		{"step.applying", running, 40},
		{"step.applied", running, 40},

		{"commit.collected", running, 40},
		{"txn.begun", running, 40},
		{"txn.produced", running, 40},
		{"txn.offsets-added", running, 40},
		{"txn.ended", running, 40},
		{"commit.done", running, 40},
		{"commit.unknown", unknown, 1},
		{"commit.resolved", unknown, 1},
		{"marks.adding", starting, 1},
		{"marks.committing", starting, 1},
		{"marks.committed", starting, 1},

		{"producer.renewed", starting, 3},
		{"group.assigned", starting, 1},
		{"begin.bounded", beginning, 4},
		{"begin.published", beginning, 4},
		{"begin.committed", beginning, 4},
		{"recover.marked", starting, 2},
		{"recover.loaded", starting, 2},
		{"recover.read-back", starting, 2},
		{"recover.replayed", starting, 2},
		{"recover.done", starting, 2},
		{"rebuild.read-back", rebuilt, 4},
		{"rebuild.pushed", rebuilt, 4},
		{"rebuild.settled", rebuilt, 4},

		{"snapshot.due", running, 12},
		{"snapshot.slicing", running, 12},
		{"snapshot.written", running, 12},
		{"snapshot.covered", running, 12},
		{"snapshot.put", running, 12},
		{"snapshot.verified", running, 12},
		{"snapshot.pruning", running, 6},

		{"group.revoked", joined, 1},
		{"group.released", joined, 1},
		{"group.leaving", stopping, 1},
		{"drain.begun", stopping, 2},
		{"drain.settled", stopping, 2},
		{"drain.handed-over", stopping, 2},

		{"archive.polled", running, 40},
		{"archive.collected", running, 8},
		{"archive.marked", running, 8},
		{"archive.block-sent", running, 16},
		{"archive.inserted", running, 8},
		{"archive.committed", running, 8},
		{"archive.taken-over", doubting, 1},
		{"archive.mended", doubting, 1},
		{"archive.doubted", unheard, 1},
		{"mend.read-back", unheard, 1},
		{"mend.sent", unheard, 1},
	}
}

// Every failpoint in the code is one that the tests know how to come to, and every one
// that they know is in the code, once.
func TestFailpointsAreKnown(t *testing.T) {
	found, err := pipelinetest.Failpoints(filepath.Join("..", ".."))
	if err != nil {
		t.Fatal(err)
	}
	inCode := map[string]string{}
	for _, f := range found {
		if inCode[f.Name] != "" {
			t.Errorf("failpoint %s is in %s and in %s", f.Name, inCode[f.Name], f.File)
		}
		inCode[f.Name] = f.File
	}
	known := map[string]bool{}
	for _, f := range failpoints() {
		if known[f.name] {
			t.Errorf("failpoint %s is listed twice", f.name)
		}
		known[f.name] = true
		if inCode[f.name] == "" {
			t.Errorf("failpoint %s is nowhere in the code", f.name)
		}
	}
	for name, file := range inCode {
		if !known[name] {
			t.Errorf("failpoint %s in %s is not listed here", name, file)
		}
	}
}
