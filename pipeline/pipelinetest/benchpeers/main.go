// Command benchpeers measures footfall and its peers (Kafka Streams, Flink; also the bare
// client, and the bare client with encoding/json) at the same job, on the same topic of the
// same real Kafka, in turn, and prints a table with ratios and, last, a line of JSON. It
// runs the peers with their own script, and footfall as its users do: the same binary, with
// a configuration and a segment file (job.yaml). It may not know what an event is.
//
//	make bench-peers PEERS=DIR                  10,000,000 events of 1,000,000 users, then latency at 5,000 a second
//	make bench-peers PEERS=DIR EVENTS=3000000 REPS=3 ONLY='footfall|flink-memory'
//	make bench-peers PEERS=DIR EVENTS=0 RATE=5000,10000,20000 TIMERS=1000000 ONLY='^footfall$'   latency only
//
// What is compared is CPU: events divided by the CPU seconds that a process has taken, all
// of its threads. Wall time on a machine that the broker shares says less. footfall's CPU is
// counted from its start to the moment when the group's committed offsets are the topic's
// ends, looked at every 200 ms; the peers count from their first record on, and so leave out
// the start of their JVM.
package main

import (
	"cmp"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	b := &bench{out: os.Stdout, log: os.Stderr}
	flag.StringVar(&b.peers, "peers", "", "`folder` of the peers")
	flag.StringVar(&b.binary, "footfall", ".build/footfall", "`file` to measure")
	flag.IntVar(&b.events, "events", 10_000_000, "events of the throughput runs")
	flag.IntVar(&b.users, "users", 1_000_000, "users who may occur")
	flag.IntVar(&b.reps, "reps", 1, "runs of each; the table has the medians")
	rates := flag.String("rate", "5000", "events a second of the latency runs, one or `several` with commas; 0: none")
	flag.IntVar(&b.seconds, "seconds", 60, "length of the latency runs")
	flag.IntVar(&b.timers, "timers", 0, "one more latency run of footfall, at the first rate, in which so many timers fall due within one second")
	flag.IntVar(&b.settle, "settle", 60, "seconds of load, not measured, before the latency runs")
	flag.IntVar(&b.port, "port", 19192, "port of the broker, loopback")
	only := flag.String("only", "", "what is run: names that match the `regexp`")
	flag.StringVar(&b.profile, "profile", "", "keep CPU profiles of footfall in a `folder`")
	flag.Parse()
	var err error
	if b.rates, err = parseRates(*rates); err == nil && len(b.rates) > 0 && b.seconds <= int(warm.Seconds()) {
		err = fmt.Errorf("-seconds %d: the first %v of a latency run are left out, so want more", b.seconds, warm)
	}
	if err == nil {
		if b.only, err = regexp.Compile(*only); err == nil {
			err = b.run(ctx)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "benchpeers:", err)
		os.Exit(1)
	}
}

// parseRates reads numbers with commas; 0 is none.
func parseRates(text string) (all []int, err error) {
	for one := range strings.SplitSeq(text, ",") {
		rate, err := strconv.Atoi(strings.TrimSpace(one))
		if err != nil || rate < 0 {
			return nil, fmt.Errorf("-rate: %q is no number of events a second", one)
		}
		if rate > 0 {
			all = append(all, rate)
		}
	}
	return all, nil
}

const (
	topic      = "events"
	partitions = 8
	footfall   = "footfall"
)

// contestants are all that can be run, footfall first.
func contestants() []string {
	return []string{footfall, "consume", "json", "streams-memory", "streams-rocksdb", "flink-memory", "flink-rocksdb"}
}

// bench is one comparison.
type bench struct {
	peers, binary, profile string
	events, users, reps    int
	seconds, port          int
	rates                  []int // of the latency runs
	timers, settle         int
	only                   *regexp.Regexp
	out, log               io.Writer

	dir     string // all that is written
	brokers string
	admin   *kadm.Client
	job     string   // the segment file
	more    []string // variables of the peers' environment
}

// outcome is what one run came to.
type outcome struct {
	Name        string         `json:"name"`
	PerCPU      float64        `json:"events_per_cpu_s"`
	PerSecond   float64        `json:"events_per_s"`
	CPU         float64        `json:"cpu_s"`
	BrokerCPU   float64        `json:"broker_cpu_s"`
	RSS         float64        `json:"rss_mb"`
	Transitions int            `json:"transitions,omitempty"`
	Duplicates  int            `json:"duplicates"`
	Kinds       map[string]int `json:"-"`
}

