package main

import (
	"fmt"
	"net"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode"

	"footfall/pipeline/segment"
	"footfall/schemas"
	"footfall/schemas/segments"
	"footfall/sources/kafka"
)

// check looks at what single values and values together mean. Every fault names
// where its value came from.
func (c *Config) check() []error {
	k := &checker{c: c}
	k.kafka()
	k.security()
	k.shop()
	k.segments()
	k.policies()
	k.spans()
	k.clickhouse()
	k.server()
	return k.errs
}

// checker collects faults.
type checker struct {
	c    *Config
	errs []error
}

func (k *checker) bad(key, format string, args ...any) {
	k.errs = append(k.errs, fmt.Errorf("%s: %s: "+format, append([]any{k.c.where(key), key}, args...)...))
}

var databaseName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

var topicName = regexp.MustCompile(`^[a-zA-Z0-9._-]{1,249}$`)

func (k *checker) kafka() {
	c := &k.c.Kafka
	if len(c.Brokers) == 0 {
		k.bad("kafka.brokers", "name at least one broker")
	}
	for _, b := range c.Brokers {
		if _, port, err := net.SplitHostPort(b); err != nil || port == "" {
			k.bad("kafka.brokers", "%q is not HOST:PORT", b)
		}
	}
	if c.Group == "" {
		k.bad("kafka.group", "must not be empty")
	}
	names := map[string]string{}
	for _, t := range []struct{ key, name string }{
		{"kafka.topics.events", c.Topics.Events},
		{"kafka.topics.triggers", c.Topics.Triggers},
		{"kafka.topics.muted", c.Topics.Muted},
		{"kafka.topics.dead_letters", c.Topics.DeadLetters},
		{"kafka.topics.control", k.c.controlTopic()},
	} {
		switch other, twice := names[t.name]; {
		case !topicName.MatchString(t.name) || t.name == "." || t.name == "..":
			k.bad(t.key, "%q can't be a topic's name: 1 to 249 of a-z A-Z 0-9 . _ -", t.name)
		case twice:
			k.bad(t.key, "%q is the name of %s too; each needs a topic of its own", t.name, other)
		}
		names[t.name] = t.key
	}
	if c.Partitions < 1 || c.Partitions > 10000 {
		k.bad("kafka.partitions", "%d is not within 1 and 10000", c.Partitions)
	}
	if c.Replication < 1 || c.Replication > 15 {
		k.bad("kafka.replication", "%d is not within 1 and 15", c.Replication)
	}
	if c.BatchMax < 4<<20 || c.BatchMax > 1<<30 {
		k.bad("kafka.batch_max", "%d is not within %d and %d", c.BatchMax, 4<<20, 1<<30)
	}
	if codecs := []string{"none", "gzip", "snappy", "lz4", "zstd"}; !slices.Contains(codecs, c.Compression) {
		k.bad("kafka.compression", "%q is not none, gzip, snappy, lz4 or zstd", c.Compression)
	}
	if c.Protocol != string(kafka.Classic) && c.Protocol != string(kafka.Consumer) {
		k.bad("kafka.protocol", "%q is not %s or %s", c.Protocol, kafka.Classic, kafka.Consumer)
	}
	// The broker's own limits, by default: group.min/max.session.timeout.ms and
	// transaction.max.timeout.ms.
	k.within("kafka.session_timeout", c.SessionTimeout, 6*time.Second, 30*time.Minute)
	k.within("kafka.transaction_timeout", c.TransactionTimeout, time.Second, 15*time.Minute)
}

func (k *checker) within(key string, d, low, high time.Duration) {
	if d < low || d > high {
		k.bad(key, "%s is not within %s and %s", formatDuration(d), formatDuration(low), formatDuration(high))
	}
}

