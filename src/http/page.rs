//! The status page: one document, joined from its HTML, its style and its scripts.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use hyper::Response;
use hyper::header::{CONTENT_SECURITY_POLICY, HeaderValue};
use sha2::{Digest, Sha256};

use super::response::{Body, text};
use crate::engine::guard::Refused;
use crate::status::Refusal;

/// The page. It describes the refusal reasons in the same words as `/clients/{address}`.
static PAGE: LazyLock<String> = LazyLock::new(|| {
    let refusals = Refused::ALL.map(Refusal::from);
    let refusals: BTreeMap<_, _> =
        refusals.iter().map(|refusal| (refusal.reason, refusal)).collect();
    let refusals = serde_json::to_string(&refusals).expect("its keys are texts");
    include_str!("page/page.html")
        .replace("STYLE_OF_THE_PAGE\n", include_str!("page/style.css"))
        .replace("SCRIPT_OF_THE_PAGE\n", include_str!("page/script.js"))
        .replace("PLOTS_OF_THE_PAGE\n", include_str!("page/plots.js"))
        .replace("REFUSALS_OF_THE_DAEMON", &refusals)
});

/// The page may run only its own script and style, identified by their hashes, and may connect only to the
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
    let mut response = text("text/html; charset=utf-8", PAGE.as_str());
    response.headers_mut().insert(CONTENT_SECURITY_POLICY, POLICY.clone());
    response
}

/// The hash of the content of the page's only element with this name.
fn hash_of(element: &str) -> String {
    let (_, rest) = PAGE.split_once(&format!("<{element}>")).expect("the page has the element");
    let (content, _) = rest.split_once(&format!("</{element}>")).expect("the element ends");
    format!("sha256-{}", BASE64_STANDARD.encode(Sha256::digest(content)))
}
