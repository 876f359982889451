package naive

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/types"

	"footfall/pipeline/profile"
	"footfall/schemas"
)

// reading is one set of one user at one moment.
type reading struct {
	rules  *Rules
	events []schemas.Event
	now    schemas.Millis
	loc    *time.Location
	ast    *ast.AST          // of the rule under way
	scores map[int64]string  // of the rule
	in     map[string]string // the user's segments in the sets read so far
}

const never = schemas.Millis(0)

// A value is a bool, int64, float64 (money, in units), schemas.Millis (a moment),
// time.Duration or string.

func (o *reading) eval(e ast.Expr) any {
	switch e.Kind() {
	case ast.LiteralKind:
		switch v := e.AsLiteral().(type) {
		case types.Bool:
			return bool(v)
		case types.Int:
			return int64(v)
		case types.Double:
			return float64(v)
		case types.String:
			return string(v)
		}
	case ast.ListKind:
		var all []any
		for _, el := range e.AsList().Elements() {
			all = append(all, o.eval(el))
		}
		return all
	case ast.CallKind:
		return o.call(e)
	default:
	}
	panic(fmt.Sprintf("the naive reading does not know %v", e.Kind()))
}

func asNumber(v any) float64 {
	switch v := v.(type) {
	case int64:
		return float64(v)
	case float64:
		return v
	case schemas.Millis:
		return float64(v)
	case time.Duration:
		return float64(v.Milliseconds())
	}
	panic(fmt.Sprintf("%T is no number", v))
}

func equal(a, b any) bool {
	if s, ok := a.(string); ok {
		return s == b.(string)
	}
	if s, ok := a.(bool); ok {
		return s == b.(bool)
	}
	return math.Abs(asNumber(a)-asNumber(b)) < 1e-6
}

func (o *reading) call(e ast.Expr) any {
	c := e.AsCall()
	args := c.Args()
	switch name := c.FunctionName(); name {
	case "_&&_":
		return o.eval(args[0]).(bool) && o.eval(args[1]).(bool)
	case "_||_":
		return o.eval(args[0]).(bool) || o.eval(args[1]).(bool)
	case "!_":
		return !o.eval(args[0]).(bool)
	case "_?_:_":
		if o.eval(args[0]).(bool) {
			return o.eval(args[1])
		}
		return o.eval(args[2])
	case "_==_":
		return equal(o.eval(args[0]), o.eval(args[1]))
	case "_!=_":
		return !equal(o.eval(args[0]), o.eval(args[1]))
	case "_<_", "_<=_", "_>_", "_>=_":
		a, b := asNumber(o.eval(args[0])), asNumber(o.eval(args[1]))
		if math.Abs(a-b) < 1e-6 {
			return name == "_<=_" || name == "_>=_"
		}
		return (a < b) == (name[1] == '<')
	case "@in":
		return slices.ContainsFunc(o.eval(args[1]).([]any), func(v any) bool { return equal(o.eval(args[0]), v) })
	case "_+_", "_-_", "_*_", "_/_":
		if at, ok := o.eval(args[1]).(schemas.Millis); ok && name == "_-_" && args[0].Kind() == ast.CallKind && args[0].AsCall().FunctionName() == "now" {
			return o.since(at) // which is never negative
		}
		return arithmetic(name, o.eval(args[0]), o.eval(args[1]))
	case "-_":
		if v, ok := o.eval(args[0]).(float64); ok {
			return -v
		}
		return arithmetic("_-_", int64(0), o.eval(args[0]))
	case "days":
		return time.Duration(o.eval(args[0]).(int64)) * 24 * time.Hour
	case "hours":
		return time.Duration(o.eval(args[0]).(int64)) * time.Hour
	case "minutes":
		return time.Duration(o.eval(args[0]).(int64)) * time.Minute
	case "seconds":
		return time.Duration(o.eval(args[0]).(int64)) * time.Second
	case "timestamp":
		t, err := time.Parse(time.RFC3339, o.eval(args[0]).(string))
		if err != nil {
			panic(err)
		}
		return schemas.Millis(t.UnixMilli())
	case "now":
		return o.now
	case "since":
		return o.since(o.eval(args[0]).(schemas.Millis))
	case "anniversary":
		return o.anniversary(o.eval(args[0]).(schemas.Millis))
	case "birthday":
		return o.birthday()
	case "segment":
		return o.rules.segment(o.eval(args[0]).(string), o.events, o.now, o.in)
	case "score":
		return o.score(e)
	case "band":
		n := int64(0)
		for _, b := range o.eval(args[1]).([]any) {
			if asNumber(o.eval(args[0])) >= asNumber(b)-1e-6 {
				n++
			}
		}
		return n
	case "followed":
		return o.followed(args)
	case "open_carts", "cart_changed", "cart_items", "cart_value":
		return o.cart(name)
	default:
		return o.aggregate(name, args)
	}
}

