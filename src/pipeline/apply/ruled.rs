//! The apply loop where rules may change under it: it ends at the cut that names others, with all up to it committed, and begins anew behind it.

use super::gone::{Gone, gone_of_lake, noted};
use super::{Apply, ApplyConfig, Ground};
use crate::error::{Error, Result};
use crate::event::{CutPoint, CutRules, TableId};
use crate::merge::TableRules;
use crate::pipeline::rules::{Generation, Passed, RulesBook};
use crate::stream::CutReached;
use std::sync::Arc;
use tokio::sync::watch;

/// By which rules a loop goes.
#[derive(Debug, Clone)]
pub(in crate::pipeline) struct Edge {
    /// Their revision.
    pub(in crate::pipeline) revision: u64,
    /// The pipeline's lake, as cuts name it.
    lake: String,
    /// The rules and those before them, newest first, with the cuts since which they count.
    before: Vec<(Option<CutPoint>, Arc<TableRules>)>,
    book: RulesBook,
}

impl Edge {
    /// Whether no others are in force, or asked for: else what can be done by these rules or by those had better wait.
    pub(super) fn is_newest(&self) -> bool {
        self.book.newest() <= self.revision && self.book.proposal().is_none()
    }

    /// The same, asked of the state store.
    pub(in crate::pipeline) async fn is_surely_newest(&self) -> Result<bool> {
        self.book.refresh().await?;
        Ok(self.is_newest())
    }

    /// Writes down from where on a table that a stream of others feeds goes by these rules; `None`: from the stream's beginning.
    pub(in crate::pipeline) async fn note_fed(&self, table: &TableId, position: Option<String>) {
        self.book.note_fed(self.revision, table, position).await;
    }

    /// The cut at which a table came, if it wasn't there before: what an earlier commit says of the stream is of no use to it then.
    pub(super) fn came(&self, table: &TableId) -> Option<CutPoint> {
        let named = self.before.iter().take_while(|(_, rules)| rules.rule_for(table).is_some()).count();
        self.before.get(named)?;
        named.checked_sub(1).and_then(|first| self.before[first].0)
    }
}

/// Why a loop has ended well.
#[derive(Debug)]
pub enum LoopEnd {
    /// It was told to stop, or has other tables now.
    Done,
    /// Other rules count.
    Rules(Box<NewRules>),
    /// It was told to begin anew: the source's position at its last commit's cut.
    Turned(Option<String>),
    /// A table went back: it is to be begun anew, also by rules that counted before.
    WentBack,
}

/// The rules that count from a cut on.
#[derive(Debug)]
pub struct NewRules {
    rules: CutRules,
    position: String,
    /// The cut that was reached; all up to it is committed, if it is the named one.
    at: CutPoint,
    /// The tables that the loop had.
    tables: Vec<TableId>,
}

impl NewRules {
    /// The loop ended in order, or has met a cut of rules that count since an earlier one: then what it collected is read again.
    pub(in crate::pipeline) async fn pass(&self, book: &RulesBook, passed: &Passed, has_all: bool) {
        let is_orderly = self.rules.since == self.at;
        book.met(&self.rules, is_orderly.then(|| self.position.clone())).await;
        if is_orderly && has_all {
            passed.all(self.at);
        } else if is_orderly {
            passed.tables(self.tables.iter().cloned(), self.at);
        }
        tracing::info!(revision = self.rules.revision, cut = %self.rules.since, "the merge goes on by these rules");
    }

    /// Tables of the lake that the new rules don't have end here. These must have been [passed](Self::pass): then they were read.
    pub(super) async fn end_tables(&self, book: &RulesBook, passed: &Passed) {
        // rules that can't be used here are said where the loop begins by them
        let Ok(config) = book.config_of(self.rules.revision) else { return };
        let ended = self.tables.iter().filter(|table| config.tables.rule_for(table).is_none());
        for table in ended {
            if self.rules.since != self.at {
                tracing::warn!(%table, cut = %self.rules.since, "the table ends before this cut: the stream no longer has what it lacks");
            }
            passed.tables([table.clone()], self.rules.since);
            book.note_ended(&noted(table), self.rules.since).await;
        }
    }
}

/// The wish that a loop ends at its last cut, to be begun anew by other rules.
#[derive(Debug, Clone)]
pub(in crate::pipeline) struct Turn(pub(in crate::pipeline) watch::Receiver<bool>);

/// Resolves when the wish is there; never, where nobody can have it.
pub(super) async fn turned(turn: &mut Option<Turn>) {
    let wish = match turn {
        Some(turn) if !*turn.0.borrow() => turn.0.changed().await,
        _ => std::future::pending().await,
    };
    if wish.is_err() {
        std::future::pending::<()>().await;
    }
}

impl Ground {
    /// The same, by the rules of a generation.
    pub(in crate::pipeline) fn by(&self, generation: &Generation, book: &RulesBook) -> Self {
        let before = book.tables_before(generation.revision);
        let edge = Edge { revision: generation.revision, lake: book.lake_url().to_owned(), before, book: book.clone() };
        let config = ApplyConfig { rules: generation.tables.clone(), ..self.config.clone() };
        Self { config, edge: Some(edge), ..self.clone() }
    }
}

