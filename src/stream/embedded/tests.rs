//! What only a log in a folder has: its files, their damage, and a disk that fails.

use super::*;
use crate::event::Lane;
use bytes::Bytes;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};

/// Failures that a test asks for.
#[derive(Debug, Default)]
pub(super) struct Faults {
    disk_full: AtomicBool,
    sync_fails: AtomicBool,
}

impl Faults {
    pub(super) fn write(&self, file: &File, bytes: &[u8], offset: u64) -> std::io::Result<()> {
        if self.disk_full.load(Ordering::SeqCst) {
            file.write_all_at(&bytes[..bytes.len() / 2], offset)?;
            return Err(std::io::Error::from(std::io::ErrorKind::StorageFull));
        }
        file.write_all_at(bytes, offset)
    }

    pub(super) fn sync(&self, file: &File) -> std::io::Result<()> {
        if self.sync_fails.load(Ordering::SeqCst) { Err(std::io::Error::other("I/O error")) } else { file.sync_data() }
    }
}

fn record(lane: u16, text: &str) -> LaneRecord {
    LaneRecord { lane: Lane(lane), bytes: Bytes::copy_from_slice(text.as_bytes()), partition_key: None }
}

fn small() -> EmbeddedOptions {
    EmbeddedOptions { segment_bytes: 200, retention: Duration::ZERO, ..EmbeddedOptions::default() }
}

async fn all(log: &EmbeddedLog, after: Option<&LogPosition>) -> Result<Vec<String>> {
    let mut reader = log.read(after).await?;
    let mut texts = Vec::new();
    loop {
        let records = reader.next().await?;
        if records.is_empty() {
            return Ok(texts);
        }
        texts.extend(records.iter().map(|record| String::from_utf8_lossy(&record.bytes).into_owned()));
    }
}

async fn append_numbers(log: &EmbeddedLog, numbers: std::ops::Range<usize>) {
    for number in numbers {
        log.append(vec![record((number % 4) as u16, &format!("record {number}"))]).await.unwrap();
    }
}

fn numbers(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|number| format!("record {number}")).collect()
}

fn segments(folder: &Path) -> Vec<std::path::PathBuf> {
    let mut paths: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "segment"));
    paths.sort();
    paths
}

#[tokio::test]
async fn records_outlive_reopening_over_many_segments() {
    let folder = tempfile::tempdir().unwrap();
    for round in 0..3 {
        let log = EmbeddedLog::open(folder.path(), 4, small()).unwrap();
        append_numbers(&log, round * 20..round * 20 + 20).await;
        assert_eq!(all(&log, None).await.unwrap(), numbers(0..round * 20 + 20));
    }
    assert!(segments(folder.path()).len() > 5);
    let reader = EmbeddedLog::open_to_read(folder.path()).unwrap().unwrap();
    assert_eq!(all(&reader, None).await.unwrap(), numbers(0..60));
}

#[tokio::test]
async fn a_second_producer_is_told_who_has_the_lock() {
    let folder = tempfile::tempdir().unwrap();
    let first = EmbeddedLog::open(folder.path(), 4, small()).unwrap();
    let error = EmbeddedLog::open(folder.path(), 4, small()).unwrap_err();
    assert_eq!((error.kind(), error.exit_code()), (Kind::Conflict, 4));
    assert!(error.to_string().contains(&format!("pid={}", std::process::id())), "{error}");
    drop(first);
    EmbeddedLog::open(folder.path(), 4, small()).unwrap();
}

#[tokio::test]
async fn another_number_of_lanes_is_refused_with_the_streams_own() {
    let folder = tempfile::tempdir().unwrap();
    drop(EmbeddedLog::open(folder.path(), 4, small()).unwrap());
    let error = EmbeddedLog::open(folder.path(), 5, small()).unwrap_err();
    assert_eq!(error.exit_code(), 2);
    assert!(error.to_string().contains("lanes = 4"), "{error}");
}

