package pipeline

// Limits that tests count against.
const (
	InboxMax      = inboxMax
	ItemsAheadMax = itemsAheadMax
	TimersAhead   = timersAhead
)
