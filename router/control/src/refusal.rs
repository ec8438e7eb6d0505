//! Errors as responses: JSON for programs, a line of text for old scripts.

use axum::{
    Json,
    http::{StatusCode, Uri},
    response::{IntoResponse, Response},
};
use weave_api::{ApiError, ErrorCode};

/// An error as JSON.
pub(crate) struct Refusal(pub(crate) ApiError);

impl From<ApiError> for Refusal {
    fn from(error: ApiError) -> Self {
        Self(error)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (status(self.0.code), Json(self.0)).into_response()
    }
}

/// An error as one line of text.
pub(crate) struct PlainRefusal(pub(crate) ApiError);

impl From<ApiError> for PlainRefusal {
    fn from(error: ApiError) -> Self {
        Self(error)
    }
}

impl IntoResponse for PlainRefusal {
    fn into_response(self) -> Response {
        (status(self.0.code), format!("{}\n", self.0)).into_response()
    }
}

/// What is said for a path that does not exist.
pub(crate) async fn unknown_path(uri: Uri) -> Refusal {
    let path: String = uri.path().chars().take(200).collect();
    Refusal(
        ApiError::new(ErrorCode::UnknownPath, format!("there is no {path} in this API"))
            .with_hint("weave and weaver may be of different versions; see `weave version`"),
    )
}

/// What is said for a path that exists, with another method.
pub(crate) async fn wrong_method(method: axum::http::Method, uri: Uri) -> Refusal {
    let path: String = uri.path().chars().take(200).collect();
    Refusal(ApiError::new(ErrorCode::MethodNotAllowed, format!("{path} does not understand {method}")))
}

fn status(code: ErrorCode) -> StatusCode {
    StatusCode::from_u16(code.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}
