package kafka

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/sasl"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"
	"go.uber.org/zap"

	"footfall/schemas"
)

// Config says which brokers, which group and which input topic, and how. Its zero
// durations and sizes are replaced by the defaults named beside them.
type Config struct {
	Brokers []string // host:port

	Group    string // consumer group; with Instance the prefix of the transactional ids
	Instance string // this process, stable over its restarts and different from every other's
	Topic    string // the input topic

	// InstanceID makes membership static: a restart within SessionTimeout finds its
	// partitions again without a rebalance. Empty is dynamic membership.
	InstanceID string

	Protocol Protocol // default Classic

	TLS         *TLS   // nil: plain text
	SASL        *SASL  // nil: no authentication
	Compression string // none, gzip, snappy, lz4 or zstd; default lz4

	SessionTimeout     time.Duration // default 10 s: how long a dead member keeps its partitions; with Consumer the broker's setting decides
	RebalanceTimeout   time.Duration // default 60 s
	RevokeLimit        time.Duration // default 20 s: how long a rebalance waits for Release
	TransactionTimeout time.Duration // default 10 s: how long a dead producer holds up readers
	TickInterval       time.Duration // default 1 s: how often ends are asked for
	HeartbeatInterval  time.Duration // default a fifth of SessionTimeout, at most 3 s; with Consumer the broker's setting decides

	Lane    schemas.Lane // of records without a lane header
	PollMax int          // most records a Poll gives; default 2,000

	// BatchMax is the most bytes that a batch of records may expand to; default 64 MiB,
	// twenty times what a producer's own limits let it write. A fetch may hold a batch of
	// each partition, so that without it a few packed megabytes would take all memory.
	BatchMax int

	// Now is the wall. Required.
	Now func() schemas.Millis

	Log *zap.Logger // nil: silent
	// Options are appended to every client's, for what is not named here.
	Options []kgo.Opt
}

// TLS says whom to trust and who we are. Files are PEM.
type TLS struct {
	CAFile            string // empty: the system's roots
	CertFile, KeyFile string // empty: no client certificate
	ServerName        string // empty: the broker's host name
}

// SASL says how to log in.
type SASL struct {
	Mechanism      string // PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512
	User, Password string
}

// Limits that are not configuration.
const (
	producers       = 3                      // transactional ids an instance rotates over; one more is for marks alone
	requestTimeout  = 10 * time.Second       // one request with its retries, save joining and syncing
	backoffMax      = 500 * time.Millisecond // kgo's default grows to 5 s
	fetchMaxBytes   = 4 << 20                // of one broker, compressed; four times as much was no faster
	fetchAllBytes   = 32 << 20               // of all brokers together, about
	fetchLeastBytes = 256 << 10              // of one of very many
	fetchPartition  = 1 << 20                // a larger batch comes alone
	fetchWait       = 250 * time.Millisecond // of the reader
	historyWait     = 25 * time.Millisecond  // of History, at first: its requests share a connection
	describeTimeout = 5 * time.Second
	startWait       = time.Minute // how long brokers that give no answer are asked, by a session that begins
)

// withDefaults returns the configuration made whole, or every error in it.
func (c Config) withDefaults() (Config, error) {
	var errs []error
	need := func(what, value string) {
		if value == "" {
			errs = append(errs, fmt.Errorf("kafka: %s is missing", what))
		}
	}
	if len(c.Brokers) == 0 {
		errs = append(errs, errors.New("kafka: brokers are missing; give at least one host:port"))
	}
	need("group", c.Group)
	need("instance", c.Instance)
	need("topic", c.Topic)
	if c.Now == nil {
		errs = append(errs, errors.New("kafka: Now is missing"))
	}
	for d, v := range map[*time.Duration]time.Duration{
		&c.SessionTimeout:     10 * time.Second,
		&c.RebalanceTimeout:   60 * time.Second,
		&c.RevokeLimit:        20 * time.Second,
		&c.TransactionTimeout: 10 * time.Second,
		&c.TickInterval:       time.Second,
	} {
		if *d == 0 {
			*d = v
		}
		if *d < 0 {
			errs = append(errs, fmt.Errorf("kafka: negative duration %v", *d))
		}
	}
	switch c.Protocol {
	case "":
		c.Protocol = Classic
	case Classic, Consumer:
	default:
		errs = append(errs, fmt.Errorf("kafka: unknown group protocol %q; use %s or %s", c.Protocol, Classic, Consumer))
	}
	if c.HeartbeatInterval == 0 {
		c.HeartbeatInterval = min(c.SessionTimeout/5, 3*time.Second)
	}
	if c.RevokeLimit >= c.RebalanceTimeout {
		errs = append(errs, fmt.Errorf("kafka: revoke limit %v must be below the rebalance timeout %v", c.RevokeLimit, c.RebalanceTimeout))
	}
	if c.PollMax == 0 {
		c.PollMax = 2_000
	}
	if c.Log == nil {
		c.Log = zap.NewNop()
	}
	return c, errors.Join(errs...)
}

