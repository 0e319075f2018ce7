//! As of when a query sees the lake.

use crate::error::{Error, Result};
use crate::table::InstantTime;
use crate::time::Timestamp;
use std::fmt;
use std::str::FromStr;

/// A moment on the lake's clock: a table is seen as its last commit with an instant at or before it left it.
///
/// The clock is that of the instants (when Binlake began the commit), as in Hudi's `as.of.instant`. It runs behind the source's by the commit
/// interval at most; the source's own time of each row is in `_commit_ts`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AsOf {
    instant: InstantTime,
    text: String,
}

impl AsOf {
    /// The latest instant that counts.
    pub fn instant(&self) -> &InstantTime {
        &self.instant
    }
}

impl FromStr for AsOf {
    type Err = Error;

    /// Reads an instant (17 digits) or a time: RFC 3339, or `2026-11-21 14:00:00[.ffffff]` and `2026-11-21` as UTC.
    fn from_str(text: &str) -> Result<Self> {
        let trimmed = text.trim();
        let instant = match InstantTime::parse(trimmed) {
            Some(instant) => Some(instant),
            None => Timestamp::parse(trimmed).and_then(InstantTime::from_timestamp),
        };
        let remedy = "write an instant (17 digits, see `binlake timeline`) or a time as 2026-11-21T14:00:00Z";
        let instant = instant.ok_or_else(|| {
            Error::config(format!("`{trimmed}` is neither an instant nor a time")).with("option", "--as-of").remedy(remedy)
        })?;
        Ok(Self { instant, text: trimmed.to_owned() })
    }
}

impl fmt::Display for AsOf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants_and_times() {
        let instant = |text: &str| text.parse::<AsOf>().unwrap().instant().as_str().to_owned();
        assert_eq!(instant("20261121141230755"), "20261121141230755");
        assert_eq!(instant("2026-11-21T14:12:30.755Z"), "20261121141230755");
        assert_eq!(instant("2026-11-21T15:12:30.755+01:00"), "20261121141230755");
        assert_eq!(instant("2026-11-21"), "20261121000000000");
        let error = "yesterday".parse::<AsOf>().unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert!(error.to_string().contains("yesterday"), "{error}");
    }
}