impl Apply {
    /// Looks whether a cut says that other rules count.
    pub(super) fn heed(&mut self, reached: &CutReached) {
        let (Some(edge), Some(rules)) = (&self.edge, &reached.cut.rules) else { return };
        if rules.lake == edge.lake && rules.revision > edge.revision {
            self.new_rules = Some(NewRules {
                rules: rules.clone(),
                position: reached.cut.position.position_text(),
                at: reached.point,
                tables: self.tables.keys().cloned().collect(),
            });
        }
    }

    /// Whether what was collected may be of other rules than those by which the loop goes. Nothing of it is committed.
    pub(super) fn is_misled(&self) -> bool {
        self.new_rules.as_ref().is_some_and(|new| new.rules.since != new.at)
    }

    /// Whether the loop ends at the last cut.
    pub(super) fn must_turn(&self) -> bool {
        self.new_rules.is_some() || self.turn.as_ref().is_some_and(|turn| *turn.0.borrow())
    }

    pub(super) fn ended(self) -> LoopEnd {
        match (self.new_rules, self.turn) {
            // what the others have passed, this one hasn't
            _ if self.went_back => LoopEnd::WentBack,
            (Some(mut new), _) => {
                // one that another worker has taken meanwhile is that one's
                new.tables.retain(|table| self.tables.contains_key(table));
                LoopEnd::Rules(Box::new(new))
            }
            (None, Some(turn)) if *turn.0.borrow() => {
                LoopEnd::Turned(self.last_cut.map(|reached| reached.cut.position.position_text()))
            }
            _ => LoopEnd::Done,
        }
    }

    /// Whether the loop would begin before a cut that it hasn't behind it.
    pub(in crate::pipeline) fn begins_before(&self, cut: CutPoint, passed: &Passed) -> bool {
        !passed.has_all(cut) && (self.progress.is_unknown() || self.progress.needs_before(cut, |_| true))
    }

    /// Begins behind a cut, whatever was committed before.
    pub(in crate::pipeline) fn begin_behind(&mut self, cut: CutPoint) {
        self.progress.begin_behind(cut);
    }
}

/// Applies the lake's tables by the rules that count where they stand, and by those that follow, until `stop` is true.
pub(in crate::pipeline) async fn apply_ruled(
    ground: &Ground,
    book: &RulesBook,
    passed: &Passed,
    mut stop: watch::Receiver<bool>,
) -> Result<()> {
    let mut newest = book.newest_changes();
    loop {
        newest.borrow_and_update();
        let gone = gone_of_lake(ground, book, passed).await?;
        let (apply, _generation) = begin(ground, book, passed, &gone).await?;
        let Some(apply) = apply else {
            // the lake has no tables by these rules, and needs nothing of the stream
            ground.log.forget_reader(book.lake_url())?;
            tokio::select! {
                changed = newest.changed() => changed.map_err(|_| Error::bug("nobody looks at the rules"))?,
                _ = stop.wait_for(|stop| *stop) => return Ok(()),
            }
            continue;
        };
        match apply.run(stop.clone()).await {
            Ok(LoopEnd::Rules(new)) => {
                new.pass(book, passed, true).await;
                new.end_tables(book, passed).await;
            }
            Ok(LoopEnd::WentBack) => passed.forget(),
            Ok(LoopEnd::Done | LoopEnd::Turned(_)) => return Ok(()),
            Err(error) if gone.can_be_left(&error) => gone.leave(book, passed, &error).await,
            Err(error) => return Err(error),
        }
    }
}

/// Begins by the newest rules that count where the loop begins by them.
async fn begin(ground: &Ground, book: &RulesBook, passed: &Passed, gone: &Gone) -> Result<(Option<Apply>, Arc<Generation>)> {
    let mut emptied = None;
    for (i, (number, since)) in book.candidates().into_iter().enumerate().skip(gone.least) {
        let generation = book.generation(number, &ground.status)?;
        if i == 0 && generation.tables.rules().is_empty() {
            let Some(at) = since else { return Ok((None, generation)) };
            if passed.has_all(at) {
                book.note_ended(ALL_TABLES, at).await;
                return Ok((None, generation));
            }
            if book.has_ended(ALL_TABLES, at).await? {
                return Ok((None, generation));
            }
            // the last tables that went may not have come to their first commits
            emptied = Some((at, generation));
            continue;
        }
        ground.log.register_reader(book.lake_url())?;
        let apply = Apply::start_on(&ground.by(&generation, book), gone).await?;
        if let Some((at, emptied)) = emptied.take_if(|(at, _)| !apply.begins_before(*at, passed)) {
            book.note_ended(ALL_TABLES, at).await;
            return Ok((None, emptied));
        }
        if !since.is_some_and(|since| apply.begins_before(since, passed)) {
            return Ok((Some(apply), generation));
        }
    }
    Err(Error::bug("no rules count from the beginning"))
}

/// What the book calls the last tables, where rules leave none.
const ALL_TABLES: &str = "all tables";
