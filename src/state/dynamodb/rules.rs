//! Revisions of rules in DynamoDB: in the audit's table, beside the runs, under a partition of their own.
//!
//! A revision is two items: `content#…` has what is large, and is there first; `revision#…` has the rest, and says that there is one. So
//! the look at the newest, which each process takes about every second, reads little.

use super::DynamoStore;
use super::item::{Item, number, number_of, text, text_of};
use super::runs::{PIPELINE, RUN};
use crate::error::Result;
use crate::state::{RulesRevision, RulesStatus};
use aws_sdk_dynamodb::types::AttributeValue;
use std::collections::HashMap;

const NUMBER: &str = "number";
const STATUS: &str = "status";

/// The partition of a pipeline's rules.
fn partition(pipeline: &str) -> AttributeValue {
    text(&format!("{pipeline}#rules"))
}

fn revision_key(number: u64) -> String {
    format!("revision#{number:010}")
}

/// Two proposals of one number don't share their contents.
fn content_key(revision: &RulesRevision) -> String {
    format!("content#{:010}#{}", revision.number, revision.hash)
}

impl DynamoStore {
    pub(in crate::state) async fn newest_rules(&self, pipeline: &str) -> Result<Option<(u64, RulesStatus)>> {
        let newest = self
            .client
            .query()
            .table_name(&*self.runs_table)
            .key_condition_expression("pipeline = :pipeline AND begins_with(#run, :prefix)")
            .expression_attribute_names("#run", RUN)
            .expression_attribute_values(":pipeline", partition(pipeline))
            .expression_attribute_values(":prefix", text("revision#"))
            .scan_index_forward(false)
            .limit(1)
            .send()
            .await
            .map_err(|error| self.failed("the rules can't be read", &error))?;
        let of = |item: &Item| Some((number_of(item, NUMBER)?, RulesStatus::of(&text_of(item, STATUS)?)));
        Ok(newest.items().first().and_then(of))
    }

    pub(in crate::state) async fn rules(&self, pipeline: &str) -> Result<Vec<RulesRevision>> {
        let all = self
            .client
            .query()
            .table_name(&*self.runs_table)
            .consistent_read(true)
            .key_condition_expression("pipeline = :pipeline")
            .expression_attribute_values(":pipeline", partition(pipeline));
        let all = all.into_paginator().items().send().collect::<std::result::Result<Vec<_>, _>>().await;
        let all = all.map_err(|error| self.failed("the rules can't be read", &error))?;
        let (contents, rest): (Vec<Item>, Vec<Item>) =
            all.into_iter().partition(|item| text_of(item, RUN).is_some_and(|key| key.starts_with("content#")));
        let contents: HashMap<String, Item> = contents.into_iter().filter_map(|item| Some((text_of(&item, RUN)?, item))).collect();
        let revisions = rest.iter().filter(|item| text_of(item, RUN).is_some_and(|key| key.starts_with("revision#")));
        Ok(revisions.map(|item| revision(pipeline, item, &contents)).collect())
    }

    pub(in crate::state) async fn add_rules(&self, new: &RulesRevision) -> Result<bool> {
        let content = self
            .client
            .put_item()
            .table_name(&*self.runs_table)
            .item(PIPELINE, partition(&new.pipeline))
            .item(RUN, text(&content_key(new)))
            .item("content", text(&new.content))
            .item("difference", text(&new.difference));
        content.send().await.map_err(|error| self.failed("the rules can't be written", &error))?;
        let mut put = self
            .client
            .put_item()
            .table_name(&*self.runs_table)
            .item(PIPELINE, partition(&new.pipeline))
            .item(RUN, text(&revision_key(new.number)))
            .condition_expression("attribute_not_exists(#run) OR (#hash = :hash AND proposedAt = :at AND author = :author)")
            .expression_attribute_names("#run", RUN)
            .expression_attribute_names("#hash", "hash")
            // an attempt whose answer was lost isn't another's
            .expression_attribute_values(":hash", text(&new.hash))
            .expression_attribute_values(":at", text(&new.proposed_at))
            .expression_attribute_values(":author", text(&new.author));
        for (name, value) in attributes(new) {
            put = put.item(name, value);
        }
        self.happened("the rules can't be written", put.send().await)
    }

