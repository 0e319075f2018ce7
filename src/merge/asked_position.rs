//! A position of the source that somebody asks about, and what a table's commits say about it.
//!
//! A stream has one order, so of two positions on it one lies before the other. A commit holds all of its table up to its cut; how long it stays true of the
//! table the next commit says: it names the window of its first change ([`FIRST_WINDOW_KEY`]). And each checkpoint says up to where no table of the pipeline
//! lacks anything.

use super::checkpoint::{CHECKPOINT_KEY, Checkpoint};
use crate::error::Result;
use crate::event::{BinlogCoordinates, CutNumber, CutPoint, Epoch, Gtid, GtidSet};
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

/// The key in `extraMetadata` of the window of a commit's first change, as `epoch/number`: until then the table was as the commit before left it.
pub const FIRST_WINDOW_KEY: &str = "binlake.first_window";

/// A position as somebody wrote it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AskedPosition {
    text: String,
    place: Place,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    /// These transactions, of the sources that are named; of others any number.
    Gtids(GtidSet),
    /// What lies before this byte.
    Coordinates(BinlogCoordinates),
}

impl FromStr for AskedPosition {
    type Err = String;

    /// Reads a GTID set, one GTID (all of its source up to it), or file:offset (the first byte that doesn't count).
    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let place = match (text.parse::<Gtid>(), text.parse::<GtidSet>()) {
            (Ok(Gtid::MySql { uuid, tag, number }), _) => {
                let tag = if tag.is_empty() { tag } else { format!("{tag}:") };
                Place::Gtids(format!("{uuid}:{tag}1-{number}").parse()?)
            }
            (_, Ok(set)) if !set.is_empty() => Place::Gtids(set),
            _ => {
                let (file, offset) = text.rsplit_once(':').ok_or("it has neither GTIDs nor file:offset")?;
                let offset = offset.parse().map_err(|_| "the offset is no number")?;
                let coordinates = BinlogCoordinates { file: file.into(), offset };
                if coordinates.file_number() == 0 {
                    return Err("the binlog file has no number".into());
                }
                Place::Coordinates(coordinates)
            }
        };
        Ok(Self { text: text.to_owned(), place })
    }
}

impl fmt::Display for AskedPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl AskedPosition {
    /// Where a checkpoint is, seen from here; `None`: positions of its kind can't be compared with this one.
    pub fn compare(&self, checkpoint: &Checkpoint) -> Option<Ordering> {
        let set = match &self.place {
            Place::Coordinates(asked) => return Some(checkpoint.position.coordinates.cmp(asked)),
            Place::Gtids(set) => set,
        };
        let reached = checkpoint.position.gtid_set.as_ref().filter(|reached| reached.is_like(set))?.of_sources(set);
        Some(match (reached.is_subset(set), set.is_subset(&reached)) {
            (true, true) => Ordering::Equal,
            (true, false) => Ordering::Less,
            (false, _) => Ordering::Greater,
        })
    }

    /// Whether the transaction that a row's `_position` names counts; `None`: it can't be told.
    pub fn has(&self, row: &str) -> Option<bool> {
        match &self.place {
            Place::Gtids(set) => {
                let gtid: Gtid = row.parse().ok()?;
                let mut one = GtidSet::default();
                one.add(&gtid);
                // of a source that isn't named nothing is known
                (!one.of_sources(set).is_empty()).then(|| set.contains(&gtid))
            }
            Place::Coordinates(asked) => {
                let (file, offset) = row.rsplit_once(':')?;
                let row = BinlogCoordinates { file: file.into(), offset: offset.parse().ok()? };
                (row.file_number() > 0).then(|| row < *asked)
            }
        }
    }
}

/// What one commit of a table says about the table's way along the stream.
#[derive(Debug, Clone, PartialEq)]
pub struct CommitPlace {
    /// Its checkpoint.
    pub checkpoint: Checkpoint,
    first_window: Option<CutPoint>,
}

impl CommitPlace {
    /// What its `extraMetadata` says; `None`: it is another writer's.
    pub fn of(extra: &BTreeMap<String, String>) -> Result<Option<Self>> {
        let Some(json) = extra.get(CHECKPOINT_KEY) else { return Ok(None) };
        let first_window = extra.get(FIRST_WINDOW_KEY).and_then(|text| point(text));
        Ok(Some(Self { checkpoint: Checkpoint::from_json(json)?, first_window }))
    }

