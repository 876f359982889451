-- The facts. Everything else is a view on them.
--
-- A row is one record of a Kafka topic, and (_topic, _partition, _offset) is its
-- identity. The tables are ordered by it, and nothing else, because
--   - the archive reads back which offsets of a span have arrived, and the audit
--     counts spans: with this order both are short range reads;
--   - ReplacingMergeTree then removes a row that was sent twice, so a doubt can always
--     be settled by sending again; until it has merged, the views take care of it;
--   - Kafka's partitions keep a user's rows together, and offsets grow with time, so
--     rows that compress well and are asked for together stay together. For the rest
--     there are skip indexes on time and user.
--
-- Tables are partitioned by the month of the record timestamp, not of the event's own
-- time: a batch of records is then one or two blocks even when history is loaded.
-- non_replicated_deduplication_window makes insert_deduplication_token work; on
-- Replicated tables it has no effect, and replicated_deduplication_window is on by default.

CREATE TABLE IF NOT EXISTS events
(
    _topic             LowCardinality(String)           COMMENT 'Kafka topic of the record',
    _partition         Int32                            COMMENT 'Kafka partition of the record',
    _offset            Int64                            COMMENT 'Kafka offset of the record; with topic and partition the identity of the row' CODEC(Delta, ZSTD(1)),
    _time              DateTime64(3, 'UTC')             COMMENT 'Timestamp of the Kafka record' CODEC(Delta, ZSTD(1)),
    _lane              LowCardinality(String)           COMMENT 'How it came: live, backfill (history, published now) or replay (history, lived again)',
    _hash              UInt64                           COMMENT 'Hash of the Kafka record; the audit compares its sums with those of the topic' CODEC(NONE),

    event_id           String                           COMMENT 'Id of the event, from the sender; repeated when the sender sent it again' CODEC(ZSTD(1)),
    type               LowCardinality(String)           COMMENT 'view, add_to_cart, remove_from_cart, purchase, refund or search',
    user_id            String                           COMMENT 'Id of the user; also the key of the Kafka record' CODEC(ZSTD(1)),
    time               DateTime64(3, 'UTC')             COMMENT 'When it happened, says the sender' CODEC(Delta, ZSTD(1)),
    session_id         String                           COMMENT 'Id of the session; empty: not given' CODEC(ZSTD(1)),
    product_id         String                           COMMENT 'Id of the product; empty: not given, or see items' CODEC(ZSTD(1)),
    category           LowCardinality(String)           COMMENT 'Category of the product; empty: not given',
    brand              LowCardinality(String)           COMMENT 'Brand of the product; empty: not given',
    price              Nullable(Decimal(19, 6))         COMMENT 'Price of one piece, in currency, as sent' CODEC(ZSTD(1)),
    quantity           Nullable(Decimal(19, 6))         COMMENT 'Pieces, as sent; NULL: not given, which counts as 1' CODEC(ZSTD(1)),
    currency           LowCardinality(String)           COMMENT 'ISO 4217 code of price and revenue; the reporting currency where none was sent',
    cart_id            String                           COMMENT 'Id of the cart; empty: not given' CODEC(ZSTD(1)),
    order_id           String                           COMMENT 'Id of the order bought, or refunded; empty: not given' CODEC(ZSTD(1)),
    revenue            Nullable(Decimal(19, 6))         COMMENT 'What the order brought, in currency, as sent; NULL: not given' CODEC(ZSTD(1)),
    items              String                           COMMENT 'Products of the order or cart: a JSON array of objects, as sent; empty: not given' CODEC(ZSTD(1)),
    channel            LowCardinality(String)           COMMENT 'Marketing channel; empty: not given',
    campaign           LowCardinality(String)           COMMENT 'Marketing campaign; empty: not given',
    url                String                           COMMENT 'Address of the page; empty: not given' CODEC(ZSTD(1)),
    properties         String                           COMMENT 'Properties: a JSON object, as sent; empty: not given' CODEC(ZSTD(1)),
    extra              String                           COMMENT 'Fields that the event contract does not name, as one JSON object; empty: none' CODEC(ZSTD(1)),

    amount_minor       Int64                            COMMENT 'What a purchase brought or a refund gave back (never negative; 0 for other types), in minor units (cents) of the reporting currency' CODEC(T64, ZSTD(1)),
    amount             Decimal(38, 4)                   COMMENT 'The same in units of the reporting currency, exact' CODEC(ZSTD(1)),
    reporting_currency LowCardinality(String)           COMMENT 'ISO 4217 code of the currency of amount and amount_minor',

    INDEX time_range time    TYPE minmax             GRANULARITY 1,
    INDEX user_bloom user_id TYPE bloom_filter(0.01) GRANULARITY 4
)
ENGINE = ReplacingMergeTree
PARTITION BY toYYYYMM(_time)
ORDER BY (_topic, _partition, _offset)
SETTINGS non_replicated_deduplication_window = 1000
COMMENT 'Every well-formed record of the input topics, one row each, repeated events too. To count events use events_once.';

