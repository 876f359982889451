-- Revenue is there also for who has SQL's standard behaviour of ClickHouse. Under
-- aggregate_functions_null_for_empty = 1 what is added up of nothing is NULL, and a day without
-- a refund, or a month without an order, was an error of the whole view; under
-- prefer_column_name_to_alias = 1 GROUP BY currency is that of the events, and was one too.

CREATE OR REPLACE VIEW revenue_daily
(
    day                 Date                     COMMENT 'Day, UTC',
    currency            LowCardinality(String)   COMMENT 'ISO 4217 code of the reporting currency',
    orders              UInt64                   COMMENT 'Purchases',
    buyers              UInt64                   COMMENT 'Users who bought',
    gross               Decimal(38, 4)           COMMENT 'What the purchases brought',
    refunds             UInt64                   COMMENT 'Refunds',
    refunded            Decimal(38, 4)           COMMENT 'What the refunds gave back',
    net                 Decimal(38, 4)           COMMENT 'gross less refunded',
    average_order_value Nullable(Float64)        COMMENT 'gross by orders; NULL: no order'
)
AS
SELECT
    toDate(time) AS day,
    reporting_currency AS currency,
    ifNull(countIf(type = 'purchase'), 0) AS orders,
    ifNull(uniqExactIf(user_id, type = 'purchase'), 0) AS buyers,
    ifNull(sumIf(amount, type = 'purchase'), 0) AS gross,
    ifNull(countIf(type = 'refund'), 0) AS refunds,
    ifNull(sumIf(amount, type = 'refund'), 0) AS refunded,
    gross - refunded AS net,
    if(orders = 0, NULL, toFloat64(gross) / orders) AS average_order_value
FROM events_once
WHERE type IN ('purchase', 'refund')
GROUP BY toDate(time), reporting_currency
COMMENT 'Orders, refunds and revenue of each day';

CREATE OR REPLACE VIEW cohort_retention
(
    cohort    Date                   COMMENT 'First day of the month of the users'' first purchase, UTC',
    month     UInt32                 COMMENT 'Months since: 0 is the month of the first purchase',
    users     UInt64                 COMMENT 'Users in the cohort',
    active    UInt64                 COMMENT 'Of them: users who bought in that month',
    retention Float64                COMMENT 'active as a share of users',
    orders    UInt64                 COMMENT 'Purchases of the cohort in that month',
    revenue   Decimal(38, 4)         COMMENT 'What they brought, in units of the reporting currency; refunds are not taken off'
)
AS
WITH
    purchases AS
    (
        SELECT user_id, toStartOfMonth(time) AS bought, count() AS orders, sum(amount) AS revenue
        FROM events_once
        WHERE type = 'purchase'
        GROUP BY user_id, bought
    ),
    firsts AS
    (
        SELECT
            bought, orders, revenue,
            min(bought) OVER (PARTITION BY user_id) AS cohort,
            max(bought) OVER () AS latest
        FROM purchases
    ),
    activity AS
    (
        SELECT cohort, toUInt32(dateDiff('month', cohort, bought)) AS month, any(latest) AS latest, count() AS active, sum(orders) AS orders, sum(revenue) AS revenue
        FROM firsts
        GROUP BY cohort, month
    ),
    cohorts AS
    (
        SELECT cohort, any(latest) AS latest, maxIf(active, month = 0) AS users, groupArray((month, active, orders, revenue)) AS months
        FROM activity
        GROUP BY cohort
    )
SELECT
    cohort,
    month,
    users,
    found.2 AS active,
    found.2 / users AS retention,
    ifNull(found.3, 0) AS orders,
    ifNull(found.4, 0) AS revenue
FROM
(
    SELECT
        cohort,
        users,
        arrayJoin(range(toUInt32(dateDiff('month', cohort, latest)) + 1)) AS month,
        arrayFirst(m -> m.1 = month, months) AS found -- zeros if there is none
    FROM cohorts
) AS grid
COMMENT 'Of the users who first bought in a month, how many bought again in each month since';
