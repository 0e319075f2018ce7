//! Tables with a transform: what the lake has after each kind of change at the source.

mod as_written;
mod dead_letters;
mod deliveries;
mod impressions;
mod item_stores;
mod lookup_sources;
mod lookups;
mod of_source;
mod reapply;
mod tickets;

pub(crate) use of_source::{comes_to, shown};
