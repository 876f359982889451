package main

import (
	"fmt"
	"time"

	"footfall/pipeline/rehearsal"
	"footfall/pipeline/segment"
	"footfall/schemas"
)

// planAnswer is what other segment sets would change, as JSON. Of pairs, before comes
// first: as it is, and as it would be.
type planAnswer struct {
	Begins     Moment      `json:"begins"` // of the history
	Now        Moment      `json:"now"`    // its end
	Since      Moment      `json:"since"`  // from when on what is said is counted
	Events     int         `json:"events"`
	Refused    int         `json:"refused"`
	Users      int         `json:"users"`
	Moved      int         `json:"moved"` // users who would be elsewhere now, in sets that both have
	MovedShare float64     `json:"moved_share"`
	Money      string      `json:"moved_revenue"` // their revenue so far
	AllMoney   string      `json:"revenue"`       // everybody's
	Currency   string      `json:"currency"`
	Sets       []planSet   `json:"sets"`
	Triggers   [2]planRate `json:"triggers_an_hour"`
	Bytes      [2]int      `json:"bytes_a_user"` // lists and ids included
	Rules      [2]string   `json:"rules"`
	Notes      []string    `json:"notes"`
	Seconds    float64     `json:"seconds"`
}

type planRate struct {
	Total  int     `json:"total"`
	Mean   float64 `json:"mean"`
	Peak   int     `json:"peak"`
	PeakAt Moment  `json:"peak_at"`
}

type planSet struct {
	Set      string        `json:"set"`
	Before   bool          `json:"before"` // whether it is there
	After    bool          `json:"after"`
	Segments []planSegment `json:"segments"`
	Moves    []planMove    `json:"moves"`
	Moved    int           `json:"moved"`
	Money    string        `json:"moved_revenue"`
	Triggers [2]planRate   `json:"triggers_an_hour"`
}

type planSegment struct {
	Segment string    `json:"segment"`
	Before  bool      `json:"before"`
	After   bool      `json:"after"`
	Users   [2]int    `json:"users"`
	Entries [2]int    `json:"entries"`
	Exits   [2]int    `json:"exits"`
	Days    []planDay `json:"days"`
}

type planDay struct {
	Day     string `json:"day"`
	Entries [2]int `json:"entries"`
	Exits   [2]int `json:"exits"`
}

type planMove struct {
	From   *string     `json:"from"` // null: none yet
	To     *string     `json:"to"`
	Users  int         `json:"users"`
	Money  string      `json:"revenue"`
	Sample []planMover `json:"sample"`
}

type planMover struct {
	User       string `json:"user"`
	Money      string `json:"revenue"`
	Was        string `json:"was"`          // the rule that holds now, with its values
	Because    string `json:"because"`      // the one that would hold
	NotAnyMore string `json:"not_any_more"` // why the segment from before would not
}

func newPlanAnswer(c *Config, p *rehearsal.Comparison, rules [2]*segment.Program) *planAnswer {
	money := func(minor int64) string { return schemas.FormatMinor(minor, c.Shop.Currency) }
	r := &planAnswer{
		Begins: Moment(p.Begins), Now: Moment(p.Now), Since: Moment(p.Since), Events: p.Records, Refused: p.Refused, Users: p.Users,
		Moved: p.Moved, MovedShare: share(p.Moved, p.Users), Money: money(p.Money), AllMoney: money(p.AllMoney), Currency: c.Shop.Currency,
		Triggers: planRates(p.Triggers), Notes: []string{}, Sets: []planSet{},
	}
	for i := range rules {
		r.Bytes[i], r.Rules[i] = p.Bytes[i].PerUser, fmt.Sprintf("%016x", rules[i].Hash())
	}
	for i := range p.Sets {
		r.Sets = append(r.Sets, newPlanSet(&p.Sets[i], money))
	}
	if p.Users == 0 {
		r.Notes = append(r.Notes, "no event counted")
	}
	return r
}

func newPlanSet(s *rehearsal.SetComparison, money func(int64) string) planSet {
	out := planSet{
		Set: s.Set, Before: s.There[0], After: s.There[1], Moved: s.Moved, Money: money(s.Money), Triggers: planRates(s.Triggers),
		Segments: []planSegment{}, Moves: []planMove{},
	}
	for _, seg := range s.Segments {
		ps := planSegment{
			Segment: seg.Segment, Before: seg.There[0], After: seg.There[1],
			Users: seg.Users, Entries: seg.Entries, Exits: seg.Exits, Days: []planDay{},
		}
		for _, d := range seg.Days {
			ps.Days = append(ps.Days, planDay{time.UnixMilli(int64(d.At)).UTC().Format("2006-01-02"), d.Entries, d.Exits})
		}
		out.Segments = append(out.Segments, ps)
	}
	name := func(s string) *string {
		if s == "" {
			return nil
		}
		return &s
	}
	for _, m := range s.Moves {
		pm := planMove{From: name(m.From), To: name(m.To), Users: m.Users, Money: money(m.Money), Sample: []planMover{}}
		for _, u := range m.Sample {
			pm.Sample = append(pm.Sample, planMover{u.User, money(u.Money), u.Was, u.Because, u.NotAnyMore})
		}
		out.Moves = append(out.Moves, pm)
	}
	return out
}

func planRates(r [2]rehearsal.Rate) (out [2]planRate) {
	for i := range r {
		out[i] = planRate{r[i].Total, r[i].Mean, r[i].Peak, Moment(r[i].PeakAt)}
	}
	return out
}

func share(n, of int) float64 { return float64(n) / float64(max(1, of)) }

// percent writes a share, with as many decimals as it needs not to be 0.
func percent(n, of int) string {
	p := 100 * share(n, of)
	switch {
	case n == 0:
		return "0%"
	case p < 0.1:
		return fmt.Sprintf("%.3f%%", p)
	case p < 10:
		return fmt.Sprintf("%.1f%%", p)
	}
	return fmt.Sprintf("%.0f%%", p)
}
