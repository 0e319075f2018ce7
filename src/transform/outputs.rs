//! The columns that a transform gives: what they may be called, and where the SELECT names them.

use super::bind::OutputColumn;
use super::engine::Fault;
use super::statement::given_name;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::{Ident, Select, SelectItem, SetExpr, Spanned, Statement as SqlStatement};
use datafusion::sql::sqlparser::tokenizer::Location;
use std::collections::HashSet;
use std::sync::Arc;

/// What is wrong with the columns that a transform gives, and with which.
pub(super) fn check_outputs(
    outputs: &[(OutputColumn, Arc<dyn PhysicalExpr>)],
    key: &[String],
    own: &[&str],
) -> Result<(), (Option<String>, Fault)> {
    const ANOTHER_NAME: &str = "give it another name with AS";
    for name in key {
        let Some((column, _)) = outputs.iter().find(|(column, _)| column.field.name() == name) else {
            let fault = Fault::new(format!("the transform doesn't give the key's column `{name}`"));
            return Err((None, fault.remedy(format!("add {name} to the SELECT"))));
        };
        if column.passes.as_ref() != Some(name) {
            let fault = Fault::new(format!("the transform changes the key's column `{name}`"));
            return Err((Some(name.clone()), fault.remedy("pass it as it is, and compute under another name")));
        }
    }
    let mut seen = HashSet::new();
    for (column, _) in outputs {
        let name = column.field.name();
        let fault = if !seen.insert(name.to_lowercase()) {
            two_columns(name)
        } else if own.iter().any(|own| own.eq_ignore_ascii_case(name)) {
            Fault::new(format!("`{name}` is Binlake's own column")).remedy(ANOTHER_NAME)
        } else if name.to_lowercase().starts_with("_hoodie_") {
            Fault::new(format!("`{name}` is called as Hudi's own columns are")).remedy(ANOTHER_NAME)
        } else if !is_readable(name) {
            Fault::new(format!("the column `{name}` has a name that readers of the lake can't read"))
                .remedy("give it another name with AS: letters, digits and _ only, no digit first")
        } else {
            continue;
        };
        return Err((Some(name.clone()), fault));
    }
    Ok(())
}

pub(super) fn two_columns(name: &str) -> Fault {
    Fault::new(format!("the transform gives two columns called `{name}` (case aside)"))
        .remedy("give one another name with AS, or list the columns")
}

/// What is computed under a name that one of all `columns`, which the list gives as well, has already.
pub(super) fn doubled<'a, 'b>(select: &'a Select, columns: impl Iterator<Item = &'b str>) -> Option<&'a Ident> {
    let is_all = |item: &SelectItem| matches!(item, SelectItem::Wildcard(_) | SelectItem::QualifiedWildcard(..));
    let known: HashSet<String> = columns.map(str::to_lowercase).collect();
    let mut named = select.projection.iter().filter_map(given_name);
    named.find(|name| known.contains(&name.value.to_lowercase())).filter(|_| select.projection.iter().any(is_all))
}

/// Where in the SELECT's list a column is named.
pub(super) fn place_of(statement: &Statement, name: &str) -> Option<Location> {
    let Statement::Statement(sql) = statement else { return None };
    let SqlStatement::Query(query) = sql.as_ref() else { return None };
    let SetExpr::Select(select) = query.body.as_ref() else { return None };
    let is_it = |item: &&SelectItem| given_name(item).is_some_and(|given| given.value.eq_ignore_ascii_case(name));
    select.projection.iter().find(is_it).map(item_start)
}

/// As the lake's tables have names: Avro has no others.
fn is_readable(name: &str) -> bool {
    let is_letter = |c: char| c.is_ascii_alphabetic() || c == '_';
    name.chars().next().is_some_and(is_letter) && name.chars().all(|c| is_letter(c) || c.is_ascii_digit())
}

/// Where an item of it begins.
pub(super) fn item_start(item: &SelectItem) -> Location {
    item.span().start
}
