package main

import (
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"sort"
	"strings"
	"time"

	"footfall/schemas"
	"footfall/sources/file"
)

// Config is everything footfall can be told. Its fields are named, explained and
// given their defaults in one place, Config.options; a field that is not listed
// there can't be set.
type Config struct {
	Kafka      KafkaConfig
	Shop       ShopConfig
	Segments   SegmentsConfig
	Clock      ClockConfig
	Dedup      DedupConfig
	Snapshots  SnapshotsConfig
	ClickHouse ClickHouseConfig
	Parity     ParityConfig
	Forecast   ForecastConfig
	HTTP       HTTPConfig
	Log        LogConfig

	path string            // of the file read; "": none
	from map[string]origin // where each key that was set came from
}

// KafkaConfig is the cluster, the topics and our name there.
type KafkaConfig struct {
	Brokers  []string
	Group    string
	Instance string
	Protocol string
	Topics   TopicsConfig
	Lane     schemas.Lane

	Partitions  int
	Replication int
	Compression string
	BatchMax    int

	SessionTimeout     time.Duration
	TransactionTimeout time.Duration

	TLS  TLSConfig
	SASL SASLConfig
}

// TopicsConfig names the topics.
type TopicsConfig struct {
	Events, Triggers, Muted, DeadLetters, Control string
}

// TLSConfig is how brokers are trusted, and how they may trust us.
type TLSConfig struct {
	Enabled                               bool
	CAFile, CertFile, KeyFile, ServerName string
}

// SASLConfig is how we log in.
type SASLConfig struct {
	Mechanism, Username, PasswordFile string
	Password                          Secret
}

// ShopConfig is what money is counted in, and where the shop's days begin.
type ShopConfig struct {
	Currency string
	Rates    map[string]string // decimal: 1 unit of the key is so many units of Currency
	Zone     string            // IANA
}

// SegmentsConfig is which segment sets there are, and how often they speak.
type SegmentsConfig struct {
	Sets       []string // names of shipped ones, and paths; see Config.sets
	Cap        CapConfig
	EpochAt    string // HH:MM
	Hysteresis int    // percent
	Quiet      string // HH:MM-HH:MM, or none
	Changes    string // muted or said
}

// CapConfig is how many triggers there may be of one user. Triggers 0: any number.
type CapConfig struct {
	Triggers int
	Within   time.Duration
}

// ClockConfig is how time moves (design 5).
type ClockConfig struct {
	Grace, MaxSkew, MaxAge, MaxJump, Tick time.Duration
}

// DedupConfig is how far back a repeated event id is recognised.
type DedupConfig struct {
	Window time.Duration
	Budget int // records per partition
}

// SnapshotsConfig is where and how often state is kept.
type SnapshotsConfig struct {
	Bucket string
	Every  time.Duration
	Deltas int
	Keep   int
}

// ClickHouseConfig is the archive.
type ClickHouseConfig struct {
	Enabled      bool
	DSN          string
	Database     string
	Username     string
	Password     Secret
	PasswordFile string
	Batch        BatchConfig
}

// BatchConfig is when a batch is full.
type BatchConfig struct {
	Rows int
	Age  time.Duration
}

// ParityConfig is how segments are compared with ClickHouse while running.
type ParityConfig struct {
	Every time.Duration // 0: never
	Users int
}

// ForecastConfig is how ClickHouse is told what silence alone will do.
type ForecastConfig struct {
	Every time.Duration // 0: never
	For   time.Duration
}

// HTTPConfig is the instance's own small server.
type HTTPConfig struct {
	Listen, Advertise, TokenFile string
	Token                        Secret
}

// LogConfig is what is said while running.
type LogConfig struct {
	Level, Format string
}

// option is one key of the configuration.
type option struct {
	key    string // dotted: the path in YAML; upper-cased and underscored, the variable
	target any    // pointer to the field
	value  string // the default, as one would write it
	doc    string
	secret bool // only from the environment (or by the _file key beside it)
}

