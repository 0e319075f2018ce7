//! What a DDL statement does to tables. No I/O.
//!
//! The statement is cut into tokens by sqlparser, and read clause by clause: a clause that isn't known can't hide another one, and a statement that is none
//! of ours needn't be understood at all.

use super::ddl_column::{ColumnDefinition, Place, column_definition};
use crate::event::TableId;
use sqlparser::dialect::MySqlDialect;
use sqlparser::tokenizer::{Token, Tokenizer};

/// One effect of a statement.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Effect {
    /// All rows go.
    Truncate(TableId),
    /// The table goes.
    Drop(TableId),
    /// All tables of a database go.
    DropDatabase(String),
    /// A table is made. `replaces`: one of this name goes; `may_exist`: one of this name stays, if there is one.
    Create { table: TableId, replaces: bool, may_exist: bool },
    /// The table gets another name.
    Rename { from: TableId, to: TableId },
    /// Clauses of ALTER TABLE, in their order.
    Alter { table: TableId, clauses: Vec<Clause> },
    /// Rows are changed by a statement that is logged as text.
    Rows(TableId),
}

/// One clause of ALTER TABLE.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Clause {
    /// ADD COLUMN.
    Add { column: ColumnDefinition, place: Place },
    /// MODIFY, or CHANGE without another name.
    Modify { column: ColumnDefinition, place: Place },
    /// What can't be followed, and why.
    Breaks(&'static str),
    /// A key is given or taken.
    PrimaryKey,
    /// The table's name becomes another one.
    Rename,
}

/// A statement's tokens that are no white space.
pub(super) struct Tokens {
    tokens: Vec<Token>,
    place: usize,
}

impl Tokens {
    /// `None` for a text that can't be cut into tokens.
    pub(super) fn read(sql: &str) -> Option<Self> {
        let tokens = Tokenizer::new(&MySqlDialect {}, sql).tokenize().ok()?;
        let tokens = tokens.into_iter().filter(|token| !matches!(token, Token::Whitespace(_) | Token::EOF)).collect();
        Some(Self { tokens, place: 0 })
    }

    pub(super) fn of(tokens: Vec<Token>) -> Self {
        Self { tokens, place: 0 }
    }

    pub(super) fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.place)
    }

    pub(super) fn next(&mut self) -> Option<Token> {
        let token = self.tokens.get(self.place).cloned();
        self.place += usize::from(token.is_some());
        token
    }

    /// Takes the words if they come next, without regard to case.
    pub(super) fn take(&mut self, words: &[&str]) -> bool {
        let is_word = |token: Option<&Token>, word: &str| matches!(token, Some(Token::Word(found)) if found.quote_style.is_none() && found.value.eq_ignore_ascii_case(word));
        let found = words.iter().enumerate().all(|(i, word)| is_word(self.tokens.get(self.place + i), word));
        if found {
            self.place += words.len();
        }
        found
    }

    /// Takes one of these words.
    pub(super) fn take_any(&mut self, words: &[&str]) -> bool {
        words.iter().any(|word| self.take(&[word]))
    }

    pub(super) fn take_token(&mut self, token: &Token) -> bool {
        let found = self.peek() == Some(token);
        self.place += usize::from(found);
        found
    }

    /// An identifier, quoted or not.
    pub(super) fn name(&mut self) -> Option<String> {
        match self.peek()? {
            Token::Word(word) => {
                let name = word.value.clone();
                self.place += 1;
                Some(name)
            }
            // ANSI_QUOTES
            Token::DoubleQuotedString(name) => {
                let name = name.clone();
                self.place += 1;
                Some(name)
            }
            _ => None,
        }
    }

    /// `[database.]table`.
    pub(super) fn table(&mut self, database: &str) -> Option<TableId> {
        let first = self.name()?;
        if self.take_token(&Token::Period) {
            return Some(TableId::new(first, self.name()?));
        }
        Some(TableId::new(database, first))
    }

    /// The rest, cut at the commas that are in no bracket.
    pub(super) fn clauses(&mut self) -> Vec<Vec<Token>> {
        let mut clauses = vec![Vec::new()];
        let mut depth = 0_i32;
        while let Some(token) = self.next() {
            match token {
                Token::LParen => depth += 1,
                Token::RParen => depth -= 1,
                Token::SemiColon if depth == 0 => break,
                Token::Comma if depth == 0 => {
                    clauses.push(Vec::new());
                    continue;
                }
                _ => {}
            }
            if let Some(clause) = clauses.last_mut() {
                clause.push(token);
            }
        }
        clauses
    }

    /// The tokens of a bracket that comes next, without the bracket.
    pub(super) fn bracket(&mut self) -> Option<Vec<Token>> {
        if !self.take_token(&Token::LParen) {
            return None;
        }
        let mut depth = 1;
        let mut inner = Vec::new();
        while let Some(token) = self.next() {
            match token {
                Token::LParen => depth += 1,
                Token::RParen => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                return Some(inner);
            }
            inner.push(token);
        }
        None
    }
}

