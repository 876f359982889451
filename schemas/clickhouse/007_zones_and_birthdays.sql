-- Where users live, when they were born, and when they are best spoken to.
--
-- Rows that were archived before this migration have timezone and birthday all the same,
-- where events had them as fields of the sender's own: those are in extra.

ALTER TABLE events
    ADD COLUMN IF NOT EXISTS timezone LowCardinality(String) DEFAULT if(JSONType(extra, 'timezone') = 'String', JSONExtractString(extra, 'timezone'), '') COMMENT 'Time zone of the user, by its IANA name, as sent; empty: not given',
    ADD COLUMN IF NOT EXISTS birthday String DEFAULT if(JSONType(extra, 'birthday') = 'String', JSONExtractString(extra, 'birthday'), '') COMMENT 'Birthday of the user, YYYY-MM-DD or --MM-DD, as sent; empty: not given' CODEC(ZSTD(1));

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
    worth_minor        Int64                    COMMENT 'What was put into the cart or taken out, price times quantity (never negative; 0 without a price, and for other types), in minor units (cents) of the reporting currency',
    timezone           LowCardinality(String)   COMMENT 'Time zone of the user, by its IANA name, as sent; empty: not given',
    birthday           String                   COMMENT 'Birthday of the user, YYYY-MM-DD or --MM-DD, as sent; empty: not given'
)
AS
SELECT _topic, _partition, _offset, _time, _lane, _hash, event_id, type, user_id, time, session_id,
       product_id, category, brand, price, quantity, currency, cart_id, order_id, revenue, items,
       channel, campaign, url, properties, extra, amount_minor, amount, reporting_currency, worth_minor, timezone, birthday
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
    worth_minor        Int64                    COMMENT 'What was put into the cart or taken out, price times quantity (never negative; 0 without a price, and for other types), in minor units (cents) of the reporting currency',
    timezone           LowCardinality(String)   COMMENT 'Time zone of the user, by its IANA name, as sent; empty: not given',
    birthday           String                   COMMENT 'Birthday of the user, YYYY-MM-DD or --MM-DD, as sent; empty: not given'
)
AS
SELECT _topic, _partition, _offset, _time, _lane, _hash, event_id, type, user_id, time, session_id,
       product_id, category, brand, price, quantity, currency, cart_id, order_id, revenue, items,
       channel, campaign, url, properties, extra, amount_minor, amount, reporting_currency, worth_minor, timezone, birthday
FROM events FINAL
WHERE (_topic, _partition, _offset) NOT IN (SELECT source_topic, source_partition, source_offset FROM dead_letters)
  AND (_topic, _partition, _offset) NOT IN (SELECT _topic, _partition, _offset FROM event_repeats)
  AND (_topic, _partition, _offset) NOT IN (SELECT _topic, _partition, _offset FROM order_repeats)
COMMENT 'Every event that counts: an event_id once, a purchase of one order by one user once, and nothing that was refused';

ALTER TABLE transitions
    ADD COLUMN IF NOT EXISTS not_before Nullable(DateTime64(3, 'UTC')) COMMENT 'End of the quiet hours of the user that at lies in; NULL: it does not' CODEC(ZSTD(1)),
    ADD COLUMN IF NOT EXISTS best_hour Nullable(UInt8) COMMENT 'Hour of the day, in zone, at which the user has done the most; NULL: not known' CODEC(ZSTD(1)),
    ADD COLUMN IF NOT EXISTS zone LowCardinality(String) COMMENT 'Time zone of the user, or one like UTC+03:00; empty: no set has quiet hours',
    ADD COLUMN IF NOT EXISTS zone_from LowCardinality(String) COMMENT 'How zone is known: event (an event told it), activity (inferred from the hours of events) or shop (the shop''s); empty: no set has quiet hours';

ALTER TABLE transitions COMMENT COLUMN muted 'Why nobody must act on it: rules, bootstrap, backfill, paused, stale, reentry, cap; empty: a trigger';
