//! One reader's connection: statements, single rows as text, and results that stream row by row as the server sends them.
//!
//! It is the same bare connection as the binlog's: a row stays the bytes of its packet until its values stand in the columns.

use super::binlog::{Wire, is_error, log_in, run_statement, server_error};
use super::bytes::Reader;
use super::server::Flavor;
use crate::error::{Area, Error, Kind, Result};
use bytes::Bytes;
use mysql_async::Opts;
use std::time::Duration;

const COM_QUERY: u8 = 0x03;
const COM_STATEMENT_PREPARE: u8 = 0x16;
const COM_STATEMENT_EXECUTE: u8 = 0x17;
const COM_STATEMENT_CLOSE: u8 = 0x19;
/// The server may sort or skip for so long before the next row comes.
const READ_TIMEOUT: Duration = Duration::from_secs(1800);

/// A connection on which each value arrives as it is stored.
#[derive(Debug)]
pub(super) struct Session {
    wire: Wire,
    /// Whether rows of a result are still to come.
    in_result: bool,
    /// The prepared statement whose rows they are.
    statement: Option<[u8; 4]>,
}

/// A result column, as far as its values' bytes depend on it: `MYSQL_TYPE_…`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct WireType(pub(super) u8);

impl Session {
    /// Connects.
    pub(super) async fn open(options: &Opts, flavor: Flavor, connect_timeout: Duration) -> Result<Self> {
        let mut wire = log_in(options, connect_timeout, READ_TIMEOUT).await?;
        let no_limit = match flavor {
            Flavor::MySql => "max_execution_time = 0",
            Flavor::MariaDb => "max_statement_time = 0",
        };
        run_statement(&mut wire, "SET NAMES utf8mb4").await?;
        // no results are converted: text arrives in its column's own character set, as in the binlog
        let settings = format!(
            "SET SESSION time_zone = '+00:00', sql_mode = '', character_set_results = NULL, net_write_timeout = 3600, \
             wait_timeout = 2147483, {no_limit}"
        );
        run_statement(&mut wire, &settings).await?;
        run_statement(&mut wire, "SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ").await?;
        Ok(Self { wire, in_result: false, statement: None })
    }

    /// Runs a statement that has no rows.
    pub(super) async fn run(&mut self, sql: &str) -> Result<()> {
        self.drain().await?;
        run_statement(&mut self.wire, sql).await
    }

    /// The first row, each value as text (or bytes).
    pub(super) async fn first_row(&mut self, sql: &str) -> Result<Option<Vec<Option<Bytes>>>> {
        self.drain().await?;
        self.wire.command(&[&[COM_QUERY], sql.as_bytes()].concat()).await?;
        let width = self.column_types().await?.len();
        let Some(packet) = self.next_row().await? else { return Ok(None) };
        let mut reader = Reader::new(&packet);
        let mut values = Vec::with_capacity(width);
        for _ in 0..width {
            if reader.rest().first() == Some(&0xfb) {
                reader.u8()?;
                values.push(None);
            } else {
                values.push(Some(packet.slice_ref(reader.sized()?)));
            }
        }
        self.drain().await?;
        Ok(Some(values))
    }

    /// Begins a result in the binary protocol: its columns' types. The rows come by [`Self::next_row`].
    pub(super) async fn stream(&mut self, sql: &str) -> Result<Vec<WireType>> {
        self.drain().await?;
        self.wire.command(&[&[COM_STATEMENT_PREPARE], sql.as_bytes()].concat()).await?;
        let answer = self.answer().await?;
        let mut reader = Reader::new(&answer);
        reader.u8()?;
        let (statement, columns, parameters) = (reader.u32()?, reader.u16()?, reader.u16()?);
        for count in [parameters, columns].into_iter().filter(|count| *count > 0) {
            // each list of columns ends with an EOF
            for _ in 0..=count {
                self.answer().await?;
            }
        }
        let number = statement.to_le_bytes();
        self.wire.command(&[&[COM_STATEMENT_EXECUTE], &number[..], &[0], &1_u32.to_le_bytes()[..]].concat()).await?;
        let types = self.column_types().await?;
        self.statement = Some(number);
        Ok(types)
    }

    /// The next row's packet; `None`: there are no more.
    pub(super) async fn next_row(&mut self) -> Result<Option<Bytes>> {
        if !self.in_result {
            return Ok(None);
        }
        let packet = match self.wire.buffered_packet()? {
            Some(packet) => packet,
            None => self.wire.packet().await?,
        };
        match packet.first() {
            Some(0xff) => {
                self.in_result = false;
                Err(server_error(&packet, "the rows of a snapshot can't be read"))
            }
            Some(0xfe) if packet.len() < 9 => {
                self.in_result = false;
                Ok(None)
            }
            _ => Ok(Some(packet)),
        }
    }

    /// Reads what is left of a result that nobody wants.
    pub(super) async fn drain(&mut self) -> Result<()> {
        while self.in_result {
            match self.next_row().await {
                Err(error) if self.in_result => return Err(error),
                // the server's own error ends the result too
                _ => {}
            }
        }
        if let Some(number) = self.statement.take() {
            self.wire.command(&[&[COM_STATEMENT_CLOSE], &number[..]].concat()).await?;
        }
        Ok(())
    }

    /// The head of a result: a count, the columns, an EOF.
    async fn column_types(&mut self) -> Result<Vec<WireType>> {
        let answer = self.answer().await?;
        let count = Reader::new(&answer).count()?;
        if count == 0 {
            return Err(Error::new(Area::Source, Kind::Refused, "the server answers a SELECT without a result"));
        }
        let mut types = Vec::with_capacity(count);
        for _ in 0..count {
            let packet = self.answer().await?;
            let mut reader = Reader::new(&packet);
            // catalog, database, table, original table, name, original name
            for _ in 0..6 {
                reader.sized()?;
            }
            // the length of what follows, character set, length
            reader.take(7)?;
            types.push(WireType(reader.u8()?));
        }
        self.answer().await?;
        self.in_result = true;
        Ok(types)
    }

    async fn answer(&mut self) -> Result<Bytes> {
        let packet = self.wire.packet().await?;
        if is_error(&packet) { Err(server_error(&packet, "a snapshot's statement is refused")) } else { Ok(packet) }
    }
}
