package main

import (
	"encoding/json"
	"time"

	"footfall/schemas"
)

// What an instance answers on its HTTP port, besides /healthz, /readyz and /metrics:
//
//	GET /status                 StatusAnswer
//	GET /explain?user=USER      ExplainAnswer; 404 ErrorAnswer: never seen;
//	                            421 ErrorAnswer: the user's partition is not here
//	GET /forecast?partition=P&for=MS&row=R&users=N&set=SET
//	                            ForecastAnswer; 400 and 421 ErrorAnswer
//
// 503 with an ErrorAnswer: it could not be asked now. All want "Authorization: Bearer
// TOKEN" where http.token is set, and else answer loopback callers only: 401, or 403, with
// an ErrorAnswer. Fields may be added, and never change.

// Moment is a time in JSON: RFC 3339 with milliseconds, UTC; null for none.
type Moment schemas.Millis

// MarshalJSON writes RFC 3339; zero is null.
func (m Moment) MarshalJSON() ([]byte, error) {
	if m == 0 {
		return []byte("null"), nil
	}
	return json.Marshal(clock(schemas.Millis(m)))
}

// UnmarshalJSON reads what MarshalJSON writes.
func (m *Moment) UnmarshalJSON(b []byte) error {
	var s *string
	if err := json.Unmarshal(b, &s); err != nil {
		return err
	}
	*m = 0
	if s == nil {
		return nil
	}
	at, err := time.Parse(time.RFC3339Nano, *s)
	if err != nil {
		return err
	}
	*m = Moment(at.UnixMilli())
	return nil
}

// ErrorAnswer comes with every status other than 200.
type ErrorAnswer struct {
	Error string `json:"error"`
}

// StatusAnswer is one instance, now.
type StatusAnswer struct {
	Instance   string            `json:"instance"`
	Group      string            `json:"group"`
	Version    string            `json:"version"`
	Started    Moment            `json:"started"`
	Now        Moment            `json:"now"`
	State      string            `json:"state"` // starting, running or stopping
	Paused     bool              `json:"paused"`
	Rules      string            `json:"rules"` // hash, in hex
	Partitions []PartitionStatus `json:"partitions"`
	Archive    *ArchiveStatus    `json:"archive"` // null: not here
}

// PartitionStatus is one partition that the instance owns.
type PartitionStatus struct {
	Partition int32  `json:"partition"`
	State     string `json:"state"` // recovering or live
	Next      int64  `json:"next"`  // first input offset not yet applied
	End       int64  `json:"end"`   // of the input, last stable offset; -1: not known yet
	Clock     Moment `json:"clock"`
	Users     int64  `json:"users"`
	N         uint64 `json:"n"` // number of the last output

	Applied     int64            `json:"applied"` // since the instance has it
	Duplicates  int64            `json:"duplicates"`
	DeadLetters int64            `json:"dead_letters"`
	Transitions int64            `json:"transitions"`
	PerSecond   float64          `json:"events_per_second"` // over the last seconds
	Snapshot    *SnapshotStatus  `json:"snapshot"`          // the newest; null: none
	Segments    map[string]int64 `json:"segments"`          // of the lifecycle set; empty where there is none
	Sets        []SetStatus      `json:"sets"`              // of every set, in the order of the configuration
	Reviewing   bool             `json:"reviewing"`         // not everyone has been evaluated under the rules in force
	Reviewed    float64          `json:"reviewed"`          // share of users who have been, 0 to 1
	Filling     bool             `json:"filling"`           // the history of what they ask for is looked for
	Epoch       uint64           `json:"epoch"`             // of the bounds of quantiles; 0: none
}

// SetStatus is how many users are in each segment of a set, in the order of its rules.
type SetStatus struct {
	Set      string          `json:"set"`
	Segments []SegmentStatus `json:"segments"`
}

// SegmentStatus is how many users are in a segment.
type SegmentStatus struct {
	Segment string `json:"segment"`
	Users   int64  `json:"users"`
}

// SnapshotStatus is a published snapshot.
type SnapshotStatus struct {
	Next int64  `json:"next"` // first input offset it does not hold
	At   Moment `json:"at"`   // when it was begun, or last lacked nothing
}

// ArchiveStatus is the archive's way into ClickHouse.
type ArchiveStatus struct {
	Lag  int64  `json:"lag"`   // records read but not yet in ClickHouse, or not yet read
	Rows int64  `json:"rows"`  // sent since the instance began
	Last Moment `json:"last"`  // when the last batch was in; null: none
	Err  string `json:"error"` // what keeps it; empty: nothing

	Audit AuditStatus `json:"audit"`
}

// AuditStatus is what the archive has found by comparing ClickHouse with what it sent.
type AuditStatus struct {
	Spans   int64  `json:"spans"`   // compared
	Wrong   int64  `json:"wrong"`   // of them: those that differed
	Mended  int64  `json:"mended"`  // rows sent again
	Surplus int64  `json:"surplus"` // spans that have rows too many, as of the last look at each
	Oldest  Moment `json:"oldest"`  // since then every span was compared; null: not yet
}

