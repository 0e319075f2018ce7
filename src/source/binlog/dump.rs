//! Asking for the binlog, and its events as they come.

use super::login::{execute, is_error, log_in, run_statement, server_error};
use super::wire::Wire;
use crate::error::{Area, Error, Kind, Result};
use crate::event::{GtidSet, SourcePosition};
use crate::source::server::{Flavor, ServerInfo};
use bytes::{Buf, Bytes};
use mysql_async::Opts;
use std::time::Duration;
use uuid::Uuid;

const COM_BINLOG_DUMP: u8 = 0x12;
const COM_REGISTER_REPLICA: u8 = 0x15;
const COM_BINLOG_DUMP_GTID: u8 = 0x1e;
const USE_HEARTBEAT_V2: u16 = 2;
const THROUGH_GTID: u16 = 4;
/// The server gives up on a replica that takes nothing for so long; the stream behind us may be slow for a while.
const WRITE_TIMEOUT_SECONDS: u32 = 3600;

/// How to read the binlog.
#[derive(Debug, Clone)]
pub struct DumpSettings {
    /// The `server_id` of this replica: unique among the server's replicas.
    pub server_id: u32,
    /// How long to wait for a connection.
    pub connect_timeout: Duration,
    /// How long the connection may be silent before it counts as broken.
    pub read_timeout: Duration,
    /// How often the server sends a heartbeat while nothing happens.
    pub heartbeat_interval: Duration,
}

impl DumpSettings {
    /// A `server_id` that most likely nobody else has: beyond the small numbers that people give.
    pub fn random_server_id() -> u32 {
        let [a, b, c, d, ..] = *Uuid::new_v4().as_bytes();
        u32::from_le_bytes([a, b, c, d]) | 0x8000_0000
    }
}

/// A connection on which the server sends its binlog.
#[derive(Debug)]
pub struct BinlogConnection {
    wire: Wire,
}

impl BinlogConnection {
    /// Connects and asks for the binlog from `from` on.
    pub async fn open(options: &Opts, info: &ServerInfo, from: &SourcePosition, settings: &DumpSettings) -> Result<Self> {
        let mut wire = log_in(options, settings.connect_timeout, settings.read_timeout).await?;
        for statement in session_settings(info, from, settings) {
            run_statement(&mut wire, &statement).await?;
        }
        let mut register = vec![COM_REGISTER_REPLICA];
        register.extend_from_slice(&settings.server_id.to_le_bytes());
        // host name, user, password: empty; port, rank, source's id: 0
        register.extend_from_slice(&[0; 13]);
        execute(&mut wire, &register, "the source refuses to register a replica").await?;
        wire.command(&dump_request(info, from, settings)?).await?;
        Ok(Self { wire })
    }

    /// The next event (header, body, checksum) if it is in memory already. Never waits.
    pub fn buffered_event(&mut self) -> Result<Option<Bytes>> {
        let Some(mut packet) = self.wire.buffered_packet()? else { return Ok(None) };
        match packet.first() {
            Some(0) => {
                packet.advance(1);
                Ok(Some(packet))
            }
            Some(0xfe) => Err(Error::new(Area::Source, Kind::Transient, "the source ended the binlog stream")
                .remedy("it connects again; the server was shut down, or another replica has this server_id")),
            _ if is_error(&packet) => Err(dump_error(&packet)),
            _ => Err(Error::new(Area::Source, Kind::Transient, "the source sends what is no binlog event")),
        }
    }

    /// Whether [`Self::buffered_event`] has something to give.
    pub fn has_buffered_event(&self) -> bool {
        self.wire.has_buffered_packet()
    }

    /// Waits until more bytes came. Cancel safe.
    pub async fn fill(&mut self) -> Result<()> {
        self.wire.fill().await
    }
}

fn session_settings(info: &ServerInfo, from: &SourcePosition, settings: &DumpSettings) -> Vec<String> {
    let heartbeat = settings.heartbeat_interval.as_nanos();
    let id = Uuid::new_v5(&Uuid::NAMESPACE_OID, format!("binlake replica {}", settings.server_id).as_bytes());
    let mut statements = vec![
        "SET @master_binlog_checksum = @@GLOBAL.binlog_checksum, @source_binlog_checksum = @@GLOBAL.binlog_checksum".to_owned(),
        format!("SET @master_heartbeat_period = {heartbeat}, @source_heartbeat_period = {heartbeat}"),
        format!("SET @slave_uuid = '{id}', @replica_uuid = '{id}'"),
        format!("SET SESSION net_write_timeout = {WRITE_TIMEOUT_SECONDS}"),
    ];
    if info.flavor == Flavor::MariaDb {
        // 4: knows MariaDB's GTIDs
        statements.push("SET @mariadb_slave_capability = 4".to_owned());
        if let Some(set) = &from.gtid_set {
            let last: Vec<String> = set.mariadb_position().iter().map(ToString::to_string).collect();
            statements.push(format!("SET @slave_connect_state = '{}'", last.join(",")));
            statements.push("SET @slave_gtid_strict_mode = 0".to_owned());
            statements.push("SET @slave_gtid_ignore_duplicates = 0".to_owned());
        }
    }
    statements
}

