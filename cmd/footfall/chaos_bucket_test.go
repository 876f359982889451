//go:build chaos

package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"footfall/schemas"
	"footfall/sinks/clickhouse"
)

var chaosSnapshots = flag.Int("chaos.snapshots", 4, "restarts on damaged snapshots, in TestChaosSnapshots")

// wounds are what happens to the newest snapshot of a partition between two lives, given
// the one before and another partition's.
func wounds() map[string]func(newest, before, other []byte) []byte {
	return map[string]func(newest, before, other []byte) []byte{
		"a bit flipped":        func(b, _, _ []byte) []byte { b[len(b)*2/3] ^= 1; return b },
		"cut short":            func(b, _, _ []byte) []byte { return b[:len(b)*3/4] },
		"empty":                func(_, _, _ []byte) []byte { return nil },
		"zeros":                func(b, _, _ []byte) []byte { clear(b[len(b)/2:]); return b },
		"the one before":       func(_, before, _ []byte) []byte { return before },
		"another partition's":  func(_, _, other []byte) []byte { return other },
		"no snapshot at all":   func(_, _, _ []byte) []byte { return []byte("<html>503 Slow Down</html>") },
		"the beginning of two": func(b, before, _ []byte) []byte { return append(b[:len(b)/2], before[min(len(before), len(b)/2):]...) },
		"something behind it":  func(b, before, _ []byte) []byte { return append(b, before...) },
		removed:                nil,
	}
}

// removed is the one wound that leaves nothing to be passed over.
const removed = "removed by a tidy admin"

// An instance is killed, its newest snapshots are damaged in every way there is, and it
// starts again: from the ones before, and it says which it passed over. When all of them
// are damaged it stops and says what to do, and that works.
func TestChaosSnapshots(t *testing.T) {
	r := newRig(t, realKafka(t), schemas.Replay)
	p := r.start()
	r.ready()
	r.open(600)
	kinds := wounds()
	names := make([]string, 0, len(kinds))
	for name := range kinds {
		names = append(names, name)
	}
	slices.Sort(names)
	damaged := 0
	for i := range *chaosSnapshots {
		name := names[(int(r.seed%1000)+i)%len(names)]
		r.until("two snapshots of every partition", func() bool { return r.generations() >= 2 })
		p.kill()
		r.killed(p)
		files := r.wound(kinds[name])
		damaged += len(files)
		p = r.start()
		r.until("every partition is live after: "+name, func() bool { return p.ended() || lives(p) == r.conf.Kafka.Partitions })
		skipped := p.logged("snapshot skipped")
		for _, f := range files {
			named := slices.ContainsFunc(skipped, func(l logLine) bool { return strings.HasSuffix(f, l.Snapshot) && strings.Contains(l.Error, l.Snapshot) })
			if !named && name != removed {
				t.Errorf("%s: %s was not passed over, or not named:\n%s", name, f, p.last(20))
			}
		}
	}
	p.kill()
	r.killed(p)
	for _, f := range r.snapshots() {
		if err := os.Truncate(f, 7); err != nil {
			t.Fatal(err)
		}
		damaged++
	}
	p = r.start()
	if err := p.Wait(); err == nil || !strings.Contains(p.last(20), "--rebuild") {
		t.Fatalf("with no whole snapshot it ended with %v, and says:\n%s", err, p.last(8))
	}
	p = r.start("--rebuild")
	r.until("every partition is rebuilt", func() bool { return p.ended() || lives(p) == r.conf.Kafka.Partitions })
	p.kill()
	r.killed(p)
	p = r.start()
	r.close()
	details := map[string]any{"seed": r.seed, "restarts": *chaosSnapshots + 3}
	r.verify(p).details(details)
	tell(t, "damaged snapshots", damaged, details)
}

// snapshots are the files of all snapshots, those of a partition in their order.
func (r *rig) snapshots() []string {
	r.t.Helper()
	files, err := filepath.Glob(filepath.Join(strings.TrimPrefix(r.conf.Snapshots.Bucket, "file://"), r.conf.Kafka.Group, "p*", "*.snap"))
	if err != nil {
		r.t.Fatal(err)
	}
	slices.Sort(files)
	return files
}

// byPartition gives those of each partition.
func (r *rig) byPartition() (all [][]string) {
	r.t.Helper()
	for _, f := range r.snapshots() {
		if n := len(all); n > 0 && filepath.Dir(all[n-1][0]) == filepath.Dir(f) {
			all[n-1] = append(all[n-1], f)
		} else {
			all = append(all, []string{f})
		}
	}
	return all
}

// generations is how many snapshots each partition has at least.
func (r *rig) generations() int {
	r.t.Helper()
	all := r.byPartition()
	if len(all) < r.conf.Kafka.Partitions {
		return 0
	}
	least := len(all[0])
	for _, files := range all {
		least = min(least, len(files))
	}
	return least
}

// wound damages the newest snapshot of every partition.
func (r *rig) wound(damage func(newest, before, other []byte) []byte) (files []string) {
	r.t.Helper()
	read := func(f string) []byte {
		b, err := os.ReadFile(f)
		if err != nil {
			r.t.Fatal(err)
		}
		return b
	}
	all := r.byPartition()
	var whole [][]byte
	for _, of := range all {
		whole = append(whole, read(of[len(of)-1]))
	}
	for i, of := range all {
		newest := of[len(of)-1]
		var err error
		if damage == nil {
			err = os.Remove(newest)
		} else {
			err = os.WriteFile(newest, damage(bytes.Clone(whole[i]), read(of[len(of)-2]), whole[(i+1)%len(all)]), 0o600)
		}
		if err != nil {
			r.t.Fatal(err)
		}
		files = append(files, newest)
	}
	return files
}

