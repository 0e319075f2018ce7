//! An event of the stream as JSON lines. The names of the fields are part of the contract.

use crate::event::{ChangeBatch, Cut, Lane, Section, TableId, TableState, TransactionStamp};
use crate::stream::LaneEvent;
use serde_json::{Map, Value, json};

/// The lines of `event`; with `only`, those about these tables alone.
pub(super) fn lines(event: &LaneEvent, only: &[TableId]) -> Vec<String> {
    let is_wanted = |table: &TableId| only.is_empty() || only.contains(table);
    match event {
        LaneEvent::Sections { epoch, window, lane, index, sections } => {
            let place = json!({ "lane": lane, "epoch": epoch, "index": index, "window": window });
            let Value::Object(place) = place else { return Vec::new() };
            sections
                .iter()
                .flat_map(|section| match section {
                    Section::Rows(rows) if is_wanted(&rows.schema.table) => row_lines(rows, &place),
                    // what is put on every lane is told once
                    Section::Truncate { table, stamp } if is_wanted(table) && *lane == Lane(0) => {
                        vec![line("t", table, stamp, &place, Map::new())]
                    }
                    Section::NewShape { schema, stamp, .. } if is_wanted(&schema.table) && *lane == Lane(0) => {
                        let more = [("columns".to_owned(), json!(schema.columns)), ("key".to_owned(), json!(schema.key))];
                        vec![line("shape", &schema.table, stamp, &place, Map::from_iter(more))]
                    }
                    _ => Vec::new(),
                })
                .collect()
        }
        LaneEvent::CutReached(reached) if only.is_empty() => {
            vec![cut_line(&reached.cut, json!(reached.point.epoch), &reached.position.0)]
        }
        LaneEvent::Void { epoch, after_cut } if only.is_empty() => {
            vec![json!({ "op": "void", "epoch": epoch, "after_cut": after_cut }).to_string()]
        }
        LaneEvent::CutReached(_) | LaneEvent::Void { .. } => Vec::new(),
    }
}

fn row_lines(rows: &ChangeBatch, place: &Map<String, Value>) -> Vec<String> {
    let transactions = &rows.transactions;
    (0..rows.len())
        .filter_map(|row| {
            let stamp = transactions.get(rows.stamps.value(row) as usize)?;
            let operation = char::from(rows.operations.value(row)).to_string();
            let mut more = Map::new();
            if let Some(changed) = rows.changed_columns(row) {
                more.insert("changed".into(), json!(changed));
            }
            more.insert("row".into(), Value::Object(rows.row_json(row)));
            Some(line(&operation, &rows.schema.table, stamp, place, more))
        })
        .collect()
}

fn line(
    operation: &str,
    table: &TableId,
    stamp: &TransactionStamp,
    place: &Map<String, Value>,
    more: Map<String, Value>,
) -> String {
    let mut fields = Map::new();
    fields.insert("op".into(), operation.into());
    fields.insert("table".into(), json!(table));
    fields.extend(place.clone());
    fields.insert("position".into(), stamp.position_text().into());
    fields.insert("commit_time".into(), stamp.source_commit_time.to_string().into());
    fields.extend(more);
    Value::Object(fields).to_string()
}

fn cut_line(cut: &Cut, epoch: Value, log_position: &str) -> String {
    let position = match &cut.position.gtid_set {
        Some(set) => json!(set),
        None => cut.position.coordinates.to_string().into(),
    };
    let state = |state: &TableState| match state {
        TableState::Live => "live",
        TableState::Snapshot(_) => "snapshot",
        TableState::Stopped { .. } => "stopped",
    };
    let tables: Map<String, Value> = cut.tables.iter().map(|(table, its)| (table.to_string(), state(its).into())).collect();
    json!({
        "op": "cut",
        "cut": cut.number,
        "epoch": epoch,
        "position": position,
        "coordinates": cut.position.coordinates.to_string(),
        "commit_time": cut.source_commit_time.to_string(),
        "complete_until": cut.complete_until.map(|until| until.to_string()),
        "log_position": log_position,
        "tables": tables,
    })
    .to_string()
}
