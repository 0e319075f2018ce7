//! The thread that writes: one `write` and one `fdatasync` for all appends that wait.

use super::folder::{Folder, end_text, refused};
use super::recovery::recover;
use super::segment::{HEADER_BYTES, SegmentHeader, put_record};
use super::{EmbeddedOptions, Place};
use crate::error::{Area, Error, Kind, Result};
use crate::stream::LaneRecord;
use crate::stream::last_cut::LastCutTracker;
use crate::time::Timestamp;
use std::collections::VecDeque;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, mpsc};
use tokio::sync::{oneshot, watch};

/// Appends are joined up to this many bytes.
const GROUP_BYTES: usize = 16 << 20;

/// What the log asks of its thread.
#[derive(Debug)]
pub(super) enum Request {
    /// Append these, and answer when they are durable.
    Append { records: Vec<LaneRecord>, reply: oneshot::Sender<Result<()>> },
    /// This process's reader doesn't need what lies before.
    Release(Option<String>, Place),
}

/// A segment that isn't written any more.
#[derive(Debug)]
struct Closed {
    number: u64,
    bytes: u64,
    last_write: Timestamp,
}

/// The segment that is written.
#[derive(Debug)]
struct Active {
    number: u64,
    file: File,
    begun: Timestamp,
    /// Where its durable records end.
    end: u64,
}

/// The thread's state.
#[derive(Debug)]
pub(super) struct Appender {
    folder: Arc<Folder>,
    options: EmbeddedOptions,
    closed: VecDeque<Closed>,
    active: Option<Active>,
    end_file: File,
    end: watch::Sender<Place>,
    tracker: LastCutTracker<Place>,
    last_cut: watch::Sender<Option<Place>>,
    released: Place,
    /// Why nothing can be appended any more, until the log is opened again.
    broken: Option<&'static str>,
    buffer: Vec<u8>,
    #[cfg(test)]
    pub(super) faults: Arc<super::tests::Faults>,
}

