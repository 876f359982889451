package kafka

import (
	"fmt"
	"net"
	"strconv"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/zap"
)

// LocalConfig says how the broker in this process is started.
type LocalConfig struct {
	Addr    string // 127.0.0.1:port; empty or port 0: a free one
	DataDir string // where it keeps its log, synced with every write; empty: in memory
	Log     *zap.Logger
	Options []kfake.Opt // for what is not named here
}

// Local is a broker in this process, on a loopback port that any client can use:
// transactions, groups, offsets and, with a data directory, a log that survives the
// process. It writes the markers of a transaction at once and enforces few limits;
// what depends on either has to be tested on a real broker.
type Local struct{ cluster *kfake.Cluster }

// StartLocal starts a broker.
func StartLocal(conf LocalConfig) (*Local, error) {
	opts := []kfake.Opt{kfake.NumBrokers(1)}
	if conf.Addr != "" {
		host, port, err := net.SplitHostPort(conf.Addr)
		if err != nil {
			return nil, fmt.Errorf("kafka: local broker: address %q: %w; give 127.0.0.1:port", conf.Addr, err)
		}
		if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
			return nil, fmt.Errorf("kafka: local broker: address %q is not on loopback; it has no access control", conf.Addr)
		}
		n, err := strconv.ParseUint(port, 10, 16)
		if err != nil {
			return nil, fmt.Errorf("kafka: local broker: address %q: %w", conf.Addr, err)
		}
		if n > 0 {
			opts = append(opts, kfake.Ports(int(n)))
		}
	}
	if conf.DataDir != "" {
		opts = append(opts, kfake.DataDir(conf.DataDir), kfake.SyncWrites())
	}
	if conf.Log != nil {
		opts = append(opts, kfake.WithLogger(localLogger{conf.Log}))
	}
	cluster, err := kfake.NewCluster(append(opts, conf.Options...)...)
	if err != nil {
		return nil, fmt.Errorf("kafka: local broker: %w; is the port in use?", err)
	}
	cluster.ControlKey(int16(kmsg.Fetch), fetchWhole)
	return &Local{cluster}, nil
}

// wholeBytes is below what clients take in one answer, 100 MiB by default.
const wholeBytes = 64 << 20

// fetchWhole has an answer end at its partitions' limits. Where it ends amid a partition at
// its own limit, the broker (kfake of 2026-09-18) leaves out which transactions of that
// partition were aborted, and who reads what is committed takes them for committed.
func fetchWhole(req kmsg.Request) (kmsg.Response, error, bool) { //nolint:revive // as kfake calls it
	fetch := req.(*kmsg.FetchRequest)
	fetch.MaxBytes = max(fetch.MaxBytes, wholeBytes)
	return nil, nil, false
}

// Addr returns host:port.
func (l *Local) Addr() string { return l.cluster.ListenAddrs()[0] }

// Cluster gives tests what they need to break it.
func (l *Local) Cluster() *kfake.Cluster { return l.cluster }

// Close stops the broker; with a data directory it can be started again.
func (l *Local) Close() { l.cluster.Close() }

type localLogger struct{ zap *zap.Logger }

func (l localLogger) Logf(level kfake.LogLevel, msg string, args ...any) {
	switch level {
	case kfake.LogLevelError, kfake.LogLevelWarn:
		l.zap.Sugar().Warnf(msg, args...)
	case kfake.LogLevelNone, kfake.LogLevelInfo, kfake.LogLevelDebug:
	}
}
