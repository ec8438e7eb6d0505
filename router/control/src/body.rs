//! Reads request bodies within bounds.

use axum::body::Body;
use http_body_util::BodyExt;
use serde::de::DeserializeOwned;
use tokio::time::timeout;
use weave_api::{ApiError, ErrorCode, QUICK};

/// The largest body accepted, bytes. The largest honest one, a list of a thousand peers, has under 64 KiB.
pub(crate) const MAX_BODY: usize = 1 << 20;

/// How much of an oversized body is read and thrown away, so that a client that sends it all before it looks for an
/// answer finds the one that explains.
const MAX_DISCARD: usize = 16 << 20;

/// Reads a JSON document; an empty body is an empty one (`{}`).
pub(crate) async fn read_json<T: DeserializeOwned>(body: Body) -> Result<T, ApiError> {
    let bytes = read(body).await?;
    let document: &[u8] = if bytes.is_empty() { b"{}" } else { &bytes };
    serde_json::from_slice(document).map_err(|error| {
        ApiError::new(ErrorCode::BadRequest, format!("the request is not what this path expects: {error}"))
    })
}

/// Reads a whole body.
pub(crate) async fn read(body: Body) -> Result<Vec<u8>, ApiError> {
    let slow = || {
        ApiError::new(
            ErrorCode::Deadline,
            format!("the request's body did not arrive in {} s", QUICK.as_secs()),
        )
    };
    timeout(QUICK, collect(body)).await.map_err(|_| slow())?
}

async fn collect(mut body: Body) -> Result<Vec<u8>, ApiError> {
    let mut bytes = Vec::new();
    let mut length = 0;
    while let Some(frame) = body.frame().await {
        let broken = |e| ApiError::new(ErrorCode::BadRequest, format!("the request's body broke off: {e}"));
        let Ok(data) = frame.map_err(broken)?.into_data() else { continue };
        length += data.len();
        if length <= MAX_BODY {
            bytes.extend_from_slice(&data);
        } else if length > MAX_DISCARD {
            break;
        }
    }
    if length > MAX_BODY {
        let message = format!("the request's body is larger than the {MAX_BODY} bytes that are accepted");
        return Err(ApiError::new(ErrorCode::TooLarge, message));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use weave_api::{AttachRequest, DnsAddRequest};

    use super::*;

    async fn outcome<T: DeserializeOwned>(bytes: Vec<u8>) -> Result<T, ErrorCode> {
        read_json(Body::from(bytes)).await.map_err(|error| error.code)
    }

    #[tokio::test]
    async fn the_limit_is_exact_and_an_empty_body_is_an_empty_document() {
        assert_eq!(read(Body::from(vec![b' '; MAX_BODY])).await.unwrap().len(), MAX_BODY);
        let error = read(Body::from(vec![b' '; MAX_BODY + 1])).await.unwrap_err();
        assert_eq!(error.code, ErrorCode::TooLarge);
        assert_eq!(outcome(vec![]).await, Ok(DnsAddRequest::default()));
    }

    proptest! {
        #[test]
        fn whatever_is_posted_is_a_request_or_a_bad_one(bytes: Vec<u8>) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
            let outcome = runtime.block_on(outcome::<AttachRequest>(bytes));
            prop_assert!(matches!(outcome, Ok(_) | Err(ErrorCode::BadRequest)));
        }

        #[test]
        fn deep_nesting_is_refused_before_it_hurts(depth in 1_usize..200_000) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
            let outcome = runtime.block_on(outcome::<AttachRequest>(vec![b'['; depth]));
            prop_assert_eq!(outcome, Err(ErrorCode::BadRequest));
        }
    }
}
