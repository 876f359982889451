package brokersim

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"footfall/pipeline"
	arch "footfall/pipeline/archive"
	"footfall/pipeline/snapshot"
	"footfall/pipeline/worker"
	"footfall/schemas"
	"footfall/sinks/clickhouse"
	trig "footfall/sinks/triggers"
	"footfall/sources/kafka"
)

// process is one footfall: an engine and an archive, each started again when it ends
// by itself, as a supervisor would.
type process struct {
	w    *world
	name string
	host *host

	rebuild bool

	stop context.CancelFunc
	done sync.WaitGroup

	mu   sync.Mutex
	pipe *pipeline.Pipeline // of the engine that runs
}

// run starts a process.
func (w *world) run(name string) *process {
	return w.begin(&process{name: name})
}

// rebuild starts one with --rebuild.
func (w *world) rebuild(name string) *process {
	return w.begin(&process{name: name, rebuild: true})
}

func (w *world) begin(p *process) *process {
	name := p.name
	ctx, stop := context.WithCancel(w.ctx)
	p.w, p.host, p.stop = w, &host{net: w.net, name: name}, stop
	w.note("%s starts", name)
	p.done.Go(func() { p.supervise(ctx, engine, p.engine) })
	p.done.Go(func() { p.supervise(ctx, archive, p.archive) })
	return p
}

// patience is how often a part of a process is started again at most.
const patience = 20

func (p *process) supervise(ctx context.Context, what role, once func(context.Context) error) {
	for range patience {
		if ctx.Err() != nil {
			return
		}
		err := once(ctx)
		if ctx.Err() == nil {
			p.w.end(p.name+"/"+string(what), err)
		}
		pause(ctx, time.Second)
	}
}

// leave ends a process cleanly, kill without a word to anyone. Both wait for it.
func (p *process) leave() {
	p.w.note("%s leaves", p.name)
	p.stop()
	p.done.Wait()
	p.w.note("%s has left", p.name)
}

func (p *process) kill() {
	p.w.note("%s is killed", p.name)
	p.host.kill()
	p.stop()
}

// gone waits for what is left in this program of a process that was killed.
func (p *process) gone() { p.done.Wait() }

func (p *process) config() kafka.Config {
	c := kafka.Config{
		Brokers: brokers(), Group: group, Instance: p.name, Topic: events, Protocol: p.w.opt.protocol,
		SessionTimeout: 6 * time.Second, HeartbeatInterval: time.Second, RebalanceTimeout: 15 * time.Second,
		RevokeLimit: 5 * time.Second, TransactionTimeout: 10 * time.Second, TickInterval: time.Second,
		Now: now,
	}
	if p.w.opt.static {
		c.InstanceID = p.name
	}
	return c
}

// inward is the session's half of the edges; it has the same names for lower things.
type inward interface {
	Bounds(ctx context.Context, partition int32) (start, end int64, err error)
	Input(ctx context.Context, partition int32, from, to int64, each func([]worker.Record) error) error
}

// mortal ends what is left, in this program, of a process that was killed: its network
// is dead, and it would go on trying to commit for ever.
type mortal struct {
	pipeline.Committer
	host *host
}

func (m mortal) Commit(ctx context.Context, outs []*worker.Output) error {
	if m.host.isDead() {
		return fmt.Errorf("killed: %w", pipeline.ErrPermanent)
	}
	return m.Committer.Commit(ctx, outs)
}

func (m mortal) Committed(ctx context.Context, partition int32) (schemas.Mark, bool, error) {
	if m.host.isDead() {
		return schemas.Mark{}, false, fmt.Errorf("killed: %w", pipeline.ErrPermanent)
	}
	return m.Committer.Committed(ctx, partition)
}

