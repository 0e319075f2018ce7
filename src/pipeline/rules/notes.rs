//! What is noted beside the revisions: from where on fed tables go by them, and which tables and deliveries have ended at the cut at which they went.

use super::RulesBook;
use crate::error::Result;
use crate::event::{CutPoint, TableId};

/// What a fed table's note says where its stream was read by these rules from its first record on.
const BEGINNING: &str = "the beginning";

fn fed(revision: u64, table: &TableId) -> String {
    format!("fed:{revision}:{table}")
}

fn ended(what: &str) -> String {
    format!("ended:{what}")
}

impl RulesBook {
    /// Writes down from where on a fed table goes by a revision, the first time that its stream is read by it: after a crash it is read from there again.
    pub(in crate::pipeline) async fn note_fed(&self, revision: u64, table: &TableId, position: Option<String>) {
        let noted = async {
            let name = fed(revision, table);
            if self.state().rules_note(self.pipeline(), &name).await?.is_none() {
                let position = position.unwrap_or_else(|| BEGINNING.to_owned());
                self.state().note_rules(self.pipeline(), &name, &position).await?;
                tracing::info!(%table, revision, position, "the fed table goes by these rules from here on");
            }
            Result::<()>::Ok(())
        };
        if let Err(error) = noted.await {
            tracing::warn!(%error, %table, "it can't be written down from where on the table goes by these rules");
        }
    }

    /// From where on the tables that streams of others feed go by a revision, as far as it is written down: a position, or "the beginning".
    ///
    /// # Errors
    /// If the state store can't be read.
    pub async fn fed_since(&self, revision: u64) -> Result<Vec<(TableId, String)>> {
        let mut found = Vec::new();
        // rules that can't be used here any more are in the list all the same
        let Ok(config) = self.config_of(revision) else { return Ok(found) };
        for table in config.fed.iter().map(|fed| &fed.table) {
            if let Some(position) = self.state().rules_note(self.pipeline(), &fed(revision, table)).await? {
                found.push((table.clone(), position));
            }
        }
        Ok(found)
    }

    /// Writes down that a table or a delivery has all up to the cut at which it goes: no start looks for the rest of it again.
    pub(in crate::pipeline) async fn note_ended(&self, what: &str, at: CutPoint) {
        if let Err(error) = self.state().note_rules(self.pipeline(), &ended(what), &at.to_string()).await {
            tracing::warn!(%error, what, "it can't be written down that it has ended; the next start looks again");
        }
    }

    /// Whether it was written down that a table or a delivery has ended at this cut.
    pub(in crate::pipeline) async fn has_ended(&self, what: &str, at: CutPoint) -> Result<bool> {
        let noted = self.state().rules_note(self.pipeline(), &ended(what)).await?;
        Ok(noted.and_then(|noted| noted.parse::<CutPoint>().ok()).is_some_and(|noted| noted >= at))
    }
}
