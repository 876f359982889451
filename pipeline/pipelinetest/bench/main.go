// Command bench measures the parts of footfall that no single peer can be compared with,
// and prints what they come to as tables. It runs footfall as its users do, the same
// binary in processes of its own, and takes what their benchmarks print; it may not know
// how any part is made.
//
//	make bench          go test's micro-benchmarks, as one table with ratios (bench table)
//	make bench-scale    CPU per event by users, segments, partitions and processes (bench scale)
//	make bench-rates    simulate, publish and the archive, records a core (bench rates)
//
// What is compared is CPU time, user and system, all of a process's threads: on a machine
// that a broker and others share, wall time says less. A "core" is a second of it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"

	"footfall/sinks/clickhouse/chdb"
)

func main() {
	if code, ran := chdb.Helper(); ran { // this program is the engine's process too
		os.Exit(code)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// bench is one run.
type bench struct {
	binary  string // footfall
	brokers string // of a Kafka, where there is one
	broker  string // the script that tells its CPU seconds, or none
	data    string // the script's argument
	profile string // file for a CPU profile of the archive, or none
	only    *regexp.Regexp
	records int
	users   string // sizes of the curve by users, a regexp
	out     io.Writer
	log     io.Writer

	id  string // of the run: part of every topic's and group's name
	dir string // all that is written
}

func run(ctx context.Context, args []string) (err error) {
	if len(args) == 0 {
		return errors.New("say what: table, scale or rates")
	}
	what, args := args[0], args[1:]
	b := &bench{out: os.Stdout, log: os.Stderr, id: strconv.FormatInt(time.Now().UnixMilli(), 36)}
	flags := flag.NewFlagSet("bench "+what, flag.ContinueOnError)
	flags.StringVar(&b.binary, "footfall", ".build/footfall", "`file` to measure")
	flags.StringVar(&b.brokers, "brokers", os.Getenv("FOOTFALL_TEST_KAFKA"), "`addresses` of a Kafka; none: what needs one is left out")
	flags.StringVar(&b.broker, "broker", os.Getenv("FOOTFALL_TEST_BROKER"), "`script` that prints its CPU seconds: SCRIPT cpu FOLDER")
	flags.StringVar(&b.data, "data", os.Getenv("FOOTFALL_TEST_BROKER_DIR"), "`folder` of it")
	flags.IntVar(&b.records, "records", 3_000_000, "records of each run")
	flags.StringVar(&b.users, "users", "10K|100K|1M|10M|50M", "sizes of the curve by users, a `regexp`")
	flags.StringVar(&b.profile, "profile", "", "keep a CPU profile of the archive in a `file`")
	only := flags.String("only", "", "what is run: names that match the `regexp`")
	peers := flags.String("peers", "", "`file` with what bench-peers printed last, for the table")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if b.only, err = regexp.Compile(*only); err != nil {
		return fmt.Errorf("-only: %w", err)
	}
	if what == "table" {
		return micro(os.Stdin, *peers, b.out)
	}
	if b.binary, err = filepath.Abs(b.binary); err != nil {
		return err
	}
	if b.dir, err = os.MkdirTemp("", "footfall-bench-"); err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(b.dir) }()
	switch what {
	case "scale":
		return b.scale(ctx)
	case "rates":
		return b.rates(ctx)
	}
	return fmt.Errorf("%s: want table, scale or rates", what)
}

// runs tells whether a part is to be run, and says which is not for want of a Kafka.
func (b *bench) runs(name string, kafka bool) bool {
	if !b.only.MatchString(name) {
		return false
	}
	if kafka && b.brokers == "" {
		fmt.Fprintf(b.log, "%s is left out: it needs -brokers\n", name)
		return false
	}
	return true
}

// settings are footfall's for a group, which names its topics too, and what differs from
// its defaults.
func (b *bench) settings(group string, more ...string) (args []string) {
	for _, s := range append([]string{
		"kafka.brokers=" + b.brokers, "kafka.group=" + group, "kafka.lane=replay",
		"kafka.topics.events=" + group, "kafka.topics.triggers=" + group + "-triggers",
		"kafka.topics.muted=" + group + "-muted", "kafka.topics.dead_letters=" + group + "-dead-letters",
		"snapshots.bucket=file://" + filepath.ToSlash(filepath.Join(b.dir, strings.ReplaceAll(group, "/", "-"))),
		"clickhouse.enabled=false",
	}, more...) {
		args = append(args, "--set", s)
	}
	return args
}