/// What a statement does, as far as it concerns tables' rows and shapes. `database`: the session's default.
pub(super) fn effects(sql: &str, database: &str) -> Vec<Effect> {
    let Some(mut tokens) = Tokens::read(sql) else { return Vec::new() };
    read_effects(&mut tokens, database).unwrap_or_default()
}

fn read_effects(tokens: &mut Tokens, database: &str) -> Option<Vec<Effect>> {
    if tokens.take(&["TRUNCATE"]) {
        tokens.take(&["TABLE"]);
        return Some(vec![Effect::Truncate(tokens.table(database)?)]);
    }
    if tokens.take(&["DROP"]) {
        if tokens.take_any(&["DATABASE", "SCHEMA"]) {
            tokens.take(&["IF", "EXISTS"]);
            return Some(vec![Effect::DropDatabase(tokens.name()?)]);
        }
        if !tokens.take_any(&["TABLE", "TABLES"]) {
            return Some(Vec::new());
        }
        tokens.take(&["IF", "EXISTS"]);
        let mut dropped = vec![Effect::Drop(tokens.table(database)?)];
        while tokens.take_token(&Token::Comma) {
            dropped.push(Effect::Drop(tokens.table(database)?));
        }
        return Some(dropped);
    }
    if tokens.take(&["CREATE"]) {
        let replaces = tokens.take(&["OR", "REPLACE"]);
        // a temporary table's rows are nobody else's
        if !tokens.take(&["TABLE"]) {
            return Some(Vec::new());
        }
        let may_exist = tokens.take(&["IF", "NOT", "EXISTS"]);
        return Some(vec![Effect::Create { table: tokens.table(database)?, replaces, may_exist }]);
    }
    if tokens.take(&["RENAME"]) {
        if !tokens.take_any(&["TABLE", "TABLES"]) {
            return Some(Vec::new());
        }
        let mut renamed = Vec::new();
        loop {
            let from = tokens.table(database)?;
            // MariaDB: RENAME TABLE a WAIT 10 TO b
            while tokens.peek().is_some() && !tokens.take(&["TO"]) {
                tokens.next();
            }
            renamed.push(Effect::Rename { from, to: tokens.table(database)? });
            if !tokens.take_token(&Token::Comma) {
                return Some(renamed);
            }
        }
    }
    if tokens.take(&["ALTER"]) {
        tokens.take_any(&["ONLINE", "OFFLINE"]);
        tokens.take(&["IGNORE"]);
        if !tokens.take(&["TABLE"]) {
            return Some(Vec::new());
        }
        tokens.take(&["IF", "EXISTS"]);
        let table = tokens.table(database)?;
        let clauses = tokens.clauses().into_iter().flat_map(|tokens| read_clause(Tokens::of(tokens))).collect();
        return Some(vec![Effect::Alter { table, clauses }]);
    }
    Some(changed_rows(tokens, database))
}

