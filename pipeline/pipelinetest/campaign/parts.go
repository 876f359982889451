package main

import (
	"bytes"
	"encoding/json"
	"regexp"
	"strconv"
)

// part is one thing to be done so many times.
type part struct {
	name, title string
	target      int
	slice       int // at most, in one go
	on          code
	make        []string // targets and variables: ${N} is how many, ${FROM} the first of them, ${SEED} the number of the slice
	points      int      // failpoints that must have been hit when the target is reached

	// says finds, in what make prints, how many were done and how many were bad. Where
	// it is nil, the tests tell in FOOTFALL_TEST_LEDGER, under the name told.
	says *regexp.Regexp
	told string
}

// parts are the figures to reach.
func parts() []part {
	process := code{"chaos", "./cmd/footfall"}
	chaos := func(test, flag string) []string {
		return []string{"chaos", "ONLY=^" + test + "$$", "ARGS=-chaos." + flag + " ${N} -chaos.seed ${SEED}"}
	}
	return []part{
		{name: "sim", title: "simulation seeds", target: 300_000, slice: 3_000, on: code{"smallpieces", "./pipeline/sim"}, make: []string{"sim", "FROM=${FROM}", "SEEDS=${N}"}, says: regexp.MustCompile(`(\d+) seeds, (\d+) violations`)},
		{name: "brokersim", title: "seeds of every broker-fault combination", target: 100, slice: 2, on: code{"synctests", "./pipeline/brokersim"}, make: []string{"brokersim", "SEED=${FROM}", "SEEDS=${N}"}, says: regexp.MustCompile(`\d{3,} combinations x (\d+) seeds, (\d+) violations`)},
		{name: "kills", title: "kill -9 of footfall, over its failpoints", target: 1_000, slice: 100, on: process, make: chaos("TestChaosKills", "kills"), points: 25, told: "kills"},
		{name: "broker", title: "kill -9 of the broker", target: 70, slice: 10, on: process, make: chaos("TestChaosBroker", "brokers"), told: "broker kills"},
		{name: "three-brokers", title: "kill -9 of one of three brokers", target: 30, slice: 8, on: process, make: chaos("TestChaosThreeBrokers", "three"), told: "broker kills, of three"},
		{name: "clickhouse", title: "kill -9 of ClickHouse", target: 300, slice: 50, on: process, make: chaos("TestChaosClickHouse", "clickhouse"), told: "clickhouse kills"},
		{name: "stops", title: "SIGSTOP beyond the time-outs", target: 50, slice: 10, on: process, make: chaos("TestChaosStops", "stops"), told: "stops"},
		{name: "rebalances", title: "rebalances", target: 500, slice: 100, on: process, make: chaos("TestChaosRebalances", "rebalances"), told: "rebalances"},
		{name: "damage", title: "snapshots damaged between two lives", target: 200, slice: 20, on: process, make: chaos("TestChaosSnapshots", "snapshots"), told: "damaged snapshots"},
		{name: "disk", title: "times the disk was full", target: 15, slice: 5, on: process, make: []string{"chaos", "ONLY=^TestChaos.*DiskFull$$", "ARGS=-chaos.seed ${SEED}"}, told: "disk full"},
		{name: "stress", title: "bounds under stress, of real minutes", target: 8, slice: 8, on: process, make: []string{"chaos", "ONLY=^TestStress", "ARGS=-stress 2m -chaos.seed ${SEED}"}, told: "stress"},
		{name: "recovery", title: "recoveries timed", target: 3, slice: 3, on: process, make: []string{"chaos", "ONLY=^TestChaosRecoveryTime$$", "ARGS=-chaos.recoveries ${N} -chaos.users 300000 -chaos.seed ${SEED}"}, told: "recoveries"},
		{name: "corruptions", title: "random corruptions of snapshots", target: 1_000_000, slice: 100_000, on: code{"", "./pipeline/worker"}, make: []string{"corruptions", "FROM=${FROM}", "N=${N}"}, says: regexp.MustCompile(`(\d+) corruptions, (\d+) silent`)},
		{name: "mutants", title: "mutants caught", target: 40, slice: 40, on: code{"smallpieces", "./pipeline/... ./schemas/... ./sinks/... ./sources/..."}, make: []string{"mutants"}, says: regexp.MustCompile(`(\d+) caught, (\d+) missed`)},
		{name: "fuzz", title: "executions of fuzzers", target: 100_000_000, slice: 100_000_000, on: code{"", "./..."}, make: []string{"fuzz", "FUZZTIME=20s"}, says: regexp.MustCompile(`\d+ fuzzers, (\d+) executions, (\d+) failures`)},
	}
}

// read takes from a slice's output what it has come to.
func (s *slice) read(p *part, output string, told []byte) {
	if p.says != nil {
		all := p.says.FindAllStringSubmatch(output, -1)
		if len(all) == 0 {
			s.Violations = 1
			return
		}
		m := all[len(all)-1]
		s.Count, _ = strconv.Atoi(m[1])
		s.Violations, _ = strconv.Atoi(m[2])
		return
	}
	found := false
	for line := range bytes.Lines(told) {
		var fact map[string]any
		if json.Unmarshal(line, &fact) != nil || fact["what"] != p.told {
			continue
		}
		found = true
		count, _ := fact["count"].(float64)
		s.Count += int(count)
		if failed, _ := fact["failed"].(bool); failed {
			s.Violations++
		}
		s.Facts = append(s.Facts, fact)
	}
	if !found {
		s.Violations = 1
	}
}
