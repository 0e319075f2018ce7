//! PARTIAL_UPDATE_ROWS: after images in which a JSON column may be a list of changes to its before image (`binlog_row_value_options=PARTIAL_JSON`).

use super::bytes::{Reader, bit};
use super::decode::ColumnDecoder;
use super::tracked::stops_table;
use crate::error::Result;
use std::borrow::Cow;

/// Takes an after image; a JSON column that is given as changes is refused.
pub(super) fn take_partial_image<'a>(
    reader: &mut Reader<'a>,
    decoders: &[ColumnDecoder],
    _before: &[Option<&'a [u8]>],
    after: &mut Vec<Option<Cow<'a, [u8]>>>,
) -> Result<()> {
    const PARTIAL_JSON: u64 = 1;
    after.clear();
    let options = reader.length()?;
    let json_columns = decoders.iter().filter(|decoder| decoder.is_json()).count();
    let partial = if options & PARTIAL_JSON != 0 { reader.take(json_columns.div_ceil(8))? } else { &[] };
    let nulls = reader.take(decoders.len().div_ceil(8))?;
    let mut json = 0;
    for (i, decoder) in decoders.iter().enumerate() {
        let is_partial = decoder.is_json() && bit(partial, json);
        json += usize::from(decoder.is_json());
        if bit(nulls, i) {
            after.push(None);
        } else if is_partial {
            return Err(stops_table("an update holds only the changed parts of a JSON value").remedy(
                "set binlog_row_value_options = '' on the server and for all sessions, then run `binlake backfill --table` for it",
            ));
        } else {
            after.push(Some(Cow::Borrowed(decoder.take(reader)?)));
        }
    }
    Ok(())
}
