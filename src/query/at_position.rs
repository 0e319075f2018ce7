//! All tables of a statement at one position of the source.
//!
//! A position that some commit of theirs names is a cut of the stream, and each table is taken as it was there: as a commit left it, if nothing came for it
//! until then, else by its history. Between two such cuts histories alone can tell: see `by_history`.

use super::by_history::system_time;
use super::engine::Engine;
use super::history;
use super::kept::left_behind_at;
use super::views::{Name, Views};
use crate::error::{Error, Result};
use crate::merge::{AskedPosition, CHECKPOINT_KEY, Checkpoint, CommitPlace, HISTORY_SUFFIX};
use crate::table::{InstantTime, TableView};
use crate::time::Timestamp;
use futures::{StreamExt, TryStreamExt};
use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

/// Commits that are read at a time.
const READ_AT_ONCE: usize = 16;
/// Positions that an error names.
const LISTED: usize = 2;

/// A position of the source at which tables are seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AtPosition {
    /// The newest one at which all tables of the statement can be seen.
    Latest,
    /// This one.
    Asked(AskedPosition),
}

impl FromStr for AtPosition {
    type Err = Error;

    /// Reads `latest`, a GTID set, one GTID (for all of its source up to it) or file:offset.
    fn from_str(text: &str) -> Result<Self> {
        if text.trim().eq_ignore_ascii_case("latest") {
            return Ok(Self::Latest);
        }
        text.parse().map(Self::Asked).map_err(|why: String| {
            Error::config(format!("`{text}` is no position of the source: {why}"))
                .with("option", "--at-position")
                .remedy("write a GTID set (as SELECT @@gtid_executed or `binlake tables` shows it), a GTID, file:offset, or latest")
        })
    }
}

impl fmt::Display for AtPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Latest => f.write_str("latest"),
            Self::Asked(asked) => asked.fmt(f),
        }
    }
}

/// How a table is seen.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Seen {
    /// As this commit left it; `None`: by its history.
    pub(super) instant: Option<InstantTime>,
    /// As was known at this system time: where it has a history.
    pub(super) system: Option<Timestamp>,
    /// The history itself as this commit left it; `None`: as its last one did.
    pub(super) history: Option<InstantTime>,
}

/// A table on its way along the stream.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) name: Name,
    /// Oldest first.
    pub(super) commits: Vec<(InstantTime, CommitPlace)>,
    /// Since when its history knows all, where it has one.
    history_start: Option<Timestamp>,
    /// Up to where its history knows all, where it was switched off.
    history_end: Option<Checkpoint>,
}

/// Whether a source's clock tells transactions of one second apart.
fn is_exact(time: Timestamp) -> bool {
    time.as_micros() % 1_000_000 != 0
}

impl Line {
    async fn read(views: &Views, (database, name): &Name) -> Result<Self> {
        let view = views.get(database, name).await?;
        let earliest = view.earliest_queryable().cloned();
        // the table went back behind the others
        let read = view.instants().iter().filter(|instant| !instant.is_undone).map(|instant| {
            let view = view.clone();
            async move { Ok::<_, Error>((instant.instant.clone(), CommitPlace::of(&view.commit_extra_metadata(instant).await?)?)) }
        });
        let read: Vec<(InstantTime, Option<CommitPlace>)> =
            futures::stream::iter(read).buffered(READ_AT_ONCE).try_collect().await?;
        let commits = read.into_iter().filter_map(|(instant, place)| Some((instant, place?)));
        let history = history::history_name(name);
        let (history_start, history_end) = match views.has(database, &history) {
            true => {
                let history = views.get(database, &history).await?;
                (history::start_of(&history), left_behind_at(&view, &history).await?)
            }
            false => (None, None),
        };
        // a commit that can't be read any more says when the table changed all the same, to its history
        let is_of_use =
            |instant: &InstantTime| history_start.is_some() || earliest.as_ref().is_none_or(|earliest| instant >= earliest);
        let commits = commits.filter(|(instant, _)| is_of_use(instant)).collect();
        Ok(Self { name: (database.clone(), name.clone()), commits, history_start, history_end })
    }

    fn table(&self) -> String {
        format!("{}.{}", self.name.0, self.name.1)
    }

    /// The commit whose state the table has at `cut`; `None`: it can't be told by commits.
    fn commit_at(&self, cut: &Checkpoint, lacks_nothing: Option<&Checkpoint>) -> Option<(&InstantTime, &CommitPlace)> {
        let at = self.commits.iter().rposition(|(_, place)| place.checkpoint.at() <= cut.at())?;
        let (instant, place) = &self.commits[at];
        let next = self.commits.get(at + 1).map(|(_, place)| place);
        place.holds_at(cut, next, lacks_nothing).then_some((instant, place))
    }

