//! The binlog's events in their order: transactions, tables, rows, and where we are. No I/O and no clock.
//!
//! Rows go to [`LaneBuffers`] as they are read; the position moves at the end of a transaction only. A table whose event can't be understood is stopped
//! at the last position before its transaction, and the others go on.

use super::binlog::event::{
    Checksum, Event, is_from_mariadb, kind, parse_event, parse_format_description, parse_heartbeat_v2, parse_rotate,
};
use super::binlog::gtid_event::{GtidEvent, parse_gtid, parse_mariadb_gtid, parse_tagged_gtid};
use super::binlog::payload::PayloadEvents;
use super::binlog::rows_event::rows_kind;
use super::bytes::name;
use super::lanes::{CurrentTransaction, LaneBuffers};
use super::reader_tables::Mapped;
use super::tracked::TrackedTables;
use super::xa::{PreparedTransactions, XaEvents};
use crate::error::{Area, Error, Kind, Result};
use crate::event::{BinlogCoordinates, Section, SourcePosition, TableId, TableSchema, TransactionStamp};
use crate::time::Timestamp;
use bytes::Bytes;
use std::collections::HashMap;
use std::sync::Arc;

/// What came of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// We are in the middle of a transaction, or the event meant nothing.
    Onward,
    /// A transaction ended: a cut may be made here.
    Boundary,
    /// The server says that nothing happened.
    Heartbeat,
    /// A compressed transaction was opened: call [`BinlogReader::resume`] until it gives something else.
    More,
}

/// The transaction that is being read.
#[derive(Debug)]
pub(super) struct Transaction {
    pub(super) current: CurrentTransaction,
    /// It was read before: its rows are skipped.
    pub(super) is_repeated: bool,
    /// It is one statement without BEGIN and COMMIT (unless BEGIN follows).
    pub(super) is_standalone: bool,
    /// The tables whose rows were pushed.
    pub(super) touched: Vec<usize>,
    /// An XA transaction's events: they count when it is known that it commits.
    pub(super) xa: Option<XaEvents>,
}

/// Reads events.
#[derive(Debug)]
pub struct BinlogReader {
    pub(super) tables: TrackedTables,
    /// The last boundary.
    pub(super) position: SourcePosition,
    source_commit_time: Timestamp,
    /// Where the next event starts.
    file: Arc<str>,
    next_offset: u64,
    checksum: Checksum,
    /// Whether MariaDB wrote the events.
    pub(super) is_mariadb: bool,
    pub(super) maps: HashMap<u64, Mapped>,
    pub(super) transaction: Option<Transaction>,
    serial: u64,
    payload: Option<PayloadEvents>,
    /// XA transactions that are prepared and wait for their end.
    pub(super) prepared: PreparedTransactions,
}

impl BinlogReader {
    /// A reader that goes on from `position`.
    pub fn new(tables: TrackedTables, position: SourcePosition, source_commit_time: Timestamp) -> Self {
        let file = Arc::clone(&position.coordinates.file);
        let next_offset = position.coordinates.offset;
        Self {
            tables,
            position,
            source_commit_time,
            file,
            next_offset,
            checksum: Checksum::Unknown,
            is_mariadb: false,
            maps: HashMap::new(),
            transaction: None,
            serial: 0,
            payload: None,
            prepared: PreparedTransactions::default(),
        }
    }

    /// The tables.
    pub fn tables(&self) -> &TrackedTables {
        &self.tables
    }

    /// The tables, to be changed at a boundary.
    pub fn tables_mut(&mut self) -> &mut TrackedTables {
        // a table may have been replaced: its maps are compared anew
        self.maps.clear();
        &mut self.tables
    }

    /// The rows and counts of each table since the last call.
    pub fn take_counts(&mut self) -> Vec<(TableId, super::tracked::RowCounts)> {
        self.tables.take_counts()
    }

    /// The end of the last transaction that was read whole.
    pub fn position(&self) -> &SourcePosition {
        &self.position
    }

    /// When the source committed it.
    pub fn source_commit_time(&self) -> Timestamp {
        self.source_commit_time
    }

