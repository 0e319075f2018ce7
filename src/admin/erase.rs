//! `POST /erase`: keys go from a table, as by `binlake erase`. It must come as JSON, which no foreign page can make a browser send.

use super::server::Admin;
use crate::error::Kind;
use crate::event::TableId;
use crate::pipeline::joined_key;
use axum::Json;
use axum::extract::rejection::JsonRejection;
use axum::extract::{ConnectInfo, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use std::net::SocketAddr;

/// What it takes.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EraseBody {
    /// The table, as `database.table`.
    table: String,
    /// Its keys: for each the values of the key's columns, joined by commas, or as a list.
    keys: Vec<Key>,
}

/// A key.
#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "a key is text, a number, or a list of these for the key's columns")]
enum Key {
    One(KeyValue),
    Columns(Vec<KeyValue>),
}

/// A value of a key's column.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum KeyValue {
    Flag(bool),
    Number(serde_json::Number),
    Text(String),
}

impl KeyValue {
    fn text(self) -> String {
        match self {
            KeyValue::Flag(flag) => flag.to_string(),
            KeyValue::Number(number) => number.to_string(),
            KeyValue::Text(text) => text,
        }
    }
}

/// Asks the service that has the table.
pub(super) async fn erase(
    State(admin): State<Admin>,
    ConnectInfo(from): ConnectInfo<SocketAddr>,
    body: Result<Json<EraseBody>, JsonRejection>,
) -> Response {
    let no = |status: StatusCode, said: String| (status, format!("{said}\n")).into_response();
    let Json(body) = match body {
        Ok(body) => body,
        Err(wrong) => {
            let said = format!("send JSON such as {{\"table\": \"shop.customers\", \"keys\": [4711]}}: {}", wrong.body_text());
            return no(wrong.status(), said.lines().next().unwrap_or_default().to_owned());
        }
    };
    let table = match body.table.parse::<TableId>() {
        Ok(table) => table,
        Err(error) => return no(StatusCode::BAD_REQUEST, error),
    };
    let Some(desk) = admin.status.erases() else {
        return no(StatusCode::SERVICE_UNAVAILABLE, "the service starts, and can't take it yet".into());
    };
    match desk.has(&table) {
        Ok(true) => {}
        Ok(false) => {
            let said = format!(
                "{table} isn't among this pipeline's tables; `binlake erase {table} …` does it where no service has the table"
            );
            return no(StatusCode::NOT_FOUND, said);
        }
        Err(error) => return no(StatusCode::SERVICE_UNAVAILABLE, error.to_string()),
    }
    let key = |key: Key| match key {
        Key::One(value) => value.text(),
        Key::Columns(values) => joined_key(&values.into_iter().map(KeyValue::text).collect::<Vec<_>>()),
    };
    let keys: Vec<String> = body.keys.into_iter().map(key).collect();
    match desk.ask(&table, &keys).await {
        Ok(()) => {
            tracing::info!(%table, keys = keys.len(), %from, "an erasure is asked for");
            no(StatusCode::ACCEPTED, "the keys are erased; /status shows how far it is".into())
        }
        Err(error) => {
            let status = match error.kind() {
                Kind::Config | Kind::Data => StatusCode::UNPROCESSABLE_ENTITY,
                Kind::Refused | Kind::Conflict => StatusCode::CONFLICT,
                _ => StatusCode::SERVICE_UNAVAILABLE,
            };
            no(status, error.to_string())
        }
    }
}
