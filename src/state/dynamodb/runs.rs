//! The audit in DynamoDB.

use super::DynamoStore;
use super::item::{Item, number, number_of, text, text_of};
use crate::error::Result;
use crate::event::TableId;
use crate::state::audit::LOST;
use crate::state::{CommitCount, RunLabel, RunRow, RunStatus};
use crate::time::Timestamp;
use aws_sdk_dynamodb::operation::update_item::builders::UpdateItemFluentBuilder;
use aws_sdk_dynamodb::types::AttributeValue;

pub(super) const PIPELINE: &str = "pipeline";
pub(super) const RUN: &str = "run";
pub(super) const EXPIRES_AT: &str = "expiresAt";

/// How long a run's row is kept after its last commit, in seconds.
const KEPT_SECONDS: i64 = 400 * 86_400;

/// How far back runs are looked for whose processes were killed, in seconds.
const LOST_SECONDS: i64 = 30 * 86_400;

/// What all rows of a run begin with; the newest run has the greatest.
fn run_prefix(run: &RunLabel) -> String {
    format!("{}#{}#", run.started_at, run.run_id)
}

impl DynamoStore {
    /// An update of a table's row of a run, with the names and values by which it says whose it is; its expression has them all.
    fn update_of_table(&self, run: &RunLabel, table: &TableId) -> UpdateItemFluentBuilder {
        let expires = Timestamp::now().as_micros() / 1_000_000 + KEPT_SECONDS;
        self.client
            .update_item()
            .table_name(&*self.runs_table)
            .key(PIPELINE, text(&run.pipeline))
            .key(RUN, text(&format!("{}{table}", run_prefix(run))))
            .expression_attribute_names("#status", "status")
            .expression_attribute_names("#error", "error")
            .expression_attribute_values(":run", text(&run.run_id))
            .expression_attribute_values(":table", text(&table.to_string()))
            .expression_attribute_values(":command", text(&run.command))
            .expression_attribute_values(":started", text(&run.started_at.to_string()))
            .expression_attribute_values(":expires", AttributeValue::N(expires.to_string()))
    }

    pub(in crate::state) async fn count_commit(&self, run: &RunLabel, table: &TableId, commit: &CommitCount) -> Result<()> {
        let update = self
            .update_of_table(run, table)
            .update_expression(
                "SET runId = :run, tableName = :table, command = :command, startedAt = :started, #status = :status, \
                 #position = :position, sourceCommitTime = :time, instant = :instant, expiresAt = :expires \
                 REMOVE endedAt, #error \
                 ADD rowsInserted :inserted, rowsUpdated :updated, rowsDeleted :deleted, commits :one",
            )
            // an attempt whose answer was lost isn't counted twice
            .condition_expression("attribute_not_exists(instant) OR instant <> :instant")
            .expression_attribute_names("#position", "position")
            .expression_attribute_values(":status", text(RunStatus::Running.text()))
            .expression_attribute_values(":position", text(&commit.position))
            .expression_attribute_values(":time", text(&commit.source_commit_time.to_string()))
            .expression_attribute_values(":instant", text(&commit.instant))
            .expression_attribute_values(":inserted", number(commit.inserted))
            .expression_attribute_values(":updated", number(commit.updated))
            .expression_attribute_values(":deleted", number(commit.deleted))
            .expression_attribute_values(":one", number(1));
        self.happened("a commit can't be counted", update.send().await).map(|_| ())
    }

    pub(in crate::state) async fn fail_table(&self, run: &RunLabel, table: &TableId, error: &str) -> Result<()> {
        let update = self
            .update_of_table(run, table)
            .update_expression(
                "SET runId = :run, tableName = :table, command = :command, startedAt = :started, #status = :status, endedAt = :ended, \
                 #error = :error, expiresAt = :expires",
            )
            .expression_attribute_values(":status", text(RunStatus::Failed.text()))
            .expression_attribute_values(":ended", text(&Timestamp::now().to_string()))
            .expression_attribute_values(":error", text(error));
        update.send().await.map(|_| ()).map_err(|error| self.failed("a stopped table can't be noted", &error))
    }

    pub(in crate::state) async fn end_run(&self, run: &RunLabel, status: RunStatus, error: Option<&str>) -> Result<()> {
        let rows = self
            .client
            .query()
            .table_name(&*self.runs_table)
            .consistent_read(true)
            .key_condition_expression("pipeline = :pipeline AND begins_with(#run, :prefix)")
            .expression_attribute_names("#run", RUN)
            .expression_attribute_values(":pipeline", text(&run.pipeline))
            .expression_attribute_values(":prefix", text(&run_prefix(run)));
        let rows = rows.into_paginator().items().send().collect::<std::result::Result<Vec<_>, _>>().await;
        for row in rows.map_err(|error| self.failed("the audit can't be read", &error))? {
            self.end_row(&run.pipeline, &row, status, error).await?;
        }
        Ok(())
    }

