//! The HTTP server.

use super::AdminConfig;
use super::erase;
use super::page;
use super::prometheus::MetricsPage;
use super::readiness::{Readiness, readiness};
use super::rules;
use crate::error::{Error, Result};
use crate::event::TableId;
use crate::pipeline::{BackfillRequest, Status};
use crate::time::Timestamp;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::TcpListener;

/// How often recorded values are folded together though nobody asks for them.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(10);

/// What the pages show.
#[derive(Debug, Clone)]
pub struct Admin {
    /// The pipeline's status.
    pub status: Status,
    /// The process's metrics.
    pub metrics: MetricsPage,
    /// How far behind the source still counts as ready.
    pub allowed_lag: Duration,
}

/// Takes the address. `None`: it listens nowhere. A taken address is an error if the configuration names it, else a warning.
pub async fn bind(config: &AdminConfig) -> Result<Option<TcpListener>> {
    let Some(address) = config.address() else { return Ok(None) };
    let is_named = config.listen.is_some();
    match TcpListener::bind(address).await {
        Ok(listener) => Ok(Some(listener)),
        Err(error) if is_named => Err(Error::config("the admin interface can't listen")
            .caused_by(error)
            .with("key", "admin.listen")
            .with("address", address)
            .remedy("free the address (another binlake may have it), or write another one or \"off\"")),
        Err(error) => {
            tracing::warn!(%address, %error, "admin interface off: the default address is taken; set admin.listen");
            Ok(None)
        }
    }
}

impl Admin {
    /// Answers until `shutdown` completes.
    pub async fn serve(self, listener: TcpListener, shutdown: impl Future<Output = ()> + Send + 'static) -> Result<()> {
        let metrics = self.metrics.clone();
        let upkeep = tokio::spawn(async move {
            let mut timer = tokio::time::interval(UPKEEP_INTERVAL);
            loop {
                timer.tick().await;
                metrics.upkeep();
            }
        });
        let service = self.router().into_make_service_with_connect_info::<SocketAddr>();
        let served = axum::serve(listener, service).with_graceful_shutdown(shutdown).await;
        upkeep.abort();
        served.map_err(|error| Error::config("the admin interface failed").caused_by(error))
    }

    fn router(self) -> Router {
        Router::new()
            .route("/", get(index))
            .route("/status", get(status))
            .route("/healthz", get(async || "ok\n"))
            .route("/readyz", get(readyz))
            .route("/metrics", get(metrics_page))
            .route("/backfill", post(backfill))
            .route("/erase", post(erase::erase))
            .route("/rules", get(rules::shown).post(rules::propose))
            .route("/rules/rollback", post(rules::rollback))
            .with_state(self)
    }

    fn readiness(&self) -> Readiness {
        readiness(&self.status.view(), Timestamp::now(), self.allowed_lag)
    }
}

async fn index(State(admin): State<Admin>) -> Html<String> {
    Html(page::html(&admin.status.view(), &admin.readiness(), Timestamp::now()))
}

async fn status(State(admin): State<Admin>) -> Json<serde_json::Value> {
    Json(page::json(&admin.status.view(), &admin.readiness(), Timestamp::now()))
}

async fn readyz(State(admin): State<Admin>) -> Response {
    match admin.readiness() {
        Readiness::Ready => "ready\n".into_response(),
        Readiness::NotReady(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")).into_response(),
    }
}

async fn metrics_page(State(admin): State<Admin>) -> Response {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], admin.metrics.render()).into_response()
}

/// What `POST /backfill` takes. It must come as JSON, which no foreign page can make a browser send.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct BackfillBody {
    /// Tables as `database.table`; at least one.
    tables: Vec<String>,
    /// Only rows that fulfil this SQL condition.
    #[serde(rename = "where")]
    filter: Option<String>,
}

/// Has tables copied anew while the service runs: a stopped one comes back by it.
async fn backfill(State(admin): State<Admin>, Json(body): Json<BackfillBody>) -> Response {
    let no = |status: StatusCode, said: String| (status, format!("{said}\n")).into_response();
    let mut tables = Vec::new();
    for name in &body.tables {
        match name.parse::<TableId>().map(|table| admin.status.source_table(&table).ok_or(table)) {
            Ok(Ok(table)) => tables.push(table),
            Ok(Err(table)) => return no(StatusCode::NOT_FOUND, format!("{table} isn't among the tables of /status")),
            Err(error) => return no(StatusCode::BAD_REQUEST, error),
        }
    }
    if tables.is_empty() {
        return no(StatusCode::BAD_REQUEST, "name at least one table: {\"tables\": [\"shop.orders\"]}".into());
    }
    tracing::info!(tables = body.tables.join(","), "a backfill is asked for");
    match admin.status.requests().backfill(BackfillRequest { tables, filter: body.filter }).await {
        Ok(true) => no(StatusCode::ACCEPTED, "the tables are copied anew; /status shows how far it is".into()),
        Ok(false) => no(StatusCode::CONFLICT, "this process doesn't capture: ask the one that does".into()),
        Err(error) => no(StatusCode::SERVICE_UNAVAILABLE, error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::Listen;
    use crate::pipeline::CaptureState;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    async fn ask(address: SocketAddr, path: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn each_page_answers() {
        let metrics = MetricsPage::install().unwrap();
        let status = Status::new();
        let config = AdminConfig { listen: Some(Listen::On(SocketAddr::from(([127, 0, 0, 1], 0)))) };
        let listener = bind(&config).await.unwrap().unwrap();
        let address = listener.local_addr().unwrap();
        let taken = AdminConfig { listen: Some(Listen::On(address)) };
        assert_eq!(bind(&taken).await.unwrap_err().exit_code(), 2);
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let admin = Admin { status: status.clone(), metrics, allowed_lag: Duration::from_secs(60) };
        let server = tokio::spawn(admin.serve(listener, async move {
            let _ = stopped.await;
        }));

        assert!(ask(address, "/healthz").await.starts_with("HTTP/1.1 200"));
        let answer = ask(address, "/readyz").await;
        assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("connecting to the source"), "{answer}");
        status.capture(CaptureState::Streaming);
        status.cut("uuid:1-5".into(), Timestamp::now());
        assert!(ask(address, "/readyz").await.starts_with("HTTP/1.1 200"));
        let answer = ask(address, "/metrics").await;
        assert!(answer.contains("\nbinlake_cuts_total ") && answer.contains("# HELP binlake_capture_lag_seconds"), "{answer}");
        assert!(ask(address, "/status").await.contains("\"position\":\"uuid:1-5\""));
        assert!(ask(address, "/").await.contains("<title>Binlake</title>"));
        assert!(ask(address, "/nothing").await.starts_with("HTTP/1.1 404"));

        stop.send(()).unwrap();
        server.await.unwrap().unwrap();
    }
}