    /// The source was idle at `now`: said by a heartbeat.
    pub fn idle_at(&mut self, now: Timestamp) {
        if self.is_at_boundary() {
            self.source_commit_time = self.source_commit_time.max(now);
        }
    }

    /// Whether no transaction is open.
    pub fn is_at_boundary(&self) -> bool {
        self.transaction.is_none() && self.payload.is_none()
    }

    /// Forgets what belongs to a connection. Only at a boundary: the new connection goes on from [`Self::position`].
    pub fn reconnected(&mut self) {
        self.checksum = Checksum::Unknown;
        self.maps.clear();
        self.file = Arc::clone(&self.position.coordinates.file);
        self.next_offset = self.position.coordinates.offset;
    }

    /// Takes the next event, as the server sent it.
    pub fn feed(&mut self, bytes: &Bytes, lanes: &mut LaneBuffers) -> Result<Progress> {
        let event = parse_event(bytes, self.checksum).map_err(|error| self.locate(error))?;
        if event.kind == kind::FORMAT_DESCRIPTION {
            self.checksum = parse_format_description(bytes)?;
            self.is_mariadb = is_from_mariadb(bytes);
        }
        let start = self.advance(&event);
        let outcome = if event.kind == kind::TRANSACTION_PAYLOAD {
            let body = bytes.slice_ref(event.body);
            self.open_payload(body)
        } else {
            self.handle(&event, start, lanes)
        };
        outcome.map_err(|error| self.locate(error))
    }

    fn locate(&self, error: Error) -> Error {
        error.with("position", format_args!("{}:{}", self.file, self.next_offset))
    }

    /// Goes past an event; gives the offset of its start.
    fn advance(&mut self, event: &Event<'_>) -> u64 {
        if event.is_artificial() || event.end == 0 || matches!(event.kind, kind::HEARTBEAT | kind::HEARTBEAT_V2) {
            return self.next_offset;
        }
        // the header has the low 32 bits alone
        const LOW: u64 = u32::MAX as u64;
        let mut end = self.next_offset & !LOW | u64::from(event.end);
        if end < self.next_offset && event.kind != kind::FORMAT_DESCRIPTION {
            end += LOW + 1;
        }
        self.next_offset = end;
        end.saturating_sub(u64::from(event.size))
    }

    fn open_payload(&mut self, body: Bytes) -> Result<Progress> {
        self.payload = Some(PayloadEvents::open(body)?);
        Ok(Progress::More)
    }

    /// Goes on with a compressed transaction, by one event.
    pub fn resume(&mut self, lanes: &mut LaneBuffers) -> Result<Progress> {
        let Some(mut payload) = self.payload.take() else { return Ok(Progress::Onward) };
        let Some(bytes) = payload.next()? else {
            return if self.transaction.is_none() {
                Ok(Progress::Boundary)
            } else {
                Err(Error::new(Area::Source, Kind::Data, "a compressed transaction has no end"))
            };
        };
        let event = parse_event(bytes, Checksum::None)?;
        let start = self.next_offset;
        self.handle(&event, start, lanes).map_err(|error| self.locate(error))?;
        self.payload = Some(payload);
        Ok(Progress::More)
    }

