package sim

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"footfall/pipeline/pipelinetest"
)

// mutant is a bug: one change of one file. All of them are compiled into one
// binary, each behind a switch, so that there is one build for all.
type mutant struct {
	name string
	file string // from the pipeline's folder
	old  string // once in the file
	bug  string // what stands in its place; ON is true while the bug is switched on
	from uint64 // the seed to begin with: it found the bug when this was written
}

// mutants are the bugs that the simulation must find, each a promise of design 5
// or 6 that is not kept.
func mutants() []mutant {
	return []mutant{
		{
			"Said does not wait for the metadata's n", "sim/log.go",
			"for part.visible < len(part.outputs) && (part", "for !ON && part.visible < len(part.outputs) && (part", 1,
		},
		{
			"replay decides again what was refused", "worker/rebuild.go",
			"if r.Control || w.dead.has(r.Offset) {\n\t\t\tcontinue\n\t\t}\n\t\tif err",
			"if r.Control || w.dead.has(r.Offset) && !ON {\n\t\t\tcontinue\n\t\t}\n\t\tif err", 1,
		},
		{
			"snapshot published before its commit", "snapping.go",
			"part.snapping, part.snapAt = s, now\n", "part.snapping, part.snapAt = s, now\n\tif ON {\n\t\ts.mark = schemas.Mark{}\n\t}\n", 1,
		},
		{
			"epoch not checked", "sim/log.go",
			"if part.owner != p || part.epoch != out.Epoch {", "if !ON && (part.owner != p || part.epoch != out.Epoch) {", 1,
		},
		{
			"outputs carry no epoch", "partition.go",
			"out.Epoch = part.epoch", "if !ON {\n\t\tout.Epoch = part.epoch\n\t}", 1,
		},
		{
			"what was lost is sent again", "commit.go",
			"c.drop(all, lost)", "if !ON {\n\t\t\t\tc.drop(all, lost)\n\t\t\t}", 61,
		},
		{
			"outputs dropped on abort", "commit.go",
			"c.cfg.Backoff(ctx, attempt)\n\t\tcase errors.Is(err, ErrFenced)",
			"c.cfg.Backoff(ctx, attempt)\n\t\t\tif ON {\n\t\t\t\treturn nil\n\t\t\t}\n\t\tcase errors.Is(err, ErrFenced)", 1,
		},
		{
			"outputs doubled on an unknown outcome", "commit.go",
			"done = append(done, s)", "if ON {\n\t\t\t\tagain = append(again, s)\n\t\t\t\tcontinue\n\t\t\t}\n\t\t\tdone = append(done, s)", 1,
		},
		{
			"unknown outcome taken for done", "commit.go",
			"case same(mark, before):", "case ON:\n\t\t\tdone = append(done, s)\n\t\tcase same(mark, before):", 1,
		},
		{
			"own commit taken for another's", "commit.go",
			"case found && same(mark, after):", "case found && same(mark, after) && !ON:", 15,
		},
		{
			"dedup window not rebuilt", "recover.go",
			"w.Remember(records[:i])", "if !ON {\n\t\t\tw.Remember(records[:i])\n\t\t}", 6,
		},
		{
			"dedup window not remembered while replaying", "worker/worker.go",
			"if w.dedup.add(xxhash.Sum64(ev.ID), r.Time, r.Offset) {", "if !(ON && w.replaying != nil) && w.dedup.add(xxhash.Sum64(ev.ID), r.Time, r.Offset) {", 4,
		},
		{
			"repeats do not refresh the dedup window", "worker/dedup.go",
			"cell, known := d.find(hash)\n\t*d.at", "cell, known := d.find(hash)\n\tif known && ON {\n\t\treturn true\n\t}\n\t*d.at", 11,
		},
		{
			"fired taken as clock", "worker/worker.go",
			"return min(w.mark.Clock, w.wheel.now-1)", "if ON {\n\t\treturn w.mark.Clock\n\t}\n\treturn min(w.mark.Clock, w.wheel.now-1)", 1,
		},
		{
			"recovery re-arms from the clock", "worker/rebuild.go",
			"out.Items = out.Items[:0]\n\trp := w.replaying", "if ON {\n\t\tmark.Fired = mark.Clock\n\t}\n\tout.Items = out.Items[:0]\n\trp := w.replaying", 12,
		},
		{
			"lineage not checked", "worker/rebuild.go",
			"|| mark.Hash != w.mark.Hash {", "|| mark.Hash != w.mark.Hash && !ON {", 82,
		},
		{
			"snapshot of a foreign past is fatal", "worker/rebuild.go",
			"int16(t.From), t.Seq, int16(from), m.seq, ErrLineage)", "int16(t.From), t.Seq, int16(from), m.seq, func() error {\n\t\t\tif ON {\n\t\t\t\treturn errors.New(\"stop\")\n\t\t\t}\n\t\t\treturn ErrLineage\n\t\t}())", 17,
		},
		{
			"membership not read back", "worker/rebuild.go",
			"w.move(user, int(t.Set), t.To, t.Seq, t.At)\n\tw.chain(it)", "if !ON {\n\t\tw.move(user, int(t.Set), t.To, t.Seq, t.At)\n\t}\n\tw.chain(it)", 1,
		},
		{
			"numbers begin again after a recovery", "worker/rebuild.go",
			"w.mark = mark\n", "w.mark = mark\n\tif ON {\n\t\tw.mark.N = 0\n\t}\n", 1,
		},
		{
			"begins from nothing where offsets have expired", "recover.go",
			"if last > 0 || beyond {", "if (last > 0 || beyond) && !ON {", 5,
		},
		{
			"history is not muted", "worker/worker.go",
			"case r.Offset < w.mark.Bootstrap:", "case r.Offset < w.mark.Bootstrap && !ON:", 1,
		},
		{
			"history's timers are not muted", "worker/worker.go",
			"if w.mark.Bootstrap > 0 && due <= w.bootClock {", "if w.mark.Bootstrap > 0 && due <= w.bootClock && !ON {", 30,
		},
		{
			"end of history forgotten in a crash", "worker/rebuild.go",
			"w.mark.Address = \"\"\n", "w.mark.Address = \"\"\n\tif ON {\n\t\tw.mark.Bootstrap = 0\n\t}\n", 6,
		},
		{
			"rebuild says its differences aloud", "worker/rebuild.go",
			"schemas.MutedBootstrap, at, out)\n\t}\n\tout.Mark", "func() schemas.Muted {\n\t\t\tif ON {\n\t\t\t\treturn schemas.NotMuted\n\t\t\t}\n\t\t\treturn schemas.MutedBootstrap\n\t\t}(), at, out)\n\t}\n\tout.Mark", 14,
		},
		{
			"new rules say their differences aloud", "worker/rebuild.go",
			"schemas.Cause{Kind: schemas.ByRules}, schemas.MutedRules,", "schemas.Cause{Kind: schemas.ByRules}, func() schemas.Muted {\n\t\tif ON {\n\t\t\treturn schemas.NotMuted\n\t\t}\n\t\treturn schemas.MutedRules\n\t}(),", 7,
		},
		{
			"new rules are in the mark before they are said", "worker/rebuild.go",
			"if w.reviewing.next == w.reviewing.end &&", "if (ON || w.reviewing.next == w.reviewing.end) &&", 18,
		},
		{
			"the kill switch is not heard", "worker/say.go",
			"case at.Paused:", "case at.Paused && !ON:", 1,
		},
		{
			"ticks in a lane of history", "worker/worker.go",
			"w.mark.Lane == schemas.Live && !w.Pending()", "(ON || w.mark.Lane == schemas.Live) && !w.Pending()", 2,
		},
		{
			"a tick before what was read is applied", "partition.go",
			"if t.end != nil && part.worker.Mark().Next >= t.end.Offset {", "if t.end != nil && (ON || part.worker.Mark().Next >= t.end.Offset) {", 33,
		},
		{
			"a user's own timers are skipped over", "worker/worker.go",
			"w.fireUser(user, at, out)", "if !ON {\n\t\t\t\tw.fireUser(user, at, out)\n\t\t\t}", 1,
		},
		{
			"damaged snapshot is fatal", "recover.go",
			"if !errors.Is(err, snapshot.ErrDamaged) &&", "if (ON || !errors.Is(err, snapshot.ErrDamaged)) &&", 1,
		},
		{
			"no grace", "partition.go",
			"at.Tick = t.end.Wall - part.p.cfg.Grace", "if at.Tick = t.end.Wall - part.p.cfg.Grace; ON {\n\t\t\tat.Tick = t.end.Wall\n\t\t}", 1,
		},
		{
			"event times are clamped when folded", "worker/worker.go",
			"row.profile.Fold(ev)", "if ON {\n\t\tev.At = min(ev.At, w.mark.Clock)\n\t}\n\trow.profile.Fold(ev)", 1,
		},
		{
			"rates are not part of the rules' hash", "segment/segment.go",
			"sum = binary.LittleEndian.AppendUint64(sum, contract)", "if !ON {\n\t\tsum = binary.LittleEndian.AppendUint64(sum, contract)\n\t}", 1,
		},
		{
			"a rebuild keeps the hash of the past", "worker/rebuild.go",
			"w.leave()\n", "if !ON {\n\t\tw.leave()\n\t}\n", 82,
		},
		{
			"checksums are not looked at", "snapshot/format.go",
			"if xxhash.Sum64(r.block) !=", "if !ON && xxhash.Sum64(r.block) !=", 4,
		},
	}
}

