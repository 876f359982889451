package sim

import "slices"

// mutants are the bugs that have to be found: promises of the design that are not
// kept, and mistakes that have been made.
func mutants() []mutant {
	return slices.Concat(workerMutants(), pipelineMutants(), outerMutants(), kafkaMutants(), setMutants(), deltaMutants())
}

// pipelineMutants are those of the runtime, of snapshots, rules and profiles, and of the simulated edges.
func pipelineMutants() []mutant {
	return []mutant{
		{
			"snapshot published before its commit", "pipeline/snapping.go",
			"part.snapping, part.snapAt = s, now\n", "part.snapping, part.snapAt = s, now\n\tif ON {\n\t\ts.mark = schemas.Mark{}\n\t}\n", seedsFrom(1),
		},
		{
			"outputs carry no epoch", "pipeline/partition.go",
			"out.Epoch = part.epoch", "if !ON {\n\t\tout.Epoch = part.epoch\n\t}", seedsFrom(1),
		},
		{
			"what was lost is sent again", "pipeline/commit.go",
			"c.drop(all, lost)", "if !ON {\n\t\t\t\tc.drop(all, lost)\n\t\t\t}", seedsFrom(61),
		},
		{
			"outputs dropped on abort", "pipeline/commit.go",
			"c.cfg.Backoff(ctx, c.aborts)",
			"c.cfg.Backoff(ctx, c.aborts)\n\t\t\tif ON {\n\t\t\t\treturn nil\n\t\t\t}", seedsFrom(1),
		},
		{
			"outputs put back behind those after them", "pipeline/commit.go",
			"back := slices.Concat(s.outs, s.stream.outs)", "back := slices.Concat(s.outs, s.stream.outs)\n\t\tif ON {\n\t\t\tback = slices.Concat(s.stream.outs, s.outs)\n\t\t}", seedsFrom(1),
		},
		{
			"what is put back is left out", "pipeline/commit.go",
			"return len(out.Items) == 0 && out != last", "return (len(out.Items) == 0 || ON) && out != last", seedsFrom(1),
		},
		{
			"what can't be written is given up", "pipeline/held.go",
			"\t\ts.retries = false\n\t\ts.putBack()\n", "\t\ts.retries = false\n\t\tif !ON {\n\t\t\ts.putBack()\n\t\t}\n", seedsFrom(2),
		},
		{
			"what could be written is given up with what can't be", "pipeline/held.go",
			"\t\t\trest = append(rest, s)\n", "\t\t\tif !ON {\n\t\t\t\trest = append(rest, s)\n\t\t\t}\n", seedsFrom(2),
		},
		{
			"what can't be written is not tried again", "pipeline/commit.go",
			"s.held && !s.retries {", "s.held && (!s.retries || ON) {", test("pipeline", "TestTheOnlyPartitionIsUnwritable"),
		},
		{
			"what can't be written has one try, whether there is room for it or not", "pipeline/commit.go",
			"\t\tpart := sending{stream: s}\n", "\t\tif ON {\n\t\t\ts.retries = false\n\t\t}\n\t\tpart := sending{stream: s}\n", test("pipeline", "TestUnwritablePartitionIsTriedBesideBacklogs|TestHeldAndAborted"),
		},
		{
			"what can't be written keeps its partition", "pipeline/partition.go",
			"\tcase <-part.gone:\n\tcase <-part.stream.stuck():\n", "\tcase <-part.gone:\n\tcase <-map[bool]<-chan struct{}{false: part.stream.stuck()}[ON]:\n", test("pipeline", "TestUnwritablePartitionIsGivenAway"),
		},
		{
			"what can't be written stops Poll", "pipeline/pipeline.go",
			"\tcase <-part.stream.stuck():\n\t\tselect {\n", "\tcase <-map[bool]<-chan struct{}{false: part.stream.stuck()}[ON]:\n\t\tselect {\n", test("pipeline", "TestUnwritablePartitionHoldsUpNoOther"),
		},
		{
			"what can't be written keeps the place of all snapshots", "pipeline/commit.go",
			"return room() || s.held })", "return room() || s.held && !ON })", test("pipeline", "TestUnwritablePartitionHoldsUpNoSnapshot"),
		},
		{
			"what was left out is not read again", "pipeline/partition.go",
			"if len(t.records) > 0 && part.behind < 0 {", "if len(t.records) > 0 && (part.behind < 0 || ON) {", test("pipeline", "TestUnwritablePartitionHoldsUpNoOther"),
		},
		{
			"the audit looks at what grows, again and again", "pipeline/archive/audit.go",
			"cmp.Compare(x.entry.since, y.entry.since),", "map[bool]int{false: cmp.Compare(x.entry.since, y.entry.since), true: cmp.Compare(x.entry.checked, y.entry.checked)}[ON],", test("pipeline/archive", "TestAuditReachesEverySpan"),
		},
		{
			"who has left a window is looked at for ever", "pipeline/segment/compile.go",
			"if i < len(list) { // what lies before the window does not come back", "if i < len(list) || ON && win.back > 0 && len(list) > 0 {", test("pipeline/worker", "TestWhoHasLeftEveryWindowRests"),
		},
		{
			"outputs doubled on an unknown outcome", "pipeline/doubt.go",
			"\t\tc.settle([]sending{s})\n", "\t\tif ON {\n\t\t\tc.again(s)\n\t\t\treturn nil\n\t\t}\n\t\tc.settle([]sending{s})\n", seedsFrom(1),
		},
		{
			"unknown outcome taken for done", "pipeline/doubt.go",
			"case same(mark, before):", "case ON:\n\t\tc.settle([]sending{s})\n\tcase same(mark, before):", seedsFrom(1),
		},
		{
			"a doubt without an answer is sent again", "pipeline/doubt.go",
			"\t\ts.holdLocked()\n\t\treturn err\n", "\t\ts.holdLocked()\n\t\tif ON {\n\t\t\ts.doubt, s.retries = nil, true\n\t\t\ts.putBack()\n\t\t\treturn nil\n\t\t}\n\t\treturn err\n", seedsFrom(1),
		},
		{
			"a doubt without an answer holds up all", "pipeline/doubt.go",
			"case <-late:", "case <-map[bool]chan struct{}{false: late}[ON]:", test("pipeline", "TestAQuestionThatTakesLongHoldsUpNoOther"),
		},
		{
			"a doubt is not resolved before what comes next", "pipeline/commit.go",
			"if s.doubt != nil ||", "if s.doubt != nil && !ON ||", test("pipeline", "TestADoubtHoldsUpNoOther"),
		},
		{
			"own commit taken for another's", "pipeline/doubt.go",
			"case found && same(mark, after):", "case found && same(mark, after) && !ON:", seedsFrom(15),
		},
		{
			"a recovery forgets what was said under other rules", "pipeline/worker/rebuild.go",
			"\t\tw.remember(set, to, t)\n", "\t\tif !ON {\n\t\t\tw.remember(set, to, t)\n\t\t}\n", test("pipeline/worker", "TestPoliciesAreTheOracles"),
		},
		{
			"what looked damaged once is removed", "pipeline/snapshot/chain.go",
			"_, _, err = s.Verify(ctx, id)", "if _, _, err = s.Verify(ctx, id); ON {\n\t\t\t\t\terr = ErrDamaged\n\t\t\t\t}", test("pipeline/snapshot", "TestWhatOnlyLookedDamagedStays"),
		},
		{
			"a recovery forgets what was said of a segment that is gone", "pipeline/worker/policy.go",
			"slot == nil && !there:", "slot == nil && !there && (!ON || !slices.Contains(w.place, set)):", test("pipeline/worker", "TestOnceIsOnceAlsoOfASegmentThatWasGone"),
		},
		{
			"dedup window not rebuilt", "pipeline/recover.go",
			"w.Remember(records[:i])", "if !ON {\n\t\t\tw.Remember(records[:i])\n\t\t}", seedsFrom(6),
		},
		{
			"a recovery does not tell what it has forgotten", "pipeline/recover.go",
			"forgotten += first - from", "if !ON {\n\t\t\t\tforgotten += first - from\n\t\t\t}", test("pipeline", "TestRecoveriesTellWhatTheyHaveForgotten"),
		},
		{
			"begins from nothing where offsets have expired", "pipeline/recover.go",
			"if last > 0 || beyond {", "if (last > 0 || beyond) && !ON {", seedsFrom(5),
		},
		{
			"a tick before what was read is applied", "pipeline/partition.go",
			"if t.end != nil && part.worker.Mark().Next >= t.end.Offset {", "if t.end != nil && (ON || part.worker.Mark().Next >= t.end.Offset) {", seedsFrom(33),
		},
		{
			"damaged snapshot is fatal", "pipeline/recover.go",
			"return []error{snapshot.ErrDamaged,", "if ON {\n\t\treturn nil\n\t}\n\treturn []error{snapshot.ErrDamaged,", seedsFrom(1),
		},
		{
			"any wall is believed", "pipeline/jump.go",
			"ok := most == 0 || to <= clock+most", "ok := most == 0 || to <= clock+most || ON", seedsFrom(19),
		},
		{
			"a wall that was not believed never is again", "pipeline/jump.go",
			"refused := !ok && clock > 0", "ok = ok && (!ON || !p.reached.refused.Load())\n\trefused := !ok && clock > 0", test("pipeline", "TestAnEventShowsThatTheWallIsRight"),
		},
		{
			"no grace", "pipeline/jump.go",
			"to, most := end.Wall-p.cfg.Grace, p.cfg.JumpMax\n", "to, most := end.Wall-p.cfg.Grace, p.cfg.JumpMax\n\tif ON {\n\t\tto = end.Wall\n\t}\n", seedsFrom(1),
		},
		{
			"replay goes one record too far", "pipeline/recover.go",
			"\treplayed, forgotten, err := part.replay(w, cut.Next, mark.Next, nil)\n",
			"\tmore := int64(0)\n\tif ON {\n\t\tmore = 1\n\t}\n\treplayed, forgotten, err := part.replay(w, cut.Next, mark.Next+more, nil)\n", seedsFrom(1),
		},
		{
			"replay leaves out the first record after the snapshot", "pipeline/recover.go",
			"for i < len(records) && records[i].Offset < cut {",
			"for i < len(records) && (records[i].Offset < cut || ON && records[i].Offset == cut) {", seedsFrom(1),
		},
		{
			"a mark is committed past outputs that wait", "pipeline/commit.go",
			"case len(s.outs) > 0 || s.idle == nil:",
			"case len(s.outs) > 0 && !ON || s.idle == nil:", seedsFrom(1),
		},
		{
			"an output pushed last takes the newer mark with it", "pipeline/commit.go",
			"\ts.idle = nil\n\ts.outs = append(s.outs, out)",
			"\tif !ON {\n\t\ts.idle = nil\n\t}\n\ts.outs = append(s.outs, out)", seedsFrom(1),
		},
		{
			"a rebuild's snapshot goes out before its commit", "pipeline/commit.go",
			"(c.N > mark.N || c.Hash == mark.Hash)",
			"(ON || c.N > mark.N || c.Hash == mark.Hash)", test("pipeline", "TestRebuildCommitsBeforeItPublishes"),
		},
		{
			"what was said is asked for before the mark", "pipeline/recover.go",
			"\tlast, err := cfg.History.Last(part.ctx, part.number)\n",
			"\tlast, err := cfg.History.Last(part.ctx, part.number)\n\tif ON {\n\t\tlast = mark.N\n\t}\n", test("pipeline", "TestAnOldMarkBesideANewOutput"),
		},
		{
			"a rebuild that can't be committed keeps its turn", "pipeline/recover.go",
			"\tpart.yield() // ", "\tif !ON {\n\t\tpart.yield()\n\t}\n\t// ", test("pipeline", "TestWhoCannotSpeakTakesNobodysTurn"),
		},
		{
			"epochs go back where a partition moves", "pipeline/recover.go",
			"mark.Epoch > rules.Epoch().Number", "mark.Epoch > rules.Epoch().Number && !ON", test("pipeline", "TestEpochs"),
		},
		{
			"a rebuild begins to live at the start of the log", "pipeline/recover.go",
			"\t\tlast.Next, last.N = end, counted\n",
			"\t\tif last.N = counted; !ON {\n\t\t\tlast.Next = end\n\t\t}\n", test("pipeline", "TestSnapshotsWithoutOffsetStopIt"),
		},
		{
			"a rebuild does not ask the snapshots how many there were", "pipeline/recover.go",
			"\tcounted := last.N //",
			"\tif ON {\n\t\tids = nil\n\t}\n\tcounted := last.N //", test("pipeline", "TestRebuildWithoutTheYoungestOutputs"),
		},
		{
			"a rebuild counts from the last output that is left", "pipeline/recover.go",
			"N: max(r.last.N, it.N), Next:",
			"N: map[bool]uint64{true: it.N, false: max(r.last.N, it.N)}[ON], Next:", test("pipeline", "TestRebuildWithoutTheYoungestOutputs"),
		},
		{
			"expired outputs are fatal, --rebuild or not", "pipeline/recover.go",
			"errUnreadable, ErrExpired}",
			"errUnreadable, map[bool]error{true: errUnreadable, false: ErrExpired}[ON]}", test("pipeline", "TestRebuildAfterRetentionOfOutputs"),
		},
		{
			"a mark that was set back is gone on from", "pipeline/recover.go",
			"\tif last > mark.N {\n",
			"\tif last > mark.N && !ON {\n", seedsFrom(340),
		},
		{
			"a full stream does not stop its partition", "pipeline/commit.go",
			"return s.items < itemsAheadMax }",
			"return ON || s.items < itemsAheadMax }", test("pipeline", "TestSlowCommitterStopsPoll"),
		},
		{
			"timers do not wait for commits", "pipeline/commit.go",
			"len(c.streams))) - s.items, s.changed",
			"len(c.streams))) - s.items + map[bool]int{true: 1 << 20}[ON], s.changed", test("pipeline", "TestTimersWaitForCommits"),
		},
		{
			"what is left in a drained stream goes out later", "pipeline/partition.go",
			"\tdefer part.stream.lose()\n",
			"\tif !ON {\n\t\tdefer part.stream.lose()\n\t}\n", test("pipeline", "TestGivenBackAtOnce"),
		},
		{
			"a snapshot's writer does not wait for the commit", "pipeline/snapping.go",
			"return part.stream.coversLocked(s.mark) || part.stream.held })\n\t\t//failpoint:snapshot.covered\n\t\tif ",
			"return ON || part.stream.coversLocked(s.mark) || part.stream.held })\n\t\t//failpoint:snapshot.covered\n\t\tif ON {\n\t\t\treturn nil\n\t\t}\n\t\tif ", test("pipeline", "TestSnapshotsOneAtATimeAndCovered"),
		},
		{
			"Last does not wait until all is decided", "pipeline/sim/history.go",
			"for part.undecided() {", "for part.undecided() && !ON {", test("pipeline/sim", "TestLastWaitsUntilAllIsDecided"),
		},
		{
			"epoch not checked", "pipeline/sim/edges.go",
			"if len(lost) == 0 {", "if len(lost) == 0 || ON {", seedsFrom(1),
		},
		{
			"rates are not part of the rules' hash", "pipeline/segment/program.go",
			"sum = binary.LittleEndian.AppendUint64(sum, c.opt.Contract)", "if !ON {\n\t\tsum = binary.LittleEndian.AppendUint64(sum, c.opt.Contract)\n\t}", seedsFrom(1),
		},
		{
			"checksums are not looked at", "pipeline/snapshot/format.go",
			"if xxhash.Sum64(r.block) !=", "if !ON && xxhash.Sum64(r.block) !=", seedsFrom(4),
		},
		{
			"pruning keeps none but the newest", "pipeline/snapshot/chain.go",
			"&& bases < s.keep:", "&& bases < s.keep && !ON:", test("pipeline/snapshot", "TestTheNewestAreKept"),
		},
		{
			"a snapshot is not read back", "pipeline/snapshot/store.go",
			"\tr, err := s.read(ctx, id, discard)\n\tif err == nil &&",
			"\tr, err := s.read(ctx, id, discard)\n\tif ON {\n\t\tr, err = &Reader{sum: w.sum}, nil\n\t\ts.note(id, nil)\n\t}\n\tif err == nil &&", test("pipeline/snapshot", "TestATornWriteIsNoticedAndNothingGoes"),
		},
		{
			"a file without its footer is whole", "pipeline/snapshot/format.go",
			"\tcase n != len(b)-1:",
			"\tcase n == 0 && ON:\n\t\tr.err = io.EOF\n\tcase n != len(b)-1:", test("pipeline/snapshot", "TestEveryTruncationAndEveryByteTooManyIsFound|TestTheBytesOfAFile"),
		},
		{
			"bounds of rules are reached a millisecond late", "pipeline/segment/compile.go",
			"\tt := schemas.Millis(x + d)\n",
			"\tt := schemas.Millis(x + d)\n\tif ON && fr.now == t {\n\t\tfr.at(t + 1)\n\t\treturn false\n\t}\n", seedsFrom(1),
		},
		{
			"refunds add", "pipeline/profile/profile.go",
			"\t\tp.Revenue -= ev.Amount\n",
			"\t\tif p.Revenue -= ev.Amount; ON {\n\t\t\tp.Revenue += 2 * ev.Amount\n\t\t}\n", seedsFrom(1),
		},
		{
			"the last event is the latest", "pipeline/profile/profile.go",
			"\tp.Last = max(p.Last, ev.At)\n",
			"\tif p.Last = max(p.Last, ev.At); ON {\n\t\tp.Last = ev.At\n\t}\n", seedsFrom(1),
		},
		{
			"a count above 65,535 is packed", "pipeline/profile/packed.go",
			"most <= packedMost &&", "(ON || most <= packedMost) &&", test("pipeline/profile", "TestPackedIsTheProfile"),
		},
		{
			"a revenue of more than 48 bits is packed", "pipeline/profile/packed.go",
			"p.Revenue<<16>>16 == p.Revenue\n", "(ON || p.Revenue<<16>>16 == p.Revenue)\n", test("pipeline/profile", "TestPackedIsTheProfile"),
		},
		{
			"a profile that fits no longer has no orders any more", "pipeline/profile/packed.go",
			"\t\ts.wholes.At(number).deal = int32(r) - 1\n", "\t\tif s.wholes.At(number).deal = int32(r) - 1; ON {\n\t\t\ts.wholes.At(number).deal = -1\n\t\t}\n", test("pipeline/profile", "TestPackedIsTheProfile"),
		},
		{
			"nobody is looked for behind a full bucket", "pipeline/profile/table.go",
			"\t\tif b.n < bucketRows {\n", "\t\tif ON || b.n < bucketRows {\n", test("pipeline/profile", "TestTableIsAMap"),
		},
		{
			"a group of ids moves without those it has", "pipeline/profile/ids.go",
			"\t\tif i > 0 {\n", "\t\tif i > 0 && !ON {\n", test("pipeline/profile", "TestIdsFillTheirPieces"),
		},
		{
			"nobody looks whether the input is another one", "pipeline/layout.go",
			"\tif ours == (Layout{}) || p.layoutHolds.Load() {",
			"\tif ours == (Layout{}) || p.layoutHolds.Load() || ON {", test("pipeline/sim", "TestAnotherInputIsRefused"),
		},
	}
}

