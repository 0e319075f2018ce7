//! All versions of some keys, wherever they lie.

use super::keys::KeyBytes;
use super::shape::{OPEN, partition_of, time_type};
use super::versions::OPEN_END;
use crate::error::Result;
use crate::table::RowReader;
use arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch, TimestampMicrosecondArray};
use std::collections::HashSet;
use std::sync::Arc;

/// The history's rows of these keys (columns of the rows' key, called `names`, sorted, each key once), by partition, sorted as the history is. Of the history
/// of a child the rows whose key begins so. Blocks.
pub fn erasable(mut reader: RowReader, names: &[String], keys: &[ArrayRef]) -> Result<Vec<RecordBatch>> {
    let columns = reader.columns().clone();
    let maker = KeyBytes::new(names, &columns)?;
    let wanted = maker.of_columns(keys)?;
    let wanted: HashSet<Box<[u8]>> = (0..wanted.num_rows()).map(|row| Box::from(wanted.row(row).data())).collect();
    let count = keys.first().map_or(0, |column| column.len());
    let end: ArrayRef = Arc::new(TimestampMicrosecondArray::from(vec![OPEN_END; count]).with_data_type(time_type()));
    let mut found = Vec::new();
    for partition in reader.partitions() {
        if partition == partition_of(OPEN) {
            let prefix = [vec![end.clone(), end.clone()], keys.to_vec()].concat();
            found.push(reader.find(&partition, &prefix)?.rows);
            continue;
        }
        let mut keep = |columns: &RecordBatch| -> Result<BooleanArray> {
            let keys = maker.of(columns)?;
            Ok((0..keys.num_rows()).map(|row| Some(wanted.contains(keys.row(row).data()))).collect())
        };
        found.push(reader.scan(&partition, None, &mut keep)?);
    }
    Ok(found)
}
