//! Running it: the capture loop, the apply loop, backfill, supervision.

mod after_commit;
mod apply;
mod asked;
mod backfill;
mod capture;
mod deliver;
mod erase;
mod erase_desk;
mod erase_keys;
mod erase_letters;
mod foreign;
mod lookups;
mod maintenance;
mod registrar;
mod requests;
mod row_letters;
mod rules;
mod run;
mod scale;
mod share;
mod status;
mod supervise;
mod table_requests;
mod table_services;
mod turn;

pub use after_commit::{AuditedRuns, audited_runs, stopped_tables};
pub use apply::{Applied, AppliedCommit, Apply, ApplyConfig, Cadence, Contents, LakeWriter, LoopEnd, WrittenItems};
pub use asked::Asked;
pub use backfill::backfill;
pub use capture::{BackfillRequest, Follower, Link, Pace, Snapshots, Until};
pub use deliver::{delivered_checkpoint, delivery_name};
pub use erase::{ERASED_KEY, Erased, STEPS as ERASE_STEPS, note_erased};
pub use erase_desk::EraseDesk;
pub use erase_keys::joined_key;
pub use foreign::{RETRY_FOLDER, retry_lot, waiting_letters};
pub use lookups::read_lookups;
pub use maintenance::{Maintained, MaintainedTable, Maintenance, no_such_commit, note_maintained};
pub use registrar::describe_table;
pub use requests::Requests;
pub use row_letters::{ask_row_retry, row_letters_of};
pub use rules::{
    Outcome as RulesOutcome, Plan as RulesPlan, RulesBeside, RulesBook, misfits_of, origin_of, rules_in_force, unfit, unreadable,
    user,
};
pub use run::{Halves, audited_as, open_stream_to_read, run};
pub use scale::{Capacity, ScaleRequest, Workers, capacity, scale};
pub use status::{CaptureState, CommittedRows, LastCommit, Status, StatusView, TableStage, TableStatus};
pub use table_requests::{Done, RequestProgress, SeenRequest, TableRequest, Work};
pub use table_services::TableServices;
pub use turn::others_at_work;
