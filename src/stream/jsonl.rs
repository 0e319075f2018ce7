//! A folder to which others add JSON lines: files that grow, and new files. Each file is a shard; a line counts when its end is there.

use super::foreign::{RecordReader, RecordSource};
use crate::error::{Area, Error, Kind, Result};
use crate::format::ForeignRecord;
use crate::time::Timestamp;
use async_trait::async_trait;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::fs::File;
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
            None => BTreeMap::new(),
            Some(text) => serde_json::from_str(text).map_err(|error| {
                Error::new(Area::Stream, Kind::Corrupt, "a position is not one of a folder of JSON lines").caused_by(error)
            })?,
        };
        Ok(Box::new(FolderReader { path: self.path.clone(), offsets, gave_records: true }))
    }
}

#[derive(Debug)]
struct FolderReader {
    path: PathBuf,
    /// Bytes read, by file name.
    offsets: BTreeMap<String, u64>,
    /// Whether the last answer had records: then the end is told at once.
    gave_records: bool,
}

#[async_trait]
impl RecordReader for FolderReader {
    async fn next(&mut self) -> Result<Vec<ForeignRecord>> {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let (path, offsets) = (self.path.clone(), self.offsets.clone());
            let look = tokio::task::spawn_blocking(move || look(&path, offsets)).await;
            let (records, offsets) = look.map_err(|panic| Error::bug("reading a folder died").caused_by(panic))??;
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
        serde_json::to_string(&self.offsets).unwrap_or_default()
    }
}

/// The next complete lines, by file in the order of their names.
fn look(folder: &Path, mut offsets: BTreeMap<String, u64>) -> Result<(Vec<ForeignRecord>, BTreeMap<String, u64>)> {
    let refused = |path: &Path, error: std::io::Error| {
        Error::new(Area::Stream, Kind::Refused, "a folder of JSON lines can't be read")
            .caused_by(error)
            .with("path", path.display())
            .remedy("give binlake's user the right to read it, or correct `stream` in the [[table]]")
    };
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        // it may come later
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok((Vec::new(), offsets)),
        Err(error) => return Err(refused(folder, error)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let path = entry.map_err(|error| refused(folder, error))?.path();
        let has_extension = path.extension().and_then(|e| e.to_str()).is_some_and(|extension| EXTENSIONS.contains(&extension));
        if let (true, Some(name)) = (has_extension, path.file_name().and_then(|name| name.to_str())) {
            names.push(name.to_owned());
        }
    }
    names.sort();
    let mut records = Vec::new();
    let mut bytes = 0;
    for name in names {
        if bytes >= READ_BYTES {
            break;
        }
        let path = folder.join(&name);
        let failed = |error: std::io::Error| refused(&path, error);
        let metadata = std::fs::metadata(&path).map_err(failed)?;
        let start = offsets.get(&name).copied().unwrap_or(0);
        if !metadata.is_file() || metadata.len() == start {
            continue;
        }
        if metadata.len() < start {
            return Err(Error::new(Area::Stream, Kind::Corrupt, "a file of JSON lines is shorter than what was read of it")
                .with("path", path.display())
                .with("read", start)
                .with("bytes", metadata.len())
                .remedy("restore the file: files are only added to; new records go to new files"));
        }
        let lines = lines_from(&path, start, metadata.len()).map_err(failed)?;
        let Some(lines) = lines else { continue };
        let modified = metadata.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        let arrived_at =
            modified.and_then(|since| i64::try_from(since.as_micros()).ok()).map_or_else(Timestamp::now, Timestamp::from_micros);
        let shard: Arc<str> = name.as_str().into();
        let mut offset = start;
        let end = start + lines.len() as u64;
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
        offsets.insert(name, end);
    }
    Ok((records, offsets))
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
        std::fs::write(folder.path().join("b.jsonl"), "short").unwrap();
        assert_eq!(again.next().await.unwrap_err().kind(), Kind::Corrupt);
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
