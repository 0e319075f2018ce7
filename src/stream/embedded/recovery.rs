//! Opening a log: where its records end, and where its last cut is.

use super::Place;
use super::folder::{Folder, damaged, refused};
use super::segment::{FRAME_BYTES, Frame, HEADER_BYTES, SegmentHeader, read_frame};
use crate::error::Result;
use crate::event::Lane;
use crate::stream::last_cut::LastCutTracker;
use std::fs::File;
use std::os::unix::fs::FileExt;

/// Bytes read at once.
const READ_BYTES: usize = 4 << 20;

/// How scanning a segment ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Scanned {
    /// Where the last whole record ends.
    pub(super) end: u64,
    /// Why the scan ended before the file did; `None`: it didn't.
    pub(super) fault: Option<&'static str>,
}

/// Goes over the records of a segment from `start` on.
pub(super) fn scan(file: &File, start: u64, mut visit: impl FnMut(u64, Lane, &[u8])) -> std::io::Result<Scanned> {
    let len = file.metadata()?.len();
    let mut buffer = Vec::new();
    let mut at = start.min(len);
    let mut wanted = READ_BYTES;
    while at < len {
        let size = usize::try_from(len - at).unwrap_or(usize::MAX).min(wanted);
        buffer.resize(size, 0);
        file.read_exact_at(&mut buffer, at)?;
        let mut used = 0;
        loop {
            match read_frame(&buffer[used..]) {
                Frame::Record { lane, len } => {
                    visit(at + used as u64, lane, &buffer[used + FRAME_BYTES..used + FRAME_BYTES + len]);
                    used += FRAME_BYTES + len;
                }
                Frame::Incomplete { needs } if used + needs > size && at + (used + needs) as u64 <= len => {
                    wanted = READ_BYTES.max(needs);
                    break;
                }
                Frame::Incomplete { .. } if at + used as u64 == len => break,
                Frame::Incomplete { .. } => {
                    return Ok(Scanned { end: at + used as u64, fault: Some("its last record is incomplete") });
                }
                Frame::Damaged => return Ok(Scanned { end: at + used as u64, fault: Some("a record's checksum is wrong") }),
            }
        }
        at += used as u64;
    }
    Ok(Scanned { end: at, fault: None })
}

/// What an opened log knows.
#[derive(Debug)]
pub(super) struct Recovered {
    /// The last segment and its header; `None`: an empty log.
    pub(super) last: Option<(u64, SegmentHeader)>,
    /// Where its records end.
    pub(super) end: u64,
    pub(super) tracker: LastCutTracker<Place>,
}

/// Finds the end of the log and its last cut, and cuts off what a crash has torn.
pub(super) fn recover(folder: &Folder, segments: &[u64]) -> Result<Recovered> {
    let mut tracker = LastCutTracker::new(folder.identity.lanes);
    let noted_end = folder.noted_end();
    let Some(last) = segments.last().copied() else {
        if noted_end.segment > 0 {
            return Err(damaged("it is gone", &folder.segment(noted_end.segment), 0));
        }
        return Ok(Recovered { last: None, end: 0, tracker });
    };
    if let Some(gap) = segments.windows(2).find(|pair| pair[0] + 1 != pair[1]) {
        return Err(damaged("it is gone", &folder.segment(gap[0] + 1), 0));
    }
    if noted_end.segment > last {
        return Err(damaged("it is gone", &folder.segment(noted_end.segment), 0));
    }
    let (_, header) = folder.open_segment(last)?;
    let from = header.last_cut.filter(|place| segments.contains(&place.segment));
    let from = from.unwrap_or(Place { segment: segments[0], offset: HEADER_BYTES });
    let mut end = HEADER_BYTES;
    for segment in from.segment..=last {
        let path = folder.segment(segment);
        let (file, _) = folder.open_segment(segment)?;
        let start = if segment == from.segment { from.offset } else { HEADER_BYTES };
        let scanned = scan(&file, start, |offset, lane, record| tracker.observe(Place { segment, offset }, lane, record))
            .map_err(|error| refused("a segment of the stream can't be read", &path, error))?;
        end = scanned.end;
        let must_be_whole = segment < last || (segment == noted_end.segment && end < noted_end.offset);
        match scanned.fault {
            Some(fault) if must_be_whole => return Err(damaged(fault, &path, end)),
            None if must_be_whole && segment == last => return Err(damaged("it ends early", &path, end)),
            Some(_) => {
                tracing::warn!(file = %path.display(), offset = end, "a record that a crash has torn is cut off");
                let cut = std::fs::OpenOptions::new().write(true).open(&path).and_then(|file| {
                    file.set_len(end)?;
                    file.sync_all()
                });
                cut.map_err(|error| refused("a segment of the stream can't be written", &path, error))?;
            }
            None => {}
        }
    }
    Ok(Recovered { last: Some((last, header)), end, tracker })
}

/// From where on the last cut is found, as the last segment's header notes it: for who reads beside the producer.
pub(super) fn noted_last_cut(folder: &Folder) -> Result<Option<Place>> {
    let segments = folder.segments()?;
    let Some(last) = segments.last().copied() else { return Ok(None) };
    // where that segment is gone, a later cut lies in what is kept
    let oldest = Place { segment: segments[0], offset: HEADER_BYTES };
    Ok(folder.open_segment(last)?.1.last_cut.map(|noted| noted.max(oldest)))
}
