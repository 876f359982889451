-- An order whose items hold a number that ClickHouse cannot read, as {"serial":
-- 123456789012345678901234} or 1e999, was of no product and of no category: its parser
-- refuses the whole text then. Numbers of such items are read as texts; nobody looks at them.
--
-- The product of an order that has items as well was bought with them, as for the segments.

CREATE OR REPLACE VIEW funnel_by_product
(
    product_id      String            COMMENT 'Id of the product',
    view_users      UInt64            COMMENT 'Users who viewed it at all between from and to',
    cart_users      UInt64            COMMENT 'Users who put it into the cart at all between from and to',
    purchase_users  UInt64            COMMENT 'Users who bought it at all between from and to, as the product of the order or among its items',
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
        SELECT user_id, type, time, product_id,
            if(isValidJSON(items), items, replaceRegexpAll(items, '"((?:[^"\\\\]|\\\\.)*)"|(-?[0-9][-+.0-9eE]*)', '"\\1\\2"')) AS readable
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
            arrayJoin(arrayDistinct(arrayFilter(id -> id != '', arrayPushBack(
                arrayMap(item -> JSONExtractString(item, 'product_id'), JSONExtractArrayRaw(readable)), product_id)))) AS part
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
        SELECT user_id, type, time, category, items,
            if(isValidJSON(items), items, replaceRegexpAll(items, '"((?:[^"\\\\]|\\\\.)*)"|(-?[0-9][-+.0-9eE]*)', '"\\1\\2"')) AS readable
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
                arrayMap(item -> if(JSONExtractString(item, 'category') = '', toString(category), JSONExtractString(item, 'category')), JSONExtractArrayRaw(readable))))) AS part
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
COMMENT 'funnel_by_category(from, to, window): the funnel of each category; a user counts for every category touched'
