//! A stream's folder: who it is, who writes to it, and which files it has.
//!
//! | file | what |
//! |---|---|
//! | `stream.json` | the format version, the stream's id and number of lanes; written once |
//! | `lock` | locked by the one producer, whose process id it names |
//! | `NNNNNNNNNNNN.segment` | the records |
//! | `end` | up to where the records are durable: what lies behind may be torn, what lies before must be whole |
//! | `released` | what no reader needs lies before this place; written where no reader is registered |
//! | `released.HASH` | the same for one reader, whose name stands behind the place: the lowest of them counts |

use super::Place;
use super::segment::{HEADER_BYTES, SegmentHeader};
use crate::error::{Area, Error, Kind, Result};
use crate::stream::LogIdentity;
use serde::{Deserialize, Serialize};
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use uuid::Uuid;

const FORMAT_VERSION: u32 = 1;
const SEGMENT_SUFFIX: &str = ".segment";
const READER_PREFIX: &str = "released.";

/// `stream.json`.
#[derive(Debug, Serialize, Deserialize)]
struct IdentityFile {
    format_version: u32,
    stream_id: Uuid,
    lanes: u16,
}

/// A stream's folder.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    pub(super) stream: Uuid,
    pub(super) identity: LogIdentity,
}

impl Folder {
    /// Opens the folder at `path`, if there is a stream.
    pub(super) fn open(path: &Path) -> Result<Option<Self>> {
        let file = path.join("stream.json");
        let text = match std::fs::read(&file) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(refused("the stream's folder can't be read", &file, error)),
        };
        let damaged = |what: &'static str| {
            Error::new(Area::Stream, Kind::Corrupt, what)
                .with("file", file.display())
                .remedy("restore the file, or name a new stream folder; the lake's own checkpoint is used then")
        };
        let found: IdentityFile =
            serde_json::from_slice(&text).map_err(|error| damaged("the stream's identity can't be read").caused_by(error))?;
        if found.format_version != FORMAT_VERSION {
            return Err(damaged("the stream's folder has a format that this version does not know")
                .with("format_version", found.format_version));
        }
        if found.lanes == 0 {
            return Err(damaged("the stream's identity names no lanes"));
        }
        let identity = LogIdentity { stream_id: found.stream_id.to_string(), lanes: found.lanes };
        Ok(Some(Self { path: path.to_owned(), stream: found.stream_id, identity }))
    }

    /// Opens the folder at `path`, or makes a stream there.
    pub(super) fn open_or_create(path: &Path, lanes: u16) -> Result<Self> {
        if let Some(folder) = Self::open(path)? {
            if folder.identity.lanes != lanes {
                return Err(Error::config("the stream has another number of lanes than the configuration")
                    .with("folder", path.display())
                    .with("stream_lanes", folder.identity.lanes)
                    .with("configured_lanes", lanes)
                    .remedy(format!(
                        "write `lanes = {}` under [stream], or name a new stream folder: the number is fixed when a stream is first used",
                        folder.identity.lanes
                    )));
            }
            return Ok(folder);
        }
        let stream = Uuid::new_v4();
        let folder = Self { path: path.to_owned(), stream, identity: LogIdentity { stream_id: stream.to_string(), lanes } };
        if !folder.segments()?.is_empty() {
            return Err(Error::new(Area::Stream, Kind::Corrupt, "the stream's folder has segments, but stream.json is gone")
                .with("folder", path.display())
                .remedy("restore stream.json, or name a new stream folder; the lake's own checkpoint is used then"));
        }
        let text = serde_json::to_vec_pretty(&IdentityFile { format_version: FORMAT_VERSION, stream_id: stream, lanes })
            .map_err(|error| Error::bug("a stream's identity can't be written").caused_by(error))?;
        folder.replace("stream.json", &text, true)?;
        Ok(folder)
    }

    /// Makes sure that the folder is there and takes its lock, which lasts until the file is dropped or the process ends.
    pub(super) fn lock(path: &Path) -> Result<File> {
        std::fs::create_dir_all(path).map_err(|error| refused("the stream's folder can't be made", path, error))?;
        let name = path.join("lock");
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&name)
            .map_err(|error| refused("the stream's folder can't be written", &name, error))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                let _ = file.read_to_string(&mut holder);
                let holder = holder.trim();
                return Err(Error::new(Area::Stream, Kind::Conflict, "another process writes to this stream")
                    .with("folder", path.display())
                    .with("pid", if holder.is_empty() { "unknown" } else { holder })
                    .remedy("stop that process, or name another folder under [stream]"));
            }
            Err(TryLockError::Error(error)) => return Err(refused("the stream's folder can't be locked", &name, error)),
        }
        let pid = format!("{}\n", std::process::id());
        file.set_len(0)
            .and_then(|()| file.write_all_at(pid.as_bytes(), 0))
            .map_err(|error| refused("the stream's folder can't be written", &name, error))?;
        Ok(file)
    }

    /// The numbers of the segments, in order.
    pub(super) fn segments(&self) -> Result<Vec<u64>> {
        let failed = |error| refused("the stream's folder can't be read", &self.path, error);
        let mut numbers = Vec::new();
        for entry in std::fs::read_dir(&self.path).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            let number =
                name.to_str().and_then(|name| name.strip_suffix(SEGMENT_SUFFIX)).and_then(|number| number.parse::<u64>().ok());
            numbers.extend(number);
        }
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// The path of a segment.
    pub(super) fn segment(&self, number: u64) -> PathBuf {
        self.path.join(format!("{number:012}{SEGMENT_SUFFIX}"))
    }

    /// Opens a segment for reading and reads its header.
    pub(super) fn open_segment(&self, number: u64) -> Result<(File, SegmentHeader)> {
        let path = self.segment(number);
        let file = File::open(&path).map_err(|error| refused("a segment of the stream can't be read", &path, error))?;
        let mut bytes = vec![0; HEADER_BYTES as usize];
        let failed = |error| refused("a segment of the stream can't be read", &path, error);
        let len = file.metadata().map_err(failed)?.len().min(HEADER_BYTES);
        bytes.truncate(usize::try_from(len).unwrap_or(0));
        file.read_exact_at(&mut bytes, 0).map_err(failed)?;
        let header = SegmentHeader::read(&bytes).map_err(|what| damaged(what, &path, 0))?;
        if header.stream != self.stream || header.number != number {
            return Err(damaged("it belongs to another stream or place", &path, 0));
        }
        Ok((file, header))
    }

    /// Makes a segment and opens it for appending. It is there as a whole or not at all.
    pub(super) fn create_segment(&self, header: &SegmentHeader) -> Result<File> {
        let path = self.segment(header.number);
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
        self.replace(&name, &header.write(), true)?;
        OpenOptions::new().read(true).write(true).open(&path).map_err(|error| refused("a segment can't be written", &path, error))
    }

    /// The folder itself.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Up to where the records are durable; the log's beginning if nothing says so.
    pub(super) fn noted_end(&self) -> Place {
        // a look at it may meet the very write, and then the checksum is wrong
        let look = || {
            let text = std::fs::read_to_string(self.path.join("end")).ok()?;
            let place = Place::parse(text.split(' ').next()?)?;
            (text.as_bytes() == end_text(place)).then_some(place)
        };
        (0..10).find_map(|_| look()).unwrap_or_default()
    }

    /// What all readers have released; the log's beginning if nothing was.
    pub(super) fn released(&self) -> Place {
        let read = |path: &Path| {
            let text = std::fs::read_to_string(path).unwrap_or_default();
            Place::parse(text.split_whitespace().next().unwrap_or_default()).unwrap_or_default()
        };
        let readers = std::fs::read_dir(&self.path).into_iter().flatten().flatten().map(|entry| entry.path()).filter(|path| {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            name.strip_prefix(READER_PREFIX).is_some_and(|hash| !hash.contains('.'))
        });
        readers.map(|path| read(&path)).min().unwrap_or_else(|| read(&self.path.join("released")))
    }

    /// Notes what is released, by the reader `reader`.
    pub(super) fn note_released(&self, reader: Option<&str>, place: Place) -> Result<()> {
        match reader {
            Some(reader) => self.replace(&reader_file(reader), format!("{place} {reader}\n").as_bytes(), false),
            None => self.replace("released", place.to_string().as_bytes(), false),
        }
    }

    /// From now on nothing goes that this reader hasn't released.
    pub(super) fn register(&self, reader: &str) -> Result<()> {
        if self.path.join(reader_file(reader)).exists() {
            return Ok(());
        }
        // a log of before has one note for all
        let place = if self.has_readers() { Place::default() } else { self.released() };
        self.note_released(Some(reader), place)
    }

    /// What this reader hasn't released may go.
    pub(super) fn forget(&self, reader: &str) -> Result<()> {
        let path = self.path.join(reader_file(reader));
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(refused("the stream's folder can't be written", &path, error))
            }
            _ => Ok(()),
        }
    }

    fn has_readers(&self) -> bool {
        let mut entries = std::fs::read_dir(&self.path).into_iter().flatten().flatten();
        entries.any(|entry| entry.file_name().to_str().is_some_and(|name| name.starts_with(READER_PREFIX)))
    }

    /// Opens the file that says up to where the records are durable.
    pub(super) fn end_file(&self) -> Result<File> {
        let path = self.path.join("end");
        let open = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
        open.map_err(|error| refused("the stream's folder can't be written", &path, error))
    }

    /// Writes a file so that it is there with all of `bytes`, or as it was before.
    pub(super) fn replace(&self, name: &str, bytes: &[u8], is_durable: bool) -> Result<()> {
        let path = self.path.join(name);
        // several processes may note what they release
        let temporary = self.path.join(format!("{name}.{}.tmp", std::process::id()));
        let write = || {
            let mut file = File::create(&temporary)?;
            file.write_all(bytes)?;
            if is_durable {
                file.sync_data()?;
            }
            std::fs::rename(&temporary, &path)?;
            if is_durable { File::open(&self.path)?.sync_all() } else { Ok(()) }
        };
        write().map_err(|error| refused("the stream's folder can't be written", &path, error))
    }
}

