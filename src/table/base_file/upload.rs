//! From a file's bytes, as they are made, to the object store: one put for a small file, parts for a large one.

use super::read::store_error;
use crate::error::Result;
use bytes::Bytes;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, WriteMultipart};
use std::io;
use std::sync::Arc;
use tokio::runtime::Handle;

/// The size of a part; a smaller file is put at once.
const PART_BYTES: usize = 8 << 20;

/// Parts of a file under way at once.
const PARTS_UNDER_WAY: usize = 2;

/// The bytes of a file that are written but not yet handed over.
#[derive(Debug, Default)]
pub(in super::super) struct UploadBuffer {
    full: Vec<Bytes>,
    last: Vec<u8>,
    written: u64,
}

impl UploadBuffer {
    /// Bytes written in all.
    pub(in super::super) fn written(&self) -> u64 {
        self.written
    }
}

impl io::Write for UploadBuffer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.last.capacity() == 0 {
            self.last.reserve_exact(PART_BYTES.min(bytes.len().max(64 << 10)));
        }
        let fits = (PART_BYTES - self.last.len()).min(bytes.len());
        self.last.extend_from_slice(&bytes[..fits]);
        self.written += fits as u64;
        if self.last.len() == PART_BYTES {
            self.full.push(Bytes::from(std::mem::take(&mut self.last)));
        }
        Ok(fits)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The upload of one file. Nothing is at its path before `finish`.
#[derive(Debug)]
pub(in super::super) struct FileUpload {
    runtime: Handle,
    store: Arc<dyn ObjectStore>,
    path: Path,
    multipart: Option<WriteMultipart>,
}

impl FileUpload {
    /// An upload to `path`, which must be a new name.
    pub(in super::super) fn new(runtime: Handle, store: Arc<dyn ObjectStore>, path: Path) -> Self {
        Self { runtime, store, path, multipart: None }
    }

    /// Hands over the full parts of `buffer`, and waits while too many are under way.
    pub(in super::super) fn hand_over(&mut self, buffer: &mut UploadBuffer) -> Result<()> {
        let _runtime = self.runtime.enter();
        for part in buffer.full.drain(..) {
            if self.multipart.is_none() {
                let upload =
                    self.runtime.block_on(self.store.put_multipart(&self.path)).map_err(|error| store_error(error, &self.path))?;
                self.multipart = Some(WriteMultipart::new_with_chunk_size(upload, PART_BYTES));
            }
            if let Some(multipart) = &mut self.multipart {
                self.runtime
                    .block_on(multipart.wait_for_capacity(PARTS_UNDER_WAY))
                    .map_err(|error| store_error(error, &self.path))?;
                multipart.put(part);
            }
        }
        Ok(())
    }

    /// Hands over all the rest; then the file is there.
    pub(in super::super) fn finish(mut self, mut buffer: UploadBuffer) -> Result<()> {
        self.hand_over(&mut buffer)?;
        let _runtime = self.runtime.enter();
        let done = match self.multipart {
            None => self.runtime.block_on(self.store.put(&self.path, buffer.last.into())).map(|_| ()),
            Some(mut multipart) => {
                if !buffer.last.is_empty() {
                    multipart.put(buffer.last.into());
                }
                self.runtime.block_on(multipart.finish()).map(|_| ())
            }
        };
        done.map_err(|error| store_error(error, &self.path))
    }

    /// Gives up: nothing will be at the path.
    pub(in super::super) fn abort(self) {
        if let Some(multipart) = self.multipart {
            let _runtime = self.runtime.enter();
            // what stays behind is deleted with the other left-overs of the instant
            _ = self.runtime.block_on(multipart.abort());
        }
    }
}
