//! How many rows base files hold, as their footers say.

use crate::error::{Area, Error, Kind, Result};
use crate::table::{FileSlice, Lake};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use object_store::ObjectStoreExt;
use object_store::path::Path;
use parquet::errors::ParquetError;
use parquet::file::metadata::ParquetMetaDataReader;

/// Footers that are read at once.
const CONCURRENT_READS: usize = 16;
/// Bytes at a file's end that are read first: a footer is mostly shorter.
const FOOTER_HINT: u64 = 64 << 10;

/// The rows in `slices` of the table at `base`.
pub async fn row_count(lake: &Lake, base: &Path, slices: &[FileSlice]) -> Result<u64> {
    let counts = slices
        .iter()
        .map(|slice| async move { rows(lake, base, slice).await.map_err(|error| error.with("file", &slice.file_name)) });
    futures::stream::iter(counts).buffer_unordered(CONCURRENT_READS).try_fold(0, async |sum, rows| Ok(sum + rows)).await
}

async fn rows(lake: &Lake, base: &Path, slice: &FileSlice) -> Result<u64> {
    let path = Path::parse(format!("{base}/{}", slice.path()))
        .map_err(|error| Error::bug("a slice's path can't be read back").caused_by(error))?;
    let mut wanted = FOOTER_HINT;
    loop {
        let tail = tail(lake, &path, slice.file_bytes, wanted).await?;
        let mut reader = ParquetMetaDataReader::new();
        match reader.try_parse_sized(&tail, slice.file_bytes).and_then(|()| reader.finish()) {
            Ok(metadata) => return Ok(u64::try_from(metadata.file_metadata().num_rows()).unwrap_or(0)),
            Err(ParquetError::NeedMoreData(more)) if more as u64 > wanted && wanted < slice.file_bytes => wanted = more as u64,
            Err(error) => return Err(Error::new(Area::Lake, Kind::Corrupt, "a base file's footer can't be read").caused_by(error)),
        }
    }
}

async fn tail(lake: &Lake, path: &Path, file_bytes: u64, wanted: u64) -> Result<Bytes> {
    let range = file_bytes.saturating_sub(wanted)..file_bytes;
    lake.store()
        .get_range(path, range)
        .await
        .map_err(|error| Error::new(Area::Lake, Kind::Transient, "a base file can't be read").caused_by(error))
}
