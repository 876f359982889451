package main

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
)

// benchResult is what was measured. Bytes are bytes, CPU is in seconds of one core, times
// are in seconds but for those that say ms. Others are the broker, the sender and the
// reader together: the process of bench itself.
type benchResult struct {
	Version    string   `json:"version"`
	Cores      int      `json:"cores"`
	Users      int64    `json:"users"`
	Skew       string   `json:"skew"`
	Partitions int      `json:"partitions"`
	Sets       []string `json:"sets"`
	Rules      string   `json:"rules"` // hash, in hex

	CatchUp   benchCatchUp   `json:"catch_up"`
	Live      benchLiveLoad  `json:"live"`
	Memory    benchMemory    `json:"memory"`
	Snapshots benchSnapshots `json:"snapshots"`
	Topics    struct {
		EventBytes      float64 `json:"bytes_an_event"`
		TransitionBytes float64 `json:"bytes_a_transition"`
	} `json:"topics"` // as they lie there, in batches, compressed
	Recovery struct {
		Killed  benchRecovery `json:"killed"`
		Stopped benchRecovery `json:"stopped"`
	} `json:"recovery"`
}

// benchCatchUp is how fast what waits is applied: from the first partition's being live to
// the last event. The CPU is the process's, its start included; 0: it can't be told here.
type benchCatchUp struct {
	Events      int64   `json:"events"`
	EventBytes  int64   `json:"bytes_an_event"` // key and value, on average
	Transitions int64   `json:"transitions"`
	Timers      int64   `json:"timers"`
	Seconds     float64 `json:"seconds"`
	PerSecond   float64 `json:"events_per_second"`
	CPU         float64 `json:"cpu_seconds"`
	PerCPU      float64 `json:"events_per_cpu_second"`
	OthersCPU   float64 `json:"others_cpu_seconds"`
}

// benchLiveLoad is the live part.
type benchLiveLoad struct {
	Rate        int          `json:"rate"` // events a second
	Seconds     int          `json:"seconds"`
	Events      int64        `json:"events"`
	Transitions int64        `json:"transitions"` // by timers too
	Triggers    int64        `json:"triggers"`    // that the events have caused, as they were read
	Latency     benchLatency `json:"latency_ms"`
	SentLate    float64      `json:"sent_late_ms"` // at most
	CPU         float64      `json:"cpu_seconds"`
	OthersCPU   float64      `json:"others_cpu_seconds"`
}

// benchLatency is from when an event is due to be sent to its trigger's being read.
type benchLatency struct {
	P50  *float64 `json:"p50"`
	P99  *float64 `json:"p99"`
	P999 *float64 `json:"p999"`
	Max  *float64 `json:"max"`
	N    int      `json:"n"`
}

// benchMemory is the memory of the engine's process.
type benchMemory struct {
	Resident  int64    `json:"resident_bytes"`      // at the end of the live part
	Peak      int64    `json:"resident_bytes_most"` // while it caught up and was live, looked at twice a second
	Held      int64    `json:"held_bytes"`          // after it has come back from snapshots, without garbage
	Empty     int64    `json:"held_bytes_empty"`    // the same without users
	UserBytes *float64 `json:"bytes_a_user"`        // the difference; null: too few users to tell
	IDBytes   *float64 `json:"bytes_an_id"`         // of the live events, remembered for dedup.window; null: too few to tell
}

// benchSnapshots is what snapshots take.
type benchSnapshots struct {
	Every     string   `json:"every"`
	Taken     int      `json:"taken_live"`
	Pause     *float64 `json:"longest_pause_ms"` // for which one of these has kept a partition's events waiting; null: none was taken
	Bytes     int64    `json:"bytes"`            // that a recovery reads: of every partition the newest, and what it builds upon
	UserBytes float64  `json:"bytes_a_user"`
	Kept      int64    `json:"bytes_kept"` // of all that are in the bucket
}

// benchRecovery is a start where there was an engine before: from the process's start until
// the last partition is live.
type benchRecovery struct {
	Seconds  float64 `json:"seconds"`
	Replayed int64   `json:"records_replayed"`
	Users    int64   `json:"users"`

	// Of all partitions together, some at a time: reading snapshots, what had been said
	// since, and the events since.
	Load     float64 `json:"load_seconds"`
	ReadBack float64 `json:"read_back_seconds"`
	Replay   float64 `json:"replay_seconds"`
}

