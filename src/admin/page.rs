//! The status for people (HTML, refreshed by the browser) and for programs (JSON).

use super::readiness::Readiness;
use crate::pipeline::{StatusView, TableStage, TableStatus};
use crate::time::Timestamp;
use serde_json::{Value, json};
use std::fmt::Write;

const STYLE: &str = "\
body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:72rem;padding:0 1rem;color:#1c2733;background:#fbfcfd}\
h1{font-size:1.3rem}h1 small{font-weight:400;color:#667}.ok{color:#0a7a3d}.no{color:#b3261e}\
dl{display:flex;flex-wrap:wrap;gap:.5rem 2.5rem}dt{color:#667;font-size:.85rem}dd{margin:0;font-variant-numeric:tabular-nums;overflow-wrap:anywhere}\
table{border-collapse:collapse;width:100%}th,td{text-align:left;padding:.35rem .8rem .35rem 0;border-bottom:1px solid #dde3e9}\
td.n,th.n{text-align:right;font-variant-numeric:tabular-nums}th{color:#667;font-weight:500}\
@media(prefers-color-scheme:dark){body{background:#12171c;color:#dde5ec}th,td{border-color:#2b343d}.ok{color:#4cc38a}.no{color:#ff8b82}}";

/// The page.
pub(super) fn html(view: &StatusView, readiness: &Readiness, now: Timestamp) -> String {
    let (class, state) = match readiness {
        Readiness::Ready => ("ok", "ready".to_owned()),
        Readiness::NotReady(reason) => ("no", reason.clone()),
    };
    let mut page = format!(
        "<!doctype html><html lang=en><meta charset=utf-8><meta http-equiv=refresh content=2><meta name=viewport content=\"width=device-width\">\
         <title>Binlake</title><style>{STYLE}</style><h1>Binlake <small>{version}</small> <span class={class}>{state}</span></h1><dl>",
        version = env!("CARGO_PKG_VERSION"),
        state = escaped(&state),
    );
    let lag = view.source_commit_time.map_or("—".to_owned(), |time| seconds(now, time));
    let facts = [
        ("behind the source", lag),
        ("rows captured", grouped(view.captured_rows)),
        ("up since", view.started.to_string()),
        ("position", view.position.clone().unwrap_or_else(|| "—".into())),
    ];
    for (name, value) in facts {
        // writing to a String doesn't fail
        let _ = write!(page, "<div><dt>{name}</dt><dd>{}</dd></div>", escaped(&value));
    }
    page.push_str(
        "</dl><table><tr><th>table<th>state<th class=n>inserted<th class=n>updated<th class=n>deleted<th class=n>commits\
         <th>last commit<th class=n>took<th class=n>age",
    );
    for (table, status) in &view.tables {
        let _ = write!(page, "<tr><td>{}<td>{}", escaped(&table.to_string()), stage_html(&status.stage));
        for number in [status.inserted, status.updated, status.deleted, status.commits] {
            let _ = write!(page, "<td class=n>{}", grouped(number));
        }
        match &status.last_commit {
            Some(commit) => {
                let _ = write!(
                    page,
                    "<td>{}<td class=n>{} ms<td class=n>{}",
                    escaped(&commit.instant),
                    commit.took.as_millis(),
                    seconds(now, commit.visible_at)
                );
            }
            None => page.push_str("<td>—<td class=n>—<td class=n>—"),
        }
    }
    if !view.lookups.is_empty() {
        page.push_str(
            "</table><table><tr><th>lookup<th>at<th class=n>items<th class=n>hits<th class=n>misses<th class=n>age<th>error",
        );
    }
    for lookup in &view.lookups {
        let items = lookup.items.map_or("—".to_owned(), |items| grouped(items as u64));
        let age = lookup.read_at.map_or("—".to_owned(), |time| seconds(now, time));
        let _ = write!(
            page,
            "<tr><td>{}<td>{}<td class=n>{items}<td class=n>{}<td class=n>{}<td class=n>{age}<td class=no>{}",
            escaped(&lookup.name),
            escaped(&lookup.url),
            grouped(lookup.hits),
            grouped(lookup.misses),
            escaped(lookup.failure.as_deref().unwrap_or_default())
        );
    }
    page.push_str(
        "</table><p><a href=/status>/status</a> · <a href=/metrics>/metrics</a> · <a href=/readyz>/readyz</a></p></html>\n",
    );
    page
}

