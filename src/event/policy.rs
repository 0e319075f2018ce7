//! What becomes of values that the lake can't hold as they are: a rule's choices, the same on every way from the source.

use serde::{Deserialize, Serialize};

/// What becomes of a date that doesn't exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ZeroDates {
    /// NULL; counted in the metrics.
    #[default]
    Null,
    /// The table stops.
    Error,
}

/// What becomes of text that is invalid in its column's character set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InvalidText {
    /// The table stops.
    #[default]
    Error,
    /// Invalid bytes become U+FFFD; counted in the metrics.
    Replace,
}

/// What a table's rule says about the values of its columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ValuePolicies {
    /// Dates that don't exist: `0000-00-00`, `2024-00-15`, `2024-02-31`.
    pub zero_dates: ZeroDates,
    /// Text that is invalid in its column's character set.
    pub invalid_text: InvalidText,
}
