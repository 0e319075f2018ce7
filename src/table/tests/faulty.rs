//! A store that fails at a chosen step: it refuses, or does it and loses the answer, once or from then on.

use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMultipartOptions,
    PutOptions, PutPayload, PutResult, Result, UploadPart,
};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// What happens at the chosen step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// It isn't done, and neither is anything later: the process died before.
    CrashBefore,
    /// It is done, but the process died right after.
    CrashAfter,
    /// It isn't done; the next try works.
    Refused,
    /// It is done, but the answer is lost; the next try works.
    AnswerLost,
}

/// The store. Steps are the calls that change something: they are counted from 0.
#[derive(Debug)]
pub(super) struct Faulty {
    inner: Arc<dyn ObjectStore>,
    state: Arc<State>,
}

#[derive(Debug)]
struct State {
    fault: Fault,
    at: usize,
    steps: AtomicUsize,
    reads: AtomicUsize,
    dead: AtomicBool,
}

impl State {
    /// What to do with the next step: `Ok(true)`: do it and say so; `Ok(false)`: do it and fail; `Err`: fail.
    fn next(&self) -> Result<bool> {
        if self.dead.load(Ordering::SeqCst) {
            return Err(died());
        }
        if self.steps.fetch_add(1, Ordering::SeqCst) != self.at {
            return Ok(true);
        }
        match self.fault {
            Fault::CrashBefore => {
                self.dead.store(true, Ordering::SeqCst);
                Err(died())
            }
            Fault::CrashAfter => {
                self.dead.store(true, Ordering::SeqCst);
                Ok(false)
            }
            Fault::Refused => Err(passing()),
            Fault::AnswerLost => Ok(false),
        }
    }

    fn failure(&self) -> Error {
        if self.dead.load(Ordering::SeqCst) { died() } else { passing() }
    }

    fn alive(&self) -> Result<()> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        if self.dead.load(Ordering::SeqCst) { Err(died()) } else { Ok(()) }
    }

    async fn step<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        let answers = self.next()?;
        let done = work.await?;
        if answers { Ok(done) } else { Err(self.failure()) }
    }
}

/// An error that no retry mends, as a dead process makes no more calls.
fn died() -> Error {
    Error::NotSupported { source: "the process died".into() }
}

fn passing() -> Error {
    Error::Generic { store: "Faulty", source: "the answer was lost".into() }
}

impl Faulty {
    /// Fails at step `at`.
    pub(super) fn new(inner: Arc<dyn ObjectStore>, fault: Fault, at: usize) -> Arc<Self> {
        let state = State { fault, at, steps: AtomicUsize::new(0), reads: AtomicUsize::new(0), dead: AtomicBool::new(false) };
        Arc::new(Self { inner, state: Arc::new(state) })
    }

    /// Only counts.
    pub(super) fn never(inner: Arc<dyn ObjectStore>) -> Arc<Self> {
        Self::new(inner, Fault::Refused, usize::MAX)
    }

    /// Steps and reads so far.
    pub(super) fn calls(&self) -> (usize, usize) {
        (self.state.steps.load(Ordering::SeqCst), self.state.reads.load(Ordering::SeqCst))
    }

    /// Whether the chosen step was reached.
    pub(super) fn was_reached(&self) -> bool {
        self.calls().0 > self.state.at
    }
}

impl fmt::Display for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.inner)
    }
}

#[async_trait]
impl ObjectStore for Faulty {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        self.state.step(self.inner.put_opts(location, payload, opts)).await
    }

    async fn put_multipart_opts(&self, location: &Path, opts: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        let inner = self.inner.put_multipart_opts(location, opts).await?;
        Ok(Box::new(FaultyUpload { inner, state: self.state.clone() }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.state.alive()?;
        self.inner.get_opts(location, options).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let (inner, state) = (self.inner.clone(), self.state.clone());
        locations
            .then(move |location| {
                let (inner, state) = (inner.clone(), state.clone());
                async move {
                    let location = location?;
                    state.step(object_store::ObjectStoreExt::delete(&inner, &location)).await?;
                    Ok(location)
                }
            })
            .boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        match self.state.alive() {
            Ok(()) => self.inner.list(prefix),
            Err(error) => futures::stream::once(async { Err(error) }).boxed(),
        }
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        match self.state.alive() {
            Ok(()) => self.inner.list_with_offset(prefix, offset),
            Err(error) => futures::stream::once(async { Err(error) }).boxed(),
        }
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.state.alive()?;
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.state.step(self.inner.copy_opts(from, to, options)).await
    }
}

/// The upload takes effect, and fails, when it is completed.
#[derive(Debug)]
struct FaultyUpload {
    inner: Box<dyn MultipartUpload>,
    state: Arc<State>,
}

#[async_trait]
impl MultipartUpload for FaultyUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        self.inner.put_part(data)
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let state = self.state.clone();
        state.step(self.inner.complete()).await
    }

    async fn abort(&mut self) -> Result<()> {
        self.inner.abort().await
    }
}
