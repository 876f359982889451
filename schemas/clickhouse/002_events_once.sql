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
-- the ids finds the few candidates, and only these are compared in full. All others are
-- read as if there were no repeats, in parallel and with their skip indexes. Rows that
-- were sent twice and are not merged yet are among the candidates, so no FINAL is needed.

CREATE OR REPLACE VIEW repeated_ids
(
    id_hash UInt64 COMMENT 'cityHash64 of an event_id that several rows have, or that has the same hash as another'
)
AS
SELECT cityHash64(event_id) AS id_hash
FROM events
GROUP BY id_hash
HAVING count() > 1
COMMENT 'Hashes of the event ids that may be repeated';

CREATE OR REPLACE VIEW order_repeats
(
    _topic     LowCardinality(String) COMMENT 'Kafka topic of the repeated purchase',
    _partition Int32                  COMMENT 'Kafka partition of the repeated purchase',
    _offset    Int64                  COMMENT 'Kafka offset of the repeated purchase',
    user_id    String                 COMMENT 'Id of the user',
    order_id   String                 COMMENT 'The order that an earlier purchase of this user has too'
)
AS
WITH
    candidates AS
    (
        SELECT _topic, _partition, _offset, event_id, user_id, order_id
        FROM events
        WHERE type = 'purchase'
          AND cityHash64(user_id, order_id) IN
          (
              SELECT cityHash64(user_id, order_id) AS order_hash FROM events WHERE type = 'purchase' GROUP BY order_hash HAVING count() > 1
          )
          AND (_topic, _partition, _offset) NOT IN (SELECT source_topic, source_partition, source_offset FROM dead_letters)
    ),
    counted AS
    (
        SELECT _topic, _partition, _offset, user_id, order_id
        FROM candidates
        WHERE (_topic, _partition, _offset) IN
        (
            SELECT first.1, first.2, first.3
            FROM
            (
                SELECT min((_topic, _partition, _offset)) AS first
                FROM events
                WHERE event_id IN (SELECT event_id FROM candidates)
                  AND (_topic, _partition, _offset) NOT IN (SELECT source_topic, source_partition, source_offset FROM dead_letters)
                GROUP BY event_id
            )
        )
    ),
    firsts AS
    (
        SELECT user_id, order_id, min((_topic, _partition, _offset)) AS first FROM counted GROUP BY user_id, order_id
    )
SELECT DISTINCT c._topic AS _topic, c._partition AS _partition, c._offset AS _offset, c.user_id AS user_id, c.order_id AS order_id
FROM counted AS c
INNER JOIN firsts AS f ON c.user_id = f.user_id AND c.order_id = f.order_id
WHERE (c._topic, c._partition, c._offset) > f.first
COMMENT 'Positions of the purchases whose order this user had bought before, under another event_id; they count nowhere';

-- FINAL removes rows that were sent twice and are not merged yet.
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
FROM
(
    SELECT _topic, _partition, _offset, _time, _lane, _hash, event_id, type, user_id, time, session_id,
           product_id, category, brand, price, quantity, currency, cart_id, order_id, revenue, items,
           channel, campaign, url, properties, extra, amount_minor, amount, reporting_currency
    FROM events
    WHERE cityHash64(event_id) NOT IN (SELECT id_hash FROM repeated_ids)
      AND (_topic, _partition, _offset) NOT IN (SELECT source_topic, source_partition, source_offset FROM dead_letters)
    UNION ALL
    SELECT _topic, _partition, _offset, _time, _lane, _hash, event_id, type, user_id, time, session_id,
           product_id, category, brand, price, quantity, currency, cart_id, order_id, revenue, items,
           channel, campaign, url, properties, extra, amount_minor, amount, reporting_currency
    FROM
    (
        SELECT _topic, _partition, _offset, _time, _lane, _hash, event_id, type, user_id, time, session_id,
               product_id, category, brand, price, quantity, currency, cart_id, order_id, revenue, items,
               channel, campaign, url, properties, extra, amount_minor, amount, reporting_currency
        FROM events
        WHERE cityHash64(event_id) IN (SELECT id_hash FROM repeated_ids)
          AND (_topic, _partition, _offset) NOT IN (SELECT source_topic, source_partition, source_offset FROM dead_letters)
        ORDER BY _topic, _partition, _offset
        LIMIT 1 BY event_id
    ) AS repeated
) AS first
WHERE (_topic, _partition, _offset) NOT IN (SELECT _topic, _partition, _offset FROM order_repeats)
COMMENT 'Every event that counts: an event_id once, a purchase of one order by one user once, and nothing that was refused';
