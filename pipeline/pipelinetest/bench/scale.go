package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"

	"footfall/pipeline/pipelinetest/engine"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// point is one measurement of a curve.
type point struct {
	At    string  `json:"at"`
	Nanos float64 `json:"cpu_ns_per_event"`
	Bytes float64 `json:"bytes_per_user,omitempty"`
}

// curve is how the CPU time of an event changes with something.
type curve struct {
	By     string  `json:"by"`
	Of     string  `json:"of"` // what was measured
	Points []point `json:"points"`
}

// scale measures the curves.
func (b *bench) scale(ctx context.Context) error {
	var all []curve
	for _, part := range []struct {
		name  string
		kafka bool
		run   func(ctx context.Context) ([]curve, error)
	}{{"users", false, b.byUsers}, {"segments", false, b.bySegments}, {"partitions", true, b.byPartitions}, {"processes", true, b.byProcesses}} {
		if !b.runs(part.name, part.kafka) {
			continue
		}
		curves, err := part.run(ctx)
		if err != nil {
			return fmt.Errorf("%s: %w", part.name, err)
		}
		for _, c := range curves {
			if err := b.draw(c); err != nil {
				return err
			}
		}
		all = append(all, curves...)
	}
	return json.NewEncoder(b.out).Encode(all)
}

// barMost is how many characters the longest bar has.
const barMost = 40

// draw prints a curve as a table with bars.
func (b *bench) draw(c curve) error {
	most := 0.0
	for _, p := range c.Points {
		most = max(most, p.Nanos)
	}
	w := tabwriter.NewWriter(b.out, 2, 0, 2, ' ', tabwriter.AlignRight)
	memory := slices.ContainsFunc(c.Points, func(p point) bool { return p.Bytes > 0 })
	fmt.Fprintf(w, "\n%s, %s\n%s\tCPU ns an event\tto the first\t", c.By, c.Of, c.By)
	if memory {
		fmt.Fprint(w, "bytes a user\t")
	}
	fmt.Fprintln(w)
	for _, p := range c.Points {
		fmt.Fprintf(w, "%s\t%.0f\t%.2f x\t", p.At, p.Nanos, p.Nanos/c.Points[0].Nanos)
		if memory {
			fmt.Fprintf(w, "%.0f\t", p.Bytes)
		}
		fmt.Fprintf(w, " %s\n", strings.Repeat("#", int(barMost*p.Nanos/most+0.5)))
	}
	return w.Flush()
}

// benchmark runs benchmarks of the worker, three times each.
func (b *bench) benchmark(ctx context.Context, pattern string, count int) ([]*measured, error) {
	c := exec.CommandContext(ctx, "go", "test", "-run", "^$", "-bench", pattern, "-cpu", "1", "-count", strconv.Itoa(count), "-timeout", "1h", "./pipeline/worker")
	var errs bytes.Buffer
	c.Stderr = &errs
	out, err := c.Output()
	if err != nil {
		return nil, fmt.Errorf("go test: %w\n%s%s", err, out, errs.Bytes())
	}
	return read(bytes.NewReader(out))
}

const oneWorker = "one worker, from a batch of records to its outputs"

func (b *bench) byUsers(ctx context.Context) ([]curve, error) {
	all, err := b.benchmark(ctx, "^BenchmarkUsers$/^users=("+b.users+")$", 1)
	if err != nil {
		return nil, err
	}
	c := curve{By: "users", Of: oneWorker}
	for _, m := range all {
		_, at, _ := strings.Cut(m.name, "users=")
		c.Points = append(c.Points, point{at, m.each(), m.median("B/user")})
	}
	return []curve{c}, nil
}

func (b *bench) bySegments(ctx context.Context) (curves []curve, err error) {
	for _, touched := range []struct{ name, of string }{
		{"one", oneWorker + "; an event may change one segment"},
		{"all", oneWorker + "; an event may change every segment"},
	} {
		all, err := b.benchmark(ctx, "^BenchmarkSegments$/^touched="+touched.name+"$", 3)
		if err != nil {
			return nil, err
		}
		c := curve{By: "segments", Of: touched.of}
		for _, m := range all {
			_, at, _ := strings.Cut(m.name, "segments=")
			c.Points = append(c.Points, point{At: at, Nanos: m.each()})
		}
		curves = append(curves, c)
	}
	return curves, nil
}

