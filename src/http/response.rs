//! Responses, and the header fields that they share.

use std::convert::Infallible;

use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::header::{
    ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue, REFERRER_POLICY, WWW_AUTHENTICATE,
    X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use hyper::{Response, StatusCode};
use serde::Serialize;
use serde_json::json;

pub(super) type Body = BoxBody<Bytes, Infallible>;

/// The media type of JSON.
pub(super) const JSON: &str = "application/json";

/// Header fields that forbid caching, framing and content sniffing.
const ALWAYS: [(HeaderName, &str); 5] = [
    (CACHE_CONTROL, "no-store"),
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (X_FRAME_OPTIONS, "DENY"),
    (REFERRER_POLICY, "no-referrer"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
];

/// An error response.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) status: StatusCode,
    message: String,
}

impl Failure {
    pub(super) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into() }
    }

    pub(super) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }
}

impl From<Failure> for Response<Body> {
    fn from(Failure { status, message }: Failure) -> Self {
        let mut response = json(status, &json!({ "error": message }));
        let (field, value) = match status {
            StatusCode::METHOD_NOT_ALLOWED => (ALLOW, "GET, HEAD"),
            StatusCode::UNAUTHORIZED => (WWW_AUTHENTICATE, "Bearer"),
            _ => return response,
        };
        response.headers_mut().insert(field, HeaderValue::from_static(value));
        response
    }
}

/// Adds the shared header fields to a response.
pub(super) fn finish(response: &mut Response<Body>) {
    for (field, value) in ALWAYS {
        response.headers_mut().insert(field, HeaderValue::from_static(value));
    }
}

/// A successful response of media type `content_type`.
pub(super) fn text(content_type: &'static str, text: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(Full::new(text.into()).boxed());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// A response with `value` as JSON.
pub(super) fn json(status: StatusCode, value: &impl Serialize) -> Response<Body> {
    let json = serde_json::to_vec(value).expect("all map keys are strings");
    let mut response = text(JSON, json);
    *response.status_mut() = status;
    response
}