func (k *checker) security() {
	tls, sasl := &k.c.Kafka.TLS, &k.c.Kafka.SASL
	for _, f := range []struct{ key, path string }{
		{"kafka.tls.ca_file", tls.CAFile},
		{"kafka.tls.cert_file", tls.CertFile},
		{"kafka.tls.key_file", tls.KeyFile},
	} {
		if f.path != "" && !tls.Enabled {
			k.bad(f.key, "is set, but kafka.tls.enabled is false")
		}
	}
	if (tls.CertFile == "") != (tls.KeyFile == "") {
		k.bad("kafka.tls.cert_file", "cert_file and key_file go together")
	}
	switch sasl.Mechanism {
	case "":
		if sasl.Username != "" || sasl.Password != "" {
			k.bad("kafka.sasl.mechanism", "a user or a password is set, but no mechanism: plain, scram-sha-256 or scram-sha-512")
		}
	case "plain", "scram-sha-256", "scram-sha-512":
		if sasl.Username == "" {
			k.bad("kafka.sasl.mechanism", "%s needs kafka.sasl.username", sasl.Mechanism)
		}
		if sasl.Password == "" {
			k.bad("kafka.sasl.mechanism", "%s needs a password: set %s or kafka.sasl.password_file", sasl.Mechanism, variable("kafka.sasl.password"))
		}
	default:
		k.bad("kafka.sasl.mechanism", "%q is not known%s", sasl.Mechanism, suggest(sasl.Mechanism, []string{"plain", "scram-sha-256", "scram-sha-512"}))
	}
}

func (k *checker) shop() {
	if err := segment.CheckZone(k.c.Shop.Zone); err != nil {
		k.bad("shop.zone", "%w", err)
	}
	_, err := schemas.NewDecoder(k.c.contract())
	if err == nil {
		return
	}
	for line := range strings.SplitSeq(err.Error(), "\n") {
		key := "shop.rates"
		if strings.HasPrefix(line, "reporting currency") {
			key = "shop.currency"
		}
		k.bad(key, "%s", line)
	}
}

// segments looks at the list alone: what is wrong with the sets themselves, those
// commands say that need them.
func (k *checker) segments() {
	sets := k.c.Segments.Sets
	if len(sets) == 0 {
		k.bad("segments.sets", "name at least one segment set, such as lifecycle")
	}
	for i, s := range sets {
		switch {
		case slices.Contains(sets[:i], s):
			k.bad("segments.sets", "%q is there twice", s)
		case !isPath(s) && !slices.Contains(segments.Names(), s):
			k.bad("segments.sets", "no set %q is shipped; a file of yours is given as a path, as in ./%s.yaml%s", s, s, suggest(s, segments.Names()))
		}
	}
}

// policies are how often sets speak.
func (k *checker) policies() {
	s := &k.c.Segments
	if n := s.Cap.Triggers; n < 0 || n > segment.CapMost {
		k.bad("segments.cap.triggers", "%d is not within 0 and %d", n, segment.CapMost)
	}
	k.within("segments.cap.within", s.Cap.Within, time.Minute, 366*24*time.Hour)
	if _, err := parseTimeOfDay(s.EpochAt); err != nil {
		k.bad("segments.epoch_at", "%w", err)
	}
	if _, err := segment.ParseQuiet(s.Quiet); err != nil {
		k.bad("segments.quiet", "%w", err)
	}
	if s.Changes != "muted" && s.Changes != "said" {
		k.bad("segments.changes", "%q is neither muted nor said", s.Changes)
	}
	if s.Hysteresis < 0 || s.Hysteresis > 100 {
		k.bad("segments.hysteresis", "%d is not within 0 and 100", s.Hysteresis)
	}
}