fn dump_request(info: &ServerInfo, from: &SourcePosition, settings: &DumpSettings) -> Result<Vec<u8>> {
    match (&from.gtid_set, info.flavor) {
        (Some(set), Flavor::MySql) => {
            let data = encode_gtid_set(set);
            let length = u32::try_from(data.len()).map_err(|_| Error::bug("the GTID set is too long"))?;
            let mut request = vec![COM_BINLOG_DUMP_GTID];
            request.extend_from_slice(&(THROUGH_GTID | USE_HEARTBEAT_V2).to_le_bytes());
            request.extend_from_slice(&settings.server_id.to_le_bytes());
            request.extend_from_slice(&0_u32.to_le_bytes());
            request.extend_from_slice(&4_u64.to_le_bytes());
            request.extend_from_slice(&length.to_le_bytes());
            request.extend_from_slice(&data);
            Ok(request)
        }
        (gtids, flavor) => {
            // MariaDB starts at the GTIDs in @slave_connect_state, whatever the file
            let (file, offset) = match gtids {
                Some(_) => ("", 4),
                None => (&*from.coordinates.file, from.coordinates.offset),
            };
            let offset = u32::try_from(offset).map_err(|_| {
                Error::new(Area::Source, Kind::Refused, "the binlog can't be read from beyond 4 GiB in a file without GTIDs")
                    .with("position", &from.coordinates)
                    .remedy("turn gtid_mode on, or take a new snapshot")
            })?;
            let flags = if flavor == Flavor::MySql && info.version >= (8, 0, 26) { USE_HEARTBEAT_V2 } else { 0 };
            let mut request = vec![COM_BINLOG_DUMP];
            request.extend_from_slice(&offset.to_le_bytes());
            request.extend_from_slice(&flags.to_le_bytes());
            request.extend_from_slice(&settings.server_id.to_le_bytes());
            request.extend_from_slice(file.as_bytes());
            Ok(request)
        }
    }
}

/// As the server encodes a GTID set (`Gtid_set::encode`): the form with tags where there is one, else the one that all versions know.
fn encode_gtid_set(set: &GtidSet) -> Vec<u8> {
    let sources: Vec<_> = set.mysql_sources().collect();
    let is_tagged = sources.iter().any(|(_, tag, _)| !tag.is_empty());
    let count = sources.len() as u64;
    let header = if is_tagged { count << 8 | 1 << 56 } else { count };
    let mut bytes = header.to_le_bytes().to_vec();
    for (uuid, tag, intervals) in sources {
        bytes.extend_from_slice(uuid.as_bytes());
        if is_tagged {
            // a variable-length integer below 128 is one byte, shifted by one; a tag has at most 32 characters
            bytes.push(u8::try_from(tag.len() << 1).unwrap_or(0));
            bytes.extend_from_slice(tag.as_bytes());
        }
        bytes.extend_from_slice(&(intervals.len() as u64).to_le_bytes());
        for (first, last) in intervals {
            bytes.extend_from_slice(&first.to_le_bytes());
            bytes.extend_from_slice(&(last + 1).to_le_bytes());
        }
    }
    bytes
}

/// An error in answer to the dump: purged, unknown position, a clash of ids, or anything else.
fn dump_error(packet: &[u8]) -> Error {
    let error = server_error(packet, "the source can't send its binlog");
    let text = String::from_utf8_lossy(packet.get(3..).unwrap_or_default()).to_ascii_lowercase();
    let has = |words: &[&str]| words.iter().any(|word| text.contains(word));
    let refused =
        |what: &'static str| Error::new(Area::Source, Kind::Refused, what).caused_by(std::io::Error::other(error.to_string()));
    if has(&["same server_uuid", "same server_id", "same server uuid", "same server id"]) {
        refused("another replica has the same server_id")
            .remedy("set another server_id in [source], or remove it: a random one is taken then")
    } else if has(&["purged", "could not find first log file", "could not find gtid state", "not in the master's binlog"]) {
        binlog_gap("the server no longer has the binlog from the position where the capture must go on")
    } else if has(&["more gtids", "impossible position", "> file size", "start replication from"]) {
        binlog_gap("the server doesn't know the position where the capture must go on: it was reset, or restored from a backup")
    } else {
        error
    }
}

/// The error for a binlog that doesn't have what the capture needs to go on: the server's history and ours have parted.
pub fn binlog_gap(what: &'static str) -> Error {
    Error::new(Area::Source, Kind::Conflict, what)
        .remedy("run `binlake backfill` to take a new snapshot; keep the binlog longer (binlog_expire_logs_seconds) than the capture may stand still")
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "3e11fa47-71ca-11e1-9e33-c80aa9429562";

    #[test]
    fn gtid_sets_are_encoded_with_and_without_tags() {
        let plain: GtidSet = format!("{A}:1-3:7").parse().unwrap();
        let bytes = encode_gtid_set(&plain);
        assert_eq!(bytes.len(), 8 + 16 + 8 + 2 * 16);
        assert_eq!(bytes[..8], 1_u64.to_le_bytes());
        assert_eq!(bytes[32..48], [1_u64.to_le_bytes(), 4_u64.to_le_bytes()].concat());
        let tagged: GtidSet = format!("{A}:1-3:x:1").parse().unwrap();
        let bytes = encode_gtid_set(&tagged);
        assert_eq!(bytes[..8], [0, 2, 0, 0, 0, 0, 0, 1]);
        assert_eq!(bytes[24], 0, "the source without a tag");
        assert_eq!(bytes[8 + 16 + 1 + 8 + 16 + 16..][..2], [2, b'x']);
    }

    #[test]
    fn the_servers_errors_say_what_to_do() {
        let error = |code: u16, text: &str| dump_error(&[&[0xff], &code.to_le_bytes()[..], b"#HY000", text.as_bytes()].concat());
        let purged = error(1236, "Could not find first log file name in binary log index file");
        assert_eq!(purged.exit_code(), 3);
        assert!(purged.to_string().contains("no longer has the binlog") && purged.to_string().contains("backfill"), "{purged}");
        let clash = error(1236, "A replica with the same server_uuid/server_id as this replica has connected to the source");
        assert!(clash.to_string().contains("same server_id"), "{clash}");
    }
}
