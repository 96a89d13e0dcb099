//! The Bedrock adapter against a server: what goes out, what comes back, and what it does when it is
//! refused.

#[expect(dead_code, reason = "the rest is for OpenAI's adapter")]
mod support;

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use aws_smithy_eventstream::frame::write_message_to;
use aws_smithy_types::event_stream::{Header, HeaderValue, Message};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use futures::StreamExt as _;
use inferq_common::{
    clock::ManualClock, config::VendorConfig, error::ErrorClass, job::Route, usage::Usage,
};
use inferq_vendors::{
    Adapter as _, Call, Chunk,
    bedrock::{self, Bedrock},
    remote::{Remote, http::Clients},
};
use secrecy::SecretString;
use tokio::{io::AsyncWriteExt as _, time::timeout};
use wiremock::{Mock, MockServer, Request, Respond, ResponseTemplate, matchers::method};

use self::support::{Server, soon};

const NOVA: &str = "us.amazon.nova-lite-v1:0";
const CONVERSE: &str = r#"{"messages": [{"role":"user","content":[{"text":"hi"}]}], "inferenceConfig": {"temperature": 0.10}}"#;
const ANSWER: &str = r#"{"output":{"message":{"role":"assistant","content":[{"text":"hi"}]}},"stopReason":"end_turn","usage":{"inputTokens":5,"outputTokens":2,"totalTokens":7}, "big":12345678901234567890123}"#;

fn adapter(base_url: &str, change: impl FnOnce(&mut VendorConfig)) -> Remote<Bedrock> {
    let mut config = VendorConfig {
        base_url: Some(base_url.parse().expect("an address")),
        region: Some("us-east-1".to_owned()),
        ..VendorConfig::default()
    };
    change(&mut config);
    let noon = "2026-11-20T12:00:00Z".parse().expect("an instant");
    bedrock::adapter(&config, &Clients::default(), Arc::new(ManualClock::at(noon)))
        .expect("a good configuration")
}

fn keys(config: &mut VendorConfig) {
    config.access_key_id = Some("AKIDEXAMPLE".into());
    config.secret_access_key = Some("wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY".into());
}

fn bearer(config: &mut VendorConfig) {
    config.api_key = Some(SecretString::from("bedrock-api-key-1"));
}

fn call(model: &str, args: &str) -> Call {
    Call {
        model: model.to_owned(),
        args: inferq_common::job::Json::parse(args).expect("arguments are JSON"),
        ..support::call("{}")
    }
}

fn json(status: u16, body: &str) -> ResponseTemplate {
    ResponseTemplate::new(status).set_body_raw(body, "application/json")
}

async fn server(answer: impl Respond + 'static) -> MockServer {
    let server = MockServer::start().await;
    Mock::given(method("POST")).respond_with(answer).mount(&server).await;
    server
}

/// The answers in their order; the last one stays.
struct InTurn(AtomicUsize, Vec<ResponseTemplate>);

impl Respond for InTurn {
    fn respond(&self, _: &Request) -> ResponseTemplate {
        let number = self.0.fetch_add(1, Ordering::SeqCst);
        self.1[number.min(self.1.len() - 1)].clone()
    }
}

fn in_turn(answers: Vec<ResponseTemplate>) -> InTurn {
    InTurn(AtomicUsize::new(0), answers)
}

async fn sent(server: &MockServer) -> Vec<(String, String)> {
    let requests = server.received_requests().await.expect("they are recorded");
    let text = |request: &Request| {
        (request.url.path().to_owned(), String::from_utf8_lossy(&request.body).into_owned())
    };
    requests.iter().map(text).collect()
}

