//! A chunk's payload: the control frame and the body frame, each packed by zstd.

use super::batch::{ALIGNMENT, padding};
use super::directory::{Directory, decode_sections};
use super::{ChunkContent, Section, damaged};
use crate::error::{Area, Error, Kind, Result};
use crate::event::Cut;
use std::cell::RefCell;
use std::sync::Arc;

/// The largest chunk that is decoded, unpacked, in bytes: a row of 1 GiB (MySQL's largest packet) and as much beside it.
pub const MAX_CHUNK_BYTES: u64 = 2 << 30;

/// zstd's level for bodies and control frames: see `docs/decisions.md` for how it was chosen.
const LEVEL: i32 = 1;

thread_local! {
    /// Contexts are large (hundreds of KiB) and made anew at a cost: one of each a thread.
    static COMPRESSOR: RefCell<Option<zstd::bulk::Compressor<'static>>> = const { RefCell::new(None) };
    static DECOMPRESSOR: RefCell<Option<zstd::bulk::Decompressor<'static>>> = const { RefCell::new(None) };
}

/// The bytes of a chunk, before they are cut into records.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ChunkPayload {
    /// The control frame, then the body frame; each may be missing.
    pub bytes: Vec<u8>,
    /// Bytes of the control frame.
    pub control_bytes: u32,
}

impl ChunkPayload {
    /// Encodes a chunk's sections and, if `cut` is given, that cut.
    ///
    /// # Errors
    /// `Bug` if a batch contradicts its shape.
    pub fn encode(sections: &[Section], cut: Option<&Cut>) -> Result<Self> {
        let mut bytes = Vec::new();
        if let Some(cut) = cut {
            let text = serde_json::to_vec(cut).map_err(|error| Error::bug("a cut can't be written").caused_by(error))?;
            pack(&text, &mut bytes)?;
        }
        let control_bytes = u32::try_from(bytes.len()).map_err(|_| Error::bug("a cut takes more than 4 GiB"))?;
        if !sections.is_empty() {
            let (directory, batches) = Directory::encode(sections)?;
            let body_len = batches.iter().map(|batch| batch.message.len() + batch.body.len() + 2 * ALIGNMENT).sum::<usize>();
            let mut body = Vec::with_capacity(4 + directory.len() + ALIGNMENT + body_len);
            let directory_len = u32::try_from(directory.len()).map_err(|_| Error::bug("a chunk has too many rows"))?;
            body.extend_from_slice(&directory_len.to_le_bytes());
            body.extend_from_slice(&directory);
            body.resize(body.len() + padding(body.len()), 0);
            for batch in batches {
                for piece in [&batch.message, &batch.body] {
                    body.extend_from_slice(piece);
                    body.resize(body.len() + padding(body.len()), 0);
                }
            }
            pack(&body, &mut bytes)?;
        }
        Ok(Self { bytes, control_bytes })
    }

    /// Decodes a chunk; its arrays lie in one buffer, uncopied.
    ///
    /// # Errors
    /// `Corrupt` if the bytes are damaged; never panics.
    pub fn decode(payload: &[u8], control_bytes: u32) -> Result<ChunkContent> {
        let cut = Self::decode_cut(payload, control_bytes)?.map(Arc::new);
        let body = payload.get(control_bytes as usize..).unwrap_or_default();
        let sections = if body.is_empty() { Vec::new() } else { decode_sections(unpack(body)?)? };
        Ok(ChunkContent { sections, cut })
    }

    /// Decodes the cut alone.
    ///
    /// # Errors
    /// `Corrupt` if the bytes are damaged.
    pub fn decode_cut(payload: &[u8], control_bytes: u32) -> Result<Option<Cut>> {
        if control_bytes == 0 {
            return Ok(None);
        }
        let control = payload.get(..control_bytes as usize).ok_or_else(|| damaged("its control frame ends early"))?;
        let cut = serde_json::from_slice(&unpack(control)?).map_err(|error| damaged("its cut can't be read").caused_by(error))?;
        Ok(Some(cut))
    }
}

/// Appends the zstd frame of `plain`.
fn pack(plain: &[u8], out: &mut Vec<u8>) -> Result<()> {
    let failed = |error: std::io::Error| Error::bug("a chunk can't be compressed").caused_by(error);
    COMPRESSOR.with_borrow_mut(|compressor| {
        let compressor = match compressor {
            Some(compressor) => compressor,
            empty => empty.insert(zstd::bulk::Compressor::new(LEVEL).map_err(failed)?),
        };
        let start = out.len();
        let mut frame = compressor.compress(plain).map_err(failed)?;
        if start == 0 {
            *out = frame;
        } else {
            out.append(&mut frame);
        }
        Ok(())
    })
}

