package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// spent is what a part of the machine has used.
type spent struct {
	cpu, wall float64 // seconds
}

// command runs footfall to its end and tells what it used.
func (b *bench) command(ctx context.Context, args ...string) (out string, used spent, err error) {
	c := exec.CommandContext(ctx, b.binary, args...)
	began := time.Now()
	answer, err := c.Output()
	if ee := (*exec.ExitError)(nil); errors.As(err, &ee) {
		err = fmt.Errorf("footfall %s: %w\n%s", args[0], err, ee.Stderr)
	}
	if err != nil {
		return "", spent{}, err
	}
	used.wall = time.Since(began).Seconds()
	used.cpu = (c.ProcessState.UserTime() + c.ProcessState.SystemTime()).Seconds()
	return string(answer), used, nil
}

// process is a `footfall run`.
type process struct {
	*exec.Cmd
	log  string
	done chan struct{} // closed when it has ended
	err  error         // of its end
}

func (b *bench) start(ctx context.Context, name string, settings []string) (*process, error) {
	log, err := os.Create(filepath.Join(b.dir, name+".log"))
	if err != nil {
		return nil, err
	}
	defer func() { _ = log.Close() }()
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	http := l.Addr().String()
	_ = l.Close()
	p := &process{log: log.Name(), done: make(chan struct{})}
	args := append([]string{"run", "--set", "http.listen=" + http, "--set", "kafka.instance=" + name, "--set", "log.format=json"}, settings...)
	p.Cmd = exec.CommandContext(ctx, b.binary, args...)
	p.Stderr = log
	p.Cancel = func() error { return p.Process.Signal(syscall.SIGTERM) }
	p.WaitDelay = time.Minute
	if err := p.Start(); err != nil {
		return nil, err
	}
	go func() {
		p.err = p.Wait()
		close(p.done)
	}()
	return p, nil
}

func (p *process) stop() error {
	_ = p.Process.Signal(syscall.SIGTERM) // it may have ended
	<-p.done
	if p.err == nil {
		return nil
	}
	log, err := os.ReadFile(p.log)
	return errors.Join(fmt.Errorf("footfall: %w\n%s", p.err, log[max(0, len(log)-1000):]), err)
}

// until looks every 200 ms until something holds, or a process has ended.
func until(ctx context.Context, of []*process, holds func() (bool, error)) error {
	for {
		if ok, err := holds(); ok || err != nil {
			return err
		}
		for _, p := range of {
			select {
			case <-p.done:
				return errors.New("footfall has ended")
			default:
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// usage is the CPU seconds of a process so far.
func usage(pid int) (cpu float64, err error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	f := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+2:]))
	for _, i := range []int{11, 12} { // utime, stime
		ticks, err := strconv.ParseFloat(f[i], 64)
		if err != nil {
			return 0, err
		}
		cpu += ticks / 100
	}
	return cpu, nil
}

// brokerCPU is the CPU seconds of the broker so far, 0 where nobody can tell.
func (b *bench) brokerCPU(ctx context.Context) float64 {
	if b.broker == "" || b.data == "" {
		return 0
	}
	out, err := exec.CommandContext(ctx, b.broker, "cpu", b.data).Output()
	if err != nil {
		return 0
	}
	cpu, _ := strconv.ParseFloat(strings.TrimSpace(string(out)), 64)
	return cpu
}