#[tokio::test]
async fn converse_goes_out_and_comes_back_untouched() {
    let server = server(json(200, ANSWER).insert_header("x-amzn-requestid", "req-1")).await;
    let adapter = adapter(&server.uri(), bearer);
    let reply = adapter.call(&call(NOVA, CONVERSE)).await.unwrap();
    assert_eq!(reply.response.as_str(), ANSWER);
    assert_eq!(reply.vendor_request_id.as_deref(), Some("req-1"));
    let usage = Usage { input_tokens: Some(5), output_tokens: Some(2), ..Usage::default() };
    assert_eq!(reply.usage, usage);

    let requests = server.received_requests().await.unwrap();
    let header = |name| requests[0].headers.get(name).map(|value| value.to_str().unwrap());
    assert_eq!(String::from_utf8_lossy(&requests[0].body), CONVERSE);
    assert_eq!(header("authorization"), Some("Bearer bedrock-api-key-1"));
    assert_eq!(header("content-type"), Some("application/json"));
    assert_eq!(header("accept"), Some("application/json"));
    assert_eq!(header("x-amz-date"), None);
}

#[tokio::test]
async fn the_path_goes_out_as_it_was_signed() {
    let arn = "arn:aws:bedrock:us-east-1:000000000000:inference-profile/us.amazon.nova-lite-v1:0";
    for (model, id) in [
        (NOVA, "us.amazon.nova-lite-v1%3A0"),
        (
            arn,
            "arn%3Aaws%3Abedrock%3Aus-east-1%3A000000000000%3Ainference-profile%2F\
             us.amazon.nova-lite-v1%3A0",
        ),
    ] {
        let answer = format!(
            "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{ANSWER}",
            ANSWER.len()
        );
        let server = Server::answering(answer).await;
        let adapter = adapter(&format!("http://{}", server.address), keys);
        soon(adapter.call(&call(model, CONVERSE))).await.unwrap();
        let requests = server.requests();
        let line = requests[0].head.lines().next();
        assert_eq!(line, Some(format!("POST /model/{id}/converse HTTP/1.1").as_str()));
        let authorization = requests[0].header("authorization").unwrap();
        assert!(authorization.starts_with(
            "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20261120/us-east-1/bedrock/aws4_request, \
             SignedHeaders=content-type;host;x-amz-date, Signature="
        ));
        assert_eq!(requests[0].header("host"), Some(server.address.to_string().as_str()));
    }
}

