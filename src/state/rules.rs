//! Revisions of a pipeline's rules: the audit of what was changed while the service ran, and what its workers go by.
//!
//! At most one revision is undecided at a time, the newest. It is decided once: in force from a cut on, or refused.

use crate::event::CutPoint;
use crate::time::Timestamp;

/// How a revision stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RulesStatus {
    /// It was asked for; the next cut may take it up.
    Proposed,
    /// It took effect; it counts until a later one does.
    InForce,
    /// It can't be used.
    Refused,
}

impl RulesStatus {
    /// As it is stored and shown.
    pub fn text(self) -> &'static str {
        match self {
            RulesStatus::Proposed => "Proposed",
            RulesStatus::InForce => "InForce",
            RulesStatus::Refused => "Refused",
        }
    }

    /// Reads what [`RulesStatus::text`] gives; anything else counts as refused.
    pub fn of(text: &str) -> Self {
        match text {
            "Proposed" => RulesStatus::Proposed,
            "InForce" => RulesStatus::InForce,
            _ => RulesStatus::Refused,
        }
    }
}

/// What became of a proposal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RulesDecision {
    /// It counts for rows behind the cut `since`, at which the source had come to `position`; `None`: from the stream's beginning, or the pipeline has no source.
    InForce {
        /// The cut.
        since: Option<CutPoint>,
        /// The source's position, as text.
        position: Option<String>,
    },
    /// It can't be used: one line says why.
    Refused(String),
}

/// One revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RulesRevision {
    /// The pipeline.
    pub pipeline: String,
    /// 1, 2, 3, …
    pub number: u64,
    /// The rules; the store doesn't look into them.
    pub content: String,
    /// Names the content.
    pub hash: String,
    /// Who asked for it.
    pub author: String,
    /// Where it came from: a file, the admin interface, an earlier revision.
    pub origin: String,
    /// What it changes, for people.
    pub difference: String,
    /// When it was asked for.
    pub proposed_at: String,
    /// How it stands.
    pub status: RulesStatus,
    /// When that was decided.
    pub decided_at: Option<String>,
    /// The cut at which it took effect; `None`: it hasn't, or it counts from the beginning.
    pub since: Option<CutPoint>,
    /// The source's position there.
    pub position: Option<String>,
    /// Why it was refused.
    pub reason: Option<String>,
}

impl RulesRevision {
    /// A proposal of now.
    pub fn proposal(pipeline: &str, number: u64, author: &str, origin: &str) -> Self {
        Self {
            pipeline: pipeline.to_owned(),
            number,
            content: String::new(),
            hash: String::new(),
            author: author.to_owned(),
            origin: origin.to_owned(),
            difference: String::new(),
            proposed_at: Timestamp::now().to_string(),
            status: RulesStatus::Proposed,
            decided_at: None,
            since: None,
            position: None,
            reason: None,
        }
    }

    /// The same, decided now.
    #[must_use]
    pub fn decided(mut self, decision: RulesDecision) -> Self {
        self.decided_at = Some(Timestamp::now().to_string());
        match decision {
            RulesDecision::InForce { since, position } => {
                (self.status, self.since, self.position) = (RulesStatus::InForce, since, position);
            }
            RulesDecision::Refused(reason) => (self.status, self.reason) = (RulesStatus::Refused, Some(reason)),
        }
        self
    }
}
