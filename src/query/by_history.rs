//! As of which system time a history knows what counts at a position of the source, and nothing else.
//!
//! System time rises from transaction to transaction of a table, in the order of the source: so it is that of the last transaction that counts. A version names
//! the transaction that brought it, and began with it. What ended versions alone (a DELETE) is named by the commit that has it, as long as that is retained.
//! Only what lies between the table's commits before and behind the position is looked at, by the table's own times: no clock is trusted.

use super::at_position::Line;
use super::engine::Engine;
use super::history::{self, Asked};
use super::views::Views;
use crate::error::{Error, Result};
use crate::merge::{AskedPosition, Checkpoint, ENDS_KEY, Ends};
use crate::time::Timestamp;
use arrow::array::AsArray;
use arrow::datatypes::TimestampMicrosecondType;
use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

/// What a history has between two commits.
#[derive(Debug, Default)]
struct Window {
    /// When each transaction that brought versions did.
    brought: BTreeMap<String, i64>,
    /// When anything came or went.
    times: BTreeSet<i64>,
}

impl Window {
    /// The system time of the last transaction that counts, `lower` being one before all of these; `None`: it can't be told. `named`: who did what at other
    /// times.
    fn last(&self, lower: i64, asked: &AskedPosition, named: &BTreeMap<i64, String>) -> Option<i64> {
        let mut counts: BTreeMap<i64, Option<bool>> = self.times.iter().map(|time| (*time, None)).collect();
        let brought = self.brought.iter().map(|(position, time)| (*time, position));
        let mut told = BTreeSet::new();
        for (time, position) in named.iter().map(|(time, position)| (*time, position)).chain(brought) {
            if let Some(counts) = counts.get_mut(&time) {
                let counted = asked.has(position);
                // a snapshot, and transactions that it has seen in part, are one
                *counts = if told.insert(time) || *counts == counted { counted } else { None };
            }
        }
        let is = |wanted: bool| move |(_, counts): &(&i64, &Option<bool>)| **counts == Some(wanted);
        let last = counts.iter().filter(is(true)).map(|(time, _)| *time).max().unwrap_or(lower);
        let first = counts.iter().filter(is(false)).map(|(time, _)| *time).min().unwrap_or(i64::MAX);
        // one of which nothing is known must not lie where it would matter
        let is_open = counts.range(last.min(first)..first).any(|(time, counts)| *time > last && counts.is_none());
        (last > i64::MIN && last < first && !is_open).then_some(last)
    }
}

/// The system time that a position means for a table with a history; `None`: it can't be told.
pub(super) async fn system_time(engine: &Engine, views: &Views, line: &Line, asked: &AskedPosition) -> Result<Option<Timestamp>> {
    let (mut before, mut after): (Option<&Checkpoint>, Option<&Checkpoint>) = (None, None);
    for checkpoint in line.commits.iter().map(|(_, place)| &place.checkpoint).filter(|one| one.system_time.is_some()) {
        match asked.compare(checkpoint) {
            Some(Ordering::Less | Ordering::Equal) => before = Some(checkpoint),
            Some(Ordering::Greater) => {
                after = Some(checkpoint);
                break;
            }
            None => return Ok(None),
        }
    }
    // what came for the table behind its last commit isn't there
    let Some(upper) = after.and_then(|after| after.system_time) else { return Ok(None) };
    let lower = before.and_then(|before| before.system_time).map_or(i64::MIN, Timestamp::as_micros);
    let window = window(engine, views, line, before, (lower, upper)).await?;
    let last = match window.last(lower, asked, &BTreeMap::new()) {
        Some(last) => Some(last),
        None => window.last(lower, asked, &named(views, line).await?),
    };
    Ok(last.map(Timestamp::from_micros))
}

async fn window(
    engine: &Engine,
    views: &Views,
    line: &Line,
    before: Option<&Checkpoint>,
    (lower, upper): (i64, Timestamp),
) -> Result<Window> {
    let (database, name) = &line.name;
    let (context, history) = (engine.context()?, history::history_name(name));
    engine.register_history(&context, views, database, &history, None).await?;
    let sql = Asked::transactions(database, &history, Timestamp::from_micros(lower.max(0)), upper);
    let mut window = Window::default();
    for rows in engine.rows(&context, &sql).await? {
        let wrong = || Error::bug("a history's transactions have other types");
        let positions = rows.column(0).as_string_opt::<i32>().ok_or_else(wrong)?;
        let times = rows.column(1).as_primitive_opt::<TimestampMicrosecondType>().ok_or_else(wrong)?;
        for (position, time) in positions.iter().zip(times.values().iter().copied()) {
            if time <= lower {
                continue;
            }
            window.times.insert(time);
            // what is left of a version begins anew when it is cut, under the name of whoever brought it
            let is_of_before = |position: &str| before.is_some_and(|before| before.covers(position) == Some(true));
            if let Some(position) = position.filter(|position| !is_of_before(position)) {
                let known = window.brought.entry(position.to_owned()).or_insert(time);
                *known = time.min(*known);
            }
        }
    }
    Ok(window)
}

/// What the history's retained commits say of transactions that may have left nothing but ends.
async fn named(views: &Views, line: &Line) -> Result<BTreeMap<i64, String>> {
    let (database, name) = &line.name;
    let view = views.get(database, &history::history_name(name)).await?;
    let mut named = BTreeMap::new();
    for instant in view.instants() {
        let Some(text) = view.commit_extra_metadata(instant).await?.remove(ENDS_KEY) else { continue };
        if let Some(ends) = Ends::from_json(&text)? {
            named.extend(ends.iter().map(|(time, position)| (time, position.to_owned())));
        }
    }
    Ok(named)
}

#[cfg(test)]
mod tests {
    use super::*;

    const UUID: &str = "3e11fa47-71ca-11e1-9e33-c80aa9429562";

    #[test]
    fn an_end_without_a_name_matters_only_where_the_position_is() {
        let brought = |number: i64| (format!("{UUID}:{number}"), 100 * number);
        // 3 and 6 left nothing but ends
        let window = Window {
            brought: [brought(2), brought(4), brought(5), brought(7)].into(),
            times: [200, 300, 400, 500, 600, 700].into(),
        };
        let last = |number: u64, named: &[(i64, String)]| {
            let asked: AskedPosition = format!("{UUID}:{number}").parse().unwrap();
            window.last(100, &asked, &named.iter().cloned().collect())
        };
        assert_eq!([1, 4].map(|number| last(number, &[])), [Some(100), Some(400)]);
        assert_eq!([7, 9].map(|number| last(number, &[])), [Some(700), Some(700)]);
        assert_eq!([2, 3, 5, 6].map(|number| last(number, &[])), [None; 4]);
        let named = [(300, format!("{UUID}:3")), (600, format!("{UUID}:6"))];
        assert_eq!([2, 3, 5, 6].map(|number| last(number, &named)), [Some(200), Some(300), Some(500), Some(600)]);
        // a position that isn't of the kind says nothing
        assert_eq!(last(2, &[(300, "b.000001:4".into())]), None);
    }
}
