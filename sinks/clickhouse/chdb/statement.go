package chdb

import "strings"

// statement is what the HTTP interface must know of an SQL text before the engine
// sees it. Everything else is the engine's business.
type statement struct {
	verb   string // first keyword, upper case; "" for an empty text
	format string // of the FORMAT clause; "Values" for INSERT ... VALUES; "" if none

	// insert says that the statement takes data: head is the INSERT without its
	// FORMAT clause or VALUES, and the data begins at dataAt.
	insert bool
	head   string
	dataAt int

	several bool // a second statement follows a semicolon
	outfile bool // INTO OUTFILE
}

// parseStatement reads sql as far as it must: to the end, or to where the data of
// an INSERT begins. It knows quotes, comments and parentheses and no grammar; what
// it does not understand it leaves to the engine to refuse.
func parseStatement(sql string) statement {
	var (
		st   statement
		lex  = lexer{text: sql}
		prev token
		// named: the INSERT has named its table, so that a table called "values" or
		// "format" is not taken for the keyword. selects: its rows come from a query.
		named, selects bool
	)
	for tok := lex.next(); tok.kind != tokenEnd; prev, tok = tok, lex.next() {
		if st.verb == "" && tok.kind == tokenWord {
			st.verb = strings.ToUpper(tok.text)
		}
		if prev.kind == tokenSemicolon {
			st.several = true
			return st
		}
		if tok.depth > 0 || tok.kind != tokenWord {
			if tok.kind == tokenQuoted {
				named = true
			}
			continue
		}
		word := strings.ToUpper(tok.text)
		if st.verb == "INSERT" && !selects {
			switch {
			case word == "INSERT" || word == "INTO" || word == "TABLE" || word == "FUNCTION":
			case !named || prev.text == ".":
				named = true
			case word == "SELECT" || word == "WITH":
				selects = true
			case word == "VALUES":
				st.insert, st.format = true, "Values"
				st.head, st.dataAt = sql[:tok.at], lex.at
				return st
			case word == "FORMAT":
				if f := lex.next(); f.kind == tokenWord {
					st.insert, st.format = true, f.text
					st.head, st.dataAt = sql[:tok.at], afterFormat(sql, lex.at)
					return st
				}
			}
			continue
		}
		switch {
		case word == "OUTFILE" && strings.EqualFold(prev.text, "INTO"):
			st.outfile = true
		case prev.kind == tokenWord && strings.EqualFold(prev.text, "FORMAT"):
			st.format = tok.text
		case st.format != "" && word != "SETTINGS" && word != "FORMAT" && prev.text == st.format:
			st.format = "" // "format" was a name: the clause comes last
		}
	}
	return st
}

// afterFormat returns where the data begins after a FORMAT clause that ends at i:
// after the first line break if only blanks lie before it, else after the blanks.
func afterFormat(sql string, i int) int {
	for i < len(sql) && (sql[i] == ' ' || sql[i] == '\t' || sql[i] == '\f') {
		i++
	}
	if i < len(sql) && sql[i] == '\r' {
		i++
	}
	if i < len(sql) && sql[i] == '\n' {
		i++
	}
	return i
}

type tokenKind uint8

const (
	tokenEnd tokenKind = iota
	tokenWord
	tokenQuoted // a string or a quoted name
	tokenSemicolon
	tokenOther // one byte
)

type token struct {
	kind  tokenKind
	text  string // without quotes stripped
	at    int
	depth int // of parentheses around it
}

// lexer cuts SQL as ClickHouse's own does (src/Parsers/Lexer.cpp), roughly: words,
// quoted things, single bytes. An unfinished quote or comment reaches to the end.
type lexer struct {
	text  string
	at    int
	depth int
}

