//! Children: lists of objects in a table's rows as tables of their own.
//!
//! A child follows its parent's *outcome*: what a commit makes of a parent's row, it makes of the row's elements. A row that comes in brings its elements, one
//! that goes takes them, and one that loses against a newer row changes nothing, whatever its list says. So what a child holds is at each commit what its parent's
//! rows say, however they came: late, twice, emptied, deleted.
//!
//! - which tables there are, of which columns: `shape` ([`ChildShape`]); their keys begin with the parent's, so that all elements of a row lie together;
//! - the rows of the elements of some parents: `explode`, pure;
//! - which parents' rows come in: `outcome`; what that changes in the child: [`ChildInput`].
//!
//! The history of a child is the child of its parent's history: each version of a row brings its elements.

mod changes;
mod explode;
mod outcome;
mod shape;
#[cfg(test)]
mod shape_tests;
#[cfg(test)]
mod table_tests;

pub use changes::{Changes, ChildInput};
pub(super) use explode::{chosen, narrowed};
pub use shape::{ChildClaim, ChildShape};