const eternity = time.Duration(math.MaxInt64)

func (o *reading) since(at schemas.Millis) time.Duration {
	if at == never {
		return eternity
	}
	return max(0, time.Duration(o.now-at)*time.Millisecond)
}

func arithmetic(name string, a, b any) any {
	x, y := asNumber(a), asNumber(b)
	var v float64
	switch name {
	case "_+_":
		v = x + y
	case "_-_":
		v = x - y
	case "_*_":
		v = x * y
	default:
		if y != 0 {
			v = math.RoundToEven(x / y)
		}
	}
	switch a := a.(type) {
	case int64:
		return int64(v)
	case float64:
		return v
	case time.Duration:
		if at, ok := b.(schemas.Millis); ok {
			if at == never {
				return never
			}
			return schemas.Millis(v)
		}
		if a == eternity {
			return eternity // and two hours
		}
		return time.Duration(v) * time.Millisecond
	case schemas.Millis:
		if _, ok := b.(schemas.Millis); ok {
			return time.Duration(v) * time.Millisecond
		}
		if a == never {
			return never
		}
		return schemas.Millis(v)
	default:
		panic(fmt.Sprintf("%T + %T", a, b))
	}
}

func (o *reading) day(t schemas.Millis) (int, time.Month, int) {
	return time.UnixMilli(int64(t)).In(o.loc).Date()
}

func (o *reading) anniversary(of schemas.Millis) bool {
	if of == never {
		return false
	}
	y, m, d := o.day(of)
	ny, nm, nd := o.day(o.now)
	if ny <= y {
		return false
	}
	want := time.Date(ny, m, d, 12, 0, 0, 0, time.UTC)
	return want.Month() == nm && want.Day() == nd
}

// among tells whether a time lies in a window.
func (o *reading) among(at schemas.Millis, window ast.Expr) bool {
	if window == nil {
		return true
	}
	if c := window.AsCall(); window.Kind() == ast.CallKind && c.FunctionName() == "calendar" {
		back := int64(0)
		if len(c.Args()) == 2 {
			back = o.eval(c.Args()[1]).(int64)
		}
		unit := o.eval(c.Args()[0]).(string)
		got, now := o.periodOf(at, unit), o.periodOf(o.now, unit)
		return got == now-int(back) || back == 0 && got > now
	}
	return o.now-at < schemas.Millis(o.eval(window).(time.Duration).Milliseconds())
}

// periodOf numbers the periods of a calendar.
func (o *reading) periodOf(at schemas.Millis, unit string) int {
	y, m, d := o.day(at)
	days := int(time.Date(y, m, d, 0, 0, 0, 0, time.UTC).Unix() / 86400)
	switch unit {
	case "day":
		return days
	case "week":
		return (days + 3) / 7 // 1970-01-01 was a Thursday
	case "month":
		return 12*y + int(m)
	case "quarter":
		return 4*y + (int(m)-1)/3
	}
	return y
}

// pick gives the events that an aggregation asks for, by time.
func (o *reading) pick(kinds, filter, window ast.Expr) (picked []schemas.Event) {
	for _, ev := range o.events {
		if kinds != nil && !o.isKind(ev.Kind, kinds) || filter != nil && !o.test(&ev, filter) || !o.among(ev.At, window) {
			continue
		}
		picked = append(picked, ev)
	}
	slices.SortStableFunc(picked, func(a, b schemas.Event) int { return cmp.Compare(a.At, b.At) })
	return picked
}

func (o *reading) isKind(k schemas.Kind, kinds ast.Expr) bool {
	var names []any
	if v := o.eval(kinds); kinds.Kind() == ast.ListKind {
		names = v.([]any)
	} else {
		names = []any{v}
	}
	return slices.Contains(names, any("any")) || slices.Contains(names, any(k.String()))
}