    pub(super) fn handle(&mut self, event: &Event<'_>, start: u64, lanes: &mut LaneBuffers) -> Result<Progress> {
        if self.keeps_for_xa(event) {
            return Ok(Progress::Onward);
        }
        if let Some(rows) = rows_kind(event.kind) {
            if (kind::MARIADB_ROWS_COMPRESSED_FIRST..=kind::MARIADB_ROWS_COMPRESSED_LAST).contains(&event.kind) {
                let body = super::binlog::mariadb::decompress_rows(event.kind, rows, event.body)?;
                return self.rows(event.kind, &body, lanes);
            }
            return self.rows(event.kind, event.body, lanes);
        }
        match event.kind {
            kind::TABLE_MAP => self.table_map(event.body, lanes),
            kind::GTID => self.begin(parse_gtid(event.body, false)?, event, start),
            kind::ANONYMOUS_GTID => self.begin(parse_gtid(event.body, true)?, event, start),
            kind::GTID_TAGGED => self.begin(parse_tagged_gtid(event.body)?, event, start),
            kind::MARIADB_GTID => self.begin(parse_mariadb_gtid(event.body, event.server_id, event.seconds)?, event, start),
            kind::XID => Ok(self.end()),
            kind::QUERY => self.query(event.body, event, start, lanes),
            kind::MARIADB_QUERY_COMPRESSED => {
                let body = super::binlog::mariadb::decompress_query(event.body)?;
                self.query(&body, event, start, lanes)
            }
            kind::XA_PREPARE => self.xa_prepare(event.body, lanes),
            kind::ROTATE => self.rotate(event),
            kind::HEARTBEAT => self.heartbeat(name(event.body)?.to_owned(), u64::from(event.end)),
            kind::HEARTBEAT_V2 => {
                let (file, offset) = parse_heartbeat_v2(event.body)?;
                self.heartbeat(file, offset)
            }
            kind::FORMAT_DESCRIPTION => self.no_open_transaction(),
            kind::INCIDENT => Err(Error::new(Area::Source, Kind::Refused, "the server says that events were lost from its binlog")
                .remedy("run `binlake backfill` to take a new snapshot")),
            kind::MARIADB_START_ENCRYPTION | kind::STOP | kind::ROWS_QUERY | kind::PREVIOUS_GTIDS => Ok(Progress::Onward),
            kind::MARIADB_ANNOTATE_ROWS | kind::MARIADB_BINLOG_CHECKPOINT | kind::MARIADB_GTID_LIST => Ok(Progress::Onward),
            // INTVAR, RAND, USER_VAR and the like: they go before a statement
            5 | 13 | 14 | 17 | 18 | 28 | 36 | 37 => Ok(Progress::Onward),
            _ if event.is_ignorable() => Ok(Progress::Onward),
            other => {
                Err(Error::new(Area::Source, Kind::Refused, "the binlog has an event that binlake doesn't know")
                    .with("event", other))
            }
        }
    }

    fn begin(&mut self, event: GtidEvent, header: &Event<'_>, start: u64) -> Result<Progress> {
        self.no_open_transaction()?;
        let seconds = Timestamp::from_micros(i64::from(header.seconds) * 1_000_000);
        let is_repeated = match (&event.gtid, &self.position.gtid_set) {
            (Some(gtid), Some(set)) => set.contains(gtid),
            _ => false,
        };
        let stamp = TransactionStamp {
            gtid: event.gtid,
            coordinates: BinlogCoordinates { file: Arc::clone(&self.file), offset: start },
            source_commit_time: event.source_commit_time.unwrap_or(seconds),
            is_snapshot: false,
        };
        self.open(stamp, is_repeated);
        if let Some(transaction) = &mut self.transaction {
            transaction.is_standalone = event.framing.is_standalone || header.kind != kind::MARIADB_GTID;
            if event.framing.is_xa_prepare {
                transaction.is_standalone = false;
                transaction.xa = Some(XaEvents::default());
            }
            transaction.is_standalone |= event.framing.completes_xa;
        }
        Ok(Progress::Onward)
    }

    pub(super) fn open(&mut self, stamp: TransactionStamp, is_repeated: bool) {
        self.serial += 1;
        let current = CurrentTransaction { serial: self.serial, stamp };
        self.transaction = Some(Transaction { current, is_repeated, is_standalone: false, touched: Vec::new(), xa: None });
    }

    /// A transaction without a GTID event before it (old servers).
    pub(super) fn open_without_gtid(&mut self, event: &Event<'_>, start: u64) {
        let stamp = TransactionStamp {
            gtid: None,
            coordinates: BinlogCoordinates { file: Arc::clone(&self.file), offset: start },
            source_commit_time: Timestamp::from_micros(i64::from(event.seconds) * 1_000_000),
            is_snapshot: false,
        };
        self.open(stamp, false);
    }

