package sim

import (
	"slices"

	"footfall/pipeline"
)

// groupOf is the coordinator of the processes' consumer group. It gives partitions,
// takes them away again with notice, and gives up members of which it does not
// hear. A member learns of it when it gets to hear, which is later.
type groupOf struct {
	members []*process
	targets []*process // by partition: who is to have it
}

// slot is where a process of one name runs, one life after the other.
type slot struct {
	name    string
	process *process
	startAt int // step
}

// change is what a group tells a member of one partition.
type change struct {
	kind      changeKind
	partition int32
	epoch     int64
}

type changeKind int

// In the order in which a batch gives them.
const (
	lost changeKind = iota
	revoked
	assigned
)

// manage starts and stops processes, and is the group's coordinator.
func (w *world) manage() {
	if !w.calm() {
		w.disturb()
	}
	for _, s := range w.slots {
		if s.process == nil && w.steps >= s.startAt && !w.ending && (w.away != KafkaAway) {
			w.start(s)
		}
	}
	if w.ended() && !w.ending {
		w.retire()
	}
	if w.away == KafkaAway {
		return
	}
	w.expel()
	if w.group.targets == nil || w.chance("rebalanced", 40) {
		w.retarget()
	}
	for _, p := range w.parts {
		w.settle(p)
	}
}

// disturb stops, freezes and doubles processes, from outside.
func (w *world) disturb() {
	for _, p := range slices.Clone(w.lives) {
		switch {
		case p.frozen > 0 && w.opt.Twins && p.slot.process == p && w.rng.IntN(8) == 0:
			w.fault("started a second time")
			p.fenced = true // by the successor's first requests, before it does anything else
			w.abortOf(p.slot)
			p.slot.process = nil
		case w.chance("asked to end", 120):
			p.cancel()
		case w.opt.Zombies && w.chance("stopped between two polls", 80):
			p.frozen = 1 + w.rng.IntN(25)
		}
	}
	if len(w.lives) > 0 && w.chance("power cut", 200) {
		w.powerCut()
	}
}

// powerCut kills everybody.
func (w *world) powerCut() {
	for _, p := range slices.Clone(w.lives) {
		p.kill()
		p.err = errKilled
		w.took(p)
	}
	for _, s := range w.slots {
		s.startAt = w.steps + 1 + w.rng.IntN(12)
	}
}

// retire ends, when nothing is published any more, who would not get through: whoever
// has rules that are not in force, or a brother of its name.
func (w *world) retire() {
	for _, p := range w.lives {
		if p.using.program != w.rules[w.using].program && !w.opt.Sets || p.fenced {
			p.cancel()
		}
	}
}

// join makes a process a member, or one again.
func (w *world) join(p *process) {
	if p.member || p.fenced || w.away == KafkaAway {
		return
	}
	p.member = true
	w.group.members = append(w.group.members, p)
	w.retarget()
}

// leave ends a membership: the partitions are free at once.
func (w *world) leave(p *process, why string) {
	if !p.member {
		return
	}
	w.trace("%s is no member any more: %s", p.name, why)
	p.member = false
	w.group.members = slices.DeleteFunc(w.group.members, func(m *process) bool { return m == p })
	for _, part := range w.parts {
		if part.owner == p {
			w.free(part)
			p.tell(change{kind: lost, partition: part.number})
		}
	}
	w.retarget()
}

// expel gives up members that were not heard of for as long as a session lasts.
func (w *world) expel() {
	for _, p := range slices.Clone(w.group.members) {
		if p.over || p.frozen > 0 {
			p.silent++
		}
		if p.silent > w.limits.session || p.fenced {
			w.fault("given up by the group")
			p.robbed = true
			w.leave(p, "it was not heard of")
		} else if !p.over && p.frozen == 0 && w.chance("session lost", 250) {
			p.robbed = true
			w.leave(p, "its session is lost")
		}
	}
}

// retarget chooses anew who is to have what.
func (w *world) retarget() {
	w.group.targets = make([]*process, len(w.parts))
	var fit []*process
	for _, m := range w.group.members {
		if !m.over && !m.fenced {
			fit = append(fit, m)
		}
	}
	for i := range w.parts {
		if len(fit) > 0 {
			w.group.targets[i] = fit[w.rng.IntN(len(fit))]
		}
	}
}

// free takes a partition from its owner.
func (w *world) free(part *part) { part.owner, part.revokedAt = nil, 0 }

// settle moves one partition towards whom it is to go to.
func (w *world) settle(part *part) {
	target := w.group.targets[part.number]
	switch owner := part.owner; {
	case owner == nil && target != nil && target.member && !target.over && (w.calm() || w.rng.IntN(3) > 0):
		part.epoch++
		part.owner = target
		w.note("assigned", uint64(part.number), uint64(part.epoch))
		w.trace("partition %d goes to %s with epoch %d", part.number, target.name, part.epoch)
		target.tell(change{assigned, part.number, part.epoch})
	case owner == nil || owner == target:
	case part.revokedAt == 0:
		part.revokedAt = w.steps
		w.fault("revoked")
		owner.tell(change{kind: revoked, partition: part.number, epoch: part.epoch})
	case w.steps-part.revokedAt > w.limits.revoke && !w.calm():
		w.fault("taken without a release")
		owner.robbed = true
		owner.tell(change{kind: lost, partition: part.number, epoch: part.epoch})
		w.free(part)
	}
}

// tell sends a member news; it hears of them when it does.
func (p *process) tell(c change) { p.news = append(p.news, c) }

// hear is what the client's callbacks do, at a time of their own.
func (p *process) hear() {
	for _, c := range p.news {
		s := &p.sessions[c.partition]
		switch c.kind {
		case lost:
			if !s.owned {
				continue
			}
			*s = session{}
		case revoked:
			if !s.owned || s.epoch != c.epoch {
				continue
			}
			s.going = true
		case assigned:
			*s = session{owned: true, epoch: c.epoch}
		}
		p.heard = append(p.heard, c)
	}
	p.news = nil
}

// bring moves what was heard into a batch: Lost, Revoked, Assigned, and a partition
// once; what would break that waits for the next.
func (p *process) bring(into *pipeline.Batch) {
	named, last := map[int32]bool{}, lost
	for len(p.heard) > 0 {
		c := p.heard[0]
		if c.kind < last || named[c.partition] {
			return
		}
		last, named[c.partition] = c.kind, true
		switch c.kind {
		case lost:
			into.Lost = append(into.Lost, c.partition)
		case revoked:
			into.Revoked = append(into.Revoked, c.partition)
		case assigned:
			into.Assigned = append(into.Assigned, pipeline.Assignment{Partition: c.partition, Epoch: c.epoch})
			if s := &p.sessions[c.partition]; s.owned && s.epoch == c.epoch {
				s.told = true
			}
		}
		p.heard = p.heard[1:]
	}
}