#[tokio::test]
async fn every_endpoint_has_its_path_and_body() {
    let claude = "us.anthropic.claude-haiku-4-5-20251001-v1:0";
    for (model, args, path, body) in [
        (
            claude,
            r#"{"max_tokens":5,"messages":[{"role":"user","content":"hi"}]}"#,
            "/model/us.anthropic.claude-haiku-4-5-20251001-v1%3A0/invoke",
            r#"{"anthropic_version":"bedrock-2023-05-31","max_tokens":5,"messages":[{"role":"user","content":"hi"}]}"#,
        ),
        (
            "amazon.titan-embed-text-v2:0",
            r#"{"inputText":"a","dimensions":256}"#,
            "/model/amazon.titan-embed-text-v2%3A0/invoke",
            r#"{"inputText":"a","dimensions":256}"#,
        ),
        (
            "invoke/amazon.nova-lite-v1:0",
            CONVERSE,
            "/model/amazon.nova-lite-v1%3A0/invoke",
            CONVERSE,
        ),
        (
            claude,
            r#"{"input":{"converse":{"messages":[]}}}"#,
            "/model/us.anthropic.claude-haiku-4-5-20251001-v1%3A0/count-tokens",
            r#"{"input":{"converse":{"messages":[]}}}"#,
        ),
        (
            "openai.gpt-oss-20b-1:0",
            r#"{"messages":[{"role":"user","content":"hi"}]}"#,
            "/openai/v1/chat/completions",
            r#"{"model":"openai.gpt-oss-20b-1:0","messages":[{"role":"user","content":"hi"}]}"#,
        ),
    ] {
        let server = server(json(200, r#"{"choices":[],"x":1}"#)).await;
        adapter(&server.uri(), bearer).call(&call(model, args)).await.unwrap();
        assert_eq!(sent(&server).await, [(path.to_owned(), body.to_owned())]);
    }
}

#[tokio::test]
async fn what_cannot_be_sent_is_refused_without_a_call() {
    let server = server(json(200, ANSWER)).await;
    let adapter = adapter(&server.uri(), bearer);
    for (model, args) in [
        ("us-west-2/amazon.nova-lite-v1:0", CONVERSE),
        ("mantle/openai.gpt-oss-20b", CONVERSE),
        (NOVA, r#"{"messages":[{"role":"user","content":"hi"}]}"#),
        (NOVA, "{}"),
        ("..", CONVERSE),
    ] {
        let error = adapter.call(&call(model, args)).await.unwrap_err();
        assert_eq!(error.class(), ErrorClass::InvalidRequest, "{model} {args}");
    }
    let count = Call { route: Some(Route::CountTokens), ..call(NOVA, "{}") };
    let error = adapter.stream(&count).await.err().unwrap();
    assert_eq!(error.to_string(), "bedrock: 'count_tokens' cannot be streamed");
    assert!(sent(&server).await.is_empty());
}

fn message(headers: &[(&'static str, &'static str)], payload: &str) -> Vec<u8> {
    let mut message = Message::new(payload.to_owned().into_bytes());
    for &(name, value) in headers {
        message = message.add_header(Header::new(name, HeaderValue::String(value.into())));
    }
    let mut bytes = Vec::new();
    write_message_to(&message, &mut bytes).expect("a buffer takes all");
    bytes
}

fn event(kind: &'static str, payload: &str) -> Vec<u8> {
    message(&[(":event-type", kind), (":message-type", "event")], payload)
}

fn events(messages: &[Vec<u8>]) -> ResponseTemplate {
    ResponseTemplate::new(200)
        .set_body_raw(messages.concat(), "application/vnd.amazon.eventstream")
        .insert_header("x-amzn-requestid", "req-2")
}

#[tokio::test]
async fn a_stream_of_converse_is_passed_on_by_events() {
    let answer = events(&[
        event("messageStart", r#"{"role":"assistant"}"#),
        event("contentBlockDelta", r#"{"delta":{"text":"hi"},"contentBlockIndex":0,"p":"abc"}"#),
        event("messageStop", r#"{"stopReason":"end_turn"}"#),
        event("metadata", r#"{"usage":{"inputTokens":5,"outputTokens":2}}"#),
    ]);
    let server = server(answer).await;
    let adapter = adapter(&server.uri(), keys);
    let chunks = adapter.stream(&call(NOVA, CONVERSE)).await.unwrap();
    let chunks: Vec<_> = chunks.map(Result::unwrap).collect().await;
    let data = |text: &str| Chunk::Data(text.to_owned().into());
    assert_eq!(
        chunks,
        [
            data(r#"{"messageStart":{"role":"assistant"}}"#),
            data(
                r#"{"contentBlockDelta":{"delta":{"text":"hi"},"contentBlockIndex":0,"p":"abc"}}"#
            ),
            data(r#"{"messageStop":{"stopReason":"end_turn"}}"#),
            data(r#"{"metadata":{"usage":{"inputTokens":5,"outputTokens":2}}}"#),
            Chunk::End {
                usage: Usage { input_tokens: Some(5), output_tokens: Some(2), ..Usage::default() },
                vendor_request_id: Some("req-2".to_owned()),
            },
        ]
    );
    let requests = server.received_requests().await.unwrap();
    assert!(requests[0].url.path().ends_with("/converse-stream"));
    assert_eq!(requests[0].headers["accept"], "application/vnd.amazon.eventstream");
}

#[tokio::test]
async fn a_stream_of_invoke_is_passed_on_decoded() {
    let first = r#"{"generation":"h","stop_reason":null}"#;
    let last = r#"{"generation":"i","stop_reason":"stop","amazon-bedrock-invocationMetrics":{"inputTokenCount":5,"outputTokenCount":2}}"#;
    let chunk = |inner| event("chunk", &format!(r#"{{"bytes":"{}"}}"#, STANDARD.encode(inner)));
    let server = server(events(&[chunk(first), chunk(last)])).await;
    let llama = call("meta.llama3-70b-instruct-v1:0", r#"{"prompt":"hi"}"#);
    let chunks = adapter(&server.uri(), bearer).stream(&llama).await.unwrap();
    let chunks: Vec<_> = chunks.map(Result::unwrap).collect().await;
    assert_eq!(chunks[0], Chunk::Data(first.into()));
    assert_eq!(chunks[1], Chunk::Data(last.into()));
    assert!(matches!(chunks[2], Chunk::End { usage, .. } if usage.input_tokens == Some(5)));
    assert!(sent(&server).await[0].0.ends_with("/invoke-with-response-stream"));
}

#[tokio::test]
async fn a_stream_that_breaks_hands_on_what_came() {
    let start = || event("messageStart", r#"{"role":"assistant"}"#);
    let exception = message(
        &[(":message-type", "exception"), (":exception-type", "throttlingException")],
        r#"{"message":"slow down"}"#,
    );
    let mut changed = start();
    changed[20] ^= 1;
    let half = start()[..20].to_vec();
    for (rest, class) in [
        (exception, ErrorClass::RateLimited),
        (changed, ErrorClass::Transient),
        (half, ErrorClass::Transient),
        (Vec::new(), ErrorClass::Transient),
    ] {
        let server = server(events(&[start(), rest])).await;
        let adapter = adapter(&server.uri(), bearer);
        let mut chunks = adapter.stream(&call(NOVA, CONVERSE)).await.unwrap();
        assert!(matches!(chunks.next().await, Some(Ok(Chunk::Data(_)))));
        let error = chunks.next().await.unwrap().unwrap_err();
        assert_eq!(error.class(), class, "{error}");
        assert_eq!(error.error.vendor_request_id.as_deref(), Some("req-2"));
        assert!(chunks.next().await.is_none());
    }
}

#[tokio::test]
async fn an_error_instead_of_a_stream_is_the_error() {
    let throttled = json(429, r#"{"message":"Too many requests"}"#)
        .insert_header("x-amzn-errortype", "ThrottlingException:http://internal.amazon.com/");
    let server = server(throttled).await;
    let adapter = adapter(&server.uri(), keys);
    let error = adapter.stream(&call(NOVA, CONVERSE)).await.err().unwrap();
    assert_eq!(error.class(), ErrorClass::RateLimited);
    assert_eq!(error.error.vendor_code.as_deref(), Some("ThrottlingException"));
    assert_eq!(sent(&server).await.len(), 1);
}

fn late() -> ResponseTemplate {
    json(
        403,
        r#"{"message":"Signature expired: 20261120T120000Z is now earlier than 20261120T122500Z"}"#,
    )
    .insert_header("x-amzn-errortype", "InvalidSignatureException")
    .insert_header("date", "Fri, 20 Nov 2026 12:30:00 GMT")
}

#[tokio::test]
async fn a_wrong_clock_is_set_right_once_and_stays_right() {
    let server = server(in_turn(vec![late(), json(200, ANSWER)])).await;
    let adapter = adapter(&server.uri(), keys);
    adapter.call(&call(NOVA, CONVERSE)).await.unwrap();
    adapter.call(&call(NOVA, CONVERSE)).await.unwrap();
    let requests = server.received_requests().await.unwrap();
    let dates: Vec<_> =
        requests.iter().map(|request| request.headers["x-amz-date"].to_str().unwrap()).collect();
    assert_eq!(dates, ["20261120T120000Z", "20261120T123000Z", "20261120T123000Z"]);
}

#[tokio::test]
async fn a_clock_that_stays_wrong_is_named() {
    let server = server(in_turn(vec![late()])).await;
    let error = adapter(&server.uri(), keys).call(&call(NOVA, CONVERSE)).await.unwrap_err();
    assert_eq!(error.class(), ErrorClass::Auth);
    let words = "(set this machine's clock: it is 1800 s behind the vendor's)";
    assert!(error.to_string().ends_with(words), "{error}");
    assert_eq!(sent(&server).await.len(), 2);
}

#[tokio::test]
async fn keys_that_are_set_are_not_tried_twice() {
    for (kind, message) in [
        ("ExpiredTokenException", "The security token included in the request is expired"),
        ("AccessDeniedException", "You don't have access to the model"),
    ] {
        let refused = json(403, &format!(r#"{{"message":"{message}"}}"#))
            .insert_header("x-amzn-errortype", kind);
        let server = server(refused).await;
        let error = adapter(&server.uri(), keys).call(&call(NOVA, CONVERSE)).await.unwrap_err();
        assert_eq!(error.class(), ErrorClass::Auth);
        assert_eq!(sent(&server).await.len(), 1);
    }
}

#[tokio::test]
async fn a_secret_the_vendor_repeats_is_not_shown() {
    let body =
        r#"{"message":"token SESSIONTOKENEXAMPLE, key wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"}"#;
    let server = server(json(400, body)).await;
    let adapter = adapter(&server.uri(), |config| {
        keys(config);
        config.session_token = Some("SESSIONTOKENEXAMPLE".into());
    });
    let error = adapter.call(&call(NOVA, CONVERSE)).await.unwrap_err();
    assert_eq!(error.to_string(), "the vendor answered 400: token ***, key ***");
    let shown = format!("{adapter:?}");
    assert!(!shown.contains("EXAMPLE"), "{shown}");
    let requests = server.received_requests().await.unwrap();
    assert_eq!(requests[0].headers["x-amz-security-token"], "SESSIONTOKENEXAMPLE");
}

#[tokio::test]
async fn a_settings_mistake_is_named_when_the_adapter_is_built() {
    let build = |change: &dyn Fn(&mut VendorConfig)| {
        let mut config = VendorConfig::default();
        change(&mut config);
        let noon = "2026-11-20T12:00:00Z".parse().unwrap();
        let built = bedrock::adapter(&config, &Clients::default(), Arc::new(ManualClock::at(noon)));
        built.err().unwrap()
    };
    let error = build(&|config| config.access_key_id = Some("AKID".into()));
    assert!(error.starts_with("secret_access_key: "), "{error}");
    let error = build(&|config| config.region = Some("us east".to_owned()));
    assert!(error.starts_with("region: "), "{error}");
}

#[tokio::test]
async fn a_stream_is_passed_on_while_it_runs() {
    let first = event("messageStart", r#"{"role":"assistant"}"#);
    let rest = [
        event("messageStop", r#"{"stopReason":"end_turn"}"#),
        event("metadata", r#"{"usage":{"inputTokens":5,"outputTokens":2}}"#),
    ]
    .concat();
    let gate = Arc::new(tokio::sync::Notify::new());
    let opened = Arc::clone(&gate);
    let server = Server::start(move |mut socket| {
        let (first, rest, gate) = (first.clone(), rest.clone(), Arc::clone(&opened));
        async move {
            let head = "HTTP/1.1 200 OK\r\nconnection: close\r\n\
                content-type: application/vnd.amazon.eventstream\r\n\r\n";
            let _ = socket.write_all(head.as_bytes()).await;
            let _ = socket.write_all(&first).await;
            gate.notified().await;
            let _ = socket.write_all(&rest).await;
        }
    })
    .await;
    let adapter = adapter(&format!("http://{}", server.address), bearer);
    let mut chunks = soon(adapter.stream(&call(NOVA, CONVERSE))).await.unwrap();
    let started = soon(chunks.next()).await.unwrap().unwrap();
    assert_eq!(started, Chunk::Data(r#"{"messageStart":{"role":"assistant"}}"#.into()));
    assert!(timeout(Duration::from_millis(50), chunks.next()).await.is_err());
    gate.notify_one();
    let rest: Vec<_> = soon(chunks.collect::<Vec<_>>()).await;
    assert_eq!(rest.len(), 3);
}
