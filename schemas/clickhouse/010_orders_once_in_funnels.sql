-- A purchase of an order that the user had bought before, under another event_id, counts
-- nowhere in the funnels either, as in events_once. They read the events of their time
-- only, so that is also where the order is looked for.

CREATE OR REPLACE VIEW funnel
(
    step            UInt8             COMMENT 'Number of the stage: 1, 2, 3',
    stage           String            COMMENT 'Event type of the stage',
    users           UInt64            COMMENT 'Users who did it at all between from and to',
    in_order        UInt64            COMMENT 'Users who came here stage by stage, within the window of a view between from and to',
    conversion      Nullable(Float64) COMMENT 'in_order as a share of that of the first stage; NULL: nobody was there',
    step_conversion Nullable(Float64) COMMENT 'in_order as a share of that of the stage before; NULL: nobody was there',
    in_progress     UInt64            COMMENT 'Of in_order: users who came no further, but may yet',
    dropped         UInt64            COMMENT 'Of in_order: users who came no further, and whose window has passed'
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
        SELECT user_id, type, time
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
            countIf(type = 'view' AND time < {to:DateTime64(3, 'UTC')}) > 0 AS viewed,
            countIf(type = 'add_to_cart' AND time < {to:DateTime64(3, 'UTC')}) > 0 AS carted,
            countIf(type = 'purchase' AND time < {to:DateTime64(3, 'UTC')}) > 0 AS purchased,
            windowFunnel({window:UInt64} * 1000)(toUInt64(toUnixTimestamp64Milli(time)), type = 'view' AND time < {to:DateTime64(3, 'UTC')}, type = 'add_to_cart', type = 'purchase') AS level,
            level < 3 AND addSeconds(maxIf(time, type = 'view' AND time < {to:DateTime64(3, 'UTC')}), {window:UInt64}) > latest AS open
        FROM seen
        WHERE type IN ('view', 'add_to_cart', 'purchase')
        GROUP BY user_id
    ),
    totals AS
    (
        SELECT
            [countIf(viewed), countIf(carted), countIf(purchased)] AS did,
            [countIf(level >= 1), countIf(level >= 2), countIf(level >= 3)] AS came,
            [countIf(level = 1 AND open), countIf(level = 2 AND open), 0] AS may
        FROM journeys
    )
SELECT
    toUInt8(i) AS step,
    ['view', 'add_to_cart', 'purchase'][i] AS stage,
    did[i] AS users,
    came[i] AS in_order,
    if(came[1] = 0, NULL, came[i] / came[1]) AS conversion,
    if(came[greatest(i - 1, 1)] = 0, NULL, came[i] / came[greatest(i - 1, 1)]) AS step_conversion,
    may[i] AS in_progress,
    if(i = 3, 0, came[i] - came[i + 1] - may[i]) AS dropped
FROM totals
ARRAY JOIN [1, 2, 3] AS i
COMMENT 'funnel(from, to, window): view, add_to_cart, purchase by users, one row a stage';

CREATE OR REPLACE VIEW funnel_by_product
(
    product_id      String            COMMENT 'Id of the product',
    view_users      UInt64            COMMENT 'Users who viewed it at all between from and to',
    cart_users      UInt64            COMMENT 'Users who put it into the cart at all between from and to',
    purchase_users  UInt64            COMMENT 'Users who bought it at all between from and to, alone or among the items of an order',
    carted_in_order UInt64            COMMENT 'Users who viewed it, then put it into the cart, within the window of the view',
    bought_in_order UInt64            COMMENT 'Users who viewed it, put it into the cart, then bought it, within the window of the view',
    conversion      Nullable(Float64) COMMENT 'bought_in_order as a share of view_users; NULL: nobody viewed it',
    in_progress     UInt64            COMMENT 'Users who viewed it and have not bought it in order, but may yet'
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
        SELECT user_id, type, time, product_id, items
        FROM events
        WHERE time >= {from:DateTime64(3, 'UTC')} AND time < addSeconds({to:DateTime64(3, 'UTC')}, {window:UInt64})
          AND (_topic, _partition, _offset) NOT IN (SELECT _topic, _partition, _offset FROM repeats)
          AND (_topic, _partition, _offset) NOT IN (SELECT _topic, _partition, _offset FROM again)
          AND (_topic, _partition, _offset) NOT IN (SELECT source_topic, source_partition, source_offset FROM dead_letters)
    ),
    touched AS
    (
        SELECT
            user_id, type, time,
            arrayJoin(arrayDistinct(arrayFilter(id -> id != '', if(items = '', [product_id],
                JSONExtract(items, 'Array(Tuple(product_id String))').1)))) AS part
        FROM seen
        WHERE type IN ('view', 'add_to_cart', 'purchase')
    ),
    journeys AS
    (
        SELECT
            part,
            user_id,
            countIf(type = 'view' AND time < {to:DateTime64(3, 'UTC')}) > 0 AS viewed,
            countIf(type = 'add_to_cart' AND time < {to:DateTime64(3, 'UTC')}) > 0 AS carted,
            countIf(type = 'purchase' AND time < {to:DateTime64(3, 'UTC')}) > 0 AS purchased,
            windowFunnel({window:UInt64} * 1000)(toUInt64(toUnixTimestamp64Milli(time)), type = 'view' AND time < {to:DateTime64(3, 'UTC')}, type = 'add_to_cart', type = 'purchase') AS level,
            level BETWEEN 1 AND 2 AND addSeconds(maxIf(time, type = 'view' AND time < {to:DateTime64(3, 'UTC')}), {window:UInt64}) > latest AS open
        FROM touched
        GROUP BY part, user_id
    )
