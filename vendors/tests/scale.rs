//! The adapters for Launch and LLM Engine against servers as their documents describe them.

#![expect(clippy::unwrap_used, reason = "tests unwrap freely")]

use std::{sync::Arc, time::Duration};

use futures::StreamExt as _;
use inferq_common::{
    clock::{Clock as _, SystemClock},
    config::VendorConfig,
    error::ErrorClass,
    id::JobId,
    job::{Json, Route},
    usage::Usage,
};
use inferq_vendors::{
    Adapter, Call, Chunk, Progress, Share, VendorError, launch, llmengine, remote::http::Clients,
};
use wiremock::{
    Mock, MockServer, ResponseTemplate,
    matchers::{body_string, header, method, path, query_param},
};

fn config(server: &MockServer, key: Option<&str>) -> VendorConfig {
    VendorConfig {
        base_url: Some(server.uri().parse().unwrap()),
        api_key: key.map(Into::into),
        ..VendorConfig::default()
    }
}

fn launch_at(server: &MockServer) -> impl Adapter {
    let config = config(server, Some("scale-key-1"));
    launch::adapter(&config, &Clients::default(), Arc::new(SystemClock)).unwrap()
}

fn llmengine_at(server: &MockServer) -> impl Adapter {
    let config = config(server, Some("scale-key-1"));
    llmengine::adapter(&config, &Clients::default(), Arc::new(SystemClock)).unwrap()
}

fn call(model: &str, args: &str) -> Call {
    Call {
        job_id: JobId::new(SystemClock.now()),
        attempt: 1,
        model: model.to_owned(),
        args: Json::parse(args).unwrap(),
        route: None,
        timeout: Duration::from_secs(90),
        memory: Share::default(),
    }
}

fn json(status: u16, body: &str) -> ResponseTemplate {
    ResponseTemplate::new(status).set_body_raw(body, "application/json")
}

fn events(body: &str) -> ResponseTemplate {
    ResponseTemplate::new(200).set_body_raw(body, "text/event-stream")
}

/// A server that answers every POST to `at` with this.
async fn server(at: &str, answer: ResponseTemplate) -> MockServer {
    let server = MockServer::start().await;
    Mock::given(method("POST")).and(path(at)).respond_with(answer).mount(&server).await;
    server
}

async fn collect(adapter: &impl Adapter, call: &Call) -> Result<(Vec<String>, Usage), VendorError> {
    let mut chunks = adapter.stream(call).await?;
    let mut texts = Vec::new();
    while let Some(chunk) = chunks.next().await {
        match chunk? {
            Chunk::Data(data) => texts.push(String::from_utf8(data.to_vec()).unwrap()),
            Chunk::End { usage, .. } => return Ok((texts, usage)),
        }
    }
    panic!("the stream ended without an end")
}

// "scale-key-1:" in base64.
const BASIC: &str = "Basic c2NhbGUta2V5LTE6";

