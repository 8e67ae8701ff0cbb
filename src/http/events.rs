//! Server-sent events: the samples of the last ten minutes, and then the status every second. If the wall
//! clock was set, the last ten minutes are sent again with corrected times.
//!
//! A stream ends after [`STREAM_LIFETIME`], and the browser reconnects by itself. So all viewers get a turn,
//! even if there are more than the endpoint serves.

use std::sync::Arc;
use std::time::Duration;

use http_body_util::BodyExt;
use http_body_util::channel::{Channel, Sender};
use hyper::body::Bytes;
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::{Response, StatusCode};
use serde::Serialize;

use super::connections::Answering;
use super::response::{Body, Failure};
use crate::sampler::Board;

/// The maximum lifetime of a stream.
const STREAM_LIFETIME: Duration = Duration::from_secs(120);

/// The delay before a browser reconnects.
const RETRY: Duration = Duration::from_secs(3);

/// Disables nginx's response buffering for the stream, even if its `proxy_buffering` is on.
const BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

pub(super) fn events(board: &Arc<Board>, answering: &Answering) -> Result<Response<Body>, Failure> {
    if !answering.stream() {
        return Err(Failure::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "too many event streams are open. Close another status page, or poll /status instead.",
        ));
    }
    // At most one event is queued, so a slow reader skips events.
    let (sender, body) = Channel::<Bytes>::new(1);
    tokio::spawn(tokio::time::timeout(STREAM_LIFETIME, send(sender, Arc::clone(board))));
    let mut response = Response::new(body.boxed());
    let fields = response.headers_mut();
    fields.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    fields.insert(BUFFERING, HeaderValue::from_static("no"));
    Ok(response)
}

async fn send(mut sender: Sender<Bytes>, board: Arc<Board>) {
    let mut status = board.status.subscribe();
    let mut steps = board.steps();
    let history = event("history", &*board.history());
    let mut next = Bytes::from(format!("retry: {}\n\n{history}", RETRY.as_millis()));
    while sender.send_data(next).await.is_ok() && status.changed().await.is_ok() {
        let now = Arc::clone(&status.borrow_and_update());
        let before = std::mem::replace(&mut steps, board.steps());
        let told_anew =
            if steps == before { String::new() } else { event("history", &*board.history()) };
        next = (told_anew + &event("status", &*now)).into();
    }
}

fn event(name: &str, data: &impl Serialize) -> String {
    let data = serde_json::to_string(data).expect("all map keys are strings");
    format!("event: {name}\ndata: {data}\n\n")
}
