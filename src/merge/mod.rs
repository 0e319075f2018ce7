//! ④ Rows up to a cut become what a table must hold.

mod rule;

pub use rule::{PartitionBy, PartitionField, PartitionFunction, TablePattern, TableRule, TableRules, TinyInt1};
