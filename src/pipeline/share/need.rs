//! From where on a table needs the stream.

use crate::event::{CutNumber, CutPoint, Epoch};
use crate::merge::Resume;

/// KCL's word for what needs nothing more.
const NOTHING: &str = "SHARD_END";

/// From where on a table needs the stream. A later place is greater.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::pipeline) enum Need {
    /// All of it.
    Beginning,
    /// What comes after a cut.
    After(Resume),
    /// Nothing: the table is stopped for good.
    Nothing,
}

impl Need {
    /// As a table's commit has it.
    pub(in crate::pipeline) fn of(resume: Option<Resume>) -> Self {
        resume.map_or(Need::Beginning, Need::After)
    }

    /// As a commit has it, where something is needed.
    pub(in crate::pipeline) fn resume(&self) -> Option<Resume> {
        match self {
            Need::After(resume) => Some(resume.clone()),
            Need::Beginning | Need::Nothing => None,
        }
    }

    /// Whether some of it lies before a cut.
    pub(in crate::pipeline) fn lies_before(&self, cut: CutPoint) -> bool {
        match self {
            Need::Beginning => true,
            Need::After(resume) => resume.point() < cut,
            Need::Nothing => false,
        }
    }

    /// As a lease has it: `<epoch>.<cut>@<position>`, or one of KCL's words.
    pub(super) fn text(&self) -> String {
        match self {
            Need::Beginning => crate::state::TRIM_HORIZON.to_owned(),
            Need::After(resume) => format!("{}.{}@{}", resume.epoch.0, resume.cut.0, resume.log_position),
            Need::Nothing => NOTHING.to_owned(),
        }
    }

    /// Reads what [`Need::text`] wrote. What can't be read is taken as the beginning: that is always right, if there is one.
    pub(super) fn parse(text: &str) -> Self {
        if text == NOTHING {
            return Need::Nothing;
        }
        let parse = || {
            let (cut, position) = text.split_once('@')?;
            let (epoch, number) = cut.split_once('.')?;
            Some(Resume {
                epoch: Epoch(epoch.parse().ok()?),
                cut: CutNumber(number.parse().ok()?),
                log_position: position.to_owned(),
            })
        };
        Need::of(parse())
    }

    fn order(&self) -> (u8, Option<CutPoint>) {
        match self {
            Need::Beginning => (0, None),
            Need::After(resume) => (1, Some(resume.point())),
            Need::Nothing => (2, None),
        }
    }
}

impl PartialOrd for Need {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Need {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.order().cmp(&other.order())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_need_comes_back_and_is_ordered() {
        let after =
            |epoch, cut| Need::After(Resume { epoch: Epoch(epoch), cut: CutNumber(cut), log_position: format!("{cut}@x:9.1") });
        let needs = [Need::Beginning, after(1, 10), after(1, 11), after(2, 3), Need::Nothing];
        assert!(needs.is_sorted());
        for need in &needs {
            assert_eq!(Need::parse(&need.text()), *need);
        }
        let cut = "1/11".parse().unwrap();
        assert_eq!(needs.map(|need| need.lies_before(cut)), [true, true, false, false, false]);
        assert_eq!(Need::parse("49680431484340046891701745855035937655605931773213540354"), Need::Beginning);
    }
}
