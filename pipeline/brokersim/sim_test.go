package brokersim

import (
	"flag"
	"fmt"
	"os"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
)

var (
	seeds = flag.Uint64("seeds", 1, "seeds of each combination")
	from  = flag.Uint64("from", 0, "the first seed")
	only  = flag.String("only", "", "combinations whose name matches")
	most  = flag.Int64("most", 10, "violations after which to stop")
	share = flag.Int("share", 0, "of the combinations every so manieth, from this one on")
	of    = flag.Int("of", 1, "shares that there are")
)

func TestCombinations(t *testing.T) {
	if !virtual {
		t.Skip("needs -tags synctests: make brokersim")
	}
	pattern, err := regexp.Compile(*only)
	if err != nil {
		t.Fatal(err)
	}
	usual := map[setting]census{}
	for _, s := range settings() {
		synctest.Test(t, func(t *testing.T) { usual[s] = count(t, s) })
	}
	combos := 0
	var violations atomic.Int64
	var mu sync.Mutex // guards sent
	sent := map[setting]census{}
	for s, c := range usual {
		sent[s] = census{}
		sent[s].join(c)
	}
	t.Run("run", func(t *testing.T) {
		matching := 0
		for _, c := range combinations() {
			if !pattern.MatchString(c.String()) {
				continue
			}
			matching++
			if matching%*of != *share {
				continue
			}
			combos++
			t.Run(c.String(), func(t *testing.T) {
				t.Parallel()
				hits := 0
				for seed := *from; seed < *from+*seeds && violations.Load() < *most; seed++ {
					synctest.Test(t, func(t *testing.T) {
						i, faults, log := run(t, c, options{setting: c.setting, seed: seed, static: seed%2 == 1}, usual[c.setting][c.role][c.key])
						hits += i.hits
						mu.Lock()
						sent[c.setting].join(i.sent)
						mu.Unlock()
						if len(faults) > 0 {
							violations.Add(1)
							t.Errorf("seed %d: %v\nrepeat: make brokersim ONLY='^%s$' SEED=%d COUNT=20\n%s", seed, faults, regexp.QuoteMeta(c.String()), seed, strings.Join(log, "\n"))
						}
					})
				}
				if hits == 0 && *seeds >= 3 {
					violations.Add(1)
					t.Errorf("it never happened (%d such requests in a usual run)", usual[c.setting][c.role][c.key])
				}
			})
		}
	})
	for _, s := range settings() {
		for r, keys := range sent[s] {
			for key, n := range keys {
				found := false
				for _, k := range kinds(r, s) {
					found = found || k.key == key
				}
				if !found {
					t.Errorf("%s/%s sends %s (%d in all these runs), which is not enumerated", r, s, key.Name(), n)
				}
			}
		}
	}
	summary = fmt.Sprintf("%d combinations x %d seeds, %d violations", combos, *seeds, violations.Load())
}

// summary is the last line of output.
var summary string

func TestMain(m *testing.M) {
	flag.Parse()
	code := m.Run()
	if summary != "" {
		fmt.Println(summary)
	}
	os.Exit(code)
}
