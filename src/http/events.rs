//! Server-sent events: the last ten minutes, and then every second how the daemon is. When the wall clock was
//! set, the last ten minutes once more, by that.

use std::sync::Arc;

use http_body_util::BodyExt;
use http_body_util::channel::Channel;
use hyper::Response;
use hyper::body::Bytes;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use serde::Serialize;

use super::answer::Body;
use crate::monitor::Board;

pub(super) fn events(board: &Arc<Board>) -> Response<Body> {
    let mut status = board.status.subscribe();
    let board = Arc::clone(board);
    let mut steps = board.steps();
    let history = event("history", &*board.history());
    // One event waits at the most, so that somebody slow leaves some out.
    let (mut sender, body) = Channel::<Bytes>::new(1);
    tokio::spawn(async move {
        let mut next = Bytes::from(history);
        while sender.send_data(next).await.is_ok() && status.changed().await.is_ok() {
            let now = Arc::clone(&status.borrow_and_update());
            let before = std::mem::replace(&mut steps, board.steps());
            let told_anew =
                if steps == before { String::new() } else { event("history", &*board.history()) };
            next = (told_anew + &event("status", &*now)).into();
        }
    });
    let mut response = Response::new(body.boxed());
    let content_type = HeaderValue::from_static("text/event-stream");
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response
}

fn event(name: &str, data: &impl Serialize) -> String {
    let data = serde_json::to_string(data).expect("it has no maps with other keys than texts");
    format!("event: {name}\ndata: {data}\n\n")
}
