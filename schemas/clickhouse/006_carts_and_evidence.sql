-- What carts are worth; what a transition's evidence was, and which cart it is about.
--
-- worth_minor is what decides rules on carts (cart_value). Rows that were archived
-- before this migration have it too, where their currency is the reporting one: the
-- default works it out of price and quantity, rounding half to even, as the archive does.
-- Where another currency was converted it is 0: that day's rate is not in the row.

ALTER TABLE events
    ADD COLUMN IF NOT EXISTS worth_minor Int64
    DEFAULT if(type IN ('add_to_cart', 'remove_from_cart') AND currency = reporting_currency,
        arrayMap((millionths, one) -> arrayMap(whole -> if(whole > 1000000000000000, 0, toInt64(whole)), [
            intDiv(millionths, one) + toInt256(2 * (millionths % one) > one OR (2 * (millionths % one) = one AND intDiv(millionths, one) % 2 = 1))
        ])[1],
        [toInt256(ifNull(price, 0) * 1000000) * toInt256(ifNull(quantity, 1) * 1000000)],
        [toInt256(multiIf(
            reporting_currency IN ('BIF', 'CLP', 'DJF', 'GNF', 'ISK', 'JPY', 'KMF', 'KRW', 'PYG', 'RWF', 'UGX', 'UYI', 'VND', 'VUV', 'XAF', 'XOF', 'XPF'), 1000000000000,
            reporting_currency IN ('BHD', 'IQD', 'JOD', 'KWD', 'LYD', 'OMR', 'TND'), 1000000000,
            reporting_currency IN ('CLF', 'UYW'), 100000000,
            10000000000))])[1],
        0)
    COMMENT 'What was put into the cart or taken out, price times quantity (never negative; 0 without a price, and for other types), in minor units (cents) of the reporting currency'
    CODEC(T64, ZSTD(1));

CREATE OR REPLACE VIEW events_accepted
(
    _topic             LowCardinality(String)   COMMENT 'Kafka topic of the record',
    _partition         Int32                    COMMENT 'Kafka partition of the record',
    _offset            Int64                    COMMENT 'Kafka offset of the record; with topic and partition the identity of the row',
    _time              DateTime64(3, 'UTC')     COMMENT 'Timestamp of the Kafka record',
    _lane              LowCardinality(String)   COMMENT 'How it came: live, backfill (history, published now) or replay (history, lived again)',
    _hash              UInt64                   COMMENT 'Hash of the Kafka record; the audit compares its sums with those of the topic',
    event_id           String                   COMMENT 'Id of the event, from the sender; repeated when the sender sent it again',
    type               LowCardinality(String)   COMMENT 'view, add_to_cart, remove_from_cart, purchase, refund or search',
    user_id            String                   COMMENT 'Id of the user; also the key of the Kafka record',
    time               DateTime64(3, 'UTC')     COMMENT 'When it happened, says the sender',
    session_id         String                   COMMENT 'Id of the session; empty: not given',
    product_id         String                   COMMENT 'Id of the product; empty: not given, or see items',
    category           LowCardinality(String)   COMMENT 'Category of the product; empty: not given',
    brand              LowCardinality(String)   COMMENT 'Brand of the product; empty: not given',
    price              Nullable(Decimal(19, 6)) COMMENT 'Price of one piece, in currency, as sent',
    quantity           Nullable(Decimal(19, 6)) COMMENT 'Pieces, as sent; NULL: not given, which counts as 1',
    currency           LowCardinality(String)   COMMENT 'ISO 4217 code of price and revenue; the reporting currency where none was sent',
    cart_id            String                   COMMENT 'Id of the cart; empty: not given',
    order_id           String                   COMMENT 'Id of the order bought, or refunded; empty: not given',
    revenue            Nullable(Decimal(19, 6)) COMMENT 'What the order brought, in currency, as sent; NULL: not given',
    items              String                   COMMENT 'Products of the order or cart: a JSON array of objects, as sent; empty: not given',
    channel            LowCardinality(String)   COMMENT 'Marketing channel; empty: not given',
    campaign           LowCardinality(String)   COMMENT 'Marketing campaign; empty: not given',
    url                String                   COMMENT 'Address of the page; empty: not given',
    properties         String                   COMMENT 'Properties: a JSON object, as sent; empty: not given',
    extra              String                   COMMENT 'Fields that the event contract does not name, as one JSON object; empty: none',
    amount_minor       Int64                    COMMENT 'What a purchase brought or a refund gave back (never negative; 0 for other types), in minor units (cents) of the reporting currency',
    amount             Decimal(38, 4)           COMMENT 'The same in units of the reporting currency, exact',
    reporting_currency LowCardinality(String)   COMMENT 'ISO 4217 code of the currency of amount, amount_minor and worth_minor',
    worth_minor        Int64                    COMMENT 'What was put into the cart or taken out, price times quantity (never negative; 0 without a price, and for other types), in minor units (cents) of the reporting currency'
)
AS
SELECT _topic, _partition, _offset, _time, _lane, _hash, event_id, type, user_id, time, session_id,
       product_id, category, brand, price, quantity, currency, cart_id, order_id, revenue, items,
       channel, campaign, url, properties, extra, amount_minor, amount, reporting_currency, worth_minor
