package chdb

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/klauspost/compress/gzip"
)

// Version is the version of the packages @chdb/lib-PLATFORM whose library is used.
// It is the first with streamed inserts, which earlier ones lack; the default tag
// may be older.
const Version = "26.7.3-stable.1"

// ErrUnavailable says that the library cannot be had on this machine, now. The
// error that wraps it says why, and what to do.
var ErrUnavailable = errors.New("the embedded ClickHouse engine cannot be had")

// build is one platform's package, as it is known to be. Empty or zero where it
// is not known: then the integrity that npm reports for the pinned version holds.
type build struct {
	platform  string // the end of the package's name
	integrity string // of the tarball, as npm writes it
	sha256    string // of the library
	packed    int64  // bytes of the tarball
	unpacked  int64  // bytes of the library
}

func builds() map[string]build {
	return map[string]build{
		"linux/amd64": {
			platform:  "linux-x64-gnu",
			integrity: "sha512-XP97mMqnc5tZpKQywR8N7cLTsHNiTmHr30pC5mzo3jWmukjKn2IBa60c2B/gWUNcuFjOMjWoorQICCqBVj5wpw==",
			sha256:    "36ad4e999882821ef13cf2d0f52c93f48e6ee1b4498b35a201c23ce4b8d15bf5",
			packed:    177817999,
			unpacked:  566330096,
		},
		"linux/arm64":  {platform: "linux-arm64-gnu"},
		"darwin/amd64": {platform: "darwin-x64"},
		"darwin/arm64": {platform: "darwin-arm64"},
	}
}

// Progress tells how far Fetch is. Total is a guess where a platform's sizes are
// not known.
type Progress struct {
	Stage       string // "download", "unpack", or "wait": another process is fetching
	Done, Total int64  // bytes
}