#[tokio::test]
async fn what_a_crash_has_torn_is_cut_off_and_writing_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let log = EmbeddedLog::open(folder.path(), 4, EmbeddedOptions::default()).unwrap();
    append_numbers(&log, 0..5).await;
    drop(log);
    let segment = segments(folder.path()).pop().unwrap();
    let whole = std::fs::read(&segment).unwrap();
    let mut torn = Vec::new();
    segment::put_record(&mut torn, Lane(1), b"record 5");
    for kept in [1, 11, 12, torn.len() - 1] {
        std::fs::write(&segment, [&whole[..], &torn[..kept]].concat()).unwrap();
        let log = EmbeddedLog::open(folder.path(), 4, EmbeddedOptions::default()).unwrap();
        assert_eq!(all(&log, None).await.unwrap(), numbers(0..5));
        drop(log);
        assert_eq!(std::fs::read(&segment).unwrap(), whole);
    }
    // the record is whole though nobody noted it: it stays
    std::fs::write(&segment, [&whole[..], &torn[..]].concat()).unwrap();
    let log = EmbeddedLog::open(folder.path(), 4, EmbeddedOptions::default()).unwrap();
    append_numbers(&log, 6..8).await;
    assert_eq!(all(&log, None).await.unwrap(), numbers(0..8));
}

#[tokio::test]
async fn damage_of_what_was_durable_is_named_with_file_and_offset() {
    let folder = tempfile::tempdir().unwrap();
    let log = EmbeddedLog::open(folder.path(), 4, EmbeddedOptions::default()).unwrap();
    append_numbers(&log, 0..5).await;
    drop(log);
    let segment = segments(folder.path()).pop().unwrap();
    let whole = std::fs::read(&segment).unwrap();
    let mut flipped = whole.clone();
    flipped[64 + 14] ^= 4;
    for damaged in [&whole[..whole.len() - 1], &whole[..70], &whole[..64], &whole[..10], &flipped[..]] {
        std::fs::write(&segment, damaged).unwrap();
        let error = EmbeddedLog::open(folder.path(), 4, EmbeddedOptions::default()).unwrap_err();
        assert_eq!((error.kind(), error.exit_code()), (Kind::Corrupt, 4), "{error}");
        assert!(error.to_string().contains(segment.to_str().unwrap()) && error.to_string().contains("offset="), "{error}");
    }
    std::fs::remove_file(&segment).unwrap();
    assert_eq!(EmbeddedLog::open(folder.path(), 4, EmbeddedOptions::default()).unwrap_err().kind(), Kind::Corrupt);
    std::fs::write(&segment, &whole).unwrap();
    EmbeddedLog::open(folder.path(), 4, EmbeddedOptions::default()).unwrap();
}

#[tokio::test]
async fn damage_in_the_middle_stops_the_reader() {
    let folder = tempfile::tempdir().unwrap();
    let log = EmbeddedLog::open(folder.path(), 4, small()).unwrap();
    append_numbers(&log, 0..60).await;
    let third = &segments(folder.path())[2];
    let mut bytes = std::fs::read(third).unwrap();
    bytes[80] ^= 1;
    std::fs::write(third, bytes).unwrap();
    let error = all(&log, None).await.unwrap_err();
    assert!(error.kind() == Kind::Corrupt && error.to_string().contains(third.to_str().unwrap()), "{error}");
    std::fs::remove_file(third).unwrap();
    assert_eq!(all(&log, None).await.unwrap_err().kind(), Kind::Corrupt);
}

