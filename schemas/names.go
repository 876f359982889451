package schemas

import "fmt"

// The words below are what other teams see, in JSON, in headers and in metrics.
// They never change; a new one may be added.

// String returns the event type's name in the contract.
func (k Kind) String() string {
	switch k {
	case View:
		return "view"
	case AddToCart:
		return "add_to_cart"
	case RemoveFromCart:
		return "remove_from_cart"
	case Purchase:
		return "purchase"
	case Refund:
		return "refund"
	case Search:
		return "search"
	case Kinds:
	}
	return fmt.Sprintf("Kind(%d)", uint8(k))
}

// ParseKind is the inverse of Kind.String.
func ParseKind(s string) (Kind, bool) { return parseName(s, Kinds) }

// String returns the value of the dlq_reason header.
func (r Refusal) String() string {
	switch r {
	case Accepted:
		return "accepted"
	case Tombstone:
		return "tombstone"
	case TooLarge:
		return "too_large"
	case InvalidUTF8:
		return "invalid_utf8"
	case Truncated:
		return "truncated"
	case NotJSON:
		return "not_json"
	case WrongType:
		return "wrong_type"
	case MissingField:
		return "missing_field"
	case EmptyField:
		return "empty_field"
	case IDTooLong:
		return "id_too_long"
	case UnknownType:
		return "unknown_type"
	case BadTime:
		return "bad_time"
	case Before1990:
		return "before_1990"
	case NegativeAmount:
		return "negative_amount"
	case TooManyDecimals:
		return "too_many_decimals"
	case UnknownCurrency:
		return "unknown_currency"
	case AmountOverflow:
		return "amount_overflow"
	case NoKey:
		return "no_key"
	case KeyMismatch:
		return "key_mismatch"
	case Future:
		return "future"
	case Refusals:
	}
	return fmt.Sprintf("Refusal(%d)", uint8(r))
}

// ParseRefusal is the inverse of Refusal.String.
func ParseRefusal(s string) (Refusal, bool) { return parseName(s, Refusals) }

// String returns the value of the lane header.
func (l Lane) String() string {
	switch l {
	case Live:
		return "live"
	case Backfill:
		return "backfill"
	case Replay:
		return "replay"
	}
	return fmt.Sprintf("Lane(%d)", uint8(l))
}

// ParseLane is the inverse of Lane.String.
func ParseLane(s string) (Lane, bool) { return parseName(s, Replay+1) }

// String returns the reason to mute; it is empty for NotMuted.
func (m Muted) String() string {
	switch m {
	case NotMuted:
		return ""
	case MutedRules:
		return "rules"
	case MutedBootstrap:
		return "bootstrap"
	case MutedBackfill:
		return "backfill"
	case MutedPaused:
		return "paused"
	case MutedStale:
		return "stale"
	case MutedReentry:
		return "reentry"
	case MutedCap:
		return "cap"
	}
	return fmt.Sprintf("Muted(%d)", uint8(m))
}

// ParseMuted is the inverse of Muted.String.
func ParseMuted(s string) (Muted, bool) { return parseName(s, MutedCap+1) }

// String returns the kind of a cause as a transition's JSON has it.
func (c CauseKind) String() string {
	switch c {
	case ByEvent:
		return "event"
	case ByTimer:
		return "timer"
	case ByRules:
		return "rules"
	case ByRecovery:
		return "recovery"
	case ByEpoch:
		return "threshold_epoch"
	}
	return fmt.Sprintf("CauseKind(%d)", uint8(c))
}

// ParseCauseKind is the inverse of CauseKind.String.
func ParseCauseKind(s string) (CauseKind, bool) { return parseName(s, ByEpoch+1) }

// String returns where a zone is known from as a transition's JSON has it; it is empty
// for NoZone.
func (z ZoneSource) String() string {
	switch z {
	case NoZone:
		return ""
	case ZoneEvent:
		return "event"
	case ZoneActivity:
		return "activity"
	case ZoneShop:
		return "shop"
	}
	return fmt.Sprintf("ZoneSource(%d)", uint8(z))
}

// ParseZoneSource is the inverse of ZoneSource.String.
func ParseZoneSource(s string) (ZoneSource, bool) { return parseName(s, ZoneShop+1) }

// parseName finds the value below end whose name is s. It is for the few names
// of a configuration or a header; the decoder has its own switch.
func parseName[T interface {
	~uint8
	fmt.Stringer
}](s string, end T) (T, bool) {
	for v := range end {
		if v.String() == s {
			return v, true
		}
	}
	return 0, false
}
