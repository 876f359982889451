package clickhouse

// The columns of the tables, as the migrations make them. A test compares.
const (
	eventColumns = `
		_topic LowCardinality(String)
		_partition Int32
		_offset Int64
		_time DateTime64(3, 'UTC')
		_lane LowCardinality(String)
		_hash UInt64
		event_id String
		type LowCardinality(String)
		user_id String
		time DateTime64(3, 'UTC')
		session_id String
		product_id String
		category LowCardinality(String)
		brand LowCardinality(String)
		price Nullable(Decimal(19, 6))
		quantity Nullable(Decimal(19, 6))
		currency LowCardinality(String)
		cart_id String
		order_id String
		revenue Nullable(Decimal(19, 6))
		items String
		channel LowCardinality(String)
		campaign LowCardinality(String)
		url String
		properties String
		extra String
		amount_minor Int64
		amount Decimal(38, 4)
		reporting_currency LowCardinality(String)
		worth_minor Int64
		timezone LowCardinality(String)
		birthday String
	`

	transitionColumns = `
		_topic LowCardinality(String)
		_partition Int32
		_offset Int64
		_time DateTime64(3, 'UTC')
		_hash UInt64
		id String
		n UInt64
		mark_next Int64
		mark_clock DateTime64(3, 'UTC')
		mark_fired DateTime64(3, 'UTC')
		user_id String
		segment_set LowCardinality(String)
		seq UInt32
		from_segment LowCardinality(String)
		to_segment LowCardinality(String)
		at DateTime64(3, 'UTC')
		muted LowCardinality(String)
		cause LowCardinality(String)
		cause_type LowCardinality(String)
		cause_event_id String
		cause_topic LowCardinality(String)
		cause_partition Nullable(Int32)
		cause_offset Nullable(Int64)
		cause_due Nullable(DateTime64(3, 'UTC'))
		recency_seconds Int64
		orders UInt32
		revenue_minor Int64
		revenue Decimal(38, 4)
		reporting_currency LowCardinality(String)
		first_seen DateTime64(3, 'UTC')
		last_seen DateTime64(3, 'UTC')
		first_purchase Nullable(DateTime64(3, 'UTC'))
		last_purchase Nullable(DateTime64(3, 'UTC'))
		segments Map(LowCardinality(String), String)
		expected_segment LowCardinality(String)
		expected_at Nullable(DateTime64(3, 'UTC'))
		rules String
		evidence_clause String
		evidence_was String
		evidence_is String
		cause_epoch Nullable(UInt64)
		cart String
		not_before Nullable(DateTime64(3, 'UTC'))
		best_hour Nullable(UInt8)
		zone LowCardinality(String)
		zone_from LowCardinality(String)
	`

	deadLetterColumns = `
		_topic LowCardinality(String)
		_partition Int32
		_offset Int64
		_time DateTime64(3, 'UTC')
		_hash UInt64
		reason LowCardinality(String)
		detail String
		source_topic LowCardinality(String)
		source_partition Int32
		source_offset Int64
		source_time DateTime64(3, 'UTC')
		n UInt64
		key Nullable(String)
		value Nullable(String)
		value_size UInt64
		value_sha256 String
		headers Array(Tuple(key String, value String))
	`
)
