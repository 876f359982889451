package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"go.uber.org/zap"
)

// hangups gives a value for each SIGHUP until stop is called. Before and after that one
// ends the process: an instance asks for them before it connects, and until it has left
// the group.
func hangups() (asked <-chan os.Signal, stop func()) {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGHUP)
	return signals, func() { signal.Stop(signals) }
}

// reloadOn goes by the segment sets as they are written by then, each time that it is
// asked to. What can't be read or compiled changes nothing.
func (e *engine) reloadOn(ctx context.Context, asked <-chan os.Signal, read func() (*Config, error)) {
	for {
		select {
		case <-asked:
		case <-ctx.Done():
			return
		}
		if err := e.reload(read); err != nil {
			e.log.Error("segment sets not read again; the rules in force stay", zap.Error(err))
		}
	}
}

// reload takes from the configuration only what rules are: what events mean stays.
func (e *engine) reload(read func() (*Config, error)) error {
	c, err := read()
	if err != nil {
		return err
	}
	c.Shop.Currency, c.Shop.Rates = e.conf.Shop.Currency, e.conf.Shop.Rates
	rules, err := c.rules()
	if err != nil {
		return err
	}
	e.log.Info("segment sets read again", zap.Strings("sets", setNames(rules.Names())), zap.String("rules", fmt.Sprintf("%016x", rules.Hash())))
	e.epochs.follow(rules, e.session.Partitions())
	return nil
}
