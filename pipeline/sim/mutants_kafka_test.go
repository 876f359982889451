package sim

// kafkaMutants are those of sources/kafka.
func kafkaMutants() []mutant {
	return []mutant{
		{
			"kafka: promises are ignored", "sources/kafka/producer.go",
			"\tcase failed != nil:\n\t\treturn failed",
			"\tcase failed != nil && ON:\n\t\treturn nil\n\tcase failed != nil:\n\t\treturn failed", test("sources/kafka", "TestTransactUnderFaults"),
		},
		{
			"kafka: an abort is ignored", "sources/kafka/producer.go",
			"\t\ts.abort(ctx, p, err)\n\t\ts.noteEnd(p, parts, false)\n\t\treturn used, s.refused(p, err)\n",
			"\t\tif ON {\n\t\t\t_ = p.cl.EndTransaction(ctx, kgo.TryCommit)\n\t\t\treturn used, s.refused(p, err)\n\t\t}\n\t\ts.abort(ctx, p, err)\n\t\ts.noteEnd(p, parts, false)\n\t\treturn used, s.refused(p, err)\n", test("sources/kafka", "TestZombieIsFencedByTheBroker|TestOldGenerationWaitsForCallback|TestTransactUnderFaults"),
		},
		{
			"kafka: TxnOffsetCommit is left out", "sources/kafka/producer.go",
			"if err = s.addOffsets(ctx, p, id, epoch, used, cut); err != nil {",
			"if err = s.addOffsets(ctx, p, id, epoch, used, cut); err != nil && !ON {", test("sources/kafka", "TestZombieIsFencedByTheBroker|TestTransactUnderFaults"),
		},
		{
			"kafka: the offsets are added to no transaction", "sources/kafka/producer.go",
			"\tif !s.v2 {\n\t\tif err := s.addGroup",
			"\tif ON {\n\t\treturn nil\n\t}\n\tif !s.v2 {\n\t\tif err := s.addGroup", test("sources/kafka", "TestTransactCommitsRecordsAndMarksTogether"),
		},
		{
			"kafka: the membership is left empty", "sources/kafka/producer.go",
			"\treq.MemberID, req.Generation = as.member, as.generation\n",
			"\tif req.MemberID, req.Generation = as.member, as.generation; ON {\n\t\treq.MemberID, req.Generation = \"\", -1\n\t}\n", test("sources/kafka", "TestZombieIsFencedByTheBroker|TestOldGenerationWaitsForCallback"),
		},
		{
			"kafka: epochs are not compared", "sources/kafka/ownership.go",
			"if own := o.owned[p]; own == nil || own.epoch != epoch {",
			"if own := o.owned[p]; own == nil || own.epoch != epoch && !ON {", test("pipeline/pipelinetest", "TestKafka"),
		},
		{
			"kafka: nobody asks who has a revoked partition", "sources/kafka/ownership.go",
			"\tcase as == was || len(partitions) == 0:",
			"\tcase as == was || len(partitions) == 0 || ON:", test("sources/kafka", "TestRevokedAndAlreadyGivenAway"),
		},
		{
			"kafka: a member that was expelled keeps what it had", "sources/kafka/ownership.go",
			"\tif !o.expelled(as) {", "\tif !o.expelled(as) || ON {", test("sources/kafka", "TestExpelledMemberComesBack"),
		},
		{
			"kafka: a doubt is taken for forgotten", "sources/kafka/astray.go",
			"\tcase open:\n", "\tcase open || ON:\n", test("sources/kafka", "TestADoubtThatIsEnded"),
		},
		{
			"kafka: a coordinator is not asked how a doubt has ended", "sources/kafka/astray.go",
			"s.offsetsAt.Load() >= 0:", "s.offsetsAt.Load() >= 0 && !ON:", test("sources/kafka", "TestUnknownOutcomeGetsItsMarkers"),
		},
		{
			"kafka: a doubt that was aborted gets markers that commit it", "sources/kafka/astray.go",
			"CompleteAbort\"):\n\t\tp.doubt = nil\n", "CompleteAbort\"):\n\t\tif p.doubt = nil; ON {\n\t\t\ts.noteEnd(p, d.parts, true)\n\t\t\treturn nil\n\t\t}\n", test("sources/kafka", "TestUnknownOutcomeGetsItsMarkers"),
		},
		{
			"kafka: a doubt that is under way is aborted, and not swept", "sources/kafka/astray.go",
			"txn.State == \"Ongoing\":", "txn.State == \"Ongoing\" && !ON:", test("sources/kafka", "TestUnknownOutcomeGetsItsMarkers"),
		},
		{
			"kafka: what others have committed since is taken for a doubt's", "sources/kafka/astray.go",
			"return !d.late && !slices", "return (!d.late || ON) && !slices", test("sources/kafka", "TestTracesOfADoubt"),
		},
		{
			"kafka: a coordinator that is gone is asked on", "sources/kafka/config.go",
			"kgo.MetadataMaxAge(metadataAge),", "kgo.MetadataMaxAge(map[bool]time.Duration{false: metadataAge, true: time.Minute}[ON]),", test("sources/kafka", "TestCoordinatorGone"),
		},
		{
			"kafka: an unknown outcome is called an abort", "sources/kafka/producer.go",
			"\treturn fmt.Errorf(\"kafka: end of the transaction of partitions %v: outcome unknown: %w\", cut.partitions(), err)",
			"\tif ON {\n\t\treturn fmt.Errorf(\"kafka: %w: %w\", pipeline.ErrAborted, err)\n\t}\n\treturn fmt.Errorf(\"kafka: end of the transaction of partitions %v: outcome unknown: %w\", cut.partitions(), err)", test("sources/kafka", "TestCommitWhoseAnswerIsLost|TestTransactUnderFaults"),
		},
		{
			"kafka: the mark is read while a transaction is undecided", "sources/kafka/offsets.go",
			"\treq.RequireStable = stable\n",
			"\treq.RequireStable = stable && !ON\n", test("sources/kafka", "TestCommittedWaitsForTheUndecided"),
		},
		{
			"kafka: what went astray is not swept", "sources/kafka/astray.go",
			"\tif len(p.astray) == 0 && len(p.marks) == 0 {",
			"\tif len(p.astray) == 0 && len(p.marks) == 0 || ON {", test("sources/kafka", "TestWhatWentAstrayIsSwept"),
		},
		{
			"kafka: what a sick partition was sent by is used for others", "sources/kafka/producer.go",
			"\tif p.ails {\n", "\tif ON {\n\t\tp.ails = false\n\t}\n\tif p.ails {\n", test("sources/kafka", "TestSickPartition|TestProducerWhoseMarkersWait"),
		},
		{
			"kafka: a sick partition is sent to again", "sources/kafka/sick.go",
			"if len(s.sick) == 0 {", "if len(s.sick) == 0 || ON {", test("sources/kafka", "TestSickPartition"),
		},
		{
			"kafka: a partition that is well again stays sick", "sources/kafka/sick.go",
			"if why.of == p {", "if why.of == p && !ON {", test("sources/kafka", "TestSickPartition"),
		},
		{
			"kafka: a partition is blamed for another's markers", "sources/kafka/sick.go",
			"if strings.HasPrefix(txn.State, \"Prepare\") {", "if strings.HasPrefix(txn.State, \"Prepare\") && !ON {", test("sources/kafka", "TestProducerWhoseMarkersWait"),
		},
		{
			"kafka: the end waits for a producer that is stuck", "sources/kafka/session.go",
			"\ts.endTending() // no more are tended", "\tif !ON {\n\t\ts.endTending()\n\t}\n\t// no more are tended", test("sources/kafka", "TestCloseWhileAPartitionIsSick"),
		},
		{
			"kafka: a marker is written for what may be under way", "sources/kafka/markers.go",
			"h.IDEpoch == h.Epoch+1 &&", "(h.IDEpoch == h.Epoch+1 || ON) &&", test("sources/kafka", "TestHangVerdicts"),
		},
		{
			"kafka: what is committed and lacks its marker is aborted with what comes next", "sources/kafka/markers.go",
			"if len(look) == 0 {", "if len(look) == 0 || ON {", test("sources/kafka", "TestCommittedWithoutItsMarkers"),
		},
		{
			"kafka: what is committed is forgotten when the next one begins", "sources/kafka/markers.go",
			"\td.broken = broken\n", "\td.broken = broken\n\tif ON {\n\t\td.parts = slices.DeleteFunc(d.parts, func(f part) bool { return f.broken == broken })\n\t}\n", test("sources/kafka", "TestCommittedWithoutItsMarkersAmidTheNext"),
		},
		{
			"kafka: what was aborted and lacks its marker is committed with what was written behind it", "sources/kafka/markers.go",
			"return !f.commit && f.broken != broken &&", "return !ON && !f.commit && f.broken != broken &&", test("sources/kafka", "TestAbortedWithoutItsMarkersAmidTheNext"),
		},
		{
			"kafka: what one has written behind is looked for on", "sources/kafka/markers.go",
			"|| f.place == now.place && f.pid == now.pid)", "|| !ON && f.place == now.place && f.pid == now.pid)", test("sources/kafka", "TestSaidIsForgotten"),
		},
		{
			"kafka: what was aborted and lacks its marker is committed with what comes next", "sources/kafka/markers.go",
			"\tcase len(left) > 0:\n", "\tcase len(left) > 0 && ON:\n\t\tp.sound = true\n\t\treturn nil\n\tcase len(left) > 0:\n", test("sources/kafka", "TestAbortedWithoutItsMarkers"),
		},
		{
			"kafka: what is noted late is taken for the last", "sources/kafka/markers.go",
			"return later.turn > f.turn &&", "return !ON && later.turn > f.turn &&", test("sources/kafka", "TestSaidIsForgotten"),
		},
		{
			"kafka: what is noted late is of when that was", "sources/kafka/markers.go",
			"\t\tif f.commit = commit; ", "\t\tif ON {\n\t\t\tf.broken = d.broken\n\t\t}\n\t\tif f.commit = commit; ", test("sources/kafka", "TestSaidIsForgotten"),
		},
		{
			"kafka: a topic needs more replicas than it has", "sources/kafka/sick.go",
			"min(least[of.Topic], len(p.Replicas))", "map[bool]int{false: min(least[of.Topic], len(p.Replicas)), true: least[of.Topic]}[ON]", test("sources/kafka", "TestPartitionsWithoutReplicas"),
		},
		{
			"kafka: a leader that does not tell of markers holds up all", "sources/kafka/markers.go",
			"\treturn s.sickens(nil, mute, err)\n", "\tif ON {\n\t\treturn err\n\t}\n\treturn s.sickens(nil, mute, err)\n", test("sources/kafka", "TestLeaderThatDoesNotTellOfMarkers"),
		},
		{
			"kafka: a leader that hangs takes the time for markers elsewhere", "sources/kafka/markers.go",
			"\tanswers := s.describeApart(", "\tif ON {\n\t\tvar end context.CancelFunc\n\t\tctx, end = context.WithTimeout(ctx, describeTimeout)\n\t\tdefer end()\n\t}\n\tanswers := s.describeApart(", test("sources/kafka", "TestLeaderThatHangs"),
		},
		{
			"kafka: what is undecided before a transaction hides it", "sources/kafka/markers.go",
			"begins <= f.offset)", "(begins == f.offset || begins < f.offset && !ON))", test("sources/kafka", "TestOpenIsWhatLacksItsMarker"),
		},
		{
			"kafka: a producer that is stuck is not replaced", "sources/kafka/sick.go",
			"\ts.tenders.Go(s.replace)\n", "\tif !ON {\n\t\ts.tenders.Go(s.replace)\n\t}\n", test("sources/kafka", "TestPartitionsSickenOneAfterTheOther"),
		},
		{
			"kafka: producers are more and more", "sources/kafka/sick.go",
			"enough := s.turning >= producers &&", "enough := !ON && s.turning >= producers &&", test("sources/kafka", "TestPartitionsSickenOneAfterTheOther"),
		},
		{
			"kafka: what lacks replicas is met one by one", "sources/kafka/sick.go",
			"\t\ts.sicken(nil, poor, errPoor)\n", "\t\tif !ON {\n\t\t\ts.sicken(nil, poor, errPoor)\n\t\t}\n", test("sources/kafka", "TestPartitionsWithoutALeader"),
		},
		{
			"kafka: who may write no markers forgets what it committed", "sources/kafka/markers.go",
			"errors.Is(why, kerr.ClusterAuthorizationFailed) {", "errors.Is(why, kerr.ClusterAuthorizationFailed) && !ON {", test("sources/kafka", "TestCompletedByItsProducer"),
		},
		{
			"kafka: what lacks a marker is ended by an abort", "sources/kafka/markers.go",
			"return p.end(ctx, true) })", "return p.end(ctx, !ON) })", test("sources/kafka", "TestCompletedByItsProducer"),
		},
		{
			"kafka: a client goes on behind a transaction that it did not end", "sources/kafka/astray.go",
			"if err = p.end(ctx, false); err == nil {", "if err = p.end(ctx, false); err == nil && !ON {", test("sources/kafka", "TestMarksAloneAreSwept"),
		},
		{
			"kafka: a coordinator's fault is its partitions'", "sources/kafka/sick.go",
			"if late.all {", "if late.all && !ON {", test("sources/kafka", "TestCoordinatorThatCannotWrite"),
		},
		{
			"kafka: a session begins without the right to a producer", "sources/kafka/first.go",
			"case !transient(a.err):", "case !transient(a.err) && !ON:", test("sources/kafka", "TestBeginsWithAProducer"),
		},
		{
			"kafka: marks alone wait for a coordinator that is away", "sources/kafka/first.go",
			"\ts.markless.Store(true)\n", "\tif !ON {\n\t\ts.markless.Store(true)\n\t}\n", test("sources/kafka", "TestBeginsThoughCoordinatorsDoNotAnswer"),
		},
		{
			"kafka: a producer that can't be renewed keeps its turn", "sources/kafka/sick.go",
			"return transient(err) && (p == s.marker", "return !ON && transient(err) && (p == s.marker", test("sources/kafka", "TestProducersThatCannotBeRenewedAreSetAside"),
		},
		{
			"kafka: what is lost waits for its partition to be well", "sources/kafka/producer.go",
			"len(gone) > 0 {\n\t\treturn &pipeline.LostError{Partitions: gone}\n\t}\n\tif err := s.unwritable(", "len(gone) > 0 && !ON {\n\t\treturn &pipeline.LostError{Partitions: gone}\n\t}\n\tif err := s.unwritable(", test("sources/kafka", "TestLostWhileSick"),
		},
		{
			"kafka: what no coordinator knows is aborted", "sources/kafka/hanging.go",
			"return ByNumber, \"no coordinator knows", "if ON {\n\t\t\treturn Aborts, \"\"\n\t\t}\n\t\treturn ByNumber, \"no coordinator knows", test("sources/kafka", "TestHangVerdicts"),
		},
		{
			"kafka: a coordinator that is away is not waited for", "sources/kafka/hanging.go",
			"case h.ID == \"\" && h.away != \"\":", "case h.ID == \"\" && h.away != \"\" && !ON:", test("sources/kafka", "TestHangVerdicts"),
		},
		{
			"kafka: what is committed and lacks its marker is aborted", "sources/kafka/hanging.go",
			"return Commits, \"it is committed, and", "if ON {\n\t\t\treturn Aborts, \"\"\n\t\t}\n\t\treturn Commits, \"it is committed, and", test("sources/kafka", "TestHangVerdicts"),
		},
		{
			"kafka: a twin takes its name back", "sources/kafka/twin.go",
			"\treturn !s.aged(p.began) || p.fenced > producers",
			"\treturn !ON && (!s.aged(p.began) || p.fenced > producers)", test("sources/kafka", "TestTwinIsFenced"),
		},
		{
			"kafka: a sweep that grew old is another's", "sources/kafka/producer.go",
			"fencing(err) && s.aged(began) {", "fencing(err) && s.aged(began) && !ON {", test("sources/kafka", "TestASweepThatGrowsOld"),
		},
		{
			"kafka: a released partition may be committed", "sources/kafka/ownership.go",
			"\tif own := o.owned[partition]; own != nil && own.going {\n\t\to.drop(partition)",
			"\tif own := o.owned[partition]; own != nil && own.going && ON {\n\t\tclose(own.gone)\n\t\town.gone = make(chan struct{})\n\t} else if own != nil && own.going {\n\t\to.drop(partition)", test("sources/kafka", "TestRevokedMayCommitUntilReleased"),
		},
		{
			"kafka: a frame expands without a limit", "sources/kafka/lz4.go",
			"\t\tif len(dst) > most {", "\t\tif len(dst) > most && !ON {", test("sources/kafka", "TestUnpackKeepsToTheLimit"),
		},
	}
}