CREATE TABLE IF NOT EXISTS transitions
(
    _topic             LowCardinality(String)           COMMENT 'Kafka topic of the record: of the triggers, or of the muted ones',
    _partition         Int32                            COMMENT 'Kafka partition of the record; the same as that of the input',
    _offset            Int64                            COMMENT 'Kafka offset of the record; with topic and partition the identity of the row' CODEC(Delta, ZSTD(1)),
    _time              DateTime64(3, 'UTC')             COMMENT 'Timestamp of the Kafka record: when the transition was written' CODEC(Delta, ZSTD(1)),
    _hash              UInt64                           COMMENT 'Hash of the Kafka record; the audit compares its sums with those of the topic' CODEC(NONE),

    id                 String                           COMMENT 'ce_id of the record: group/partition/n' CODEC(ZSTD(1)),
    n                  UInt64                           COMMENT 'Number of the output among all outputs of its input partition, gapless' CODEC(Delta, ZSTD(1)),
    mark_next          Int64                            COMMENT 'First input offset that had not been applied when it was said' CODEC(Delta, ZSTD(1)),
    mark_clock         DateTime64(3, 'UTC')             COMMENT 'Clock of the partition when it was said' CODEC(Delta, ZSTD(1)),
    mark_fired         DateTime64(3, 'UTC')             COMMENT 'Timers due up to here had been said when it was said' CODEC(Delta, ZSTD(1)),

    user_id            String                           COMMENT 'Id of the user who moved' CODEC(ZSTD(1)),
    segment_set        LowCardinality(String)           COMMENT 'Segment set in which the user moved',
    seq                UInt32                           COMMENT 'Number of the transition for this user and set: 1, 2, 3 ..., gapless over triggers and muted' CODEC(T64, ZSTD(1)),
    from_segment       LowCardinality(String)           COMMENT 'Segment left; empty: the user was in none, this is the first transition',
    to_segment         LowCardinality(String)           COMMENT 'Segment entered',
    at                 DateTime64(3, 'UTC')             COMMENT 'When the user moved: the clock for an event, the due time for a silence' CODEC(Delta, ZSTD(1)),
    muted              LowCardinality(String)           COMMENT 'Why nobody must act on it: rules, bootstrap, backfill, paused, stale; empty: a trigger',

    cause              LowCardinality(String)           COMMENT 'What made the user move: event, timer (a silence), rules (they changed) or recovery',
    cause_type         LowCardinality(String)           COMMENT 'Type of the event; empty for other causes',
    cause_event_id     String                           COMMENT 'event_id of the event; empty for other causes' CODEC(ZSTD(1)),
    cause_topic        LowCardinality(String)           COMMENT 'Kafka topic of the event; empty for other causes',
    cause_partition    Nullable(Int32)                  COMMENT 'Kafka partition of the event; NULL for other causes',
    cause_offset       Nullable(Int64)                  COMMENT 'Kafka offset of the event; NULL for other causes' CODEC(ZSTD(1)),
    cause_due          Nullable(DateTime64(3, 'UTC'))   COMMENT 'When the timer was due; NULL for other causes' CODEC(ZSTD(1)),

    recency_seconds    Int64                            COMMENT 'Recency: seconds from the last event of any type to at, never negative' CODEC(T64, ZSTD(1)),
    orders             UInt32                           COMMENT 'Frequency: orders so far' CODEC(T64, ZSTD(1)),
    revenue_minor      Int64                            COMMENT 'Monetary value: purchases less refunds so far, in minor units (cents) of the reporting currency' CODEC(T64, ZSTD(1)),
    revenue            Decimal(38, 4)                   COMMENT 'The same in units of the reporting currency, exact' CODEC(ZSTD(1)),
    reporting_currency LowCardinality(String)           COMMENT 'ISO 4217 code of the currency of revenue and revenue_minor',
    first_seen         DateTime64(3, 'UTC')             COMMENT 'Time of the first event' CODEC(ZSTD(1)),
    last_seen          DateTime64(3, 'UTC')             COMMENT 'Time of the last event' CODEC(ZSTD(1)),
    first_purchase     Nullable(DateTime64(3, 'UTC'))   COMMENT 'Time of the first purchase; NULL: none' CODEC(ZSTD(1)),
    last_purchase      Nullable(DateTime64(3, 'UTC'))   COMMENT 'Time of the last purchase; NULL: none' CODEC(ZSTD(1)),
    segments           Map(LowCardinality(String), String) COMMENT 'Segment of the user in every set, after this transition' CODEC(ZSTD(1)),
    expected_segment   LowCardinality(String)           COMMENT 'Where silence alone would bring the user next; empty: nowhere',
    expected_at        Nullable(DateTime64(3, 'UTC'))   COMMENT 'When it would; NULL: never' CODEC(ZSTD(1)),
    rules              String                           COMMENT 'Hash of the rules it was said under' CODEC(ZSTD(1)),

    INDEX at_range   at      TYPE minmax             GRANULARITY 1,
    INDEX user_bloom user_id TYPE bloom_filter(0.01) GRANULARITY 4
)
ENGINE = ReplacingMergeTree
PARTITION BY toYYYYMM(_time)
ORDER BY (_topic, _partition, _offset)
SETTINGS non_replicated_deduplication_window = 1000
COMMENT 'Every transition of a user from one segment to another, triggers and muted ones, one row each';

