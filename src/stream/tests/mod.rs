//! What the stream's parts do together.

mod lanes;
mod model;