    /// The table at a cut, as a commit left it; `None`: something came in between.
    fn by_commit(&self, cut: &Checkpoint, lacks_nothing: Option<&Checkpoint>) -> Option<Seen> {
        let (instant, place) = self.commit_at(cut, lacks_nothing)?;
        let system = place.checkpoint.system_time.filter(|time| self.history_start.is_some_and(|start| start <= *time));
        Some(Seen { instant: Some(instant.clone()), system, history: None })
    }

    /// The table at a cut; `None`: that can't be told without a look at its history.
    fn at_cut(&self, cut: &Checkpoint, lacks_nothing: Option<&Checkpoint>) -> Option<Seen> {
        if let Some(seen) = self.by_commit(cut, lacks_nothing) {
            return Some(seen);
        }
        // something came since the last commit; that it is in the lake, a later commit says
        let is_in = self.commits.iter().any(|(_, place)| place.checkpoint.at() > cut.at());
        let known = self.history_start.is_some_and(|start| start <= cut.source_commit_time)
            && self.history_end.as_ref().is_none_or(|end| end.stream_id == cut.stream_id && cut.at() <= end.at());
        (is_in && known && is_exact(cut.source_commit_time))
            .then(|| Seen { system: Some(cut.source_commit_time), ..Seen::default() })
    }

    /// The same commit for both cuts: nothing came for the table in between.
    fn between(&self, lower: &Checkpoint, upper: &Checkpoint, lacks_nothing: Option<&Checkpoint>) -> Option<Seen> {
        let (first, _) = self.commit_at(lower, lacks_nothing)?;
        let (last, _) = self.commit_at(upper, lacks_nothing)?;
        (first == last).then(|| self.at_cut(lower, lacks_nothing)).flatten()
    }
}

/// The tables of a statement, and the cuts that their commits name.
#[derive(Debug)]
struct Lines {
    lines: Vec<Line>,
    /// Oldest first.
    cuts: Vec<Checkpoint>,
}

impl Lines {
    async fn read(views: &Views, tables: &BTreeSet<Name>) -> Result<Self> {
        let mut lines = Vec::new();
        for name in tables {
            lines.push(Line::read(views, name).await?);
        }
        let newest = |line: &Line| line.commits.last().map(|(_, place)| place.checkpoint.stream_id.clone());
        let mut streams: BTreeSet<Option<String>> = lines.iter().map(newest).collect();
        let Some(Some(stream_id)) = streams.pop_first().filter(|_| streams.is_empty()) else {
            return Err(Error::config("the statement's tables have no source in common")
                .with("option", "--at-position")
                .remedy("ask tables of one source together: each that is fed by a stream of its own has positions of its own"));
        };
        for line in &mut lines {
            // cuts of an earlier stream don't compare
            line.commits.retain(|(_, place)| place.checkpoint.stream_id == stream_id);
        }
        let all = lines.iter().flat_map(|line| line.commits.iter().map(|(_, place)| place.checkpoint.clone()));
        let mut cuts: Vec<Checkpoint> = all.collect();
        // of the checkpoints of one cut, the one that is furthest, and knows most of the others
        cuts.sort_by_cached_key(|cut| {
            (cut.at(), cut.position.coordinates.clone(), cut.resume.as_ref().map(|resume| resume.point()))
        });
        cuts.dedup_by(|later, earlier| {
            let is_same = later.at() == earlier.at();
            if is_same {
                std::mem::swap(later, earlier);
            }
            is_same
        });
        Ok(Self { lines, cuts })
    }

    /// The checkpoint that vouches furthest for all tables.
    fn lacks_nothing(&self) -> Option<&Checkpoint> {
        self.cuts.iter().max_by_key(|cut| cut.resume.as_ref().map(|resume| resume.point()))
    }

    /// All tables at a cut, or the first that can't be seen there.
    fn at_cut(&self, cut: &Checkpoint) -> std::result::Result<BTreeMap<Name, Seen>, &Line> {
        let known = self.lacks_nothing();
        self.lines.iter().map(|line| Ok((line.name.clone(), line.at_cut(cut, known).ok_or(line)?))).collect()
    }

    fn latest(&self) -> Result<BTreeMap<Name, Seen>> {
        let mut found = self.cuts.iter().rev().filter_map(|cut| self.at_cut(cut).ok());
        found.next().ok_or_else(|| self.unreachable("latest", None))
    }

