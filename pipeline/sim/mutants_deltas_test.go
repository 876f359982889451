package sim

// deltaMutants are those of what has changed since a snapshot: of what a delta holds, of
// the chain that it is the end of, and of what retention leaves of that.
func deltaMutants() []mutant {
	return []mutant{
		{
			"a delta leaves out whose timer alone has fired", "pipeline/worker/worker.go",
			"\tw.touch(user)\n\tw.wheel.remove(user)\n",
			"\twas := w.changes.noted(user)\n\tif w.touch(user); ON && !was {\n\t\tw.changes.rows[user>>6] &^= 1 << (user & 63)\n\t}\n\tw.wheel.remove(user)\n", seedsFrom(1),
		},
		{
			"a delta leaves out whom a recovery has armed anew", "pipeline/worker/rebuild.go",
			"\t\tw.touch(user)\n\t\tw.evaluate(user, e,",
			"\t\tif !ON {\n\t\t\tw.touch(user)\n\t\t}\n\t\tw.evaluate(user, e,", test("pipeline/worker", "TestADeltaHasWhatChangedWithoutARecord"),
		},
		{
			"a delta amid a review leaves out who has no timer yet", "pipeline/worker/rebuild.go",
			"\tw.changes.noteAll(int(rv.end)) //", "\tif !ON {\n\t\tw.changes.noteAll(int(rv.end))\n\t}\n\t//", test("pipeline/worker", "TestADeltaHasWhatChangedWithoutARecord"),
		},
		{
			"a delta after a switch is taken for complete", "pipeline/worker/changes.go",
			"\tif !w.changes.kept.known || w.changes.kept.shape != w.shape(w.kept()) {",
			"\tif ON && w.changes.kept.known {\n\t\tw.changes.kept.shape = w.shape(w.kept())\n\t}\n\tif !w.changes.kept.known || w.changes.kept.shape != w.shape(w.kept()) {", seedsFrom(1),
		},
		{
			"what a snapshot held that was not stored is in no other", "pipeline/worker/changes.go",
			"\t\tc.rows[i] |= word\n", "\t\tif !ON {\n\t\t\tc.rows[i] |= word\n\t\t}\n", seedsFrom(1),
		},
		{
			"a delta's cut comes after the rows that it holds", "pipeline/worker/changes.go",
			"\tclear(next)\n", "\tif clear(next); ON && len(next) > 0 {\n\t\tc.rows[0] &^= 1\n\t}\n", seedsFrom(1),
		},
		{
			"a delta forgets who is ahead of fired no more", "pipeline/worker/changes.go",
			"\tw.replaying.touched, w.filling, w.dead.runs = nil, nil, nil\n",
			"\tif w.filling, w.dead.runs = nil, nil; !ON {\n\t\tw.replaying.touched = nil\n\t}\n", test("pipeline/worker", "TestADeltaHasWhatChangedWithoutARecord"),
		},
		{
			"a delta is read onto any cut", "pipeline/worker/snapshot.go",
			"; next != m.Next || n != m.N || hash != m.Hash {", "; !ON && (next != m.Next || n != m.N || hash != m.Hash) {", test("pipeline/worker", "TestADeltaIsOfOneSnapshotAlone"),
		},
		{
			"a chain's links are not compared", "pipeline/snapshot/store.go",
			"\t\tcase i > 0 && r.Sum() != link.Sum:", "\t\tcase !ON && i > 0 && r.Sum() != link.Sum:", test("pipeline/snapshot", "TestALinkIsOfOneChainAlone"),
		},
		{
			"retention removes a link in use", "pipeline/snapshot/chain.go",
			"map[ID]bool{base: true}, 1", "map[ID]bool{base: !ON}, 1", test("pipeline/snapshot", "TestTheChainJustPublishedStays"),
		},
		{
			"retention removes what somebody ahead builds upon", "pipeline/snapshot/chain.go",
			"for ; ok && link != nil; link, ok = upon[link.ID] {", "for ; !ON && ok && link != nil; link, ok = upon[link.ID] {", test("pipeline/snapshot", "TestALinkInUseStays"),
		},
		{
			"a link that is damaged is built upon", "pipeline/snapshot/chain.go",
			"if err == nil && s.isDamaged(id) {", "if err == nil && s.isDamaged(id) && !ON {", test("pipeline/snapshot", "TestWhatBuildsUponADamagedOneGoes"),
		},
		{
			"a chain that has lost a link is gone on with", "pipeline/snapping.go",
			"\t\t\tpart.chain = nil //", "\t\t\tpart.chain = map[bool]*snapshot.Chain{true: part.chain}[ON] //", test("pipeline", "TestAChainThatHasLostALinkIsNotGoneOnWith"),
		},
		{
			"a snapshot that was not stored is built upon", "pipeline/snapping.go",
			"\tif p.err = part.removed(s, p.err); p.err != nil {\n\t\tpart.worker.GiveUpSnapshot()\n", "\tif p.err = part.removed(s, p.err); p.err != nil {\n\t\tif ON {\n\t\t\tpart.worker.SnapshotKept()\n\t\t}\n\t\tpart.worker.GiveUpSnapshot()\n", seedsFrom(1),
		},
	}
}