// test is a condition on an event.
func (o *reading) test(ev *schemas.Event, e ast.Expr) bool {
	if e.Kind() == ast.ComprehensionKind {
		macro, _ := o.ast.SourceInfo().GetMacroCall(e.ID())
		condition := macro.AsCall().Args()[1].AsCall()
		found := false
		schemas.EachItem(ev.Items, func(it schemas.Item) {
			got := map[string][]byte{"product_id": it.ProductID, "category": it.Category, "brand": it.Brand}[condition.Args()[0].AsSelect().FieldName()]
			found = found || string(got) == o.eval(condition.Args()[1]).(string)
		})
		return found
	}
	c := e.AsCall()
	args := c.Args()
	switch name := c.FunctionName(); name {
	case "_&&_":
		return o.test(ev, args[0]) && o.test(ev, args[1])
	case "_||_":
		return o.test(ev, args[0]) || o.test(ev, args[1])
	case "!_":
		return !o.test(ev, args[0])
	case "startsWith":
		return strings.HasPrefix(o.field(ev, c.Target()).(string), o.eval(args[0]).(string))
	case "endsWith":
		return strings.HasSuffix(o.field(ev, c.Target()).(string), o.eval(args[0]).(string))
	case "contains":
		return strings.Contains(o.field(ev, c.Target()).(string), o.eval(args[0]).(string))
	case "@in":
		return slices.Contains(o.eval(args[1]).([]any), o.field(ev, args[0]))
	case "_==_":
		return equal(o.field(ev, args[0]), o.field(ev, args[1]))
	case "_!=_":
		return !equal(o.field(ev, args[0]), o.field(ev, args[1]))
	case "_<_", "_<=_", "_>_", "_>=_":
		a, b := asNumber(o.field(ev, args[0])), asNumber(o.field(ev, args[1]))
		if math.Abs(a-b) < 1e-6 {
			return name == "_<=_" || name == "_>=_"
		}
		return (a < b) == (name[1] == '<')
	}
	panic("the naive reading does not know the filter " + c.FunctionName())
}

func (o *reading) field(ev *schemas.Event, e ast.Expr) any {
	if e.Kind() != ast.SelectKind {
		return o.eval(e)
	}
	switch name := e.AsSelect().FieldName(); name {
	case "amount":
		return float64(ev.Amount) / 100
	case "quantity":
		return float64(ev.Quantity) / 1e6
	case "type":
		return ev.Kind.String()
	default:
		return string(map[string][]byte{
			"product_id": ev.ProductID, "category": ev.Category, "brand": ev.Brand, "channel": ev.Channel,
			"session_id": ev.SessionID, "cart_id": ev.CartID, "timezone": ev.Timezone,
		}[name])
	}
}

// split sorts an aggregation's arguments into kinds, value, filter and window.
func (o *reading) split(args []ast.Expr, value bool) (kinds, val, filter, window ast.Expr) {
	if len(args) == 0 {
		return
	}
	kinds, args = args[0], args[1:]
	if value {
		val, args = args[0], args[1:]
	}
	for _, a := range args {
		if isWindow(a) {
			window = a
		} else {
			filter = a
		}
	}
	return kinds, val, filter, window
}

func isWindow(e ast.Expr) bool {
	return e.Kind() == ast.CallKind && slices.Contains([]string{"days", "hours", "minutes", "seconds", "calendar"}, e.AsCall().FunctionName())
}

func (o *reading) aggregate(name string, args []ast.Expr) any {
	var window ast.Expr
	only := func(kinds ...schemas.Kind) []schemas.Event {
		if len(args) == 1 {
			window = args[0]
		}
		return slices.DeleteFunc(o.pick(nil, nil, window), func(ev schemas.Event) bool { return !slices.Contains(kinds, ev.Kind) })
	}
	total := func(events []schemas.Event) (sum float64) {
		for _, ev := range events {
			if ev.Kind == schemas.Refund {
				sum -= float64(ev.Amount)
			} else {
				sum += float64(ev.Amount)
			}
		}
		return sum
	}
	switch name {
	case "orders":
		return int64(len(only(schemas.Purchase)))
	case "revenue":
		return total(only(schemas.Purchase, schemas.Refund)) / 100
	case "spend":
		return total(only(schemas.Purchase)) / 100
	case "average_order":
		bought := only(schemas.Purchase)
		if len(bought) == 0 {
			return 0.0
		}
		return math.RoundToEven(total(bought)/float64(len(bought))) / 100
	case "largest_order":
		most := int64(0)
		for _, ev := range only(schemas.Purchase) {
			most = max(most, ev.Amount)
		}
		return float64(most) / 100
	case "sessions":
		all := map[string]bool{}
		if len(args) == 1 {
			window = args[0]
		}
		for _, ev := range o.pick(nil, nil, window) {
			all[string(ev.SessionID)] = true
		}
		delete(all, "")
		return int64(len(all))
	}
	kinds, value, filter, window := o.split(args, slices.Contains([]string{"sum", "distinct", "first_value", "last_value", "top"}, name))
	picked := o.pick(kinds, filter, window)
	switch name {
	case "count":
		return int64(len(picked))
	case "ever":
		return len(picked) > 0
	case "last":
		if len(picked) == 0 {
			return never
		}
		return picked[len(picked)-1].At
	case "first":
		if len(picked) == 0 {
			return never
		}
		return picked[0].At
	case "sum":
		sum := 0.0
		for _, ev := range picked {
			sum += float64(ev.Amount)
		}
		return sum / 100
	case "gap":
		picked = picked[max(0, len(picked)-9):]
		var gaps []time.Duration
		for i := 1; i < len(picked); i++ {
			gaps = append(gaps, time.Duration(picked[i].At-picked[i-1].At)*time.Millisecond)
		}
		if len(gaps) == 0 {
			return eternity / 2
		}
		slices.Sort(gaps)
		return gaps[(len(gaps)-1)/2]
	case "top_hour", "top_weekday":
		return o.topTime(name, picked)
	}
	return o.texts(name, picked, value)
}

