//! What services are asked to do to tables, as `/status` has it.

use crate::pipeline::{Done, Maintained, Maintenance, RequestProgress, SeenRequest, Work};
use serde_json::{Value, json};

/// What is asked for: erasures, and the rest.
pub(super) fn shown(asked: &[SeenRequest]) -> (Vec<Value>, Vec<Value>) {
    let (erasures, others): (Vec<_>, Vec<_>) = asked.iter().partition(|seen| matches!(seen.work, Work::Erase { .. }));
    (erasures.into_iter().map(one).collect(), others.into_iter().map(one).collect())
}

fn one(seen: &SeenRequest) -> Value {
    let mut shown = json!({"table": seen.table.to_string(), "asked_at": seen.asked_at.to_string()});
    let what = match &seen.work {
        Work::Erase { key_count, .. } => json!({"keys": key_count}),
        Work::Maintain { maintenance } => work(maintenance),
    };
    let more = match &seen.progress {
        RequestProgress::Waiting => json!({"state": "waiting"}),
        RequestProgress::Taken { by, steps, waits } => {
            json!({"state": "running", "by": by, "steps": steps, "of": seen.work.steps(), "waits": waits})
        }
        RequestProgress::Failed { reason, .. } => json!({"state": "failed", "reason": reason}),
        RequestProgress::Done { done: Done::Erased(erased) } => json!({
            "state": "done", "rows": erased.rows, "versions": erased.versions, "elements": erased.elements, "letters": erased.letters,
            "files": erased.files,
        }),
        RequestProgress::Done { done: Done::Maintained(Maintained { tables, .. }) } => json!({
            "state": "done", "tables": tables.iter().map(|one| json!({
                "table": one.table.to_string(), "instant": one.instant, "undone": one.undone, "files_before": one.files_before,
                "files": one.files,
            })).collect::<Vec<_>>(),
        }),
    };
    for part in [what, more] {
        if let (Value::Object(shown), Value::Object(part)) = (&mut shown, part) {
            shown.extend(part);
        }
    }
    shown
}

fn work(maintenance: &Maintenance) -> Value {
    match maintenance {
        Maintenance::GoBack { to, skips_changes, .. } => json!({"work": "restore", "to": to, "skips_changes": skips_changes}),
        Maintenance::Cluster => json!({"work": "cluster"}),
        Maintenance::Keep { instant } => json!({"work": "savepoint", "to": instant}),
        Maintenance::KeepNoLonger { instant } => json!({"work": "savepoint", "to": instant, "delete": true}),
    }
}
