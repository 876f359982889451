package chdb

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/exec"
	"os/signal"
	"sync"
	"syscall"
	"time"
)

// helperEnv asks a program to be the helper process. Its value is a helperJob.
const helperEnv = "FOOTFALL_CLICKHOUSE_HELPER"

// helperJob is what a helper process is to serve.
type helperJob struct {
	Library  string `json:"library"`
	Dir      string `json:"dir"`
	Addr     string `json:"addr"`
	User     string `json:"user,omitempty"`
	Password string `json:"password,omitempty"`

	Grants []string `json:"grants"`
}

// IsHelper says that this process was started by StartLocal to be the engine.
func IsHelper() bool { return os.Getenv(helperEnv) != "" }

// Helper is what a program that calls StartLocal calls first thing in main. If the
// process was started to be the engine it serves it, and returns the exit code and
// true; main then has nothing else to do but exit with it.
//
// The helper says where it answers in one line of JSON (Ready) on its standard
// output. It ends when its standard input does, so it never outlives the program
// that started it, however that one ends. Ctrl-C in a terminal reaches both; the
// helper ignores it, because its parent may still have rows for it.
func Helper() (code int, ran bool) {
	text := os.Getenv(helperEnv)
	if text == "" {
		return 0, false
	}
	if err := runHelper(text); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1, true
	}
	return 0, true
}

func runHelper(text string) error {
	var job helperJob
	if err := json.Unmarshal([]byte(text), &job); err != nil {
		return fmt.Errorf("%s: %w", helperEnv, err)
	}
	// Both reach a whole process group, from a terminal or a supervisor; the parent
	// may still have rows for us, and ends us by closing our standard input.
	signal.Ignore(os.Interrupt, syscall.SIGTERM)
	ctx, parentGone := context.WithCancel(context.Background())
	defer parentGone()
	go func() { // until the process ends
		_, _ = io.Copy(io.Discard, os.Stdin)
		parentGone()
	}()
	return Serve(ctx, Options{
		Library: job.Library, Dir: job.Dir, Addr: job.Addr, User: job.User, Password: job.Password, Grants: job.Grants,
		Ready: func(r Ready) { _ = json.NewEncoder(os.Stdout).Encode(r) },
	})
}

// LocalOptions say how to start an engine in a helper process.
type LocalOptions struct {
	Executable string   // a program that calls Helper; this one if empty
	Args       []string // its arguments, for whoever lists processes; the helper reads none

	Library        string   // path of libchdb; what Fetch returns if empty
	Dir            string   // where the tables are kept
	Addr           string   // to listen on; any free port of 127.0.0.1 if empty
	User, Password string   // as in Options
	Grants         []string // as in Options

	Progress func(Progress) // of Fetch
	Stderr   io.Writer      // for what the helper says; if nil, its last words are in the error
}

// Local is an engine in a helper process.
type Local struct {
	ready          Ready
	user, password string

	cmd   *exec.Cmd
	stdin io.Closer // closing it asks the helper to stop
	done  chan struct{}
	err   error // why it ended; set before done is closed
	words *tail
	once  sync.Once // guards stdin
}

// startMax is how long an engine may take to answer. Tables with many parts take
// a while to open.
const startMax = 2 * time.Minute