// Fetch returns the path of libchdb. The first time it gets it with npm pack, by
// package name, verifies it, and keeps it in the cache: $FOOTFALL_CACHE, or the
// user's cache directory. Several processes may fetch at once; one does the work.
// progress may be nil. An error wraps ErrUnavailable unless ctx has ended.
func Fetch(ctx context.Context, progress func(Progress)) (string, error) {
	if progress == nil {
		progress = func(Progress) {}
	}
	b, ok := builds()[runtime.GOOS+"/"+runtime.GOARCH]
	if !ok {
		return "", fmt.Errorf("%w: there is no build for %s/%s; use Linux or macOS on amd64 or arm64, or a ClickHouse server",
			ErrUnavailable, runtime.GOOS, runtime.GOARCH)
	}
	root, err := cacheDir()
	if err != nil {
		return "", fmt.Errorf("%w: %w; set FOOTFALL_CACHE to a directory for it", ErrUnavailable, err)
	}
	f := &fetcher{build: b, dir: filepath.Join(root, "clickhouse", Version, b.platform), progress: progress}
	path, err := f.fetch(ctx)
	switch {
	case err == nil:
		return path, nil
	case ctx.Err() != nil:
		return "", fmt.Errorf("get the ClickHouse engine: %w", context.Cause(ctx))
	default:
		return "", fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
}

func cacheDir() (string, error) {
	if dir := os.Getenv("FOOTFALL_CACHE"); dir != "" {
		return filepath.Abs(dir)
	}
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	return filepath.Join(dir, "footfall"), nil
}

// fetcher fills one directory of the cache:
//
//	libchdb.so   the library; renamed into place when it is whole
//	verified     what was verified of it; written last
//	lock         held by the process that works here
//	tmp-*        its work; of a process that died, if nobody holds the lock
type fetcher struct {
	build
	dir      string
	progress func(Progress)
}

// verified is the content of the file of that name: the library's checksum, and
// the size and time by which a change is noticed without reading all of it again.
type verified struct {
	SHA256   string    `json:"sha256"`
	Size     int64     `json:"size"`
	Modified time.Time `json:"modified"`
}

func (f *fetcher) library() string { return filepath.Join(f.dir, "libchdb.so") }
func (f *fetcher) pkg() string     { return "@chdb/lib-" + f.platform + "@" + Version }

func (f *fetcher) fetch(ctx context.Context) (string, error) {
	if f.isVerified() {
		return f.library(), nil
	}
	if err := os.MkdirAll(f.dir, 0o750); err != nil {
		return "", err
	}
	unlock, err := f.lock(ctx)
	if err != nil {
		return "", err
	}
	defer unlock()
	if f.isVerified() { // by the one we waited for
		return f.library(), nil
	}
	if left, err := filepath.Glob(filepath.Join(f.dir, "tmp-*")); err == nil {
		for _, dir := range left {
			_ = os.RemoveAll(dir)
		}
	}
	tmp, err := os.MkdirTemp(f.dir, "tmp-")
	if err != nil {
		return "", err
	}
	defer func() { _ = os.RemoveAll(tmp) }()
	tarball, err := f.pack(ctx, tmp)
	if err != nil {
		return "", err
	}
	if err := f.install(ctx, tarball, filepath.Join(tmp, "libchdb.so")); err != nil {
		return "", err
	}
	return f.library(), nil
}

// isVerified says that the library is there as it was verified.
func (f *fetcher) isVerified() bool {
	text, err := os.ReadFile(filepath.Join(f.dir, "verified"))
	if err != nil {
		return false
	}
	var v verified
	info, err := os.Stat(f.library())
	return err == nil && json.Unmarshal(text, &v) == nil &&
		info.Size() == v.Size && info.ModTime().Equal(v.Modified) && (f.sha256 == "" || f.sha256 == v.SHA256)
}

// lock takes the directory's lock, waiting for another process if need be. The
// kernel gives it back if the holder dies.
func (f *fetcher) lock(ctx context.Context) (unlock func(), err error) {
	file, err := os.OpenFile(filepath.Join(f.dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return func() { _ = file.Close() }, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) {
			_ = file.Close()
			return nil, fmt.Errorf("lock %s: %w", file.Name(), err)
		}
		f.progress(Progress{Stage: "wait"})
		select {
		case <-ctx.Done():
			_ = file.Close()
			return nil, ctx.Err()
		case <-tick.C:
		}
	}
}

// packReport is what npm pack --json says of a package.
type packReport struct {
	Integrity string `json:"integrity"`
	Filename  string `json:"filename"`
}

// pack has npm write the tarball into tmp and returns its path, with its integrity
// checked. npm's own cache is put there too, because npm reports no progress: how
// much lies there is how much has come.
func (f *fetcher) pack(ctx context.Context, tmp string) (string, error) {
	npm, err := exec.LookPath("npm")
	if err != nil {
		return "", fmt.Errorf("npm is not on the PATH, and is needed once to get %s; install Node.js, which brings npm, "+
			"or use a ClickHouse server", f.pkg())
	}
	cmd := exec.CommandContext(ctx, npm, "pack", f.pkg(), "--json", "--ignore-scripts", "--loglevel=error",
		"--pack-destination="+tmp, "--cache="+filepath.Join(tmp, "npm"))
	cmd.Dir = tmp // npm must not take a package.json of where footfall runs into account
	var stdout, stderr strings.Builder
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	cmd.WaitDelay = 5 * time.Second
	watched := f.watch(tmp)
	err = cmd.Run()
	watched()
	if err != nil {
		return "", fmt.Errorf("npm pack %s: %w: %s; check that this machine may use npm's registry (npm ping), then try again, "+
			"or use a ClickHouse server", f.pkg(), err, lastLines(stderr.String()))
	}
	var reports []packReport
	if err := json.Unmarshal([]byte(stdout.String()), &reports); err != nil || len(reports) != 1 {
		return "", fmt.Errorf("npm pack %s: its report is not understood: %.200q", f.pkg(), stdout.String())
	}
	r := reports[0]
	if f.integrity != "" && r.Integrity != f.integrity {
		return "", fmt.Errorf("npm pack %s: npm reports integrity %s, it must be %s; do not use it", f.pkg(), r.Integrity, f.integrity)
	}
	tarball := filepath.Join(tmp, filepath.Base(r.Filename))
	got, err := integrity(tarball)
	if err != nil {
		return "", err
	}
	if got != r.Integrity {
		return "", fmt.Errorf("npm pack %s: the tarball has integrity %s, it must be %s", f.pkg(), got, r.Integrity)
	}
	return tarball, nil
}

// watch reports the size of dir until the returned function is called.
func (f *fetcher) watch(dir string) (stop func()) {
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(250 * time.Millisecond)
		defer tick.Stop()
		total := f.packed
		if total == 0 {
			total = 180 << 20
		}
		for {
			f.progress(Progress{Stage: "download", Done: min(dirSize(dir), total), Total: total})
			select {
			case <-done:
				return
			case <-tick.C:
			}
		}
	}()
	return func() {
		close(done)
		<-ended
	}
}

