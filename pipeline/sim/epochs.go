package sim

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"footfall/pipeline/segment"
)

// epochs has a process agree with the others on the bounds of quantiles, by the control
// log, as the one of the command does with the control topic.
type epochs struct {
	p       *process
	rules   *segment.Program // without bounds
	agreed  *segment.Epochs
	begun   bool                // an epoch was read, and nobody was told
	history []segment.LogRecord // the last of each key
	waiting []segment.LogRecord // to be written
	read    int                 // of the control log
}

// newEpochs reads the log to where it ends, as a process does before it says anything.
func (p *process) newEpochs() {
	p.epochs = &epochs{p: p, rules: p.using.program, agreed: segment.NewEpochs(p.using.program, int32(len(p.parts)))}
	p.goBy(p.epochs.rules)
	p.epochs.follow(p.epochs.rules)
	p.epochs.catchUp(len(p.control))
}

// follow begins to go by other rules.
func (e *epochs) follow(rules *segment.Program) {
	e.rules, e.agreed = rules, segment.NewEpochs(rules, int32(len(e.p.parts)))
	for _, r := range e.history {
		_, _ = e.agreed.Read(r) // what is not of these rules counts for nothing
	}
	e.begun = true
	e.proceed()
}

// catchUp reads the log up to one of its records.
func (e *epochs) catchUp(to int) {
	for ; e.read < to; e.read++ {
		r := e.p.control[e.read]
		if r.Key == nil {
			continue // compacted
		}
		e.history = append(slices.DeleteFunc(e.history, sameKey(r)), r)
		began, err := e.agreed.Read(r)
		if err != nil {
			_ = e.p.breach("%s: %w", e.p.name, err)
		}
		e.begun = e.begun || began
	}
	if e.read == len(e.p.control) {
		e.proceed()
	}
}

// proceed tells of the epoch that has begun, and cuts the next one where all partitions
// are counted.
func (e *epochs) proceed() {
	if e.begun {
		e.begun = false
		with := e.rules
		if epoch := e.agreed.Epoch(); epoch.Number > 0 {
			var err error
			if with, err = e.rules.With(epoch); err != nil {
				_ = e.p.breach("%s: %w", e.p.name, err)
				return
			}
		}
		e.p.goBy(with)
	}
	if r, ok := e.agreed.Cut(); ok && e.checkCut(r) == nil {
		e.write(r)
	}
}

// checkCut holds that an epoch is cut of all partitions: each has counted for it, or has
// nothing more to count.
func (e *epochs) checkCut(r segment.LogRecord) error {
	key := strings.Split(string(r.Key), "/") // quantiles/rules/epoch/number/hash
	for _, p := range e.p.parts {
		of := fmt.Sprintf("%s/%s/count/%d", key[0], key[1], p.number)
		i := slices.IndexFunc(e.history, func(h segment.LogRecord) bool { return string(h.Key) == of })
		if i < 0 {
			return e.p.breach("%s cuts epoch %s, and partition %d has not counted", e.p.name, key[3], p.number)
		}
		still, number := e.history[i].Value[1] == 1, binary.LittleEndian.Uint64(e.history[i].Value[2:])
		if !still && strconv.FormatUint(number, 10) != key[3] {
			return e.p.breach("%s cuts epoch %s, and partition %d has counted for epoch %d", e.p.name, key[3], p.number, number)
		}
	}
	return nil
}

// counted is pipeline.Config.Counted.
func (e *epochs) counted(partition int32, rules *segment.Program, of segment.Count) {
	if rules.Hash() != e.rules.Hash() {
		return
	}
	r, err := e.agreed.Count(partition, of)
	if err != nil {
		_ = e.p.breach("%s: %w", e.p.name, err)
		return
	}
	e.write(r)
}

// write has a record written, in place of an older one of its key.
func (e *epochs) write(r segment.LogRecord) {
	e.waiting = append(slices.DeleteFunc(e.waiting, sameKey(r)), r)
}

func sameKey(r segment.LogRecord) func(segment.LogRecord) bool {
	return func(o segment.LogRecord) bool { return string(o.Key) == string(r.Key) }
}

// agree lets processes write to the control log and read it: late, and what is written
// may be lost on its way, or be written once more because the answer was.
func (w *world) agree() {
	if !w.opt.Sets || w.away == KafkaAway {
		return
	}
	for _, p := range w.lives {
		e := p.epochs
		if p.over || p.frozen > 0 {
			continue
		}
		if len(e.waiting) > 0 && (w.calm() || w.sets.IntN(3) == 0) {
			r := e.waiting[0]
			w.control = append(w.control, r)
			w.note(string(r.Key), uint64(len(w.control)))
			if w.calm() || w.sets.IntN(4) > 0 { // else its answer is lost
				e.waiting = e.waiting[1:]
			} else {
				w.fault("written to the control log, no answer")
			}
		}
		if n := len(w.control) - e.read; n > 0 && (w.calm() || w.sets.IntN(3) == 0) {
			if !w.calm() {
				n = 1 + w.sets.IntN(n)
			}
			e.catchUp(e.read + n)
		}
	}
	if !w.calm() && len(w.control) > 1 && w.sets.IntN(40) == 0 {
		w.compact(w.sets.IntN(len(w.control)))
	}
}

// compact removes, before a record of the control log, all but the last of each key.
// Whoever has read them has read them.
func (w *world) compact(before int) {
	seen := map[string]bool{}
	for i := before - 1; i >= 0; i-- {
		r := &w.control[i]
		if seen[string(r.Key)] {
			*r = segment.LogRecord{}
		}
		seen[string(r.Key)] = true
	}
}

// inForce is the epoch that the control log comes to, under the rules of the world.
func (w *world) inForce() segment.Epoch {
	if c := &w.agreed; c.using != w.using || c.read != len(w.control) {
		e := segment.NewEpochs(w.rules[w.using].program, int32(len(w.parts)))
		for _, r := range w.control {
			_, _ = e.Read(r) // what is of other rules counts for nothing
		}
		*c = inForce{w.using, len(w.control), e.Epoch()}
	}
	return w.agreed.epoch
}

// inForce is an epoch, and what it was read from.
type inForce struct {
	using, read int
	epoch       segment.Epoch
}

// disagrees says which process has not heard, or not written, all that there is.
func (w *world) disagrees() string {
	if !w.opt.Sets {
		return ""
	}
	for _, p := range w.lives {
		if e := p.epochs; e.read < len(w.control) || len(e.waiting) > 0 || p.variant != w.using {
			return p.name + " has not read the control log, or not written to it"
		}
	}
	return ""
}
