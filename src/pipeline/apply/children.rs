//! A table's children in its commits: opened with it, made of its rows, committed with it.
//!
//! A child goes on from the commit that it was last made with. Where the table has another one by now (the child is new, or was left out for a while, or
//! is declared otherwise), it is first written anew from the table's rows as they are, by a commit of its own that has the table's checkpoint.

use super::commit::Job;
use super::history::OpenTable;
use super::lake::LakeWriter;
use crate::error::{Area, Error, Kind, Result};
use crate::merge::{CHECKPOINT_KEY, CHILD_KEY, ChildBase, ChildClaim, ChildInput, ChildShape, POSITION_KEY};
use crate::table::{CommitRequest, Table};
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

impl Job {
    /// Opens the children that the rule declares, and brings them to where the table is.
    pub(super) async fn ready_children(&self, open: &mut OpenTable) -> Result<Vec<ChildShape>> {
        let shapes = ChildShape::all(&self.children.0, self.fold.shape())?;
        let mut known: BTreeMap<_, _> = std::mem::take(&mut open.children).into_iter().collect();
        for shape in &shapes {
            let mut child = match known.remove(shape.table()) {
                Some(child) => child,
                None => self.lake.open_child(shape).await?,
            };
            if !self.fold.truncate() && !is_current(&child, shape, &open.table)? {
                self.write_anew(shape, &open.table, &mut child).await?;
            }
            open.children.push((shape.table().clone(), child));
        }
        Ok(shapes)
    }

    async fn write_anew(&self, shape: &ChildShape, parent: &Table, child: &mut Table) -> Result<()> {
        let mut extra_metadata = BTreeMap::from([(CHILD_KEY.to_owned(), shape.claim().to_json()?)]);
        for key in [CHECKPOINT_KEY, POSITION_KEY] {
            extra_metadata.extend(parent.extra_metadata(key).map(|value| (key.to_owned(), value.to_owned())));
        }
        let summary = child
            .commit(CommitRequest {
                columns: shape.columns().clone(),
                record_key: Some(shape.key_names().to_vec()),
                fill: None,
                truncate: true,
                changes: ChildBase { shape, parent, fold: &self.fold }.changes()?,
                ordering: None,
                extra_metadata,
            })
            .await?;
        tracing::info!(table = %shape.table(), of = %self.table, rows = summary.inserted, "the child table is written anew from its parent's rows");
        Ok(())
    }

    /// The child's part of the commit.
    pub(super) fn child_request(&self, shape: &ChildShape, parent: &Table, child: &Table) -> Result<CommitRequest> {
        Ok(CommitRequest {
            columns: shape.columns().clone(),
            record_key: Some(shape.key_names().to_vec()),
            fill: None,
            truncate: self.fold.truncate(),
            changes: ChildInput { shape, fold: &self.fold, parent, child }.changes()?,
            ordering: None,
            extra_metadata: BTreeMap::from([
                (CHECKPOINT_KEY.to_owned(), self.checkpoint.to_json()?),
                (POSITION_KEY.to_owned(), self.checkpoint.position_text()),
                (CHILD_KEY.to_owned(), shape.claim().to_json()?),
            ]),
        })
    }
}

/// Whether a child was made with its parent's last commit, as it is declared now.
fn is_current(child: &Table, shape: &ChildShape, parent: &Table) -> Result<bool> {
    if child.instants().is_empty() && parent.instants().is_empty() {
        return Ok(true);
    }
    let is_declared_so = child.extra_metadata(CHILD_KEY).and_then(ChildClaim::from_json).as_ref() == Some(shape.claim());
    Ok(is_declared_so && child.extra_metadata(CHECKPOINT_KEY) == parent.extra_metadata(CHECKPOINT_KEY))
}