#[tokio::test]
async fn released_segments_go_but_the_last_cut_stays() {
    use crate::event::{CutPoint, Epoch, sample};
    use crate::stream::{Consumer, LaneEvent, find_last_cut, take_over};
    let folder = tempfile::tempdir().unwrap();
    let options = EmbeddedOptions { segment_bytes: 2000, ..small() };
    let log = Arc::new(EmbeddedLog::open(folder.path(), 4, options.clone()).unwrap());
    let mut producer = take_over(log.clone(), async |_| Ok(Epoch(1))).await.unwrap().producer;
    for number in 1..=40 {
        producer.cut(vec![], sample::cut(number)).await.unwrap();
    }
    producer.flush().await.unwrap();
    let before = segments(folder.path()).len();
    let mut consumer = Consumer::resume(log.as_ref(), None).await.unwrap();
    let mut checkpoint: Option<(CutPoint, LogPosition)> = None;
    while let Some(event) = consumer.next_if_any().await.unwrap() {
        if let LaneEvent::CutReached(reached) = event {
            checkpoint = Some((reached.point, reached.position));
        }
    }
    let (point, position) = checkpoint.unwrap();
    // the reader gives out many records at once, so the position lies before all of them; the end is as good here
    let position = if point.number.0 == 40 { consumer.reader_position() } else { position };
    log.release(&position).await.unwrap();
    drop((consumer, producer));
    drop(Arc::into_inner(log).unwrap());
    let log = EmbeddedLog::open(folder.path(), 4, options).unwrap();
    let after = segments(folder.path()).len();
    assert!(before > 5 && after < 4, "{before} {after}");
    assert!(Consumer::resume(&log, None).await.unwrap().next().await.is_err());
    let error = log.read(Some(&LogPosition("1:64".into()))).await.unwrap_err();
    assert!(error.kind() == Kind::Corrupt && error.to_string().contains("oldest="), "{error}");
    for log in [log, EmbeddedLog::open_to_read(folder.path()).unwrap().unwrap()] {
        assert!(log.recent(0).await.unwrap().is_some());
        let found = find_last_cut(&log).await.unwrap();
        assert_eq!(found.cut.unwrap().1.as_ref(), &sample::cut(40));
    }
}

#[test]
fn what_one_of_several_readers_needs_stays() {
    let path = tempfile::tempdir().unwrap();
    let folder = Folder::open_or_create(path.path(), 4).unwrap();
    let place = |segment| Place { segment, offset: 64 };
    // before there were names
    folder.note_released(None, place(3)).unwrap();
    assert_eq!(folder.released(), place(3));
    folder.register("s3://one").unwrap();
    folder.register("s3://one").unwrap();
    assert_eq!(folder.released(), place(3));
    folder.note_released(Some("s3://one"), place(7)).unwrap();
    assert_eq!(folder.released(), place(7));
    // another lake begins at the beginning
    folder.register("s3://two").unwrap();
    assert_eq!(folder.released(), Place::default());
    folder.note_released(Some("s3://two"), place(5)).unwrap();
    assert_eq!(folder.released(), place(5));
    folder.note_released(Some("s3://two"), place(9)).unwrap();
    assert_eq!(folder.released(), place(7));
    // one that reads no more holds nothing
    folder.forget("s3://one").unwrap();
    folder.forget("s3://one").unwrap();
    assert_eq!(folder.released(), place(9));
}

fn broken_disk(folder: &Path) -> (Arc<Folder>, Appender, Arc<Faults>) {
    drop(EmbeddedLog::open(folder, 4, small()).unwrap());
    let folder = Arc::new(Folder::open(folder).unwrap().unwrap());
    let appender = Appender::open(folder.clone(), EmbeddedOptions::default()).unwrap();
    let faults = appender.faults.clone();
    (folder, appender, faults)
}

fn start(folder: Arc<Folder>, appender: Appender) -> EmbeddedLog {
    let lock = Folder::lock(folder.path()).unwrap();
    let (end, last_cut) = (appender.end(), appender.last_cut());
    let (requests, queue) = mpsc::channel();
    let thread = std::thread::spawn(move || appender.run(&queue));
    let producer = ProducerSide { requests: Some(requests), thread: Some(thread), last_cut, _lock: lock };
    EmbeddedLog { folder, most_record_bytes: 1 << 20, end: Some(end), producer: Some(producer), reader: OnceLock::new() }
}