func (b *bench) byPartitions(ctx context.Context) ([]curve, error) {
	c := curve{By: "partitions", Of: fmt.Sprintf("a whole process on a real Kafka, %d events", b.records)}
	for _, n := range []int{1, 2, 4, 8, 16, 32, 64} {
		nanos, err := b.whole(ctx, n, 1)
		if err != nil {
			return nil, fmt.Errorf("%d: %w", n, err)
		}
		c.Points = append(c.Points, point{At: strconv.Itoa(n), Nanos: nanos})
	}
	return []curve{c}, nil
}

func (b *bench) byProcesses(ctx context.Context) ([]curve, error) {
	c := curve{By: "processes", Of: fmt.Sprintf("all of a group of 8 partitions on a real Kafka, %d events, the start of each left out", b.records)}
	for _, n := range []int{1, 2, 4} {
		nanos, err := b.whole(ctx, 8, n)
		if err != nil {
			return nil, fmt.Errorf("%d: %w", n, err)
		}
		c.Points = append(c.Points, point{At: strconv.Itoa(n), Nanos: nanos})
	}
	return []curve{c}, nil
}

// whole lets so many processes do all there is to be done with the events of a topic, and
// gives the CPU time for one of them. What a process takes to start, and to begin on an
// empty topic, was measured before and is left out. Kafka holds a group's first
// assignment back until all processes are there (group.initial.rebalance.delay.ms).
func (b *bench) whole(ctx context.Context, partitions, processes int) (nanos float64, err error) {
	group := fmt.Sprintf("scale-%s-%d-%d", b.id, partitions, processes)
	settings := b.settings(group, "kafka.partitions="+strconv.Itoa(partitions), "clock.max_age=3650d")
	if err := os.MkdirAll(filepath.Join(b.dir, group), 0o700); err != nil {
		return 0, err
	}
	if err := b.create(ctx, settings); err != nil {
		return 0, err
	}
	client, err := kgo.NewClient(kgo.SeedBrokers(strings.Split(b.brokers, ",")...))
	if err != nil {
		return 0, err
	}
	defer client.Close()
	admin := kadm.NewClient(client)
	begin, err := b.consume(ctx, admin, group, 1, settings)
	if err != nil {
		return 0, fmt.Errorf("begin: %w", err)
	}
	if _, err := b.fill(ctx, settings, b.records, 300_000); err != nil {
		return 0, err
	}
	cpu, err := b.consume(ctx, admin, group, processes, settings)
	if err != nil {
		return 0, err
	}
	fmt.Fprintf(b.log, "%d partitions, %d processes: %.2f CPU s, %.2f of them for the start\n", partitions, processes, cpu, begin*float64(processes))
	for _, topic := range []string{"", "-triggers", "-muted", "-dead-letters"} { // the disk is not ours
		if _, err := admin.DeleteTopic(ctx, group+topic); err != nil {
			return 0, err
		}
	}
	return (cpu - begin*float64(processes)) * 1e9 / float64(b.records), os.RemoveAll(filepath.Join(b.dir, group))
}

// consume runs so many processes until the group has committed all there is.
func (b *bench) consume(ctx context.Context, admin *kadm.Client, group string, processes int, settings []string) (cpu float64, err error) {
	ends, err := admin.ListEndOffsets(ctx, group)
	if err != nil {
		return 0, err
	}
	var all []*engine.Run
	defer func() {
		for _, p := range all {
			err = errors.Join(err, p.Stop())
		}
	}()
	for i := range processes {
		name := fmt.Sprintf("%s-%d", group, i)
		p, err := engine.Start(ctx, b.binary, filepath.Join(b.dir, name+".log"), append([]string{"--set", "kafka.instance=" + name}, settings...)...)
		if err != nil {
			return 0, err
		}
		all = append(all, p)
	}
	err = engine.Until(ctx, func() (bool, error) {
		committed, err := admin.FetchOffsets(ctx, group)
		if err != nil {
			return false, nil //nolint:nilerr // there may be no coordinator yet
		}
		done := true
		ends.Each(func(o kadm.ListedOffset) {
			c, known := committed.Lookup(group, o.Partition)
			done = done && known && c.At >= o.Offset
		})
		return done, nil
	}, all...)
	if err != nil {
		return 0, err
	}
	for _, p := range all {
		used, _, err := engine.Usage(p.Process.Pid)
		if err != nil {
			return 0, err
		}
		cpu += used
	}
	return cpu, nil
}
