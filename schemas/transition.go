package schemas

// NoSegment stands for "none yet": a user's first transition has it as From.
const NoSegment uint16 = 0xffff

// Retired stands for a set or a segment that the rules in force do not have; its name
// is beside it.
const Retired uint16 = 0xfffe

// SetNames are the names of one segment set and of its segments; a Transition's
// Set, From and To are indexes into a []SetNames.
type SetNames struct {
	Name     string
	Segments []string
}

// CauseKind says why a transition was said.
type CauseKind uint8

// The kinds of causes.
const (
	ByEvent    CauseKind = iota // an event of this user
	ByTimer                     // silence until Due
	ByRules                     // the rules changed
	ByRecovery                  // a recovery found what had not been said
	ByEpoch                     // the bounds of quantiles changed: others moved
)

// Cause is the record (ByEvent), or the due time of the silence (ByTimer).
type Cause struct {
	Kind  CauseKind
	Pos   Position // ByEvent
	Event Kind     // ByEvent
	ID    string   // ByEvent: the event's id
	Due   Millis   // ByTimer
	Epoch uint64   // ByEpoch: its number
}

// Muted is why a transition goes to the muted topic instead of the trigger topic.
type Muted uint8

// The reasons to mute, in the order in which they are looked at: the first that
// holds is given.
const (
	NotMuted       Muted = iota
	MutedRules           // a change of definition
	MutedBootstrap       // said while the history before the first start was read
	MutedBackfill        // the cause was published in lane backfill
	MutedPaused          // `footfall triggers pause`
	MutedStale           // At is older than max_age
	MutedReentry         // said before, and its set does not say it again yet
	MutedCap             // as many as may be said to the user have been said
)

// Facts is what the profile was when a transition was said.
type Facts struct {
	First, Last                 Millis // first and last event time
	FirstPurchase, LastPurchase Millis // 0 without purchase
	Orders                      uint32
	Revenue                     int64 // net of refunds, minor units of the reporting currency
}

// Expected is the next transition that silence alone would bring.
type Expected struct {
	To uint16 // NoSegment: none
	At Millis // Never: none
}

// Transition is one user moving within one segment set. It owns its memory.
// (User, Set, Seq) is its identity.
type Transition struct {
	User          string
	Set, From, To uint16
	Names         *RetiredNames // of those that are Retired; else nil
	Seq           uint32        // from 1, per user and set, over triggers and muted alike
	At            Millis
	Cause         Cause
	Muted         Muted
	Facts         Facts
	Segments      []uint16 // the user's segment in every set, after this transition
	Expected      Expected
	Evidence      Evidence
	Cart          uint64 // identity of the cart that it is about, where it is said once for each; else 0
	Contact       Contact
	Rules         uint64
}

// RetiredNames are the names that a transition has and the rules in force have not.
type RetiredNames struct{ Set, From, To string }

// Evidence is the clause of a rule that flipped, and what it looked at before and
// after. The zero value is none: a first transition has none, nor has a change of rules.
type Evidence struct {
	Clause  string
	Kind    ValueKind
	Was, Is int64
}

// ValueKind says what an evidence's numbers are.
type ValueKind uint8

// The kinds of values.
const (
	TruthValue  ValueKind = iota // 0 or 1
	NumberValue                  // a whole number
	MoneyValue                   // minor units of the reporting currency
	MomentValue                  // Unix milliseconds; 0: never
	SpanValue                    // milliseconds; Never: since what never happened
)

// DeadLetter is a record that was refused, with its reason. It owns its memory.
type DeadLetter struct {
	Pos     Position
	Time    Millis // record timestamp
	Reason  Refusal
	Detail  string
	Key     []byte // nil: the record had none
	Value   []byte // nil: a tombstone
	Headers []Header
}

// Mark is a cut: the state after every input before Next and none after, and all
// that was said up to number N. It is committed as the metadata of the offset
// Next, in the transaction that makes the outputs visible.
type Mark struct {
	Partition int32
	Next      int64  // first input offset not applied
	Clock     Millis // the partition's clock
	Fired     Millis // timers due up to here have been said; <= Clock
	N         uint64 // number of the last output
	Hash      uint64 // running hash of all outputs up to N
	Rules     uint64 // hash of the rules they were said under; 0: not everybody has been evaluated under them yet
	Since     Millis // with Rules 0: the moment at which they took over
	Epoch     uint64 // number of the quantiles' epoch, 0: none yet
	Bootstrap int64  // outputs caused before this input offset are muted
	Lane      Lane   // of the last record applied
	Paused    bool   // triggers were paused
	Address   string // of the instance that owns the partition

	// What the offset is one of; zero where it was not noted.
	Topic uint64 // hash of the input topic's id, which another topic of its name does not have
	Of    int32  // partitions the input topic had
}
