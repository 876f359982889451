-- What silence alone will do, kept up to date by the running instances.

CREATE TABLE IF NOT EXISTS forecast
(
    made         DateTime64(3, 'UTC')   COMMENT 'When it was made',
    clock        DateTime64(3, 'UTC')   COMMENT 'From when on it looks ahead: the partition''s clock',
    partition    Int32                  COMMENT 'Kafka partition of the users',
    segment_set  LowCardinality(String) COMMENT 'Segment set',
    from_segment LowCardinality(String) COMMENT 'Segment that the users will leave',
    to_segment   LowCardinality(String) COMMENT 'Segment that they will come into, if nobody does anything',
    due          DateTime('UTC')        COMMENT 'Start of the hour in which they will',
    users        UInt64                 COMMENT 'How many; a partition that foresees nothing has one row with 0'
)
ENGINE = MergeTree
ORDER BY (partition, made, segment_set, due, from_segment, to_segment)
TTL toDateTime(made) + INTERVAL 7 DAY
COMMENT 'Transitions that silence alone will bring, as each partition foresaw them from time to time';

CREATE OR REPLACE VIEW forecast_now
(
    segment_set  LowCardinality(String) COMMENT 'Segment set',
    from_segment LowCardinality(String) COMMENT 'Segment that the users will leave',
    to_segment   LowCardinality(String) COMMENT 'Segment that they will come into, if nobody does anything',
    due          DateTime('UTC')        COMMENT 'Start of the hour in which they will',
    users        UInt64                 COMMENT 'How many, in all partitions',
    clock        DateTime64(3, 'UTC')   COMMENT 'From when on the partitions look ahead, at the earliest'
)
AS
SELECT segment_set, from_segment, to_segment, due, sum(f.users) AS users, min(f.clock) AS clock
FROM forecast AS f
WHERE (partition, made) IN (SELECT partition, max(made) FROM forecast GROUP BY partition) AND f.users > 0
GROUP BY segment_set, from_segment, to_segment, due
COMMENT 'The newest forecast of every partition, added up: who will move by silence alone, hour by hour'