// options is the one table of keys, defaults and explanations: YAML, environment,
// flags, `footfall config` and CONFIG.md all read it.
func (c *Config) options() []option {
	k, s := &c.Kafka, &c.Snapshots
	return []option{
		{key: "kafka.brokers", target: &k.Brokers, value: "127.0.0.1:9092", doc: "Addresses of some brokers; the others are found through them."},
		{key: "kafka.group", target: &k.Group, value: "footfall", doc: "Consumer group of the engine. Instances of one group share the partitions, and only they share state."},
		{key: "kafka.instance", target: &k.Instance, value: "", doc: "Stable name of this process within the group (static membership, transactional ids): a restart is then back in milliseconds. No two running at once may have the same. Empty: a new one at each start."},
		{key: "kafka.protocol", target: &k.Protocol, value: "classic", doc: "How the group decides who owns what: classic (the members assign) or consumer (the broker does: KIP-848, Kafka 4, where a change interrupts only those whose partitions move). With consumer the broker's group.consumer.session.timeout.ms (45 s) holds instead of kafka.session_timeout, also for a killed instance that comes back under its name."},
		{key: "kafka.topics.events", target: &k.Topics.Events, value: "events", doc: "What the storefront publishes, keyed by user id (murmur2, as Kafka's Java client)."},
		{key: "kafka.topics.triggers", target: &k.Topics.Triggers, value: "triggers", doc: "Transitions to act on."},
		{key: "kafka.topics.muted", target: &k.Topics.Muted, value: "muted", doc: "Transitions to know of and not to act on, each with its reason."},
		{key: "kafka.topics.dead_letters", target: &k.Topics.DeadLetters, value: "dead-letters", doc: "Records that were refused, each with its reason."},
		{key: "kafka.topics.control", target: &k.Topics.Control, value: "", doc: "Compacted topic of the kill switch (`footfall triggers pause`) and of the bounds of quantiles. Empty: GROUP-control."},
		{key: "kafka.lane", target: &k.Lane, value: "live", doc: "Lane of records that have no `lane` header: live, backfill (history published now; nothing is triggered) or replay (history in log time, in a topic of its own)."},
		{key: "kafka.partitions", target: &k.Partitions, value: "8", doc: "Partitions of the topics that `topics create` makes. Can't be changed later: users would move to other partitions."},
		{key: "kafka.replication", target: &k.Replication, value: "1", doc: "Replicas of the topics that `topics create` makes. 3 in production."},
		{key: "kafka.compression", target: &k.Compression, value: "lz4", doc: "Of what is written: none, gzip, snappy, lz4 or zstd."},
		{key: "kafka.batch_max", target: &k.BatchMax, value: "67108864", doc: "Bytes that a batch of records may expand to when it is read. One that expands to more, far beyond what a storefront writes, stops its reader; a greater limit, once, has its records refused one by one."},
		{key: "kafka.session_timeout", target: &k.SessionTimeout, value: "6s", doc: "After how long without a heartbeat the group gives a dead instance's partitions to others."},
		{key: "kafka.transaction_timeout", target: &k.TransactionTimeout, value: "10s", doc: "After how long the broker ends the open transaction of a dead instance; readers of its partitions wait so long."},
		{key: "kafka.tls.enabled", target: &k.TLS.Enabled, value: "false", doc: "Speak TLS to the brokers."},
		{key: "kafka.tls.ca_file", target: &k.TLS.CAFile, value: "", doc: "PEM file of the authorities that sign the brokers' certificates. Empty: the system's."},
		{key: "kafka.tls.cert_file", target: &k.TLS.CertFile, value: "", doc: "PEM file of our own certificate, where brokers ask for one (mTLS)."},
		{key: "kafka.tls.key_file", target: &k.TLS.KeyFile, value: "", doc: "PEM file of its key."},
		{key: "kafka.tls.server_name", target: &k.TLS.ServerName, value: "", doc: "Name to expect in the brokers' certificates, if not their host name."},
		{key: "kafka.sasl.mechanism", target: &k.SASL.Mechanism, value: "", doc: "plain, scram-sha-256 or scram-sha-512. Empty: no SASL."},
		{key: "kafka.sasl.username", target: &k.SASL.Username, value: "", doc: "User to log in as."},
		{key: "kafka.sasl.password", target: &k.SASL.Password, secret: true, doc: "Its password."},
		{key: "kafka.sasl.password_file", target: &k.SASL.PasswordFile, value: "", doc: "File that holds the password."},

		{key: "shop.currency", target: &c.Shop.Currency, value: "EUR", doc: "Reporting currency (ISO 4217): what revenue is counted in, and the currency of events that name none. What was counted in another stays as it is: to change it, begin anew, with another group, other topics and another bucket."},
		{key: "shop.rates", target: &c.Shop.Rates, value: "", doc: "Other currencies: `USD: \"0.91\"` (as a variable or a flag: USD=0.91,GBP=1.17) says that 1 USD counts as 0.91 of shop.currency. Money in a currency that is not listed is refused (unknown_currency)."},
		{key: "shop.zone", target: &c.Shop.Zone, value: "UTC", doc: "Time zone (IANA, as in Europe/Berlin) in which calendar days, months and hours of segment sets begin that name none themselves."},

		{key: "segments.sets", target: &c.Segments.Sets, value: "lifecycle", doc: "Segment sets, in this order: names of shipped ones (`footfall rules` lists them) and paths of YAML files such as ./vip.yaml. A path in a configuration file is relative to that file, one in the environment or a flag to the working directory."},
		{key: "segments.cap.triggers", target: &c.Segments.Cap.Triggers, value: "0", doc: "No more triggers than that of one user within segments.cap.within, over all sets but those with `capped: false`; what is more is muted (cap). 0: any number."},
		{key: "segments.cap.within", target: &c.Segments.Cap.Within, value: "7d", doc: "How far back the cap counts."},
		{key: "segments.epoch_at", target: &c.Segments.EpochAt, value: "03:00", doc: "Time of day in shop.zone (HH:MM) at which the bounds of score(...) are taken anew."},
		{key: "segments.hysteresis", target: &c.Segments.Hysteresis, value: "5", doc: "Such a bound stays where it was when it would move by less than so many percent."},
		{key: "segments.changes", target: &c.Segments.Changes, value: "muted", doc: "What a change of segment sets makes of shoppers who did nothing: muted (with the reason rules), or said aloud like everything else (said)."},
		{key: "segments.quiet", target: &c.Segments.Quiet, value: "none", doc: "Hours such as 21:00-08:00 at which nobody should be spoken to, by the clock on the shopper's wall, of sets without `quiet:` of their own: a transition in them says `not_before`. none: no such hours."},

		{key: "clock.grace", target: &c.Clock.Grace, value: "2s", doc: "How far behind the wall a partition's clock stays when it is read to its end: events still under way."},
		{key: "clock.max_skew", target: &c.Clock.MaxSkew, value: "5m", doc: "A record this far ahead of the wall is a dead letter (future)."},
		{key: "clock.max_age", target: &c.Clock.MaxAge, value: "1d", doc: "A transition this old when it is said is muted (stale)."},
		{key: "clock.max_jump", target: &c.Clock.MaxJump, value: "7d", doc: "How far a silent partition's clock may go at once, from the furthest to which events or time have moved one of this instance. A wall further ahead may be wrong, and would have everybody lost for good: time is held until an event shows that it is right. 0s: it is always believed."},
		{key: "clock.tick", target: &c.Clock.Tick, value: "1s", doc: "How often a silent partition's clock is moved."},

		{key: "dedup.window", target: &c.Dedup.Window, value: "1h", doc: "How long a repeated event_id is recognised, in record timestamps. Change it, and the budget, after a clean stop: after a crash the input since a partition's last snapshot is counted anew by the new values."},
		{key: "dedup.budget", target: &c.Dedup.Budget, value: "1048576", doc: "How many records per partition are remembered for that, at most."},

		{key: "snapshots.bucket", target: &s.Bucket, value: "file://./footfall-data/snapshots", doc: "Where snapshots are kept: file://, s3:// or mem:// (gocloud.dev/blob)."},
		{key: "snapshots.every", target: &s.Every, value: "5m", doc: "How often one is taken of each partition. Topics must keep records much longer."},
		{key: "snapshots.deltas", target: &s.Deltas, value: "12", doc: "How many hold only what has changed since the one before, after each whole one, at most. 0: every one is whole."},
		{key: "snapshots.keep", target: &s.Keep, value: "3", doc: "How many whole ones are kept of each partition, with those of what has changed since."},

		{key: "clickhouse.enabled", target: &c.ClickHouse.Enabled, value: "true", doc: "Archive events, transitions and dead letters in ClickHouse. Triggers never wait for it."},
		{key: "clickhouse.dsn", target: &c.ClickHouse.DSN, value: "http://127.0.0.1:8123", doc: "http(s)://HOST:PORT or clickhouse://HOST:PORT (native TCP), without the password."},
		{key: "clickhouse.database", target: &c.ClickHouse.Database, value: "footfall", doc: "Database of the tables and views."},
		{key: "clickhouse.username", target: &c.ClickHouse.Username, value: "default", doc: "User to log in as."},
		{key: "clickhouse.password", target: &c.ClickHouse.Password, secret: true, doc: "Its password."},
		{key: "clickhouse.password_file", target: &c.ClickHouse.PasswordFile, value: "", doc: "File that holds the password."},
		{key: "clickhouse.batch.rows", target: &c.ClickHouse.Batch.Rows, value: "50000", doc: "A batch is sent when it has this many rows (at most 100000),"},
		{key: "clickhouse.batch.age", target: &c.ClickHouse.Batch.Age, value: "2s", doc: "or when its first row is this old."},

		{key: "parity.every", target: &c.Parity.Every, value: "5m", doc: "How often a running instance compares the segments of some users with what the same rules say of their events in ClickHouse. 0s: never."},
		{key: "parity.users", target: &c.Parity.Users, value: "200", doc: "How many users, of one partition after the other."},
		{key: "forecast.every", target: &c.Forecast.Every, value: "1h", doc: "How often a running instance writes to ClickHouse what silence alone will do to its users (table forecast, view forecast_now). 0s: never."},
		{key: "forecast.for", target: &c.Forecast.For, value: "720h", doc: "How far that looks ahead."},

		{key: "http.listen", target: &c.HTTP.Listen, value: "127.0.0.1:9464", doc: "Address of /healthz, /readyz and /metrics, which hold nothing of a person, and of /status and /explain. Plain HTTP: between machines, put it behind what speaks TLS, or into a network of its own."},
		{key: "http.advertise", target: &c.HTTP.Advertise, value: "", doc: "HOST:PORT under which `footfall explain` and `footfall status` reach this instance. Empty: http.listen or, where that is all interfaces, the host's name."},
		{key: "http.token", target: &c.HTTP.Token, secret: true, doc: "Bearer token for /status (how many users are in which segment) and /explain (one of them). Without one they answer this machine only, and neither web pages nor proxies on it that say for whom they ask: in front of one that does not (nginx with proxy_pass alone), set a token."},
		{key: "http.token_file", target: &c.HTTP.TokenFile, value: "", doc: "File that holds the token."},

		{key: "log.level", target: &c.Log.Level, value: "info", doc: "debug, info, warn or error."},
		{key: "log.format", target: &c.Log.Format, value: "auto", doc: "json, console, or auto: console on a terminal."},
	}
}

