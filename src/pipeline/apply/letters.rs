//! A table's dead letters in its commits: opened with it, and changed with it in one commit.

use super::lake::LakeWriter;
use crate::error::Result;
use crate::event::TableId;
use crate::format::DEAD_LETTERS;
use crate::merge::{LakeShape, LetterSink, RowLetter, follow_orderings, row_letters_key, row_letters_spec};
use crate::metrics as names;
use crate::pipeline::erase::blocking;
use crate::pipeline::row_letters::row_letters_of;
use crate::table::{CommitRequest, CommitSummary, Follower, Staged, Table};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

/// The dead letters of a table that is open for writing.
#[derive(Debug)]
pub(super) struct OpenLetters {
    of: TableId,
    /// `None`: there never was one.
    table: Option<Table>,
    known: LetterSink,
    /// The column that says which of two rows is newer, where the table has one.
    ordering: Option<String>,
    /// What the letters have in it, by their keys.
    orderings: Arc<HashMap<String, Value>>,
}

/// All rows of a table with these columns.
async fn rows_of(table: &Table, columns: &arrow::datatypes::Schema) -> Result<Vec<arrow::array::RecordBatch>> {
    let reader = table.row_reader(columns)?;
    blocking(move || {
        let mut all = Vec::new();
        for partition in reader.partitions() {
            for rows in reader.clone().stream(&partition)? {
                all.push(rows?);
            }
        }
        Ok(all)
    })
    .await
}

impl LakeWriter {
    /// Whether a table has dead letters, of now or of a time when it was said that rows become such.
    pub(super) async fn has_letters(&self, of: &TableId) -> Result<bool> {
        Ok(!of.database().starts_with(DEAD_LETTERS) && self.has(&row_letters_of(of)).await?)
    }

    /// Opens a table's dead letters, the table itself being open already: it decides whether their last commit counts.
    pub(super) async fn open_letters(&self, of: &TableId, shape: &LakeShape) -> Result<OpenLetters> {
        let name = row_letters_of(of);
        let ordering = shape.ordering().map(str::to_owned);
        let (mut table, mut known, mut orderings) = (None, LetterSink::default(), HashMap::new());
        if self.has(&name).await? {
            let open = self.open(&name, &row_letters_spec(&name), false).await.map_err(|error| error.with("table", &name))?;
            let mut keys = Vec::new();
            let columns = if ordering.is_some() { row_letters_spec(&name).columns } else { Arc::new(row_letters_key()) };
            for rows in rows_of(&open, &columns).await? {
                keys.extend(RowLetter::keys(&rows)?);
                if let Some(ordering) = &ordering {
                    let letters = RowLetter::read(&rows)?.into_iter().map(|letter| (letter.key.clone(), letter)).collect();
                    follow_orderings(&mut orderings, ordering, &letters, &BTreeSet::new());
                }
            }
            known = LetterSink::knowing(keys.iter().map(String::as_str));
            table = Some(open);
        }
        Ok(OpenLetters { of: of.clone(), table, known, ordering, orderings: Arc::new(orderings) })
    }
}

impl OpenLetters {
    /// What is to be told of rows that fail.
    pub(super) fn sink(&self) -> LetterSink {
        self.known.clone()
    }

    /// What the letters have in the column that says which of two rows is newer, by their keys.
    pub(super) fn orderings(&self) -> Arc<HashMap<String, Value>> {
        self.orderings.clone()
    }

    /// All letters.
    pub(super) async fn read(&self) -> Result<Vec<RowLetter>> {
        let Some(table) = &self.table else { return Ok(Vec::new()) };
        let mut letters = Vec::new();
        for rows in rows_of(table, &row_letters_spec(&self.of).columns).await? {
            letters.extend(RowLetter::read(&rows)?);
        }
        Ok(letters)
    }

    /// Makes a commit on the table and its followers take effect, and with it what its rows mean for the letters. `anew`: none of before stays.
    pub(super) async fn finish(
        &mut self,
        lake: &LakeWriter,
        table: &mut Table,
        staged: Staged<'_>,
        anew: bool,
    ) -> Result<(CommitSummary, Vec<CommitSummary>)> {
        let (come, go) = self.known.take();
        let anew = anew && self.known.count() > 0;
        let mut followers = Vec::new();
        if !come.is_empty() || !go.is_empty() || anew {
            let name = row_letters_of(&self.of);
            let letters = match &mut self.table {
                Some(letters) => letters,
                none => none.insert(lake.open(&name, &row_letters_spec(&name), false).await?),
            };
            let nothing = BTreeSet::new();
            let changes = RowLetter::changes(&come, if anew { &nothing } else { &go });
            let request = CommitRequest {
                columns: letters.columns(),
                record_key: None,
                fill: None,
                truncate: anew,
                changes: Box::new(std::iter::once(changes)),
                ordering: None,
                extra_metadata: BTreeMap::new(),
            };
            followers.push(Follower { table: letters, request });
        }
        let is_told = !followers.is_empty();
        let (summary, mut done) = table.finish(staged, followers).await?;
        if is_told {
            done.pop();
        }
        if !come.is_empty() {
            metrics::counter!(names::DEAD_LETTERS, "table" => self.of.to_string()).increment(come.len() as u64);
            tracing::warn!(table = %self.of, rows = come.len(), "rows can't be transformed, and are dead letters");
        }
        if let Some(ordering) = &self.ordering {
            if anew {
                self.orderings = Arc::default();
            }
            if !come.is_empty() || !go.is_empty() {
                follow_orderings(Arc::make_mut(&mut self.orderings), ordering, &come, &go);
            }
        }
        self.known = if anew { LetterSink::knowing(come.keys().map(String::as_str)) } else { self.known.after(&come, &go) };
        Ok((summary, done))
    }
}
