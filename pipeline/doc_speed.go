// # How fast it is
//
// The same job (four segments, JSON events of 247 bytes, 1,000,000 users, exactly once) on
// the same topic of the same real Kafka, on two cores that they share with the broker, one
// run each: make bench-peers RATE=0 ONLY='^(footfall|consume|streams-memory|flink-memory)$'
//
//	10,000,000 events              events per CPU-s  footfall is   events/s  RSS MB
//	footfall                                886,525       1.00 x  1,134,083     392
//	consume only (franz-go)               4,088,262       0.21 x  4,333,277     427
//	Kafka Streams 4.3, in memory            145,476       6.09 x    199,259   1,257
//	Flink 2.2, heap                         154,895       5.72 x    235,163   1,369
//
// The same again, when something else had left the two cores a third of that speed, and footfall
// packed its outputs as it does now: 302,939 events a CPU second, 406 MB; consume only 1,292,294;
// Kafka Streams 48,195 (6.28 x), 1,258 MB; Flink 51,592 (5.87 x), 1,393 MB.
//
// The peers' figures go up and down by a fifth from one hour to another (132,784 to 171,585
// for Flink, 138,332 to 159,490 for Kafka Streams), so a ratio is of its run alone.
//
// footfall's 1,574,057 transitions are, kind by kind, those of the peers' naive reference,
// none of them twice.
//
// Live, from when an event was due to be sent to a read_committed consumer having its
// trigger, in milliseconds, for 25 seconds at each rate, by broker, load, consumer and
// footfall on the same two cores, which other work shared but came after these:
// make bench-peers EVENTS=0 RATE=1000,2500,5000,10000,20000,40000 SECONDS=25 ONLY='^footfall$'
//
//	events/s   p50   p99  p99.9  triggers  transactions/s  CPU s  broker CPU s
//	   1,000   8.1  62.9   88.2     5,987             270    5.1          19.5
//	   2,500   7.5  36.2   83.4    11,032             329    6.8          19.1
//	   5,000   8.0  35.1   51.2    16,020             364    7.9          20.2
//	  10,000   8.7  34.6   44.0    22,511             322    8.2          20.4
//	  20,000  11.0  43.9   54.6    27,495             244    7.8          18.6
//	  40,000  10.7  48.1   68.6    28,842             265    8.6          19.2
//
// With a million timers that fall due within one second (TIMERS=1000000), at 5,000 events a
// second: p50 11.0, p99 47.9, p99.9 59.2, and the last timer's trigger 7 s after it was due.
//
// Where the time goes at 5,000 a second (p50): 3.7 ms until footfall has the event, of which
// 1 is the sender's linger; 1.7 until its transaction begins; 2.1 of transaction (produce 1.0,
// offsets 0.7, end 0.2), three requests that the protocol has follow one another; 0.5 until a
// consumer has it. A bare committer, which only reads and commits, was in the same minutes at
// p50 6.7, p99 31, p99.9 41, and reading the events without any transaction at 3.3, 26 and 48.
// A transaction costs the broker 1.3 ms of CPU, and it touches no more partitions than it has
// outputs for (2.8 of 8). A broker that has just started took 0.9 cores in its first minute
// and 0.7 later, when its code was compiled: so the runs begin after a minute of load that is
// not measured. At 160,000 events a second nothing broke yet: p50 16.8, p99 109, p99.9 141.
//
// Of the CPU time a quarter goes into decoding, a third into the rest of the worker, a
// tenth each into reading and unpacking what was fetched and encoding outputs, a sixteenth
// into packing them (LZ4). What helped: the memory of what was fetched is used again; the lines of the
// next records' users are asked of the memory all at once (worker.warm); a sender's event
// has the fields of the one before (schemas, lead), and its text is looked at once; batches
// are packed and unpacked from memory to memory (sources/kafka); what outputs are encoded into
// is used again for later ones.
//
// make build compiles by what a busy process was seen to do (cmd/footfall/default.pgo; make
// profile makes it anew): three pairs of runs, one after the other, of the same 10,000,000
// events, had 810,373, 838,926 and 833,333 events a CPU second without it, and 874,891, 858,369
// and 872,600 with it.
//
// Tried and left out. Snappy for LZ4 saves footfall 4 % and costs the broker a fifth more. No
// compression at all (kafka.compression=none; what the peers write is not compressed) saves
// 8 %: 983,284, 969,932 and 916,590, then 1,029,866, 1,011,122 and 939,850 events a CPU second,
// with 926,784 and 923,361 by LZ4 in between (FOOTFALL_KAFKA_COMPRESSION=none make bench-peers
// RATE=0 ONLY='^footfall$' REPS=3, and without the variable); but triggers are kept for years, and
// of four bytes three would be air. Fetches of 2 MB cost 5 %, of 16 as much as of 4.
// Large pages for the heap (madvise) made a user's look-up 13 to 36 % faster in go test -bench,
// and the whole process 5 % slower: the kernel's copying cost more than it gave. GOAMD64=v3
// changed nothing, nor did instructions to prefetch in place of warm's loads.
//
// # What each stage costs
//
// Each alone, in one goroutine with one processor: CPU nanoseconds, user and system, of all
// threads, the collector's too, so that whoever shares the machine counts for less than by
// the clock. Each is held to 0 allocations where that is said, at every size (and by go test,
// at 1,000 users). Users come at random, so of a million the memory is asked for nearly
// every one; apply asks for those of the next records all at once, and so costs less than
// its parts. One run, on two cores that others kept busy: make bench COUNT=1 (5 runs unless
// it is said; .build/bench.txt is for benchstat)
//
//	stage                    1K users     1M      10M   1M / 1K  10M / 1K  allocations
//	decode, an event            248.7  241.8    246.9    0.97 x    0.99 x  0
//	find, a user                 37.7  651.4  1,030.0   17.28 x   27.32 x  0
//	fold, an event               10.1  131.0    174.0   12.92 x   17.16 x  0
//	evaluate, a user             43.1  495.6    693.4   11.49 x   16.07 x  0
//	apply, all of an event      642.5  973.6  1,201.0    1.52 x    1.87 x  0
//	encode, a transition        302.1  293.4    285.1    0.97 x    0.94 x  0
//	timers, one set and fired    44.4  504.0    788.6   11.36 x   17.77 x  0
//	snapshot, a user            166.1   18.4     17.9    0.11 x    0.11 x  a slice's
//	load, a user                251.5  248.3    471.8    0.99 x    1.88 x  pieces
//	silence, a transition       379.9  282.2    260.5    0.74 x    0.69 x  3 each
//
// What waits for memory (find to timers) was up to half more on a busier machine, decode and
// encode a tenth. load is a snapshot read, silence everybody's timer and the transition that it
// says. Dedup, a window of so many ids, was measured again when a cell of its index came to tell
// whose it is, at half that speed: 74, 413, 436 ns, 0 allocations; in turns with it, before, 72, 618, 1,114.
//
// # What grows with what
//
// CPU nanoseconds an event, one run, on two cores that others kept busy, which costs caches:
// make bench-scale (RECORDS=1000000 for the last two)
//
//	users, one worker                10K    100K     1M    10M    50M
//	  ns                             807     965  1,267  1,100  2,087
//	  bytes a user, index and all    431     190    149    140    137
//	segments, one worker               1       5     10     50    100    200
//	  an event may change one        833   1,050    902    901  1,058  1,185
//	  an event may change all        601     805    781  1,177  1,275  2,068
//	partitions, a whole process        1       2      4      8     16     32     64
//	  ns                           2,690   2,220  2,360  2,110  2,090  2,530  2,080
//	processes, 8 partitions            1       2      4
//	  ns                           2,060   2,320  2,620
//
// Of 10,000 users the bytes are mostly the dedup window's. An event does the same whatever
// the users are, but fewer of them are in the caches. 200 segments cost 1.4 and 3.4 times
// one. What more partitions cost is not to be seen. The group of four took 27 % more than
// one process, each one's start left out; of few events, what each does once is a larger part.
//
// # What the rest costs
//
// Records per CPU second of footfall's process, on a real Kafka, 1,500,000 of them, on two
// cores that others kept busy; ClickHouse's and Kafka's own CPU beside it: make bench-rates
//
//	                                             records per CPU-s  ClickHouse  Kafka
//	simulate, a shop of 100,000 (kafka-go, LZ4)            431,697           -  5.4 s
//	publish, a CSV file of REES46's columns                324,504           -  6.8 s
//	archive, Kafka to acknowledged rows (LZ4)              372,208       7.5 s  3.1 s
//
// A row's columns go to the driver in ClickHouse's native format (sinks/clickhouse, native.go):
// through its own slices the archive had 279,000, in interleaved runs in which it now has
// 437,000. An event of a file costs 5 allocations where it cost 11, and two thirds of the CPU.
//
// # What a user takes
//
// With the lifecycle set and ids of 16 bytes (go test -run '^$' -bench Memory -benchtime 1x
// ./pipeline/worker measures the heap of a million of each kind):
//
//	                                      bytes
//	place in the wheel: due, next, prev      16  one row of 40 bytes, which every
//	profile: first, last, four counts        24  event looks at (worker.row)
//	membership, each set: seq, since          8  worker.said
//	id                                       16
//	where it stands                         1.3  profile.ids
//	index by id                     5.8 to 7.3  profile.index
//	                                  ---------
//	who only looks                           73
//	of a buyer: purchases, revenue           22  profile.Packer
//	                                  ---------
//	who has bought                           95
//	a shop of whom 20 % have bought          77
//
// Budgets of their own have the last eight order ids of a buyer (64 bytes) and the dedup
// window (32 to 40 bytes a record, of which there are at most dedup.budget a partition).
// What rules ask for comes on top, and footfall rules says how much that is. Nothing
// is rounded for this: times are whole milliseconds, and a profile, a count or a seq that does
// not fit its bits is kept whole beside them.
//
// The collector's usual pace would let a gigabyte of profiles grow to two before it comes.
// footfall run has it come when the heap has grown by 128 MB, or by a tenth: slabs hold no
// pointers, so it has little to look at (cmd, memory.go).
//
// A snapshot costs what has changed since the one before it. Of ten million users in one
// partition, 98 bytes each, in CPU time, the pauses of the partition's goroutine in its own
// (go test -run '^$' -bench 'Snapshot|Load|Replay' ./pipeline/worker tells them by the wall):
//
//	                 bytes   CPU ms   pause p50   p99.9
//	whole      980,000,190      226       27 us  105 us
//	10 % new    98,000,214       49       59 us  360 us
//	1 % new      9,800,214       10      126 us  430 us
//
// A snapshot is read at 720 MB a CPU second on a machine at rest (490 on one that is not),
// and 1,330,000 events are replayed in one.
package pipeline
