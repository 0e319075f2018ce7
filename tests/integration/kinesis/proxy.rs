//! A proxy before the stand-in that does to calls what Amazon's servers do and the stand-in doesn't: throttle, refuse single records, lose answers,
//! let iterators expire.

use super::push::{PushRules, Pusher};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

/// What becomes of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// Nothing special.
    Works,
    /// It fails with this code, and nothing is done.
    Fails(&'static str),
    /// It is done, and the connection breaks before the answer.
    AnswerLost,
    /// `PutRecords` alone: each record is refused, with this code, with so many percent.
    SomeRefused(&'static str, u64),
    /// It is done, and its answer, which may be without end, is handed on as it comes.
    Piped,
}

/// Decides about a call by its name (`PutRecords`).
pub(crate) type Judge = Box<dyn FnMut(&str) -> Fate + Send>;

/// What happened, and how often.
#[derive(Debug, Clone, Default)]
pub(crate) struct Counts(Arc<Mutex<BTreeMap<String, usize>>>);

impl Counts {
    pub(crate) fn note(&self, what: &str) {
        self.add(what, 1);
    }

    /// Keeps the largest of what was noted.
    fn at_most(&self, what: &str, size: usize) {
        let mut counts = self.0.lock().unwrap();
        let largest = counts.entry(what.to_owned()).or_default();
        *largest = size.max(*largest);
    }

    pub(crate) fn add(&self, what: &str, times: usize) {
        *self.0.lock().unwrap().entry(what.to_owned()).or_default() += times;
    }
}

/// A running proxy; ends with its runtime.
pub(crate) struct Proxy {
    port: u16,
    counts: Counts,
}

struct Inner {
    upstream: u16,
    judge: Mutex<Judge>,
    noise: Mutex<u64>,
    counts: Counts,
    /// Who serves subscriptions, where the stand-in shall not.
    pusher: Option<Pusher>,
}

impl Proxy {
    pub(crate) async fn start(upstream: u16, judge: Judge) -> Self {
        Self::start_with(upstream, judge, None).await
    }

    /// The same before the shared stand-in, with subscriptions of its own.
    pub(crate) async fn pushing(judge: Judge, rules: PushRules) -> Self {
        Self::start_with(super::StandIn::shared().port(), judge, Some(rules)).await
    }

    async fn start_with(upstream: u16, judge: Judge, rules: Option<PushRules>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let counts = Counts::default();
        let pusher = match rules {
            Some(rules) => Some(Pusher::new(super::StandIn::shared().client().await, rules, counts.clone())),
            None => None,
        };
        let noise = Mutex::new(88_172_645_463_325_252);
        let inner = Arc::new(Inner { upstream, judge: Mutex::new(judge), noise, counts: counts.clone(), pusher });
        tokio::spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                let inner = inner.clone();
                tokio::spawn(async move {
                    // a broken connection is the client's business
                    let _ = inner.serve(connection).await;
                });
            }
        });
        Self { port, counts }
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// All that happened, for a failing test's message.
    pub(crate) fn counts(&self) -> BTreeMap<String, usize> {
        self.counts.0.lock().unwrap().clone()
    }

    /// How often something happened (and how many bytes the largest request of a call had, as `PutRecords bytes`), as `PutRecords`, `PutRecords ProvisionedThroughputExceededException`, `refused records`.
    pub(crate) fn count(&self, what: &str) -> usize {
        self.counts.0.lock().unwrap().get(what).copied().unwrap_or(0)
    }
}

impl Inner {
    async fn serve(&self, connection: TcpStream) -> std::io::Result<()> {
        let mut connection = BufReader::new(connection);
        while let Some((head, body)) = read_message(&mut connection).await? {
            let target = header(&head, "x-amz-target").unwrap_or_default();
            let call = target.rsplit('.').next().unwrap_or_default().to_owned();
            self.counts.note(&call);
            self.counts.at_most(&format!("{call} bytes"), body.len());
            let fate = (self.judge.lock().unwrap())(&call);
            let answer = match fate {
                Fate::Works if call == "SubscribeToShard" && self.pusher.is_some() => {
                    return self.pusher.as_ref().unwrap().serve(&body, connection.get_mut()).await;
                }
                Fate::Works => self.forward(&head, &body).await?,
                Fate::Fails(code) => {
                    self.counts.note(&format!("{call} {code}"));
                    let status = if code.starts_with("Internal") { "500 Internal Server Error" } else { "400 Bad Request" };
                    answer(status, &json!({"__type": code, "message": "by the proxy"}))
                }
                Fate::AnswerLost => {
                    self.forward(&head, &body).await?;
                    self.counts.note(&format!("{call} lost"));
                    return Ok(());
                }
                Fate::Piped => {
                    let mut upstream = self.send(&head, &body).await?;
                    tokio::io::copy(&mut upstream, connection.get_mut()).await?;
                    return Ok(());
                }
                Fate::SomeRefused(code, percent) => self.refuse_some(&head, &body, code, percent).await?,
            };
            connection.get_mut().write_all(&answer).await?;
        }
        Ok(())
    }

