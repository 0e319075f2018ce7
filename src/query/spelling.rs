//! Names with capital letters, written without quotes.
//!
//! SQL folds an unquoted name to lower case, MySQL doesn't: `SELECT CustomerID FROM Orders` must find a column `CustomerID`. So unquoted words that,
//! case aside, are the name of a known database, table or column with capitals are replaced by that name in quotes. Among names that differ
//! only in case, the one spelled as written is meant.

use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer};
use std::collections::{BTreeSet, HashMap};

/// The names that have capitals.
#[derive(Debug, Default)]
pub(super) struct Spelling {
    /// In lower case → as it is, in all its spellings.
    names: HashMap<String, BTreeSet<String>>,
}

impl Spelling {
    /// Knows one more name.
    pub(super) fn add(&mut self, name: &str) {
        self.names.entry(name.to_lowercase()).or_default().insert(name.to_owned());
    }

    /// `sql` with the known names spelled as they are. Text that isn't SQL is given back as it is.
    pub(super) fn correct(&self, sql: &str) -> String {
        let Ok(mut tokens) = Tokenizer::new(&GenericDialect {}, sql).tokenize() else { return sql.to_owned() };
        let mut is_changed = false;
        for i in 0..tokens.len() {
            let next = tokens[i + 1..].iter().find(|token| !matches!(token, Token::Whitespace(_)));
            let is_call = matches!(next, Some(Token::LParen));
            let Token::Word(word) = &mut tokens[i] else { continue };
            if word.quote_style.is_some() || word.keyword != Keyword::NoKeyword || is_call {
                continue;
            }
            let Some(spellings) = self.names.get(&word.value.to_lowercase()) else { continue };
            let only = spellings.first().filter(|_| spellings.len() == 1);
            let Some(name) = spellings.get(&word.value).or(only) else { continue };
            if name.chars().any(char::is_uppercase) {
                word.value.clone_from(name);
                word.quote_style = Some('"');
                is_changed = true;
            }
        }
        if is_changed { tokens.iter().map(ToString::to_string).collect() } else { sql.to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capitals_are_found_and_the_rest_stays() {
        let mut spelling = Spelling::default();
        for name in ["Shop", "Orders", "CustomerID", "plain", "Count", "Twice", "TWICE"] {
            spelling.add(name);
        }
        let sql = "SELECT customerid, Plain, count(*), \"customerid\", 'CustomerID', twice, TWICE FROM shop.ORDERS -- Shop";
        assert_eq!(
            spelling.correct(sql),
            "SELECT \"CustomerID\", Plain, count(*), \"customerid\", 'CustomerID', twice, \"TWICE\" FROM \"Shop\".\"Orders\" -- Shop"
        );
        assert_eq!(spelling.correct("SELECT 'open"), "SELECT 'open");
    }
}