/// Tables whose rows a statement changes.
fn changed_rows(tokens: &mut Tokens, database: &str) -> Vec<Effect> {
    if tokens.take_any(&["INSERT", "REPLACE"]) {
        while tokens.take_any(&["LOW_PRIORITY", "DELAYED", "HIGH_PRIORITY", "IGNORE", "INTO"]) {}
        return tokens.table(database).map(Effect::Rows).into_iter().collect();
    }
    if tokens.take(&["LOAD"]) {
        while tokens.peek().is_some() {
            if tokens.take(&["INTO", "TABLE"]) {
                return tokens.table(database).map(Effect::Rows).into_iter().collect();
            }
            tokens.next();
        }
        return Vec::new();
    }
    if !(tokens.take_any(&["UPDATE", "DELETE", "WITH", "CALL"])) {
        return Vec::new();
    }
    // several tables may be named, and any of them may be changed
    let mut named = Vec::new();
    while tokens.peek().is_some() {
        match tokens.table(database) {
            Some(table) => named.push(Effect::Rows(table)),
            None => drop(tokens.next()),
        }
    }
    named
}

fn read_clause(mut tokens: Tokens) -> Vec<Clause> {
    if tokens.take(&["ADD"]) {
        return read_add(tokens);
    }
    if tokens.take(&["MODIFY"]) || tokens.take(&["CHANGE"]) {
        return vec![read_modify(tokens)];
    }
    if tokens.take(&["DROP"]) {
        if tokens.take(&["PRIMARY", "KEY"]) {
            return vec![Clause::PrimaryKey];
        }
        if tokens.take(&["PARTITION"]) {
            return vec![Clause::Breaks("a partition was dropped, with all its rows")];
        }
        if tokens.take_any(&["INDEX", "KEY", "FOREIGN", "CHECK", "CONSTRAINT", "PERIOD", "SYSTEM"]) {
            return Vec::new();
        }
        return vec![Clause::Breaks("a column was dropped")];
    }
    if tokens.take(&["RENAME"]) {
        if tokens.take_any(&["INDEX", "KEY"]) {
            return Vec::new();
        }
        return vec![if tokens.take(&["COLUMN"]) { Clause::Breaks("a column was renamed") } else { Clause::Rename }];
    }
    if tokens.take(&["TRUNCATE", "PARTITION"]) {
        return vec![Clause::Breaks("a partition was truncated")];
    }
    if tokens.take(&["EXCHANGE", "PARTITION"]) {
        return vec![Clause::Breaks("a partition was exchanged with a table")];
    }
    if tokens.take(&["IMPORT", "TABLESPACE"]) || tokens.take(&["DISCARD", "TABLESPACE"]) || tokens.take(&["DISCARD", "PARTITION"]) {
        return vec![Clause::Breaks("the table's files were exchanged")];
    }
    // indexes, options, defaults of later rows, engine, comment, partitions that keep all rows
    Vec::new()
}

fn read_add(mut tokens: Tokens) -> Vec<Clause> {
    if tokens.take(&["CONSTRAINT"]) {
        while tokens.peek().is_some() && !tokens.take(&["PRIMARY", "KEY"]) {
            tokens.next();
        }
        let is_key = tokens.peek().is_some();
        return if is_key { vec![Clause::PrimaryKey] } else { Vec::new() };
    }
    if tokens.take(&["PRIMARY", "KEY"]) {
        return vec![Clause::PrimaryKey];
    }
    if tokens.take_any(&[
        "INDEX",
        "KEY",
        "UNIQUE",
        "FULLTEXT",
        "SPATIAL",
        "FOREIGN",
        "CHECK",
        "PARTITION",
        "PERIOD",
        "SYSTEM",
        "VECTOR",
    ]) {
        return Vec::new();
    }
    tokens.take(&["COLUMN"]);
    tokens.take(&["IF", "NOT", "EXISTS"]);
    let unread = || Clause::Breaks("a column was added in a way that can't be read");
    if let Some(inner) = tokens.bracket() {
        let columns = Tokens::of(inner).clauses();
        return columns
            .into_iter()
            .map(|column| {
                column_definition(Tokens::of(column)).map_or_else(unread, |(column, place)| Clause::Add { column, place })
            })
            .collect();
    }
    vec![column_definition(tokens).map_or_else(unread, |(column, place)| Clause::Add { column, place })]
}