/// The same for programs.
pub(super) fn json(view: &StatusView, readiness: &Readiness, now: Timestamp) -> Value {
    let reason = match readiness {
        Readiness::Ready => None,
        Readiness::NotReady(reason) => Some(reason),
    };
    let tables: serde_json::Map<String, Value> =
        view.tables.iter().map(|(table, status)| (table.to_string(), table_json(status))).collect();
    let (erasures, maintenance) = super::asked::shown(&view.asked);
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "ready": reason.is_none(),
        "reason": reason,
        "started": view.started.to_string(),
        "position": view.position,
        "source_commit_time": view.source_commit_time.map(|time| time.to_string()),
        "lag_seconds": view.source_commit_time.map(|time| now.since(time).as_secs_f64()),
        "captured_rows": view.captured_rows,
        "tables": tables,
        "lookups": view.lookups.iter().map(|lookup| json!({
            "name": lookup.name,
            "url": lookup.url,
            "items": lookup.items,
            "hits": lookup.hits,
            "misses": lookup.misses,
            "age_seconds": lookup.read_at.map(|time| now.since(time).as_secs_f64()),
            "failure": lookup.failure,
        })).collect::<Vec<_>>(),
        "erasures": erasures,
        "maintenance": maintenance,
    })
}

fn table_json(status: &TableStatus) -> Value {
    let (state, reason, rows_read) = match &status.stage {
        TableStage::Live => ("live", None, None),
        TableStage::Snapshot { rows_read } => ("snapshot", None, Some(rows_read)),
        TableStage::Stopped { reason } => ("stopped", Some(reason), None),
    };
    json!({
        "state": state,
        "reason": reason,
        "snapshot_rows_read": rows_read,
        "inserted": status.inserted,
        "updated": status.updated,
        "deleted": status.deleted,
        "commits": status.commits,
        "last_commit": status.last_commit.as_ref().map(|commit| json!({
            "instant": commit.instant,
            "visible_at": commit.visible_at.to_string(),
            "source_commit_time": commit.source_commit_time.to_string(),
            "position": commit.position,
            "took_seconds": commit.took.as_secs_f64(),
        })),
    })
}

fn stage_html(stage: &TableStage) -> String {
    match stage {
        TableStage::Live => "<span class=ok>live</span>".into(),
        TableStage::Snapshot { rows_read } => format!("snapshot, {} rows", grouped(*rows_read)),
        TableStage::Stopped { reason } => format!("<span class=no>stopped</span>: {}", escaped(reason)),
    }
}

fn seconds(now: Timestamp, then: Timestamp) -> String {
    format!("{:.1} s", now.since(then).as_secs_f64())
}

/// `1234567` → `1,234,567`.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::{CommittedRows, LastCommit, Status};
    use std::time::Duration;

    #[test]
    fn names_are_escaped_and_numbers_grouped() {
        let status = Status::new();
        let table = "shop.<b>".parse().unwrap();
        let commit = LastCommit {
            instant: "20261121141230755".into(),
            visible_at: Timestamp::from_micros(3_000_000),
            source_commit_time: Timestamp::from_micros(1_000_000),
            position: "binlog.000001:4".into(),
            took: Duration::from_millis(20),
        };
        status.committed(&table, CommittedRows { inserted: 1_234_567, ..Default::default() }, commit);
        let now = Timestamp::from_micros(4_000_000);
        let page = html(&status.view(), &Readiness::NotReady("a < b".into()), now);
        assert!(page.contains("shop.&lt;b&gt;") && page.contains("1,234,567") && page.contains("a &lt; b"), "{page}");
        let json = json(&status.view(), &Readiness::Ready, now);
        assert_eq!(json["tables"]["shop.<b>"]["last_commit"]["instant"], "20261121141230755");
        assert_eq!(grouped(7), "7");
        assert_eq!(grouped(1000), "1,000");
    }
}
