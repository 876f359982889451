// Package kafka is where events come from, and how what footfall says about them
// gets back into Kafka exactly once: a group member, a reader and transactional
// producers, under one Session.
//
// It may speak to brokers and retry them. It knows no rules, profiles or timers,
// and nothing of what an output says: it sees records and marks.
//
// # Three kinds of clients
//
// kgo.GroupTransactSession is not used: it allows no polling or producing while a
// transaction ends, fences a transaction without new input by nothing, takes the
// cut offsets from what was polled, and aborts on every rebalance (design 5).
// Instead:
//
//   - the member joins the group and never fetches. It is there for ownership: its
//     callbacks fill the ownership table, which says which partitions are ours,
//     under which member id and generation they may be committed, and what the
//     pipeline has yet to be told;
//   - the reader fetches partitions at offsets it is given, and knows no group. So
//     recovery decides where reading starts, never a client's idea of what was
//     committed, and a rebalance throws away nothing of partitions that stay;
//   - three producers, each with its own transactional id, take turns. One that
//     has just ended a transaction waits for the broker to write its markers before
//     it can begin the next; in rotation nobody waits. One that a partition without
//     leader or replicas keeps from ending is set aside until that is over, another
//     takes its turns, and they go on without the partition (sick.go). A fourth commits marks that
//     nothing was said for (marks.go).
//
// A single client that is member and reader in one was considered. It would fetch
// committed offsets by itself and move its own positions at every rebalance, so
// each of our promises would hang on undoing what it did.
//
// # What makes a commit safe
//
// The broker checks the generation, not who owns a partition: a member with the
// current generation may commit any partition of the group. So the generation is
// never asked for when it is used. It is read inside the assignment callback and
// stands in the ownership table; a partition is in the table only while that
// callback gave it to us, kept it, or took it away with proof that nobody else
// has it yet (see ownership.revoked). After a rebalance that we have not heard of,
// our generation is old, and the broker refuses it.
//
// Under the group protocol Consumer (KIP-848) the generation is the member's own epoch,
// and moves on without a callback. There a commit asks for it when it begins, together
// with the ownership table (see ownership.follow).
//
// A generation fences other owners, not our own past: what we have sent and given up
// may be carried out much later. So every commit is part of a transaction, and the
// transaction's epoch is moved on before its outcome is asked for (see marks.go).
//
// # What a committed mark is worth
//
// A stable OffsetFetch can be answered with an old offset, or with none. Seen on
// Apache Kafka 4.3.1, in most restarts of a broker that was killed: it becomes leader of
// a partition of __consumer_offsets twice in a row (leader epochs e and e+2), loads it
// twice, and the first load's completion declares the second's state loaded, which has
// only begun. ("Ignored load completion from __consumer_offsets-3 because context is in
// ACTIVE state" is its trace in the broker's log.) For up to some seconds offsets are
// then seen to run from nothing up to what was committed; the members of groups too.
//
// So no conclusion is drawn from a mark alone. The outputs, which no coordinator loads,
// say what has been said: recovery and the resolution of unknown outcomes hold the mark
// against the number of the last one, and ask again while it is behind.
//
// Coordinators of transactions load in the same way. A batch was found that a producer had
// sent at epoch 14, undecided, when its transaction was complete at epoch 46 and knew of no
// partition: the coordinator had let it in from a state that it was still loading. So what
// was sent and not answered for is swept before the producer is used again (see
// Session.sweep). Whole transactions are forgotten too (of three runs of make chaos
// ONLY='^TestChaosBroker$' ARGS="-chaos.brokers 12" on a busy machine each met one): the
// coordinator has the state of before them, and answers the next InitProducerID by it. No marker ever ends those, unless the producer's next one does,
// with whatever it says. So a transaction that a broker's death may have cut off is swept in
// the same way, and one whose commit was asked for where it is undecided in all of its
// partitions (Session.forgotten). Of one that is complete markers may be missing all the same:
// they are written where it is known how it has ended (markers.go), by the right to the whole
// cluster that this takes, or else by the producer itself, as those of a transaction without
// records that it commits in these partitions (Session.complete). What is left, of a process
// that died with its broker, is named, with what to do (hanging.go), and ended where there is no
// doubt. One window is known and open: a producer's request that is carried out after such a
// restart, behind what lacks its marker in the same partition, shares the marker of the two; if
// the first was committed, and the second has to be aborted, the first is lost. It takes a
// broker that dies within the milliseconds in which the markers of the first are under way.
package kafka