/// The content of a zstd frame, if it says its length and that is within [`MAX_CHUNK_BYTES`].
fn unpack(frame: &[u8]) -> Result<Vec<u8>> {
    let len = zstd::zstd_safe::get_frame_content_size(frame).ok().flatten().ok_or_else(|| damaged("it does not say its length"))?;
    if len > MAX_CHUNK_BYTES {
        return Err(Error::new(Area::Stream, Kind::Corrupt, "a chunk on the stream is larger than can be read")
            .with("bytes", len)
            .with("most", MAX_CHUNK_BYTES)
            .remedy("the row that it holds is too large: leave its column out by a table rule and take the table anew"));
    }
    let failed = |error: std::io::Error| damaged("it can't be decompressed").caused_by(error);
    DECOMPRESSOR.with_borrow_mut(|decompressor| {
        let decompressor = match decompressor {
            Some(decompressor) => decompressor,
            empty => empty.insert(zstd::bulk::Decompressor::new().map_err(failed)?),
        };
        let len = usize::try_from(len).map_err(|_| damaged("its length is out of range"))?;
        let plain = decompressor.decompress(frame, len).map_err(failed)?;
        if plain.len() == len { Ok(plain) } else { Err(damaged("it is shorter than it says")) }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::sample::{cut, stamps, ticket_changes};
    use crate::event::{
        ChangeBatch, ChunkHeader, ChunkIndex, Column, CutNumber, CutPoint, Epoch, Lane, SourceType, TableId, TableSchema,
    };
    use arrow::array::{Array, RecordBatch};

    fn assert_same(a: &ChangeBatch, b: &ChangeBatch) {
        assert_eq!(a.schema, b.schema);
        assert_eq!(a.rows, b.rows);
        assert_eq!(a.operations, b.operations);
        assert_eq!(a.changed, b.changed);
        assert_eq!(a.len(), b.len());
        for row in 0..a.len() {
            let stamp = |batch: &ChangeBatch| batch.transactions[batch.stamps.value(row) as usize].clone();
            assert_eq!(stamp(a), stamp(b));
        }
    }

    fn rows(section: &Section) -> &ChangeBatch {
        match section {
            Section::Rows(rows) => rows,
            _ => panic!("no rows: {section:?}"),
        }
    }

    fn all_kinds() -> Vec<Section> {
        let first = ticket_changes(100, 60, 3);
        let mut second = first.clone();
        second.rows = second.rows.slice(10, 33);
        second.operations = second.operations.slice(10, 33);
        second.stamps = second.stamps.slice(10, 33);
        second.changed = second.changed.map(|changed| changed.slice(10, 33));
        let mut third = ticket_changes(7, 5, 1);
        third.changed = None;
        let mut wider = TableSchema::clone(&first.schema);
        wider.columns.push(Column { name: "note".into(), source_type: SourceType::TinyInt { unsigned: false }, nullable: false });
        let fill =
            RecordBatch::try_from_iter([("note", Arc::new(arrow::array::Int32Array::from(vec![7])) as Arc<dyn Array>)]).unwrap();
        let stamp = stamps(1, 9)[0].clone();
        vec![
            Section::Rows(first),
            Section::Truncate { table: TableId::new("a.b", "c"), stamp: stamp.clone() },
            Section::Rows(second),
            Section::NewShape { schema: Arc::new(wider.clone()), fill: Some(fill), stamp: stamp.clone() },
            Section::NewShape { schema: Arc::new(wider), fill: None, stamp },
            Section::Rows(third),
        ]
    }

    fn assert_same_sections(a: &[Section], b: &[Section]) {
        assert_eq!(a.len(), b.len());
        for (a, b) in a.iter().zip(b) {
            match (a, b) {
                (Section::Rows(a), Section::Rows(b)) => assert_same(a, b),
                (Section::Truncate { table: a, stamp: s }, Section::Truncate { table: b, stamp: t }) => assert_eq!((a, s), (b, t)),
                (Section::NewShape { schema: a, fill: f, stamp: s }, Section::NewShape { schema: b, fill: g, stamp: t }) => {
                    assert_eq!((a, s), (b, t));
                    assert_eq!(f.as_ref().map(|fill| fill.columns()), g.as_ref().map(|fill| fill.columns()));
                }
                _ => panic!("another kind: {b:?}"),
            }
        }
    }

    /// What version 1 wrote stays readable. (Its bytes need not be written again: zstd may pack otherwise.)
    #[test]
    fn a_chunk_of_version_1_is_read() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/chunk/v1.chunk");
        let (sections, cut) = (all_kinds(), cut(5));
        let mut header = ChunkHeader {
            lane: Lane(0),
            epoch: Epoch(3),
            producer: 0x0102_0304,
            index: ChunkIndex(7),
            window: CutNumber(5),
            resumed_from: Some(CutPoint { epoch: Epoch(2), number: CutNumber(4) }),
            opens_epoch: false,
            starts_window: true,
            ends_with_cut: true,
            payload_bytes: 0,
            part_start: 0,
            control_bytes: 0,
        };
        if std::env::var_os("BINLAKE_WRITE_SAMPLES").is_some() {
            let payload = ChunkPayload::encode(&sections, Some(&cut)).unwrap();
            header.payload_bytes = payload.bytes.len() as u64;
            header.control_bytes = payload.control_bytes;
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, header.record(&payload.bytes)).unwrap();
        }
        let (read, payload) = ChunkHeader::read(&std::fs::read(&path).unwrap().into()).unwrap();
        header.payload_bytes = payload.len() as u64;
        header.control_bytes = read.control_bytes;
        assert_eq!(read, header);
        let content = ChunkPayload::decode(&payload, read.control_bytes).unwrap();
        assert_eq!(content.cut.as_deref(), Some(&cut));
        assert_same_sections(&sections, &content.sections);
    }

    #[test]
    fn all_kinds_of_sections_come_back() {
        let sections = all_kinds();
        let payload = ChunkPayload::encode(&sections, Some(&cut(5))).unwrap();
        let content = ChunkPayload::decode(&payload.bytes, payload.control_bytes).unwrap();
        assert_eq!(content.cut.as_deref(), Some(&cut(5)));
        assert_same_sections(&sections, &content.sections);
        // rows carry only the transactions that they refer to
        assert_eq!(rows(&content.sections[0]).transactions.len(), 20);
    }

    #[test]
    fn nothing_takes_no_bytes() {
        let payload = ChunkPayload::encode(&[], None).unwrap();
        assert_eq!(payload, ChunkPayload::default());
        assert!(ChunkPayload::decode(&payload.bytes, 0).unwrap().sections.is_empty());
    }

    #[test]
    fn damage_of_a_body_is_an_error_and_never_a_panic() {
        let payload = ChunkPayload::encode(&all_kinds(), None).unwrap();
        let body = unpack(&payload.bytes).unwrap();
        for len in (0..body.len()).step_by(11) {
            let _ = decode_sections(body[..len].to_vec());
        }
        // a bit of each byte; all of them with BINLAKE_CASES set
        let step = if std::env::var_os("BINLAKE_CASES").is_some() { 1 } else { 9 };
        for bit in (0..body.len() * 8).step_by(step) {
            let mut damaged = body.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            let _ = decode_sections(damaged);
        }
    }

    #[test]
    fn bytes_of_all_sorts_are_an_error_and_never_a_panic() {
        let mut noise = crate::event::sample::noise(11);
        let payload = ChunkPayload::encode(&all_kinds(), None).unwrap();
        let body = unpack(&payload.bytes).unwrap();
        for _ in 0..3000 {
            let mut damaged = body.clone();
            for _ in 0..=noise(6) {
                let at = noise(damaged.len() as u64) as usize;
                match noise(4) {
                    0 => damaged[at] = noise(256) as u8,
                    1 => damaged[at] = [0, 0x7f, 0x80, 0xff][noise(4) as usize],
                    2 => drop(damaged.splice(at..at, [noise(256) as u8; 3])),
                    _ => drop(damaged.drain(at..(at + 5).min(damaged.len()))),
                }
            }
            let _ = decode_sections(damaged);
        }
        for len in 0..200 {
            let noise: Vec<u8> = (0..len).map(|_| noise(256) as u8).collect();
            assert!(ChunkPayload::decode(&noise, noise.len() as u32 / 2).is_err() || noise.is_empty());
            let _ = decode_sections(noise);
        }
    }
}
