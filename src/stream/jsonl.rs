//! A folder to which others add JSON lines: files that grow, and new files. Each file is a shard; a line counts when its end is there.
//!
//! **What a position keeps** is bounded, however many files there are: one number each for the last [`MOST_FILES`] in the order of their names. Of the older ones it keeps
//! together up to which name they were read ([`Offsets::done_to`]): they are closed. What is added to a closed file, or to a new one with a name before that, would be missed, so
//! it stops the table: a file is only closed when it is whole, and a folder that is written in the order of names, as by date or number, never meets this.

use super::foreign::{RecordReader, RecordSource};
use crate::error::{Area, Error, Kind, Result};
use crate::format::ForeignRecord;
use crate::time::Timestamp;
use async_trait::async_trait;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, Metadata};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

/// Bytes that are read at once, unless one line is longer.
const READ_BYTES: usize = 4 << 20;
/// The longest line.
const MOST_LINE_BYTES: usize = 256 << 20;
/// How often the folder is looked at.
const POLL_INTERVAL: Duration = Duration::from_millis(100);
/// How long `next` waits for something new.
const PATIENCE: Duration = Duration::from_secs(1);
/// What the files are called.
const EXTENSIONS: [&str; 3] = ["jsonl", "ndjson", "json"];
/// Files called so are compressed, and can't be read.
const COMPRESSED: [&str; 5] = ["gz", "zst", "bz2", "xz", "zip"];
/// So long after its last change, a file whose last line has no end is spoken of.
const LINE_PATIENCE: Duration = Duration::from_secs(60);
/// How many files may still grow; the oldest beyond, by name, are closed.
const MOST_FILES: usize = 1000;

/// A folder of JSON lines.
#[derive(Debug, Clone)]
pub struct JsonLinesFolder {
    path: PathBuf,
}

impl JsonLinesFolder {
    /// The folder `path`, which may come later.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }
}

#[async_trait]
impl RecordSource for JsonLinesFolder {
    fn stream_id(&self) -> String {
        format!("jsonl:{}", std::path::absolute(&self.path).unwrap_or_else(|_| self.path.clone()).display())
    }

    async fn read(&self, after: Option<&str>) -> Result<Box<dyn RecordReader>> {
        let offsets = match after {
            None => Offsets::default(),
            Some(text) => Offsets::parse(text)?,
        };
        Ok(Box::new(FolderReader { path: self.path.clone(), offsets, gave_records: true, said: BTreeSet::new() }))
    }

    async fn ensure_unchanged(&self, position: &str) -> Result<()> {
        let (path, offsets) = (self.path.clone(), Offsets::parse(position)?);
        let looked = tokio::task::spawn_blocking(move || {
            // what can't be looked at now is said when it is read
            let there = |name: &String| std::fs::metadata(path.join(name)).ok().filter(Metadata::is_file);
            let mut all = offsets.open.iter().filter_map(|(name, read)| Some((name, *read, there(name)?.len())));
            all.try_for_each(|(name, read, bytes)| ensure_whole(&path.join(name), read, bytes))
        });
        looked.await.map_err(|panic| Error::bug("looking at a folder died").caused_by(panic))?
    }
}

#[derive(Debug)]
struct FolderReader {
    path: PathBuf,
    offsets: Offsets,
    /// Whether the last answer had records: then the end is told at once.
    gave_records: bool,
    /// Files that the log speaks of already.
    said: BTreeSet<String>,
}

impl FolderReader {
    /// What stands still and was not read is said once a file: nobody would look for it.
    fn say(&mut self, unread: Vec<Unread>) {
        for Unread { name, why } in unread {
            let path = self.path.join(&name);
            if self.said.insert(name) {
                tracing::warn!(path = %path.display(), "{why}");
            }
        }
    }
}

/// A file of which something isn't read.
#[derive(Debug, PartialEq, Eq)]
struct Unread {
    name: String,
    why: &'static str,
}

