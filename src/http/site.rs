//! The paths, and what stands behind each.
//!
//! Owns: the routes, and what is known of the node while it starts, serves and stops. Does not own: the contents.

use super::metrics;
use super::page::Page;
use super::ready::{self, Asked};
use crate::actors::health::Health;
use crate::rpc;
use axum::Router;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use std::fmt::Display;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

/// What is shown. Until the node has started, that it starts.
#[derive(Default)]
pub struct Site {
    health: OnceLock<Arc<Health>>,
    stopping: AtomicBool,
}

impl Site {
    /// Shows a node from here on, which serves now.
    pub fn show(&self, health: Arc<Health>) {
        // A site is of one node, which starts once.
        let _ = self.health.set(health);
    }

    /// The node is being stopped.
    pub fn stopping(&self) {
        self.stopping.store(true, Ordering::Release);
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    pub(super) fn health(&self) -> Option<&Arc<Health>> {
        self.health.get()
    }

    /// The paths; metrics at `metrics_path`.
    pub(super) fn routes(self: Arc<Self>, metrics_path: &str) -> Router {
        let (for_metrics, for_ready, for_serving) = (Arc::clone(&self), Arc::clone(&self), Arc::clone(&self));
        let for_status = self;
        let there_is =
            format!("there is /, {metrics_path}, /status, /health/live, /health/ready and /health/serving\n");
        let page = Page::new(metrics_path);
        Router::new()
            .route("/", get(async move || page.answer()))
            .route("/health/live", get(async || fresh("text/plain", "alive\n".to_owned())))
            .route(
                "/health/ready",
                get(async move || ready::answer(&for_ready, Asked::All)),
            )
            .route(
                "/health/serving",
                get(async move || ready::answer(&for_serving, Asked::Reads)),
            )
            .route("/status", get(async move || for_status.computed(Self::status).await))
            .route(
                metrics_path,
                get(async move || for_metrics.computed(Self::metrics).await),
            )
            .fallback(async move || (StatusCode::NOT_FOUND, there_is))
    }

    /// What takes a while, on a thread that may: those of the runtime serve clients meanwhile. Should it panic, this answer
    /// alone is lost.
    async fn computed(self: Arc<Self>, answer: fn(&Self) -> Response) -> Response {
        let computing = tokio::task::spawn_blocking(move || answer(&self));
        computing.await.unwrap_or_else(|lost| failed(&lost))
    }

    fn metrics(&self) -> Response {
        let Some(health) = self.health() else {
            return starting();
        };
        match metrics::of(health) {
            Ok(text) => fresh(metrics::CONTENT_TYPE, text),
            Err(error) => failed(&error),
        }
    }

    fn status(&self) -> Response {
        let Some(health) = self.health() else {
            return starting();
        };
        match serde_json::to_string(&rpc::admin::open_status(health)) {
            Ok(text) => fresh("application/json", text),
            Err(error) => failed(&error),
        }
    }
}

fn failed(error: &impl Display) -> Response {
    (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response()
}

fn starting() -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, "the node is starting\n").into_response()
}

/// An answer that is true now alone.
pub(super) fn fresh(content_type: &'static str, body: String) -> Response {
    let mut answer = body.into_response();
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_costs_one_answer_and_a_worker_of_the_runtime_nothing() {
        let site = Arc::new(Site::default());
        let own = std::thread::current().id();
        let lost = Arc::clone(&site)
            .computed(|_| std::panic::panic_any("a number is wrong"))
            .await;
        assert_eq!(lost.status(), StatusCode::INTERNAL_SERVER_ERROR);
        let elsewhere = |_: &Site| format!("{:?}", std::thread::current().id()).into_response();
        let told = Arc::clone(&site).computed(elsewhere).await;
        let told = axum::body::to_bytes(told.into_body(), 100).await.unwrap();
        assert_ne!(told, format!("{own:?}"), "it is computed where clients are served");
        assert_eq!(
            site.computed(Site::status).await.status(),
            StatusCode::SERVICE_UNAVAILABLE
        );
    }
}