func dirSize(dir string) (n int64) {
	_ = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			if info, err := d.Info(); err == nil {
				n += info.Size()
			}
		}
		return nil // files come and go
	})
	return n
}

// integrity is npm's notation of a file's SHA-512.
func integrity(name string) (string, error) {
	file, err := os.Open(name)
	if err != nil {
		return "", err
	}
	defer func() { _ = file.Close() }()
	h := sha512.New()
	if _, err := io.Copy(h, file); err != nil {
		return "", err
	}
	return "sha512-" + base64.StdEncoding.EncodeToString(h.Sum(nil)), nil
}

// install unpacks the library to tmp, verifies it, and renames it into place.
func (f *fetcher) install(ctx context.Context, tarball, tmp string) error {
	sum, err := f.unpack(ctx, tarball, tmp)
	if err != nil {
		return fmt.Errorf("unpack %s: %w", f.pkg(), err)
	}
	if f.sha256 != "" && sum != f.sha256 {
		return fmt.Errorf("unpack %s: libchdb.so has sha256 %s, it must be %s; do not use it", f.pkg(), sum, f.sha256)
	}
	info, err := os.Stat(tmp)
	if err != nil {
		return err
	}
	text, err := json.Marshal(verified{SHA256: sum, Size: info.Size(), Modified: info.ModTime()})
	if err != nil {
		return err
	}
	if err := os.Rename(tmp, f.library()); err != nil {
		return err
	}
	mark := tmp + ".verified"
	if err := os.WriteFile(mark, text, 0o600); err != nil {
		return err
	}
	return os.Rename(mark, filepath.Join(f.dir, "verified"))
}

// unpack writes the library out of the tarball to name, and returns its SHA-256.
func (f *fetcher) unpack(ctx context.Context, tarball, name string) (sum string, err error) {
	file, err := os.Open(tarball)
	if err != nil {
		return "", err
	}
	defer func() { _ = file.Close() }()
	zip, err := gzip.NewReader(file)
	if err != nil {
		return "", err
	}
	entries := tar.NewReader(zip)
	for {
		entry, err := entries.Next()
		if errors.Is(err, io.EOF) {
			return "", errors.New("there is no libchdb.so in it")
		}
		if err != nil {
			return "", err
		}
		if base := path.Base(entry.Name); base == "libchdb.so" || base == "libchdb.dylib" {
			return f.write(ctx, entries, entry.Size, name)
		}
	}
}

func (f *fetcher) write(ctx context.Context, from io.Reader, size int64, name string) (string, error) {
	out, err := os.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o700)
	if err != nil {
		return "", err
	}
	defer func() { _ = out.Close() }()
	count := &counter{ctx: ctx, hash: sha256.New(), total: size, progress: f.progress}
	if _, err := io.CopyBuffer(io.MultiWriter(out, count), from, make([]byte, 1<<20)); err != nil {
		return "", err
	}
	if err := out.Sync(); err != nil {
		return "", err
	}
	return hex.EncodeToString(count.hash.Sum(nil)), out.Close()
}

// counter hashes what is written and reports it.
type counter struct {
	ctx         context.Context //nolint:containedctx // it lives for one copy, which has no other way to end
	hash        hash.Hash
	done, total int64
	progress    func(Progress)
}

func (c *counter) Write(p []byte) (int, error) {
	before := c.done >> 24
	c.done += int64(len(p))
	if c.done>>24 != before || c.done == c.total {
		c.progress(Progress{Stage: "unpack", Done: c.done, Total: c.total})
	}
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.hash.Write(p)
}

// lastLines is the end of what a program said, on one line.
func lastLines(s string) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return strings.Join(lines[max(0, len(lines)-6):], " | ")
}