// origin is where a value came from, for people.
type origin string

// sources are the places a configuration is read from, the later over the
// earlier: defaults, file, environment, flags.
type sources struct {
	path  string    // YAML file; "": footfall.yaml where there is one
	env   []string  // as os.Environ
	flags []setting // KEY=VALUE of --set, and flags that stand for a key
}

// setting is a key with a value as text, and where it came from.
type setting struct {
	key, value string
	from       origin
}

// defaultPath is the file that is read, where it is present, when none is named.
const defaultPath = "footfall.yaml"

// load reads the configuration and reports everything that is wrong with it at once.
func load(src sources) (*Config, error) {
	c := defaultConfig()
	table := c.options()
	path := src.path
	if path == "" {
		if _, err := os.Stat(defaultPath); err == nil {
			path = defaultPath
		}
	}
	var errs []error
	if path != "" {
		c.path = path
		text, err := file.ReadYAML(path)
		if err != nil {
			return nil, fmt.Errorf("configuration: %w", err)
		}
		errs = append(errs, c.readYAML(filepath.ToSlash(path), text, table)...)
	}
	errs = append(errs, c.readEnv(src.env, table)...)
	errs = append(errs, c.readSettings(src.flags, table)...)
	errs = append(errs, c.readSecrets()...)
	errs = append(errs, c.check()...)
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return c, nil
}

