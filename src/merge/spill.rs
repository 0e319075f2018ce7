//! Sorted runs on local disk: Arrow IPC in files without a name, which vanish with the process however it ends.

use super::history::{Came, End, SourceOrder, Trace};
use super::piece::SortedPiece;
use super::shape::{LakeShape, adapt, arrow_error};
use crate::error::{Area, Error, Kind, Result};
use crate::event::{CutPoint, Epoch};
use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, UInt8Array, UInt32Array, UInt64Array, new_null_array};
use arrow::datatypes::{DataType, Field, Schema, UInt8Type, UInt32Type, UInt64Type};
use arrow::ipc::CompressionType;
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::{IpcWriteOptions, StreamWriter};
use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Columns beside the lake's, at the end of each batch of a run.
const OWN_COLUMNS: usize = 5;

/// Where runs are written.
#[derive(Debug, Clone)]
pub struct SpillFolder(PathBuf);

impl SpillFolder {
    /// Uses the folder `path`, which is made when it is first needed.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// The folder, which may not be there yet.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// A file without a name.
    pub(super) fn file(&self) -> Result<File> {
        let refused = |error: std::io::Error| spill_error(&self.0, "the spill folder can't be written", error);
        std::fs::create_dir_all(&self.0).map_err(refused)?;
        tempfile::tempfile_in(&self.0).map_err(refused)
    }
}

pub(super) fn spill_error(path: &Path, what: &'static str, error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::new(Area::Lake, Kind::Refused, what)
        .caused_by(error)
        .with("path", path.display())
        .remedy("free space there, or set `lake.spill_dir` to a folder with space for the largest transaction")
}

/// A sorted run on disk: rows of complete pieces of one truncation generation.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) label: RunLabel,
    pub(super) rows: usize,
    /// The transactions whose rows it has, where a history needs them.
    pub(super) transactions: Vec<Came>,
    /// The producers that sent its pieces, by arrival; for a history as well.
    pub(super) arrivals: Vec<(u64, Epoch)>,
    /// The transactions that have a DELETE in it, for a history as well; `None`: they are too many.
    pub(super) ends: Option<Vec<End>>,
    path: PathBuf,
    file: File,
}

/// What a run is about, besides its rows.
#[derive(Debug, Clone, Copy)]
pub(super) struct RunLabel {
    /// The first and last window that it has rows of, by their cuts.
    pub(super) first_closing: CutPoint,
    pub(super) last_closing: CutPoint,
    pub(super) generation: u64,
    /// The earliest commit time among its rows' transactions.
    pub(super) first_commit_time: Option<i64>,
}

impl Run {
    /// Writes a sorted sequence to disk.
    pub(super) fn write(
        folder: &SpillFolder,
        shape: &LakeShape,
        label: RunLabel,
        pieces: impl Iterator<Item = Result<SortedPiece>>,
    ) -> Result<Self> {
        let file = folder.file()?;
        let failed = |error: arrow::error::ArrowError| spill_error(&folder.0, "a sorted run can't be written to local disk", error);
        let mut fields: Vec<Arc<Field>> = shape.carried().fields().iter().cloned().collect();
        fields.push(Arc::new(Field::new("_is_delete", DataType::Boolean, false)));
        fields.push(Arc::new(Field::new("_partition", DataType::UInt32, false)));
        fields.push(Arc::new(Field::new("_arrival", DataType::UInt64, false)));
        fields.push(Arc::new(Field::new("_operation", DataType::UInt8, true)));
        fields.push(Arc::new(Field::new("_order", DataType::UInt64, true)));
        let schema = Arc::new(Schema::new(fields));
        let options = IpcWriteOptions::default().try_with_compression(Some(CompressionType::LZ4_FRAME)).map_err(arrow_error)?;
        let mut writer = StreamWriter::try_new_with_options(BufWriter::new(file), &schema, options).map_err(failed)?;
        let mut rows = 0;
        for piece in pieces {
            let piece = piece?;
            rows += piece.rows.num_rows();
            let partitions = if piece.partitions.is_empty() { vec![0; piece.rows.num_rows()] } else { piece.partitions };
            let mut columns: Vec<ArrayRef> = piece.rows.columns().to_vec();
            columns.push(Arc::new(piece.is_delete));
            columns.push(Arc::new(UInt32Array::from(partitions)));
            columns.push(Arc::new(UInt64Array::from(piece.arrivals)));
            match piece.trace {
                Some(trace) => {
                    columns.push(Arc::new(UInt8Array::from(trace.operations)));
                    columns.push(Arc::new(UInt64Array::from_iter_values(trace.orders.iter().map(|order| order.0))));
                }
                None => {
                    columns.push(new_null_array(&DataType::UInt8, piece.rows.num_rows()));
                    columns.push(new_null_array(&DataType::UInt64, piece.rows.num_rows()));
                }
            }
            let batch = RecordBatch::try_new(schema.clone(), columns).map_err(arrow_error)?;
            writer.write(&batch).map_err(failed)?;
        }
        let mut buffered = writer.into_inner().map_err(failed)?;
        buffered.flush().map_err(|error| spill_error(&folder.0, "a sorted run can't be written to local disk", error))?;
        let file = buffered
            .into_inner()
            .map_err(|error| spill_error(&folder.0, "a sorted run can't be written to local disk", error.into_error()))?;
        Ok(Self { label, rows, transactions: Vec::new(), arrivals: Vec::new(), ends: None, path: folder.0.clone(), file })
    }
}

