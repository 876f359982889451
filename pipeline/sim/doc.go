// Package sim is a deterministic simulation: the real pipeline, workers, snapshots
// and recovery on a simulated log, bucket, group and clocks, one goroutine, one
// seed. The seed decides everything: shoppers, batches, crashes, processes that
// are stopped and wake up when others have their partitions, commits that abort or
// whose outcome is unknown, rebalances, torn, stray, lost and removed snapshots,
// requests that take their time, commit markers that lag, retention, expired offsets and
// such that are set back, new rules, clocks that jump.
//
// Where a seed has many sets (sets.go), rules are lists of sets, lifecycle first, in
// several variants, and are switched while lives live: each process hears of it by
// itself, so that for a while some go by these and some by those, and partitions move
// between them. The history of new sets is looked for beside the live records, and
// crashes, rebalances and retention come amid the search. Bounds of quantiles are
// agreed on by a control log (epochs.go) whose records are late, lost with their
// process, written twice and compacted. The oracle goes on judging lifecycle, and of
// the other sets that chains have no gap and nothing is said twice for one cause. What
// they come to is held in rehearsal.go: in the end everybody is where a worker has
// them that had the rules and the epoch from the beginning; single transitions follow
// from the user's events alone; and policies mute what a recount of what was said
// before mutes. Where retention has taken history that a set needed, its chains only
// are checked; where offsets were lost, lifecycle's ends and all chains.
//
// Every commit is a transaction, of marks alone too (sources/kafka, marks.go). So no
// request that a broker gets to late sets a partition back: its epoch has been moved
// on, and it is refused. An end that is under way when its sender asks for the mark
// either comes first, or is refused. Offsets are set back from outside only, and for
// good: a group restored from a copy, or a coordinator that had not got them all.
// Whoever recovers from there has to notice by the outputs, and to stop.
//
// It may not name Kafka or ClickHouse, nor decide what a record comes to: that is
// package oracle's, which shares nothing with the worker. What the log shows
// without knowing any rule (numbers without a gap, chains, who may mute what, and
// that nothing goes back) is checked here, at every commit and at the end.
//
//	make sim SEEDS=3000    that many seeds
//	make sim SEED=41       one of them again
//	make mutants           bugs of our own, each of which the seeds must find
//
// # What holds what
//
// The sentences marked (!) in the design each close a hole. For each, a test that
// fails without it; a name in quotes is a mutant's, a bug of our own which
// sim.TestSeeds finds (mutants_test.go).
//
//	design  sentence                                           held by
//	2       our outputs carry the wall's now, never `at`       triggers.TestRecords
//	3.1     event times are kept as sent, clamped when         "event times are clamped when folded",
//	        looked at                                          worker.TestProfilesDoNotDependOnOrder
//	3.2     rates and the event contract are part of the       "rates are not part of the rules' hash",
//	        rules' hash                                        schemas.TestHashIsOfWhatTheContractDecides
//	3.5     the clock may go to W - grace                      "no grace", pipeline.TestSilenceIsSaidInTime
//	3.7     a dead letter too large goes with a hash           schemas.TestDeadLetterTooLarge,
//	                                                           triggers.TestDeadLetterTooLarge, kafka.TestTooLarge
//	3.9     a new set is filling and says nothing              "a new set speaks before its history is found",
//	        and what it says first is muted                    "all sets are silent while the history of one is looked for",
//	                                                           "new rules say their differences aloud",
//	                                                           pipeline.TestSwitchFillsFromTheLog
//	4       the dedup window goes by record timestamps and     worker.TestTickedChainsFollowFromTheClocks,
//	        count only                                         worker.TestStateAfterRestoreIsTheStateThatWentOn,
//	                                                           sim.TestWallDecidesNothingInLogTime
//	4.3     each user's timers fire in order, at their due     "a user's own timers are skipped over",
//	        times                                              worker.TestChainsAreTheOracles
//	5       no TxnOffsetCommit, no EndTxn                      kafka.TestTransactWithoutRecords,
//	                                                           kafka.TestZombieIsFencedByTheBroker
//	5       member and generation are those of the callback    kafka.TestOldGenerationWaitsForCallback,
//	        that gave or kept the partition                    kafka.TestRevokedAndAlreadyGivenAway,
//	                                                           kafka.TestKeptPartitionOverRebalance, "epoch not checked",
//	                                                           kafka.TestExpelledMemberComesBack
//	5       one gapless number for all outputs                 "numbers begin again after a recovery",
//	                                                           triggers.TestSaidFindsBrokenInvariants
//	5       collect every promise; never trust the client's    kafka.TestTransactUnderFaults,
//	        idea of what is committed                          kafka.TestCommitWhoseAnswerIsLost,
//	                                                           "outputs doubled on an unknown outcome",
//	                                                           "unknown outcome taken for done", "outputs dropped on abort"
//	5       a record's offset must exceed the last applied     pipeline.TestRecordsGivenAgain
//	5, 2.   the end of the log may lag behind the commit       triggers.TestLastWaitsForMarkers,
//	                                                           triggers.TestSaidWaitsForMarkers, triggers.TestSaidNamesWhatHangs
//	5, 3.   decisions are read back, not taken again           "replay decides again what was refused"
//	5       beginning from nothing only where there is         "begins from nothing where offsets have expired",
//	        nothing; --rebuild mutes                           pipeline.TestForgottenOffsetsStopIt,
//	                                                           pipeline.TestSnapshotsWithoutOffsetStopIt,
//	                                                           "rebuild says its differences aloud"
//	6       a snapshot is published only when a commit         "snapshot published before its commit",
//	        under the same ownership covers it                 pipeline.TestSnapshotsOneAtATimeAndCovered
//	6       base plus deltas of what changed                   worker.TestADeltaHasWhatChangedWithoutARecord,
//	                                                           "a delta leaves out whose timer alone has fired",
//	                                                           "a delta leaves out whom a recovery has armed anew",
//	                                                           "a delta after a switch is taken for complete",
//	                                                           "what a snapshot held that was not stored is in no other"
//	6       a damaged one is skipped for the one before        snapshot.TestEveryFlippedBitOfAChainIsFound,
//	                                                           snapshot.TestALinkIsOfOneChainAlone,
//	                                                           pipeline.TestBrokenChainsArePassedOver,
//	                                                           "a delta is read onto any cut", "a chain's links are not compared"
//	6       several generations                                "retention removes a link in use",
//	                                                           "retention removes what somebody ahead builds upon"
//
// Recovery's other promises:
//
//	the dedup window is rebuilt                                "dedup window not rebuilt", worker.TestDedupIsRebuiltFromTheOffsetItNames
//	what was due after fired is said, once                     "fired taken as clock", "recovery re-arms from the clock",
//	                                                           worker.TestTickedChainsFollowFromTheClocks
//	what an ownership had left to say ends with it             pipeline.TestGivenBackAtOnce
//	a snapshot of another past is skipped                      "lineage not checked", "a rebuild keeps the hash of the past"
//	history is muted up to its end, through crashes            sim.TestHistoryIsMuted, "end of history forgotten in a crash"
//	an offset that is set back is noticed by the outputs       "a mark that was set back is gone on from"
//	a rebuild gives no number a second time                    pipeline.TestRebuildWithoutTheYoungestOutputs
//	a crash amid a change of rules begins it again             "new rules are in the mark before they are said",
//	                                                           worker.TestAChangeOfRulesForgetsNobody
//	the same log gives the same chains, whatever happens       sim.TestChainsAreAFunctionOfTheLog
//
// Rules of several sets:
//
//	sets that a switch does not change are left alone          "timers fire while not everybody is evaluated under new rules",
//	                                                           "after a crash new rules are applied to the moment of the last timer",
//	                                                           "a snapshot does not say who was evaluated after fired",
//	                                                           "timers that fired after the last commit are forgotten",
//	                                                           worker.TestASwitchLeavesOtherSetsAlone
//	everybody ends where new rules want them                   "a switch leaves users where they are until something happens",
//	                                                           "a switch forgets cells", worker.TestSwitchedRulesEndWhereTheyWouldHave
//	chains go on when a set comes back                         "a switch forgets where users are in sets that are gone"
//	a new set has the history that the log has, and of         "the search for history skips the first record",
//	what it has no more what the archive has                   "the search for history leaves the archive out",
//	                                                           "the search for history counts what was refused",
//	                                                           worker.TestARebuiltWorkerIsNotSettledWithoutHistory
//	a snapshot is one of its cut, whatever is found meanwhile  "a review begins while a snapshot is written",
//	                                                           worker.TestASnapshotIsOfItsCutWhileHistoryIsFound
//	all instances go by one epoch of quantiles                 "an epoch is cut before all partitions have counted",
//	                                                           "the first bounds of quantiles say everybody's place aloud"
//	an epoch that a crash has stopped is begun again           "a change of bounds amid which a process died is taken for none",
//	                                                           worker.TestAnEpochBegunIsTakenBack
//	policies remember what was said aloud                      "snapshots leave out what was said aloud",
//	                                                           "snapshots leave out when the last triggers were said",
//	                                                           "a switch forgets what was said aloud", "what is read back was not said aloud",
//	                                                           "a switch forgets what sets that are gone have said",
//	                                                           "what a policy mutes counts as said"
//	quiet hours change nothing but what is told of contact     "quiet hours move somebody", worker.TestQuietHoursAreSwitched
package sim
