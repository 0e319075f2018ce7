//! ④ Rows up to a cut become what a table must hold.

mod rule;

pub use rule::{
    InvalidText, PartitionBy, PartitionField, PartitionFunction, TablePattern, TableRule, TableRules, TinyInt1, ZeroDates,
};