    /// Whether the table was at the cut of `at` as this commit left it. `next` is the table's next commit, `lacks_nothing` a cut up to which no
    /// table of the pipeline has anything that isn't in the lake.
    pub fn holds_at(&self, at: &Checkpoint, next: Option<&CommitPlace>, lacks_nothing: Option<&Checkpoint>) -> bool {
        let (own, other) = (self.checkpoint.at(), at.at());
        let until = match next {
            Some(next) => next.first_window,
            None => lacks_nothing.and_then(|known| known.resume.as_ref()).map(|resume| {
                let point = resume.point();
                CutPoint { number: point.number.next(), ..point }
            }),
        };
        // a stopped table moves along the stream without its position
        let is_there = own == other && self.checkpoint.position == at.position;
        is_there || (own < other && until.is_some_and(|until| other < until))
    }
}

/// `epoch/number`.
fn point(text: &str) -> Option<CutPoint> {
    let (epoch, number) = text.split_once('/')?;
    Some(CutPoint { epoch: Epoch(epoch.parse().ok()?), number: CutNumber(number.parse().ok()?) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::merge::Resume;

    const UUID: &str = "3e11fa47-71ca-11e1-9e33-c80aa9429562";
    const OTHER: &str = "4e11fa47-71ca-11e1-9e33-c80aa9429562";

    fn checkpoint(set: Option<&str>, number: u64, resume: Option<u64>) -> Checkpoint {
        let mut checkpoint = Checkpoint::from_json(include_str!("../../tests/data/state/checkpoint-v1.json")).unwrap();
        checkpoint.position.gtid_set = set.map(|set| set.parse().unwrap());
        checkpoint.position.coordinates = BinlogCoordinates { file: "binlog.000007".into(), offset: 157 };
        checkpoint.cut = CutNumber(number);
        let of = |number| Resume { epoch: checkpoint.epoch, cut: CutNumber(number), log_position: String::new() };
        checkpoint.resume = resume.map(of);
        checkpoint
    }

    #[test]
    fn a_position_compares_by_the_sources_that_it_names() {
        let at = checkpoint(Some(&format!("{UUID}:1-77,{OTHER}:1-3")), 9, None);
        let compared = |text: &str| text.parse::<AskedPosition>().unwrap().compare(&at);
        assert_eq!(compared(&format!("{UUID}:1-77")), Some(Ordering::Equal));
        assert_eq!(compared(&format!("{UUID}:77")), Some(Ordering::Equal), "one transaction stands for all before it");
        assert_eq!(compared(&format!("{UUID}:1-77,\n{OTHER}:1-3")), Some(Ordering::Equal));
        assert_eq!(compared(&format!("{UUID}:1-77,{OTHER}:1-4")), Some(Ordering::Less));
        assert_eq!(compared(&format!("{UUID}:76")), Some(Ordering::Greater));
        assert_eq!(compared("binlog.000007:157"), Some(Ordering::Equal));
        assert_eq!(compared("binlog.000008:4"), Some(Ordering::Less));
        let without = checkpoint(None, 9, None);
        assert_eq!(format!("{UUID}:77").parse::<AskedPosition>().unwrap().compare(&without), None);
        for wrong in ["", "yesterday", "2026:1", "binlog.000007:x"] {
            assert!(wrong.parse::<AskedPosition>().is_err(), "{wrong}");
        }
        let has = |text: &str, row: &str| text.parse::<AskedPosition>().unwrap().has(row);
        assert_eq!(has(&format!("{UUID}:77"), &format!("{UUID}:77")), Some(true));
        assert_eq!(has(&format!("{UUID}:77"), &format!("{UUID}:78")), Some(false));
        assert_eq!(has(&format!("{UUID}:77"), &format!("{OTHER}:1")), None);
        assert_eq!(has("binlog.000007:157", "binlog.000007:157"), Some(false), "a row names its transaction's first byte");
        assert_eq!(has("binlog.000007:157", "binlog.000007:4"), Some(true));
    }

    #[test]
    fn a_commit_holds_until_the_next_one_has_changes() {
        let place = |number, first_window: Option<u64>| CommitPlace {
            checkpoint: checkpoint(None, number, None),
            first_window: first_window.map(|number| CutPoint { epoch: checkpoint(None, 1, None).epoch, number: CutNumber(number) }),
        };
        let (own, next, without) = (place(5, None), place(12, Some(9)), place(12, None));
        let known = checkpoint(None, 20, Some(10));
        let holds = |number, next, known| own.holds_at(&checkpoint(None, number, None), next, known);
        assert!(holds(5, Some(&next), None) && holds(8, Some(&next), None));
        assert!(!holds(9, Some(&next), None) && !holds(4, Some(&next), None));
        assert!(!holds(6, Some(&without), None), "a commit of before this was written down");
        assert!(holds(10, None, Some(&known)) && !holds(11, None, Some(&known)) && !holds(6, None, None));
    }
}