// switchFile is added to every package that has a mutant.
const switchFile = `package %s

import "os"

var switchedOn = os.Getenv("FOOTFALL_TEST_MUTANT")

func mutated(name string) bool { return switchedOn == name }
`

// overlay writes the files with all mutants in them, and returns what go build
// takes for -overlay.
func overlay(t *testing.T, dir string) string {
	t.Helper()
	var edits []pipelinetest.Edit
	switches := map[string]string{}
	for _, m := range mutants() {
		bug := regexp.MustCompile(`\bON\b`).ReplaceAllString(m.bug, fmt.Sprintf("mutated(%q)", m.name))
		edits = append(edits, pipelinetest.Edit{File: m.file, Old: m.old, New: bug})
		pkg := path.Dir(m.file)
		name := pkg
		if pkg == "." {
			name = "pipeline"
		}
		switches[path.Join(pkg, "mutated.go")] = fmt.Sprintf(switchFile, name)
	}
	spec, err := pipelinetest.Overlay("..", dir, edits, switches)
	if err != nil {
		t.Fatal(err)
	}
	return spec
}

// TestMutantsAreCaught runs the simulation with one bug after the other.
func TestMutantsAreCaught(t *testing.T) {
	switch {
	case os.Getenv("FOOTFALL_TEST_MUTANT") != "":
		t.Skip("this is a mutant")
	case os.Getenv("FOOTFALL_TEST_MUTANTS") == "":
		t.Skip("builds and runs the simulation once more for every bug: make mutants does")
	}
	dir := t.TempDir()
	bin := filepath.Join(dir, "mutants.test")
	build := exec.CommandContext(t.Context(), "go", "test", "-c", "-overlay", overlay(t, dir), "-o", bin, ".") //nolint:gosec // our own paths
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the mutants: %v\n%s", err, out)
	}
	only := regexp.MustCompile(strings.TrimPrefix(os.Getenv("FOOTFALL_TEST_MUTANTS"), "1")) // 1: all
	all := slices.DeleteFunc(mutants(), func(m mutant) bool { return !only.MatchString(m.name) })
	type verdict struct{ name, by string }
	verdicts := make(chan verdict)
	places := make(chan struct{}, 2)
	for _, m := range all {
		go func() {
			places <- struct{}{}
			by := trial(t.Context(), bin, m)
			<-places
			verdicts <- verdict{m.name, by}
		}()
	}
	caught := map[string]string{}
	for range all {
		v := <-verdicts
		caught[v.name] = v.by
	}
	for _, m := range all {
		if caught[m.name] == "" {
			t.Errorf("%s (%s): not found with %d seeds", m.name, m.file, mutantSeeds)
		}
		t.Logf("%-52s %s", m.name, caught[m.name])
	}
}

const mutantSeeds = 120

// trial says how a mutant was caught; it is empty if it was not.
func trial(ctx context.Context, bin string, m mutant) string {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, bin, "-test.run", "^TestSeeds$", "-from", fmt.Sprint(m.from), "-seeds", fmt.Sprint(mutantSeeds), "-most", "1")
	cmd.Env = append(os.Environ(), "FOOTFALL_TEST_MUTANT="+m.name)
	out, err := cmd.CombinedOutput()
	switch found := regexp.MustCompile(`(?m)seed (\d+):.*|panic: .*`).FindString(string(out)); {
	case err == nil:
		return ""
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return "" // neither found nor through
	case found != "":
		return found
	}
	return fmt.Sprintf("%v: %s", err, out)
}