impl Appender {
    /// Finds the end of the log.
    pub(super) fn open(folder: Arc<Folder>, options: EmbeddedOptions) -> Result<Self> {
        let segments = folder.segments()?;
        let recovered = recover(&folder, &segments)?;
        let mut closed = VecDeque::new();
        for number in segments.iter().copied().filter(|number| Some(*number) != recovered.last.as_ref().map(|(last, _)| *last)) {
            let path = folder.segment(number);
            let metadata =
                std::fs::metadata(&path).map_err(|error| refused("a segment of the stream can't be read", &path, error))?;
            let last_write = metadata.modified().ok().and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok());
            let micros = last_write.map_or(0, |since| i64::try_from(since.as_micros()).unwrap_or(i64::MAX));
            closed.push_back(Closed { number, bytes: metadata.len(), last_write: Timestamp::from_micros(micros) });
        }
        let active = match recovered.last {
            None => None,
            Some((number, header)) => {
                let path = folder.segment(number);
                let file = std::fs::OpenOptions::new().read(true).write(true).open(&path);
                let file = file.map_err(|error| refused("a segment of the stream can't be written", &path, error))?;
                // what a killed producer left may not be durable yet, and readers are about to see it
                file.sync_data().map_err(|error| refused("a segment of the stream can't be made durable", &path, error))?;
                Some(Active { number, file, begun: header.begun, end: recovered.end })
            }
        };
        let end = active.as_ref().map_or(Place::default(), |active| Place { segment: active.number, offset: active.end });
        let appender = Self {
            end_file: folder.end_file()?,
            end: watch::Sender::new(end),
            last_cut: watch::Sender::new(recovered.tracker.place()),
            tracker: recovered.tracker,
            released: folder.released(),
            folder,
            options,
            closed,
            active,
            broken: None,
            buffer: Vec::new(),
            #[cfg(test)]
            faults: Arc::default(),
        };
        appender.note_end(end)?;
        Ok(appender)
    }

    /// Where the durable records end.
    pub(super) fn end(&self) -> watch::Receiver<Place> {
        self.end.subscribe()
    }

    /// From where on the last cut is found.
    pub(super) fn last_cut(&self) -> watch::Receiver<Option<Place>> {
        self.last_cut.subscribe()
    }

    /// Works until the log is dropped.
    pub(super) fn run(mut self, requests: &mpsc::Receiver<Request>) {
        while let Ok(first) = requests.recv() {
            let (mut group, mut replies, mut bytes) = (Vec::new(), Vec::new(), 0);
            let mut next = Some(first);
            while let Some(request) = next {
                match request {
                    Request::Append { records, reply } => {
                        bytes += records.iter().map(|record| record.bytes.len()).sum::<usize>();
                        group.extend(records);
                        replies.push(reply);
                    }
                    Request::Release(reader, place) => self.release(reader.as_deref(), place),
                }
                next = if bytes < GROUP_BYTES { requests.try_recv().ok() } else { None };
            }
            if replies.is_empty() {
                continue;
            }
            let outcome = self.append(&group);
            for reply in replies {
                let answer = outcome.as_ref().copied().map_err(|failure| failure.error(&self.folder));
                // whoever gave up waiting doesn't need the answer
                let _ = reply.send(answer);
            }
        }
    }

    /// Appends a group and makes it durable.
    fn append(&mut self, group: &[LaneRecord]) -> std::result::Result<(), Failure> {
        if let Some(why) = self.broken {
            return Err(Failure::Broken(why));
        }
        self.roll_if_due()?;
        let Some(active) = &mut self.active else { return Err(Failure::Broken("there is no segment")) };
        self.buffer.clear();
        let mut places = Vec::with_capacity(group.len());
        for record in group {
            places.push(Place { segment: active.number, offset: active.end + self.buffer.len() as u64 });
            put_record(&mut self.buffer, record.lane, &record.bytes);
        }
        #[cfg(test)]
        let written = self.faults.write(&active.file, &self.buffer, active.end);
        #[cfg(not(test))]
        let written = active.file.write_all_at(&self.buffer, active.end);
        if let Err(error) = written {
            // what was written of it goes, so that the next attempt starts where this one did
            if active.file.set_len(active.end).is_err() {
                self.broken = Some("a segment could neither be written nor cut back");
            }
            return Err(Failure::Write(error));
        }
        let started = std::time::Instant::now();
        #[cfg(test)]
        let synced = self.faults.sync(&active.file);
        #[cfg(not(test))]
        let synced = active.file.sync_data();
        if synced.is_err() {
            // the kernel may have dropped the pages and would report success the next time: nothing of this file can be trusted but by reading it anew
            self.broken = Some("a segment could not be made durable");
            return Err(Failure::Broken("a segment could not be made durable"));
        }
        metrics::histogram!(crate::metrics::STREAM_SYNC_SECONDS).record(started.elapsed().as_secs_f64());
        active.end += self.buffer.len() as u64;
        let end = Place { segment: active.number, offset: active.end };
        if self.buffer.capacity() > 2 * GROUP_BYTES {
            self.buffer = Vec::new();
        }
        for (record, place) in group.iter().zip(places) {
            self.tracker.observe(place, record.lane, &record.bytes);
        }
        self.last_cut.send_replace(self.tracker.place());
        if let Err(error) = self.note_end(end) {
            tracing::warn!(%error, "readers in other processes may lag");
        }
        self.end.send_replace(end);
        Ok(())
    }

    /// Tells readers in other processes, and whoever opens the log after a crash, that all before `end` is durable.
    fn note_end(&self, end: Place) -> Result<()> {
        let written = self.end_file.write_all_at(&end_text(end), 0);
        written.map_err(|error| refused("the stream's end can't be noted", &self.folder.segment(end.segment), error))
    }

    /// Begins a new segment when the active one is large or old enough.
    fn roll_if_due(&mut self) -> std::result::Result<(), Failure> {
        let now = Timestamp::now();
        let next = match &self.active {
            None => self.closed.back().map_or(1, |last| last.number + 1),
            Some(active) => {
                let is_old = active.end > HEADER_BYTES && now.since(active.begun) >= self.options.segment_age;
                if active.end < self.options.segment_bytes.max(HEADER_BYTES + 1) && !is_old {
                    return Ok(());
                }
                active.number + 1
            }
        };
        let header = SegmentHeader { stream: self.folder.stream, number: next, begun: now, last_cut: self.tracker.place() };
        let file = self.folder.create_segment(&header).map_err(Failure::Create)?;
        if let Some(old) = self.active.replace(Active { number: next, file, begun: now, end: HEADER_BYTES }) {
            self.closed.push_back(Closed { number: old.number, bytes: old.end, last_write: now });
        }
        self.released = self.folder.released();
        self.drop_old();
        Ok(())
    }

    fn release(&mut self, reader: Option<&str>, place: Place) {
        if let Err(error) = self.folder.note_released(reader, place) {
            tracing::warn!(%error, "what is released could not be noted");
        }
        self.released = self.folder.released();
        self.drop_old();
    }

    /// Drops the oldest segments that nobody needs, while they are too old or too many.
    fn drop_old(&mut self) {
        let needed_from = self.tracker.place().map_or(0, |place| place.segment).min(self.released.segment);
        let mut bytes: u64 = self.closed.iter().filter(|closed| closed.number < needed_from).map(|closed| closed.bytes).sum();
        while let Some(oldest) = self.closed.front().filter(|oldest| oldest.number < needed_from) {
            let age = Timestamp::now().since(oldest.last_write);
            if age < self.options.retention && bytes <= self.options.retention_bytes {
                break;
            }
            let path = self.folder.segment(oldest.number);
            if let Err(error) = std::fs::remove_file(&path) {
                tracing::warn!(file = %path.display(), %error, "a segment that nobody needs could not be removed");
                break;
            }
            bytes -= oldest.bytes;
            self.closed.pop_front();
        }
    }
}

/// Why a group isn't in the log.
#[derive(Debug)]
enum Failure {
    /// Writing failed; the log is as it was before.
    Write(std::io::Error),
    /// A new segment couldn't be made; the log is as it was before.
    Create(Error),
    /// The log can't be appended to any more.
    Broken(&'static str),
}

impl Failure {
    /// The error for one of those whose records were in the group.
    fn error(&self, folder: &Folder) -> Error {
        match self {
            Failure::Write(error) => {
                let again = match error.raw_os_error() {
                    Some(code) => std::io::Error::from_raw_os_error(code),
                    None => std::io::Error::new(error.kind(), error.to_string()),
                };
                refused("the stream can't be written", folder.path(), again)
            }
            Failure::Create(error) => Error::new(error.area(), error.kind(), error.what().to_owned())
                .remedy(error.advice().to_owned())
                .with("folder", folder.path().display()),
            Failure::Broken(why) => Error::new(Area::Stream, Kind::Refused, *why)
                .with("folder", folder.path().display())
                .remedy("check the stream's disk, then start binlake again: it reads back what is durable"),
        }
    }
}
