// Package migrations is the tables and views of footfall in ClickHouse, as SQL that
// a person can read and apply by hand. It imports nothing of ours and talks to
// nobody: sinks/clickhouse applies it.
//
// A migration never changes once it is released: another one is added, and so the
// schema of every installation is known by its number. Its statements can be
// applied again, because ClickHouse has no transaction around them. They name no
// database: they are for the current one.
package migrations

import (
	"embed"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/cespare/xxhash/v2"
)

//go:embed *.sql
var files embed.FS

// Migration is one numbered file.
type Migration struct {
	Version    int    // 1, 2, 3 ...
	Name       string // of the file
	Hash       string // of the file's text
	Statements []string
}

// All returns the migrations in the order of their versions.
func All() ([]Migration, error) {
	entries, err := files.ReadDir(".")
	if err != nil {
		return nil, err
	}
	all := make([]Migration, 0, len(entries))
	for _, e := range entries { // sorted by name
		text, err := files.ReadFile(e.Name())
		if err != nil {
			return nil, err
		}
		number, _, _ := strings.Cut(e.Name(), "_")
		version, err := strconv.Atoi(number)
		if err != nil || version != len(all)+1 {
			return nil, fmt.Errorf("migration %s: want number %d in front", e.Name(), len(all)+1)
		}
		all = append(all, Migration{
			Version:    version,
			Name:       e.Name(),
			Hash:       fmt.Sprintf("%016x", xxhash.Sum64(text)),
			Statements: split(string(text)),
		})
	}
	return slices.Clip(all), nil
}

// split cuts a file into statements. A statement ends with a semicolon at the end
// of a line; lines that begin with -- are comments, outside of statements too.
func split(text string) (statements []string) {
	var b strings.Builder
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "--") {
			continue
		}
		b.WriteString(line)
		if strings.HasSuffix(strings.TrimRight(line, " \t\r\n"), ";") {
			s := strings.TrimSpace(b.String())
			statements = append(statements, strings.TrimSuffix(s, ";"))
			b.Reset()
		}
	}
	if s := strings.TrimSpace(b.String()); s != "" {
		statements = append(statements, s)
	}
	return statements
}
