//! Revisions beside the lake's tables: what a cut names can be read there, whatever becomes of the state store, and by whoever can read the lake.
//!
//! One file a revision: `_rules/<hash of the pipeline>/<number>.json`. It is written when the revision is proposed, at the latest before a cut names it, and
//! once more when it is decided.

use super::RulesBook;
use super::behind::in_force;
use crate::error::{Area, Error, Kind, Result};
use crate::state::{RulesRevision, RulesStatus};
use crate::table::{Lake, lake_error};
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{ObjectStoreExt, PutPayload};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// The folder in the lake.
const FOLDER: &str = "_rules";
/// The files' format.
const VERSION: u32 = 1;
/// Files that are read at once.
const CONCURRENT_CALLS: usize = 16;

/// A revision as the lake has it.
#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    version: u32,
    pipeline: String,
    revision: u64,
    status: String,
    author: String,
    origin: String,
    difference: String,
    proposed_at: String,
    decided_at: Option<String>,
    cut: Option<String>,
    position: Option<String>,
    reason: Option<String>,
    hash: String,
    content: String,
}

impl Kept {
    fn of(revision: &RulesRevision) -> Self {
        let of = revision.clone();
        Self {
            version: VERSION,
            pipeline: of.pipeline,
            revision: of.number,
            status: of.status.text().to_owned(),
            author: of.author,
            origin: of.origin,
            difference: of.difference,
            proposed_at: of.proposed_at,
            decided_at: of.decided_at,
            cut: of.since.map(|cut| cut.to_string()),
            position: of.position,
            reason: of.reason,
            hash: of.hash,
            content: of.content,
        }
    }

    fn read(bytes: &[u8]) -> Result<RulesRevision, String> {
        let kept: Self = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        if kept.version > VERSION {
            return Err(format!("it is of version {}, which a newer binlake wrote", kept.version));
        }
        Ok(RulesRevision {
            pipeline: kept.pipeline,
            number: kept.revision,
            status: RulesStatus::of(&kept.status),
            author: kept.author,
            origin: kept.origin,
            difference: kept.difference,
            proposed_at: kept.proposed_at,
            decided_at: kept.decided_at,
            since: kept.cut.map(|cut| cut.parse()).transpose()?,
            position: kept.position,
            reason: kept.reason,
            hash: kept.hash,
            content: kept.content,
        })
    }
}

fn folder(lake: &Lake) -> Path {
    Path::from_iter(lake.root().parts().chain([FOLDER.into()]))
}

fn folder_of(lake: &Lake, pipeline: &str) -> Path {
    let pipeline = format!("{:016x}", xxhash_rust::xxh3::xxh3_64(pipeline.as_bytes()));
    Path::from_iter(folder(lake).parts().chain([pipeline.into()]))
}

fn file(lake: &Lake, revision: &RulesRevision) -> Path {
    let folder = folder_of(lake, &revision.pipeline);
    Path::from_iter(folder.parts().chain([format!("{:010}.json", revision.number).into()]))
}

/// The number of the revision that a file has.
fn number_of(file: &Path) -> Option<u64> {
    file.filename()?.strip_suffix(".json")?.parse().ok()
}

/// Writes a revision down, as it stands.
pub(super) async fn keep(lake: &Lake, revision: &RulesRevision) -> Result<()> {
    let path = file(lake, revision);
    let text =
        serde_json::to_vec_pretty(&Kept::of(revision)).map_err(|error| Error::bug("rules can't be written").caused_by(error))?;
    let put = lake.store().put(&path, PutPayload::from(text)).await;
    put.map(|_| ()).map_err(|error| lake_error("the rules can't be written into the lake", &path, error))
}

/// The revisions of all pipelines that write into the lake, each in their order.
pub(super) async fn kept_in(lake: &Lake) -> Result<BTreeMap<String, Vec<RulesRevision>>> {
    let mut found: BTreeMap<String, Vec<RulesRevision>> = BTreeMap::new();
    for revision in read(lake, &folder(lake), |_| true).await? {
        found.entry(revision.pipeline.clone()).or_default().push(revision);
    }
    Ok(found)
}

/// The revisions below a folder whose numbers are wanted, in the order of their numbers.
async fn read(lake: &Lake, folder: &Path, is_wanted: impl Fn(u64) -> bool) -> Result<Vec<RulesRevision>> {
    const UNREADABLE: &str = "the rules in the lake can't be read";
    let listed = lake.store().list(Some(folder)).map_ok(|found| found.location).try_collect::<Vec<Path>>().await;
    let mut files = listed.map_err(|error| lake_error(UNREADABLE, folder, error))?;
    files.retain(|file| number_of(file).is_some_and(&is_wanted));
    let read = |path: Path| {
        let store = lake.store().clone();
        async move {
            let bytes =
                async { store.get(&path).await?.bytes().await }.await.map_err(|error| lake_error(UNREADABLE, &path, error))?;
            Kept::read(&bytes).map_err(|what| {
                Error::new(Area::Lake, Kind::Corrupt, UNREADABLE)
                    .caused_by(std::io::Error::other(what))
                    .with("path", &path)
                    .remedy("restore the file, or delete it, and apply the configuration again")
            })
        }
    };
    let read = futures::stream::iter(files.into_iter().map(read)).buffered(CONCURRENT_CALLS);
    let mut read: Vec<RulesRevision> = read.try_collect().await?;
    read.sort_by_key(|revision| revision.number);
    Ok(read)
}

