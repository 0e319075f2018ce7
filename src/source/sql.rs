//! Names in SQL text.

use crate::event::TableId;

/// `database`.`table`, quoted for SQL.
pub(super) fn quote_table(table: &TableId) -> String {
    format!("{}.{}", quote(table.database()), quote(table.name()))
}

/// An identifier, quoted for SQL.
pub(super) fn quote(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_quoted() {
        assert_eq!(quote_table(&TableId::new("a`b", "c.d")), "`a``b`.`c.d`");
    }
}
