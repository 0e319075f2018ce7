//! The names of all metrics, with their units and labels. Counters end in `_total`; labels never hold a row's values.

use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};

/// Seconds since the source committed what was last read from its binlog (heartbeats count: an idle source has none).
pub const CAPTURE_LAG_SECONDS: &str = "binlake_capture_lag_seconds";
/// Seconds since the source committed what a table's last commit has. Label `table`.
pub const TABLE_LAG_SECONDS: &str = "binlake_table_lag_seconds";
/// Rows read from the source. Labels `table`, `operation` (c, u, d, r).
pub const CAPTURED_ROWS: &str = "binlake_captured_rows_total";
/// Bytes of binlog events read.
pub const BINLOG_BYTES: &str = "binlake_binlog_bytes_total";
/// Chunks appended to the stream.
pub const CHUNKS: &str = "binlake_chunks_total";
/// Bytes of these chunks as they lie in the stream.
pub const CHUNK_BYTES: &str = "binlake_chunk_bytes_total";
/// Seconds that it took to make one group of appends to the embedded log durable.
pub const STREAM_SYNC_SECONDS: &str = "binlake_stream_sync_duration_seconds";
/// Records that a Kinesis stream took.
pub const KINESIS_PUT_RECORDS: &str = "binlake_kinesis_put_records_total";
/// Bytes of these records.
pub const KINESIS_PUT_BYTES: &str = "binlake_kinesis_put_bytes_total";
/// Records that a Kinesis stream refused because a shard had enough: they are put again.
pub const KINESIS_PUT_THROTTLED: &str = "binlake_kinesis_put_throttled_total";
/// Records that were put on a Kinesis stream again, for whatever reason.
pub const KINESIS_PUT_RETRIES: &str = "binlake_kinesis_put_retries_total";
/// Seconds that a call of PutRecords took.
pub const KINESIS_PUT_SECONDS: &str = "binlake_kinesis_put_duration_seconds";
/// Records read from a Kinesis stream.
pub const KINESIS_READ_RECORDS: &str = "binlake_kinesis_read_records_total";
/// Bytes of these records.
pub const KINESIS_READ_BYTES: &str = "binlake_kinesis_read_bytes_total";
/// Reads of a shard that were refused because others read it, too.
pub const KINESIS_READ_THROTTLED: &str = "binlake_kinesis_read_throttled_total";
/// Records on a Kinesis stream that aren't Binlake's and were passed over.
pub const KINESIS_FOREIGN_RECORDS: &str = "binlake_kinesis_foreign_records_total";
/// Seconds that the reader is behind the end of a shard. Label `shard`.
pub const KINESIS_BEHIND_SECONDS: &str = "binlake_kinesis_behind_seconds";
/// Shards that are being read.
pub const KINESIS_SHARDS: &str = "binlake_kinesis_shards";
/// Cuts put on the stream.
pub const CUTS: &str = "binlake_cuts_total";
/// Times that the connection to the source was made anew after it was lost.
pub const RECONNECTS: &str = "binlake_source_reconnects_total";
/// Dates that don't exist and became NULL. Label `table`.
pub const ZERO_DATES: &str = "binlake_zero_dates_total";
/// Values with bytes that their character set doesn't have. Label `table`.
pub const INVALID_TEXT: &str = "binlake_invalid_text_total";
/// Records read from streams that others write. Label `stream`.
pub const FOREIGN_RECORDS: &str = "binlake_foreign_records_total";
/// Records that could not be read and are in the dead-letter area. Label `table`.
pub const DEAD_LETTERS: &str = "binlake_dead_letters_total";
/// Values of records that were not of their column's type and became NULL. Label `table`.
pub const BAD_VALUES: &str = "binlake_bad_values_total";
/// Valid times of histories that were NULL, unreadable or empty periods; the system time, or no end, took their place.
pub const INVALID_VALID_TIMES: &str = "binlake_invalid_valid_times_total";
/// Rows that lost against a newer one by the table's ordering. Label `table`.
pub const LATE_ROWS: &str = "binlake_late_rows_total";
/// Rows that found their item in a lookup. Label `lookup`.
pub const LOOKUP_HITS: &str = "binlake_lookup_hits_total";
/// Rows that have no item in a lookup. Label `lookup`.
pub const LOOKUP_MISSES: &str = "binlake_lookup_misses_total";
/// Items of a lookup as it was read last. Label `lookup`.
pub const LOOKUP_ITEMS: &str = "binlake_lookup_items";
/// When a lookup was read last, in seconds since 1970. Label `lookup`.
pub const LOOKUP_READ_TIME: &str = "binlake_lookup_read_timestamp_seconds";
/// Times that a lookup could not be read; what was read before stays in use. Label `lookup`.
pub const LOOKUP_ERRORS: &str = "binlake_lookup_errors_total";
/// Items written by deliveries. Labels `target`, `operation` (put, delete).
pub const DELIVERED_ITEMS: &str = "binlake_delivered_items_total";
/// Rows that a transform's WHERE dropped. Label `table`.
pub const DROPPED_ROWS: &str = "binlake_dropped_rows_total";
/// Commits to the lake. Label `table`.
pub const COMMITS: &str = "binlake_commits_total";
/// Seconds that a commit took. Label `table`.
pub const COMMIT_SECONDS: &str = "binlake_commit_duration_seconds";
/// Rows that commits changed. Labels `table`, `operation` (c, u, d).
pub const COMMITTED_ROWS: &str = "binlake_committed_rows_total";
/// Bytes of base files written. Label `table`.
pub const WRITTEN_BYTES: &str = "binlake_written_bytes_total";
/// Entries of the catalog that were made or changed.
pub const CATALOG_CHANGES: &str = "binlake_catalog_changes_total";
/// Times that a table could not be registered in the catalog.
pub const CATALOG_ERRORS: &str = "binlake_catalog_errors_total";
/// Bytes of sorted runs spilled to local disk.
pub const SPILLED_BYTES: &str = "binlake_spilled_bytes_total";
/// When the table's last commit became visible, in seconds since 1970. Label `table`.
pub const LAST_COMMIT_TIME: &str = "binlake_last_commit_timestamp_seconds";
/// Seconds from the source's commit of the last transaction in a lake commit to its being visible.
pub const FRESHNESS_SECONDS: &str = "binlake_freshness_seconds";
/// Errors that were handled. Labels `table` (empty for none), `kind`.
pub const ERRORS: &str = "binlake_errors_total";
/// Tables that are stopped and need a person.
pub const STOPPED_TABLES: &str = "binlake_stopped_tables";
/// Memory of the process, in bytes.
pub const RESIDENT_BYTES: &str = "binlake_resident_memory_bytes";
/// Always 1. Label `version`.
pub const BUILD_INFO: &str = "binlake_build_info";