impl RulesBook {
    /// Writes back what the state store has lost, as the lake has it. Whoever opens the book does: of several at once, each goes on with all of it.
    pub(super) async fn recover(&self) -> Result<()> {
        let known: BTreeMap<u64, RulesStatus> =
            self.revisions().into_iter().map(|revision| (revision.number, revision.status)).collect();
        // one of which the store, an older copy of it, doesn't know what became counts as lost
        let is_open = |number: u64| known.get(&number).is_none_or(|status| *status == RulesStatus::Proposed);
        let mut lost = read(self.lake(), &folder_of(self.lake(), self.pipeline()), is_open).await?;
        lost.retain(|kept| known.get(&kept.number) != Some(&kept.status));
        let Some(last) = lost.last() else { return Ok(()) };
        for revision in &lost {
            match known.contains_key(&revision.number) {
                true => self.state().decide_rules(revision).await?,
                false => self.state().add_rules(revision).await?,
            };
        }
        tracing::warn!(
            revisions = lost.len(),
            newest = last.number,
            "the state store has lost revisions of the rules: they are written back as the lake has them"
        );
        self.refresh().await
    }

    /// What was in force on a stream that was lost, where that isn't what the file says: the lake's tables go on from there. Of several pipelines that write into the
    /// lake it is the one that had this very file's rules once. `file_note` says what was last read of the file: if it was edited since, it counts.
    pub(super) async fn of_lost_stream(&self, file_note: &str) -> Result<Option<RulesRevision>> {
        let own = self.own().rules_text().hash();
        let had_them = |revisions: &Vec<RulesRevision>| revisions.iter().any(|revision| revision.hash == own);
        let before = kept_in(self.lake()).await?.into_values().filter(had_them);
        let newest = before.filter_map(|revisions| in_force(&revisions).next().cloned());
        let newest = newest.max_by(|a, b| a.decided_at.cmp(&b.decided_at)).filter(|revision| revision.hash != own);
        let Some(newest) = newest else { return Ok(None) };
        let seen = self.state().rules_note(&newest.pipeline, file_note).await?;
        Ok(seen.is_none_or(|seen| seen == own).then_some(newest))
    }

    /// Has the lake know all that the state store knows, for the day on which that is lost.
    pub(super) async fn keep_all(&self) -> Result<()> {
        let kept = read(self.lake(), &folder_of(self.lake(), self.pipeline()), |_| true).await?;
        let is_decided = |kept: &&RulesRevision| kept.status != RulesStatus::Proposed;
        let decided: BTreeSet<u64> = kept.iter().filter(is_decided).map(|revision| revision.number).collect();
        for revision in self.revisions().iter().filter(|revision| !decided.contains(&revision.number)) {
            if !kept.contains(revision) {
                keep(self.lake(), revision).await?;
            }
        }
        Ok(())
    }

    /// Has the lake know of a revision, if it can be reached: the next start tries it again.
    pub(super) async fn keep(&self, number: u64) {
        if let Some(revision) = self.revision(number)
            && let Err(error) = keep(self.lake(), &revision).await
        {
            tracing::warn!(%error, revision = number, "the lake doesn't know yet what became of the rules");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::RulesDecision;
    use object_store::memory::InMemory;
    use std::sync::Arc;

    #[tokio::test]
    async fn revisions_come_back_as_they_were() {
        let lake = Lake::over(Arc::new(InMemory::new()), Path::from("a/lake"), "s3://b/a/lake");
        let proposal = |pipeline: &str, number| RulesRevision {
            content: r#"{"toml": "[[table]]\nsource = 's.t'\n"}"#.into(),
            hash: "abc".into(),
            difference: "+ table s.t\n".into(),
            ..RulesRevision::proposal(pipeline, number, "me@here", "file x")
        };
        let since = RulesDecision::InForce { since: Some("2/7".parse().unwrap()), position: Some("uuid:1-5".into()) };
        let mut all = vec![proposal("p", 2).decided(since), proposal("p", 10).decided(RulesDecision::Refused("no".into()))];
        keep(&lake, &proposal("p", 2)).await.unwrap();
        for revision in all.iter().rev() {
            keep(&lake, revision).await.unwrap();
        }
        let other = proposal("other", 1);
        keep(&lake, &other).await.unwrap();
        let kept = kept_in(&lake).await.unwrap();
        assert_eq!(kept["p"], std::mem::take(&mut all));
        assert_eq!(kept["other"], [other]);
        assert!(lake.tables().await.unwrap().is_empty());
    }

    #[test]
    fn the_first_version_is_read_and_a_later_one_refused() {
        let sample = include_bytes!("../../../tests/data/rules/1.json");
        let revision = Kept::read(sample).unwrap();
        assert_eq!(
            (revision.number, revision.status, revision.since),
            (3, RulesStatus::InForce, Some("12/40817".parse().unwrap()))
        );
        let text = String::from_utf8(sample.to_vec()).unwrap();
        assert_eq!(serde_json::to_string_pretty(&Kept::of(&revision)).unwrap(), text.trim_end());
        assert!(Kept::read(text.replace("\"version\": 1", "\"version\": 2").as_bytes()).unwrap_err().contains("newer binlake"));
    }
}