func (l *lexer) next() token {
	l.skip()
	start := l.at
	if start >= len(l.text) {
		return token{kind: tokenEnd, at: start, depth: l.depth}
	}
	cut := func(kind tokenKind) token {
		return token{kind: kind, text: l.text[start:l.at], at: start, depth: l.depth}
	}
	switch c := l.text[start]; {
	case isWord(c):
		for l.at < len(l.text) && isWord(l.text[l.at]) {
			l.at++
		}
		return cut(tokenWord)
	case c == '\'' || c == '"' || c == '`':
		l.quoted(c)
		return cut(tokenQuoted)
	case c == '$' && l.heredoc():
		return cut(tokenQuoted)
	case c == ';':
		l.at++
		if l.depth == 0 {
			return cut(tokenSemicolon)
		}
		return cut(tokenOther)
	case c == '(':
		l.at++
		tok := cut(tokenOther)
		l.depth++
		return tok
	case c == ')':
		l.at++
		l.depth = max(0, l.depth-1)
		return cut(tokenOther)
	default:
		l.at++
		return cut(tokenOther)
	}
}

// skip passes over white space and comments.
func (l *lexer) skip() {
	for l.at < len(l.text) {
		rest := l.text[l.at:]
		switch {
		case strings.ContainsRune(" \t\r\n\f\v\x00", rune(rest[0])):
			l.at++
		case strings.HasPrefix(rest, "--"), strings.HasPrefix(rest, "# "), strings.HasPrefix(rest, "#!"):
			l.to("\n")
		case strings.HasPrefix(rest, "/*"):
			l.at += 2
			l.to("*/")
		default:
			return
		}
	}
}

// to moves behind the next end, or to the end of the text.
func (l *lexer) to(end string) {
	if i := strings.Index(l.text[l.at:], end); i >= 0 {
		l.at += i + len(end)
	} else {
		l.at = len(l.text)
	}
}

// quoted moves behind a quoted thing. A doubled quote needs no care: it reads as
// two quoted things side by side, which is as good here.
func (l *lexer) quoted(quote byte) {
	for l.at++; l.at < len(l.text); l.at++ {
		switch l.text[l.at] {
		case '\\':
			l.at++
		case quote:
			l.at++
			return
		}
	}
	l.at = len(l.text)
}

// heredoc moves behind $tag$ ... $tag$, if one begins here.
func (l *lexer) heredoc() bool {
	end := l.at + 1
	for end < len(l.text) && isWord(l.text[end]) {
		end++
	}
	if end >= len(l.text) || l.text[end] != '$' {
		return false
	}
	tag := l.text[l.at : end+1]
	closing := strings.Index(l.text[end+1:], tag)
	if closing < 0 {
		return false
	}
	l.at = end + 1 + closing + len(tag)
	return true
}

func isWord(c byte) bool {
	return c == '_' || '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || c >= 0x80
}

// streams says that chunks of the format, written one after the other, are one
// document of it.
func streams(format string) bool {
	switch strings.ToLower(format) {
	case "native", "tabseparated", "tsv", "tabseparatedraw", "tsvraw", "csv", "rowbinary",
		"jsoneachrow", "jsonlines", "ndjson", "jsoncompacteachrow", "jsonstringseachrow", "tskv":
		return true
	}
	return false
}

// contentType is the Content-Type ClickHouse gives an answer in format.
func contentType(format string) string {
	switch f := strings.ToLower(format); {
	case strings.HasPrefix(f, "json") && (strings.Contains(f, "eachrow") || strings.Contains(f, "lines")) || f == "ndjson":
		return "application/x-ndjson; charset=UTF-8"
	case strings.HasPrefix(f, "json"):
		return "application/json; charset=UTF-8"
	case f == "csvwithnames" || f == "csvwithnamesandtypes":
		return "text/csv; charset=UTF-8; header=present"
	case f == "csv":
		return "text/csv; charset=UTF-8; header=absent"
	case strings.HasPrefix(f, "tabseparated") || strings.HasPrefix(f, "tsv") || f == "tskv":
		return "text/tab-separated-values; charset=UTF-8"
	case f == "native" || strings.HasPrefix(f, "rowbinary") || f == "parquet" || strings.HasPrefix(f, "arrow") ||
		f == "orc" || f == "avro" || f == "msgpack" || f == "protobuf" || f == "bsoneachrow" || f == "npy":
		return "application/octet-stream"
	case f == "xml":
		return "application/xml; charset=UTF-8"
	}
	return "text/plain; charset=UTF-8"
}