impl Run {
    /// The same, with the transactions that it has rows of, and who sent its pieces.
    pub(super) fn with_transactions(
        self,
        mut transactions: Vec<Came>,
        arrivals: Vec<(u64, Epoch)>,
        ends: Option<Vec<End>>,
    ) -> Self {
        transactions.sort_unstable();
        transactions.dedup();
        Self { transactions, arrivals, ends, ..self }
    }
}

/// Reads a run from its beginning, in today's shape.
#[derive(Debug)]
pub(super) struct RunReader {
    run: Arc<Run>,
    shape: Arc<LakeShape>,
    fill: Option<RecordBatch>,
    reader: StreamReader<BufReader<ReadAt>>,
}

/// Reads a file that others read at the same time.
#[derive(Debug)]
struct ReadAt {
    run: Arc<Run>,
    at: u64,
}

impl Read for ReadAt {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.run.file.read_at(buffer, self.at)?;
        self.at += count as u64;
        Ok(count)
    }
}

impl RunReader {
    pub(super) fn new(run: &Arc<Run>, shape: &Arc<LakeShape>, fill: Option<RecordBatch>) -> Result<Self> {
        let bytes = BufReader::with_capacity(64 << 10, ReadAt { run: run.clone(), at: 0 });
        let reader = StreamReader::try_new(bytes, None)
            .map_err(|error| spill_error(&run.path, "a sorted run can't be read from local disk", error))?;
        Ok(Self { run: run.clone(), shape: shape.clone(), fill, reader })
    }

    fn sorted_piece(&self, batch: &RecordBatch) -> Result<SortedPiece> {
        let lost = || Error::bug("a sorted run lacks its own columns");
        let count = batch.num_columns().checked_sub(OWN_COLUMNS).ok_or_else(lost)?;
        let own = |i: usize| batch.column(count + i);
        let columns = adapt(batch, self.shape.carried(), self.fill.as_ref())?;
        Ok(SortedPiece {
            rows: RecordBatch::try_new(self.shape.carried().clone(), columns).map_err(arrow_error)?,
            is_delete: BooleanArray::from(own(0).to_data()),
            partitions: match self.shape.partition_by() {
                Some(_) => own(1).as_primitive::<UInt32Type>().values().to_vec(),
                None => Vec::new(),
            },
            arrivals: own(2).as_primitive::<UInt64Type>().values().to_vec(),
            trace: (own(3).null_count() == 0).then(|| Trace {
                operations: own(3).as_primitive::<UInt8Type>().values().to_vec(),
                orders: own(4).as_primitive::<UInt64Type>().values().iter().map(|order| SourceOrder(*order)).collect(),
            }),
        })
    }
}

impl Iterator for RunReader {
    type Item = Result<SortedPiece>;

    fn next(&mut self) -> Option<Self::Item> {
        let batch = match self.reader.next()? {
            Ok(batch) => batch,
            Err(error) => return Some(Err(spill_error(&self.run.path, "a sorted run can't be read from local disk", error))),
        };
        Some(self.sorted_piece(&batch))
    }
}