fn read_modify(mut tokens: Tokens) -> Clause {
    let is_change = matches!(tokens.tokens.get(tokens.place.wrapping_sub(1)), Some(Token::Word(word)) if word.value.eq_ignore_ascii_case("CHANGE"));
    let unread = Clause::Breaks("a column was modified in a way that can't be read");
    tokens.take(&["COLUMN"]);
    tokens.take(&["IF", "EXISTS"]);
    let old = if is_change { tokens.name() } else { None };
    let Some((column, place)) = column_definition(tokens) else { return unread };
    match old {
        Some(old) if !old.eq_ignore_ascii_case(&column.name) => Clause::Breaks("a column was renamed"),
        _ => Clause::Modify { column, place },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(name: &str) -> TableId {
        TableId::new("shop", name)
    }

    #[test]
    fn statements_that_end_or_move_tables() {
        let of = |sql: &str| effects(sql, "shop");
        assert_eq!(of("truncate table `orders`"), [Effect::Truncate(table("orders"))]);
        assert_eq!(
            of("DROP TABLE IF EXISTS `a` , other.b /* generated by server */"),
            [Effect::Drop(table("a")), Effect::Drop(TableId::new("other", "b"))]
        );
        assert_eq!(of("DROP INDEX i ON orders"), []);
        assert_eq!(of("drop database shop"), [Effect::DropDatabase("shop".into())]);
        let swap = of("RENAME TABLE `shop`.`orders` TO `shop`.`_orders_del`, `shop`.`_orders_gho` TO `shop`.`orders`");
        assert_eq!(swap[1], Effect::Rename { from: table("_orders_gho"), to: table("orders") });
        assert_eq!(of("INSERT INTO orders VALUES (1)"), [Effect::Rows(table("orders"))]);
        assert!(of("UPDATE orders o JOIN x.y ON o.a = y.a SET o.b = 1").contains(&Effect::Rows(table("orders"))));
        let create = |replaces, may_exist| [Effect::Create { table: table("orders"), replaces, may_exist }];
        assert_eq!(of("CREATE TABLE orders (a int)"), create(false, false));
        assert_eq!(of("create table if not exists `shop`.orders like o"), create(false, true));
        assert_eq!(of("CREATE OR REPLACE TABLE orders (a int)"), create(true, false));
        for harmless in ["GRANT SELECT ON shop.* TO x", "CREATE TEMPORARY TABLE orders (a int)", "FLUSH TABLES", "'", ""] {
            assert_eq!(of(harmless), [], "{harmless}");
        }
    }

    fn clauses(sql: &str) -> Vec<Clause> {
        match effects(&format!("ALTER TABLE orders {sql}"), "shop").pop() {
            Some(Effect::Alter { clauses, .. }) => clauses,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn clauses_of_alter_table() {
        let harmless = "ADD INDEX i (a, b), ADD CONSTRAINT u UNIQUE (c), ENGINE=InnoDB, ALGORITHM=INPLACE, DROP KEY k, ALTER COLUMN a SET DEFAULT 5, COMMENT 'x, DROP COLUMN y'";
        assert_eq!(clauses(harmless), []);
        assert_eq!(clauses("DROP `note`"), [Clause::Breaks("a column was dropped")]);
        assert_eq!(clauses("RENAME COLUMN a TO b"), [Clause::Breaks("a column was renamed")]);
        assert_eq!(clauses("RENAME AS b"), [Clause::Rename]);
        assert_eq!(clauses("CHANGE a b INT"), [Clause::Breaks("a column was renamed")]);
        assert_eq!(clauses("DROP PARTITION p0"), [Clause::Breaks("a partition was dropped, with all its rows")]);
        assert_eq!(clauses("ADD CONSTRAINT PRIMARY KEY (a)"), [Clause::PrimaryKey]);
        assert!(matches!(&clauses("CHANGE a a BIGINT NOT NULL")[..], [Clause::Modify { .. }]));
        assert!(matches!(&clauses("ADD (x INT, y DECIMAL(10,2) DEFAULT 1.5)")[..], [Clause::Add { .. }, Clause::Add { .. }]));
    }
}
