//! Tables with a transform: what the lake has after each kind of change at the source.

mod as_written;
mod dead_letters;
mod deliveries;
mod filtered;
mod impressions;
mod item_stores;
mod late_letters;
mod lookup_sources;
mod lookup_tables;
mod lookups;
mod misfits;
mod of_source;
mod reapply;
mod reapply_at_scale;
mod s2;
mod sales;
mod tickets;

pub(crate) use of_source::{comes_to, shown};