    /// What can't be had, and the nearest that can.
    fn unreachable(&self, asked: &str, line: Option<&Line>) -> Error {
        let position: Option<AskedPosition> = asked.parse().ok();
        let is_after = |cut: &&Checkpoint| position.as_ref().and_then(|asked| asked.compare(cut)) == Some(Ordering::Greater);
        let reachable = || self.cuts.iter().filter(|cut| self.at_cut(cut).is_ok());
        let before = reachable().rev().filter(|cut| !is_after(cut)).take(LISTED).map(Checkpoint::position_text);
        let after = reachable().filter(is_after).take(LISTED).map(Checkpoint::position_text);
        let mut near: Vec<String> = before.chain(after).collect();
        near.dedup();
        let error = Error::config("the tables can't be seen together at that position").with("position", asked);
        let error = match line {
            Some(line) => error.with("table", line.table()),
            None => error,
        };
        error.remedy(match near.as_slice() {
            [] => "ask again after the next commit; a table with `history` can be seen at any position".to_owned(),
            near => format!("there are {}; a table with `history` can be seen at others too", near.join(" and ")),
        })
    }
}

/// The table that a name means: itself, or the one whose history it is.
pub(super) fn base_of(views: &Views, (database, name): &Name) -> Name {
    let base = name.strip_suffix(HISTORY_SUFFIX).filter(|base| views.has(database, base)).unwrap_or(name);
    (database.clone(), base.to_owned())
}

/// How each of `tables` is seen at a position.
pub(super) async fn resolve(
    engine: &Engine,
    views: &Views,
    tables: &BTreeSet<Name>,
    position: &AtPosition,
) -> Result<BTreeMap<Name, Seen>> {
    let lines = Lines::read(views, tables).await?;
    let asked = match position {
        AtPosition::Latest => return lines.latest(),
        AtPosition::Asked(asked) => asked,
    };
    let text = asked.to_string();
    let (mut lower, mut equal, mut upper) = (None, None, None);
    for cut in &lines.cuts {
        match asked.compare(cut) {
            // cuts between which nothing happened at the source
            Some(Ordering::Equal) => match lines.at_cut(cut) {
                Ok(seen) => return Ok(seen),
                Err(_) => equal = Some(cut),
            },
            Some(Ordering::Less) => lower = Some(cut),
            Some(Ordering::Greater) => {
                upper = Some(cut);
                break;
            }
            None => {
                return Err(Error::config("the tables' positions are of another kind")
                    .with("position", &text)
                    .with("theirs", cut.position_text())
                    .remedy("write the position as the source does"));
            }
        }
    }
    if upper.is_none() && equal.is_none() {
        let newest = lower.map(Checkpoint::position_text).unwrap_or_default();
        return Err(Error::config("the lake hasn't come to that position yet")
            .with("position", &text)
            .with("newest", newest)
            .remedy("ask again after the next commit, or at --at-position latest"));
    }
    let known = lines.lacks_nothing();
    let mut seen = BTreeMap::new();
    for line in &lines.lines {
        let by_commits = match equal {
            Some(cut) => line.by_commit(cut, known),
            None => lower.zip(upper).and_then(|(lower, upper)| line.between(lower, upper, known)),
        };
        let one = match (by_commits, line.history_start) {
            (Some(one), _) => Some(one),
            (None, None) => None,
            (None, Some(start)) => {
                let time = system_time(engine, views, line, asked).await?.filter(|time| start <= *time);
                let by_history = time.map(|time| Seen { system: Some(time), ..Seen::default() });
                by_history.or_else(|| equal.and_then(|cut| line.at_cut(cut, known)))
            }
        };
        _ = seen.insert(line.name.clone(), one.ok_or_else(|| lines.unreachable(&text, Some(line)))?);
    }
    Ok(seen)
}

/// The newest commits of a table and its history that were made together: a reader may meet the moment between the two.
pub(super) async fn in_step(table: &TableView, history: &TableView) -> Result<Option<(InstantTime, InstantTime)>> {
    let of = |view: &TableView| view.extra_metadata(CHECKPOINT_KEY).map(str::to_owned);
    if of(table) == of(history) {
        return Ok(None);
    }
    let mut of_history = Vec::new();
    for instant in history.instants().iter().rev() {
        let checkpoint = history.commit_extra_metadata(instant).await?.remove(CHECKPOINT_KEY);
        of_history.push((checkpoint, &instant.instant));
        // one of the two is a commit or so ahead
        if of_history.len() >= READ_AT_ONCE {
            break;
        }
    }
    for instant in table.instants().iter().rev().take(READ_AT_ONCE) {
        let checkpoint = table.commit_extra_metadata(instant).await?.remove(CHECKPOINT_KEY);
        if let Some((_, other)) = of_history.iter().find(|(known, _)| known.is_some() && *known == checkpoint) {
            return Ok(Some((instant.instant.clone(), (*other).clone())));
        }
    }
    Ok(None)
}
