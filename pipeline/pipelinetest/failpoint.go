package pipelinetest

import (
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// Failpoint is a named place in our code at which tests end or stop a process. In
// the code it is a comment,
//
//	//failpoint:txn.produced
//
// and so in every build but those with the overlay of FailpointOverlay: there it is a
// call that, on its n-th time, sends the process itself the signal that
// FailpointVariable asks for.
type Failpoint struct {
	Name string // unique in the tree
	File string // from the root, with slashes
}

// FailpointVariable is the environment variable that arms failpoints of a process. Unset
// or empty it arms none.
const FailpointVariable = "FOOTFALL_TEST_FAILPOINT"

// FailpointHit begins the line on standard error that a failpoint writes before it
// acts; its name follows.
const FailpointHit = "failpoint: "

// Armed is what a failpoint does when a process comes to it for the N-th time. "KILL" and
// "STOP" are the signals that the process sends itself; "WAIT" holds up the goroutine
// for half a second, for a test to do something meanwhile. "DENY", whatever N is, is for edits
// beside the failpoints: failpointDenies says it.
type Armed struct {
	Name string
	N    int
	Do   string
}

// Arm is the environment that arms failpoints.
func Arm(points ...Armed) string {
	var b strings.Builder
	b.WriteString(FailpointVariable + "=")
	for _, p := range points {
		fmt.Fprintf(&b, "%s,%d,%s;", p.Name, p.N, p.Do)
	}
	return b.String()
}

var failpointForm = regexp.MustCompile(`(?m)^\t*//failpoint:(\S+)\n`)

// Failpoints finds those of a tree, in the order of its files.
func Failpoints(root string) (found []Failpoint, err error) {
	err = filepath.WalkDir(root, func(file string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && strings.HasPrefix(d.Name(), ".") && file != root, d.Name() == "testdata":
			return filepath.SkipDir
		case d.IsDir() || !strings.HasSuffix(file, ".go") || strings.HasSuffix(file, "_test.go"):
			return nil
		}
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		name, err := filepath.Rel(root, file)
		for _, m := range failpointForm.FindAllSubmatch(text, -1) {
			found = append(found, Failpoint{Name: string(m[1]), File: filepath.ToSlash(name)})
		}
		return err
	})
	return found, err
}

// FailpointOverlay writes, into dir, the overlay that makes the failpoints of the tree
// under root calls, and edits of packages that have some, and returns the path of what `go
// build -overlay` takes.
func FailpointOverlay(root, dir string, more ...Edit) (spec string, err error) {
	points, err := Failpoints(root)
	if err != nil {
		return "", err
	}
	edits := slices.Clone(more)
	add := map[string]string{}
	for _, p := range points {
		edits = append(edits, Edit{File: p.File, Old: "//failpoint:" + p.Name + "\n", New: fmt.Sprintf("failpoint(%q)\n", p.Name)})
		text, err := os.ReadFile(filepath.Join(root, filepath.FromSlash(p.File)))
		if err != nil {
			return "", err
		}
		pkg := packageForm.FindSubmatch(text)
		if pkg == nil {
			return "", fmt.Errorf("failpoint %s: %s names no package", p.Name, p.File)
		}
		add[path.Join(path.Dir(p.File), "failpoint.go")] = fmt.Sprintf(failpointFile, pkg[1], FailpointVariable, FailpointHit)
	}
	return Overlay(root, dir, edits, add)
}

var packageForm = regexp.MustCompile(`(?m)^package (\w+)$`)

// failpointFile is added to every package that has a failpoint. After SIGKILL nothing
// else is done here, although other threads of the process may run a moment longer;
// after SIGSTOP and SIGCONT the code goes on as if nothing had been.
const failpointFile = `package %s

import (
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

type failpointArmed struct {
	left int64
	do   string
}

var failpointMu sync.Mutex

var failpoints = func() map[string]*failpointArmed {
	armed := map[string]*failpointArmed{}
	for _, text := range strings.Split(os.Getenv(%q), ";") {
		if words := strings.Split(text, ","); len(words) == 3 {
			n, _ := strconv.ParseInt(words[1], 10, 64)
			armed[words[0]] = &failpointArmed{n, words[2]}
		}
	}
	return armed
}()

func failpointDenies(name string) bool {
	p := failpoints[name]
	return p != nil && p.do == "DENY"
}

func failpoint(name string) {
	p := failpoints[name]
	if p == nil {
		return
	}
	failpointMu.Lock()
	p.left--
	hit := p.left == 0
	failpointMu.Unlock()
	if !hit {
		return
	}
	os.Stderr.WriteString(%q + name + "\n")
	switch p.do {
	case "WAIT":
		time.Sleep(500 * time.Millisecond)
	case "STOP":
		syscall.Kill(syscall.Getpid(), syscall.SIGSTOP)
	default:
		syscall.Kill(syscall.Getpid(), syscall.SIGKILL)
		select {}
	}
}
`