// StartLocal starts the engine in a helper process and returns when it answers.
// The process ends with Stop, with Kill, or with this process; not with ctx, which
// is for starting only.
func StartLocal(ctx context.Context, opt LocalOptions) (*Local, error) {
	if IsHelper() {
		return nil, errors.New("start ClickHouse: this process was itself started as a helper; main must call chdb.Helper first, and a test binary's TestMain chdbtest.Main")
	}
	var err error
	if opt.Library == "" {
		if opt.Library, err = Fetch(ctx, opt.Progress); err != nil {
			return nil, err
		}
	}
	if opt.Executable == "" {
		if opt.Executable, err = os.Executable(); err != nil {
			return nil, fmt.Errorf("start ClickHouse: %w", err)
		}
	}
	if opt.Addr == "" {
		opt.Addr = "127.0.0.1:0"
	}
	l, lines, err := launch(opt)
	if err != nil {
		return nil, fmt.Errorf("start ClickHouse: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, startMax)
	defer cancel()
	select {
	case line, ok := <-lines:
		if ok {
			err = json.Unmarshal(line, &l.ready)
			if err == nil {
				return l, nil
			}
		}
		_ = l.Kill() // it ended, or is another program
		if err == nil && l.err == nil {
			err = errors.New("ClickHouse ended")
		}
		return nil, fmt.Errorf("start ClickHouse: the helper process said %.200q instead of its address: %w", line, errors.Join(err, l.err))
	case <-ctx.Done():
		_ = l.Kill()
		return nil, fmt.Errorf("start ClickHouse: %w", context.Cause(ctx))
	}
}

// launch starts the process. The first line it prints comes on lines, which is
// closed if there is none.
func launch(opt LocalOptions) (l *Local, lines <-chan []byte, err error) {
	job, err := json.Marshal(helperJob{Library: opt.Library, Dir: opt.Dir, Addr: opt.Addr, User: opt.User, Password: opt.Password, Grants: opt.Grants})
	if err != nil {
		return nil, nil, err
	}
	cmd := exec.Command(opt.Executable, opt.Args...) //nolint:noctx // it outlives the context that starts it
	cmd.Env = append(os.Environ(), helperEnv+"="+string(job))
	l = &Local{cmd: cmd, user: opt.User, password: opt.Password, done: make(chan struct{}), words: &tail{}}
	cmd.Stderr = l.words
	if opt.Stderr != nil {
		cmd.Stderr = io.MultiWriter(l.words, opt.Stderr)
	}
	if l.stdin, err = cmd.StdinPipe(); err != nil {
		return nil, nil, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, nil, err
	}
	first := make(chan []byte, 1)
	go func() { // ends with the process, whose standard output ends then
		r := bufio.NewReader(stdout)
		line, err := r.ReadBytes('\n')
		if err == nil {
			first <- line
		}
		close(first)
		_, _ = io.Copy(io.Discard, r)
		if err := cmd.Wait(); err != nil {
			l.err = fmt.Errorf("ClickHouse ended: %w: %s", err, l.words)
		}
		close(l.done)
	}()
	return l, first, nil
}

// Addr is where it answers HTTP: host:port.
func (l *Local) Addr() string { return l.ready.Address }

// Version is the version of ClickHouse.
func (l *Local) Version() string { return l.ready.Version }

// Pid is the process's id.
func (l *Local) Pid() int { return l.cmd.Process.Pid }

// DSN is the address for clickhouse-go, with a database in it; "default" if empty.
func (l *Local) DSN(database string) string {
	if database == "" {
		database = "default"
	}
	u := url.URL{Scheme: "http", Host: l.ready.Address, Path: "/" + database}
	if l.password != "" {
		user := l.user
		if user == "" {
			user = "default"
		}
		u.User = url.UserPassword(user, l.password)
	}
	return u.String()
}

// Done is closed when the process has ended, for whatever reason; Err then says
// why, and is nil after a graceful stop.
func (l *Local) Done() <-chan struct{} { return l.done }

// Err waits for the end and returns its reason.
func (l *Local) Err() error {
	<-l.done
	return l.err
}

// Stop ends the engine gracefully: running statements finish first. When ctx ends
// before it has, it is killed, which loses nothing that was acknowledged.
func (l *Local) Stop(ctx context.Context) error {
	l.once.Do(func() { _ = l.stdin.Close() })
	select {
	case <-l.done:
		return l.err
	case <-ctx.Done():
		_ = l.Kill()
		return fmt.Errorf("stop ClickHouse: killed: %w", context.Cause(ctx))
	}
}

// Kill ends the process at once (SIGKILL) and waits for its end.
func (l *Local) Kill() error {
	err := l.cmd.Process.Kill()
	<-l.done
	if errors.Is(err, os.ErrProcessDone) {
		return nil
	}
	return err
}

// tail keeps the end of what is written to it.
type tail struct {
	mu  sync.Mutex // guards buf
	buf []byte
}

const tailMax = 8 << 10

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf = append(t.buf, p...)
	t.buf = t.buf[max(0, len(t.buf)-tailMax):]
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(bytes.TrimSpace(t.buf))
}
