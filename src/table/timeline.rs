//! The timeline: what was done to the table, when, and how far each action has come. Pure: made from the names of the files in `.hoodie/`.
//!
//! `<instant>.<action>` completed, `<instant>.<action>.inflight`, `<instant>.<action>.requested`; only a commit's inflight has no action in its
//! name (`<instant>.inflight`). A savepoint has the instant of the commit that it keeps.

use super::InstantTime;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// What is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Action {
    /// Rows change.
    Commit,
    /// Rows change, and whole file groups go.
    ReplaceCommit,
    /// Old file slices are deleted.
    Clean,
    /// An unfinished or unwanted commit is undone.
    Rollback,
    /// A commit is kept from cleaning.
    Savepoint,
    /// The table goes back to a savepoint.
    Restore,
    /// What merge-on-read tables and later versions do: `deltacommit`, `compaction`, `logcompaction`, `indexing`, `schemacommit`.
    Other,
}

impl Action {
    /// Its word in file names.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Action::Commit => "commit",
            Action::ReplaceCommit => "replacecommit",
            Action::Clean => "clean",
            Action::Rollback => "rollback",
            Action::Savepoint => "savepoint",
            Action::Restore => "restore",
            Action::Other => "other",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "commit" => Action::Commit,
            "replacecommit" => Action::ReplaceCommit,
            "clean" => Action::Clean,
            "rollback" => Action::Rollback,
            "savepoint" => Action::Savepoint,
            "restore" => Action::Restore,
            "deltacommit" | "compaction" | "logcompaction" | "indexing" | "schemacommit" => Action::Other,
            _ => return None,
        })
    }

    /// Whether it writes rows.
    pub(super) const fn is_commit(self) -> bool {
        matches!(self, Action::Commit | Action::ReplaceCommit)
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How far an action has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum State {
    /// Planned.
    Requested,
    /// Under way.
    Inflight,
    /// Done: from here on it counts.
    Completed,
}

/// One file of the timeline.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Instant {
    pub(super) time: InstantTime,
    pub(super) action: Action,
    pub(super) state: State,
}

impl Instant {
    pub(super) fn new(time: InstantTime, action: Action, state: State) -> Self {
        Self { time, action, state }
    }

    /// Reads the name of a file in `.hoodie/`; `None` for files that are no instants.
    pub(super) fn parse(name: &str) -> Option<Self> {
        let (time, suffix) = name.split_once('.')?;
        let time = InstantTime::parse(time)?;
        let (action, state) = match suffix.split_once('.') {
            None if suffix == "inflight" => (Action::Commit, State::Inflight),
            None => (Action::parse(suffix)?, State::Completed),
            Some((action, "inflight")) => (Action::parse(action)?, State::Inflight),
            Some((action, "requested")) => (Action::parse(action)?, State::Requested),
            Some(_) => return None,
        };
        Some(Self { time, action, state })
    }

    /// The file's path below the table.
    pub(super) fn path(&self) -> String {
        let (time, action) = (&self.time, self.action);
        match (action, self.state) {
            (Action::Commit, State::Inflight) => format!(".hoodie/{time}.inflight"),
            (_, State::Inflight) => format!(".hoodie/{time}.{action}.inflight"),
            (_, State::Requested) => format!(".hoodie/{time}.{action}.requested"),
            (_, State::Completed) => format!(".hoodie/{time}.{action}"),
        }
    }
}

/// The active timeline at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Timeline {
    /// The states present of each action.
    actions: BTreeMap<(InstantTime, Action), BTreeSet<State>>,
}