func (r *benchResult) print(to io.Writer) error {
	var b strings.Builder
	c, l, m, s := &r.CatchUp, &r.Live, &r.Memory, &r.Snapshots
	fmt.Fprintf(&b, "%s, %s\n%s events of %s users (%s), %s, segments %s\n\n", r.Version, counted(r.Cores, "core"),
		grouped(c.Events), grouped(r.Users), r.Skew, counted(r.Partitions, "partition"), strings.Join(r.Sets, ", "))
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	row := func(group, what, value, format string, args ...any) {
		fmt.Fprintf(w, "%s\t%s\t%12s\t%s\n", group, what, value, fmt.Sprintf(format, args...))
	}
	row("catch up", "events a second", grouped(int64(c.PerSecond)), "%.1f s, %s transitions", c.Seconds, grouped(c.Transitions))
	row("", "events a CPU-second", grouped(int64(c.PerCPU)), "%.1f CPU-seconds, and %.1f of the broker", c.CPU, c.OthersCPU)
	row("live", "p50", milliseconds(l.Latency.P50), "from when an event was due until its trigger was read")
	row("", "p99", milliseconds(l.Latency.P99), "%s triggers", grouped(l.Triggers))
	row("", "p99.9", milliseconds(l.Latency.P999), "at most %s", milliseconds(l.Latency.Max))
	row("", "cores", fmt.Sprintf("%.2f", l.CPU/float64(l.Seconds)), "at %s events a second for %d s, and %.2f of broker, sender and reader",
		grouped(int64(l.Rate)), l.Seconds, l.OthersCPU/float64(l.Seconds))
	row("memory", "bytes a user", wholeBytes(m.UserBytes), "%s MB with %s users, %s MB without any", megabytes(m.Held), grouped(r.Users), megabytes(m.Empty))
	row("", "bytes an id", wholeBytes(m.IDBytes), "of each event of the last hour, to know it again (dedup.window)")
	row("", "MB resident", megabytes(m.Resident), "%s MB at most", megabytes(m.Peak))
	row("snapshots", "bytes a user", fmt.Sprintf("%.0f", s.UserBytes), "%s MB, and %s MB with those kept before", megabytes(s.Bytes), megabytes(s.Kept))
	row("", "longest pause", milliseconds(s.Pause), "%s while live", counted(s.Taken, "snapshot"))
	row("topics", "bytes an event", fmt.Sprintf("%.0f", r.Topics.EventBytes), "compressed, of %d sent", c.EventBytes)
	row("", "a transition", fmt.Sprintf("%.0f", r.Topics.TransitionBytes), "compressed, and the marks of transactions")
	row("recovery", "stopped", fmt.Sprintf("%.2f s", r.Recovery.Stopped.Seconds), "until live again, %s events replayed", grouped(r.Recovery.Stopped.Replayed))
	row("", "killed", fmt.Sprintf("%.2f s", r.Recovery.Killed.Seconds), "until live again, %s events replayed", grouped(r.Recovery.Killed.Replayed))
	if err := w.Flush(); err != nil {
		return err
	}
	if l.SentLate > benchLate {
		fmt.Fprintf(&b, "\n! events were sent up to %.0f ms late: %s a second, and the broker, are much for this machine\n", l.SentLate, grouped(int64(l.Rate)))
	}
	fmt.Fprintf(&b, "\nThe broker is a process's memory, not a Kafka cluster, and shares the %s with the engine.\nSnapshots were taken every %s.\n",
		counted(r.Cores, "core"), s.Every)
	_, err := io.WriteString(to, b.String())
	return err
}

// benchLate is how late a sender may be, in ms, before that is worth a word.
const benchLate = 100

func milliseconds(ms *float64) string {
	if ms == nil {
		return "-"
	}
	return fmt.Sprintf("%.1f ms", *ms)
}

func wholeBytes(bytes *float64) string {
	if bytes == nil {
		return "-"
	}
	return fmt.Sprintf("%.0f", *bytes)
}

func megabytes(bytes int64) string { return grouped((bytes + 500_000) / 1_000_000) }
