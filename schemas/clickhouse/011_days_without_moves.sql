-- A day on which nobody moved has 0 entries and exits, also for who joins as the SQL standard
-- says (join_use_nulls = 1): there the join gives NULL, and segment_daily an error.

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
    SELECT every.day AS day, every.segment_set AS segment_set, every.segment AS segment, ifNull(moves.entries, 0) AS entries, ifNull(moves.exits, 0) AS exits
    FROM every
    LEFT JOIN moves ON every.day = moves.day AND every.segment_set = moves.segment_set AND every.segment = moves.segment
) AS filled
COMMENT 'How many users were in each segment at the end of each day, and how many came and went';