// ExplainAnswer is why a user is in its segments, and until when.
type ExplainAnswer struct {
	User      string `json:"user"`
	Partition int32  `json:"partition"`
	Clock     Moment `json:"clock"` // of the partition: the time that "now" means here
	Next      int64  `json:"next"`  // first input offset that is not in it
	Rules     string `json:"rules"` // hash, in hex

	Orders        uint32           `json:"orders"`
	Revenue       string           `json:"revenue"` // decimal, net of refunds
	Currency      string           `json:"currency"`
	First         Moment           `json:"first"`
	Last          Moment           `json:"last"`
	FirstPurchase Moment           `json:"first_purchase"`
	LastPurchase  Moment           `json:"last_purchase"`
	Events        map[string]int64 `json:"events"` // by type

	Sets []ExplainSet `json:"sets"`

	// Found is where the events of clauses were found, and Note what is to be known of
	// them. Only footfall explain looks for events; an instance's answer has none.
	Found string `json:"found"` // clickhouse, log, or empty: nowhere
	Note  string `json:"note"`
}

// ExplainSet is a user's place in one segment set.
type ExplainSet struct {
	Set     string       `json:"set"`
	Segment string       `json:"segment"`
	Rule    string       `json:"rule"`  // the rule that holds, in words
	Not     []ExplainNot `json:"not"`   // the segments before it in the set, and what keeps the user out of each
	Since   Moment       `json:"since"` // null: said before this instance can tell
	Seq     uint32       `json:"seq"`
	Next    *ExplainNext `json:"next"` // null: silence changes nothing more

	Clauses []ExplainClause `json:"clauses"` // of the rule; none where the segment takes everybody who is left
	Would   []ExplainAct    `json:"would"`   // what the user could do now, and where it would lead
	Came    *ExplainCame    `json:"came"`    // how the user came here; null: not known (see Found)
}

// ExplainClause is one condition of a rule.
type ExplainClause struct {
	Clause string         `json:"clause"`
	Value  string         `json:"value"` // what it looks at, in words
	Holds  bool           `json:"holds"`
	Events []ExplainEvent `json:"events"` // behind it
}

// ExplainEvent is an event behind a clause.
type ExplainEvent struct {
	Of        string `json:"of"`     // what it answers, such as last("purchase")
	Count     int    `json:"count"`  // so many events answer it; this is the one that decides
	Text      string `json:"text"`   // where a text was asked for: what it is
	Newest    bool   `json:"newest"` // it is the newest of them
	Topic     string `json:"topic"`
	Partition int32  `json:"partition"`
	Offset    int64  `json:"offset"`
	EventID   string `json:"event_id"`
	Type      string `json:"type"`
	Time      Moment `json:"time"`
}

// ExplainAct is something that the user could do now. It would be an event of which
// nothing else is known.
type ExplainAct struct {
	Event   string `json:"event"`   // its type
	Amount  string `json:"amount"`  // the least that it has to come to, in the reporting currency; empty: anything
	Segment string `json:"segment"` // where it would lead
}

// ExplainCame is the transition that brought the user into its segment.
type ExplainCame struct {
	From      string `json:"from"` // empty: it was the first
	Cause     string `json:"cause"`
	Type      string `json:"type"` // of the event; empty for other causes, like the rest
	EventID   string `json:"event_id"`
	Topic     string `json:"topic"`
	Partition int32  `json:"partition"`
	Offset    int64  `json:"offset"`
	Clause    string `json:"clause"` // that flipped; empty: not known
	Was       string `json:"was"`
	Is        string `json:"is"`
}

// ExplainNot is a segment that the user is not in.
type ExplainNot struct {
	Segment string         `json:"segment"`
	Because string         `json:"because"`
	Clause  int            `json:"clause"` // which condition of the segment's rule
	Events  []ExplainEvent `json:"events"` // behind it
}

// ExplainNext is the next transition, if nothing else happens.
type ExplainNext struct {
	Segment string `json:"segment"`
	At      Moment `json:"at"`
}

// lag is how many offsets are not yet applied; -1: not known.
func (p PartitionStatus) lag() int64 {
	if p.End < 0 {
		return -1
	}
	return max(0, p.End-p.Next)
}

// ForecastAnswer is a page of what silence alone will do to a partition's users.
type ForecastAnswer struct {
	Partition int32             `json:"partition"`
	Clock     Moment            `json:"clock"` // from when on
	Next      int32             `json:"next"`  // row of the next page; -1: this is the last
	Moves     []ForecastedMoves `json:"moves"`
	Users     []ForecastedUser  `json:"users"` // at most as many as were asked for, the soonest of the page
}

// ForecastedMoves is how many users will move from one segment to another within an hour.
type ForecastedMoves struct {
	Set   string `json:"set"`
	From  string `json:"from"`
	To    string `json:"to"`
	Hour  Moment `json:"hour"`
	Users int64  `json:"users"`
}

// ForecastedUser is a user who will move.
type ForecastedUser struct {
	User string `json:"user"`
	Set  string `json:"set"`
	From string `json:"from"`
	To   string `json:"to"`
	At   Moment `json:"at"`
}