// Options gives the client options that every client of footfall shares: brokers,
// TLS, SASL, log, bounded retries, read_committed. It asks of the configuration
// only what they need, so the archive and the commands use it too.
func Options(c Config) ([]kgo.Opt, error) {
	if len(c.Brokers) == 0 {
		return nil, errors.New("kafka: brokers are missing; give at least one host:port")
	}
	opts := []kgo.Opt{
		kgo.SeedBrokers(c.Brokers...),
		kgo.ClientID("footfall"),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.RetryBackoffFn(backoff),
		kgo.RetryTimeoutFn(func(key int16) time.Duration {
			switch kmsg.Key(key) {
			case kmsg.JoinGroup, kmsg.SyncGroup, kmsg.Heartbeat:
				return max(c.SessionTimeout, requestTimeout)
			default:
				return requestTimeout
			}
		}),
		kgo.MetadataMinAge(100 * time.Millisecond), // a moved leader is found soon, not after 5 s
		kgo.MetadataMaxAge(metadataAge),
		kgo.DialTimeout(5 * time.Second),
		kgo.DisableClientMetrics(),
		kgo.MaxDecompressBatchBytes(cmp.Or(c.BatchMax, batchMaxDefault)),
	}
	if c.Log != nil {
		opts = append(opts, kgo.WithLogger(logger{c.Log}))
	}
	if c.TLS != nil {
		conf, err := c.TLS.config()
		if err != nil {
			return nil, err
		}
		opts = append(opts, kgo.DialTLSConfig(conf))
	}
	if c.SASL != nil {
		mechanism, err := c.SASL.mechanism()
		if err != nil {
			return nil, err
		}
		opts = append(opts, kgo.SASL(mechanism))
	}
	return append(opts, c.Options...), nil
}

// metadataAge is how old what a client knows of the brokers gets at most. A member under
// the group protocol Consumer goes on to ask a coordinator that is gone, until the brokers
// are listed without it: heartbeats do not have kgo forget it (franz-go 1.22.3), and its own
// time would be five minutes.
const metadataAge = 5 * time.Second

// batchMaxDefault is what Config.BatchMax is if it is 0.
const batchMaxDefault = 64 << 20

// Unreadable words an error of a fetch so that it says what to do, where it is a batch
// that expands to more than BatchMax. Other errors stay as they are.
func Unreadable(err error) error {
	large, ok := errors.AsType[*kgo.ErrDecompressTooLarge](err)
	if !ok {
		return err
	}
	return fmt.Errorf("the batch of %s/%d from offset %d to %d expands to more than kafka.batch_max, far beyond what a storefront writes: find out who produced it; "+
		"nothing is skipped: to have its records refused one by one, start once with a greater kafka.batch_max and the memory for it (%w)",
		large.Topic, large.Partition, large.Offset, large.NextOffset-1, kgo.ErrMaxDecompress)
}

// backoff is 10 ms doubled with every try, up to backoffMax. The default of kgo
// starts at 250 ms, longer than we want to be silent after a leader has moved.
func backoff(tries int) time.Duration {
	return min(10*time.Millisecond<<min(tries, 10), backoffMax)
}

