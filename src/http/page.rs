//! `/`: the status page, which asks for `/status` and shows it.
//!
//! Owns: putting the page together of its parts, and what a browser may do with it: run this very script, use this very
//! style, ask this node, and nothing else. Does not own: how it looks (`page/`), or the numbers (`/status`).

use super::site::fresh;
use axum::http::HeaderValue;
use axum::http::header::{CONTENT_SECURITY_POLICY, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS};
use axum::response::Response;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};

const FRAME: &str = include_str!("page/page.html");
const STYLE: &str = include_str!("page/page.css");
/// One script: what is used stands before what uses it.
const SCRIPT: [&str; 6] = [
    include_str!("page/format.js"),
    include_str!("page/dom.js"),
    include_str!("page/charts.js"),
    include_str!("page/parts.js"),
    include_str!("page/slow.js"),
    include_str!("page/page.js"),
];
/// Where the frame has them.
const STYLE_PLACE: &str = "/*STYLE*/";
const SCRIPT_PLACE: &str = "/*SCRIPT*/";

const METRICS_PLACE: &str = "{METRICS}";

/// The page, made once.
#[derive(Debug, Clone)]
pub(super) struct Page {
    text: String,
    policy: HeaderValue,
}

impl Page {
    /// The metrics are at `metrics_path`, which holds nothing that HTML would read as its own.
    pub(super) fn new(metrics_path: &str) -> Self {
        let script = SCRIPT.concat();
        let policy = format!(
            "default-src 'none'; script-src '{}'; style-src '{}'; connect-src 'self'; img-src data:; \
             base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
            source(&script),
            source(STYLE)
        );
        Self {
            text: FRAME
                .replace(METRICS_PLACE, metrics_path)
                .replace(STYLE_PLACE, STYLE)
                .replace(SCRIPT_PLACE, &script),
            // Letters, digits and signs of ASCII alone; were it not, the browser may do nothing at all.
            policy: HeaderValue::try_from(policy).unwrap_or(HeaderValue::from_static("default-src 'none'")),
        }
    }

    pub(super) fn answer(&self) -> Response {
        let mut answer = fresh("text/html; charset=utf-8", self.text.clone());
        let headers = answer.headers_mut();
        headers.insert(CONTENT_SECURITY_POLICY, self.policy.clone());
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
        answer
    }
}

/// The policy's name for an inline text: its hash.
fn source(text: &str) -> String {
    format!("sha256-{}", STANDARD.encode(Sha256::digest(text)))
}
