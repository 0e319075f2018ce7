//! What the stream's parts do together.

mod by_key;
mod lanes;
mod model;
