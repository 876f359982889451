-- Which events count, and which only repeat what was counted before.
--
-- The positions in dead_letters count nowhere: most are not in events at all, but an
-- event from the future is well-formed, so it is in both.
-- An event_id counts once, and so does a purchase of one order by one user: the first
-- in the log, as for the segments. (Where one id lies in several partitions, which the
-- segments can't see, the lowest partition's is the first.) Here they count once for
-- ever; the segments look back as far as their dedup window and a user's last orders.
--
-- Few events are repeated, and the views are made for that: one pass over the hashes of
-- the ids finds the few candidates, and only these are compared in full. FINAL removes
-- rows that were sent twice and are not merged yet.

CREATE OR REPLACE VIEW event_repeats
(
    _topic     LowCardinality(String) COMMENT 'Kafka topic of the repeated event',
    _partition Int32                  COMMENT 'Kafka partition of the repeated event',
    _offset    Int64                  COMMENT 'Kafka offset of the repeated event',
    event_id   String                 COMMENT 'The id that an earlier record has too'
)
AS
SELECT DISTINCT _topic, _partition, _offset, event_id
FROM
(
    SELECT _topic, _partition, _offset, event_id, min((_topic, _partition, _offset)) OVER (PARTITION BY event_id) AS first
    FROM events
    WHERE cityHash64(event_id) IN (SELECT cityHash64(event_id) AS id_hash FROM events GROUP BY id_hash HAVING count() > 1)
      AND (_topic, _partition, _offset) NOT IN (SELECT source_topic, source_partition, source_offset FROM dead_letters)
) AS candidates
WHERE (_topic, _partition, _offset) > first
COMMENT 'Positions of the events whose event_id was seen before; they count nowhere';

CREATE OR REPLACE VIEW order_repeats
(
    _topic     LowCardinality(String) COMMENT 'Kafka topic of the repeated purchase',
    _partition Int32                  COMMENT 'Kafka partition of the repeated purchase',
    _offset    Int64                  COMMENT 'Kafka offset of the repeated purchase',
    user_id    String                 COMMENT 'Id of the user',
    order_id   String                 COMMENT 'The order that an earlier purchase of this user has too'
)
AS
SELECT DISTINCT _topic, _partition, _offset, user_id, order_id
FROM
(
    SELECT _topic, _partition, _offset, user_id, order_id, min((_topic, _partition, _offset)) OVER (PARTITION BY user_id, order_id) AS first_of_order
    FROM
    (
        SELECT _topic, _partition, _offset, type, user_id, order_id, min((_topic, _partition, _offset)) OVER (PARTITION BY event_id) AS first_of_event
        FROM events
        WHERE event_id IN
        (
            SELECT event_id FROM events
            WHERE type = 'purchase'
              AND cityHash64(user_id, order_id) IN
              (
                  SELECT cityHash64(user_id, order_id) AS order_hash FROM events WHERE type = 'purchase' GROUP BY order_hash HAVING count() > 1
              )
        )
        AND (_topic, _partition, _offset) NOT IN (SELECT source_topic, source_partition, source_offset FROM dead_letters)
    ) AS candidates
    WHERE type = 'purchase' AND (_topic, _partition, _offset) = first_of_event -- others are event_repeats
) AS purchases
WHERE (_topic, _partition, _offset) > first_of_order
COMMENT 'Positions of the purchases whose order this user had bought before, under another event_id; they count nowhere';

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
    reporting_currency LowCardinality(String)   COMMENT 'ISO 4217 code of the currency of amount and amount_minor'
)
AS
SELECT _topic, _partition, _offset, _time, _lane, _hash, event_id, type, user_id, time, session_id,
       product_id, category, brand, price, quantity, currency, cart_id, order_id, revenue, items,
       channel, campaign, url, properties, extra, amount_minor, amount, reporting_currency
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
    reporting_currency LowCardinality(String)   COMMENT 'ISO 4217 code of the currency of amount and amount_minor'
)
AS
SELECT _topic, _partition, _offset, _time, _lane, _hash, event_id, type, user_id, time, session_id,
       product_id, category, brand, price, quantity, currency, cart_id, order_id, revenue, items,
       channel, campaign, url, properties, extra, amount_minor, amount, reporting_currency
FROM events FINAL
WHERE (_topic, _partition, _offset) NOT IN (SELECT source_topic, source_partition, source_offset FROM dead_letters)
  AND (_topic, _partition, _offset) NOT IN (SELECT _topic, _partition, _offset FROM event_repeats)
  AND (_topic, _partition, _offset) NOT IN (SELECT _topic, _partition, _offset FROM order_repeats)
COMMENT 'Every event that counts: an event_id once, a purchase of one order by one user once, and nothing that was refused';