#[tokio::test]
async fn a_full_disk_refuses_and_the_log_goes_on_when_there_is_space() {
    let folder = tempfile::tempdir().unwrap();
    let (opened, appender, faults) = broken_disk(folder.path());
    let log = start(opened, appender);
    append_numbers(&log, 0..3).await;
    faults.disk_full.store(true, Ordering::SeqCst);
    let error = log.append(vec![record(1, "record 3")]).await.unwrap_err();
    assert_eq!((error.kind(), error.exit_code()), (Kind::Refused, 4));
    assert!(error.to_string().contains("free some space"), "{error}");
    faults.disk_full.store(false, Ordering::SeqCst);
    append_numbers(&log, 3..5).await;
    assert_eq!(all(&log, None).await.unwrap(), numbers(0..5));
    drop(log);
    let log = EmbeddedLog::open(folder.path(), 4, small()).unwrap();
    assert_eq!(all(&log, None).await.unwrap(), numbers(0..5));
}

#[tokio::test]
async fn a_failed_fsync_is_final_until_the_log_is_opened_again() {
    let folder = tempfile::tempdir().unwrap();
    let (opened, appender, faults) = broken_disk(folder.path());
    let log = start(opened, appender);
    append_numbers(&log, 0..3).await;
    faults.sync_fails.store(true, Ordering::SeqCst);
    log.append(vec![record(1, "record 3")]).await.unwrap_err();
    faults.sync_fails.store(false, Ordering::SeqCst);
    assert_eq!(log.append(vec![record(1, "record 3")]).await.unwrap_err().kind(), Kind::Refused);
    // nobody sees what may not be durable
    assert_eq!(all(&log, None).await.unwrap(), numbers(0..3));
    drop(log);
    let log = EmbeddedLog::open(folder.path(), 4, small()).unwrap();
    log.append(vec![record(1, "record 4")]).await.unwrap();
    assert_eq!(all(&log, None).await.unwrap().len(), 5);
}

#[tokio::test]
async fn a_reader_in_another_process_follows() {
    let folder = tempfile::tempdir().unwrap();
    let log = EmbeddedLog::open(folder.path(), 4, small()).unwrap();
    let other = EmbeddedLog::open_to_read(folder.path()).unwrap().unwrap();
    let mut reader = other.read(None).await.unwrap();
    assert!(reader.next().await.unwrap().is_empty());
    let writing = tokio::spawn(async move {
        append_numbers(&log, 0..30).await;
        log
    });
    let mut seen = Vec::new();
    while seen.len() < 30 {
        seen.extend(reader.next().await.unwrap().iter().map(|record| String::from_utf8_lossy(&record.bytes).into_owned()));
    }
    assert_eq!(seen, numbers(0..30));
    let error = other.append(vec![record(0, "x")]).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Bug);
    drop(writing.await.unwrap());
}

/// What version 1 wrote stays readable, and is written on.
#[tokio::test]
async fn a_folder_of_version_1_is_read() {
    let sample = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/stream-v1");
    if std::env::var_os("BINLAKE_WRITE_SAMPLES").is_some() {
        _ = std::fs::remove_dir_all(&sample);
        let log = EmbeddedLog::open(&sample, 4, small()).unwrap();
        append_numbers(&log, 0..10).await;
        drop(log);
        std::fs::remove_file(sample.join("lock")).unwrap();
    }
    let folder = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(&sample).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, folder.path().join(path.file_name().unwrap())).unwrap();
    }
    let log = EmbeddedLog::open(folder.path(), 4, small()).unwrap();
    append_numbers(&log, 10..12).await;
    assert_eq!(all(&log, None).await.unwrap(), numbers(0..12));
}