    /// Where a new transaction or file begins, the last one must have ended.
    fn no_open_transaction(&mut self) -> Result<Progress> {
        match &self.transaction {
            // only its GTID was read: an empty transaction, or a statement that was filtered
            Some(transaction) if transaction.touched.is_empty() => {
                self.end();
                Ok(Progress::Boundary)
            }
            Some(_) => Err(Error::new(Area::Source, Kind::Transient, "a transaction in the binlog has no end")
                .remedy("it is read again from the last cut; the server may have crashed while it wrote it")),
            None => Ok(Progress::Onward),
        }
    }

    /// The transaction ends: all before here was read.
    pub(super) fn end(&mut self) -> Progress {
        self.position.coordinates = BinlogCoordinates { file: Arc::clone(&self.file), offset: self.next_offset };
        if let Some(transaction) = self.transaction.take() {
            let stamp = transaction.current.stamp;
            // a prepared transaction's GTID joins when it ends: else its rows would be lost with this process
            let is_prepared = stamp.gtid.as_ref().is_some_and(|gtid| self.prepared.waits(gtid));
            if let (Some(gtid), Some(set), false) = (&stamp.gtid, &mut self.position.gtid_set, is_prepared) {
                set.add(gtid);
            }
            self.source_commit_time = stamp.source_commit_time;
        }
        Progress::Boundary
    }

    fn rotate(&mut self, event: &Event<'_>) -> Result<Progress> {
        let (file, offset) = parse_rotate(event.body)?;
        if *file != *self.file {
            self.file = file.into();
        }
        self.next_offset = offset;
        // with GTIDs the first, artificial one names the file that the server begins to search in, long before our position
        if event.is_artificial() || !self.is_at_boundary() {
            return Ok(Progress::Onward);
        }
        self.position.coordinates = BinlogCoordinates { file: Arc::clone(&self.file), offset };
        Ok(Progress::Boundary)
    }

    fn heartbeat(&mut self, file: String, offset: u64) -> Result<Progress> {
        if !self.is_at_boundary() || file.is_empty() {
            return Ok(Progress::Onward);
        }
        // transactions that we have are skipped by the server, and heartbeats tell how far it went
        let stands = BinlogCoordinates { file: file.into(), offset };
        if stands > self.position.coordinates {
            self.position.coordinates = stands;
        }
        Ok(Progress::Heartbeat)
    }

    /// Gives a table another shape from here on.
    pub(super) fn new_shape(
        &mut self,
        number: usize,
        schema: TableSchema,
        fill: Option<arrow::array::RecordBatch>,
        lanes: &mut LaneBuffers,
    ) -> Result<()> {
        let schema = Arc::new(schema);
        let stamp = self.stamp();
        tracing::info!(table = %schema.table, position = %stamp.position_text(), columns = schema.columns.len(), "the table has a new shape");
        lanes.push_to_all(number, &Section::NewShape { schema: Arc::clone(&schema), fill, stamp })?;
        self.tables.reshape(number, schema)
    }

    /// The stamp of the open transaction.
    pub(super) fn stamp(&self) -> TransactionStamp {
        match &self.transaction {
            Some(transaction) => transaction.current.stamp.clone(),
            None => TransactionStamp {
                gtid: None,
                coordinates: BinlogCoordinates { file: Arc::clone(&self.file), offset: self.next_offset },
                source_commit_time: self.source_commit_time,
                is_snapshot: false,
            },
        }
    }

    /// Stops every table of which the open transaction has pushed rows.
    pub(super) fn stop_touched(&mut self, error: impl Fn() -> Error) -> Result<()> {
        let touched = self.transaction.as_mut().map(|transaction| std::mem::take(&mut transaction.touched)).unwrap_or_default();
        touched.into_iter().try_for_each(|number| {
            let table = self.tables.get(number)?.schema.table.clone();
            self.tables.stop(number, &self.position, &error().with("table", table))
        })
    }

    /// Stops one table at the last boundary.
    pub(super) fn stop(&mut self, number: usize, error: Error) -> Result<()> {
        let table = self.tables.get(number)?.schema.table.clone();
        self.tables.stop(number, &self.position, &error.with("table", table))
    }
}
