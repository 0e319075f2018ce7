//! Names with capital letters, written without quotes.
//!
//! SQL folds an unquoted name to lower case, MySQL doesn't: `SELECT CustomerID FROM Orders` must find a column `CustomerID`. So unquoted names that,
//! case aside, are those of a known database, table or column with capitals are replaced by these in quotes. Among names that differ
//! only in case, the one spelled as written is meant. Aliases are treated alike, so that they are found again.

use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::{
    Expr, Ident, ObjectName, ObjectNamePart, Query, Select, SelectItem, SelectItemQualifiedWildcardKind, TableAlias, TableFactor,
    VisitMut, VisitorMut,
};
use std::collections::{BTreeSet, HashMap};
use std::ops::ControlFlow;

/// The names that are known.
#[derive(Debug, Default)]
pub(crate) struct Spelling {
    /// In lower case → as it is, in all its spellings.
    names: HashMap<String, BTreeSet<String>>,
}

impl Spelling {
    /// Knows one more name.
    pub(crate) fn add(&mut self, name: &str) {
        self.names.entry(name.to_lowercase()).or_default().insert(name.to_owned());
    }

    /// Spells the known names in a statement as they are.
    pub(crate) fn correct(&self, statement: &mut Statement) {
        match statement {
            Statement::Statement(statement) => {
                // the visitor never breaks off
                let _ = statement.visit(&mut Corrector(self));
            }
            Statement::Explain(explain) => self.correct(&mut explain.statement),
            _ => {}
        }
    }

    fn ident(&self, ident: &mut Ident) {
        if ident.quote_style.is_some() {
            return;
        }
        let Some(spellings) = self.names.get(&ident.value.to_lowercase()) else { return };
        let only = spellings.first().filter(|_| spellings.len() == 1);
        if let Some(name) = spellings.get(&ident.value).or(only).filter(|name| name.chars().any(char::is_uppercase)) {
            ident.value.clone_from(name);
            ident.quote_style = Some('"');
        }
    }

    fn object(&self, name: &mut ObjectName) {
        for part in &mut name.0 {
            if let ObjectNamePart::Identifier(ident) = part {
                self.ident(ident);
            }
        }
    }

    fn alias(&self, alias: &mut TableAlias) {
        self.ident(&mut alias.name);
        alias.columns.iter_mut().for_each(|column| self.ident(&mut column.name));
    }
}

struct Corrector<'a>(&'a Spelling);

impl VisitorMut for Corrector<'_> {
    type Break = ();

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        query.with.iter_mut().flat_map(|with| &mut with.cte_tables).for_each(|cte| self.0.alias(&mut cte.alias));
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<()> {
        for item in &mut select.projection {
            match item {
                SelectItem::ExprWithAlias { alias, .. } => self.0.ident(alias),
                SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::ObjectName(name), _) => self.0.object(name),
                _ => {}
            }
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_relation(&mut self, relation: &mut ObjectName) -> ControlFlow<()> {
        self.0.object(relation);
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<()> {
        if let TableFactor::Table { alias: Some(alias), .. } | TableFactor::Derived { alias: Some(alias), .. } = factor {
            self.0.alias(alias);
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        match expr {
            Expr::Identifier(ident) => self.0.ident(ident),
            Expr::CompoundIdentifier(parts) => parts.iter_mut().for_each(|part| self.0.ident(part)),
            _ => {}
        }
        ControlFlow::Continue(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::sql::parser::DFParser;

    #[test]
    fn capitals_are_found_and_the_rest_stays() {
        let mut spelling = Spelling::default();
        for name in ["Shop", "Orders", "Id", "CustomerID", "plain", "Count", "Twice", "TWICE"] {
            spelling.add(name);
        }
        let corrected = |sql: &str| {
            let mut statement = DFParser::parse_sql(sql).unwrap().pop_front().unwrap();
            spelling.correct(&mut statement);
            statement.to_string()
        };
        assert_eq!(
            corrected("SELECT customerid, Plain, count(*) AS COUNT, \"customerid\", 'CustomerID', twice, TWICE FROM shop.ORDERS"),
            "SELECT \"CustomerID\", Plain, count(*) AS \"Count\", \"customerid\", 'CustomerID', twice, \"TWICE\" FROM \"Shop\".\"Orders\""
        );
        assert_eq!(
            corrected("WITH orders AS (SELECT ID FROM t) SELECT o.*, max(o.id) FROM orders o GROUP BY o.ID ORDER BY id"),
            "WITH \"Orders\" AS (SELECT \"Id\" FROM t) SELECT o.*, max(o.\"Id\") FROM \"Orders\" o GROUP BY o.\"Id\" ORDER BY \"Id\""
        );
        assert_eq!(corrected("EXPLAIN SELECT id FROM orders"), "EXPLAIN SELECT \"Id\" FROM \"Orders\"");
    }
}