// variable is the name of a key's environment variable.
func variable(key string) string {
	return "FOOTFALL_" + strings.ToUpper(strings.ReplaceAll(key, ".", "_"))
}

// serviceVariable is what Kubernetes sets in every container for each service of its
// namespace, of which some may be named footfall, footfall-metrics or, by a chart of that
// name, footfall-kafka.
var serviceVariable = regexp.MustCompile(`^FOOTFALL_([A-Z0-9_]+_)?(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)$`)

// serviceAddress is the value of one whose name tells too little: FOOTFALL_METRICS_PORT.
var serviceAddress = regexp.MustCompile(`^(tcp|udp|sctp)://`)

// foreignVariable tells variables that begin with FOOTFALL_ and are not keys: our own
// other ones, and those that Kubernetes sets.
func foreignVariable(name, value string) bool {
	switch name {
	case "FOOTFALL_CONFIG", "FOOTFALL_CACHE", "FOOTFALL_CLICKHOUSE_HELPER", "FOOTFALL_REQUIRE_CLICKHOUSE":
		return true
	}
	return strings.HasPrefix(name, "FOOTFALL_TEST_") || serviceVariable.MatchString(name) ||
		name == "FOOTFALL_PORT" || strings.HasSuffix(name, "_PORT") && serviceAddress.MatchString(value)
}

