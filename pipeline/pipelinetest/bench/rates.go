package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime/pprof"
	"strconv"
	"text/tabwriter"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"footfall/pipeline/pipelinetest/engine"
	"footfall/schemas"
	"footfall/sinks/clickhouse"
	"footfall/sinks/clickhouse/chdb"
)

// rate is what one part came to.
type rate struct {
	Name      string  `json:"name"`
	Records   int64   `json:"records"`
	PerCPU    float64 `json:"records_per_cpu_s"`
	PerSecond float64 `json:"records_per_s"`
	CPU       float64 `json:"cpu_s"`
	BrokerCPU float64 `json:"broker_cpu_s"`
	TableCPU  float64 `json:"clickhouse_cpu_s"`
}

// rates measures what is neither the pipeline nor compared with a peer.
func (b *bench) rates(ctx context.Context) error {
	var all []rate
	for _, part := range []struct {
		name string
		run  func(ctx context.Context, r *rate) (spent, error)
	}{{"simulate", b.simulate}, {"publish", b.publish}, {"archive", b.archive}} {
		if !b.runs(part.name, true) {
			continue
		}
		r := rate{Name: part.name}
		before := b.brokerCPU(ctx)
		used, err := part.run(ctx, &r)
		if err != nil {
			return fmt.Errorf("%s: %w", part.name, err)
		}
		if part.name != "archive" { // whose topic is filled first
			r.BrokerCPU = b.brokerCPU(ctx) - before
		}
		r.CPU, r.PerCPU, r.PerSecond = used.cpu, float64(r.Records)/used.cpu, float64(r.Records)/used.wall
		all = append(all, r)
	}
	w := tabwriter.NewWriter(b.out, 2, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "part\trecords\trecords per CPU-s\trecords/s\tCPU s\tbroker CPU s\tClickHouse CPU s\t")
	for _, r := range all {
		fmt.Fprintf(w, "%s\t%d\t%.0f\t%.0f\t%.2f\t%.2f\t%.2f\t\n", r.Name, r.Records, r.PerCPU, r.PerSecond, r.CPU, r.BrokerCPU, r.TableCPU)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	return json.NewEncoder(b.out).Encode(all)
}

// create makes a group's topics, those of a replay.
func (b *bench) create(ctx context.Context, settings []string) error {
	_, _, err := b.command(ctx, append([]string{"topics", "create"}, settings...)...)
	return err
}

// fill fills an events topic with the events of a simulated shop: a year of so many
// shoppers, as far as the records go, no faults.
func (b *bench) fill(ctx context.Context, settings []string, records, shoppers int) (used spent, err error) {
	_, used, err = b.command(ctx, append([]string{
		"simulate", "--lane", "replay", "--ago", "365d", "--no-faults",
		"--count", strconv.Itoa(records), "--shoppers", strconv.Itoa(shoppers),
	}, settings...)...)
	return used, err
}

func (b *bench) simulate(ctx context.Context, r *rate) (spent, error) {
	settings := b.settings("simulate-" + b.id)
	if err := b.create(ctx, settings); err != nil {
		return spent{}, err
	}
	r.Records = int64(b.records)
	return b.fill(ctx, settings, b.records, 100_000)
}

// publish publishes a CSV file as a big shop's public data set has it.
func (b *bench) publish(ctx context.Context, r *rate) (spent, error) {
	settings := b.settings("publish-" + b.id)
	if err := b.create(ctx, settings); err != nil {
		return spent{}, err
	}
	path := filepath.Join(b.dir, "events.csv")
	if err := recorded(path, b.records); err != nil {
		return spent{}, err
	}
	out, used, err := b.command(ctx, append([]string{"publish", path, "--mapping", "rees46", "--lane", "replay", "--output", "json"}, settings...)...)
	if err != nil {
		return spent{}, err
	}
	var answer struct {
		Published int64 `json:"published"`
	}
	err = json.Unmarshal([]byte(out), &answer)
	r.Records = answer.Published
	return used, err
}

// recorded writes a file with the columns of REES46's public events, ten rows a second: that shop has sixteen.
func recorded(path string, rows int) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	w := bufio.NewWriterSize(f, 1<<20)
	w.WriteString("event_time,event_type,product_id,category_id,category_code,brand,price,user_id,user_session\n")
	rng := rand.New(rand.NewPCG(1, 1))
	types := []string{"view", "view", "view", "view", "view", "view", "view", "cart", "cart", "purchase"}
	categories := []string{"", "electronics.smartphone", "appliances.kitchen.washer", "computers.notebook", "apparel.shoes"}
	brands := []string{"", "samsung", "apple", "xiaomi", "bosch"}
	at := time.Date(2019, 10, 1, 0, 0, 0, 0, time.UTC)
	for i := range rows {
		product, user := rng.IntN(200_000), rng.IntN(1_000_000)
		fmt.Fprintf(w, "%s UTC,%s,%d,%d,%s,%s,%d.%02d,%d,%08x-8bb3-4e00-8c23-%012x\n",
			at.Add(time.Duration(i/10)*time.Second).Format(time.DateTime), types[rng.IntN(len(types))], 1_000_000+product, 2_103_807_459_595_387_724+int64(product%1000),
			categories[product%len(categories)], brands[product%len(brands)], product%900+5, product%100, 541_000_000+user, user, i/7)
	}
	return w.Flush()
}

