-- Who is where, was where, and how many. Transitions are unique by (user_id,
-- segment_set, seq); rows that were sent twice and are not merged yet are counted once,
-- by aggregation or by FINAL.

CREATE OR REPLACE VIEW segment_now
(
    segment_set      LowCardinality(String)           COMMENT 'Segment set',
    user_id          String                           COMMENT 'Id of the user',
    segment          LowCardinality(String)           COMMENT 'Segment in which the user is now',
    since            DateTime64(3, 'UTC')             COMMENT 'When the user entered it',
    previous_segment LowCardinality(String)           COMMENT 'Segment left for it; empty: none',
    seq              UInt32                           COMMENT 'Number of the transition that brought the user there',
    muted            LowCardinality(String)           COMMENT 'Why that transition was muted; empty: it was a trigger',
    orders           UInt32                           COMMENT 'Orders, at that transition',
    revenue          Decimal(38, 4)                   COMMENT 'Purchases less refunds, at that transition, in units of the reporting currency',
    last_seen        DateTime64(3, 'UTC')             COMMENT 'Time of the last event, at that transition',
    last_purchase    Nullable(DateTime64(3, 'UTC'))   COMMENT 'Time of the last purchase, at that transition; NULL: none',
    expected_segment LowCardinality(String)           COMMENT 'Where silence alone would have brought the user next, seen from that transition; empty: nowhere',
    expected_at      Nullable(DateTime64(3, 'UTC'))   COMMENT 'When it would have; NULL: never'
)
AS
SELECT
    segment_set,
    user_id,
    argMax(t.to_segment, t.seq)                     AS segment,
    argMax(t.at, t.seq)                             AS since,
    argMax(t.from_segment, t.seq)                   AS previous_segment,
    max(t.seq)                                      AS seq,
    argMax(t.muted, t.seq)                          AS muted,
    argMax(t.orders, t.seq)                         AS orders,
    argMax(t.revenue, t.seq)                        AS revenue,
    argMax(t.last_seen, t.seq)                      AS last_seen,
    tupleElement(argMax(tuple(t.last_purchase), t.seq), 1) AS last_purchase,
    argMax(t.expected_segment, t.seq)               AS expected_segment,
    tupleElement(argMax(tuple(t.expected_at), t.seq), 1)   AS expected_at
FROM transitions AS t
GROUP BY segment_set, user_id
COMMENT 'Who is in which segment, and since when: one row a user and segment set';

CREATE OR REPLACE VIEW segment_history
(
    segment_set  LowCardinality(String)         COMMENT 'Segment set',
    user_id      String                         COMMENT 'Id of the user',
    segment      LowCardinality(String)         COMMENT 'Segment in which the user was',
    valid_from   DateTime64(3, 'UTC')           COMMENT 'From when on (inclusive)',
    valid_to     Nullable(DateTime64(3, 'UTC')) COMMENT 'Until when (exclusive); NULL: still there',
    next_segment LowCardinality(String)         COMMENT 'Segment left for; empty: still there',
    seq          UInt32                         COMMENT 'Number of the transition that brought the user there',
    cause        LowCardinality(String)         COMMENT 'What did: event, timer (a silence), rules or recovery',
    muted        LowCardinality(String)         COMMENT 'Why that transition was muted; empty: it was a trigger'
)
AS
SELECT
    segment_set,
    user_id,
    to_segment AS segment,
    at AS valid_from,
    leadInFrame(toNullable(at)) OVER following AS valid_to,
    leadInFrame(to_segment) OVER following AS next_segment,
    seq,
    cause,
    muted
FROM
(
    SELECT segment_set, user_id, seq, to_segment, at, cause, muted
    FROM transitions FINAL
)
WINDOW following AS (PARTITION BY segment_set, user_id ORDER BY seq ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING)
COMMENT 'Every stay of a user in a segment, with its beginning and its end';

CREATE OR REPLACE VIEW segment_daily
(
    day         Date                   COMMENT 'Day, UTC; from the first transition to the last of all',
    segment_set LowCardinality(String) COMMENT 'Segment set',
    segment     LowCardinality(String) COMMENT 'Segment',
    members     Int64                  COMMENT 'Users in the segment at the end of the day',
    entries     UInt64                 COMMENT 'Times a user entered it on that day',
    exits       UInt64                 COMMENT 'Times a user left it on that day'
)
AS
WITH
    moves AS
    (
        SELECT
            toDate(at) AS day,
            segment_set,
            move.1 AS segment,
            countIf(move.2 = 1) AS entries,
            countIf(move.2 = -1) AS exits
        FROM transitions FINAL
        ARRAY JOIN [(to_segment, toInt8(1)), (from_segment, toInt8(-1))] AS move
        WHERE move.1 != ''
        GROUP BY day, segment_set, segment
    ),
    days AS
    (
        SELECT arrayJoin(arrayMap(i -> addDays(first_day, i), range(toUInt32(last_day - first_day + 1)))) AS day
        FROM (SELECT min(day) AS first_day, max(day) AS last_day, count() AS moves FROM moves)
        WHERE moves > 0
    ),
    every AS
    (
        SELECT day, segment_set, segment
        FROM days
        CROSS JOIN (SELECT DISTINCT segment_set, segment FROM moves) AS segments
    )
SELECT
    day,
    segment_set,
    segment,
    sum(toInt64(entries) - toInt64(exits)) OVER (PARTITION BY segment_set, segment ORDER BY day ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW) AS members,
    entries,
    exits
FROM
(
    SELECT every.day AS day, every.segment_set AS segment_set, every.segment AS segment, moves.entries AS entries, moves.exits AS exits
    FROM every
    LEFT JOIN moves ON every.day = moves.day AND every.segment_set = moves.segment_set AND every.segment = moves.segment
) AS filled
COMMENT 'How many users were in each segment at the end of each day, and how many came and went';