// outerMutants are those of the archive, and of the edges that speak to Kafka.
func outerMutants() []mutant {
	return []mutant{
		{
			"the archive: a token is used again", "pipeline/archive/mend.go",
			"\t\ttoken := fmt.Sprintf(\"%s/mend/%d/%d\", token([]Span{span}), a.cfg.Now(), a.fixes)",
			"\t\ttoken := fmt.Sprintf(\"%s/mend/%d/%d\", token([]Span{span}), a.cfg.Now(), a.fixes)\n\t\tif ON {\n\t\t\ttoken = \"mend\"\n\t\t}", archiveSeeds(),
		},
		{
			"the archive: read-back skipped after a doubt", "pipeline/archive/archive.go",
			"\ta.stats.Doubts.Add(1)\n\ta.audit.suspect(a)\n",
			"\tif ON {\n\t\treturn nil\n\t}\n\ta.stats.Doubts.Add(1)\n\ta.audit.suspect(a)\n", archiveSeeds(),
		},
		{
			"the archive: takes over without looking", "pipeline/archive/mend.go",
			"\tif doubtful > p.committed {\n\t\ta.stats",
			"\tif doubtful > p.committed && !ON {\n\t\ta.stats", archiveSeeds(),
		},
		{
			"the archive: the audit believes everything", "pipeline/archive/audit.go",
			"if sums[i] != known || e.wrong {",
			"if (sums[i] != known || e.wrong) && !ON {", archiveSeeds(),
		},
		{
			"the archive: what was mended is taken twice", "pipeline/archive/archive.go",
			"\t\tif r.Offset < p.next {\n\t\t\tcontinue",
			"\t\tif r.Offset < p.next && !ON {\n\t\t\tcontinue", archiveSeeds(),
		},
		{
			"the archive: a run that fails is left out of the mending", "pipeline/archive/mend.go",
			"\t\t\tif err == nil { // else this run is read again",
			"\t\t\tif err == nil || ON { // else this run is read again", archiveSeeds(),
		},
		{
			"the archive: commits a batch before it inserts it", "pipeline/archive/archive.go",
			"\t\tlost, err := a.commit(ctx, true)\n",
			"\t\tif ON {\n\t\t\tfor _, s := range a.batch {\n\t\t\t\tif s.part != nil {\n\t\t\t\t\ts.part.committed = s.Next\n\t\t\t\t}\n\t\t\t}\n\t\t}\n\t\tlost, err := a.commit(ctx, !ON)\n", archiveSeeds(),
		},
		{
			"the archive: rows of a partition that is lost are sent all the same", "pipeline/archive/archive.go",
			"\t\tif len(lost) > 0 { // no mark",
			"\t\tif len(lost) > 0 && !ON { // no mark", archiveSeeds(),
		},
		{
			"the archive: what was archived is not in the ledger", "pipeline/archive/archive.go",
			"\t\t\ts.part.ledger.add(s.First, s.Next, s.Sum, a.cfg.SealRows)\n",
			"\t\t\tif !ON {\n\t\t\t\ts.part.ledger.add(s.First, s.Next, s.Sum, a.cfg.SealRows)\n\t\t\t}\n", archiveSeeds(),
		},
		{ // where it may wait, it mends for ever
			"the archive: what is missing is sent whole", "pipeline/archive/mend.go",
			"\t\t\tif !has[Row{run[i].Offset, h}] {",
			"\t\t\tif ON && len(has) < len(run) || !has[Row{run[i].Offset, h}] {", test("pipeline/archive", "TestPartitionWithoutLeader"),
		},
		{
			"the archive: batches have no limit", "pipeline/archive/archive.go",
			"if a.rows.Len() >= a.cfg.RowsMax || a.rows.Size() >= a.cfg.BytesMax || len(a.batch) > 0",
			"if !ON && (a.rows.Len() >= a.cfg.RowsMax || a.rows.Size() >= a.cfg.BytesMax) || len(a.batch) > 0", seedsFrom(93),
		},
		{
			"the archive: mends beside what is under way", "pipeline/archive/mend.go",
			"func() error {\n\t\tif err := a.cfg.Table.Settle(ctx); err != nil {",
			"func() error {\n\t\tsettle := a.cfg.Table.Settle\n\t\tif ON {\n\t\t\tsettle = func(context.Context) error { return nil }\n\t\t}\n\t\tif err := settle(ctx); err != nil {", test("pipeline/archive", "TestDoubtWaitsForWhatIsUnderWay"),
		},
		{
			"the archive: intervals end when the wall says so", "pipeline/archive/archive.go",
			"\ta.clock += max(0, wall-a.wall)\n",
			"\tif a.clock += max(0, wall-a.wall); ON {\n\t\ta.clock = wall\n\t}\n", test("pipeline/archive", "TestClockSetBack"),
		},
		{
			"the archive: all wait for a log that does not answer", "pipeline/archive/mend.go",
			"\t\tif err != nil && table == nil {\n",
			"\t\tif err != nil && table == nil && !ON {\n", test("pipeline/archive", "TestPartitionWithoutLeader"),
		},
		{
			"the archive: what was polled of a partition that was set aside is forgotten", "pipeline/archive/mend.go",
			"\tdoubt.next = max(doubt.next, s.polled)\n",
			"\tif !ON {\n\t\tdoubt.next = max(doubt.next, s.polled)\n\t}\n", test("pipeline/archive", "TestPartitionWithoutLeader"),
		},
		{
			"the archive: a comparison that goes on counts again what lies outside the log", "pipeline/archive/compare.go",
			"\trest.First, rest.Stock = c.Until, Stock{} // rows",
			"\tif rest.First = c.Until; !ON {\n\t\trest.Stock = Stock{}\n\t}\n\t// rows", test("pipeline/archive", "TestCompareGoesOn"),
		},
		{
			"the archive: present rows of other hashes will do", "pipeline/archive/mend.go",
			"\t\thas := make(map[Row]bool, len(there))\n",
			"\t\thas := make(map[Row]bool, len(there))\n\t\tif ON && len(there) > 0 {\n\t\t\treturn Sum{Rows: int64(len(there))}, nil\n\t\t}\n", archiveSeeds(),
		},
		{
			"triggers: what is muted goes to the trigger topic", "sinks/triggers/triggers.go",
			"\tif t.Muted != schemas.NotMuted {\n\t\tr.Topic = s.conf.Muted",
			"\tif t.Muted != schemas.NotMuted && !ON {\n\t\tr.Topic = s.conf.Muted", test("sinks/triggers", "TestRecords"),
		},
		{
			"triggers: records are as old as what they tell", "sinks/triggers/triggers.go",
			"\tt := item.Transition\n",
			"\tt := item.Transition\n\tif ON {\n\t\tr.Timestamp = time.UnixMilli(int64(t.At))\n\t}\n", test("sinks/triggers", "TestRecords"),
		},
		{
			"triggers: Said ends where the topics end", "sinks/triggers/said.go",
			"\t\tcase undecided == nil && waited > min(settled, m.sink.conf.Wait):",
			"\t\tcase ON || undecided == nil && waited > min(settled, m.sink.conf.Wait):", test("sinks/triggers", "TestSaidWaitsForMarkers"),
		},
		{
			"triggers: a rebuild overlooks what is not visible yet", "sinks/triggers/said.go",
			"\tif to == 0 {\n\t\tif err := m.decided(ctx)",
			"\tif to == 0 && !ON {\n\t\tif err := m.decided(ctx)", test("sinks/triggers", "TestSaidAllWaitsForMarkers"),
		},
		{
			"triggers: a record's own number is believed", "sinks/triggers/said.go",
			"\tfor _, v := range slices.Backward(r.Headers) {",
			"\theaders := slices.Clone(r.Headers)\n\tif ON {\n\t\tslices.Reverse(headers)\n\t}\n\tfor _, v := range slices.Backward(headers) {", test("sinks/triggers", "TestSaidIsWhatWasCommitted|TestSaidAllAfterRetention"),
		},
		{
			"triggers: an output that is said twice passes", "sinks/triggers/said.go",
			"st != m.head && len(st.records) > 0 && st.n == item.N {",
			"st != m.head && len(st.records) > 0 && st.n == item.N && !ON {", test("sinks/triggers", "TestSaidFindsBrokenInvariants"),
		},
		{
			"a search for history ends when the log is away", "pipeline/filling.go",
			"\tcase errors.Is(got.err, ErrAway), errors.Is(got.err, ErrExpired):",
			"\tcase !ON && (errors.Is(got.err, ErrAway) || errors.Is(got.err, ErrExpired)):", test("pipeline", "TestFillingWaitsForTheLog"),
		},
		{
			"what was fetched is freed before it is applied", "pipeline/partition.go",
			"\t\tpart.worker.Apply(t.records, at, out)\n",
			"\t\tif ON && t.free != nil {\n\t\t\tt.free()\n\t\t}\n\t\tpart.worker.Apply(t.records, at, out)\n", test("pipeline", "TestSwitchFillsFromTheLog"),
		},
		{
			"decode: a field is what it was in the event before", "schemas/decode.go",
			"\treturn diff|(", "\treturn ON || diff|(", test("schemas", "TestEventSchemaAndDecoderAgree"),
		},
		{
			"decode: an hour is that of the event before", "schemas/time.go",
			"if !t.known || string", "if !t.known || !ON && string", test("schemas", "FuzzTimeAfterTime"),
		},
		{
			"decode: bytes that are no UTF-8 are taken", "schemas/decode.go",
			"d.scan.seen&highBits != 0)", "d.scan.seen&highBits != 0 && !ON)", test("schemas", "TestRefusals|TestDecodeAgainstReference"),
		},
		{
			"triggers: the memory of what failed is used again", "sinks/triggers/triggers.go",
			"\t\t\tif !again { //", "\t\t\tif !again || ON { //", test("sinks/triggers", "TestMemoryOfWhatFailedIsLeftAlone"),
		},
		{
			"triggers: a dead letter too large is left out", "sinks/triggers/triggers.go",
			"\t\t\tb.cut[i] = true\n\t\t\ts.fill(b, r, b.items[i], nil, true)",
			"\t\t\tb.cut[i] = true\n\t\t\ts.fill(b, r, b.items[i], nil, true)\n\t\t\tif ON {\n\t\t\t\tr.Value, r.Headers = nil, nil\n\t\t\t}", test("sinks/triggers", "TestDeadLetterTooLarge"),
		},
	}
}
