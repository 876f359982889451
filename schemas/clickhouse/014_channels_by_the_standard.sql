-- Users none of whose events names a channel are of the empty one also under
-- aggregate_functions_null_for_empty = 1: what is looked for among nothing is NULL there, and
-- they were of NULL, in a column that knows none.

CREATE OR REPLACE VIEW funnel_by_channel
(
    channel         String            COMMENT 'Channel of the user''s first event that names one, between from and the end of the window; empty: none does',
    view_users      UInt64            COMMENT 'Users who viewed at all between from and to',
    cart_users      UInt64            COMMENT 'Users who put something into the cart at all between from and to',
    purchase_users  UInt64            COMMENT 'Users who bought at all between from and to',
    carted_in_order UInt64            COMMENT 'Users who viewed, then put something into the cart, within the window of the view',
    bought_in_order UInt64            COMMENT 'Users who viewed, put something into the cart, then bought, within the window of the view',
    conversion      Nullable(Float64) COMMENT 'bought_in_order as a share of view_users; NULL: nobody viewed',
    in_progress     UInt64            COMMENT 'Users who viewed and have not bought in order, but may yet'
)
AS
WITH
    (
        SELECT max(_time) FROM events
        WHERE _time >= {from:DateTime64(3, 'UTC')}
          AND (_topic, _partition, _offset) NOT IN (SELECT source_topic, source_partition, source_offset FROM dead_letters)
    ) AS latest,
    repeats AS
    (
        SELECT _topic, _partition, _offset
        FROM
        (
            SELECT _topic, _partition, _offset, min((_topic, _partition, _offset)) OVER (PARTITION BY event_id) AS first
            FROM events
            WHERE time >= {from:DateTime64(3, 'UTC')} AND time < addSeconds({to:DateTime64(3, 'UTC')}, {window:UInt64})
              AND cityHash64(event_id) IN
              (
                  SELECT cityHash64(event_id) AS id_hash FROM events
                  WHERE time >= {from:DateTime64(3, 'UTC')} AND time < addSeconds({to:DateTime64(3, 'UTC')}, {window:UInt64})
                  GROUP BY id_hash HAVING count() > 1
              )
              AND (_topic, _partition, _offset) NOT IN (SELECT source_topic, source_partition, source_offset FROM dead_letters)
        ) AS candidates
        WHERE (_topic, _partition, _offset) > first
    ),
    again AS
    (
        SELECT _topic, _partition, _offset
        FROM
        (
            SELECT _topic, _partition, _offset, min((_topic, _partition, _offset)) OVER (PARTITION BY user_id, order_id) AS first_of_order
            FROM
            (
                SELECT _topic, _partition, _offset, type, user_id, order_id, min((_topic, _partition, _offset)) OVER (PARTITION BY event_id) AS first_of_event
                FROM events
                WHERE time >= {from:DateTime64(3, 'UTC')} AND time < addSeconds({to:DateTime64(3, 'UTC')}, {window:UInt64})
                  AND event_id IN
                  (
                      SELECT event_id FROM events
                      WHERE type = 'purchase' AND time >= {from:DateTime64(3, 'UTC')} AND time < addSeconds({to:DateTime64(3, 'UTC')}, {window:UInt64})
                        AND cityHash64(user_id, order_id) IN
                        (
                            SELECT cityHash64(user_id, order_id) AS order_hash FROM events
                            WHERE type = 'purchase' AND time >= {from:DateTime64(3, 'UTC')} AND time < addSeconds({to:DateTime64(3, 'UTC')}, {window:UInt64})
                            GROUP BY order_hash HAVING count() > 1
                        )
                  )
                  AND (_topic, _partition, _offset) NOT IN (SELECT source_topic, source_partition, source_offset FROM dead_letters)
            ) AS candidates
            WHERE type = 'purchase' AND (_topic, _partition, _offset) = first_of_event -- others are repeats
        ) AS purchases
        WHERE (_topic, _partition, _offset) > first_of_order
    ),
    seen AS
    (
        SELECT user_id, type, time, channel, _topic, _partition, _offset
        FROM events
        WHERE time >= {from:DateTime64(3, 'UTC')} AND time < addSeconds({to:DateTime64(3, 'UTC')}, {window:UInt64})
          AND (_topic, _partition, _offset) NOT IN (SELECT _topic, _partition, _offset FROM repeats)
          AND (_topic, _partition, _offset) NOT IN (SELECT _topic, _partition, _offset FROM again)
          AND (_topic, _partition, _offset) NOT IN (SELECT source_topic, source_partition, source_offset FROM dead_letters)
    ),
    journeys AS
    (
        SELECT
            user_id,
            ifNull(toString(argMinIf(channel, (time, _topic, _partition, _offset), channel != '')), '') AS part,
            countIf(type = 'view' AND time < {to:DateTime64(3, 'UTC')}) > 0 AS viewed,
            countIf(type = 'add_to_cart' AND time < {to:DateTime64(3, 'UTC')}) > 0 AS carted,
            countIf(type = 'purchase' AND time < {to:DateTime64(3, 'UTC')}) > 0 AS purchased,
            windowFunnel({window:UInt64} * 1000)(toUInt64(toUnixTimestamp64Milli(time)), type = 'view' AND time < {to:DateTime64(3, 'UTC')}, type = 'add_to_cart', type = 'purchase') AS level,
            level BETWEEN 1 AND 2 AND addSeconds(maxIf(time, type = 'view' AND time < {to:DateTime64(3, 'UTC')}), {window:UInt64}) > latest AS open
        FROM seen
        GROUP BY user_id
    )
SELECT
    part AS channel,
    countIf(viewed) AS view_users,
    countIf(carted) AS cart_users,
    countIf(purchased) AS purchase_users,
    countIf(level >= 2) AS carted_in_order,
    countIf(level >= 3) AS bought_in_order,
    if(view_users = 0, NULL, bought_in_order / view_users) AS conversion,
    countIf(open) AS in_progress
FROM journeys
WHERE viewed OR carted OR purchased
GROUP BY channel
COMMENT 'funnel_by_channel(from, to, window): the funnel of each channel, by first touch; a user counts for one channel';
