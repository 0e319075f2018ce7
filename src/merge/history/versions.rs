//! The bi-temporal fold: one key's versions, and what a change does to them. Pure, and blind to what a row holds.
//!
//! **Why it is right.** `current` always has the versions that are true as far as is known at the moment: their valid periods are disjoint (V1), because
//! whatever a new period overlaps is cut back to what lies outside of it first. A version leaves `current` once, by getting an end in system time, and
//! then lies in `closed`, which nothing looks at again (V2). What began and ended within one transaction was never known to anybody and is dropped.

/// The open end of a period: 9999-12-31 23:59:59.999999, in microseconds.
pub const OPEN_END: i64 = 253_402_300_799_999_999;
/// The beginning of the times that a period may have: 0001-01-01.
pub(super) const FIRST_TIME: i64 = -62_135_596_800_000_000;

/// What becomes of the versions that begin after a fact which came late.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Late {
    /// They stay: the fact holds until the next one that is known.
    #[default]
    UntilNext,
    /// They go: the fact holds to its end.
    ToEnd,
}

/// A version that is true as far as is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Version<R> {
    /// Whose columns it has.
    pub(super) row: R,
    pub(super) valid_from: i64,
    pub(super) valid_to: i64,
    pub(super) system_from: i64,
    /// Its number among the versions that the history had before; `None` for what this fold made.
    pub(super) stored: Option<u32>,
}

/// A version that is known no longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Closed<R> {
    pub(super) version: Version<R>,
    pub(super) system_to: i64,
}

/// One key's versions. Its memory is kept from key to key.
#[derive(Debug)]
pub(super) struct Versions<R> {
    /// In the order of valid time.
    pub(super) current: Vec<Version<R>>,
    /// In the order in which they ended.
    pub(super) closed: Vec<Closed<R>>,
    late: Late,
}

impl<R: Copy> Versions<R> {
    /// None, of a table with this rule.
    pub(super) fn new(late: Late) -> Self {
        Self { current: Vec::new(), closed: Vec::new(), late }
    }

    /// Begins with another key's versions, which must be current, in the order of valid time.
    pub(super) fn begin(&mut self, stored: impl IntoIterator<Item = Version<R>>) {
        self.closed.clear();
        self.current.clear();
        self.current.extend(stored);
    }

    /// `row` is true in `[from, to)`, as is known since `at`. A row that says what was known anyway (`is_same`) changes nothing.
    pub(super) fn put(&mut self, row: R, from: i64, to: i64, at: i64, mut is_same: impl FnMut(&R, &R) -> bool) {
        let to = match self.late {
            Late::UntilNext => self.next_after(from).map_or(to, |next| to.min(next)),
            Late::ToEnd => to,
        };
        if to <= from {
            return;
        }
        let (first, last) = self.overlapped(from, to);
        if let [known] = &self.current[first..last]
            && known.valid_from <= from
            && to <= known.valid_to
            && is_same(&known.row, &row)
        {
            return;
        }
        let new = Version { row, valid_from: from, valid_to: to, system_from: at, stored: None };
        self.replace(first, last, from, to, at, Some(new));
    }

    /// Nothing is true from `from` on, as is known since `at`.
    pub(super) fn delete(&mut self, from: i64, at: i64) {
        let (first, last) = self.overlapped(from, OPEN_END);
        self.replace(first, last, from, OPEN_END, at, None);
    }

    fn next_after(&self, from: i64) -> Option<i64> {
        let next = self.current.partition_point(|version| version.valid_from <= from);
        self.current.get(next).map(|version| version.valid_from)
    }

    /// The range of `current` that `[from, to)` overlaps.
    fn overlapped(&self, from: i64, to: i64) -> (usize, usize) {
        let first = self.current.partition_point(|version| version.valid_to <= from);
        let last = self.current.partition_point(|version| version.valid_from < to);
        (first, last.max(first))
    }

    /// Closes `current[first..last]`, and puts what lies outside of `[from, to)`, and `new`, in its place.
    fn replace(&mut self, first: usize, last: usize, from: i64, to: i64, at: i64, new: Option<Version<R>>) {
        let outside = |old: &Version<R>, valid_from: i64, valid_to: i64| {
            (valid_from < valid_to).then_some(Version { valid_from, valid_to, system_from: at, stored: None, ..*old })
        };
        let left = self.current[first..last].first().and_then(|old| outside(old, old.valid_from, from));
        let right = self.current[first..last].last().and_then(|old| outside(old, to, old.valid_to));
        for old in &self.current[first..last] {
            // what this transaction made itself, nobody has known
            if old.system_from < at {
                self.closed.push(Closed { version: *old, system_to: at });
            }
        }
        self.current.splice(first..last, left.into_iter().chain(new).chain(right));
    }
}
