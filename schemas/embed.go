package schemas

import "embed"

// Contracts are the pages for other teams: event.schema.json,
// transition.schema.json and deadletter.schema.json (JSON Schema 2020-12),
// asyncapi.yaml (AsyncAPI 3.0, every topic) and EVENTS.md.
//
//go:embed event.schema.json transition.schema.json deadletter.schema.json asyncapi.yaml EVENTS.md
var Contracts embed.FS
