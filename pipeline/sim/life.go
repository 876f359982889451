package sim

import (
	"errors"
	"iter"
	"runtime/debug"
	"slices"
)

// A life is one process under simulation: a coroutine. It runs while the world
// stands still, until it rests, ends, or is killed; who runs when is the world's
// choice alone, so the order of everything that happens is the seed's.
type life struct {
	w      *world
	name   string
	next   func() (struct{}, bool)
	stop   func()
	yield  func(struct{}) bool
	frozen int // steps until it is woken: it was stopped, and knows nothing of it
	silent int // steps in a row in which its group did not hear of it
	over   bool
	err    error // how it ended: nil after a drain

	beside  []*beside // what goes on in it besides
	running *beside   // what of that has the turn; nil: its life
}

// beside is a goroutine of a process besides the one that its life is: it runs when that
// one has, and ends with it.
type beside struct {
	next   func() (struct{}, bool)
	stop   func()
	yield  func(struct{}) bool
	killed bool // and its process with it
}

// killed is what a process that is killed panics with: nothing of it goes on.
type killed struct{}

// errKilled is how it ended.
var errKilled = errors.New("killed")

// begin makes a life of run; it does not run yet.
func (l *life) begin(run func() error) {
	l.next, l.stop = iter.Pull(func(yield func(struct{}) bool) {
		l.yield = yield
		defer func() {
			switch r := recover().(type) {
			case nil:
			case killed:
				l.err = errKilled
			default:
				_ = l.w.breach("%s panics: %v\n%s", l.name, r, debug.Stack())
			}
		}()
		l.err = run()
	})
}

// resume lets it run until it rests or ends.
func (l *life) resume() {
	if l.frozen > 0 && !l.w.calm() {
		l.frozen--
		return
	}
	l.frozen, l.silent = 0, 0
	if _, alive := l.next(); !alive {
		l.ends()
		return
	}
	for _, b := range slices.Clone(l.beside) {
		main := l.yield
		l.yield, l.running = b.yield, b
		_, alive := b.next()
		b.yield, l.yield, l.running = l.yield, main, nil
		if !alive {
			l.beside = slices.DeleteFunc(l.beside, func(o *beside) bool { return o == b })
		}
		if b.killed {
			l.kill()
			return
		}
	}
}

// alongside begins something that goes on in a process beside its life, from its next turn on.
func (l *life) alongside(run func()) {
	b := &beside{}
	b.next, b.stop = iter.Pull(func(yield func(struct{}) bool) {
		l.yield = yield
		defer func() {
			switch r := recover().(type) {
			case nil:
			case killed:
				b.killed = true
			default:
				_ = l.w.breach("%s panics: %v\n%s", l.name, r, debug.Stack())
			}
		}()
		run()
	})
	l.beside = append(l.beside, b)
}

// ends notes that it is over, and all that went on beside it.
func (l *life) ends() {
	l.over = true
	for _, b := range l.beside {
		b.stop()
	}
	l.beside = nil
}

// kill ends it where it is.
func (l *life) kill() {
	l.w.trace("%s is killed", l.name)
	l.stop()
	l.ends()
}

// rest gives the turn to the world, until the world gives it back.
func (l *life) rest() {
	if !l.yield(struct{}{}) {
		panic(killed{})
	}
}

// slowness is how many turns a request takes of what is slow.
const slowness = 6

// waits lets the world go on as long as a request takes of what may be slow.
func (l *life) waits(what Outage) {
	for i := 0; i < slowness && l.w.away == what; i++ {
		l.rest()
	}
}

// at is a place in which a process may be killed, stopped for a while, or lose its turn.
func (l *life) at(where string, oneIn int) {
	w := l.w
	if w.broken != nil {
		panic(killed{}) // what comes now would be noise
	}
	if w.calm() {
		return
	}
	oneIn = max(2, oneIn/max(1, w.opt.Crash))
	switch {
	case w.rng.IntN(oneIn) == 0:
		w.fault("killed: " + where)
		w.trace("%s is killed: %s", l.name, where)
		panic(killed{})
	case w.opt.Zombies && w.rng.IntN(3*oneIn) == 0:
		w.fault("stopped: " + where)
		l.frozen = 1 + w.rng.IntN(25)
		w.trace("%s is stopped for %d steps: %s", l.name, l.frozen, where)
		l.rest()
	case w.opt.Processes > 1 && w.rng.IntN(5) == 0:
		l.rest()
	}
}
