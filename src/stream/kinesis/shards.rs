//! Which shards are read when: the pure core of [`super::StreamReader`].
//!
//! A shard that was split or merged ends, and its children go on. A child is begun when all its parents were read to their ends, so
//! the records of one hash key come in their order whatever happened to the shards.

use super::position::{ShardId, ShardPlace, StreamPosition};
use crate::error::{Area, Error, Kind, Result};
use crate::time::Timestamp;
use std::collections::{BTreeMap, BTreeSet};

/// A shard as the stream lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ListedShard {
    pub(super) id: ShardId,
    /// One after a split, two after a merge; the stream may have forgotten them.
    pub(super) parents: Vec<ShardId>,
    /// Whether it takes no records any more.
    pub(super) is_closed: bool,
}

/// What a reader knows of the shards.
#[derive(Debug)]
pub(super) struct ShardTree {
    listed: BTreeMap<ShardId, ListedShard>,
    /// How far those are read that are being read, or ended and are still waited for.
    places: BTreeMap<ShardId, ShardPlace>,
    /// Where a shard is begun that comes after its parents.
    children_from: ShardPlace,
}

impl ShardTree {
    /// Reading from `position` on; `now` stands for `Latest` when the position is asked for later.
    ///
    /// # Errors
    /// `Corrupt` if a shard is gone that wasn't read to its end.
    pub(super) fn new(listed: Vec<ListedShard>, position: &StreamPosition, now: Timestamp) -> Result<Self> {
        let mut tree = Self {
            listed: listed.into_iter().map(|shard| (shard.id.clone(), shard)).collect(),
            places: BTreeMap::new(),
            children_from: ShardPlace::Oldest,
        };
        match position {
            StreamPosition::Oldest => tree.begin_roots(&ShardPlace::Oldest),
            StreamPosition::At(time) => {
                tree.children_from = ShardPlace::At(*time);
                tree.begin_roots(&ShardPlace::At(*time));
            }
            StreamPosition::Latest => {
                let open = tree.listed.values().filter(|shard| !shard.is_closed);
                tree.places = open.map(|shard| (shard.id.clone(), ShardPlace::At(now))).collect();
            }
            StreamPosition::Shards(places) => {
                for (shard, place) in places {
                    if !tree.listed.contains_key(shard) && *place != ShardPlace::Ended {
                        return Err(lost().with("shard", shard));
                    }
                }
                if let Some(time) = places.values().find_map(|place| match place {
                    ShardPlace::At(time) => Some(*time),
                    _ => None,
                }) {
                    tree.children_from = ShardPlace::At(time);
                }
                tree.places = places.clone();
                tree.begin_children();
            }
        }
        Ok(tree)
    }

    fn begin_roots(&mut self, place: &ShardPlace) {
        let roots = self.listed.values().filter(|shard| !shard.parents.iter().any(|parent| self.listed.contains_key(parent)));
        self.places = roots.map(|shard| (shard.id.clone(), place.clone())).collect();
    }

    /// The shards that are to be read now, and from where.
    pub(super) fn active(&self) -> impl Iterator<Item = (&ShardId, &ShardPlace)> {
        self.places.iter().filter(|(_, place)| **place != ShardPlace::Ended)
    }

    /// A shard was read up to a record. One that isn't read (any more) is none of ours.
    pub(super) fn advance(&mut self, shard: &ShardId, sequence_number: String) {
        if let Some(place) = self.places.get_mut(shard).filter(|place| **place != ShardPlace::Ended) {
            *place = ShardPlace::After(sequence_number);
        }
    }

    /// A shard was read to its end, and the stream lists these shards since: begins the children whose parents have all ended.
    pub(super) fn ended(&mut self, shard: &ShardId, listed: Vec<ListedShard>) {
        self.listed.extend(listed.into_iter().map(|shard| (shard.id.clone(), shard)));
        self.places.insert(shard.clone(), ShardPlace::Ended);
        self.begin_children();
    }

    /// Whether the shard has children, as far as is known: one that was just closed may not be listed with them yet.
    pub(super) fn has_children(&self, shard: &ShardId) -> bool {
        self.listed.values().any(|other| other.parents.contains(shard))
    }

    /// Whether the shard was closed when it was last listed: then it has an end, and its children may have records.
    pub(super) fn is_closed(&self, shard: &ShardId) -> bool {
        self.listed.get(shard).is_some_and(|shard| shard.is_closed)
    }

    fn begin_children(&mut self) {
        let read = self.ancestors();
        let begun: Vec<ShardId> = (self.listed.values())
            .filter(|shard| !self.places.contains_key(&shard.id) && !read.contains(&shard.id))
            // a parent that is neither read nor to be read is gone, or an ancestor of what was read
            .filter(|shard| {
                let waits = |parent: &&ShardId| match self.places.get(*parent) {
                    Some(place) => *place != ShardPlace::Ended,
                    None => self.listed.contains_key(*parent) && !read.contains(*parent),
                };
                !shard.parents.iter().any(|parent| waits(&parent))
            })
            .map(|shard| shard.id.clone())
            .collect();
        for shard in begun {
            self.places.insert(shard, self.children_from.clone());
        }
        self.forget_ended();
    }

    /// Whose descendants are named was read.
    fn ancestors(&self) -> BTreeSet<ShardId> {
        let mut ancestors = BTreeSet::new();
        let mut open: Vec<&ShardId> = self.places.keys().collect();
        while let Some(shard) = open.pop() {
            for parent in self.listed.get(shard).iter().flat_map(|shard| &shard.parents) {
                if ancestors.insert(parent.clone()) {
                    open.push(parent);
                }
            }
        }
        ancestors
    }

    /// An ended shard need not be named any more when all its children are.
    fn forget_ended(&mut self) {
        let ended: Vec<ShardId> =
            self.places.iter().filter(|(_, place)| **place == ShardPlace::Ended).map(|(shard, _)| shard.clone()).collect();
        let ancestors = self.ancestors();
        for shard in ended {
            let mut children = self.listed.values().filter(|other| other.parents.contains(&shard)).peekable();
            if children.peek().is_some()
                && children.all(|child| self.places.contains_key(&child.id) || ancestors.contains(&child.id))
            {
                self.places.remove(&shard);
            }
        }
    }

    /// Where all that isn't read yet can be read from.
    pub(super) fn position(&self) -> StreamPosition {
        StreamPosition::Shards(self.places.clone())
    }
}

/// What a position needs is no longer there.
pub(super) fn lost() -> Error {
    Error::new(Area::Stream, Kind::Corrupt, "the stream no longer has the records from the position on").remedy(
        "take the tables anew with `binlake backfill`, and raise the stream's retention above the longest time that merging may stand still",
    )
}

#[cfg(test)]
#[path = "shards_tests.rs"]
mod tests;
