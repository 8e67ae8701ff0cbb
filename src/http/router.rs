//! Routes a request to its response by path, and checks access.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use hyper::{Method, Request, Response, StatusCode};
use percent_encoding::percent_decode_str;
use serde_json::json;
use tracing::warn;

use super::access::{Access, Denial};
use super::connections::Answering;
use super::openapi::DESCRIPTION;
use super::response::{self, Body, Failure, JSON, json, text};
use super::{clients, events, exposition, page, prefixes};
use crate::clock;
use crate::sampler::{self, Board};
use crate::shared::Shared;
use crate::throttle::Throttle;
use crate::watchdog::Watchdog;

/// The delay of the response to a wrong token. Only the connection that sent the token waits.
const DELAY_AFTER_WRONG_TOKEN: Duration = Duration::from_secs(1);

/// The data from which requests are answered.
#[derive(Debug)]
pub(super) struct Endpoint {
    pub(super) access: Access,
    pub(super) shared: Arc<Shared>,
    pub(super) board: Arc<Board>,
    /// Rate-limits the log lines about wrong tokens.
    pub(super) wrong_tokens: Throttle,
}

/// The response to a request.
pub(super) async fn respond<B>(
    request: &Request<B>,
    endpoint: &Endpoint,
    answering: &Answering,
) -> Response<Body> {
    let mut response = route(request, endpoint, answering).await.unwrap_or_else(Into::into);
    response::finish(&mut response);
    response
}

async fn route<B>(
    request: &Request<B>,
    endpoint: &Endpoint,
    answering: &Answering,
) -> Result<Response<Body>, Failure> {
    endpoint.access.check_host(request)?;
    if ![Method::GET, Method::HEAD].contains(request.method()) {
        return Err(Failure::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "the HTTP method is not supported: use GET or HEAD",
        ));
    }
    let Endpoint { shared, board, .. } = endpoint;
    let path = percent_decode_str(request.uri().path()).decode_utf8_lossy();
    let query = request.uri().query().unwrap_or_default();
    match path.as_ref() {
        "/" => Ok(page::page()),
        "/metrics" => {
            let status = Arc::clone(&board.status.borrow());
            Ok(text(exposition::TYPE, exposition::metrics(shared, &status)))
        }
        "/healthz" => {
            let stuck = stuck(&shared.watchdog).await;
            let is_healthy = stuck.is_empty();
            Ok(json(ok_if(is_healthy), &json!({ "healthy": is_healthy, "stuck": stuck })))
        }
        "/readyz" => {
            let is_ready = shared.watchdog.is_ready();
            Ok(json(ok_if(is_ready), &json!({ "ready": is_ready })))
        }
        "/status" => {
            if stuck(&shared.watchdog).await.iter().any(|task| task == "sampler") {
                return Err(Failure::new(
                    StatusCode::SERVICE_UNAVAILABLE,
                    "the sampler task is stuck, so the state of the daemon is unknown. Restart the daemon.",
                ));
            }
            let status = Arc::clone(&board.status.borrow());
            Ok(json(StatusCode::OK, &*status))
        }
        "/openapi.json" => Ok(text(JSON, DESCRIPTION.as_str())),
        "/events" => events::events(board, answering),
        "/clients" => {
            check_admin(request, endpoint, answering).await?;
            clients::list(shared, &parameters(query)?).await
        }
        "/prefixes" => {
            check_admin(request, endpoint, answering).await?;
            prefixes::list(shared, &parameters(query)?).await
        }
        path => {
            let Some(client) = path.strip_prefix("/clients/") else {
                return Err(Failure::new(
                    StatusCode::NOT_FOUND,
                    "unknown path: /openapi.json lists all paths",
                ));
            };
            check_admin(request, endpoint, answering).await?;
            clients::one(shared, client)
        }
    }
}

/// Refuses an unauthorized request for clients' addresses. A wrong token is counted, logged and answered with
/// a delay, so that guessing is slow and visible.
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
        endpoint.shared.metrics.wrong_tokens.add(1);
        if let Some(suppressed) = endpoint.wrong_tokens.pass(clock::now()) {
            warn!(peer = %answering.peer(), suppressed, "an HTTP request contained a wrong ADMIN_TOKEN");
        }
        tokio::time::sleep(DELAY_AFTER_WRONG_TOKEN).await;
    }
    Err(denial.into())
}

/// The tasks that are stuck now and still stuck a second later.
async fn stuck(health: &Watchdog) -> Vec<String> {
    let suspects = health.stuck(clock::now());
    if suspects.is_empty() {
        return suspects;
    }
    tokio::time::sleep(sampler::INTERVAL).await;
    let still = health.stuck(clock::now());
    still.into_iter().filter(|task| suspects.contains(task)).collect()
}

const fn ok_if(condition: bool) -> StatusCode {
    if condition { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
}

/// Parses the parameters of a query. Each may appear only once.
fn parameters(query: &str) -> Result<BTreeMap<Cow<'_, str>, Cow<'_, str>>, Failure> {
    let mut parameters = BTreeMap::new();
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        if parameters.contains_key(&name) {
            return Err(Failure::bad_request(format!(
                "the parameter {name} occurs twice: send each parameter at most once"
            )));
        }
        parameters.insert(name, value);
    }
    Ok(parameters)
}
