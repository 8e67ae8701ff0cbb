//! The status page.

use std::sync::LazyLock;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use hyper::Response;
use hyper::header::{CONTENT_SECURITY_POLICY, HeaderValue};
use sha2::{Digest, Sha256};

use super::answer::{Body, text};

const PAGE: &str = include_str!("page.html");

/// The page runs its own script and uses its own style, which their hashes name, and asks nobody but the
/// daemon.
static POLICY: LazyLock<HeaderValue> = LazyLock::new(|| {
    let policy = format!(
        "default-src 'none'; script-src '{}'; style-src '{}'; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        hash_of("script"),
        hash_of("style")
    );
    HeaderValue::try_from(policy).expect("hashes are of letters and digits")
});

pub(super) fn page() -> Response<Body> {
    let mut response = text("text/html; charset=utf-8", PAGE);
    response.headers_mut().insert(CONTENT_SECURITY_POLICY, POLICY.clone());
    response
}

/// The hash of what stands in the only element of this name.
fn hash_of(element: &str) -> String {
    let (_, rest) = PAGE.split_once(&format!("<{element}>")).expect("the page has it");
    let (content, _) = rest.split_once(&format!("</{element}>")).expect("it ends");
    format!("sha256-{}", BASE64_STANDARD.encode(Sha256::digest(content)))
}
