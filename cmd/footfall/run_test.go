package main

import (
	"net"
	"os"
	"syscall"
	"testing"
	"time"

	"footfall/schemas"
)

// A SIGHUP is for all instances of a group, and one of them may just be starting: it is
// not the end of that one.
func TestHangupWhileStarting(t *testing.T) {
	mute, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0") // a broker that never answers
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = mute.Close() }()
	h := prepareHouse(t, mute.Addr().String(), "http://127.0.0.1:8123/none", schemas.Live)
	p := h.start()
	go func() {
		<-p.done
		_ = mute.Close() // nobody will come
	}()
	conn, err := mute.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	for _, signal := range []syscall.Signal{syscall.SIGHUP, syscall.SIGTERM} {
		if err := p.Process.Signal(signal); err != nil {
			t.Fatal(err)
		}
		select {
		case <-p.done:
		case <-time.After(time.Second):
		}
	}
	if <-p.done; p.err != nil {
		t.Errorf("got %v, want it to go on after a SIGHUP, and to stop cleanly", p.err)
	}
}

// The address that an instance commits is one that others can ask: that of all interfaces
// would be everyone's own.
func TestReachable(t *testing.T) {
	name, err := os.Hostname()
	if err != nil {
		t.Skip(err)
	}
	for listened, want := range map[string]string{
		"[::]:9464": name + ":9464", "0.0.0.0:9464": name + ":9464",
		"127.0.0.1:9464": "127.0.0.1:9464", "[::1]:9464": "[::1]:9464", "10.0.0.7:9464": "10.0.0.7:9464",
	} {
		if got := reachable(listened); got != want {
			t.Errorf("%s: got %s, want %s", listened, got, want)
		}
	}
}
