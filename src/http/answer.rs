//! From a request to its answer.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::header::{
    ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue, REFERRER_POLICY, WWW_AUTHENTICATE,
    X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use hyper::{Method, Request, Response, StatusCode};
use percent_encoding::percent_decode_str;
use serde::Serialize;
use serde_json::json;
use tracing::warn;

use super::access::Denial;
use super::connections::Answering;
use super::{Endpoint, clients, events, exposition, page, prefixes};
use crate::clock;
use crate::health::Health;
use crate::monitor;

pub(super) type Body = BoxBody<Bytes, Infallible>;

const JSON: &str = "application/json";

/// How long the answer to a wrong token is held back. Only the connection that showed it waits.
const DELAY_AFTER_WRONG_TOKEN: Duration = Duration::from_secs(1);

/// What every answer says of itself: nobody is to keep it, frame it or take it for something else.
const ALWAYS: [(HeaderName, &str); 5] = [
    (CACHE_CONTROL, "no-store"),
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (X_FRAME_OPTIONS, "DENY"),
    (REFERRER_POLICY, "no-referrer"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
];

/// A request that is not granted.
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

/// The answer to a request.
pub(super) async fn answer<B>(
    request: &Request<B>,
    endpoint: &Endpoint,
    answering: &Answering,
) -> Response<Body> {
    let mut response = route(request, endpoint, answering).await.unwrap_or_else(Into::into);
    for (field, value) in ALWAYS {
        response.headers_mut().insert(field, HeaderValue::from_static(value));
    }
    response
}

async fn route<B>(
    request: &Request<B>,
    endpoint: &Endpoint,
    answering: &Answering,
) -> Result<Response<Body>, Failure> {
    endpoint.access.check_host(request)?;
    if ![Method::GET, Method::HEAD].contains(request.method()) {
        return Err(Failure::new(StatusCode::METHOD_NOT_ALLOWED, "there is only GET and HEAD"));
    }
    let Endpoint { state, board, .. } = endpoint;
    let path = percent_decode_str(request.uri().path()).decode_utf8_lossy();
    let query = request.uri().query().unwrap_or_default();
    match path.as_ref() {
        "/" => Ok(page::page()),
        "/metrics" => {
            let status = Arc::clone(&board.status.borrow());
            Ok(text(exposition::TYPE, exposition::metrics(state, &status)))
        }
        "/healthz" => {
            let stuck = stuck(&state.health).await;
            let is_healthy = stuck.is_empty();
            Ok(json(ok_if(is_healthy), &json!({ "healthy": is_healthy, "stuck": stuck })))
        }
        "/readyz" => {
            let is_ready = state.health.is_ready();
            Ok(json(ok_if(is_ready), &json!({ "ready": is_ready })))
        }
        "/status" => {
            if stuck(&state.health).await.iter().any(|task| task == "monitor") {
                return Err(Failure::new(
                    StatusCode::SERVICE_UNAVAILABLE,
                    "the monitor is stuck, so nobody knows how the daemon is: restart it",
                ));
            }
            let status = Arc::clone(&board.status.borrow());
            Ok(json(StatusCode::OK, &*status))
        }
        "/openapi.json" => Ok(text(JSON, include_str!("openapi.json"))),
        "/events" => events::events(board, answering),
        "/clients" => {
            check_admin(request, endpoint, answering).await?;
            clients::list(state, &parameters(query)?).await
        }
        "/prefixes" => {
            check_admin(request, endpoint, answering).await?;
            prefixes::list(state, &parameters(query)?).await
        }
        path => {
            let Some(client) = path.strip_prefix("/clients/") else {
                return Err(Failure::new(StatusCode::NOT_FOUND, "there is nothing at this path"));
            };
            check_admin(request, endpoint, answering).await?;
            clients::one(state, client)
        }
    }
}

/// Refuses a request for clients' addresses that lacks the right to see them. A wrong token is counted,
/// logged, and answered late, so that guessing is slow and does not go unnoticed.
async fn check_admin<B>(
    request: &Request<B>,
    endpoint: &Endpoint,
    answering: &Answering,
) -> Result<(), Failure> {
    let denial = match endpoint.access.check_admin(request) {
        Ok(()) => return Ok(()),
        Err(denial) => denial,
    };
    if denial == Denial::WrongToken {
        endpoint.state.metrics.wrong_tokens.add(1);
        if let Some(left_out) = endpoint.wrong_tokens.pass(clock::now()) {
            warn!(peer = %answering.peer(), left_out, "an HTTP request showed a wrong ADMIN_TOKEN");
        }
        tokio::time::sleep(DELAY_AFTER_WRONG_TOKEN).await;
    }
    Err(denial.into())
}

/// The tasks that are stuck, and still are a second later.
async fn stuck(health: &Health) -> Vec<String> {
    let suspects = health.stuck(clock::now());
    if suspects.is_empty() {
        return suspects;
    }
    tokio::time::sleep(monitor::INTERVAL).await;
    let still = health.stuck(clock::now());
    still.into_iter().filter(|task| suspects.contains(task)).collect()
}

const fn ok_if(condition: bool) -> StatusCode {
    if condition { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
}

/// The parameters of a query, each of which may be there once.
fn parameters(query: &str) -> Result<BTreeMap<Cow<'_, str>, Cow<'_, str>>, Failure> {
    let mut parameters = BTreeMap::new();
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        if parameters.contains_key(&name) {
            return Err(Failure::bad_request(format!("the parameter {name} is there twice")));
        }
        parameters.insert(name, value);
    }
    Ok(parameters)
}

pub(super) fn text(content_type: &'static str, text: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(Full::new(text.into()).boxed());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

pub(super) fn json(status: StatusCode, value: &impl Serialize) -> Response<Body> {
    let json = serde_json::to_vec(value).expect("it has no maps with other keys than texts");
    let mut response = text(JSON, json);
    *response.status_mut() = status;
    response
}
