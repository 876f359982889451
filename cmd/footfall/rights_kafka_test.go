package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"footfall/sources/kafka"
)

// TestRealKafkaRightsTaken takes rights away from an engine that runs, each in turn: it
// ends and names what it lacks, and when it has the right again it goes on, with nothing
// lost or doubled. Then its snapshots are gone, and it is rebuilt, under the other group
// protocol, with no more rights than SECURITY.md gives.
func TestRealKafkaRightsTaken(t *testing.T) {
	acls := documented(t)
	b, h, _ := securedHouse(t, acls)
	h.settled(h.conf.topicNeeds())
	h.run("topics", "create")
	engine, shop := h.as("footfall"), h.as("storefront")
	engine.settled(engine.conf.runNeeds())
	running := engine.start()
	engine.ready()
	for _, a := range acls {
		if !vital(&a) {
			continue
		}
		engine.lives(running)
		b.revoke(t, a)
		seed := 0
		engine.until("it ends for want of "+a.lack.Command(a.user), func() bool {
			select {
			case <-running.done:
				return true
			default:
			}
			seed++ // what is published is what it needs the right for
			shop.run("simulate", "--lane", "live", "--ago", "1d", "--speed", "86400x", "--shoppers", "20", "--for", "1s", "--seed", fmt.Sprint(seed))
			return false
		})
		named := a.lack.Name
		if a.lack.On == kafka.OnTransactionalID {
			named = "TRANSACTIONAL_ID"
		}
		if said := running.end(); running.err == nil || !strings.Contains(said, named) || !strings.Contains(said, "give this user the right (ACLs)") {
			t.Errorf("without %q it ended with %v, and says:\n%s", a.lack.Command(a.user), running.err, said)
		}
		b.grant(t, a.user, a)
		engine.settled(engine.conf.runNeeds())
		running = engine.start()
	}
	engine.lives(running)
	b.withoutArchive(t, acls, engine, shop, running)
	engine.stop(running)
	engine.judge(true)

	snapshots, err := filepath.Glob(filepath.Join(strings.TrimPrefix(engine.conf.Snapshots.Bucket, "file://"), "footfall", "p*", "*.snap"))
	if err != nil || len(snapshots) == 0 {
		t.Fatalf("snapshots: %v, %v", snapshots, err)
	}
	for _, f := range snapshots {
		if err := os.Remove(f); err != nil {
			t.Fatal(err)
		}
	}
	if said := engine.refused("run"); !strings.Contains(said, "--rebuild") {
		t.Errorf("without snapshots: got\n%s", said)
	}
	engine = h.as("footfall", "kafka.protocol=consumer")
	running = engine.start("--rebuild")
	shop.run("simulate", "--lane", "live", "--ago", "1d", "--speed", "86400x", "--shoppers", "20", "--for", "1s", "--seed", "99")
	engine.applied()
	engine.archived()
	if got := h.as("operator", "kafka.protocol=consumer").run("status"); !strings.Contains(got, "users by segment") {
		t.Errorf("status: got\n%s", got)
	}
	engine.stop(running)
	engine.judge(true)
}

// withoutArchive takes the archive's right away: it says so, triggers go on, and it goes on
// itself when it has the right again.
func (b *guardedBroker) withoutArchive(t *testing.T, acls []acl, engine, shop *house, running *process) {
	t.Helper()
	i := slices.IndexFunc(acls, func(a acl) bool { return a.user == "footfall" && a.lack.Name == "footfall-archive" })
	b.revoke(t, acls[i])
	publish := func(seed int) {
		shop.run("simulate", "--lane", "live", "--ago", "1d", "--speed", "86400x", "--shoppers", "20", "--for", "1s", "--seed", fmt.Sprint(seed))
	}
	seed := 100
	engine.until("the archive says what it lacks", func() bool {
		seed++
		publish(seed)
		return running.has("archive stopped", "GROUP_AUTHORIZATION_FAILED")
	})
	engine.applied()
	b.grant(t, acls[i].user, acls[i])
	publish(1)
	engine.applied()
	engine.archived()
}

// has tells whether it has logged a message of this beginning, with this in its error.
func (p *process) has(message, text string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.ContainsFunc(p.lines, func(l logLine) bool { return strings.HasPrefix(l.Message, message) && strings.Contains(l.Error, text) })
}

// vital tells rights without which an engine that runs can't go on. The others it needs
// when it starts, or for its archive.
func vital(a *acl) bool {
	if a.user != "footfall" {
		return false
	}
	switch l := &a.lack; l.Do {
	case kmsg.ACLOperationRead:
		return l.Name == "events" || l.Name == "footfall"
	case kmsg.ACLOperationWrite:
		return l.Name == "triggers" || l.On == kafka.OnTransactionalID
	default:
		return false
	}
}

// lives waits until a process has brought every partition to life.
func (h *house) lives(p *process) {
	h.t.Helper()
	h.until("every partition is live", func() bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		n := 0
		for _, l := range p.lines {
			if strings.HasPrefix(l.Message, "partition recovered") || strings.HasPrefix(l.Message, "partition began") {
				n++
			}
		}
		return n >= h.conf.Kafka.Partitions
	})
}

// end is what a process has said last.
func (p *process) end() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	var said strings.Builder
	for _, l := range p.lines[max(0, len(p.lines)-8):] {
		fmt.Fprintln(&said, l.Message, l.Error)
	}
	return said.String()
}
