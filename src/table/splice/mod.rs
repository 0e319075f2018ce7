//! Copying what a change doesn't touch as raw bytes, without decoding it.
//!
//! **Chunks.** A row group without a change is copied as it is ([`copy_chunk`]); only Hudi's file name, one dictionary value, is made anew.
//!
//! **Pages.** Where a few changes fall into a row group, the pages of a column chunk are copied one by one, and only those around a change are made
//! anew ([`PageSplice`]): a page needs nothing of its neighbours, only the chunk's dictionary, and a longer dictionary serves the old pages as well as the new ones.
//! All our columns break their pages at the same rows, so an update, an insert or a delete is the same thing here: a run of rows that is replaced by another run.
//! Where a page sees only updates that leave a column's values as they were, that column's page is copied too.

mod assemble;
mod chunk;
mod dictionary;
mod pages;
mod statistics;
mod values;

pub(super) use chunk::{CopyMap, chunk_bytes, copy_chunk};
pub(super) use pages::PageSplice;
pub(super) use values::equal_values;
