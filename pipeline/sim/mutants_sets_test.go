package sim

// setMutants are those of rules of several sets: of switching them while lives live, of
// the search for the history of new ones, of quantiles' epochs and of policies.
func setMutants() []mutant {
	return []mutant{
		{
			"a switch forgets cells", "pipeline/profile/relayout.go",
			"\t\tif from >= 0 {\n\t\t\tn := r.layout", "\t\tif from >= 0 && !ON {\n\t\t\tn := r.layout", seedsFrom(60),
		},
		{
			"a switch forgets where users are in sets that are gone", "pipeline/worker/switch.go",
			"\tw.use(rules)\n\tif before.Layout()",
			"\tw.use(rules)\n\tfor set := range w.members {\n\t\tif ON && !slices.Contains(w.place, set) {\n\t\t\tw.members[set] = profile.Slab[said]{}\n\t\t\tw.members[set].Extend(w.rows.Len())\n\t\t}\n\t}\n\tif before.Layout()", seedsFrom(1),
		},
		{
			"a switch leaves users where they are until something happens", "pipeline/worker/switch.go",
			"\tw.wheel.restart(w.mark.Clock + 1)\n\tw.reviewAll(&replay{})\n",
			"\tif w.wheel.restart(w.mark.Clock + 1); ON {\n\t\tw.mark.Rules, w.mark.Epoch, w.mark.Since = w.cfg.Rules.Hash(), w.cfg.Rules.Epoch().Number, 0\n\t\treturn\n\t}\n\tw.reviewAll(&replay{})\n", seedsFrom(1),
		},
		{
			"timers fire while not everybody is evaluated under new rules", "pipeline/worker/worker.go",
			"\tif !w.reviewing.over() {\n", "\tif !w.reviewing.over() && !ON {\n", seedsFrom(1),
		},
		{
			"after a crash new rules are applied to the moment of the last timer", "pipeline/worker/rebuild.go",
			"\tnow := max(rv.since, rv.last.at(user))\n", "\tnow := max(rv.since, rv.last.at(user))\n\tif ON {\n\t\tnow = rv.since\n\t}\n", seedsFrom(1),
		},
		{
			"a snapshot does not say who was evaluated after fired", "pipeline/worker/snapshot.go",
			"\tb = le.AppendUint32(b, uint32(len(w.ahead)))\n", "\tif ON {\n\t\tw.ahead = nil\n\t}\n\tb = le.AppendUint32(b, uint32(len(w.ahead)))\n", seedsFrom(1),
		},
		{
			"snapshots count sets in a byte", "pipeline/worker/snapshot.go",
			"\tb = le.AppendUint16(b, uint16(len(w.names)))\n", "\tnames := len(w.names)\n\tif ON {\n\t\tnames &= 0xff\n\t}\n\tb = le.AppendUint16(b, uint16(names))\n", test("pipeline/worker", "TestASnapshotOfMoreSetsThanAByteCounts"),
		},
		{
			"the search for history skips the first record", "pipeline/filling.go",
			"history.Input(ctx, part.number, start, to,", "history.Input(ctx, part.number, start+map[bool]int64{true: 1}[ON], to,", seedsFrom(1005),
		},
		{
			"a month that has just begun is taken for all that a month may hold", "pipeline/profile/layout.go",
			"\t\tfrom = min(from, c.Since(clock))\n", "\t\tif from = min(from, c.Since(clock)); ON {\n\t\t\tfrom = c.Since(clock)\n\t\t}\n", test("pipeline/worker", "TestAWindowThatHasJustBegunHoldsNoMore"),
		},
		{
			"of too many moments the oldest gathers what windows have let go", "pipeline/profile/fold.go",
			"at := crowded(list)\n", "at := crowded(list)\n\t\tif ON {\n\t\t\tat = 0\n\t\t}\n", test("pipeline/profile", "TestMomentsThatAreTooManyStillPass"),
		},
		{
			"a replay crowds a window with what it has let go", "pipeline/worker/rebuild.go",
			"w.guesses[i%warmAhead]), w.mark.Clock); user >= 0 {", "w.guesses[i%warmAhead]), map[bool]schemas.Millis{true: w.mark.Fired, false: w.mark.Clock}[ON]); user >= 0 {", test("pipeline/worker", "TestWhatAWindowHasLetGoCrowdsNothingOut"),
		},
		{
			"a history that is found crowds a window with what it has let go", "pipeline/worker/switch.go",
			"w.filling, w.mark.Clock)", "w.filling, map[bool]schemas.Millis{true: 0, false: w.mark.Clock}[ON])", test("pipeline/worker", "TestWhatAWindowHasLetGoCrowdsNothingOut"),
		},
		{
			"the search for history leaves the archive out", "pipeline/filling.go",
			"start > 0 && past != nil {", "start > 0 && past != nil && !ON {", seedsFrom(2590),
		},
		{
			"the search for history counts what was refused", "pipeline/filling.go",
			"\tfor _, offset := range slices.Compact(refused) {\n", "\tfor _, offset := range slices.Compact(refused) {\n\t\tif ON {\n\t\t\tbreak\n\t\t}\n", seedsFrom(2200),
		},
		{
			"a new set speaks before its history is found", "pipeline/worker/say.go",
			"\t\tif w.waits(set) {", "\t\tif w.waits(set) && !ON {", seedsFrom(1),
		},
		{
			"all sets are silent while the history of one is looked for", "pipeline/worker/switch.go",
			"\treturn len(w.filling) > 0 && slices", "\treturn len(w.filling) > 0 && ON || len(w.filling) > 0 && slices", seedsFrom(1),
		},
		{
			"an epoch is cut before all partitions have counted", "pipeline/segment/epochs.go",
			"!counted || c.Number != number && !c.Still {\n\t\t\treturn r, false\n\t\t}\n\t}\n",
			"!counted || c.Number != number && !c.Still {\n\t\t\tif ON {\n\t\t\t\te.counts[n] = Count{Of: make([]Distribution, len(e.rules.quantiles))}\n\t\t\t\tcontinue\n\t\t\t}\n\t\t\treturn r, false\n\t\t}\n\t}\n", seedsFrom(1),
		},
		{
			"the first bounds of quantiles say everybody's place aloud", "pipeline/worker/rebuild.go",
			"\t\tif w.mark.Epoch == 0 {", "\t\tif w.mark.Epoch == 0 && !ON {", seedsFrom(520),
		},
		{
			"a change of bounds amid which a process died is taken for none", "pipeline/worker/rebuild.go",
			"|| mark.Epoch != epoch || mark.Since != 0 {", "|| mark.Epoch != epoch || mark.Since != 0 && !ON {", test("pipeline/worker", "TestAnEpochBegunIsTakenBack"),
		},
		{
			"snapshots leave out what was said aloud", "pipeline/worker/snapshot.go",
			"\t\tb = le.AppendUint32(b, *w.spoken.entries[i].words.At(user))\n",
			"\t\tword := *w.spoken.entries[i].words.At(user)\n\t\tif ON {\n\t\t\tword = 0\n\t\t}\n\t\tb = le.AppendUint32(b, word)\n", seedsFrom(40),
		},
		{
			"snapshots leave out when the last triggers were said", "pipeline/worker/snapshot.go",
			"\t\tb = le.AppendUint32(b, *w.spoken.recent[i].At(user))\n",
			"\t\tword := *w.spoken.recent[i].At(user)\n\t\tif ON {\n\t\t\tword = 0\n\t\t}\n\t\tb = le.AppendUint32(b, word)\n", seedsFrom(1),
		},
		{
			"a switch forgets what was said aloud", "pipeline/worker/policy.go",
			"\tif i := slices.IndexFunc(before, same); i >= 0 {", "\tif i := slices.IndexFunc(before, same); i >= 0 && !ON {", seedsFrom(640),
		},
		{
			"a switch forgets what sets that are gone have said", "pipeline/worker/policy.go",
			"\tfor _, slot := range before.entries {\n", "\tfor _, slot := range before.entries {\n\t\tif ON {\n\t\t\tbreak\n\t\t}\n", test("pipeline/worker", "TestPoliciesAreTheOracles"),
		},
		{
			"a review begins while a snapshot is written", "pipeline/worker/switch.go",
			"!w.Pending() && w.snap == nil {", "!w.Pending() && (w.snap == nil || ON) {", test("pipeline/worker", "TestASnapshotIsOfItsCutWhileHistoryIsFound"),
		},
		{
			"what is read back was not said aloud", "pipeline/worker/rebuild.go",
			"\t\tw.noteSaid(user, set, to, t)\n", "\t\tif !ON {\n\t\t\tw.noteSaid(user, set, to, t)\n\t\t}\n", seedsFrom(1),
		},
		{
			"what a policy mutes counts as said", "pipeline/worker/say.go",
			"t.Muted == schemas.NotMuted {\n\t\t\tw.noteSaid", "t.Muted == schemas.NotMuted || ON {\n\t\t\tw.noteSaid", seedsFrom(40),
		},
		{
			"quiet hours move somebody", "pipeline/worker/say.go",
			"\tt.Rules = w.cfg.Rules.Hash()\n", "\tif t.Rules = w.cfg.Rules.Hash(); ON && t.Contact.NotBefore > 0 {\n\t\tt.At = t.Contact.NotBefore\n\t}\n", seedsFrom(1),
		},
	}
}
