//! Base files: Parquet with Hudi's five columns before the table's own.
//!
//! Each file that we write says in its footer, beside what Hudi expects there, that it is ours and sorted, and the first and last key of each row group
//! (`binlake.key_ranges`): the index of keys and the splice live on it.

mod constant;
mod encode;
mod footer;
mod layout;
mod read;
mod upload;

pub(super) use constant::constant_chunk;
pub(super) use encode::{ColumnEncoder, EncodedColumn, RawColumn, page_rows_for};
pub(super) use footer::{KEY_RANGES, KeyRanges};
pub(super) use layout::{FileLayout, MetaColumn, assign_field_ids, memory_type};
pub(super) use read::{BaseFile, RowGroupBytes, parquet_error};
pub(super) use upload::{FileUpload, UploadBuffer};

/// Rows of a row group at most: enough for dictionaries to pay, few enough to keep several in memory and for readers to share out.
///
/// Small in unit tests, as pages are: so a history of a few hundred rows meets every cut.
pub(super) const MAX_ROW_GROUP_ROWS: usize = if cfg!(test) { 192 } else { 122_880 };

/// Bytes in memory of a row group at most.
pub(super) const MAX_ROW_GROUP_BYTES: usize = 48 << 20;
