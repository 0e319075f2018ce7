//! Why a call of one of Amazon's services failed.

use crate::error::{Area, Error, Kind};
use aws_sdk_kinesis::error::{DisplayErrorContext, ProvideErrorMetadata, SdkError};

/// Why a call failed, as far as the caller must know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// Too much at once: the same again, later and slower. Nothing was done.
    Throttled,
    /// No answer, or one that says nothing (network, timeout, a fault of the server's): it may have been done or not.
    NoAnswer,
    /// There are no credentials, or they have expired: with fresh ones it may work. Nothing was done.
    Credentials,
    /// Not with these rights.
    Denied,
    /// What is named doesn't exist.
    Missing,
    /// It is being made, changed or deleted, or exists already.
    Busy,
    /// A condition of the call wasn't met.
    Condition,
    /// Something else, which the same call won't change.
    Other,
}

impl Failure {
    /// Of any client's error.
    pub fn of<E, R>(error: &SdkError<E, R>) -> Self
    where
        E: ProvideErrorMetadata + std::error::Error + 'static,
        R: std::fmt::Debug + 'static,
    {
        match error {
            SdkError::TimeoutError(_) | SdkError::ResponseError(_) => Failure::NoAnswer,
            // the chain of providers hands its failures on as one of dispatching
            SdkError::DispatchFailure(failure) if is_about_credentials(failure.as_connector_error()) => Failure::Credentials,
            SdkError::DispatchFailure(_) => Failure::NoAnswer,
            SdkError::ConstructionFailure(_) => Failure::Other,
            SdkError::ServiceError(service) => Self::of_code(service.err().code().unwrap_or_default()),
            _ => Failure::Other,
        }
    }

    /// Of a service's error code, as a call or one record's answer has it.
    pub fn of_code(code: &str) -> Self {
        // some services put their name before it
        match code.rsplit('#').next().unwrap_or(code) {
            "ProvisionedThroughputExceededException"
            | "LimitExceededException"
            | "ThrottlingException"
            | "Throttling"
            | "RequestLimitExceeded"
            | "TooManyRequestsException"
            | "KMSThrottlingException"
            | "SlowDown" => Failure::Throttled,
            "InternalFailureException"
            | "InternalFailure"
            | "InternalServerError"
            | "ServiceUnavailable"
            | "ServiceUnavailableException"
            | "" => Failure::NoAnswer,
            "ExpiredTokenException"
            | "ExpiredToken"
            | "RequestExpired"
            | "UnrecognizedClientException"
            | "InvalidClientTokenId"
            | "InvalidSignatureException"
            | "IncompleteSignature"
            | "MissingAuthenticationToken"
            | "MissingAuthenticationTokenException" => Failure::Credentials,
            "AccessDeniedException" | "AccessDenied" | "KMSAccessDeniedException" | "NotAuthorized" | "OptInRequired" => {
                Failure::Denied
            }
            "ResourceNotFoundException" | "EntityNotFoundException" => Failure::Missing,
            "ResourceInUseException" | "AlreadyExistsException" | "KMSInvalidStateException" => Failure::Busy,
            "ConditionalCheckFailedException" | "TransactionCanceledException" | "ConcurrentModificationException" => {
                Failure::Condition
            }
            _ => Failure::Other,
        }
    }

    /// Whether the same call may succeed later.
    pub fn passes(self) -> bool {
        matches!(self, Failure::Throttled | Failure::NoAnswer | Failure::Credentials)
    }
}

fn is_about_credentials(error: Option<&aws_sdk_kinesis::error::ConnectorError>) -> bool {
    let mut error: Option<&(dyn std::error::Error + 'static)> = error.map(|error| error as _);
    while let Some(cause) = error {
        if cause.to_string().contains("credential") {
            return true;
        }
        error = cause.source();
    }
    false
}

/// What a call's failure means to the operator. `what` is one line of what couldn't be done.
pub fn error_of<E, R>(area: Area, what: &'static str, error: &SdkError<E, R>) -> Error
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
    R: std::fmt::Debug + 'static,
{
    let failure = Failure::of(error);
    let kind = match failure {
        Failure::Throttled | Failure::NoAnswer | Failure::Credentials => Kind::Transient,
        Failure::Condition => Kind::Conflict,
        Failure::Denied | Failure::Missing | Failure::Busy | Failure::Other => Kind::Refused,
    };
    let said = match error.as_service_error() {
        Some(service) => {
            let code = service.code().unwrap_or("no code");
            service.message().map_or_else(|| code.to_owned(), |message| format!("{code}: {message}"))
        }
        None => DisplayErrorContext(error).to_string(),
    };
    let error = Error::new(area, kind, what).caused_by(std::io::Error::other(said));
    match failure {
        Failure::Credentials => {
            error.remedy("give binlake AWS credentials (environment, profile, role), or renew the expired ones")
        }
        Failure::Denied => error.remedy("give the role or user the right that the message names"),
        Failure::Missing => error.remedy("correct name, region and account, or make what is missing"),
        Failure::Busy => error.remedy("wait until it is active"),
        _ => error,
    }
}
