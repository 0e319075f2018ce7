//! Tables with a transform: what the lake has after each kind of change at the source.

mod deliveries;
mod impressions;
mod lookups;
mod of_source;