#[tokio::test]
async fn a_sync_task_carries_the_args_and_its_result_is_the_model_s_own() {
    let server = MockServer::start().await;
    let sent =
        r#"{"args":{ "x": 1.50 },"return_pickled":false,"timeout_seconds":90,"num_retries":0}"#;
    for (id, answer, response) in [
        ("end_1", r#"{"status":"SUCCESS","result":{"result":"{\"y\": 2.0}"}}"#, r#"{"y": 2.0}"#),
        ("end_2", r#"{"status":"SUCCESS","result":{"result":{"y":[1]}}}"#, r#"{"y":[1]}"#),
        ("end_3", r#"{"status":"SUCCESS","result":{"result":"plain words"}}"#, r#""plain words""#),
        ("a/b?c", r#"{"status":"SUCCESS","result":null}"#, "null"),
    ] {
        Mock::given(method("POST"))
            .and(path("/v1/sync-tasks"))
            .and(query_param("model_endpoint_id", id))
            .and(header("authorization", BASIC))
            .and(body_string(sent))
            .respond_with(json(200, answer))
            .mount(&server)
            .await;
        let reply = launch_at(&server).call(&call(id, r#"{ "x": 1.50 }"#)).await.unwrap();
        assert_eq!(reply.response.as_str(), response, "{id}");
    }
}

#[tokio::test]
async fn a_task_that_failed_has_the_class_of_the_container_s_status() {
    for (status, class) in [
        (400, ErrorClass::InvalidRequest),
        (404, ErrorClass::NotFound),
        (429, ErrorClass::RateLimited),
        (500, ErrorClass::Transient),
        (503, ErrorClass::Overloaded),
    ] {
        let answer = format!(
            r#"{{"status":"FAILURE","traceback":"File x\n  boom()\nValueError: no\n","status_code":{status}}}"#
        );
        let server = server("/v1/sync-tasks", json(200, &answer)).await;
        let error = launch_at(&server).call(&call("end_1", "{}")).await.unwrap_err();
        assert_eq!(error.class(), class);
        assert_eq!(error.to_string(), format!("the model answered {status}: ValueError: no"));
        assert_eq!(error.error.vendor_status, Some(status));
    }
    let server = server("/v1/sync-tasks", json(200, r#"{"status":"FAILURE"}"#)).await;
    let error = launch_at(&server).call(&call("end_1", "{}")).await.unwrap_err();
    assert_eq!(error.class(), ErrorClass::Transient);
}

#[tokio::test]
async fn what_is_no_task_is_not_taken_for_one() {
    for (body, class) in [
        (r#"{"status":"SUCC"#, ErrorClass::Transient),
        (r#"{"state":"SUCCESS"}"#, ErrorClass::Protocol),
        (r#"{"status":"PENDING"}"#, ErrorClass::Protocol),
        ("<html>", ErrorClass::Protocol),
        ("", ErrorClass::Protocol),
    ] {
        let server = server("/v1/sync-tasks", json(200, body)).await;
        let error = launch_at(&server).call(&call("end_1", "{}")).await.unwrap_err();
        assert_eq!(error.class(), class, "{body}");
    }
}

#[tokio::test]
async fn the_gateway_s_own_errors_have_their_classes() {
    for (status, body, class) in [
        (400, r#"{"detail":"Unsupported inference type"}"#, ErrorClass::InvalidRequest),
        (401, r#"{"detail":"Not authenticated"}"#, ErrorClass::Auth),
        (404, r#"{"detail":"The specified endpoint could not be found."}"#, ErrorClass::NotFound),
        (408, r#"{"detail":"Request timed out."}"#, ErrorClass::Transient),
        (422, r#"{"detail":[{"loc":["body"],"msg":"bad"}]}"#, ErrorClass::InvalidRequest),
        (429, r#"{"error":"Too many requests","timestamp":"t"}"#, ErrorClass::RateLimited),
        (500, r#"{"error":"Internal error occurred","timestamp":"t"}"#, ErrorClass::Transient),
        (503, "no broker", ErrorClass::Overloaded),
        (524, "", ErrorClass::Transient),
    ] {
        let server = server("/v1/sync-tasks", json(status, body)).await;
        let error = launch_at(&server).call(&call("end_1", "{}")).await.unwrap_err();
        assert_eq!(error.class(), class, "{status}");
        let advises = error.to_string().contains("LAUNCH_API_KEY");
        assert_eq!(advises, class == ErrorClass::Auth, "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_async_task_is_asked_for_until_it_has_ended() {
    let server = server("/v1/async-tasks", json(200, r#"{"task_id":"t-1"}"#)).await;
    let unfinished = ["PENDING", "STARTED", "UNDEFINED"];
    for status in unfinished {
        Mock::given(method("GET"))
            .and(path("/v1/async-tasks/t-1"))
            .respond_with(json(200, &format!(r#"{{"task_id":"t-1","status":"{status}"}}"#)))
            .up_to_n_times(1)
            .mount(&server)
            .await;
    }
    // A gateway that stumbles once does not end the task.
    Mock::given(method("GET")).respond_with(json(503, "{}")).up_to_n_times(1).mount(&server).await;
    let done = r#"{"task_id":"t-1","status":"SUCCESS","result":{"result":"[1,2]"}}"#;
    Mock::given(method("GET")).respond_with(json(200, done)).mount(&server).await;

    let call = Call { route: Some(Route::AsyncTask), ..call("end_1", r#"{"x":1}"#) };
    let reply = launch_at(&server).call(&call).await.unwrap();
    assert_eq!(reply.response.as_str(), "[1,2]");
    assert_eq!(reply.vendor_request_id.as_deref(), Some("t-1"));
    let requests = server.received_requests().await.unwrap();
    assert_eq!(requests.len(), 1 + unfinished.len() + 1 + 1);
    assert_eq!(requests[0].body, br#"{"args":{"x":1},"return_pickled":false}"#);
}

#[tokio::test(start_paused = true)]
async fn an_async_task_that_fails_ends_the_call() {
    let server = server("/v1/async-tasks", json(200, r#"{"task_id":"t-1"}"#)).await;
    let failed = r#"{"task_id":"t-1","status":"FAILURE","traceback":"oh no","status_code":400}"#;
    Mock::given(method("GET")).respond_with(json(200, failed)).mount(&server).await;
    let call = Call { route: Some(Route::AsyncTask), ..call("end_1", "{}") };
    let error = launch_at(&server).call(&call).await.unwrap_err();
    assert_eq!(error.class(), ErrorClass::InvalidRequest);
    assert_eq!(error.error.vendor_request_id.as_deref(), Some("t-1"));
}

#[tokio::test]
async fn what_goes_wrong_with_an_async_task_shows_no_key_and_names_its_request() {
    let leaks = |body: &str| json(200, body).insert_header("x-request-id", "req-1");
    let started = server("/v1/async-tasks", leaks(r#"{"tsk":"scale-key-1"}"#)).await;
    let error = pending(&launch_at(&started), None).await.unwrap_err();
    assert!(!error.to_string().contains("scale-key-1"), "{error}");
    assert_eq!(error.error.vendor_request_id.as_deref(), Some("req-1"));
    for body in [
        r#"{"task_id":"t-1","status":"FAILURE","traceback":"bad key scale-key-1"}"#,
        r#"{"state":"scale-key-1"}"#,
    ] {
        let server = server("/v1/async-tasks", json(200, r#"{"task_id":"t-1"}"#)).await;
        Mock::given(method("GET")).respond_with(leaks(body)).mount(&server).await;
        let (ticket, _) = pending(&launch_at(&server), None).await.unwrap();
        let error = pending(&launch_at(&server), Some(&ticket)).await.unwrap_err();
        assert!(!error.to_string().contains("scale-key-1"), "{error}");
        assert_eq!(error.error.vendor_request_id.as_deref(), Some("req-1"));
    }
}

/// A server with a task that is under way.
async fn at_work() -> MockServer {
    let server = server("/v1/async-tasks", json(200, r#"{"task_id":"t-1"}"#)).await;
    let pending = r#"{"task_id":"t-1","status":"STARTED"}"#;
    Mock::given(method("GET"))
        .and(path("/v1/async-tasks/t-1"))
        .and(header("authorization", BASIC))
        .respond_with(json(200, pending))
        .up_to_n_times(9)
        .mount(&server)
        .await;
    server
}

fn async_call() -> Call {
    Call { route: Some(Route::AsyncTask), ..call("end_1", r#"{"x":1}"#) }
}

async fn pending(
    adapter: &impl Adapter,
    ticket: Option<&str>,
) -> Result<(String, Duration), VendorError> {
    match adapter.advance(&async_call(), ticket).await? {
        Progress::Pending { ticket, wait } => Ok((ticket, wait)),
        Progress::Done(reply) => panic!("it has ended: {reply:?}"),
    }
}

#[tokio::test]
async fn an_async_task_can_be_left_and_asked_for_later() {
    let server = at_work().await;
    let done = r#"{"task_id":"t-1","status":"SUCCESS","result":{"result":"[1,2]"}}"#;
    Mock::given(method("GET")).respond_with(json(200, done)).mount(&server).await;
    let (mut ticket, wait) = pending(&launch_at(&server), None).await.unwrap();
    let mut waits = vec![wait];
    for _ in 0..9 {
        assert!(ticket.contains("t-1") && !ticket.contains("scale-key-1"), "{ticket}");
        // Another process knows no more than the ticket.
        let (next, wait) = pending(&launch_at(&server), Some(&ticket)).await.unwrap();
        ticket = next;
        waits.push(wait);
    }
    let waits: Vec<_> = waits.iter().map(Duration::as_millis).collect();
    assert_eq!(waits[..4], [1000, 1500, 2250, 3375]);
    assert_eq!(waits[6..], [10_000; 4]);
    let last = launch_at(&server).advance(&async_call(), Some(&ticket)).await.unwrap();
    let Progress::Done(reply) = last else { panic!("{last:?}") };
    assert_eq!(reply.response.as_str(), "[1,2]");
    assert_eq!(reply.vendor_request_id.as_deref(), Some("t-1"));
    let requests = server.received_requests().await.unwrap();
    let n_started = requests.iter().filter(|request| request.method == "POST").count();
    assert_eq!((n_started, requests.len()), (1, 11));
}

#[tokio::test]
async fn a_few_questions_may_fail_while_a_task_goes_on() {
    let server = server("/v1/async-tasks", json(200, r#"{"task_id":"t-1"}"#)).await;
    let busy = json(429, "{}").insert_header("retry-after", "4");
    Mock::given(method("GET")).respond_with(busy).mount(&server).await;
    let adapter = launch_at(&server);
    let (mut ticket, _) = pending(&adapter, None).await.unwrap();
    for _ in 0..5 {
        let (next, wait) = pending(&adapter, Some(&ticket)).await.unwrap();
        assert_eq!(wait, Duration::from_secs(4));
        ticket = next;
    }
    let error = pending(&adapter, Some(&ticket)).await.unwrap_err();
    assert_eq!(error.class(), ErrorClass::RateLimited);
    assert_eq!(error.error.vendor_request_id.as_deref(), Some("t-1"));
    let error = pending(&adapter, Some("t-1")).await.unwrap_err();
    assert_eq!(error.class(), ErrorClass::Internal);
}

#[tokio::test]
async fn what_is_no_async_task_is_done_at_once() {
    let answer = json(200, r#"{"status":"SUCCESS","result":{"result":"1"}}"#);
    let server = server("/v1/sync-tasks", answer).await;
    let progress = launch_at(&server).advance(&call("end_1", "{}"), None).await.unwrap();
    assert!(matches!(progress, Progress::Done(reply) if reply.response.as_str() == "1"));
}

#[tokio::test]
async fn a_streamed_task_passes_its_events_on_and_notices_a_failure() {
    let one = r#"{"status":"SUCCESS","result":{"result":{"token":"a"}}}"#;
    let two = r#"{"status":"SUCCESS","result":{"result":{"token":"b"}}}"#;
    let body = format!("data: {one}\r\n\r\n: ping\n\ndata: {two}\n\n");
    let server = server("/v1/streaming-tasks", events(&body)).await;
    let read = collect(&launch_at(&server), &call("end_1", "{}")).await.unwrap();
    assert_eq!(read, (vec![one.to_owned(), two.to_owned()], Usage::default()));

    let failed = r#"{"status":"FAILURE","traceback":"x","status_code":503}"#;
    let broken = events(&format!("data: {one}\n\ndata: {failed}\n\n"));
    let server = self::server("/v1/streaming-tasks", broken).await;
    let error = collect(&launch_at(&server), &call("end_1", "{}")).await.unwrap_err();
    assert_eq!(error.class(), ErrorClass::Overloaded);

    for (broken, class) in [
        (r#"{"error":{"status_code":429,"content":{"error":"busy"}}}"#, ErrorClass::RateLimited),
        (r#"{"error":{"message":"no such model","code":404}}"#, ErrorClass::NotFound),
        (r#"{"error":"Internal error occurred","timestamp":"t"}"#, ErrorClass::Transient),
    ] {
        let broken = events(&format!("data: {one}\n\ndata: {broken}\n\n"));
        let server = self::server("/v1/streaming-tasks", broken).await;
        let error = collect(&launch_at(&server), &call("end_1", "{}")).await.unwrap_err();
        assert_eq!(error.class(), class, "{error}");
    }

    let server = self::server("/v1/streaming-tasks", events("")).await;
    let error = collect(&launch_at(&server), &call("end_1", "{}")).await.unwrap_err();
    assert_eq!(error.class(), ErrorClass::Transient);
}

#[tokio::test]
async fn a_container_is_called_without_a_task_around_the_args() {
    let server = server("/predict", json(200, "[ 1.50 ]")).await;
    let config = VendorConfig { api: Some("direct".to_owned()), ..config(&server, None) };
    let adapter = launch::adapter(&config, &Clients::default(), Arc::new(SystemClock)).unwrap();
    let reply = adapter.call(&call("any", r#"{"x": 1}"#)).await.unwrap();
    assert_eq!(reply.response.as_str(), "[ 1.50 ]");
    assert_eq!(server.received_requests().await.unwrap()[0].body, br#"{"x": 1}"#);

    let plain = r#"{"error": 0.25}"#;
    let broken = r#"{"error":{"message":"gone","code":503}}"#;
    let words = format!("data: {plain}\n\ndata: {broken}\n\n");
    let server = self::server("/stream", events(&words)).await;
    let config = VendorConfig { base_url: Some(server.uri().parse().unwrap()), ..config };
    let adapter = launch::adapter(&config, &Clients::default(), Arc::new(SystemClock)).unwrap();
    let mut chunks = adapter.stream(&call("any", "{}")).await.unwrap();
    assert_eq!(chunks.next().await.unwrap().unwrap(), Chunk::Data(plain.into()));
    let error = chunks.next().await.unwrap().unwrap_err();
    assert_eq!(error.class(), ErrorClass::Overloaded);

    let config = VendorConfig { api: Some("grpc".to_owned()), ..config };
    let error = launch::adapter(&config, &Clients::default(), Arc::new(SystemClock)).unwrap_err();
    assert_eq!(error, "api: must be 'gateway' or 'direct'");
}

#[tokio::test]
async fn without_a_key_and_a_server_of_one_s_own_nothing_is_sent() {
    let config = VendorConfig::default();
    let clients = Clients::default();
    let adapters: [Box<dyn Adapter>; 2] = [
        Box::new(launch::adapter(&config, &clients, Arc::new(SystemClock)).unwrap()),
        Box::new(llmengine::adapter(&config, &clients, Arc::new(SystemClock)).unwrap()),
    ];
    for adapter in adapters {
        let error = adapter.call(&call("m", r#"{"prompt":"a"}"#)).await.unwrap_err();
        assert_eq!(error.class(), ErrorClass::Auth);
        assert!(error.to_string().ends_with("for a server of your own"), "{error}");
    }
}

#[tokio::test]
async fn llm_engine_s_own_completions_name_the_endpoint_in_the_query() {
    let body = r#"{"request_id":"r-1","output":{"text":"hi","num_prompt_tokens":null,"num_completion_tokens":3}}"#;
    let server = MockServer::start().await;
    Mock::given(method("POST"))
        .and(path("/v1/llm/completions-sync"))
        .and(query_param("model_endpoint_name", "llama-3 8b"))
        .and(header("authorization", BASIC))
        .and(body_string(r#"{"prompt":"a","max_new_tokens":5, "temperature":0.10}"#))
        .respond_with(json(200, body))
        .mount(&server)
        .await;
    let args = r#"{"model":"x","prompt":"a","max_new_tokens":5,"stream":true, "temperature":0.10}"#;
    let reply = llmengine_at(&server).call(&call("llama-3 8b", args)).await.unwrap();
    assert_eq!(reply.response.as_str(), body);
    assert_eq!(reply.vendor_request_id.as_deref(), Some("r-1"));
    assert_eq!(reply.usage, Usage { output_tokens: Some(3), ..Usage::default() });
}

#[tokio::test]
async fn an_answer_of_llm_engine_without_output_is_its_error() {
    let body = r#"{"request_id":"r","output":null,"error":"the pod has gone"}"#;
    let server = server("/v1/llm/completions-sync", json(200, body)).await;
    let args = r#"{"prompt":"a","max_new_tokens":5}"#;
    let error = llmengine_at(&server).call(&call("m", args)).await.unwrap_err();
    assert_eq!(error.class(), ErrorClass::Transient);
    assert!(error.to_string().contains("the pod has gone"), "{error}");
}

#[tokio::test]
async fn llm_engine_s_stream_ends_with_the_event_that_says_so() {
    let word = r#"{"request_id":"r","output":{"text":"a","finished":false},"error":null}"#;
    let last = r#"{"request_id":"r","output":{"text":"","finished":true,"num_prompt_tokens":4,"num_completion_tokens":2},"error":null}"#;
    let args = r#"{"prompt":"a","max_new_tokens":5}"#;
    let at = "/v1/llm/completions-stream";
    let server =
        server(at, events(&format!("data: {word}\n\n: ping - x\n\ndata: {last}\n\n"))).await;
    let (texts, usage) = collect(&llmengine_at(&server), &call("m", args)).await.unwrap();
    assert_eq!(texts, [word, last]);
    assert_eq!((usage.input_tokens, usage.output_tokens), (Some(4), Some(2)));

    for (body, class) in [
        (format!("data: {word}\n\n"), ErrorClass::Transient),
        (
            format!(
                "data: {word}\n\ndata: {{\"request_id\":\"r\",\"output\":null,\"error\":{{\"status_code\":429,\"content\":{{\"error\":\"busy\"}}}}}}\n\n"
            ),
            ErrorClass::RateLimited,
        ),
        (format!("data: {word}\n\ndata: nonsense\n\n"), ErrorClass::Protocol),
    ] {
        let server = self::server(at, events(&body)).await;
        let error = collect(&llmengine_at(&server), &call("m", args)).await.unwrap_err();
        assert_eq!(error.class(), class, "{body}");
    }
}

#[tokio::test]
async fn llm_engine_s_openai_shape_needs_no_terminator() {
    let stop = r#"{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}],"usage":{"prompt_tokens":1,"completion_tokens":2}}"#;
    let server = server("/v2/chat/completions", events(&format!("data: {stop}\n\n"))).await;
    let args = r#"{"messages":[]}"#;
    let (texts, usage) = collect(&llmengine_at(&server), &call("m", args)).await.unwrap();
    assert_eq!((texts.len(), usage.output_tokens), (1, Some(2)));
    let sent = &server.received_requests().await.unwrap()[0].body;
    let sent = String::from_utf8_lossy(sent);
    assert!(sent.starts_with(r#"{"model":"m","stream":true"#), "{sent}");

    let broken = r#"{"request_id":"r","error":{"status_code":503,"content":{"error":"gone","timestamp":"t"}}}"#;
    let server = self::server("/v2/chat/completions", events(&format!("data: {broken}\n\n"))).await;
    let error = collect(&llmengine_at(&server), &call("m", args)).await.unwrap_err();
    assert_eq!(error.class(), ErrorClass::Overloaded);
    assert!(error.to_string().contains("gone"), "{error}");
}

#[tokio::test]
async fn a_server_that_repeats_the_key_does_not_give_it_away() {
    for said in ["scale-key-1", BASIC, "c2NhbGUta2V5LTE6", "c2NhbGUta2V5LTE", "c2NhbGUta2V5L"] {
        let body = format!(r#"{{"detail":"bad credentials {said}… try others"}}"#);
        let server = server("/v1/sync-tasks", json(401, &body)).await;
        let error = launch_at(&server).call(&call("end_1", "{}")).await.unwrap_err();
        assert!(error.to_string().contains("bad credentials"), "{error}");
        assert!(error.to_string().contains("***"), "{error}");
        for secret in ["scale-key", "c2Nh"] {
            assert!(!format!("{error:?}").contains(secret), "{error:?}");
        }
    }
}
