//! Reading the segments, up to the end that the producer has noted.

use super::Place;
use super::folder::{Folder, damaged, refused};
use super::segment::{FRAME_BYTES, Frame, HEADER_BYTES, read_frame};
use crate::error::{Area, Error, Kind, Result};
use crate::stream::{LaneRecord, LogPosition, LogReader};
use async_trait::async_trait;
use bytes::Bytes;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// Bytes read at once, unless one record is larger.
const READ_BYTES: usize = 4 << 20;

/// How long `next` waits for something new.
const PATIENCE: Duration = Duration::from_secs(1);

/// How often the end is looked at that a producer in another process notes.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// A reader of an embedded log.
#[derive(Debug)]
pub(super) struct SegmentReader {
    source: Arc<Source>,
    end: Option<watch::Receiver<Place>>,
    next: Place,
    /// Whether the last answer had records: then the end of the log is told at once.
    gave_records: bool,
}

/// What a reading thread needs.
#[derive(Debug)]
struct Source {
    folder: Arc<Folder>,
    /// The segment that was read last: kept open, so that its removal doesn't matter.
    open: std::sync::Mutex<Option<(u64, Arc<File>)>>,
}

impl SegmentReader {
    /// A reader from `place` on; `None`: from the oldest record.
    pub(super) fn open(folder: Arc<Folder>, end: Option<watch::Receiver<Place>>, place: Option<Place>) -> Result<Self> {
        let oldest = folder.segments()?.first().copied();
        let oldest = Place { segment: oldest.unwrap_or(1), offset: HEADER_BYTES };
        let next = place.unwrap_or(oldest);
        if next < oldest {
            return Err(Error::new(Area::Stream, Kind::Corrupt, "the stream no longer has the records from the position on")
                .with("position", next)
                .with("oldest", oldest)
                .remedy("take the tables anew with `binlake backfill`"));
        }
        let source = Source { folder, open: std::sync::Mutex::default() };
        // told at once the first time, too
        let reader = Self { source: Arc::new(source), end, next, gave_records: true };
        let end = reader.noted_end();
        if next > oldest && next > end {
            return Err(Error::new(Area::Stream, Kind::Corrupt, "a position lies behind the stream's end")
                .with("position", next)
                .with("end", end)
                .remedy("restore the stream's folder, or name a new one; the lake's own checkpoint is used then"));
        }
        Ok(reader)
    }

    fn noted_end(&self) -> Place {
        match &self.end {
            Some(end) => *end.borrow(),
            None => self.source.folder.noted_end(),
        }
    }

    /// Waits until the log goes on behind `next`; `None`: not within the time.
    async fn wait(&mut self) -> Option<Place> {
        let next = self.next;
        let end = self.noted_end();
        if end > next {
            return Some(end);
        }
        if std::mem::take(&mut self.gave_records) {
            return None;
        }
        match &mut self.end {
            Some(end) => {
                let waited = tokio::time::timeout(PATIENCE, end.wait_for(|end| *end > next)).await;
                let waited = waited.map(|end| end.map(|end| *end).ok());
                if let Ok(None) = waited {
                    // the producer has gone, and nothing will come
                    tokio::time::sleep(PATIENCE).await;
                }
                waited.ok().flatten()
            }
            None => {
                let deadline = tokio::time::Instant::now() + PATIENCE;
                while tokio::time::Instant::now() < deadline {
                    tokio::time::sleep(POLL_INTERVAL).await;
                    let end = self.noted_end();
                    if end > next {
                        return Some(end);
                    }
                }
                None
            }
        }
    }
}

#[async_trait]
impl LogReader for SegmentReader {
    async fn next(&mut self) -> Result<Vec<LaneRecord>> {
        let Some(end) = self.wait().await else { return Ok(Vec::new()) };
        let (source, from) = (self.source.clone(), self.next);
        let read = tokio::task::spawn_blocking(move || source.read(from, end)).await;
        let (records, next) = read.map_err(|panic| Error::bug("reading the stream died").caused_by(panic))??;
        self.next = next;
        self.gave_records = true;
        Ok(records)
    }

    fn position(&self) -> LogPosition {
        LogPosition(self.next.to_string())
    }
}

impl Source {
    /// The next records from `from` on, and the place behind them. There is at least one, as `end` says.
    fn read(&self, mut from: Place, end: Place) -> Result<(Vec<LaneRecord>, Place)> {
        loop {
            let path = self.folder.segment(from.segment);
            let failed = |error| refused("a segment of the stream can't be read", &path, error);
            let file = self.segment(from.segment)?;
            let len = file.metadata().map_err(failed)?.len();
            let limit = if from.segment == end.segment { end.offset } else { len };
            if limit > len {
                return Err(damaged("it ends early", &path, len));
            }
            if from.offset >= limit {
                if from.segment >= end.segment {
                    return Err(damaged("it ends before the position", &path, from.offset));
                }
                from = Place { segment: from.segment + 1, offset: HEADER_BYTES };
                continue;
            }
            let mut wanted = READ_BYTES;
            loop {
                let size = usize::try_from(limit - from.offset).unwrap_or(usize::MAX).min(wanted);
                let mut buffer = vec![0; size];
                file.read_exact_at(&mut buffer, from.offset).map_err(failed)?;
                let (records, used, needs) = split(buffer.into());
                if !records.is_empty() {
                    return Ok((records, Place { offset: from.offset + used as u64, ..from }));
                }
                match needs {
                    Some(needs) if from.offset + needs as u64 <= limit => wanted = needs,
                    Some(_) => return Err(damaged("its last record is incomplete", &path, from.offset)),
                    None => return Err(damaged("a record's checksum is wrong", &path, from.offset)),
                }
            }
        }
    }

    fn segment(&self, number: u64) -> Result<Arc<File>> {
        let mut open = self.open.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some((known, file)) = open.as_ref()
            && *known == number
        {
            return Ok(file.clone());
        }
        if let Err(error) = std::fs::metadata(self.folder.segment(number))
            && error.kind() == std::io::ErrorKind::NotFound
        {
            return Err(Error::new(Area::Stream, Kind::Corrupt, "a segment of the stream is gone")
                .with("file", self.folder.segment(number).display())
                .remedy("restore the file, or take the tables anew with `binlake backfill`"));
        }
        let file = Arc::new(self.folder.open_segment(number)?.0);
        *open = Some((number, file.clone()));
        Ok(file)
    }
}

/// The whole records in `buffer`, the bytes that they take, and how many bytes the next one needs (`None`: it is damaged).
fn split(buffer: Bytes) -> (Vec<LaneRecord>, usize, Option<usize>) {
    let (mut records, mut used) = (Vec::new(), 0);
    loop {
        match read_frame(&buffer[used..]) {
            Frame::Record { lane, len } => {
                let start = used + FRAME_BYTES;
                records.push(LaneRecord { lane, bytes: buffer.slice(start..start + len), partition_key: None });
                used = start + len;
            }
            Frame::Incomplete { needs } => return (records, used, Some(needs)),
            Frame::Damaged => return (records, used, None),
        }
    }
}
