// Package chdb is the real ClickHouse engine without a ClickHouse server: it gets
// libchdb, loads it without cgo, and serves ClickHouse's HTTP interface over it,
// so that clickhouse-go, curl and BI tools need not know the difference. It may
// speak HTTP and keep files in its cache and its directory; it may not know
// footfall's tables, topics or events, and nothing but this package may know that
// the engine is a library.
//
// The ways in:
//
//   - Fetch gets the library once, verified, into a cache.
//   - Serve is the engine behind an address, in this process (footfall clickhouse).
//   - StartLocal runs Serve in a helper process of the same program, which isolates
//     its memory and any abort, and can be killed; the program calls Helper first
//     thing in main, and tests call chdbtest.Main.
//
// # What it serves
//
// GET and POST on /, with query, body or both; default_format, database, query_id,
// settings as parameters, param_NAME for {NAME:Type}; compress and decompress
// (ClickHouse's own frames), Content-Encoding and Accept-Encoding; the
// X-ClickHouse-* headers both ways; errors with their code and HTTP status, in the
// middle of an answer too; /ping. A request that ends early cancels its statement.
// GET is read-only, as ClickHouse has it.
//
// # What it does not
//
// Sessions (session_id is ignored: SET and temporary tables last for one request),
// external tables (multipart), users beyond one, roles, quotas, several statements
// in one request, INTO OUTFILE, and query_id in system.processes: there it is the
// part of log_comment before the '#'.
//
// # Non-obvious
//
// clickhouse-go decodes Native by the revision of its handshake, while the library
// writes Native at revision 0 whatever client_protocol_version asks for. The answer
// to the handshake therefore says revision 0 (see hello), and all else passes
// through untouched.
//
// The library formats each chunk of a streamed result as a document of its own: a
// second CSV header, a second JSON object. So only formats whose documents add up
// when written one after the other are streamed; the others are made whole first.
package chdb