#[async_trait]
impl RecordReader for FolderReader {
    async fn next(&mut self) -> Result<Vec<ForeignRecord>> {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let (path, offsets) = (self.path.clone(), self.offsets.clone());
            let look = tokio::task::spawn_blocking(move || look(&path, offsets)).await;
            let Look { records, offsets, unread } =
                look.map_err(|panic| Error::bug("reading a folder died").caused_by(panic))??;
            self.say(unread);
            if !records.is_empty() {
                self.offsets = offsets;
                self.gave_records = true;
                return Ok(records);
            }
            self.offsets = offsets;
            if std::mem::take(&mut self.gave_records) || tokio::time::Instant::now() >= deadline {
                return Ok(Vec::new());
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    fn position(&self) -> String {
        self.offsets.to_text()
    }
}

/// What was read of a folder. Stored in checkpoints: as an object of files and bytes while no file is closed, with `version` otherwise.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Offsets {
    /// Bytes read, by file name.
    open: BTreeMap<String, u64>,
    /// Files up to this name, in the order of names, are closed, but for those in `open`.
    closed: Option<Closed>,
}

/// The closed files together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Closed {
    /// The last of them by name.
    to: String,
    /// How many there are.
    files: u64,
    /// Their bytes.
    bytes: u64,
}

#[derive(Serialize, Deserialize)]
struct StoredOffsets {
    version: u32,
    open: BTreeMap<String, u64>,
    closed: Closed,
}

impl Offsets {
    fn parse(text: &str) -> Result<Self> {
        let wrong = || Error::new(Area::Stream, Kind::Corrupt, "a position is not one of a folder of JSON lines");
        if let Ok(open) = serde_json::from_str(text) {
            return Ok(Self { open, closed: None });
        }
        let stored: StoredOffsets = serde_json::from_str(text).map_err(|error| wrong().caused_by(error))?;
        if stored.version != 2 {
            return Err(wrong().with("version", stored.version).remedy("run the version of binlake that wrote it, or a newer one"));
        }
        Ok(Self { open: stored.open, closed: Some(stored.closed) })
    }

    fn to_text(&self) -> String {
        let text = match &self.closed {
            None => serde_json::to_string(&self.open),
            Some(closed) => serde_json::to_string(&StoredOffsets { version: 2, open: self.open.clone(), closed: closed.clone() }),
        };
        text.unwrap_or_default()
    }

    fn is_closed(&self, name: &str) -> bool {
        !self.open.contains_key(name) && self.closed.as_ref().is_some_and(|closed| name <= closed.to.as_str())
    }

    /// Closes the first files by name that were read to their end, while there are too many. `sizes` are those of all files.
    fn close(&mut self, sizes: &BTreeMap<String, u64>) {
        while self.open.len() > MOST_FILES {
            let Some((name, read)) = self.open.first_key_value() else { return };
            // a line that isn't whole yet is waited for, and a file before it that wasn't begun
            let is_whole = sizes.get(name).is_none_or(|size| size == read);
            let is_next = sizes.keys().find(|other| !self.is_closed(other)).is_none_or(|first| first >= name);
            if !is_whole || !is_next {
                return;
            }
            let (name, read) = (name.clone(), *read);
            self.open.remove(&name);
            let (files, bytes) = self.closed.take().map_or((0, 0), |closed| (closed.files, closed.bytes));
            self.closed = Some(Closed { to: name, files: files + 1, bytes: bytes + read });
        }
    }

    /// Nothing was added where nobody looks any more.
    fn ensure_closed_stay(&self, sizes: &BTreeMap<String, u64>) -> Result<()> {
        let Some(closed) = &self.closed else { return Ok(()) };
        let there = sizes.iter().filter(|(name, _)| self.is_closed(name));
        let (files, bytes) = there.fold((0, 0), |(files, bytes), (_, size)| (files + 1, bytes + size));
        // files may be removed, as by age
        if files <= closed.files && bytes <= closed.bytes {
            return Ok(());
        }
        Err(Error::new(
            Area::Stream,
            Kind::Corrupt,
            "a file of JSON lines was added or grew behind files that are read to their end",
        )
        .with("closed_to", &closed.to)
        .with("files", files)
        .with("closed_files", closed.files)
        .remedy("add new records to files whose names come later: move the file, or its new lines, to such a name"))
    }
}