    /// Forwards some records of a `PutRecords`, and answers for all.
    async fn refuse_some(&self, head: &str, body: &[u8], code: &str, percent: u64) -> std::io::Result<Vec<u8>> {
        let mut request: Value = serde_json::from_slice(body)?;
        let records = request["Records"].as_array().cloned().unwrap_or_default();
        let is_refused: Vec<bool> = {
            let mut noise = self.noise.lock().unwrap();
            let mut next = || {
                *noise ^= *noise << 13;
                *noise ^= *noise >> 7;
                *noise ^= *noise << 17;
                (*noise >> 11) % 100 < percent
            };
            records.iter().map(|_| next()).collect()
        };
        let taken: Vec<Value> =
            records.into_iter().zip(&is_refused).filter(|(_, is_refused)| !**is_refused).map(|(record, _)| record).collect();
        let mut answers = Vec::new();
        if !taken.is_empty() {
            request["Records"] = taken.into();
            let whole = self.forward(head, request.to_string().as_bytes()).await?;
            let text = String::from_utf8_lossy(&whole);
            let Some((_, body)) = text.split_once("\r\n\r\n").filter(|(head, _)| head.contains(" 200 ")) else { return Ok(whole) };
            answers = serde_json::from_str::<Value>(body)?["Records"].as_array().cloned().unwrap_or_default();
        }
        let mut answers = answers.into_iter();
        let merged: Vec<Value> = is_refused
            .iter()
            .map(|is_refused| {
                if *is_refused {
                    self.counts.note("refused records");
                    json!({"ErrorCode": code, "ErrorMessage": "by the proxy"})
                } else {
                    answers.next().unwrap()
                }
            })
            .collect();
        let failed = is_refused.iter().filter(|is_refused| **is_refused).count();
        Ok(answer("200 OK", &json!({"FailedRecordCount": failed, "Records": merged})))
    }

    /// Sends a request on.
    async fn send(&self, head: &str, body: &[u8]) -> std::io::Result<TcpStream> {
        let mut upstream = TcpStream::connect(("127.0.0.1", self.upstream)).await?;
        let mut lines = head.lines();
        let mut request = format!("{}\r\n", lines.next().unwrap_or_default());
        for line in lines {
            let name = line.split(':').next().unwrap_or_default().to_ascii_lowercase();
            if !["content-length", "connection", "transfer-encoding", ""].contains(&name.as_str()) {
                request += &format!("{line}\r\n");
            }
        }
        request += &format!("content-length: {}\r\nconnection: close\r\n\r\n", body.len());
        upstream.write_all(request.as_bytes()).await?;
        upstream.write_all(body).await?;
        Ok(upstream)
    }

    async fn forward(&self, head: &str, body: &[u8]) -> std::io::Result<Vec<u8>> {
        let upstream = self.send(head, body).await?;
        let Some((head, body)) = read_message(&mut BufReader::new(upstream)).await? else {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        };
        let status = head.lines().next().unwrap_or_default().split_once(' ').map_or("500", |(_, status)| status).to_owned();
        let mut whole =
            format!("HTTP/1.1 {status}\r\ncontent-type: application/x-amz-json-1.1\r\ncontent-length: {}\r\n\r\n", body.len());
        whole.reserve(body.len());
        let mut whole = whole.into_bytes();
        whole.extend(body);
        Ok(whole)
    }
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(key, _)| key.eq_ignore_ascii_case(name))
        .map(|(_, value)| value.trim())
}

pub(crate) fn answer(status: &str, body: &Value) -> Vec<u8> {
    let body = body.to_string();
    format!("HTTP/1.1 {status}\r\ncontent-type: application/x-amz-json-1.1\r\ncontent-length: {}\r\n\r\n{body}", body.len())
        .into_bytes()
}

/// The head and the body of a request or an answer; `None` at the connection's end.
async fn read_message<R: tokio::io::AsyncRead + Unpin>(from: &mut BufReader<R>) -> std::io::Result<Option<(String, Vec<u8>)>> {
    let mut head = String::new();
    loop {
        let before = head.len();
        if from.read_line(&mut head).await? == 0 {
            return Ok(None);
        }
        if head[before..].trim().is_empty() {
            break;
        }
    }
    let mut body = Vec::new();
    if header(&head, "transfer-encoding").is_some_and(|coding| coding.eq_ignore_ascii_case("chunked")) {
        loop {
            let mut size = String::new();
            from.read_line(&mut size).await?;
            let size = usize::from_str_radix(size.trim(), 16).map_err(std::io::Error::other)?;
            let start = body.len();
            body.resize(start + size, 0);
            from.read_exact(&mut body[start..]).await?;
            from.read_line(&mut String::new()).await?;
            if size == 0 {
                break;
            }
        }
    } else {
        let length = header(&head, "content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
        body.resize(length, 0);
        from.read_exact(&mut body).await?;
    }
    Ok(Some((head, body)))
}