FROM events FINAL
WHERE (_topic, _partition, _offset) NOT IN (SELECT source_topic, source_partition, source_offset FROM dead_letters)
COMMENT 'Every event that was not refused, repeated ones too: what was applied and what was dropped as a duplicate';

CREATE OR REPLACE VIEW events_once
(
    _topic             LowCardinality(String)   COMMENT 'Kafka topic of the record',
    _partition         Int32                    COMMENT 'Kafka partition of the record',
    _offset            Int64                    COMMENT 'Kafka offset of the record; with topic and partition the identity of the row',
    _time              DateTime64(3, 'UTC')     COMMENT 'Timestamp of the Kafka record',
    _lane              LowCardinality(String)   COMMENT 'How it came: live, backfill (history, published now) or replay (history, lived again)',
    _hash              UInt64                   COMMENT 'Hash of the Kafka record; the audit compares its sums with those of the topic',
    event_id           String                   COMMENT 'Id of the event, from the sender; repeated when the sender sent it again',
    type               LowCardinality(String)   COMMENT 'view, add_to_cart, remove_from_cart, purchase, refund or search',
    user_id            String                   COMMENT 'Id of the user; also the key of the Kafka record',
    time               DateTime64(3, 'UTC')     COMMENT 'When it happened, says the sender',
    session_id         String                   COMMENT 'Id of the session; empty: not given',
    product_id         String                   COMMENT 'Id of the product; empty: not given, or see items',
    category           LowCardinality(String)   COMMENT 'Category of the product; empty: not given',
    brand              LowCardinality(String)   COMMENT 'Brand of the product; empty: not given',
    price              Nullable(Decimal(19, 6)) COMMENT 'Price of one piece, in currency, as sent',
    quantity           Nullable(Decimal(19, 6)) COMMENT 'Pieces, as sent; NULL: not given, which counts as 1',
    currency           LowCardinality(String)   COMMENT 'ISO 4217 code of price and revenue; the reporting currency where none was sent',
    cart_id            String                   COMMENT 'Id of the cart; empty: not given',
    order_id           String                   COMMENT 'Id of the order bought, or refunded; empty: not given',
    revenue            Nullable(Decimal(19, 6)) COMMENT 'What the order brought, in currency, as sent; NULL: not given',
    items              String                   COMMENT 'Products of the order or cart: a JSON array of objects, as sent; empty: not given',
    channel            LowCardinality(String)   COMMENT 'Marketing channel; empty: not given',
    campaign           LowCardinality(String)   COMMENT 'Marketing campaign; empty: not given',
    url                String                   COMMENT 'Address of the page; empty: not given',
    properties         String                   COMMENT 'Properties: a JSON object, as sent; empty: not given',
    extra              String                   COMMENT 'Fields that the event contract does not name, as one JSON object; empty: none',
    amount_minor       Int64                    COMMENT 'What a purchase brought or a refund gave back (never negative; 0 for other types), in minor units (cents) of the reporting currency',
    amount             Decimal(38, 4)           COMMENT 'The same in units of the reporting currency, exact',
    reporting_currency LowCardinality(String)   COMMENT 'ISO 4217 code of the currency of amount, amount_minor and worth_minor',
    worth_minor        Int64                    COMMENT 'What was put into the cart or taken out, price times quantity (never negative; 0 without a price, and for other types), in minor units (cents) of the reporting currency'
)
AS
SELECT _topic, _partition, _offset, _time, _lane, _hash, event_id, type, user_id, time, session_id,
       product_id, category, brand, price, quantity, currency, cart_id, order_id, revenue, items,
       channel, campaign, url, properties, extra, amount_minor, amount, reporting_currency, worth_minor
FROM events FINAL
WHERE (_topic, _partition, _offset) NOT IN (SELECT source_topic, source_partition, source_offset FROM dead_letters)
  AND (_topic, _partition, _offset) NOT IN (SELECT _topic, _partition, _offset FROM event_repeats)
  AND (_topic, _partition, _offset) NOT IN (SELECT _topic, _partition, _offset FROM order_repeats)
COMMENT 'Every event that counts: an event_id once, a purchase of one order by one user once, and nothing that was refused';

ALTER TABLE transitions
    ADD COLUMN IF NOT EXISTS evidence_clause String COMMENT 'Condition of the rules that flipped, as the rules have it; empty: none is known' CODEC(ZSTD(1)),
    ADD COLUMN IF NOT EXISTS evidence_was String COMMENT 'What it looked at before: a number, an amount, a time, whole seconds of a duration, true or false; null: never, or for ever' CODEC(ZSTD(1)),
    ADD COLUMN IF NOT EXISTS evidence_is String COMMENT 'What it looked at after, likewise' CODEC(ZSTD(1)),
    ADD COLUMN IF NOT EXISTS cause_epoch Nullable(UInt64) COMMENT 'Number of the epoch whose bounds moved the user; NULL for other causes' CODEC(ZSTD(1)),
    ADD COLUMN IF NOT EXISTS cart String COMMENT 'Hash of the cart that it is about, where the set says it once for each cart; else empty' CODEC(ZSTD(1));

ALTER TABLE transitions COMMENT COLUMN cause 'What made the user move: event, timer (a silence), rules (they changed), threshold_epoch (others moved) or recovery';

ALTER TABLE transitions COMMENT COLUMN muted 'Why nobody must act on it: rules, bootstrap, backfill, paused, stale, reentry, cap; empty: a trigger';
