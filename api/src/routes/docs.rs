//! `/openapi.json`, and `/docs` that renders it.

use std::sync::LazyLock;

use axum::{Router, response::IntoResponse, routing};
use bytes::Bytes;
use http::header;

use crate::{openapi, state::AppState};

/// The page is whole in itself: it loads nothing but the document, from where it came from.
const PAGE: &str = include_str!("docs.html");

/// Only what is in the page may run, and it may only talk to this server.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; \
    script-src 'unsafe-inline'; connect-src 'self'; base-uri 'none'; frame-ancestors 'none'";

/// The routes of this resource.
pub(crate) fn router() -> Router<AppState> {
    Router::new()
        .route("/openapi.json", routing::get(openapi_json))
        .route("/docs", routing::get(docs))
}

/// OpenAPI Document
#[utoipa::path(
    get,
    path = "/openapi.json",
    tag = "Operators",
    operation_id = "GET-/openapi.json",
    responses((status = 200, description = "This document", body = serde_json::Value)),
)]
pub(crate) async fn openapi_json() -> impl IntoResponse {
    static DOCUMENT: LazyLock<Bytes> = LazyLock::new(|| {
        openapi::document().to_json().expect("the document is made of plain JSON values").into()
    });
    ([(header::CONTENT_TYPE, "application/json")], DOCUMENT.clone())
}

/// Documentation
#[utoipa::path(
    get,
    path = "/docs",
    tag = "Operators",
    operation_id = "GET-/docs",
    responses((status = 200, description = "A page", body = String, content_type = "text/html")),
)]
pub(crate) async fn docs() -> impl IntoResponse {
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
    ];
    (headers, PAGE)
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use http::Request;

    use crate::testing::TestApi;

    #[tokio::test]
    async fn the_page_and_the_document_need_no_key_and_nothing_from_elsewhere() {
        let api = TestApi::start().await;
        let request = |path: &str| Request::get(path).body(Body::empty()).unwrap();
        let page = api.send(request("/docs")).await;
        assert_eq!(
            (page.status.as_u16(), page.header("content-type")),
            (200, "text/html; charset=utf-8")
        );
        assert!(page.header("content-security-policy").starts_with("default-src 'none'"));
        for elsewhere in ["http://", "https://", "src=", "@import"] {
            assert!(!page.text.contains(elsewhere), "{elsewhere}");
        }
        let document = api.send(request("/openapi.json")).await;
        assert_eq!(document.header("content-type"), "application/json");
        assert_eq!(document.ok()["info"]["title"], "inferq");
    }
}