func (b *bench) run(ctx context.Context) (err error) {
	if b.peers == "" {
		return fmt.Errorf("-peers: is missing: the folder that holds run, gen, raw, kafka")
	}
	if b.peers, err = filepath.Abs(b.peers); err != nil {
		return err
	}
	if b.binary, err = filepath.Abs(b.binary); err != nil {
		return err
	}
	if b.dir, err = os.MkdirTemp("", "footfall-bench-"); err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(b.dir) }()
	if b.job, err = filepath.Abs("pipeline/pipelinetest/benchpeers/job.yaml"); err != nil {
		return err
	}
	b.brokers = "127.0.0.1:" + strconv.Itoa(b.port)
	if err := b.script(ctx, "run", "build"); err != nil {
		return err
	}
	if err := b.script(ctx, "kafka/kafka", "start", strconv.Itoa(b.port), b.data()); err != nil {
		return err
	}
	defer func() { _ = b.script(context.WithoutCancel(ctx), "kafka/kafka", "wipe", b.data()) }()
	client, err := kgo.NewClient(kgo.SeedBrokers(b.brokers))
	if err != nil {
		return err
	}
	defer client.Close()
	b.admin = kadm.NewClient(client)
	var all []outcome
	if b.events > 0 {
		if all, err = b.throughput(ctx); err != nil {
			return err
		}
	}
	late, err := b.latencies(ctx)
	if err != nil {
		return err
	}
	return b.report(all, late)
}

func (b *bench) data() string { return filepath.Join(b.dir, "kafka") }

func (b *bench) runs(name string) bool { return b.only.MatchString(name) }

// environment is what the peers' scripts are told.
func (b *bench) environment() []string {
	return append(append(os.Environ(), b.more...),
		"EVENTS="+strconv.Itoa(b.events), "USERS="+strconv.Itoa(b.users), "REPS=1", "SECONDS_LAT="+strconv.Itoa(b.seconds),
		"PORT="+strconv.Itoa(b.port), "TOPIC="+topic, "KAFKA_DATA="+b.data(), "KEEP_BROKER=1")
}

// with gives the bench with one more variable of the peers' environment.
func (b *bench) with(variable string) *bench {
	more := *b
	more.more = append(slices.Clone(b.more), variable)
	return &more
}

// script runs a script of the peers; what it prints goes to the log.
func (b *bench) script(ctx context.Context, name string, args ...string) error {
	_, err := b.output(ctx, name, args...)
	return err
}

// output runs a script of the peers, and gives what it prints.
func (b *bench) output(ctx context.Context, name string, args ...string) (string, error) {
	c := exec.CommandContext(ctx, filepath.Join(b.peers, name), args...)
	c.Env, c.Stderr = b.environment(), b.log
	c.Cancel = func() error { return c.Process.Signal(syscall.SIGTERM) }
	c.WaitDelay = 10 * time.Second
	out, err := c.Output()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w", name, strings.Join(args, " "), err)
	}
	return string(out), nil
}

// tool runs one of the peers' programs.
func (b *bench) tool(ctx context.Context, name string, args ...string) (string, error) {
	cache := os.Getenv("FOOTFALL_CACHE")
	if cache == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			return "", err
		}
		cache = filepath.Join(home, ".cache", "footfall")
	}
	c := exec.CommandContext(ctx, filepath.Join(cache, "bin", name), append([]string{"-brokers", b.brokers}, args...)...)
	c.Stderr = b.log
	out, err := c.Output()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w", name, strings.Join(args, " "), err)
	}
	return string(out), nil
}

// throughput runs everybody in turn, so many times.
func (b *bench) throughput(ctx context.Context) (all []outcome, err error) {
	if _, err := b.tool(ctx, "gen", "-topic", topic, "-create"); err != nil {
		return nil, err
	}
	// What was there before the group began is history, and muted: it begins before.
	for rep := range b.reps {
		if b.runs(footfall) {
			if err := b.begin(ctx, group(rep)); err != nil {
				return nil, err
			}
		}
	}
	fmt.Fprintf(b.log, "%d events of %d users\n", b.events, b.users)
	if _, err := b.tool(ctx, "gen", "-topic", topic, "-n", strconv.Itoa(b.events), "-users", strconv.Itoa(b.users)); err != nil {
		return nil, err
	}
	for rep := range b.reps {
		for _, name := range contestants() {
			if !b.runs(name) {
				continue
			}
			one := outcome{Name: name}
			if name == footfall {
				err = b.footfall(ctx, group(rep), &one)
			} else {
				err = b.peer(ctx, &one)
			}
			if err != nil {
				return nil, err
			}
			fmt.Fprintf(b.log, "%-16s %12.0f events per CPU-s  %10.0f events/s  %7.1f CPU s  %6.0f MB  %d transitions, %d of them twice\n",
				name, one.PerCPU, one.PerSecond, one.CPU, one.RSS, one.Transitions, one.Duplicates)
			all = append(all, one)
		}
	}
	return all, b.exact(ctx, all)
}

func group(rep int) string { return "footfall-" + strconv.Itoa(rep+1) }

var words = regexp.MustCompile(`([a-z_>]+)=(\S+)`)

// fields reads the words name=value of a line.
func fields(line string) map[string]float64 {
	all := map[string]float64{}
	for _, m := range words.FindAllStringSubmatch(line, -1) {
		if v, err := strconv.ParseFloat(m[2], 64); err == nil {
			all[m[1]] = v
		}
	}
	return all
}