/// What a folder has that is new.
#[derive(Debug, Default)]
struct Look {
    /// The next complete lines, by file in the order of their names.
    records: Vec<ForeignRecord>,
    offsets: Offsets,
    unread: Vec<Unread>,
}

fn look(folder: &Path, mut offsets: Offsets) -> Result<Look> {
    let refused = |path: &Path, error: std::io::Error| {
        Error::new(Area::Stream, Kind::Refused, "a folder of JSON lines can't be read")
            .caused_by(error)
            .with("path", path.display())
            .remedy("give binlake's user the right to read it, or correct `stream` in the [[table]]")
    };
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        // it may come later
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Look { offsets, ..Look::default() }),
        Err(error) => return Err(refused(folder, error)),
    };
    let mut files: BTreeMap<String, Metadata> = BTreeMap::new();
    let mut unread = Vec::new();
    for entry in entries {
        let path = entry.map_err(|error| refused(folder, error))?.path();
        let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
        let has_extension = EXTENSIONS.contains(&extension);
        if let (true, Some(name)) = (COMPRESSED.contains(&extension), path.file_name().and_then(|name| name.to_str())) {
            unread.push(Unread {
                name: name.to_owned(),
                why: "a compressed file isn't read: put it into the folder as plain JSON lines",
            });
        }
        if let (true, Some(name)) = (has_extension, path.file_name().and_then(|name| name.to_str())) {
            match std::fs::metadata(&path) {
                Ok(metadata) if metadata.is_file() => drop(files.insert(name.to_owned(), metadata)),
                Ok(_) => {}
                // removed since it was listed
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(refused(&path, error)),
            }
        }
    }
    let sizes: BTreeMap<String, u64> = files.iter().map(|(name, metadata)| (name.clone(), metadata.len())).collect();
    offsets.ensure_closed_stay(&sizes)?;
    let mut records = Vec::new();
    let mut bytes = 0;
    for (name, metadata) in files.into_iter().filter(|(name, _)| !offsets.is_closed(name)).collect::<Vec<_>>() {
        if bytes >= READ_BYTES {
            break;
        }
        let path = folder.join(&name);
        let failed = |error: std::io::Error| refused(&path, error);
        let start = offsets.open.get(&name).copied().unwrap_or(0);
        if metadata.len() == start {
            continue;
        }
        ensure_whole(&path, start, metadata.len())?;
        let lines = lines_from(&path, start, metadata.len()).map_err(failed)?;
        let is_still = || metadata.modified().is_ok_and(|at| at.elapsed().is_ok_and(|since| since >= LINE_PATIENCE));
        let end = start + lines.as_ref().map_or(0, |lines| lines.len() as u64);
        if end < metadata.len() && end + (READ_BYTES as u64) > metadata.len() && is_still() {
            let why = "the last line has no end, and isn't read until it has: a record counts once a newline is behind it";
            unread.push(Unread { name: name.clone(), why });
        }
        let Some(lines) = lines else { continue };
        let modified = metadata.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        let arrived_at =
            modified.and_then(|since| i64::try_from(since.as_micros()).ok()).map_or_else(Timestamp::now, Timestamp::from_micros);
        let shard: Arc<str> = name.as_str().into();
        let mut offset = start;
        while offset < end {
            let at = usize::try_from(offset - start).unwrap_or(usize::MAX);
            let length = lines[at..].iter().position(|byte| *byte == b'\n').map_or(lines.len() - at, |length| length + 1);
            let line = lines.slice(at..at + length);
            let trimmed = line.slice_ref(line.trim_ascii());
            if !trimmed.is_empty() {
                records.push(ForeignRecord { shard: Arc::clone(&shard), offset, arrived_at, key: None, bytes: trimmed });
            }
            offset += length as u64;
        }
        bytes += lines.len();
        offsets.open.insert(name, end);
    }
    offsets.close(&sizes);
    Ok(Look { records, offsets, unread })
}

