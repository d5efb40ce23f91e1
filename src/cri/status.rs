//! Errors → gRPC codes. Nothing else knows them.

use std::sync::Arc;

use tonic::{Code, Status};

use crate::container::Error as ContainerError;
use crate::image::Error as ImageError;
use crate::pod::Error as PodError;

/// For `map_err`: the code that fits, and the error's own words.
pub(super) fn of_pod(error: Arc<PodError>) -> Status {
    let code = match &*error {
        PodError::NotFound { .. } => Code::NotFound,
        PodError::Ambiguous { .. } | PodError::Invalid(_) | PodError::Annotation(_) => {
            Code::InvalidArgument
        }
        PodError::WrongState(_) | PodError::Plugins(_) => Code::FailedPrecondition,
        PodError::Exists(_) => Code::AlreadyExists,
        PodError::WontDie(_) => Code::DeadlineExceeded,
        PodError::Container(error) => of_container(error),
        PodError::Monitor { source, .. } if source.is_gone() => Code::Unavailable,
        PodError::Monitor { .. }
        | PodError::Network { .. }
        | PodError::Store(_)
        | PodError::Io { .. }
        | PodError::TaskGone(_) => Code::Internal,
    };
    answered(code, error.to_string())
}

/// For `map_err`.
pub(super) fn of_image(error: ImageError) -> Status {
    answered(image_code(&error), error.to_string())
}

/// The request makes no sense.
pub(super) fn invalid(why: impl Into<String>) -> Status {
    answered(Code::InvalidArgument, why.into())
}

/// For `map_err`: the URL of a session can't be given now.
pub(super) fn of_stream(error: crate::stream::TooMany) -> Status {
    answered(Code::ResourceExhausted, error.to_string())
}

/// The state doesn't allow it.
pub(super) fn wrong_state(why: impl Into<String>) -> Status {
    answered(Code::FailedPrecondition, why.into())
}

fn of_container(error: &ContainerError) -> Code {
    match error {
        ContainerError::Invalid(_) => Code::InvalidArgument,
        ContainerError::Image(error) => image_code(error),
        ContainerError::Update { .. } | ContainerError::Checkpoint { .. } => {
            Code::FailedPrecondition
        }
        ContainerError::ExecTimeout { .. } | ContainerError::CheckpointTimeout { .. } => {
            Code::DeadlineExceeded
        }
        ContainerError::Monitor { source, .. } if source.is_gone() => Code::Unavailable,
        ContainerError::Oci(error) if error.is_bad_request() => Code::InvalidArgument,
        ContainerError::Oci(_)
        | ContainerError::Monitor { .. }
        | ContainerError::Start { .. }
        | ContainerError::Exec { .. }
        | ContainerError::Attach { .. }
        | ContainerError::Io { .. } => Code::Internal,
    }
}

fn image_code(error: &ImageError) -> Code {
    match error {
        ImageError::NotFound(_) => Code::NotFound,
        ImageError::NotInRegistry { .. } | ImageError::NoPlatform { .. } => Code::NotFound,
        ImageError::Ambiguous { .. }
        | ImageError::BadReference { .. }
        | ImageError::Archive { .. } => Code::InvalidArgument,
        ImageError::Unauthorized { .. } => Code::PermissionDenied,
        ImageError::Registry { .. } | ImageError::Stopped(_) => Code::Unavailable,
        ImageError::Corrupt { .. } | ImageError::Layer { .. } => Code::DataLoss,
        ImageError::Hosts { .. } | ImageError::NotAnImage { .. } => Code::FailedPrecondition,
        ImageError::Rootfs { .. } | ImageError::Disk { .. } | ImageError::Store(_) => {
            Code::Internal
        }
    }
}

/// Errors are logged once, here, where they are answered.
fn answered(code: Code, message: String) -> Status {
    match code {
        Code::NotFound | Code::InvalidArgument | Code::FailedPrecondition => {
            tracing::info!(?code, message, "answered");
        }
        _ => tracing::warn!(?code, message, "answered"),
    }
    Status::new(code, message)
}
