//! Rules that change while the service runs: tables, transforms, lookups, deliveries.
//!
//! **A revision** is the text of these sections, with a number. Revisions lie in the state store, so that all workers of a pipeline see them; the newest may
//! be undecided. Who captures takes it up: it begins anew with it, and if the source's tables fit, the first thing that it puts on the
//! stream is a *named cut*: a copy of the last cut that says `rules: N since this cut`. All rows before it were captured by the rules before, all behind it by the new ones.
//!
//! **Who merges** commits all up to the named cut by the rules before, and begins anew behind it. Each loop (the lake's tables, each delivery) comes to the cut in its
//! own time, each worker of several too; nobody waits for another, and nobody is at the same cut by other rules.
//!
//! **After a crash** a loop begins at a checkpoint, and the rules that count there are known: every cut says since when its rules are in force, and the store says
//! since when the ones before were. A proposal that no cut names yet is taken up by the next capture; one that a whole cut names is in force, whether the store
//! says so yet or not. The lake has a copy of each revision, written before a cut names it: so a lost store is filled from there, and commands that only look go by
//! the revision in force without it. Where the lake has none either, the file's rules are proposed, with a number above the stream's.
//!
//! A table that had no commit yet at the named cut (its snapshot is under way, or it is stopped) is merged by the new rules as a whole: what it has by then is read again.
//!
//! Streams that others write have no cuts of a source. Their loops end at their last checkpoint when a revision is in force, and begin there by the new rules.

mod archive;
mod behind;
mod beside;
mod book;
mod check;
mod effect;
mod generation;
mod notes;
mod propose;

pub use beside::{RulesBeside, rules_in_force};
pub(in crate::pipeline) use book::MOST_BEFORE;
pub use book::RulesBook;
pub use propose::{Outcome, Plan, origin_of, user};

pub(super) use behind::Passed;
pub(super) use check::{copied_anew, ensure_mappings_fit};
pub use check::{misfits_of, unfit, unreadable};
pub(super) use effect::Target;
pub(super) use generation::Generation;
