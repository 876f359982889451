package sim

import (
	"errors"
	"iter"
	"runtime/debug"
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
		l.over = true
	}
}

// kill ends it where it is.
func (l *life) kill() {
	l.w.trace("%s is killed", l.name)
	l.stop()
	l.over = true
}

// rest gives the turn to the world, until the world gives it back.
func (l *life) rest() {
	if !l.yield(struct{}{}) {
		panic(killed{})
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