SELECT
    part AS product_id,
    countIf(viewed) AS view_users,
    countIf(carted) AS cart_users,
    countIf(purchased) AS purchase_users,
    countIf(level >= 2) AS carted_in_order,
    countIf(level >= 3) AS bought_in_order,
    if(view_users = 0, NULL, bought_in_order / view_users) AS conversion,
    countIf(open) AS in_progress
FROM journeys
WHERE viewed OR carted OR purchased
GROUP BY product_id
COMMENT 'funnel_by_product(from, to, window): the funnel of each product; a user counts for every product touched';

CREATE OR REPLACE VIEW funnel_by_category
(
    category        String            COMMENT 'Category, of the item where the order has items; empty: not given',
    view_users      UInt64            COMMENT 'Users who viewed something in it at all between from and to',
    cart_users      UInt64            COMMENT 'Users who put something of it into the cart at all between from and to',
    purchase_users  UInt64            COMMENT 'Users who bought something of it at all between from and to',
    carted_in_order UInt64            COMMENT 'Users who viewed, then put into the cart, within the window of the view',
    bought_in_order UInt64            COMMENT 'Users who viewed, put into the cart, then bought, within the window of the view',
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
        SELECT user_id, type, time, category, items
        FROM events
        WHERE time >= {from:DateTime64(3, 'UTC')} AND time < addSeconds({to:DateTime64(3, 'UTC')}, {window:UInt64})
          AND (_topic, _partition, _offset) NOT IN (SELECT _topic, _partition, _offset FROM repeats)
          AND (_topic, _partition, _offset) NOT IN (SELECT _topic, _partition, _offset FROM again)
          AND (_topic, _partition, _offset) NOT IN (SELECT source_topic, source_partition, source_offset FROM dead_letters)
    ),
    touched AS
    (
        SELECT
            user_id, type, time,
            arrayJoin(arrayDistinct(if(items IN ('', '[]'), [toString(category)],
                arrayMap(item -> if(JSONExtractString(item, 'category') = '', toString(category), JSONExtractString(item, 'category')), JSONExtractArrayRaw(items))))) AS part
        FROM seen
        WHERE type IN ('view', 'add_to_cart', 'purchase')
    ),
    journeys AS
    (
        SELECT
            part,
            user_id,
            countIf(type = 'view' AND time < {to:DateTime64(3, 'UTC')}) > 0 AS viewed,
            countIf(type = 'add_to_cart' AND time < {to:DateTime64(3, 'UTC')}) > 0 AS carted,
            countIf(type = 'purchase' AND time < {to:DateTime64(3, 'UTC')}) > 0 AS purchased,
            windowFunnel({window:UInt64} * 1000)(toUInt64(toUnixTimestamp64Milli(time)), type = 'view' AND time < {to:DateTime64(3, 'UTC')}, type = 'add_to_cart', type = 'purchase') AS level,
            level BETWEEN 1 AND 2 AND addSeconds(maxIf(time, type = 'view' AND time < {to:DateTime64(3, 'UTC')}), {window:UInt64}) > latest AS open
        FROM touched
        GROUP BY part, user_id
    )
SELECT
    part AS category,
    countIf(viewed) AS view_users,
    countIf(carted) AS cart_users,
    countIf(purchased) AS purchase_users,
    countIf(level >= 2) AS carted_in_order,
    countIf(level >= 3) AS bought_in_order,
    if(view_users = 0, NULL, bought_in_order / view_users) AS conversion,
    countIf(open) AS in_progress
FROM journeys
WHERE viewed OR carted OR purchased
GROUP BY category
COMMENT 'funnel_by_category(from, to, window): the funnel of each category; a user counts for every category touched';

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
            toString(argMinIf(channel, (time, _topic, _partition, _offset), channel != '')) AS part,
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