/// Upper ends of the buckets of all histograms of seconds.
pub const SECONDS_BUCKETS: [f64; 13] = [0.01, 0.03, 0.1, 0.3, 0.5, 1.0, 2.0, 3.0, 5.0, 10.0, 30.0, 60.0, 300.0];

/// Tells the exporter what each metric is.
pub fn describe() {
    describe_gauge!(CAPTURE_LAG_SECONDS, Unit::Seconds, "Since the source committed what was last read from its binlog");
    describe_gauge!(TABLE_LAG_SECONDS, Unit::Seconds, "Since the source committed what the table's last commit has");
    describe_counter!(CAPTURED_ROWS, Unit::Count, "Rows read from the source");
    describe_counter!(BINLOG_BYTES, Unit::Bytes, "Binlog events read");
    describe_counter!(CHUNKS, Unit::Count, "Chunks appended to the stream");
    describe_counter!(CHUNK_BYTES, Unit::Bytes, "Chunks as they lie in the stream");
    describe_histogram!(STREAM_SYNC_SECONDS, Unit::Seconds, "Making one group of appends durable");
    describe_counter!(KINESIS_PUT_RECORDS, Unit::Count, "Records that the Kinesis stream took");
    describe_counter!(KINESIS_PUT_BYTES, Unit::Bytes, "Records that the Kinesis stream took");
    describe_counter!(KINESIS_PUT_THROTTLED, Unit::Count, "Records that a shard refused because it had enough");
    describe_counter!(KINESIS_PUT_RETRIES, Unit::Count, "Records that were put again");
    describe_histogram!(KINESIS_PUT_SECONDS, Unit::Seconds, "Duration of a call of PutRecords");
    describe_counter!(KINESIS_READ_RECORDS, Unit::Count, "Records read from the Kinesis stream");
    describe_counter!(KINESIS_READ_BYTES, Unit::Bytes, "Records read from the Kinesis stream");
    describe_counter!(KINESIS_READ_THROTTLED, Unit::Count, "Reads that a shard refused because others read it, too");
    describe_counter!(KINESIS_FOREIGN_RECORDS, Unit::Count, "Records on the Kinesis stream that aren't Binlake's");
    describe_gauge!(KINESIS_BEHIND_SECONDS, Unit::Seconds, "How far the reader is behind the end of the shard");
    describe_gauge!(KINESIS_SHARDS, Unit::Count, "Shards that are being read");
    describe_counter!(CUTS, Unit::Count, "Cuts put on the stream");
    describe_counter!(RECONNECTS, Unit::Count, "Connections to the source made anew");
    describe_counter!(ZERO_DATES, Unit::Count, "Dates that don't exist and became NULL");
    describe_counter!(INVALID_TEXT, Unit::Count, "Values with bytes that their character set doesn't have");
    describe_counter!(FOREIGN_RECORDS, Unit::Count, "Records read from streams that others write");
    describe_counter!(DEAD_LETTERS, Unit::Count, "Records in the dead-letter area, as they came");
    describe_counter!(BAD_VALUES, Unit::Count, "Values of records that became NULL");
    describe_counter!(INVALID_VALID_TIMES, Unit::Count, "Valid times of histories that could not be read");
    describe_counter!(LATE_ROWS, Unit::Count, "Rows that lost against a newer one by the table's ordering");
    describe_counter!(LOOKUP_HITS, Unit::Count, "Rows that found their item in the lookup");
    describe_counter!(LOOKUP_MISSES, Unit::Count, "Rows that have no item in the lookup");
    describe_gauge!(LOOKUP_ITEMS, Unit::Count, "Items of the lookup");
    describe_gauge!(LOOKUP_READ_TIME, Unit::Seconds, "When the lookup was read last");
    describe_counter!(LOOKUP_ERRORS, Unit::Count, "Times that the lookup could not be read");
    describe_counter!(DELIVERED_ITEMS, Unit::Count, "Items written by deliveries");
    describe_counter!(DROPPED_ROWS, Unit::Count, "Rows that the transform's WHERE dropped");
    describe_counter!(COMMITS, Unit::Count, "Commits to the lake");
    describe_histogram!(COMMIT_SECONDS, Unit::Seconds, "Duration of a commit");
    describe_counter!(COMMITTED_ROWS, Unit::Count, "Rows that commits changed");
    describe_counter!(WRITTEN_BYTES, Unit::Bytes, "Base files written");
    describe_counter!(CATALOG_CHANGES, Unit::Count, "Entries of the catalog that were made or changed");
    describe_counter!(CATALOG_ERRORS, Unit::Count, "Times that a table could not be registered in the catalog");
    describe_counter!(SPILLED_BYTES, Unit::Bytes, "Sorted runs spilled to local disk");
    describe_gauge!(LAST_COMMIT_TIME, Unit::Seconds, "When the table's last commit became visible");
    describe_histogram!(FRESHNESS_SECONDS, Unit::Seconds, "From the source's commit to its being visible in the lake");
    describe_counter!(ERRORS, Unit::Count, "Errors that were handled");
    describe_gauge!(STOPPED_TABLES, Unit::Count, "Tables that are stopped and need a person");
    describe_gauge!(RESIDENT_BYTES, Unit::Bytes, "Memory of the process");
    describe_gauge!(BUILD_INFO, Unit::Count, "The version that runs");
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    #[test]
    fn the_page_has_each_metric_and_no_other() {
        let names = |text: &'static str, quote: char| -> BTreeSet<&'static str> {
            text.split(quote).filter(|part| part.starts_with("binlake_") && !part.contains([' ', '\n'])).collect()
        };
        let (all, documented) = (names(include_str!("metrics.rs"), '"'), names(include_str!("../docs/metrics.md"), '`'));
        let all: BTreeSet<&str> = all.into_iter().filter(|name| *name != "binlake_").collect();
        assert!(all.len() > 40, "{all:?}");
        assert_eq!(documented, all);
    }
}
