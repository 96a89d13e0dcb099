//! A call, and a well-behaved server that answers it.

use std::time::Duration;

use inferq_common::{
    clock::{Clock as _, SystemClock},
    id::JobId,
    job::Json,
};
use inferq_vendors::{Call, Share};
use wiremock::{
    Mock, MockServer, ResponseTemplate,
    matchers::{method, path},
};

pub(crate) fn call(model: &str, args: &str) -> Call {
    Call {
        job_id: JobId::new(SystemClock.now()),
        attempt: 1,
        model: model.to_owned(),
        args: Json::parse(args).expect("arguments are JSON"),
        route: None,
        timeout: Duration::from_secs(60),
        memory: Share::default(),
    }
}

/// A server that answers every POST to `at` with this.
pub(crate) async fn server(at: &str, answer: ResponseTemplate) -> MockServer {
    let server = MockServer::start().await;
    Mock::given(method("POST")).and(path(at)).respond_with(answer).mount(&server).await;
    server
}

pub(crate) fn json(status: u16, body: &str) -> ResponseTemplate {
    ResponseTemplate::new(status).set_body_raw(body, "application/json")
}
