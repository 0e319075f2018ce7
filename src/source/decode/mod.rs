//! From the bytes of a row image to values: a decoder for each column, made from the table map.

mod column;
mod decimal;
mod json;
mod json_write;
mod temporal;

pub(crate) use column::{ColumnDecoder, mapped_source_type};
