//! A record batch as Arrow IPC, without its schema and without compression of its own.

use super::damaged;
use super::filter::{Filtered, filter};
use crate::error::{Error, Result};
use arrow::array::RecordBatch;
use arrow::buffer::Buffer;
use arrow::datatypes::{DataType, Schema, SchemaRef};
use arrow::ipc::writer::{DictionaryTracker, IpcDataGenerator, IpcWriteContext, IpcWriteOptions};
use arrow::ipc::{FieldNode, Message, RecordBatch as Layout};
use std::collections::HashMap;

/// Arrow's recommended alignment, which is also the one of the body's parts.
pub(super) const ALIGNMENT: usize = 64;

/// Zero bytes to append after `len` bytes, so that the next thing is aligned.
pub(super) fn padding(len: usize) -> usize {
    len.next_multiple_of(ALIGNMENT) - len
}

/// A batch's Arrow message and body.
#[derive(Debug)]
pub(super) struct EncodedBatch {
    pub(super) message: Vec<u8>,
    pub(super) body: Vec<u8>,
    pub(super) filtered: Vec<Filtered>,
}

/// Encodes `batch`.
pub(super) fn encode_batch(batch: &RecordBatch) -> Result<EncodedBatch> {
    let mut context = IpcWriteContext::default();
    let (dictionaries, encoded) = IpcDataGenerator::default()
        .encode(batch, &mut DictionaryTracker::new(true), &IpcWriteOptions::default(), &mut context)
        .map_err(|error| Error::bug("a batch can't be written as Arrow IPC").caused_by(error))?;
    if !dictionaries.is_empty() {
        return Err(Error::bug("a batch with a dictionary was put on the stream"));
    }
    let (message, mut body) = (encoded.ipc_message, encoded.arrow_data);
    let layout = arrow::ipc::root_as_message(&message).ok();
    let layout = layout.as_ref().and_then(|message| message.header_as_record_batch());
    let layout = layout.ok_or_else(|| Error::bug("a batch was written as something else"))?;
    let filtered = filter(batch.schema_ref(), &layout, &mut body);
    Ok(EncodedBatch { message, body, filtered })
}

/// Decodes a batch; its arrays lie in `body`, uncopied.
pub(super) fn decode_batch(schema: &SchemaRef, message: &[u8], body: &Buffer) -> Result<RecordBatch> {
    let message = arrow::ipc::root_as_message(message).map_err(|_| damaged("an Arrow message is none"))?;
    let layout = message.header_as_record_batch().ok_or_else(|| damaged("an Arrow message is not a batch's"))?;
    check_layout(schema, &layout, body.len())?;
    decode_checked(schema, &message, layout, body)
}

fn decode_checked(schema: &SchemaRef, message: &Message<'_>, layout: Layout<'_>, body: &Buffer) -> Result<RecordBatch> {
    arrow::ipc::reader::read_record_batch(body, layout, schema.clone(), &HashMap::new(), None, &message.version())
        .map_err(|error| damaged("a batch's arrays contradict themselves").caused_by(error))
}

/// What Arrow's reader takes for granted (it panics otherwise): all ranges lie in the body, null masks are long enough, offsets are whole, no
/// compression, no variadic buffers.
fn check_layout(schema: &Schema, layout: &Layout<'_>, body_len: usize) -> Result<()> {
    let most_rows = body_len.saturating_mul(8) as i64;
    let (Some(buffers), Some(nodes)) = (layout.buffers(), layout.nodes()) else {
        return Err(damaged("an Arrow message lacks its buffers"));
    };
    let buffers_fit = buffers.iter().all(|buffer| {
        let end = buffer.offset().checked_add(buffer.length());
        buffer.offset() >= 0 && buffer.length() >= 0 && end.is_some_and(|end| end as usize <= body_len)
    });
    let nodes_fit =
        nodes.iter().all(|node| (0..=most_rows).contains(&node.length()) && (0..=node.length()).contains(&node.null_count()));
    let is_plain = layout.compression().is_none() && layout.variadicBufferCounts().is_none_or(|counts| counts.is_empty());
    let (mut nodes, mut buffers) = (nodes.iter(), buffers.iter());
    let arrays_fit = schema.fields().iter().all(|field| array_fits(field.data_type(), &mut nodes, &mut buffers));
    if buffers_fit && nodes_fit && is_plain && (0..=most_rows).contains(&layout.length()) && arrays_fit {
        Ok(())
    } else {
        Err(damaged("an Arrow message names bytes that are not there"))
    }
}

/// Whether an array's null mask is as long as the array, and its offsets are whole; moves past the array's nodes and buffers.
fn array_fits<'a>(
    data_type: &DataType,
    nodes: &mut impl Iterator<Item = &'a FieldNode>,
    buffers: &mut impl Iterator<Item = &'a arrow::ipc::Buffer>,
) -> bool {
    let (Some(node), Some(mask), Some(second)) = (nodes.next(), buffers.next(), buffers.next()) else { return false };
    let mask_fits = node.null_count() == 0 || mask.length().saturating_mul(8) >= node.length();
    let rest_fits = match data_type {
        DataType::Utf8 | DataType::Binary => second.length() % 4 == 0 && buffers.next().is_some(),
        DataType::List(child) => second.length() % 4 == 0 && array_fits(child.data_type(), nodes, buffers),
        _ => true,
    };
    mask_fits && rest_fits
}