// peer runs a peer with the peers' own script.
func (b *bench) peer(ctx context.Context, one *outcome) error {
	out, err := b.output(ctx, "run", "throughput", one.Name)
	if err != nil {
		return err
	}
	i := strings.Index(out, "RESULT ")
	if i < 0 {
		return fmt.Errorf("%s has no result:\n%s", one.Name, out)
	}
	line, _, _ := strings.Cut(out[i:], "\n")
	f := fields(line)
	one.PerCPU, one.PerSecond, one.CPU, one.BrokerCPU, one.RSS = f["events_per_cpu_s"], f["events_per_s"], f["cpu_s"], f["broker_cpu_s"], f["rss_mb"]
	one.Transitions, one.Duplicates = int(cmp.Or(f["committed"], f["transitions"])), int(f["duplicates"])
	return nil
}

// exact holds that footfall has said what the reference computes naively, kind by kind.
func (b *bench) exact(ctx context.Context, all []outcome) error {
	if !slices.ContainsFunc(all, func(o outcome) bool { return o.Name == footfall }) {
		return nil
	}
	line, err := b.tool(ctx, "raw", "-mode", "exact", "-topic", topic)
	if err != nil {
		return err
	}
	for _, o := range all {
		if o.Name != footfall {
			continue
		}
		want := map[string]int{}
		for kind, n := range fields(line) {
			if strings.Contains(kind, ">") {
				want[kind] = int(n)
			}
		}
		if fmt.Sprint(o.Kinds) != fmt.Sprint(want) || o.Duplicates > 0 {
			return fmt.Errorf("footfall's transitions are not the reference's: %v, of them %d twice; want %v", o.Kinds, o.Duplicates, want)
		}
	}
	fmt.Fprintln(b.log, "footfall's transitions are, kind by kind, those of the reference")
	return nil
}

// report prints the table and the line of JSON.
func (b *bench) report(all []outcome, late []quantiles) error {
	type line struct {
		Events      int         `json:"events"`
		Users       int         `json:"users"`
		Runs        []outcome   `json:"runs"`
		RatioToPeer float64     `json:"ratio_to_best_peer"`
		RatioToBare float64     `json:"ratio_to_consume"`
		Latencies   []quantiles `json:"latency_ms"`
		BestPeer    string      `json:"best_peer"`
	}
	out := line{Events: b.events, Users: b.users, Latencies: late}
	for _, name := range contestants() {
		of := slices.DeleteFunc(slices.Clone(all), func(o outcome) bool { return o.Name != name })
		if len(of) > 0 {
			slices.SortFunc(of, func(a, b outcome) int { return cmp.Compare(a.PerCPU, b.PerCPU) })
			out.Runs = append(out.Runs, of[len(of)/2])
		}
	}
	var ours, best, bare float64
	for _, o := range out.Runs {
		switch {
		case o.Name == footfall:
			ours = o.PerCPU
		case o.Name == "consume":
			bare = o.PerCPU
		case o.Name != "json" && o.PerCPU > best:
			best, out.BestPeer = o.PerCPU, o.Name
		}
	}
	ratio := func(to float64) float64 {
		if to == 0 {
			return 0
		}
		return float64(int(100*ours/to)) / 100
	}
	out.RatioToPeer, out.RatioToBare = ratio(best), ratio(bare)
	w := tabwriter.NewWriter(b.out, 2, 0, 2, ' ', tabwriter.AlignRight)
	if len(out.Runs) > 0 {
		fmt.Fprintln(w, "name\tevents per CPU-s\tfootfall is\tevents/s\tCPU s\tbroker CPU s\tRSS MB\ttransitions\ttwice\t")
	}
	for _, o := range out.Runs {
		fmt.Fprintf(w, "%s\t%.0f\t%.2f x\t%.0f\t%.1f\t%.1f\t%.0f\t%d\t%d\t\n", o.Name, o.PerCPU, ratio(o.PerCPU), o.PerSecond, o.CPU, o.BrokerCPU, o.RSS, o.Transitions, o.Duplicates)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if len(late) > 0 {
		fmt.Fprintf(w, "\nms from event to trigger\tevents/s\ttimers due\tp50\tp99\tp99.9\tmax\ttriggers\tlast timer\ttransactions/s\tCPU s\tbroker CPU s\t\n")
		for _, q := range late {
			fmt.Fprintf(w, "%s\t%d\t%d\t%.1f\t%.1f\t%.1f\t%.1f\t%d\t%.0f\t%.0f\t%.1f\t%.1f\t\n", q.Name, q.Rate, q.Timers, q.P50, q.P99, q.P999, q.Max, q.N, q.TimersMax, q.Transactions, q.CPU, q.BrokerCPU)
		}
		if err := w.Flush(); err != nil {
			return err
		}
	}
	return json.NewEncoder(b.out).Encode(out)
}
