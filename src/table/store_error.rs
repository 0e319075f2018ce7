//! What a store's error means: whether to ask again, and what the operator is told.

use crate::error::{Area, Error, Kind};
use backon::{ExponentialBuilder, Retryable};
use object_store::path::Path;
use std::io::ErrorKind;
use std::time::Duration;

/// What object_store calls a folder of this machine in its errors.
const LOCAL: &str = "LocalFileSystem";

/// Tries a call again while its errors are of the kind that passes.
pub(super) async fn retried<T, F, Fut>(call: F) -> object_store::Result<T>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = object_store::Result<T>>,
{
    let backoff = ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(100))
        .with_max_delay(Duration::from_secs(5))
        .with_max_times(5);
    call.retry(backoff)
        .when(|error| kind_of(error) == Kind::Transient)
        .notify(|error, pause| tracing::debug!(%error, ?pause, "a call to the lake's store failed and is tried again"))
        .await
}

/// An error of the store as the operator needs it: what couldn't be done, where, and what to do about it.
pub(crate) fn lake_error(what: &'static str, location: &Path, error: object_store::Error) -> Error {
    let kind = kind_of(&error);
    let remedy = match (io_kind(&error), &error) {
        (Some(ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge), _) => {
            Some("free space on the lake's disk; nothing was lost")
        }
        (Some(ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem), _) => {
            Some("give binlake's user write permission to the lake's folder")
        }
        (_, object_store::Error::PermissionDenied { .. } | object_store::Error::Unauthenticated { .. }) => {
            Some("check the credentials and that they may get, put, list and delete under the lake's prefix")
        }
        (_, object_store::Error::NotFound { .. }) => Some("check the lake's URL; if the file was removed, restore it"),
        _ => None,
    };
    let error = Error::new(Area::Lake, kind, what).caused_by(error).with("path", location);
    match remedy {
        Some(remedy) => error.remedy(remedy),
        None => error,
    }
}

/// What the caller does about a store's error.
fn kind_of(error: &object_store::Error) -> Kind {
    use object_store::Error as Store;
    match error {
        Store::NotFound { .. } | Store::InvalidPath { .. } => Kind::Corrupt,
        Store::AlreadyExists { .. } | Store::Precondition { .. } | Store::NotModified { .. } => Kind::Conflict,
        Store::PermissionDenied { .. }
        | Store::Unauthenticated { .. }
        | Store::NotSupported { .. }
        | Store::NotImplemented { .. } => Kind::Refused,
        Store::UnknownConfigurationKey { .. } => Kind::Config,
        Store::Generic { store, .. } if *store != LOCAL => Kind::Transient,
        _ => match io_kind(error) {
            // a local disk: what its errors say is not going to change by asking again
            Some(
                ErrorKind::Interrupted
                | ErrorKind::TimedOut
                | ErrorKind::WouldBlock
                | ErrorKind::ResourceBusy
                | ErrorKind::StaleNetworkFileHandle,
            ) => Kind::Transient,
            Some(
                ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted | ErrorKind::ConnectionRefused | ErrorKind::BrokenPipe,
            ) => Kind::Transient,
            Some(ErrorKind::UnexpectedEof) => Kind::Corrupt,
            Some(_) => Kind::Refused,
            // everything else comes from a service
            None => Kind::Transient,
        },
    }
}

/// The operating system's error underneath, if there is one.
fn io_kind(error: &object_store::Error) -> Option<ErrorKind> {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(io) = error.downcast_ref::<std::io::Error>() {
            return Some(io.kind());
        }
        cause = error.source();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_say_path_and_remedy() {
        let full = object_store::Error::Generic { store: LOCAL, source: Box::new(std::io::Error::from(ErrorKind::StorageFull)) };
        let error = lake_error("a file of the lake can't be written", &Path::from("lake/x"), full);
        assert_eq!((error.kind(), error.area()), (Kind::Refused, Area::Lake));
        assert!(error.to_string().contains("path=lake/x; free space"), "{error}");
        let service = object_store::Error::Generic { store: "S3", source: "503 slow down".into() };
        assert!(lake_error("x", &Path::from("x"), service).is_transient());
    }
}
