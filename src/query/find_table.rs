//! Which table a name means.

use crate::error::{Error, Result};

/// Most tables that an error lists.
const LISTED: usize = 20;

/// The table that `database.table` means among those that are there, or `table` alone where only one database has it. Capitals count where they tell two apart.
pub fn find_table(known: &[(String, String)], name: &str) -> Result<(String, String)> {
    // a name without a dot first: it may hold the dot of a database's name
    match name.split_once('.') {
        Some((database, table)) => find(known, Some(database), table),
        None => find(known, None, name),
    }
}

pub(super) fn find(known: &[(String, String)], database: Option<&str>, table: &str) -> Result<(String, String)> {
    let found: Vec<&(String, String)> =
        known.iter().filter(|(d, t)| t == table && database.is_none_or(|database| database == d)).collect();
    let shown = match database {
        Some(database) => format!("{database}.{table}"),
        None => table.to_owned(),
    };
    match found.as_slice() {
        [one] => Ok((*one).clone()),
        [] => {
            let is_like = |(d, t): &(String, String)| {
                let is_database = |database: &str| database.to_lowercase() == d.to_lowercase();
                t.to_lowercase() == table.to_lowercase() && database.is_none_or(is_database)
            };
            match known.iter().filter(|name| is_like(name)).collect::<Vec<_>>().as_slice() {
                // but for capitals
                [one] => Ok((*one).clone()),
                _ => Err(Error::config(format!("there is no table `{shown}`")).remedy(remedy(known, &shown))),
            }
        }
        several => {
            Err(Error::config(format!("`{shown}` is in several databases")).remedy(format!("write one of {}", names(several))))
        }
    }
}

fn remedy(known: &[(String, String)], shown: &str) -> String {
    if known.is_empty() {
        return "the lake has no table yet".into();
    }
    let name = shown.rsplit('.').next().unwrap_or(shown).to_lowercase();
    let likeness = |(_, table): &(String, String)| strsim::jaro_winkler(&name, &table.to_lowercase());
    // among tables of one name, the database decides
    let whole = |(database, table): &(String, String)| strsim::jaro_winkler(shown, &format!("{database}.{table}"));
    let nearer =
        |a: &&(String, String), b: &&(String, String)| likeness(a).total_cmp(&likeness(b)).then(whole(a).total_cmp(&whole(b)));
    let nearest = known.iter().max_by(nearer).filter(|table| likeness(table) > 0.8);
    let there: Vec<&(String, String)> = known.iter().take(LISTED).collect();
    let more = if known.len() > LISTED { ", …" } else { "" };
    match nearest {
        Some((d, t)) => format!("did you mean `{d}.{t}`? the lake has {}{more}", names(&there)),
        None => format!("the lake has {}{more}", names(&there)),
    }
}

fn names(tables: &[&(String, String)]) -> String {
    tables.iter().map(|(database, table)| format!("{database}.{table}")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_name_is_found_where_only_one_table_has_it() {
        let known: Vec<(String, String)> =
            [("shop", "orders"), ("store", "orders"), ("shop", "items")].map(|(d, t)| (d.to_owned(), t.to_owned())).to_vec();
        let found =
            |name: &str| find_table(&known, name).map(|(d, t)| format!("{d}.{t}")).unwrap_or_else(|error| error.to_string());
        assert_eq!(found("items"), "shop.items");
        assert_eq!(found("store.orders"), "store.orders");
        assert_eq!(found("orders"), "`orders` is in several databases; write one of shop.orders, store.orders");
        assert_eq!((found("Items"), found("SHOP.items")), ("shop.items".to_owned(), "shop.items".to_owned()));
        assert!(found("Orders").starts_with("there is no table `Orders`; did you mean"), "{}", found("Orders"));
        assert_eq!(found("shop.zzz"), "there is no table `shop.zzz`; the lake has shop.orders, store.orders, shop.items");
        assert_eq!(
            found("item"),
            "there is no table `item`; did you mean `shop.items`? the lake has shop.orders, store.orders, shop.items"
        );
        assert_eq!(find_table(&[], "x").unwrap_err().advice(), "the lake has no table yet");
    }
}