func (k *checker) spans() {
	c := k.c
	day := 24 * time.Hour
	k.within("clock.grace", c.Clock.Grace, 0, time.Hour)
	k.within("clock.max_skew", c.Clock.MaxSkew, time.Millisecond, day)
	k.within("clock.max_age", c.Clock.MaxAge, time.Second, 3650*day)
	k.within("clock.max_jump", c.Clock.MaxJump, 0, 3650*day)
	k.within("clock.tick", c.Clock.Tick, 10*time.Millisecond, time.Hour)
	k.within("dedup.window", c.Dedup.Window, time.Second, 7*day)
	if c.Dedup.Budget < 1 {
		k.bad("dedup.budget", "%d is not above 0", c.Dedup.Budget)
	}
	u, err := url.Parse(c.Snapshots.Bucket)
	switch {
	case err != nil || u.Scheme == "":
		shown := c.Snapshots.Bucket[strings.LastIndex(c.Snapshots.Bucket, "@")+1:] // before it may be a password
		k.bad("snapshots.bucket", "%q is not a URL such as file:///var/lib/footfall/snapshots or s3://bucket?region=eu-west-1", shown)
	case u.User != nil:
		k.bad("snapshots.bucket", "holds a password; credentials come from the cloud's own environment")
	}
	k.within("snapshots.every", c.Snapshots.Every, time.Second, 7*day)
	if c.Snapshots.Deltas < 0 || c.Snapshots.Deltas > deltasMost {
		k.bad("snapshots.deltas", "%d is not within 0 and %d", c.Snapshots.Deltas, deltasMost)
	}
	if c.Snapshots.Keep < 2 {
		k.bad("snapshots.keep", "%d: keep at least 2, so that a damaged one has one before it", c.Snapshots.Keep)
	}
}

// deltasMost is how many snapshots may follow a whole one: a recovery reads all of them.
const deltasMost = 100

func (k *checker) clickhouse() {
	c := &k.c.ClickHouse
	u, err := url.Parse(c.DSN)
	switch {
	case err != nil || u.Host == "" || !slices.Contains([]string{"http", "https", "clickhouse", "tcp"}, u.Scheme):
		// The text is not repeated: what can't be parsed may hold a password.
		k.bad("clickhouse.dsn", "is not http://HOST:PORT, https://HOST:PORT or clickhouse://HOST:PORT")
	case u.User != nil || u.Query().Has("password") || u.Query().Has("username"):
		k.bad("clickhouse.dsn", "holds a user or a password; use clickhouse.username and %s or clickhouse.password_file", variable("clickhouse.password"))
	}
	if !databaseName.MatchString(c.Database) {
		k.bad("clickhouse.database", "%q can't be a database's name: letters, digits and _ only, no digit first", c.Database)
	}
	if c.Batch.Rows < 1 || c.Batch.Rows > 100000 {
		k.bad("clickhouse.batch.rows", "%d is not within 1 and 100000", c.Batch.Rows)
	}
	k.within("clickhouse.batch.age", c.Batch.Age, 10*time.Millisecond, 10*time.Minute)
	if p := &k.c.Parity; p.Every != 0 {
		k.within("parity.every", p.Every, time.Second, 24*time.Hour)
	}
	if f := &k.c.Forecast; f.Every != 0 {
		k.within("forecast.every", f.Every, time.Second, 30*24*time.Hour)
		k.within("forecast.for", f.For, time.Hour, 3650*24*time.Hour)
	}
	if n := k.c.Parity.Users; n < 1 || n > 10000 {
		k.bad("parity.users", "%d is not within 1 and 10000", n)
	}
}

func (k *checker) server() {
	h, l := &k.c.HTTP, &k.c.Log
	if _, _, err := net.SplitHostPort(h.Listen); err != nil {
		k.bad("http.listen", "%q is not HOST:PORT", h.Listen)
	}
	if h.Advertise != "" {
		if host, _, err := net.SplitHostPort(h.Advertise); err != nil || host == "" {
			k.bad("http.advertise", "%q is not HOST:PORT", h.Advertise)
		}
	}
	if t := string(h.Token); t != strings.TrimSpace(t) || strings.ContainsFunc(t, unicode.IsControl) { // a header loses it, or cannot have it
		k.bad("http.token", "begins or ends with white space, or holds what is no character: nobody could send it")
	}
	if !slices.Contains([]string{"debug", "info", "warn", "error"}, l.Level) {
		k.bad("log.level", "%q is not debug, info, warn or error", l.Level)
	}
	if !slices.Contains([]string{"auto", "json", "console"}, l.Format) {
		k.bad("log.format", "%q is not auto, json or console", l.Format)
	}
}