    pub(in crate::state) async fn begin_run(&self, run: &RunLabel) -> Result<()> {
        let expires = Timestamp::now().as_micros() / 1_000_000 + KEPT_SECONDS;
        let put = self
            .client
            .put_item()
            .table_name(&*self.runs_table)
            .item(PIPELINE, text(&run.pipeline))
            .item(RUN, text(&run_prefix(run)))
            .item("runId", text(&run.run_id))
            .item("tableName", text(""))
            .item("command", text(&run.command))
            .item("startedAt", text(&run.started_at.to_string()))
            .item("status", text(RunStatus::Running.text()))
            .item(EXPIRES_AT, AttributeValue::N(expires.to_string()));
        put.send().await.map(|_| ()).map_err(|error| self.failed("a run can't be noted", &error))
    }

    pub(in crate::state) async fn end_lost_runs(&self, pipeline: &str) -> Result<()> {
        let since = Timestamp::from_micros(Timestamp::now().as_micros() - LOST_SECONDS * 1_000_000);
        let rows = self
            .client
            .query()
            .table_name(&*self.runs_table)
            .consistent_read(true)
            .key_condition_expression("pipeline = :pipeline AND #run > :since")
            .filter_expression("#status = :running")
            .expression_attribute_names("#run", RUN)
            .expression_attribute_names("#status", "status")
            .expression_attribute_values(":pipeline", text(pipeline))
            .expression_attribute_values(":since", text(&since.to_string()))
            .expression_attribute_values(":running", text(RunStatus::Running.text()));
        let rows = rows.into_paginator().items().send().collect::<std::result::Result<Vec<_>, _>>().await;
        for row in rows.map_err(|error| self.failed("the audit can't be read", &error))? {
            self.end_row(pipeline, &row, RunStatus::Failed, Some(LOST)).await?;
        }
        Ok(())
    }

    /// Ends a row that still counts as running.
    async fn end_row(&self, pipeline: &str, row: &Item, status: RunStatus, error: Option<&str>) -> Result<()> {
        let Some(key) = text_of(row, RUN) else { return Ok(()) };
        let mut update = self
            .client
            .update_item()
            .table_name(&*self.runs_table)
            .key(PIPELINE, text(pipeline))
            .key(RUN, text(&key))
            .condition_expression("#status = :running")
            .expression_attribute_names("#status", "status")
            .expression_attribute_values(":running", text(RunStatus::Running.text()))
            .expression_attribute_values(":status", text(status.text()))
            .expression_attribute_values(":ended", text(&Timestamp::now().to_string()));
        update = match error {
            Some(error) => update
                .update_expression("SET #status = :status, endedAt = :ended, #error = :error")
                .expression_attribute_names("#error", "error")
                .expression_attribute_values(":error", text(error)),
            None => update.update_expression("SET #status = :status, endedAt = :ended"),
        };
        self.happened("a run can't be ended in the audit", update.send().await).map(|_| ())
    }

    pub(in crate::state) async fn runs(&self, pipeline: &str, most: usize) -> Result<Vec<RunRow>> {
        let mut rows = Vec::new();
        let mut from = None;
        while rows.len() < most {
            let page = self
                .client
                .query()
                .table_name(&*self.runs_table)
                .consistent_read(true)
                .key_condition_expression("pipeline = :pipeline")
                .expression_attribute_values(":pipeline", text(pipeline))
                .scan_index_forward(false)
                .limit(i32::try_from(most - rows.len()).unwrap_or(i32::MAX))
                .set_exclusive_start_key(from)
                .send()
                .await
                .map_err(|error| self.failed("the audit can't be read", &error))?;
            rows.extend(page.items().iter().map(run_row));
            from = page.last_evaluated_key;
            if from.is_none() {
                break;
            }
        }
        Ok(rows)
    }
}

fn run_row(item: &Item) -> RunRow {
    let string = |name: &str| text_of(item, name).unwrap_or_default();
    let count = |name: &str| number_of(item, name).unwrap_or(0);
    RunRow {
        run_id: string("runId"),
        pipeline: string(PIPELINE),
        table: string("tableName"),
        command: string("command"),
        started_at: string("startedAt"),
        ended_at: text_of(item, "endedAt"),
        status: string("status"),
        rows_inserted: count("rowsInserted"),
        rows_updated: count("rowsUpdated"),
        rows_deleted: count("rowsDeleted"),
        commits: count("commits"),
        position: text_of(item, "position"),
        error: text_of(item, "error"),
    }
}
