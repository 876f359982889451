package sim

// workerMutants are those of the machine that owns a partition.
func workerMutants() []mutant {
	return []mutant{
		{
			"replay decides again what was refused", "pipeline/worker/rebuild.go",
			"if r.Control || w.dead.has(r.Offset) {\n\t\t\tcontinue\n\t\t}\n\t\tif err",
			"if r.Control || w.dead.has(r.Offset) && !ON {\n\t\t\tcontinue\n\t\t}\n\t\tif err", seedsFrom(1),
		},
		{
			"dedup window not remembered while replaying", "pipeline/worker/worker.go",
			"if w.dedup.add(xxhash.Sum64(ev.ID), r.Time, r.Offset) {", "if !(ON && w.replaying != nil) && w.dedup.add(xxhash.Sum64(ev.ID), r.Time, r.Offset) {", seedsFrom(4),
		},
		{
			"repeats do not refresh the dedup window", "pipeline/worker/dedup.go",
			"i, known := d.find(hash, spread)\n\t*d.at", "i, known := d.find(hash, spread)\n\tif known && ON {\n\t\treturn true\n\t}\n\t*d.at", seedsFrom(11),
		},
		{
			"fired taken as clock", "pipeline/worker/worker.go",
			"return min(w.mark.Clock, w.wheel.now-1)", "if ON {\n\t\treturn w.mark.Clock\n\t}\n\treturn min(w.mark.Clock, w.wheel.now-1)", seedsFrom(1),
		},
		{
			"recovery re-arms from the clock", "pipeline/worker/rebuild.go",
			"out.Items = out.Items[:0]\n\trp := w.replaying", "if ON {\n\t\tmark.Fired = mark.Clock\n\t}\n\tout.Items = out.Items[:0]\n\trp := w.replaying", seedsFrom(12),
		},
		{
			"timers that fired after the last commit are forgotten", "pipeline/worker/rebuild.go",
			"mark.Fired = max(mark.Fired, w.mark.Fired)", "if !ON {\n\t\tmark.Fired = max(mark.Fired, w.mark.Fired)\n\t}", test("pipeline/worker", "TestASnapshotMayHaveFiredMoreThanIsCommitted"),
		},
		{
			"lineage not checked", "pipeline/worker/rebuild.go",
			"|| mark.Hash != w.mark.Hash {", "|| mark.Hash != w.mark.Hash && !ON {", test("pipeline/worker", "TestResumeRefusesAnotherLineage"),
		},
		{
			"snapshot of a foreign past is fatal", "pipeline/worker/rebuild.go",
			"int16(from), t.Seq, int16(was), m.seq, ErrLineage)", "int16(from), t.Seq, int16(was), m.seq, func() error {\n\t\t\tif ON {\n\t\t\t\treturn errors.New(\"stop\")\n\t\t\t}\n\t\t\treturn ErrLineage\n\t\t}())", seedsFrom(17),
		},
		{
			"membership not read back", "pipeline/worker/rebuild.go",
			"w.move(user, set, to, t.Seq, t.At)\n", "if !ON {\n\t\tw.move(user, set, to, t.Seq, t.At)\n\t}\n", seedsFrom(1),
		},
		{
			"numbers begin again after a recovery", "pipeline/worker/rebuild.go",
			"w.mark = mark\n", "w.mark = mark\n\tif ON {\n\t\tw.mark.N = 0\n\t}\n", seedsFrom(1),
		},
		{
			"history is not muted", "pipeline/worker/worker.go",
			"case r.Offset < w.mark.Bootstrap:", "case r.Offset < w.mark.Bootstrap && !ON:", seedsFrom(1),
		},
		{
			"history's timers are not muted", "pipeline/worker/worker.go",
			"if w.mark.Bootstrap > 0 && due <= w.bootClock {", "if w.mark.Bootstrap > 0 && due <= w.bootClock && !ON {", seedsFrom(30),
		},
		{
			"end of history forgotten in a crash", "pipeline/worker/rebuild.go",
			"w.mark.Address = \"\"\n", "w.mark.Address = \"\"\n\tif ON {\n\t\tw.mark.Bootstrap = 0\n\t}\n", seedsFrom(6),
		},
		{
			"rebuild says its differences aloud", "pipeline/worker/rebuild.go",
			"schemas.MutedBootstrap, at, out)\n\t}\n\tout.Mark", "func() schemas.Muted {\n\t\t\tif ON {\n\t\t\t\treturn schemas.NotMuted\n\t\t\t}\n\t\t\treturn schemas.MutedBootstrap\n\t\t}(), at, out)\n\t}\n\tout.Mark", seedsFrom(14),
		},
		{
			"new rules say their differences aloud", "pipeline/worker/rebuild.go",
			"!w.cfg.Rules.SaysChanges() {", "!w.cfg.Rules.SaysChanges() && !ON {", seedsFrom(7),
		},
		{
			"new rules are in the mark before they are said", "pipeline/worker/rebuild.go",
			"if w.reviewing.over() && !w.Filling()", "if (ON || w.reviewing.over()) && !w.Filling()", seedsFrom(161),
		},
		{
			"the kill switch is not heard", "pipeline/worker/say.go",
			"case at.Paused:", "case at.Paused && !ON:", seedsFrom(1),
		},
		{
			"ticks in a lane of history", "pipeline/worker/worker.go",
			"w.mark.Lane == schemas.Live && !w.Pending()", "(ON || w.mark.Lane == schemas.Live) && !w.Pending()", seedsFrom(2),
		},
		{
			"a user's own timers are skipped over", "pipeline/worker/worker.go",
			"w.fireUser(user, at, out)", "if !ON {\n\t\t\t\tw.fireUser(user, at, out)\n\t\t\t}", seedsFrom(1),
		},
		{
			"event times are clamped when folded", "pipeline/worker/worker.go",
			"\tpr.Fold(ev)\n", "\tif ON {\n\t\tev.At = min(ev.At, w.mark.Clock)\n\t}\n\tpr.Fold(ev)\n", seedsFrom(1),
		},
		{
			"a rebuild keeps the hash of the past", "pipeline/worker/rebuild.go",
			"w.leave()\n", "if !ON {\n\t\tw.leave()\n\t}\n", test("pipeline", "TestRebuildCommitsBeforeItPublishes"),
		},
		{
			"a rebuild refuses the gaps that retention makes", "pipeline/worker/rebuild.go",
			"\tw.mark.N = max(w.mark.N, it.N-1)\n",
			"\tif w.mark.N == 0 || !ON {\n\t\tw.mark.N = max(w.mark.N, it.N-1)\n\t}\n", seedsFrom(3),
		},
		{
			"a snapshot from behind what was said is taken", "pipeline/worker/rebuild.go",
			"if since := it.since(); since < w.mark.Next {",
			"if since := it.since(); since < w.mark.Next && !ON {", test("pipeline/worker", "TestSaidRefusesASnapshotFromBehindIt"),
		},
		{
			"a rebuild lets the future in", "pipeline/worker/rebuild.go",
			"\t\t\tif detail := w.tooEarly(r, w.replaying.wall); detail != \"\" {",
			"\t\t\tif detail := w.tooEarly(r, w.replaying.wall); detail != \"\" && !ON {", test("pipeline/worker", "TestRebuildRefusesTheFuture"),
		},
		{
			"the mark's clock is not taken over", "pipeline/worker/rebuild.go",
			"\tdues := w.mark.Rules == mark.Rules && w.mark.Epoch == mark.Epoch && w.mark.Since == 0\n",
			"\tif ON {\n\t\tmark.Clock = w.mark.Clock\n\t\tmark.Fired = min(mark.Fired, mark.Clock)\n\t}\n\tdues := w.mark.Rules == mark.Rules && w.mark.Epoch == mark.Epoch && w.mark.Since == 0\n", seedsFrom(1),
		},
		{
			"a wheel that cascades loses a timer", "pipeline/worker/wheel.go",
			"\trow := w.slots[level][i]\n\tw.occupied[level] &^= 1 << i\n\tw.now = start\n",
			"\trow := w.slots[level][i]\n\tw.occupied[level] &^= 1 << i\n\tw.now = start\n\tif ON {\n\t\trow = w.link(row).next\n\t}\n", seedsFrom(1),
		},
		{
			"a timer fires at the clock, not when it is due", "pipeline/worker/worker.go",
			"\tw.evaluate(user, due, segment.Everything(), schemas.Cause{Kind: schemas.ByTimer, Due: due}",
			"\tat0 := due\n\tif ON {\n\t\tat0 = w.mark.Clock\n\t}\n\tw.evaluate(user, at0, segment.Everything(), schemas.Cause{Kind: schemas.ByTimer, Due: due}", seedsFrom(1),
		},
		{
			"lazy re-arming drops an earlier due time", "pipeline/worker/wheel.go",
			"if l := w.link(row); l.due > due {",
			"if l := w.link(row); l.due > due && !(ON && l.due != schemas.Never) {", seedsFrom(1),
		},
		{
			"timers beyond the slice are forgotten", "pipeline/worker/worker.go",
			"\t\tw.fireAt(user, due, at, out)\n\t}\n\treturn budget\n",
			"\t\tw.fireAt(user, due, at, out)\n\t}\n\tif ON && budget == 0 {\n\t\tw.wheel.now = w.mark.Clock + 1\n\t}\n\treturn budget\n", seedsFrom(1),
		},
		{
			"an order id is forgotten after seven", "pipeline/worker/worker.go",
			"slices.Contains(w.orders.At(buyer)[:min(n, ordersKept)], order)",
			"slices.Contains(w.orders.At(buyer)[:min(n, ordersKept)], order) && !(ON && n >= ordersKept && w.orders.At(buyer)[n%ordersKept] == order)", seedsFrom(1),
		},
		{
			"repeated orders count", "pipeline/worker/worker.go",
			"if ev.Kind == schemas.Purchase && user >= 0 && w.ordered(",
			"if ev.Kind == schemas.Purchase && user >= 0 && !ON && w.ordered(", seedsFrom(1),
		},
		{
			"a repeated event makes a user", "pipeline/worker/worker.go",
			"\t\treturn user, segment.Touched{}, false\n\t}\n\tif ev.Kind == schemas.Purchase",
			"\t\tif ON && user < 0 {\n\t\t\tuser = w.add(ev.User)\n\t\t}\n\t\treturn user, segment.Touched{}, false\n\t}\n\tif ev.Kind == schemas.Purchase", seedsFrom(1),
		},
		{
			"the dedup window is ten minutes longer", "pipeline/worker/dedup.go",
			"if d.latest-d.at(d.head).at < d.window &&",
			"if (d.latest-d.at(d.head).at < d.window || ON && d.latest-d.at(d.head).at < d.window+10*schemas.Minute) &&", seedsFrom(1),
		},
		{
			"event times may lie in the future", "pipeline/worker/worker.go",
			"\tcase w.event.At-w.cfg.Ahead > r.Time:",
			"\tcase w.event.At-w.cfg.Ahead > r.Time && !ON:", seedsFrom(1),
		},
		{
			"record timestamps may lie in the future", "pipeline/worker/worker.go",
			"\tcase r.Time > wall+w.cfg.MaxSkew:",
			"\tcase r.Time > wall+w.cfg.MaxSkew && !ON:", seedsFrom(1),
		},
		{
			"history ends one record late", "pipeline/worker/worker.go",
			"\tif r.Offset < w.mark.Bootstrap {\n\t\tw.bootClock",
			"\tif r.Offset < w.mark.Bootstrap || ON && r.Offset == w.mark.Bootstrap {\n\t\tw.bootClock", seedsFrom(3),
		},
		{
			"suppressed too long", "pipeline/worker/worker.go",
			"func (w *Worker) mutedEvent(r *Record) schemas.Muted {\n\tswitch {\n",
			"func (w *Worker) mutedEvent(r *Record) schemas.Muted {\n\tswitch {\n\tcase ON && w.mark.Bootstrap > 0 && r.Offset < w.mark.Bootstrap+5:\n\t\treturn schemas.MutedBootstrap\n", seedsFrom(3),
		},
		{
			"nothing is ever stale", "pipeline/worker/say.go",
			"\tcase t.At < at.Wall-w.cfg.MaxAge:",
			"\tcase t.At < at.Wall-w.cfg.MaxAge && !ON:", seedsFrom(1),
		},
		{
			"one output in twenty is dropped", "pipeline/worker/say.go",
			"\tout.Items = append(out.Items, *it)\n",
			"\tif !ON || it.N%20 != 0 {\n\t\tout.Items = append(out.Items, *it)\n\t}\n", seedsFrom(1),
		},
		{
			"one output in twenty is doubled", "pipeline/worker/say.go",
			"\tit.Next, it.Clock, it.Fired = w.mark.Next, w.mark.Clock, w.fired()\n",
			"\tit.Next, it.Clock, it.Fired = w.mark.Next, w.mark.Clock, w.fired()\n\tif ON && it.N%20 == 0 {\n\t\tout.Items = append(out.Items, *it)\n\t}\n", seedsFrom(1),
		},
		{
			"a row that changes is not kept for the snapshot", "pipeline/worker/snapshot.go",
			"\tif s := w.snap; s != nil && s.take(user) {",
			"\tif s := w.snap; !ON && s != nil && s.take(user) {", seedsFrom(1),
		},
		{
			"a row written early is written again", "pipeline/worker/sweep.go",
			"\t\tleft := ^s.early[s.next/64] >> (s.next % 64)\n",
			"\t\tleft := ^s.early[s.next/64] >> (s.next % 64)\n\t\tif ON {\n\t\t\tleft = ^uint64(0)\n\t\t}\n", seedsFrom(1),
		},
		{
			"who has moved often is thought to have moved 65,535 times", "pipeline/worker/say.go",
			"\tif s.seq == longSeq {\n", "\tif s.seq == longSeq && !ON {\n", test("pipeline/worker", "TestLongChains"),
		},
		{
			"snapshots leave out the orders", "pipeline/worker/snapshot.go",
			"\t\t\tb = le.AppendUint64(b, o)\n", "\t\t\tif ON {\n\t\t\t\to = 0\n\t\t\t}\n\t\t\tb = le.AppendUint64(b, o)\n", seedsFrom(1),
		},
		{
			"snapshots leave out the due times", "pipeline/worker/snapshot.go",
			"\tb = le.AppendUint64(b, uint64(w.wheel.due(user)))",
			"\tdue := w.wheel.due(user)\n\tif ON {\n\t\tdue = schemas.Never\n\t}\n\tb = le.AppendUint64(b, uint64(due))", seedsFrom(1),
		},
		{
			"snapshots leave out what was refused", "pipeline/worker/snapshot.go",
			"\tb = le.AppendUint32(b, uint32(len(w.dead.runs)))\n",
			"\tif ON {\n\t\tw.dead.runs = nil\n\t}\n\tb = le.AppendUint32(b, uint32(len(w.dead.runs)))\n", seedsFrom(1),
		},
		{
			"refused records are forgotten too early", "pipeline/worker/snapshot.go",
			"\tw.dead.forget(from)\n",
			"\tif w.dead.forget(from); ON {\n\t\tw.dead.forget(m.Next)\n\t}\n", seedsFrom(1),
		},
		{
			"what is muted counts for the cap", "pipeline/worker/rebuild.go",
			"\tif t.Muted == schemas.NotMuted {\n", "\tif ON || t.Muted == schemas.NotMuted {\n", test("pipeline/worker", "TestPoliciesAreTheOracles"),
		},
		{
			"any cart is the same cart", "pipeline/worker/policy.go",
			"last == uint32(t.Cart),", "(ON || last == uint32(t.Cart)),", test("pipeline/worker", "TestPoliciesAreTheOracles"),
		},
	}
}