func (c *Config) readEnv(env []string, table []option) (errs []error) {
	byName := map[string]option{}
	var names []string
	for _, o := range table {
		byName[variable(o.key)] = o
		names = append(names, strings.TrimPrefix(variable(o.key), "FOOTFALL_")) // what all begin with makes none near
	}
	env = append([]string(nil), env...)
	sort.Strings(env)
	for _, e := range env {
		name, value, _ := strings.Cut(e, "=")
		if !strings.HasPrefix(name, "FOOTFALL_") || value == "" || foreignVariable(name, value) {
			continue // an empty variable is as good as none: compose files set them so
		}
		o, ok := byName[name]
		if !ok {
			errs = append(errs, fmt.Errorf("environment: unknown variable %s%s", name, strings.Replace(suggest(strings.TrimPrefix(name, "FOOTFALL_"), names), `"`, `"FOOTFALL_`, 1)))
			continue
		}
		if err := set(o.target, value); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", name, err))
			continue
		}
		c.from[o.key] = origin(name)
	}
	return errs
}

func (c *Config) readSettings(settings []setting, table []option) (errs []error) {
	for _, s := range settings {
		o, ok := find(table, s.key)
		switch {
		case !ok:
			errs = append(errs, fmt.Errorf("%s: unknown key %q%s", s.from, s.key, suggest(s.key, keys(table))))
		case o.secret:
			errs = append(errs, fmt.Errorf("%s: %s is a secret, and others can read a command line; set %s or %s_file",
				s.from, o.key, variable(o.key), o.key))
		default:
			if err := set(o.target, s.value); err != nil {
				errs = append(errs, fmt.Errorf("%s: %s: %w", s.from, s.key, err))
				continue
			}
			c.from[o.key] = s.from
		}
	}
	return errs
}