// The disk with the snapshots is full before the first one, and again later: triggers go
// on where they can, kills cost a longer replay, and when there is room again snapshots
// are taken again.
func TestChaosDiskFull(t *testing.T) {
	dir := smallDisk(t, "1m")
	r := newRig(t, realKafka(t), schemas.Replay, "snapshots.bucket=file://"+filepath.ToSlash(dir))
	ballast := filepath.Join(dir, "ballast")
	fill(t, ballast)
	p := r.start()
	r.until("it waits for room", func() bool { return p.ended() || len(p.logged("recovery waits")) > 0 })
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	r.ready()
	r.open(600)
	for range 2 {
		r.until("snapshots are published", func() bool { return len(p.logged("snapshot published")) > 0 })
		fill(t, ballast)
		r.until("snapshots are not stored", func() bool { return len(p.logged("snapshot not stored")) > 0 })
		r.goesOn([]*process{p})
		p.kill()
		r.killed(p)
		p = r.start()
		r.goesOn([]*process{p})
		if err := os.Remove(ballast); err != nil {
			t.Fatal(err)
		}
	}
	r.close()
	details := map[string]any{"seed": r.seed}
	r.verify(p).details(details)
	tell(t, "disk full", 3, details)
}

// The disk with ClickHouse's tables is full, twice: no row is inserted and triggers go on;
// when there is room again all rows come, each once. A part that ClickHouse acknowledged
// and for which there was no room after all is taken out, as the log says to.
func TestChaosClickHouseDiskFull(t *testing.T) {
	dir := smallDisk(t, "256m")
	r := newRigOn(t, dir, realKafka(t), schemas.Replay)
	db, err := clickhouse.Open(r.engine.DSN("footfall"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	o := &operator{rig: r, db: db, done: map[string]bool{}}
	p := r.start()
	r.ready()
	r.open(600)
	r.until("rows come", func() bool {
		var n uint64
		return db.QueryRow(t.Context(), "SELECT count() FROM events").Scan(&n) == nil && n > 0
	})
	for range 2 {
		r.goesOn([]*process{p})
		refused := refusals(p)
		var ballast []string
		full := func() { // again and again: what is merged makes room
			ballast = append(ballast, filepath.Join(dir, fmt.Sprint("ballast-", len(ballast))))
			fill(t, ballast[len(ballast)-1])
		}
		r.until("rows are refused", func() bool {
			full()
			return p.ended() || refusals(p) >= refused+3 || len(o.open(o.said(p))) > 0
		})
		r.goesOn([]*process{p})
		for _, f := range ballast {
			if err := os.Remove(f); err != nil {
				t.Fatal(err)
			}
		}
		o.follows(o.said(p))
	}
	r.close()
	r.until("ClickHouse has all of it", func() bool {
		o.follows(o.said(p))
		return o.audits()
	})
	details := map[string]any{"seed": r.seed, "broken_parts": len(o.done)}
	r.verify(p).details(details)
	tell(t, "disk full", 2, details)
}

// operator does what the log, and footfall audit, say is to be done about broken parts.
type operator struct {
	*rig
	db   *clickhouse.DB
	done map[string]bool // by statement
}

var detachPart = regexp.MustCompile(`ALTER TABLE \S+ DETACH PART '[^']+'`)

func (o *operator) said(p *process) string {
	var said strings.Builder
	for _, l := range p.logged("") {
		said.WriteString(l.Message + l.Error)
	}
	return said.String()
}

// open are the statements that are to be done still.
func (o *operator) open(said string) []string {
	return slices.DeleteFunc(detachPart.FindAllString(said, -1), func(s string) bool { return o.done[s] })
}

func (o *operator) follows(said string) {
	for _, statement := range o.open(said) {
		if o.done[statement] {
			continue // said twice
		}
		if err := o.db.Exec(o.t.Context(), statement); err != nil {
			o.t.Fatalf("%s: %v", statement, err)
		}
		o.done[statement] = true
	}
}

// audits tells whether footfall audit finds nothing, or mends all of it.
func (o *operator) audits() bool {
	c := o.command("audit", "--mend")
	var said bytes.Buffer
	c.Stdout, c.Stderr = &said, &said
	err := c.Run()
	_, _ = o.Write(said.Bytes())
	o.follows(said.String())
	return err == nil
}

// refusals is how often it has said that ClickHouse has no space for what it sends.
func refusals(p *process) (n int) {
	for _, l := range p.logged("") {
		if strings.Contains(l.Message, "NOT_ENOUGH_SPACE") || strings.Contains(l.Message, "No space left") {
			n++
		}
	}
	return n
}

// smallDisk is a file system of its own, of so much.
func smallDisk(t *testing.T, size string) string {
	t.Helper()
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size="+size); err != nil {
		t.Skipf("needs a small file system, and may not mount one: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Errorf("unmount %s: %v", dir, err)
		}
	})
	return dir
}

// fill writes a file until the disk is full.
func fill(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, block := range []int{1 << 16, 1 << 12, 1} {
		for err == nil {
			_, err = f.Write(make([]byte, block))
		}
		if !errors.Is(err, syscall.ENOSPC) {
			t.Fatal(err)
		}
		err = nil
	}
}