// archive copies the events of a topic into the embedded ClickHouse, in a process of its
// own, by the archive that `footfall run` has beside its pipeline.
func (b *bench) archive(ctx context.Context, r *rate) (used spent, err error) {
	group := "archive-" + b.id
	settings := b.settings(group)
	if err := b.create(ctx, settings); err != nil {
		return used, err
	}
	if _, err := b.fill(ctx, settings, b.records, 100_000); err != nil {
		return used, err
	}
	server, err := chdb.StartLocal(ctx, chdb.LocalOptions{Dir: filepath.Join(b.dir, "clickhouse")})
	if err != nil {
		return used, err
	}
	defer func() { _ = server.Stop(context.WithoutCancel(ctx)) }()
	db, err := clickhouse.Open(server.DSN("bench"))
	if err != nil {
		return used, err
	}
	defer func() { _ = db.Close() }()
	if err := db.Migrate(ctx); err != nil {
		return used, err
	}
	before := [3]float64{b.brokerCPU(ctx)}
	for i, pid := range []int{os.Getpid(), server.Pid()} {
		if before[i+1], _, err = engine.Usage(pid); err != nil {
			return used, err
		}
	}
	if b.profile != "" {
		f, err := os.Create(b.profile)
		if err != nil {
			return used, err
		}
		defer func() { _ = f.Close() }()
		if err := pprof.StartCPUProfile(f); err != nil {
			return used, err
		}
		defer pprof.StopCPUProfile()
	}
	began := time.Now()
	a, err := clickhouse.NewArchive(clickhouse.ArchiveConfig{
		DB: db, Client: []kgo.Opt{kgo.SeedBrokers(b.brokers)}, Group: group,
		Inputs:   []clickhouse.InputTopic{{Name: group, Lane: schemas.Replay}},
		Triggers: group + "-triggers", Muted: group + "-muted", Dead: group + "-dead-letters",
		Contract: schemas.Contract{Currency: "EUR"},
	})
	if err != nil {
		return used, err
	}
	running, stop := context.WithCancel(ctx)
	defer stop()
	done := make(chan error, 1)
	go func() { done <- a.Run(running) }()
	for a.Stats().Events.Load() < int64(b.records) {
		select {
		case err := <-done:
			return used, fmt.Errorf("the archive has ended: %w", err)
		case <-ctx.Done():
			return used, ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
	used.wall = time.Since(began).Seconds()
	own, _, err := engine.Usage(os.Getpid())
	if err != nil {
		return used, err
	}
	table, _, err := engine.Usage(server.Pid())
	if err != nil {
		return used, err
	}
	used.cpu, r.TableCPU, r.BrokerCPU = own-before[1], table-before[2], b.brokerCPU(ctx)-before[0]
	r.Records = a.Stats().Events.Load()
	stop()
	return used, <-done
}
