package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"footfall/pipeline/segment"
	"footfall/schemas"
	"footfall/schemas/segments"
)

// lifecycleSet is the set that the demo's picture and the oracle know.
const lifecycleSet = "lifecycle"

// isPath tells the path of a set from the name of a shipped one.
func isPath(s string) bool {
	return strings.ContainsAny(s, `/\`) || strings.HasSuffix(s, ".yaml") || strings.HasSuffix(s, ".yml")
}

// readSet reads a shipped set by its name, or one of yours by its path.
func readSet(s string) (segment.File, error) {
	if !isPath(s) {
		text, err := segments.Read(s)
		return segment.File{Name: "segments/" + s + ".yaml", Text: text}, err
	}
	text, err := os.ReadFile(s)
	return segment.File{Name: filepath.ToSlash(s), Text: text}, err
}

// readSets reads sets, and tells of all that can't be read.
func readSets(list []string) (files []segment.File, err error) {
	var errs []error
	for _, s := range list {
		f, err := readSet(s)
		if err != nil {
			errs = append(errs, fmt.Errorf("segment sets: %w", err))
		}
		files = append(files, f)
	}
	return files, errors.Join(errs...)
}

// sets are the segment sets of the configuration, as readSet takes them. Paths that
// stand in the configuration file are relative to it.
func (c *Config) sets() []string {
	var all []string
	inFile := strings.HasPrefix(string(c.where("segments.sets")), filepath.ToSlash(c.path)+":")
	for _, s := range c.Segments.Sets {
		if isPath(s) && inFile && !filepath.IsAbs(s) {
			s = filepath.Join(filepath.Dir(c.path), s)
		}
		all = append(all, s)
	}
	return all
}

// rules compiles the configured segment sets, or tells everything that is wrong with
// them.
func (c *Config) rules() (*segment.Program, error) {
	files, err := readSets(c.sets())
	if err != nil {
		return nil, &usageError{fmt.Errorf("%s: %w", c.where("segments.sets"), err)}
	}
	return c.compile(files...)
}

// compile compiles segment sets as the shop's configuration has them understood.
func (c *Config) compile(files ...segment.File) (*segment.Program, error) {
	opt, err := c.ruleOptions()
	if err != nil {
		return nil, &usageError{err}
	}
	p, err := segment.Compile(opt, files...)
	if err != nil {
		return nil, &usageError{err}
	}
	return p, nil
}

// ruleOptions are what rules mean besides their text.
func (c *Config) ruleOptions() (opt segment.Options, err error) {
	d, err := schemas.NewDecoder(c.contract())
	if err != nil {
		return opt, err
	}
	exponent, _ := schemas.Exponent(c.Shop.Currency) // a currency that the decoder takes has one
	quiet, err := segment.ParseQuiet(c.Segments.Quiet)
	if err != nil {
		return opt, err
	}
	at, err := parseTimeOfDay(c.Segments.EpochAt)
	if err != nil {
		return opt, fmt.Errorf("%s: %w", c.where("segments.epoch_at"), err)
	}
	return segment.Options{
		Contract: d.Hash(), Exponent: exponent, Zone: c.Shop.Zone, EpochAt: millis(at), Hysteresis: c.Segments.Hysteresis, Quiet: quiet, SayChanges: c.Segments.Changes == "said",
		Cap: segment.Cap{Triggers: c.Segments.Cap.Triggers, Within: millis(c.Segments.Cap.Within)},
	}, nil
}

// setIndex is the number of a set by its name, -1 where the rules have none.
func setIndex(names []schemas.SetNames, name string) int {
	for i := range names {
		if names[i].Name == name {
			return i
		}
	}
	return -1
}

// setNames are the sets' names alone.
func setNames(names []schemas.SetNames) (all []string) {
	for _, n := range names {
		all = append(all, n.Name)
	}
	return all
}