impl Timeline {
    /// From the names of the files in `.hoodie/`.
    pub(super) fn from_names<'a>(names: impl IntoIterator<Item = &'a str>) -> Self {
        let mut timeline = Self::default();
        for instant in names.into_iter().filter_map(Instant::parse) {
            timeline.insert(instant);
        }
        timeline
    }

    pub(super) fn insert(&mut self, instant: Instant) {
        self.actions.entry((instant.time, instant.action)).or_default().insert(instant.state);
    }

    /// Forgets an action with all its states.
    pub(super) fn remove(&mut self, time: &InstantTime, action: Action) {
        self.actions.remove(&(time.clone(), action));
    }

    /// Completed actions, oldest first.
    pub(super) fn completed(&self) -> impl DoubleEndedIterator<Item = (&InstantTime, Action)> {
        let completed = self.actions.iter().filter(|(_, states)| states.contains(&State::Completed));
        completed.map(|((time, action), _)| (time, *action))
    }

    /// Completed commits and replacecommits, oldest first.
    pub(super) fn commits(&self) -> impl DoubleEndedIterator<Item = (&InstantTime, Action)> {
        self.completed().filter(|(_, action)| action.is_commit())
    }

    /// Actions that are not completed, oldest first.
    pub(super) fn pending(&self) -> impl DoubleEndedIterator<Item = (&InstantTime, Action, &BTreeSet<State>)> {
        let pending = self.actions.iter().filter(|(_, states)| !states.contains(&State::Completed));
        pending.map(|((time, action), states)| (time, *action, states))
    }

    /// The states of one action.
    pub(super) fn states(&self, time: &InstantTime, action: Action) -> Option<&BTreeSet<State>> {
        self.actions.get(&(time.clone(), action))
    }

    /// Whether the action is completed.
    pub(super) fn is_completed(&self, time: &InstantTime, action: Action) -> bool {
        self.states(time, action).is_some_and(|states| states.contains(&State::Completed))
    }

    /// Whether a commit of that time is completed.
    pub(super) fn has_commit(&self, time: &InstantTime) -> bool {
        self.is_completed(time, Action::Commit) || self.is_completed(time, Action::ReplaceCommit)
    }

    /// The completed savepoints.
    pub(super) fn savepoints(&self) -> impl Iterator<Item = &InstantTime> {
        self.completed().filter(|(_, action)| *action == Action::Savepoint).map(|(time, _)| time)
    }

    /// The newest instant of whatever action and state: new instants must be later.
    pub(super) fn latest(&self) -> Option<&InstantTime> {
        self.actions.keys().next_back().map(|(time, _)| time)
    }

    /// The first completed commit that no savepoint holds: base files of earlier instants count as committed, for their commits were archived.
    /// A savepointed commit outlives the archiving of those behind it, so that it is no start.
    pub(super) fn start(&self) -> Option<&InstantTime> {
        let savepoints: BTreeSet<&InstantTime> = self.savepoints().collect();
        let mut commits = self.commits().map(|(time, _)| time);
        let first = self.commits().map(|(time, _)| time).next();
        commits.find(|time| !savepoints.contains(time)).or(first)
    }

    /// Whether base files of that instant count as committed: the rule of Hudi's `containsOrBeforeTimelineStarts`.
    pub(super) fn counts_as_committed(&self, time: &InstantTime) -> bool {
        self.has_commit(time) || self.start().is_some_and(|start| time < start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_back() {
        let names = [
            "20261121142019136.commit",
            "20261121142019136.commit.requested",
            "20261121142019136.inflight",
            "20261121142002836.rollback.inflight",
            "20261121142007689.replacecommit.requested",
            "20261121141926990.savepoint",
            "20261121142435181.restore",
            "20261121141621562.clean.inflight",
        ];
        for name in names {
            let instant = Instant::parse(name).unwrap();
            assert_eq!(instant.path(), format!(".hoodie/{name}"));
        }
        for other in [
            "hoodie.properties",
            ".20261121142019136.commit.crc",
            "20261121142019136.commit#1",
            "20261121142019136.commit.crc",
            "archived",
        ] {
            assert_eq!(Instant::parse(other), None, "{other}");
        }
    }

    #[test]
    fn what_lies_before_the_start_counts_as_committed() {
        let time = |day: u8| InstantTime::parse(&format!("202601{day:02}000000000")).unwrap();
        let names: Vec<String> = [(3, "commit"), (5, "commit"), (6, "inflight"), (7, "replacecommit"), (8, "clean")]
            .map(|(day, suffix)| format!("{}.{suffix}", time(day)))
            .to_vec();
        let timeline = Timeline::from_names(names.iter().map(String::as_str));
        assert_eq!(timeline.start(), Some(&time(3)));
        for (day, committed) in [(2, true), (3, true), (4, false), (6, false), (7, true), (9, false)] {
            assert_eq!(timeline.counts_as_committed(&time(day)), committed, "{day}");
        }
        // a savepoint keeps the 3rd on the timeline while the 4th was archived
        let savepoint = format!("{}.savepoint", time(3));
        let timeline = Timeline::from_names(names.iter().map(String::as_str).chain([savepoint.as_str()]));
        assert_eq!(timeline.start(), Some(&time(5)));
        assert!(timeline.counts_as_committed(&time(4)));
        assert!(!Timeline::default().counts_as_committed(&time(1)));
    }
}
