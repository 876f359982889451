package main

import (
	"bufio"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
)

func newConfig(g *global) *cobra.Command {
	var defaults, markdown bool
	cmd := &cobra.Command{
		Use:     "config",
		GroupID: "operate",
		Short:   "Print the configuration in force, explained, as YAML",
		Long: `Prints every key with its explanation, its value, and where the value came from, as a
YAML file that can be used again. Secrets are not printed.

Durations are whole numbers with units: 30d, 12h, 15m, 2s, 500ms, 1d12h. Secrets come
from the environment, or from the file that the key ending in _file names.`,
		Example: `  footfall config --defaults > footfall.yaml
  FOOTFALL_KAFKA_GROUP=eu footfall config`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if markdown {
				return writeReference(cmd.OutOrStdout())
			}
			c := defaultConfig()
			if !defaults {
				var err error
				if c, err = g.config(); err != nil {
					return err
				}
			}
			return writeConfig(cmd.OutOrStdout(), c)
		},
	}
	cmd.Flags().BoolVar(&defaults, "defaults", false, "the defaults, whatever is set")
	cmd.Flags().BoolVar(&markdown, "markdown", false, "the reference page CONFIG.md")
	return cmd
}

// defaultConfig is what holds where nothing is set.
func defaultConfig() *Config {
	c := &Config{from: map[string]origin{}}
	for _, o := range c.options() {
		if !o.secret {
			if err := set(o.target, o.value); err != nil {
				panic(fmt.Sprintf("default of %s: %v", o.key, err))
			}
		}
	}
	return c
}

// writeConfig prints the table as YAML with comments.
func writeConfig(to io.Writer, c *Config) error {
	w := bufio.NewWriter(to)
	var open []string // sections the last key stands in
	for _, o := range c.options() {
		path := strings.Split(o.key, ".")
		name, sections := path[len(path)-1], path[:len(path)-1]
		shared := 0
		for shared < len(sections) && shared < len(open) && sections[shared] == open[shared] {
			shared++
		}
		for i := shared; i < len(sections); i++ {
			if i == 0 && len(open) > 0 {
				fmt.Fprintln(w)
			}
			fmt.Fprintf(w, "%s%s:\n", strings.Repeat("  ", i), sections[i])
		}
		open = sections
		indent := strings.Repeat("  ", len(sections))
		for _, line := range wrap(o.doc, 90-len(indent)) {
			fmt.Fprintf(w, "%s# %s\n", indent, line)
		}
		from := ""
		if at, ok := c.from[o.key]; ok {
			from = "  # " + string(at)
		}
		switch {
		case o.secret:
			state := "not set"
			if text(o.target) != "" {
				state = "set"
			}
			fmt.Fprintf(w, "%s# %s: only in the environment: %s (%s)\n", indent, name, variable(o.key), state)
		default:
			fmt.Fprintf(w, "%s%s: %s%s\n", indent, name, quote(o.target), from)
		}
	}
	return w.Flush()
}

// writeReference prints the table as a page.
func writeReference(to io.Writer) error {
	w := bufio.NewWriter(to)
	fmt.Fprint(w, `# Configuration

<!-- Generated from Config.options by "go generate ./cmd/footfall"; edit there. -->

A YAML file (`+"`--config`, else `./footfall.yaml`"+` where there is one), over it the
environment, over it `+"`--set KEY=VALUE`"+`. A key is a path: `+"`kafka.topics.events`"+` is
`+"`events`"+` below `+"`topics`"+` below `+"`kafka`"+` in YAML, and the variable
`+"`FOOTFALL_KAFKA_TOPICS_EVENTS`"+`. Unknown keys are refused. Durations are whole numbers with
units: 30d, 12h, 15m, 2s, 500ms, 1d12h. Secrets come from the environment, or from the
file that the key ending in `+"`_file`"+` names, and are never printed.

| key | default | |
| --- | --- | --- |
`)
	for _, o := range (&Config{}).options() {
		value := "`" + o.value + "`"
		switch {
		case o.secret:
			value = "environment only"
		case o.value == "":
			value = ""
		}
		fmt.Fprintf(w, "| `%s` | %s | %s |\n", o.key, value, strings.ReplaceAll(o.doc, "|", `\|`))
	}
	return w.Flush()
}

// plain is a scalar that YAML takes as it stands, whatever else it may be: no sign of its
// own in the beginning, and neither a colon nor a number sign that could be one.
var plain = regexp.MustCompile(`^[A-Za-z0-9./_-]([A-Za-z0-9./_+=?&%:@-]*[A-Za-z0-9./_+=?&%-])?$`)

// quote writes a scalar so that YAML reads the same back: lists and maps are flow YAML
// already.
func quote(target any) string {
	value := text(target)
	switch t := target.(type) {
	case *[]string:
		quoted := make([]string, len(*t))
		for i, item := range *t {
			quoted[i] = quoteText(item)
		}
		return "[" + strings.Join(quoted, ", ") + "]"
	case *string:
		return quoteText(value)
	}
	return value
}

func quoteText(value string) string {
	if !plain.MatchString(value) || slices.Contains([]string{"null", "Null", "NULL", "-", "---", "..."}, value) {
		return strconv.Quote(value)
	}
	return value
}

// wrap breaks prose into lines of at most width bytes, where words allow.
func wrap(prose string, width int) []string {
	var lines []string
	line := ""
	for word := range strings.FieldsSeq(prose) {
		if line != "" && len(line)+1+len(word) > width {
			lines, line = append(lines, line), ""
		}
		if line != "" {
			line += " "
		}
		line += word
	}
	return append(lines, line)
}
