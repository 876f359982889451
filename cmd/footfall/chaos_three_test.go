//go:build chaos

package main

import (
	"flag"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"

	"footfall/schemas"
)

var chaosThree = flag.Int("chaos.three", 0, "kills -9 of one of three brokers, in TestChaosThreeBrokers; it starts them itself")

// Of three brokers one is killed at a time: anyone, the coordinator of the group, that of
// the transactions, the leader of a partition. The others take over, and it comes back.
func TestChaosThreeBrokers(t *testing.T) {
	if *chaosThree == 0 {
		t.Skip("starts three brokers: only with -chaos.three=N, as the campaign does")
	}
	c := startCluster(t, "start3")
	r := newRig(t, c.addresses, schemas.Replay, "kafka.replication=3")
	members := []*process{r.start(), r.start("--set", "kafka.instance=two")}
	r.ready()
	r.open(400)
	roles := map[string]int{}
	kills := 0
	for kills < *chaosThree {
		role := []string{"anyone", "group coordinator", "transaction coordinator", "leader"}[r.rng.IntN(4)]
		node := c.node(r, role)
		roles[role]++
		c.broker("kill9", c.dir, fmt.Sprint(node))
		kills++
		r.goesOn(members)
		if kills%4 == 0 { // and a second one: nothing can be committed until they are back
			c.broker("kill9", c.dir, fmt.Sprint(node%3+1))
			roles["second"]++
			time.Sleep(time.Duration(r.rng.IntN(3000)) * time.Millisecond)
		}
		c.broker("restart", c.dir)
		r.goesOn(members)
	}
	r.close()
	details := map[string]any{"seed": r.seed, "roles": roles}
	r.verify(members...).details(details)
	tell(t, "broker kills, of three", kills+roles["second"], details)
}

// cluster is one broker of a test's own, or three.
type cluster struct {
	t              *testing.T
	dir, addresses string
}

// startCluster starts them, as the script's command says: start or start3.
func startCluster(t *testing.T, command string) *cluster {
	t.Helper()
	if os.Getenv("FOOTFALL_TEST_BROKER") == "" {
		t.Skip("needs a script that starts brokers in FOOTFALL_TEST_BROKER: see make chaos")
	}
	dir, err := os.MkdirTemp("", "footfall-cluster-")
	if err != nil {
		t.Fatal(err)
	}
	c := &cluster{t: t, dir: dir}
	t.Cleanup(func() {
		c.run("wipe", dir)
		_ = os.RemoveAll(dir)
	})
	c.broker(command, fmt.Sprint(freeBase(t)), dir)
	out, err := exec.CommandContext(t.Context(), os.Getenv("FOOTFALL_TEST_BROKER"), "bootstrap", dir).Output()
	if err != nil {
		t.Fatal(err)
	}
	c.addresses = strings.TrimSpace(string(out))
	return c
}

// freeBase is a port of which those of three brokers and their controllers are free: it
// and the two after it, and eleven to thirteen after it.
func freeBase(t *testing.T) int {
	t.Helper()
search:
	for base := 21000; base < 60000; base += 50 {
		for _, port := range []int{0, 1, 2, 11, 12, 13} {
			l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", base+port))
			if err != nil {
				continue search
			}
			_ = l.Close()
		}
		return base
	}
	t.Fatal("no ports are free for three brokers")
	return 0
}

func (c *cluster) run(args ...string) ([]byte, error) {
	cmd := exec.Command(os.Getenv("FOOTFALL_TEST_BROKER"), args...)
	cmd.Env = append(os.Environ(), "KAFKA_WAIT=300", "KAFKA_XMX=512m")
	return cmd.CombinedOutput()
}

func (c *cluster) broker(args ...string) {
	c.t.Helper()
	if out, err := c.run(args...); err != nil {
		c.t.Fatalf("%s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// node is the broker that has a role now, 1 to 3.
func (c *cluster) node(r *rig, role string) int32 {
	c.t.Helper()
	cl := r.reader()
	defer cl.Close()
	admin := kadm.NewClient(cl)
	node := int32(1 + r.rng.IntN(3))
	switch role {
	case "group coordinator":
		found := admin.FindGroupCoordinators(c.t.Context(), r.conf.Kafka.Group)
		if g, ok := found[r.conf.Kafka.Group]; ok && g.Err == nil {
			node = g.NodeID
		}
	case "transaction coordinator":
		id := r.conf.Kafka.Group + "/one/0"
		found := admin.FindTxnCoordinators(c.t.Context(), id)
		if g, ok := found[id]; ok && g.Err == nil {
			node = g.NodeID
		}
	case "leader":
		topics, err := admin.ListTopics(c.t.Context(), r.conf.Kafka.Topics.Triggers)
		if err == nil && topics[r.conf.Kafka.Topics.Triggers].Partitions[0].Leader > 0 {
			node = topics[r.conf.Kafka.Topics.Triggers].Partitions[0].Leader
		}
	}
	return node
}
