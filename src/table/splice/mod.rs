//! Copying what a change doesn't touch as raw bytes, without decoding it.

mod chunk;

pub(super) use chunk::{CopyMap, copy_chunk};
