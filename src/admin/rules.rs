//! `/rules`: the rules of the running service, shown and changed.
//!
//! `GET /rules` the revisions · `POST /rules[?dry_run=true]` proposes the rules in the body · `POST /rules/rollback` an earlier revision. Bodies come as TOML and
//! JSON, which no foreign page can make a browser send.

use super::server::Admin;
use crate::error::{Error, Kind};
use crate::event::TableId;
use crate::pipeline::{RulesBook, RulesPlan};
use crate::state::RulesRevision;
use axum::Json;
use axum::extract::{ConnectInfo, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::net::SocketAddr;

/// What a proposal's URL may say.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Asked {
    /// Only says what would change.
    dry_run: bool,
}

/// What `POST /rules/rollback` takes.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Rollback {
    /// Which; the one before, where it isn't said.
    revision: Option<u64>,
}

fn said(status: StatusCode, text: impl std::fmt::Display) -> Response {
    (status, format!("{text}\n")).into_response()
}

fn refused(error: &Error) -> Response {
    let status = match error.kind() {
        Kind::Config | Kind::Data => StatusCode::UNPROCESSABLE_ENTITY,
        Kind::Conflict => StatusCode::CONFLICT,
        _ => StatusCode::SERVICE_UNAVAILABLE,
    };
    said(status, error)
}

#[expect(clippy::result_large_err, reason = "an answer, made once a request")]
fn book(admin: &Admin) -> Result<RulesBook, Response> {
    admin.status.rules().ok_or_else(|| said(StatusCode::SERVICE_UNAVAILABLE, "the service starts, and doesn't know its rules yet"))
}

/// The revisions.
pub(super) async fn shown(State(admin): State<Admin>) -> Response {
    let book = match book(&admin) {
        Ok(book) => book,
        Err(answer) => return answer,
    };
    if let Err(error) = book.refresh().await {
        return refused(&error);
    }
    let mut revisions = Vec::new();
    for of in book.revisions().iter().rev() {
        match book.fed_since(of.number).await {
            Ok(fed) => revisions.push(revision(of, fed)),
            Err(error) => return refused(&error),
        }
    }
    Json(json!({"in_force": book.newest(), "revisions": revisions})).into_response()
}

fn revision(of: &RulesRevision, fed: Vec<(TableId, String)>) -> Value {
    let fed: Map<String, Value> = fed.into_iter().map(|(table, position)| (table.to_string(), position.into())).collect();
    let content: Value = serde_json::from_str(&of.content).unwrap_or_default();
    json!({
        "revision": of.number, "status": of.status.text(), "cut": of.since.map(|cut| cut.to_string()), "position": of.position,
        "author": of.author, "origin": of.origin, "proposed_at": of.proposed_at, "decided_at": of.decided_at, "reason": of.reason,
        "fed_since": fed, "difference": of.difference, "toml": content["toml"],
    })
}

/// Proposes the rules in the body: the sections alone, or a whole configuration.
pub(super) async fn propose(
    State(admin): State<Admin>,
    ConnectInfo(from): ConnectInfo<SocketAddr>,
    Query(asked): Query<Asked>,
    headers: HeaderMap,
    body: String,
) -> Response {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    if kind.split(';').next() != Some("application/toml") {
        return said(StatusCode::UNSUPPORTED_MEDIA_TYPE, "send the rules as TOML: content-type: application/toml");
    }
    let book = match book(&admin) {
        Ok(book) => book,
        Err(answer) => return answer,
    };
    match book.plan_of_text(&body).await {
        Ok(plan) => answered(&book, &plan, asked.dry_run, from).await,
        Err(error) => refused(&error),
    }
}

/// Proposes an earlier revision again.
pub(super) async fn rollback(
    State(admin): State<Admin>,
    ConnectInfo(from): ConnectInfo<SocketAddr>,
    Query(asked): Query<Asked>,
    Json(body): Json<Rollback>,
) -> Response {
    let book = match book(&admin) {
        Ok(book) => book,
        Err(answer) => return answer,
    };
    match book.plan_of_revision(body.revision).await {
        Ok(plan) => answered(&book, &plan, asked.dry_run, from).await,
        Err(error) => refused(&error),
    }
}

async fn answered(book: &RulesBook, plan: &RulesPlan, is_dry: bool, from: SocketAddr) -> Response {
    let difference = plan.shown();
    if plan.is_empty() || is_dry {
        return Json(json!({"in_force": plan.against, "difference": difference})).into_response();
    }
    tracing::info!(%from, "other rules are asked for");
    match book.propose(plan, &format!("admin {}", from.ip()), "the admin interface").await {
        Ok(number) => (StatusCode::ACCEPTED, Json(json!({"revision": number, "difference": difference}))).into_response(),
        Err(error) => refused(&error),
    }
}
