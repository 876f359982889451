// Package clickhouse is the archive: events, transitions and dead letters, from
// their topics into ClickHouse's tables. It may speak SQL and Kafka, wait and try
// again; it may not know rules, profiles or timers, and what is sent when, and
// again, is decided in pipeline/archive.
//
// The engine that needs no installation is in the folders beside it (chdb); to
// this package it is a server like any other, behind a DSN.
package clickhouse

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	migrations "footfall/schemas/clickhouse"
)

// DefaultDatabase is the database of a DSN that names none.
const DefaultDatabase = "footfall"

// queryMax is how long one statement of ours may take.
const queryMax = 2 * time.Minute

// dialMax is how long a server may take to say hello. What listens there may speak
// another protocol, and never answer.
const dialMax = 10 * time.Second

// ClickHouse's codes for a right that is missing, and for a database that is.
const (
	codeAccessDenied    = 497
	codeUnknownDatabase = 81
)

// ErrNoDatabase is of a server that answers, and where nothing has been migrated yet.
var ErrNoDatabase = errors.New("clickhouse: no such database")

// DB is a ClickHouse with footfall's tables. It is safe for concurrent use.
type DB struct {
	driver.Conn
	options  clickhouse.Options
	database string
}

// Open returns the ClickHouse of a DSN: clickhouse://user:password@host:9000/footfall
// (native protocol; secure=true for TLS) or http://host:8123/footfall (or https).
// Settings may follow as parameters. It connects when it is first used.
func Open(dsn string) (*DB, error) {
	o, err := clickhouse.ParseDSN(dsn)
	if err != nil {
		return nil, fmt.Errorf("clickhouse: %w", err)
	}
	if o.Auth.Database == "" {
		o.Auth.Database = DefaultDatabase
	}
	if !identifier.MatchString(o.Auth.Database) {
		return nil, fmt.Errorf("clickhouse: database %q: want letters, digits and _ only", o.Auth.Database)
	}
	if o.Settings == nil {
		o.Settings = clickhouse.Settings{}
	}
	o.Settings["async_insert"] = 0 // the default of 26.x is 1, and it acknowledges too early
	if o.DialTimeout == 0 {
		o.DialTimeout = dialMax
	}
	if o.ReadTimeout == 0 {
		o.ReadTimeout = parityMax // the longest that a statement is given; over HTTP the driver's 5 min would end it
	}
	if o.Compression == nil {
		o.Compression = &clickhouse.Compression{Method: clickhouse.CompressionLZ4}
	}
	conn, err := clickhouse.Open(o)
	if err != nil {
		return nil, fmt.Errorf("clickhouse: %w", err)
	}
	return &DB{Conn: conn, options: *o, database: o.Auth.Database}, nil
}

var identifier = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// Version asks the server for its version: whether it can be reached, too. The error is
// ErrNoDatabase where only the database is missing.
func (db *DB) Version(ctx context.Context) (version string, err error) {
	err = db.QueryRow(ctx, "SELECT version()").Scan(&version)
	if ex, _ := errors.AsType[*clickhouse.Exception](err); ex != nil && ex.Code == codeUnknownDatabase {
		return "", fmt.Errorf("%w: %s", ErrNoDatabase, db.database)
	}
	return version, plain(err)
}

// Database returns the name of the database.
func (db *DB) Database() string { return db.database }

// Migrate makes the database, its tables and its views, or brings them up to date.
// It can be called at every start, and by several at once. Where nothing has to be
// done it only reads schema_versions.
func (db *DB) Migrate(ctx context.Context) error {
	all, err := migrations.All()
	if err != nil {
		return err
	}
	applied, err := db.applied(ctx)
	switch ex, _ := errors.AsType[*clickhouse.Exception](err); {
	case err == nil && len(applied) == len(all):
		return db.check(all, applied)
	case ex != nil && ex.Code == codeAccessDenied: // making it anew would not help
		return fmt.Errorf("clickhouse: table schema_versions: %w", plain(err))
	}
	if err := db.create(ctx); err != nil {
		return fmt.Errorf("clickhouse: create database %s: %w", db.database, plain(err))
	}
	const versions = `CREATE TABLE IF NOT EXISTS schema_versions
(
    version    UInt32                 COMMENT 'Number of the migration',
    name       String                 COMMENT 'Its file',
    hash       String                 COMMENT 'Hash of its text',
    applied_at DateTime64(3, 'UTC')   COMMENT 'When it was applied'
)
ENGINE = ReplacingMergeTree ORDER BY version
COMMENT 'The migrations that have been applied'`
	if err := db.Exec(ctx, versions); err != nil {
		return fmt.Errorf("clickhouse: table schema_versions: %w", plain(err))
	}
	if applied, err = db.applied(ctx); err != nil {
		return fmt.Errorf("clickhouse: table schema_versions: %w", plain(err))
	}
	if err := db.check(all, applied); err != nil {
		return err
	}
	for n := len(applied); n < len(all); n++ {
		// Who migrates beside us may be ahead by now: to make a view anew that they have made
		// newer, and to end before we have done so ourselves, would leave the old one for ever.
		if applied, err = db.applied(ctx); err != nil {
			return fmt.Errorf("clickhouse: table schema_versions: %w", plain(err))
		}
		if n < len(applied) {
			continue
		}
		m := all[n]
		for i, s := range m.Statements {
			if err := db.Exec(ctx, s); err != nil {
				return fmt.Errorf("clickhouse: migration %s, statement %d: %w", m.Name, i+1, plain(err))
			}
		}
		if err := db.Exec(ctx, "INSERT INTO schema_versions SELECT ?, ?, ?, now64(3)", uint32(m.Version), m.Name, m.Hash); err != nil {
			return fmt.Errorf("clickhouse: migration %s: %w", m.Name, plain(err))
		}
	}
	return nil
}

// create makes the database, through a connection that does not need it.
func (db *DB) create(ctx context.Context) error {
	o := db.options
	o.Auth.Database = "default"
	conn, err := clickhouse.Open(&o)
	if err != nil {
		return err
	}
	err = conn.Exec(ctx, "CREATE DATABASE IF NOT EXISTS "+db.database)
	return errors.Join(err, conn.Close())
}

// applied returns the hashes of the migrations that have been applied, by their
// version, which begins at 1.
func (db *DB) applied(ctx context.Context) (hashes []string, err error) {
	rows, err := db.Query(ctx, "SELECT version, any(hash) FROM schema_versions GROUP BY version ORDER BY version")
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }() // Err says what went wrong
	for rows.Next() {
		var version uint32
		var hash string
		if err := rows.Scan(&version, &hash); err != nil {
			return nil, err
		}
		if int(version) != len(hashes)+1 {
			return nil, fmt.Errorf("version %d is missing", len(hashes)+1)
		}
		hashes = append(hashes, hash)
	}
	return hashes, rows.Err()
}

// check compares the migrations that were applied with those there are.
func (db *DB) check(all []migrations.Migration, applied []string) error {
	if len(applied) > len(all) {
		return fmt.Errorf("clickhouse: database %s: its schema has version %d, this footfall knows %d: use the footfall that made it, or a newer one", db.database, len(applied), len(all))
	}
	for i, hash := range applied {
		if m := all[i]; m.Hash != hash {
			return fmt.Errorf("clickhouse: database %s: migration %s was applied with another text (hash %s, now %s): a released migration never changes; put its text back and add a new one", db.database, m.Name, hash, m.Hash)
		}
	}
	return nil
}
