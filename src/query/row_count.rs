//! How many rows base files hold, as their footers say.

use crate::error::{Area, Error, Kind, Result};
use crate::table::{FileSlice, Lake};
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use parquet::arrow::async_reader::{AsyncFileReader, ParquetObjectReader};

/// Footers that are read at once.
const CONCURRENT_READS: usize = 16;
/// Bytes at a file's end that are read first: a footer is mostly shorter.
const FOOTER_HINT: usize = 64 << 10;

/// The rows in `slices` of the table at `base`.
pub async fn row_count(lake: &Lake, base: &Path, slices: &[FileSlice]) -> Result<u64> {
    let counts = slices.iter().map(|slice| async move {
        let failed = |error: parquet::errors::ParquetError| {
            Error::new(Area::Lake, Kind::Corrupt, "a base file's footer can't be read")
                .caused_by(error)
                .with("file", &slice.file_name)
        };
        let path = Path::parse(format!("{base}/{}", slice.path()))
            .map_err(|error| Error::bug("a slice's path can't be read back").caused_by(error))?;
        let mut reader = ParquetObjectReader::new(lake.store().clone(), path)
            .with_file_size(slice.file_bytes)
            .with_footer_size_hint(FOOTER_HINT);
        let rows = reader.get_metadata(None).await.map_err(failed)?.file_metadata().num_rows();
        Ok(u64::try_from(rows).unwrap_or(0))
    });
    futures::stream::iter(counts).buffer_unordered(CONCURRENT_READS).try_fold(0, async |sum, rows| Ok(sum + rows)).await
}