    pub(in crate::state) async fn decide_rules(&self, decided: &RulesRevision) -> Result<bool> {
        let mut update = self
            .client
            .update_item()
            .table_name(&*self.runs_table)
            .key(PIPELINE, partition(&decided.pipeline))
            .key(RUN, text(&revision_key(decided.number)))
            .condition_expression("#status = :proposed")
            .expression_attribute_names("#status", STATUS)
            .expression_attribute_values(":proposed", text(RulesStatus::Proposed.text()));
        let mut sets = Vec::new();
        for (i, (name, value)) in attributes(decided).into_iter().filter(|(name, _)| DECIDED.contains(name)).enumerate() {
            let shown = if name == STATUS { "#status".to_owned() } else { format!("#a{i}") };
            if name != STATUS {
                update = update.expression_attribute_names(&shown, name);
            }
            sets.push(format!("{shown} = :v{i}"));
            update = update.expression_attribute_values(format!(":v{i}"), value);
        }
        let update = update.update_expression(format!("SET {}", sets.join(", ")));
        self.happened("the rules can't be written", update.send().await)
    }

    pub(in crate::state) async fn rules_note(&self, pipeline: &str, name: &str) -> Result<Option<String>> {
        let read = self
            .client
            .get_item()
            .table_name(&*self.runs_table)
            .key(PIPELINE, partition(pipeline))
            .key(RUN, text(&format!("note#{name}")))
            .consistent_read(true);
        let read = read.send().await.map_err(|error| self.failed("the rules can't be read", &error))?;
        Ok(read.item.as_ref().and_then(|item| text_of(item, "value")))
    }

    pub(in crate::state) async fn note_rules(&self, pipeline: &str, name: &str, value: &str) -> Result<()> {
        let put = self
            .client
            .put_item()
            .table_name(&*self.runs_table)
            .item(PIPELINE, partition(pipeline))
            .item(RUN, text(&format!("note#{name}")))
            .item("value", text(value));
        put.send().await.map(|_| ()).map_err(|error| self.failed("the rules can't be written", &error))
    }
}

/// What a decision changes.
const DECIDED: [&str; 5] = [STATUS, "decidedAt", "cut", "position", "reason"];

fn attributes(revision: &RulesRevision) -> Vec<(&'static str, AttributeValue)> {
    let mut all = vec![
        (NUMBER, number(revision.number)),
        ("hash", text(&revision.hash)),
        ("author", text(&revision.author)),
        ("origin", text(&revision.origin)),
        ("proposedAt", text(&revision.proposed_at)),
        (STATUS, text(revision.status.text())),
    ];
    let optional = [
        ("decidedAt", revision.decided_at.clone()),
        ("cut", revision.since.map(|cut| cut.to_string())),
        ("position", revision.position.clone()),
        ("reason", revision.reason.clone()),
    ];
    all.extend(optional.into_iter().filter_map(|(name, value)| Some((name, text(&value?)))));
    all
}

fn revision(pipeline: &str, item: &Item, contents: &HashMap<String, Item>) -> RulesRevision {
    let string = |name: &str| text_of(item, name).unwrap_or_default();
    let mut found = RulesRevision {
        pipeline: pipeline.to_owned(),
        number: number_of(item, NUMBER).unwrap_or(0),
        content: String::new(),
        hash: string("hash"),
        author: string("author"),
        origin: string("origin"),
        difference: String::new(),
        proposed_at: string("proposedAt"),
        status: RulesStatus::of(&string(STATUS)),
        decided_at: text_of(item, "decidedAt"),
        since: text_of(item, "cut").and_then(|cut| cut.parse().ok()),
        position: text_of(item, "position"),
        reason: text_of(item, "reason"),
    };
    if let Some(content) = contents.get(&content_key(&found)) {
        found.content = text_of(content, "content").unwrap_or_default();
        found.difference = text_of(content, "difference").unwrap_or_default();
    }
    found
}