func (t *TLS) config() (*tls.Config, error) {
	conf := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: t.ServerName}
	if t.CAFile != "" {
		pem, err := os.ReadFile(t.CAFile)
		if err != nil {
			return nil, fmt.Errorf("kafka: tls: read CA: %w", err)
		}
		conf.RootCAs = x509.NewCertPool()
		if !conf.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("kafka: tls: %s has no certificate in PEM form", t.CAFile)
		}
	}
	if (t.CertFile == "") != (t.KeyFile == "") {
		return nil, errors.New("kafka: tls: a client certificate needs both its file and its key's file")
	}
	if t.CertFile != "" {
		if _, err := t.clientCertificate(nil); err != nil {
			return nil, err
		}
		conf.GetClientCertificate = t.clientCertificate
	}
	return conf, nil
}

// clientCertificate reads ours for every connection: it is renewed while we run, and clients
// live as long as we do.
func (t *TLS) clientCertificate(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
	pair, err := tls.LoadX509KeyPair(t.CertFile, t.KeyFile)
	if err != nil {
		return nil, fmt.Errorf("kafka: tls: client certificate: %w", err)
	}
	return &pair, nil
}

func (s *SASL) mechanism() (sasl.Mechanism, error) {
	if s.User == "" {
		return nil, errors.New("kafka: sasl: user is missing")
	}
	switch strings.ToUpper(s.Mechanism) {
	case "PLAIN":
		return plain.Auth{User: s.User, Pass: s.Password}.AsMechanism(), nil
	case "SCRAM-SHA-256":
		return scram.Auth{User: s.User, Pass: s.Password}.AsSha256Mechanism(), nil
	case "SCRAM-SHA-512":
		return scram.Auth{User: s.User, Pass: s.Password}.AsSha512Mechanism(), nil
	}
	return nil, fmt.Errorf("kafka: sasl: unknown mechanism %q; use PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512", s.Mechanism)
}

// compression has batches packed by what is named.
func compression(name string) (kgo.ProducerOpt, error) {
	var codec kgo.CompressionCodec
	switch name {
	case "", "lz4":
		return kgo.WithCompressor(newPacker()), nil
	case "none":
		codec = kgo.NoCompression()
	case "gzip":
		codec = kgo.GzipCompression()
	case "snappy":
		codec = kgo.SnappyCompression()
	case "zstd":
		codec = kgo.ZstdCompression()
	default:
		return nil, fmt.Errorf("kafka: unknown compression %q; use none, gzip, snappy, lz4 or zstd", name)
	}
	return kgo.ProducerBatchCompression(codec, kgo.NoCompression()), nil
}

// transactional returns a transactional id of the instance.
func (c *Config) transactional(name string) string {
	return c.Group + "/" + c.Instance + "/" + name
}

// logger gives kgo's log to zap, one level down: what kgo calls information (every
// transaction's begin and end) is our debugging.
type logger struct{ zap *zap.Logger }

func (l logger) Level() kgo.LogLevel {
	switch {
	case l.zap.Core().Enabled(zap.DebugLevel):
		return kgo.LogLevelInfo
	case l.zap.Core().Enabled(zap.WarnLevel):
		return kgo.LogLevelWarn
	case l.zap.Core().Enabled(zap.ErrorLevel):
		return kgo.LogLevelError
	}
	return kgo.LogLevelNone
}

func (l logger) Log(level kgo.LogLevel, msg string, keyvals ...any) {
	switch level {
	case kgo.LogLevelNone:
	case kgo.LogLevelError:
		l.zap.Sugar().Errorw(msg, keyvals...)
	case kgo.LogLevelWarn:
		l.zap.Sugar().Warnw(msg, keyvals...)
	case kgo.LogLevelInfo, kgo.LogLevelDebug:
		l.zap.Sugar().Debugw(msg, keyvals...)
	}
}

// reachable explains why no broker answers, or returns nil.
func reachable(ctx context.Context, cl *kgo.Client, brokers []string) error {
	err := cl.Ping(ctx)
	if err == nil {
		return nil
	}
	if _, ok := errors.AsType[*net.DNSError](err); ok {
		return fmt.Errorf("kafka: %s: %w; check the host name", strings.Join(brokers, ","), err)
	}
	return fmt.Errorf("kafka: no broker at %s answers: %w; check the address, TLS and SASL", strings.Join(brokers, ","), err)
}