func (o *reading) topTime(name string, picked []schemas.Event) int64 {
	counts := map[int64]int{}
	best := int64(-1)
	if name == "top_weekday" {
		best = 0
	}
	for _, ev := range picked {
		at := time.UnixMilli(int64(ev.At)).In(o.loc)
		key := int64(at.Hour())
		if name == "top_weekday" {
			key = int64(at.Weekday())
			if key == 0 {
				key = 7
			}
		}
		counts[key]++
	}
	most := 0
	for key := range int64(24) {
		if counts[key] > most {
			best, most = key, counts[key]
		}
	}
	return best
}

// texts answers what is about texts. Of equals the smaller hash wins, as a signed number for counts.
func (o *reading) texts(name string, picked []schemas.Event, value ast.Expr) any {
	counts := map[string]int{}
	best := ""
	smaller := func(a, b string) bool { return profile.HashText([]byte(a)) < profile.HashText([]byte(b)) }
	var bestAt schemas.Millis
	for i := range picked {
		s := o.field(&picked[i], value).(string)
		if s == "" {
			continue
		}
		counts[s]++
		at := picked[i].At
		switch {
		case best == "", name == "first_value" && at < bestAt, name == "last_value" && at > bestAt, at == bestAt && smaller(s, best):
			best, bestAt = s, at
		}
	}
	switch name {
	case "distinct":
		return int64(len(counts))
	case "top":
		top := ""
		for s, n := range counts {
			if n > counts[top] || n == counts[top] && int64(profile.HashText([]byte(s))) < int64(profile.HashText([]byte(top))) {
				top = s
			}
		}
		return top
	}
	return best
}

func (o *reading) followed(args []ast.Expr) bool {
	half := (len(args) - 2) / 2
	side := func(i int) []schemas.Event {
		kinds, _, filter, _ := o.split(args[i*half:(i+1)*half], false)
		return o.pick(kinds, filter, nil)
	}
	within := schemas.Millis(o.eval(args[2*half]).(time.Duration).Milliseconds())
	for _, b := range side(1) {
		if !o.among(b.At, args[2*half+1]) {
			continue
		}
		for _, a := range side(0) {
			if a.At < b.At && b.At-a.At <= within {
				return true
			}
		}
	}
	return false
}

// birthday looks for the newest event whose birthday Go's calendar has.
func (o *reading) birthday() bool {
	var last time.Time
	var at schemas.Millis
	for _, ev := range o.events {
		text := string(ev.Birthday)
		if rest, ok := strings.CutPrefix(text, "--"); ok {
			text = "2000-" + rest
		}
		day, err := time.Parse("2006-01-02", text)
		if err != nil {
			continue
		}
		hash := func(t time.Time) uint64 { return profile.HashText([]byte(t.Format("01-02"))) }
		if last.IsZero() || ev.At > at || ev.At == at && hash(day) < hash(last) {
			last, at = day, ev.At
		}
	}
	if last.IsZero() {
		return false
	}
	y, m, d := o.day(o.now)
	want := time.Date(y, last.Month(), last.Day(), 12, 0, 0, 0, time.UTC)
	return want.Month() == m && want.Day() == d
}
