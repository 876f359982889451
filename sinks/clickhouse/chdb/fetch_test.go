package chdb

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// tarball writes a package with the given files, and returns its name.
func tarball(t *testing.T, files map[string]string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "package.tgz")
	out, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	zip := gzip.NewWriter(out)
	tw := tar.NewWriter(zip)
	for file, text := range files {
		if err := tw.WriteHeader(&tar.Header{Name: "package/" + file, Mode: 0o755, Size: int64(len(text))}); err != nil {
			t.Fatal(err)
		}
		if _, err := tw.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(tw.Close(), zip.Close(), out.Close()); err != nil {
		t.Fatal(err)
	}
	return name
}

// fakeNPM puts an npm first on the PATH that packs the given tarball and counts
// its calls in the returned file.
func fakeNPM(t *testing.T, script string) (calls string) {
	t.Helper()
	dir := t.TempDir()
	calls = filepath.Join(dir, "calls")
	text := "#!/bin/sh\necho \"$@\" >> " + calls + "\nfor a; do case $a in --pack-destination=*) dest=${a#*=};; esac; done\n" + script + "\n"
	if err := os.WriteFile(filepath.Join(dir, "npm"), []byte(text), 0o700); err != nil { //nolint:gosec // it is a program
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	return calls
}

func testFetcher(t *testing.T, library, tarball string) *fetcher {
	t.Helper()
	sum := sha256.Sum256([]byte(library))
	b := build{platform: "test-x64", sha256: hex.EncodeToString(sum[:])}
	if tarball != "" {
		var err error
		if b.integrity, err = integrity(tarball); err != nil {
			t.Fatal(err)
		}
	}
	return &fetcher{build: b, dir: filepath.Join(t.TempDir(), "cache"), progress: func(Progress) {}}
}

func packScript(tarball, integrity string) string {
	return fmt.Sprintf(`cp %s "$dest/p.tgz"; echo '[{"filename": "p.tgz", "integrity": "%s"}]'`, tarball, integrity)
}

func TestFetchOnceForMany(t *testing.T) {
	tgz := tarball(t, map[string]string{"index.js": "x", "libchdb.so": "the library"})
	f := testFetcher(t, "the library", tgz)
	calls := fakeNPM(t, packScript(tgz, f.integrity))
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			g := *f // another process, as far as the cache is concerned
			path, err := g.fetch(t.Context())
			if err != nil {
				t.Error(err)
				return
			}
			if text, err := os.ReadFile(path); err != nil || string(text) != "the library" {
				t.Errorf("%s holds %q, %v", path, text, err)
			}
		})
	}
	wg.Wait()
	text, err := os.ReadFile(calls)
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(text), "\n"); n != 1 || !strings.HasPrefix(string(text), "pack @chdb/lib-test-x64@"+Version+" --json") {
		t.Errorf("npm was called %d times: %s; want once", n, text)
	}
	left, err := filepath.Glob(filepath.Join(f.dir, "*"))
	if err != nil || len(left) != 3 {
		t.Errorf("left behind: %v, %v; want library, lock and verified", left, err)
	}

	// Damage is noticed and mended.
	if err := os.WriteFile(f.library(), []byte("the librarx"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := f.fetch(t.Context()); err != nil {
		t.Error(err)
	}
	if text, err := os.ReadFile(f.library()); err != nil || string(text) != "the library" {
		t.Errorf("after damage it holds %q, %v", text, err)
	}
}

func TestFetchRefusesWhatItCannotVerify(t *testing.T) {
	good := tarball(t, map[string]string{"libchdb.so": "the library"})
	other := tarball(t, map[string]string{"libchdb.so": "another"})
	empty := tarball(t, map[string]string{"index.js": "x"})
	sums := map[string]string{}
	for _, name := range []string{good, other, empty} {
		sum, err := integrity(name)
		if err != nil {
			t.Fatal(err)
		}
		sums[name] = sum
	}
	for name, c := range map[string]struct {
		pinned, script, want string
	}{
		"another integrity":           {good, packScript(other, sums[other]), "do not use it"},
		"a tarball unlike its report": {good, packScript(other, sums[good]), "the tarball has integrity"},
		"another library":             {"", packScript(other, sums[other]), "libchdb.so has sha256"},
		"no library":                  {"", packScript(empty, sums[empty]), "there is no libchdb.so in it"},
		"npm fails":                   {good, "echo 'npm error code E404' >&2; exit 1", "npm error code E404"},
		"npm says nonsense":           {good, "echo hello", "its report is not understood"},
	} {
		t.Run(name, func(t *testing.T) {
			f := testFetcher(t, "the library", c.pinned)
			fakeNPM(t, c.script)
			path, err := f.fetch(t.Context())
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %q, %v; want an error with %q", path, err, c.want)
			}
			if left, _ := filepath.Glob(filepath.Join(f.dir, "[^l]*")); len(left) > 0 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
}

func TestFetchWithoutNPM(t *testing.T) {
	t.Setenv("FOOTFALL_CACHE", t.TempDir())
	t.Setenv("PATH", t.TempDir())
	_, err := Fetch(t.Context(), nil)
	if !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), "npm is not on the PATH") || !strings.Contains(err.Error(), "install Node.js") {
		t.Errorf("got %v; want ErrUnavailable, why, and what to do", err)
	}
}

func TestFetchEndsWithItsContext(t *testing.T) {
	t.Setenv("FOOTFALL_CACHE", t.TempDir())
	fakeNPM(t, "exec sleep 600")
	ctx, cancel := context.WithCancel(t.Context())
	_, err := Fetch(ctx, func(p Progress) {
		if p.Stage == "download" {
			cancel()
		}
	})
	if !errors.Is(err, context.Canceled) || errors.Is(err, ErrUnavailable) {
		t.Errorf("got %v; want context canceled, and not ErrUnavailable", err)
	}
}
