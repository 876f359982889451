// Package engine runs footfall as benchmarks of whole processes do, and tells what a process
// has used. It asks Linux.
package engine

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Run is a `footfall run`.
type Run struct {
	*exec.Cmd
	Began time.Time
	HTTP  string // where it listens

	log  string
	done chan struct{} // closed when it has ended
	err  error         // of its end
}

// Start starts one, which listens on a free port of loopback and writes its log to a file.
// settings are arguments. It is ended when ctx is.
func Start(ctx context.Context, binary, file string, settings ...string) (*Run, error) {
	log, err := os.Create(file) //nolint:gosec // the caller's own
	if err != nil {
		return nil, err
	}
	defer func() { _ = log.Close() }()
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	r := &Run{HTTP: l.Addr().String(), log: file, done: make(chan struct{})}
	_ = l.Close()
	args := append([]string{"run", "--set", "http.listen=" + r.HTTP, "--set", "log.format=json"}, settings...)
	r.Cmd = exec.CommandContext(ctx, binary, args...) //nolint:gosec // our own binary
	r.Stderr, r.Began = log, time.Now()
	r.Cancel = func() error { return r.Process.Signal(syscall.SIGTERM) }
	r.WaitDelay = time.Minute
	if err := r.Start(); err != nil {
		return nil, err
	}
	go func() {
		r.err = r.Wait()
		close(r.done)
	}()
	return r, nil
}

// Stop has it stop, and waits until it has. The error has the end of its log.
func (r *Run) Stop() error {
	_ = r.Process.Signal(syscall.SIGTERM) // it may have ended
	<-r.done
	if r.err == nil {
		return nil
	}
	log, err := os.ReadFile(r.log)
	return errors.Join(fmt.Errorf("footfall: %w\n%s", r.err, log[max(0, len(log)-1000):]), err)
}

// Until looks every 200 ms until something holds, or one of the runs has ended.
func Until(ctx context.Context, holds func() (bool, error), runs ...*Run) error {
	for {
		if ok, err := holds(); ok || err != nil {
			return err
		}
		for _, r := range runs {
			select {
			case <-r.done:
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

// Usage is the CPU seconds of a process so far, and the most memory it had, in MB.
func Usage(pid int) (cpu, rss float64, err error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, 0, err
	}
	f := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+2:]))
	for _, i := range []int{11, 12} { // utime, stime
		ticks, err := strconv.ParseFloat(f[i], 64)
		if err != nil {
			return 0, 0, err
		}
		cpu += ticks / 100
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, 0, err
	}
	_, peak, _ := strings.Cut(string(status), "VmHWM:")
	_, err = fmt.Sscanf(peak, "%g kB", &rss)
	return cpu, rss / 1024, err
}