CREATE TABLE IF NOT EXISTS dead_letters
(
    _topic             LowCardinality(String)           COMMENT 'Kafka topic of the dead letter',
    _partition         Int32                            COMMENT 'Kafka partition of the dead letter',
    _offset            Int64                            COMMENT 'Kafka offset of the dead letter; with topic and partition the identity of the row' CODEC(Delta, ZSTD(1)),
    _time              DateTime64(3, 'UTC')             COMMENT 'Timestamp of the dead letter: when the record was refused' CODEC(Delta, ZSTD(1)),
    _hash              UInt64                           COMMENT 'Hash of the dead letter; the audit compares its sums with those of the topic' CODEC(NONE),

    reason             LowCardinality(String)           COMMENT 'Why it was refused; docs and schemas/refusal.go list the reasons',
    detail             String                           COMMENT 'The field, the value or the position in question' CODEC(ZSTD(1)),
    source_topic       LowCardinality(String)           COMMENT 'Kafka topic of the refused record',
    source_partition   Int32                            COMMENT 'Kafka partition of the refused record',
    source_offset      Int64                            COMMENT 'Kafka offset of the refused record' CODEC(Delta, ZSTD(1)),
    source_time        DateTime64(3, 'UTC')             COMMENT 'Timestamp of the refused record' CODEC(Delta, ZSTD(1)),
    n                  UInt64                           COMMENT 'Number of the output among all outputs of its input partition, gapless' CODEC(Delta, ZSTD(1)),
    key                Nullable(String)                 COMMENT 'Key of the refused record, its bytes as they were; NULL: it had none' CODEC(ZSTD(1)),
    value              Nullable(String)                 COMMENT 'Value of the refused record, its bytes as they were; NULL: it had none, or it was too large to be kept' CODEC(ZSTD(1)),
    value_size         UInt64                           COMMENT 'Bytes of the value of the refused record' CODEC(T64, ZSTD(1)),
    value_sha256       String                           COMMENT 'SHA-256 of a value that was too large to be kept, in hex; otherwise empty' CODEC(ZSTD(1)),
    headers            Array(Tuple(key String, value String)) COMMENT 'Headers of the refused record, in their order' CODEC(ZSTD(1)),

    INDEX user_bloom key TYPE bloom_filter(0.01) GRANULARITY 4
)
ENGINE = ReplacingMergeTree
PARTITION BY toYYYYMM(_time)
ORDER BY (_topic, _partition, _offset)
SETTINGS non_replicated_deduplication_window = 1000
COMMENT 'Every record that was refused, one row each, with its bytes and the reason. Its position counts nowhere else.';