// engine is one life of an engine, as cmd puts it together.
func (p *process) engine(ctx context.Context) error {
	conf := p.config()
	conf.Options = []kgo.Opt{kgo.Dialer(p.host.dialer(string(engine)))}
	s, err := kafka.New(ctx, conf, outputs()...)
	if err != nil {
		return err
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer cancel()
		s.Close(ctx)
	}()
	sink, err := trig.New(trig.Config{
		Group: group, Input: events, Triggers: triggers, Muted: muted, DeadLetters: dead,
		Currency: contract().Currency, Now: now, Wait: p.w.opt.wait,
	}, s)
	if err != nil {
		return err
	}
	pipe := pipeline.New(pipeline.Config{
		Worker: worker.Config{
			Rules: p.w.rules, Ahead: 5 * schemas.Minute, MaxSkew: 5 * schemas.Minute, MaxAge: schemas.Day,
			DedupWindow: schemas.Hour, DedupBudget: 1 << 16, Slice: 100,
		},
		Decoder: func() *schemas.Decoder {
			d, err := schemas.NewDecoder(contract())
			if err != nil {
				panic(err)
			}
			return d
		},
		Source: s, Committer: mortal{committer{sink, p.w.opt.bug}, p.host},
		History: struct {
			inward
			*trig.Sink
		}{s, sink},
		Snapshots: snapshot.NewStore(p.w.bucket, 3),
		Now:       now, Grace: 2 * schemas.Second, LazyCommit: 2 * schemas.Second, SnapshotEvery: 10 * schemas.Second, DeltasMax: 3,
		Backoff: func(ctx context.Context, attempt int) {
			pause(ctx, min(10*time.Millisecond<<min(attempt, 10), 2*time.Second))
		},
		Paused: func() bool { return false }, Address: p.name,
		Rebuild: p.rebuild, Report: func(f pipeline.Fact) { p.fact(f) },
	})
	p.mu.Lock()
	p.pipe = pipe
	p.mu.Unlock()
	return pipe.Run(ctx)
}

// live is how many partitions have been recovered.
func (p *process) live() (n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.pipe == nil {
		return 0
	}
	for _, s := range p.pipe.Status() {
		if !s.Recovering {
			n++
		}
	}
	return n
}

// fact notes what a run that fails is understood by.
func (p *process) fact(f pipeline.Fact) {
	if _, ok := f.(pipeline.Committed); ok {
		return
	}
	_, message, fields := f.Log()
	text := ""
	for _, field := range fields {
		switch {
		case field.Interface != nil:
			text += " " + field.Key + "=" + errorText(field.Interface)
		case field.String != "":
			text += " " + field.Key + "=" + field.String
		default:
			text += " " + field.Key + "=" + number(field.Integer)
		}
	}
	p.w.note("%s: %s%s", p.name, message, text)
}

// archive is one life of an archive.
func (p *process) archive(ctx context.Context) error {
	opts, err := kafka.Options(kafka.Config{
		Brokers: brokers(), SessionTimeout: 6 * time.Second,
		Options: []kgo.Opt{kgo.Dialer(p.host.dialer(string(archive)))},
	})
	if err != nil {
		return err
	}
	opts = append(opts, p.w.opt.protocol.Options()...)
	opts = append(opts, kgo.SessionTimeout(6*time.Second), kgo.HeartbeatInterval(time.Second), kgo.RebalanceTimeout(15*time.Second))
	if p.w.opt.static {
		opts = append(opts, kgo.InstanceID(p.name))
	}
	report := func(f arch.Fact) {
		switch f.(type) {
		case arch.Inserted, arch.Audited:
		default:
			p.w.note("%s/archive: %v", p.name, f)
		}
	}
	l, err := clickhouse.NewLog(group+"-archive", append(outputs(), events), opts, now, report)
	if err != nil {
		return err
	}
	defer l.Close()
	a := arch.New(arch.Config{
		Log: l, Table: p.w.table, Now: now, Report: report,
		Sleep: func(ctx context.Context, d schemas.Millis) error {
			pause(ctx, time.Duration(d)*time.Millisecond)
			return ctx.Err()
		},
	})
	// As sinks/clickhouse: what is in the making is sent before it ends.
	work, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	defer context.AfterFunc(ctx, func() {
		pause(work, 10*time.Second)
		stop()
	})()
	err = a.Run(ctx, work)
	if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
		return nil
	}
	return err
}

// pause waits, or until ctx ends.
func pause(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}
