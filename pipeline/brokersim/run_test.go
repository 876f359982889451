package brokersim

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// injection does what a combination says to some of the requests of a run.
type injection struct {
	combination
	who   string // of which process; "": of any
	skip  int    // requests that pass first
	count int    // how many are hit
	delay time.Duration
	from  time.Time
	of    string // "marks" or "outputs": only transactions of those; "": of either

	hits int // guarded by network.mu, as are skip and count
	sent census
}

// rule is asked with network.mu held.
func (i *injection) rule(req *request) verdict {
	if req.key != int16(i.key) || req.part != string(i.role) || i.who != "" && i.who != req.host || i.count == 0 || time.Now().Before(i.from) {
		return verdict{}
	}
	if i.of != "" && i.of != transactionOf(req) {
		return verdict{}
	}
	if i.skip > 0 {
		i.skip--
		return verdict{}
	}
	i.count--
	i.hits++
	v := verdict{phase: i.phase, action: i.action, delay: i.delay, level: i.failure.level}
	if i.action == fail {
		v.code = i.failure.err.Code
	}
	return v
}

// transactionOf says whether a request is of a transaction of marks alone, or of
// outputs; "" if it is of none.
func transactionOf(req *request) string {
	id := ""
	switch asked := parse(req).(type) {
	case *kmsg.EndTxnRequest:
		id = asked.TransactionalID
	case *kmsg.TxnOffsetCommitRequest:
		id = asked.TransactionalID
	case *kmsg.AddOffsetsToTxnRequest:
		id = asked.TransactionalID
	default:
		return ""
	}
	if strings.HasSuffix(id, "/marks") {
		return "marks"
	}
	return "outputs"
}

// census counts requests, by role and key.
type census map[role]map[kmsg.Key]int

func (c census) add(r role, key kmsg.Key, n int) {
	if c[r] == nil {
		c[r] = map[kmsg.Key]int{}
	}
	c[r][key] += n
}

func (c census) join(other census) {
	for r, keys := range other {
		for key, n := range keys {
			c.add(r, key, n)
		}
	}
}

// working is how long the shop is open in a run.
const working = 40 * time.Second

// plan draws when what happens to whom.
func (c combination) plan(seed uint64, usual int) *injection {
	rng := rand.New(rand.NewPCG(seed, 5))
	i := &injection{combination: c, from: time.Now(), count: 1}
	if rng.IntN(2) == 0 {
		i.who = []string{"a", "b"}[rng.IntN(2)]
	}
	if slices.Contains([]kmsg.Key{kmsg.EndTxn, kmsg.TxnOffsetCommit, kmsg.AddOffsetsToTxn}, c.key) {
		i.of = []string{"outputs", "marks", ""}[seed%3]
	}
	if seed%3 != 0 {
		i.skip = rng.IntN(max(1, usual/2))
		i.count = 1 + rng.IntN(4)*rng.IntN(2)
	}
	// Beyond the session (6 s), the transaction and a request (10 s), both, or none.
	i.delay = []time.Duration{500 * time.Millisecond, 3 * time.Second, 8 * time.Second, 14 * time.Second, 25 * time.Second}[rng.IntN(5)]
	return i
}

// scene runs processes while the shop is open: b joins a, and then one of the two
// goes away and comes back.
func (w *world) scene(quiet bool) {
	closing := time.Now().Add(working)
	open := make(chan struct{})
	go func() {
		defer close(open)
		newShop(w).open(closing)
	}()
	a := w.run("a")
	time.Sleep(time.Duration(w.rng.IntN(8000)) * time.Millisecond)
	b := w.run("b")
	time.Sleep(time.Duration(5000+w.rng.IntN(12_000)) * time.Millisecond)
	who := &b
	if w.rng.IntN(3) == 0 {
		who = &a
	}
	kill := w.rng.IntN(2) == 0
	if kill && !quiet {
		(*who).kill()
		left := *who
		defer left.gone()
	} else {
		(*who).leave()
	}
	time.Sleep(time.Duration(w.rng.IntN(9000)) * time.Millisecond)
	*who = w.run((*who).name)
	<-open
	w.net.setRule(nil)
	w.note("faults are over")
	if err := w.rest(now() + 20*1000); err != nil {
		w.fault(err)
	}
	a.leave()
	b.leave()
}

// fault notes that something does not hold.
func (w *world) fault(err error) {
	w.note("VIOLATION: %v", err)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.faults = append(w.faults, err)
}

// run is one run of a combination, in a bubble.
func run(t *testing.T, c combination, opt options, usual int) (i *injection, faults []error, log []string) {
	over := func() {}
	if c.hangs() {
		opt.wait = 5 * time.Second
	}
	w := newWorld(t, opt)
	i = c.plan(opt.seed, usual)
	w.net.setRule(i.rule)
	if c.hangs() {
		over = w.hang(2 * opt.wait)
	}
	if c.leads() {
		over = w.lead()
	}
	w.scene(i.key == kmsg.LeaveGroup)
	over()
	if err := w.recovered(); err != nil {
		w.fault(err)
	}
	if err := w.judge(); err != nil {
		w.fault(err)
	}
	w.close()
	i.sent = w.net.sent
	// A member that is silent beyond its session may insert what another has by then:
	// two rows of one position, which the tables make one.
	silent := c.role == archive && (c.action == late || c.action == nowhere)
	if w.doubled > 0 && !silent {
		w.fault(fmt.Errorf("the archive has %d rows twice", w.doubled))
	}
	for _, end := range w.ended {
		if !i.failure.stops && !c.hangs() {
			w.fault(fmt.Errorf("a process ended: %s", end))
		}
	}
	return i, w.faults, w.log
}

// count is a run without faults.
func count(t *testing.T, s setting) census {
	w := newWorld(t, options{setting: s, seed: 1})
	defer w.close()
	w.scene(true)
	usual := maps.Clone(w.net.sent)
	if err := w.judge(); err != nil {
		t.Errorf("without any fault: %v", err)
	}
	for _, err := range w.faults {
		t.Errorf("without any fault: %v", err)
	}
	for _, end := range w.ended {
		t.Errorf("without any fault: a process ended: %s", end)
	}
	if w.doubled > 0 {
		t.Errorf("without any fault: the archive has %d rows twice", w.doubled)
	}
	return usual
}
