//! What can go wrong, said so that the caller knows what to do next and the operator knows what to change.
//!
//! An [`Error`] has a [`Kind`] (what the *caller* does: retry, reload, quarantine, stop), an [`Area`] (which half of the
//! system it concerns, and so the process's exit code), one line of *what*, any number of `field=value` pairs of *where*
//! (table, position, column, configuration key) and a *remedy* for the operator. Its `Display` is one line of all of these.

use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::fmt;

/// What the caller does about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Try again, with backoff: the network, a throttle, a server restart.
    Transient,
    /// Somebody else was first: reload the state, then redo or give way.
    Conflict,
    /// This row, event or schema change can't be represented: quarantine it or stop the table, by policy.
    Data,
    /// The environment is not as it must be (a server setting, a grant, a full disk): stop, the operator changes it.
    Refused,
    /// The configuration or the command line is wrong: stop, the operator changes it.
    Config,
    /// What was stored is damaged or contradicts itself: stop, touch nothing.
    Corrupt,
    /// A promise of our own was broken.
    Bug,
}

/// The half of the system that an error concerns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Area {
    /// Command line, configuration file, state store.
    Config,
    /// MySQL.
    Source,
    /// The event log between the halves.
    Stream,
    /// The tables and the object store under them.
    #[default]
    Lake,
}

/// An error of Binlake: see the module's documentation.
pub struct Error {
    inner: Box<Inner>,
}

struct Inner {
    kind: Kind,
    area: Area,
    what: Cow<'static, str>,
    context: Vec<(&'static str, String)>,
    remedy: Option<Cow<'static, str>>,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// `Result` with [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error of `kind` in `area`; `what` is one lower-case line without a full stop.
    pub fn new(area: Area, kind: Kind, what: impl Into<Cow<'static, str>>) -> Self {
        Self { inner: Box::new(Inner { kind, area, what: what.into(), context: Vec::new(), remedy: None, source: None }) }
    }

    /// A wrong configuration or command line (exit code 2).
    pub fn config(what: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Area::Config, Kind::Config, what)
    }

    /// A broken promise of our own (exit code 70).
    pub fn bug(what: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Area::Config, Kind::Bug, what).remedy("this is a fault in binlake: please report it with this line")
    }

    /// Adds where it happened. The first value of a field wins: the innermost place knows best.
    #[must_use]
    pub fn with(mut self, field: &'static str, value: impl fmt::Display) -> Self {
        if !self.inner.context.iter().any(|(known, _)| *known == field) {
            self.inner.context.push((field, value.to_string()));
        }
        self
    }

    /// Says what the operator does instead of what was said before: who calls knows better.
    #[must_use]
    pub fn advise(mut self, remedy: impl Into<Cow<'static, str>>) -> Self {
        self.inner.remedy = Some(remedy.into());
        self
    }

    /// Says what the operator does about it; the innermost remedy wins.
    #[must_use]
    pub fn remedy(mut self, remedy: impl Into<Cow<'static, str>>) -> Self {
        self.inner.remedy.get_or_insert(remedy.into());
        self
    }

    /// The same, as an error of the configuration: what was found wrong there is corrected there.
    #[must_use]
    pub fn into_config(mut self) -> Self {
        (self.inner.area, self.inner.kind) = (Area::Config, Kind::Config);
        self
    }

    /// Keeps the error of the library underneath.
    #[must_use]
    pub fn caused_by(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.inner.source = Some(source.into());
        self
    }

    /// What the caller does about it.
    pub fn kind(&self) -> Kind {
        self.inner.kind
    }

    /// The half of the system it concerns.
    pub fn area(&self) -> Area {
        self.inner.area
    }

    /// Whether trying the same again can help.
    pub fn is_transient(&self) -> bool {
        self.inner.kind == Kind::Transient
    }

    /// What happened, alone.
    pub fn what(&self) -> &str {
        &self.inner.what
    }

    /// What the operator does about it: the remedy given with it, or the general one of its kind.
    pub fn advice(&self) -> &str {
        if let Some(remedy) = &self.inner.remedy {
            return remedy;
        }
        match (self.inner.kind, self.inner.area) {
            (Kind::Transient, _) => "it is tried again; check the network and the service if it stays",
            (Kind::Conflict, _) => "run one writer for a table, or let this one take over after the other stopped",
            (Kind::Data, _) => "correct the value at the source or set the column's policy",
            (Kind::Refused, Area::Source) => "run `binlake doctor` for what the source server needs",
            (Kind::Refused, _) => "check permissions and free space",
            (Kind::Config, _) => "correct the configuration",
            (Kind::Corrupt, Area::Stream) => {
                "restore the stream's files, or start a new stream folder; the lake's own checkpoint is used then"
            }
            (Kind::Corrupt, _) => "restore the damaged file; nothing was written",
            (Kind::Bug, _) => "please report it with this line",
        }
    }

    /// The process's exit code, as the contract has it.
    pub fn exit_code(&self) -> u8 {
        match (self.inner.kind, self.inner.area) {
            (Kind::Bug, _) => 70,
            (_, Area::Config) => 2,
            (_, Area::Source) => 3,
            (_, Area::Stream) => 4,
            (_, Area::Lake) => 5,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.inner.what)?;
        if let Some(source) = &self.inner.source {
            let text = source.to_string();
            write!(f, ": {}", text.lines().map(str::trim).collect::<Vec<_>>().join(" "))?;
        }
        for (field, value) in &self.inner.context {
            write!(f, " {field}={value}")?;
        }
        write!(f, "; {}", self.advice())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}/{:?}: {self}", self.inner.area, self.inner.kind)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.inner.source.as_deref().map(|source| source as _)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn display_is_one_line_of_what_where_and_remedy() {
        let error = Error::new(Area::Lake, Kind::Refused, "the lake folder can't be written")
            .caused_by(std::io::Error::other("read-only\nfile system"))
            .with("table", "shop.orders")
            .with("table", "the outer value loses")
            .remedy("give the user write permission");
        assert_eq!(
            error.to_string(),
            "the lake folder can't be written: read-only file system table=shop.orders; give the user write permission"
        );
        assert_eq!(error.exit_code(), 5);
    }

    #[test]
    fn a_bug_exits_with_70_whatever_its_area() {
        assert_eq!(Error::bug("x").exit_code(), 70);
        assert_eq!(Error::config("x").exit_code(), 2);
    }
}
