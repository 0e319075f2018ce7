//! A table's children in its commits: opened with it, made of its rows, committed with it.
//!
//! A child goes on from the commit that it was last made with. Where the table has another one by now (the child is new, or was left out for a while, or
//! is declared otherwise), it is first written anew from the table's rows as they are, by a commit of its own that has the table's checkpoint.

use super::commit::Job;
use super::history::OpenTable;
use super::lake::LakeWriter;
use crate::error::{Area, Error, Kind, Result};
use crate::merge::{
    CHECKPOINT_KEY, CHILD_KEY, Changes, ChildClaim, ChildInput, ChildShape, HISTORY_START_KEY, HistoryShape, LakeShape,
    POSITION_KEY,
};
use crate::table::{CommitRequest, Table};
use arrow::datatypes::SchemaRef;
use std::collections::BTreeMap;

impl LakeWriter {
    /// Opens a child, its parent being open already: that decides whether the child's last commit counts.
    async fn open_child(&self, shape: &ChildShape) -> Result<Table> {
        let name = shape.table();
        let opened = self.open(name, &shape.spec(), true).await.map_err(|error| {
            let error = error.with("table", name);
            if error.kind() != Kind::Refused {
                return error;
            }
            refused("the child table can't be written").caused_by(error)
        })?;
        let claim = opened.extra_metadata(CHILD_KEY).and_then(ChildClaim::from_json);
        let is_other = claim.as_ref().map_or(!opened.instants().is_empty(), |claim| claim.of != shape.claim().of);
        if is_other {
            let what = "the lake has another table of the child's name";
            return Err(refused(what).with("child", name).with("of", &shape.claim().of));
        }
        Ok(opened)
    }
}

fn refused(what: &'static str) -> Error {
    Error::new(Area::Lake, Kind::Data, what)
        .remedy("give the child another `name` in `children` of its parent's [[table]], or move the other table's folder away")
}

/// The tables in whose rows lists are.
#[derive(Debug, Clone, Copy)]
pub(super) struct Parents<'a> {
    pub(super) table: &'a Table,
    /// The table's history, with its shape from this commit on.
    pub(super) history: Option<(&'a Table, &'a HistoryShape)>,
}

impl<'a> Parents<'a> {
    /// The one whose child a shape is of, and its columns.
    fn of(&self, shape: &ChildShape, lake: &'a LakeShape) -> Result<(&'a Table, &'a SchemaRef)> {
        match (shape.is_history(), self.history) {
            (false, _) => Ok((self.table, lake.columns())),
            (true, Some((history, shape))) => Ok((history, shape.columns())),
            (true, None) => Err(Error::bug("a child has a history, and its table has none")),
        }
    }
}

impl Job {
    /// Opens the children that the rule declares, and brings them to where the table is.
    pub(super) async fn ready_children(&self, open: &mut OpenTable, history: Option<&HistoryShape>) -> Result<Vec<ChildShape>> {
        let shapes = ChildShape::all(&self.children.0, self.fold.shape(), history)?;
        let mut known: BTreeMap<_, _> = std::mem::take(&mut open.children).into_iter().collect();
        for shape in &shapes {
            let mut child = match known.remove(shape.table()) {
                Some(child) => child,
                None => self.lake.open_child(shape).await?,
            };
            let parents = Parents { table: &open.table, history: open.history.as_ref().zip(history) };
            let (parent, columns) = parents.of(shape, self.fold.shape())?;
            let goes_first = self.fold.truncate() && !shape.is_history();
            if !goes_first && !is_current(&child, shape, parent) {
                self.write_anew(shape, parent, columns, &mut child).await?;
            }
            open.children.push((shape.table().clone(), child));
        }
        Ok(shapes)
    }

    async fn write_anew(&self, shape: &ChildShape, parent: &Table, columns: &SchemaRef, child: &mut Table) -> Result<()> {
        let mut extra_metadata = BTreeMap::from([(CHILD_KEY.to_owned(), shape.claim().to_json()?)]);
        let carried = [CHECKPOINT_KEY, POSITION_KEY].into_iter().chain(shape.is_history().then_some(HISTORY_START_KEY));
        for key in carried {
            extra_metadata.extend(parent.extra_metadata(key).map(|value| (key.to_owned(), value.to_owned())));
        }
        let summary = child
            .commit(CommitRequest {
                columns: shape.columns().clone(),
                record_key: Some(shape.key_names().to_vec()),
                fill: None,
                truncate: true,
                changes: ChildInput { shape, columns, parent, child: None }.anew()?,
                ordering: None,
                extra_metadata,
            })
            .await?;
        tracing::info!(table = %shape.table(), of = %self.table, rows = summary.inserted, "the child table is written anew from its parent's rows");
        Ok(())
    }

    /// The child's part of the commit; `start`: since when the table's history has every change.
    pub(super) fn child_request(
        &self,
        shape: &ChildShape,
        parents: &Parents<'_>,
        child: &Table,
        start: Option<&String>,
    ) -> Result<CommitRequest> {
        let (parent, columns) = parents.of(shape, self.fold.shape())?;
        let (truncate, of_parent): (bool, Changes) = match (&self.history, shape.is_history()) {
            (Some(rule), true) => (false, self.history_changes(rule, parents.table, parent)?.changes),
            _ => (self.fold.truncate(), self.fold.followed()),
        };
        let child = (!truncate).then_some(child);
        let mut extra_metadata = BTreeMap::from([
            (CHECKPOINT_KEY.to_owned(), self.checkpoint.to_json()?),
            (POSITION_KEY.to_owned(), self.checkpoint.position_text()),
            (CHILD_KEY.to_owned(), shape.claim().to_json()?),
        ]);
        let start = start.filter(|_| shape.is_history());
        extra_metadata.extend(start.map(|start| (HISTORY_START_KEY.to_owned(), start.clone())));
        Ok(CommitRequest {
            columns: shape.columns().clone(),
            record_key: Some(shape.key_names().to_vec()),
            fill: None,
            truncate,
            changes: ChildInput { shape, columns, parent, child }.changes(of_parent)?,
            ordering: None,
            extra_metadata,
        })
    }
}

/// Whether a child was made with its parent's last commit, as it is declared now.
fn is_current(child: &Table, shape: &ChildShape, parent: &Table) -> bool {
    if child.instants().is_empty() && parent.instants().is_empty() {
        return true;
    }
    let is_declared_so = child.extra_metadata(CHILD_KEY).and_then(ChildClaim::from_json).as_ref() == Some(shape.claim());
    is_declared_so && child.extra_metadata(CHECKPOINT_KEY) == parent.extra_metadata(CHECKPOINT_KEY)
}