/// A file is only added to: of one that is shorter than what was read of it, nobody knows what it has.
fn ensure_whole(path: &Path, read: u64, bytes: u64) -> Result<()> {
    if bytes >= read {
        return Ok(());
    }
    Err(Error::new(Area::Stream, Kind::Corrupt, "a file of JSON lines is shorter than what was read of it")
        .with("path", path.display())
        .with("read", read)
        .with("bytes", bytes)
        .remedy(
            "give what is new in it another name, and restore the file if it is there under another one: files are only added to",
        ))
}

/// The bytes from `start` to the end of a line, some MiB at most but a line at least; `None`: no line has its end.
fn lines_from(path: &Path, start: u64, len: u64) -> std::io::Result<Option<Bytes>> {
    let file = File::open(path)?;
    let mut wanted = READ_BYTES;
    loop {
        let size = usize::try_from(len - start).unwrap_or(usize::MAX).min(wanted);
        let mut buffer = vec![0; size];
        file.read_exact_at(&mut buffer, start)?;
        if let Some(last) = buffer.iter().rposition(|byte| *byte == b'\n') {
            buffer.truncate(last + 1);
            return Ok(Some(buffer.into()));
        }
        if (size as u64) == len - start {
            return Ok(None);
        }
        if wanted >= MOST_LINE_BYTES {
            return Err(std::io::Error::other("a line is longer than 256 MiB"));
        }
        wanted *= 4;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn add(folder: &Path, name: &str, text: &str) {
        let mut file = File::options().create(true).append(true).open(folder.join(name)).unwrap();
        file.write_all(text.as_bytes()).unwrap();
    }

    async fn texts(reader: &mut dyn RecordReader) -> Vec<(String, u64, String)> {
        let text =
            |record: ForeignRecord| (record.shard.to_string(), record.offset, String::from_utf8(record.bytes.to_vec()).unwrap());
        reader.next().await.unwrap().into_iter().map(text).collect()
    }

    #[tokio::test]
    async fn lines_come_when_they_are_whole_and_reading_goes_on_from_a_position() {
        let folder = tempfile::tempdir().unwrap();
        let source = JsonLinesFolder::new(folder.path());
        let mut reader = source.read(None).await.unwrap();
        assert!(texts(reader.as_mut()).await.is_empty());
        add(folder.path(), "b.jsonl", "{\"a\":1}\r\n\n{\"a\":2}\n{\"a\":");
        add(folder.path(), "a.ndjson", "one\n");
        add(folder.path(), "ignored.txt", "no\n");
        let line = |file: &str, offset: u64, text: &str| (file.to_owned(), offset, text.to_owned());
        assert_eq!(
            texts(reader.as_mut()).await,
            [line("a.ndjson", 0, "one"), line("b.jsonl", 0, "{\"a\":1}"), line("b.jsonl", 10, "{\"a\":2}")]
        );
        let position = reader.position();
        add(folder.path(), "b.jsonl", "3}\n");
        assert_eq!(texts(reader.as_mut()).await, [line("b.jsonl", 18, "{\"a\":3}")]);
        let mut again = source.read(Some(&position)).await.unwrap();
        assert_eq!(texts(again.as_mut()).await, [line("b.jsonl", 18, "{\"a\":3}")]);
        assert!(source.ensure_unchanged(&position).await.is_ok());
        std::fs::write(folder.path().join("b.jsonl"), "short").unwrap();
        assert_eq!(source.ensure_unchanged(&position).await.unwrap_err().kind(), Kind::Corrupt);
        assert_eq!(again.next().await.unwrap_err().kind(), Kind::Corrupt);
    }

    #[tokio::test]
    async fn a_position_stays_small_however_many_files_there_are() {
        let folder = tempfile::tempdir().unwrap();
        let source = JsonLinesFolder::new(folder.path());
        let mut reader = source.read(None).await.unwrap();
        let name = |number: usize| format!("{number:05}.jsonl");
        let mut seen = 0;
        for round in 0..5 {
            (round * 700..(round + 1) * 700).for_each(|number| add(folder.path(), &name(number), "{}\n"));
            seen += texts(reader.as_mut()).await.len();
            // each time by a reader that knows the position alone
            reader = source.read(Some(&reader.position())).await.unwrap();
        }
        assert_eq!(seen, 3500);
        assert!(reader.position().len() < 30_000, "{} bytes", reader.position().len());
        let offsets = Offsets::parse(&reader.position()).unwrap();
        assert_eq!((offsets.open.len(), offsets.closed.as_ref().unwrap().files), (MOST_FILES, 2500));
        assert_eq!(Offsets::parse(&offsets.to_text()).unwrap(), offsets);
        // the youngest may still grow, and old ones may go
        add(folder.path(), &name(3000), "{}\n");
        std::fs::remove_file(folder.path().join(name(5))).unwrap();
        assert_eq!(texts(reader.as_mut()).await.len(), 1);
        // what would be missed is said
        add(folder.path(), &name(7), "{\"more\": 1}\n");
        let error = reader.next().await.unwrap_err();
        assert!(error.kind() == Kind::Corrupt && error.to_string().contains("closed_to=02499.jsonl"), "{error}");
        // the first version's positions
        assert_eq!(Offsets::parse(r#"{"a.jsonl": 7}"#).unwrap().open["a.jsonl"], 7);
        assert!(Offsets::parse("[]").is_err() && Offsets::parse(r#"{"version": 9}"#).is_ok_and(|parsed| parsed.closed.is_none()));
    }

    #[tokio::test]
    async fn a_file_that_is_not_whole_holds_the_closing_back() {
        let sizes: BTreeMap<String, u64> = (0..1200).map(|number| (format!("{number:05}"), 10)).collect();
        let mut offsets = Offsets { open: sizes.clone(), closed: None };
        offsets.open.insert("00050".into(), 4);
        offsets.close(&sizes);
        assert_eq!(offsets.closed.as_ref().map(|closed| closed.files), Some(50));
        offsets.open.insert("00050".into(), 10);
        offsets.close(&sizes);
        assert_eq!((offsets.open.len(), offsets.closed.as_ref().unwrap().bytes), (MOST_FILES, 2000));
        assert!(offsets.ensure_closed_stay(&sizes).is_ok());
        // a file that was listed and couldn't be begun yet
        let mut behind = Offsets { open: sizes.iter().skip(1).map(|(name, size)| (name.clone(), *size)).collect(), closed: None };
        behind.close(&sizes);
        assert_eq!(behind.closed, None);
    }

    #[test]
    fn what_is_not_read_is_spoken_of_once_it_stands_still() {
        let folder = tempfile::tempdir().unwrap();
        add(folder.path(), "a.jsonl", "{}\n{\"a\": 1}");
        add(folder.path(), "b.jsonl.gz", "?");
        let names = || {
            let look = look(folder.path(), Offsets::default()).unwrap();
            let mut names: Vec<String> = look.unread.into_iter().map(|unread| unread.name).collect();
            names.sort();
            (look.records.len(), names)
        };
        assert_eq!(names(), (1, vec!["b.jsonl.gz".to_owned()]));
        let file = File::options().append(true).open(folder.path().join("a.jsonl")).unwrap();
        file.set_modified(std::time::SystemTime::now() - LINE_PATIENCE).unwrap();
        assert_eq!(names(), (1, vec!["a.jsonl".to_owned(), "b.jsonl.gz".to_owned()]));
        add(folder.path(), "a.jsonl", "\n");
        assert_eq!(names(), (2, vec!["b.jsonl.gz".to_owned()]));
    }

    #[tokio::test]
    async fn a_line_longer_than_a_read() {
        let folder = tempfile::tempdir().unwrap();
        let long = "x".repeat(READ_BYTES * 2 + 5);
        add(folder.path(), "a.jsonl", &format!("{long}\nshort\n"));
        let mut reader = JsonLinesFolder::new(folder.path()).read(None).await.unwrap();
        let mut all = texts(reader.as_mut()).await;
        all.extend(texts(reader.as_mut()).await);
        assert_eq!(all.iter().map(|(_, _, text)| text.len()).collect::<Vec<_>>(), [long.len(), 5]);
    }
}