// readSecrets reads the *_file keys. Naming both a secret and its file is refused:
// one of them would be silently ignored.
func (c *Config) readSecrets() (errs []error) {
	for _, s := range []struct {
		key  string
		path string
		into *Secret
	}{
		{"kafka.sasl.password", c.Kafka.SASL.PasswordFile, &c.Kafka.SASL.Password},
		{"clickhouse.password", c.ClickHouse.PasswordFile, &c.ClickHouse.Password},
		{"http.token", c.HTTP.TokenFile, &c.HTTP.Token},
	} {
		if s.path == "" {
			continue
		}
		if *s.into != "" {
			errs = append(errs, fmt.Errorf("%s: %s_file and %s are both set; keep one",
				c.where(s.key+"_file"), s.key, variable(s.key)))
			continue
		}
		text, err := readSecret(s.path)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %s_file: %w", c.where(s.key+"_file"), s.key, err))
			continue
		}
		*s.into = Secret(strings.TrimRight(string(text), "\r\n"))
		if *s.into == "" {
			errs = append(errs, fmt.Errorf("%s: %s_file: %s is empty", c.where(s.key+"_file"), s.key, s.path))
		}
		c.from[s.key] = origin(s.path)
	}
	return errs
}

// secretMax is above every password and token.
const secretMax = 4 << 10

// readSecret reads a file that holds a secret, and no other that was named by mistake.
func readSecret(path string) (text []byte, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // it was only read
	if text, err = io.ReadAll(io.LimitReader(f, secretMax+1)); err != nil {
		return nil, err
	}
	if len(text) > secretMax {
		return nil, fmt.Errorf("%s has more than %d bytes; is it the secret's file?", path, secretMax)
	}
	return text, nil
}

// where tells where a key's value came from.
func (c *Config) where(key string) origin {
	if from, ok := c.from[key]; ok {
		return from
	}
	return "default"
}

// controlTopic is the topic of the kill switch.
func (c *Config) controlTopic() string {
	if c.Kafka.Topics.Control != "" {
		return c.Kafka.Topics.Control
	}
	return c.Kafka.Group + "-control"
}

// contract is what the shop configures of the event contract.
func (c *Config) contract() schemas.Contract {
	return schemas.Contract{Currency: c.Shop.Currency, Rates: c.Shop.Rates}
}

// clickhouseDSN is the whole address of ClickHouse, the password included: not for
// logs or errors.
func (c *Config) clickhouseDSN() string {
	u, err := url.Parse(c.ClickHouse.DSN)
	if err != nil {
		return c.ClickHouse.DSN // refused by check
	}
	u.Path = "/" + c.ClickHouse.Database
	if u.User == nil && c.ClickHouse.Username != "" {
		u.User = url.UserPassword(c.ClickHouse.Username, string(c.ClickHouse.Password))
	}
	return u.String()
}

// address is what others reach this instance's HTTP server by.
func (c *Config) address() string {
	if c.HTTP.Advertise != "" {
		return c.HTTP.Advertise
	}
	return c.HTTP.Listen
}

func find(table []option, key string) (option, bool) {
	for _, o := range table {
		if o.key == key {
			return o, true
		}
	}
	return option{}, false
}

func keys(table []option) []string {
	all := make([]string, len(table))
	for i, o := range table {
		all[i] = o.key
	}
	return all
}