fn reader_file(reader: &str) -> String {
    format!("{READER_PREFIX}{:016x}", xxhash_rust::xxh3::xxh3_64(reader.as_bytes()))
}

/// What the file `end` says: a place in fixed width, so that it is replaced as a whole, and a checksum.
pub(super) fn end_text(end: Place) -> Vec<u8> {
    let place = format!("{:020}:{:020}", end.segment, end.offset);
    format!("{place} {:08x}\n", crc32fast::hash(place.as_bytes())).into_bytes()
}

/// The error of a file system that refuses: what it says decides whether another attempt can help.
pub(super) fn refused(what: &'static str, path: &Path, error: std::io::Error) -> Error {
    let remedy = match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => "free some space on the stream's disk; nothing is lost meanwhile",
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
            "give binlake's user the right to write to the stream's folder"
        }
        ErrorKind::NotFound => "name an existing folder under [stream]",
        _ => "check the stream's disk",
    };
    Error::new(Area::Stream, Kind::Refused, what).caused_by(error).with("file", path.display()).remedy(remedy)
}

/// The error of a damaged segment.
pub(super) fn damaged(detail: &'static str, path: &Path, offset: u64) -> Error {
    Error::new(Area::Stream, Kind::Corrupt, "a segment of the stream is damaged")
        .with("detail", detail)
        .with("file", path.display())
        .with("offset", offset)
        .remedy("restore the file from a copy, or name a new stream folder; the lake's own checkpoint is used then")
}
