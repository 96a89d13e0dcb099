//! The dispatcher on a real store, against real sockets.

mod harness;

use std::{sync::atomic::Ordering, time::Duration};

use chrono::{DateTime, TimeDelta, Utc};
use inferq_common::{
    callback::{DeliveryStatus, RETRY_DELAYS_SECS, generate_secret},
    clock::Clock as _,
    config::CallbacksConfig,
    id::InstanceId,
    store::NewInstance,
    telemetry::install_metrics,
};
use rand::{SeedableRng as _, rngs::StdRng};
use secrecy::ExposeSecret as _;
use wiremock::{
    Mock, MockServer, Request, ResponseTemplate,
    matchers::{any, method, path},
};

use self::harness::{Bench, Receiver, config, eventually};
use super::MAX_INLINE_RESPONSE_BYTES;

/// A receiver that answers each POST to its root as `template` says.
async fn receiver(template: ResponseTemplate) -> MockServer {
    let server = MockServer::start().await;
    Mock::given(method("POST")).and(path("/hook")).respond_with(template).mount(&server).await;
    server
}

fn hook(server: &MockServer) -> String {
    format!("{}/hook?token=t0ken", server.uri())
}

async fn requests(server: &MockServer) -> Vec<Request> {
    server.received_requests().await.unwrap()
}

fn header<'a>(request: &'a Request, name: &str) -> &'a str {
    request.headers[name].to_str().unwrap()
}

#[tokio::test]
async fn a_callback_is_signed_delivered_and_recorded() {
    let bench = Bench::start(config()).await;
    let server = receiver(ResponseTemplate::new(204)).await;
    let (job, id) = bench.owe_for(&hook(&server), r#"{"big":123456789012345678901}"#).await;
    let delivery = bench.reaches(id, DeliveryStatus::Delivered).await;
    assert_eq!(delivery.attempt, 1);
    assert_eq!(delivery.next_attempt_at, None);
    let attempts = bench.attempts(id).await;
    assert_eq!(attempts.len(), 1);
    assert_eq!((attempts[0].number, attempts[0].status_code), (1, Some(204)));
    assert_eq!(attempts[0].error, None);

    let received = requests(&server).await;
    let [request] = received.as_slice() else { panic!("one request") };
    assert_eq!(header(request, "webhook-id"), id.to_string());
    let verifier = bench.verifier();
    verifier.verify(&request.body, &request.headers).unwrap();
    assert!(verifier.verify(b"{}", &request.headers).is_err());
    let body = std::str::from_utf8(&request.body).unwrap();
    assert!(body.contains(&job.to_string()));
    assert!(body.contains(r#""response":{"big":123456789012345678901}"#), "{body}");
    assert!(body.contains(r#""metadata":{"order":12345678901234567890}"#), "{body}");
}

#[tokio::test]
async fn what_a_receiver_sees_is_this() {
    let now = "2030-01-02T03:04:05.678901Z".parse::<DateTime<Utc>>().unwrap();
    let bench = Bench::start_at(now, config()).await;
    let server = receiver(ResponseTemplate::new(200)).await;
    let (job, id) = bench.owe_for(&hook(&server), r#"{"answer":42}"#).await;
    bench.reaches(id, DeliveryStatus::Delivered).await;
    let request = requests(&server).await.remove(0);
    let mut lines =
        vec![format!("{} {}?{}", request.method, request.url.path(), request.url.query().unwrap())];
    let mut headers: Vec<_> = request
        .headers
        .iter()
        .map(|(name, value)| match name.as_str() {
            "webhook-signature" => format!("{name}: {}[signature]", &value.to_str().unwrap()[..3]),
            _ => format!("{name}: {}", value.to_str().unwrap()),
        })
        .collect();
    headers.sort();
    lines.append(&mut headers);
    // The bytes as they are, but for the line ends.
    let body = std::str::from_utf8(&request.body).unwrap();
    lines.push(body.replace(",\"", ",\n\"").replace(":{", ":{\n"));
    let text = lines
        .join("\n")
        .replace(&job.to_string(), "[job]")
        .replace(&id.to_string(), "[delivery]")
        .replace(&server.address().port().to_string(), "[port]")
        .replace(&format!("content-length: {}", request.body.len()), "content-length: [length]")
        .replace(concat!("inferq/", env!("CARGO_PKG_VERSION")), "inferq/[version]");
    insta::assert_snapshot!(text);
}

#[tokio::test]
async fn a_failure_is_tried_again_when_due_with_the_same_body() {
    let bench = Bench::start(config()).await;
    let server = MockServer::start().await;
    let failures = Mock::given(any()).respond_with(ResponseTemplate::new(500)).up_to_n_times(2);
    failures.mount(&server).await;
    Mock::given(any()).respond_with(ResponseTemplate::new(200)).mount(&server).await;
    let well = receiver(ResponseTemplate::new(200)).await;
    let id = bench.owe(&hook(&server)).await;

    for (number, base) in [(1, RETRY_DELAYS_SECS[0]), (2, RETRY_DELAYS_SECS[1])] {
        let attempt = bench.attempt(id, number).await;
        assert_eq!(attempt.status_code, Some(500));
        assert_eq!(attempt.error.as_deref(), Some("answered 500"));
        let delivery = bench.delivery(id).await;
        assert_eq!(delivery.status, DeliveryStatus::Pending);
        let wait = delivery.next_attempt_at.unwrap() - bench.clock.now();
        let base = TimeDelta::seconds(i64::try_from(base).unwrap());
        assert!((base * 9 / 10..=base * 11 / 10).contains(&wait), "{wait}");
        // A moment before, nothing happens.
        bench.advance(wait - TimeDelta::milliseconds(1));
        bench.settle(&hook(&well)).await;
        assert_eq!(requests(&server).await.len(), number);
        bench.advance(TimeDelta::milliseconds(1));
    }
    let delivery = bench.reaches(id, DeliveryStatus::Delivered).await;
    assert_eq!(delivery.attempt, 3);

    let received = requests(&server).await;
    assert_eq!(received.len(), 3);
    for request in &received {
        assert_eq!(request.body, received[0].body);
        assert_eq!(header(request, "webhook-id"), id.to_string());
    }
    assert_ne!(
        header(&received[0], "webhook-timestamp"),
        header(&received[2], "webhook-timestamp")
    );
    assert_ne!(
        header(&received[0], "webhook-signature"),
        header(&received[2], "webhook-signature")
    );
}

#[tokio::test]
async fn the_tenth_failure_is_the_last() {
    let bench = Bench::start(config()).await;
    let server = receiver(ResponseTemplate::new(503)).await;
    let id = bench.owe(&hook(&server)).await;
    for number in 1..=9 {
        bench.attempt(id, number).await;
        let next = bench.delivery(id).await.next_attempt_at.unwrap();
        bench.advance(next - bench.clock.now());
    }
    let delivery = bench.reaches(id, DeliveryStatus::Failed).await;
    assert_eq!((delivery.attempt, delivery.next_attempt_at), (10, None));
    assert_eq!(requests(&server).await.len(), 10);

    bench.store.redeliver(id, &bench.account, bench.clock.now()).await.unwrap().unwrap();
    bench.due.notify_one();
    assert_eq!(bench.attempt(id, 11).await.number, 11);
    assert_eq!(bench.delivery(id).await.status, DeliveryStatus::Pending);
}

#[tokio::test]
async fn a_receiver_that_is_gone_is_left_alone() {
    let bench = Bench::start(config()).await;
    let server = receiver(ResponseTemplate::new(410)).await;
    let id = bench.owe(&hook(&server)).await;
    let delivery = bench.reaches(id, DeliveryStatus::Failed).await;
    assert_eq!((delivery.attempt, delivery.next_attempt_at), (1, None));
    assert_eq!(bench.attempts(id).await[0].status_code, Some(410));
}

#[tokio::test]
async fn a_redirect_is_a_failure_and_not_followed() {
    let bench = Bench::start(config()).await;
    let elsewhere = receiver(ResponseTemplate::new(200)).await;
    for status in [301, 302, 303, 307, 308] {
        let answer = ResponseTemplate::new(status).insert_header("location", hook(&elsewhere));
        let server = receiver(answer).await;
        let id = bench.owe(&hook(&server)).await;
        let attempt = bench.attempt(id, 1).await;
        assert_eq!(attempt.status_code, Some(status));
        let expected = format!("answered {status}: redirects are not followed");
        assert_eq!(attempt.error.unwrap(), expected);
        assert_eq!(bench.delivery(id).await.status, DeliveryStatus::Pending);
    }
    assert!(requests(&elsewhere).await.is_empty());
}

#[tokio::test]
async fn a_receiver_that_hangs_is_a_timeout_whatever_it_hangs_at() {
    let bench = Bench::start(CallbacksConfig { timeout_ms: 200, ..config() }).await;
    let silent = Receiver::that_hangs("127.0.0.1").await;
    let stuck = Receiver::that_sends("127.0.0.1", b"HTTP/1.1 200 OK\r\ncontent-le", b"").await;
    for port in [silent.port, stuck.port] {
        let id = bench.owe(&format!("http://127.0.0.1:{port}/")).await;
        let attempt = bench.attempt(id, 1).await;
        assert_eq!(attempt.status_code, None);
        assert_eq!(attempt.error.as_deref(), Some("no answer within 200 ms"));
        assert_eq!(bench.delivery(id).await.status, DeliveryStatus::Pending);
    }
}

#[tokio::test]
async fn a_receiver_that_cannot_be_reached_says_why() {
    let bench = Bench::start(config()).await;
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let id = bench.owe(&format!("http://{nobody}/hook?token=t0ken")).await;
    let error = bench.attempt(id, 1).await.error.unwrap();
    assert!(error.starts_with("no connection: Connection refused"), "{error}");
    let noise = Receiver::that_sends("127.0.0.1", b"SMTP ready\r\n\r\n", b"").await;
    let id = bench.owe(&format!("http://127.0.0.1:{}/?token=t0ken", noise.port)).await;
    let error = bench.attempt(id, 1).await.error.unwrap();
    assert!(error.starts_with("no answer: "), "{error}");
    assert!(!error.contains("t0ken"), "{error}");
    let id = bench.owe("https://receiver.invalid/").await;
    let error = bench.attempt(id, 1).await.error.unwrap();
    assert!(
        error.starts_with("callback_url's host receiver.invalid cannot be resolved"),
        "{error}"
    );
}

#[tokio::test]
async fn an_answer_without_end_costs_neither_memory_nor_time() {
    let bench = Bench::start(config()).await;
    let head = b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\n";
    let endless = Receiver::that_sends("127.0.0.1", head, &[b'x'; 4096]).await;
    let id = bench.owe(&format!("http://127.0.0.1:{}/", endless.port)).await;
    bench.reaches(id, DeliveryStatus::Delivered).await;
    // What is beyond our 64 KiB lies in the kernel's buffers.
    let sent = endless.bytes_sent.load(Ordering::SeqCst);
    assert!(sent < 16 << 20, "{sent} bytes were taken");
    // One that stops in the middle is delivered, too: the status has decided.
    let stops = Receiver::that_sends("127.0.0.1", head, b"").await;
    let id = bench.owe(&format!("http://127.0.0.1:{}/", stops.port)).await;
    bench.reaches(id, DeliveryStatus::Delivered).await;
}

#[tokio::test]
async fn a_forbidden_address_is_a_failed_attempt_and_never_reached() {
    let bench = Bench::start(CallbacksConfig { allow_networks: vec![], ..config() }).await;
    let server = receiver(ResponseTemplate::new(200)).await;
    let port = server.address().port();
    for host in ["localhost", "127.0.0.1", "0x7f.1", "[::ffff:127.0.0.1]", "a.localhost."] {
        let id = bench.owe(&format!("http://{host}:{port}/hook")).await;
        let attempt = bench.attempt(id, 1).await;
        assert_eq!(attempt.status_code, None, "{host}");
        let error = attempt.error.unwrap();
        assert!(error.ends_with("allow it with callbacks.allow_networks"), "{host}: {error}");
        let delivery = bench.delivery(id).await;
        assert_eq!(delivery.status, DeliveryStatus::Pending);
        assert!(delivery.next_attempt_at.is_some());
    }
    assert!(requests(&server).await.is_empty());
}

#[tokio::test]
async fn a_name_is_looked_up_by_the_guard_and_kept_in_the_host_header() {
    let bench = Bench::start(config()).await;
    let server = receiver(ResponseTemplate::new(200)).await;
    let port = server.address().port();
    let id = bench.owe(&format!("http://receiver.localhost:{port}/hook")).await;
    bench.reaches(id, DeliveryStatus::Delivered).await;
    assert_eq!(header(&requests(&server).await[0], "host"), format!("receiver.localhost:{port}"));
}

#[tokio::test]
async fn a_hanging_host_has_its_slots_and_delays_no_other() {
    let bench = Bench::start(CallbacksConfig { concurrency: 4, per_host: 3, ..config() }).await;
    let hanging = Receiver::that_hangs("127.0.0.1").await;
    for _ in 0..12 {
        bench.owe(&format!("http://127.0.0.1:{}/", hanging.port)).await;
    }
    eventually("the host's slots".to_owned(), async || (hanging.connections() == 3).then_some(()))
        .await;
    let server = receiver(ResponseTemplate::new(200)).await;
    let url = format!("http://localhost:{}/hook", server.address().port());
    for _ in 0..20 {
        bench.settle(&url).await;
    }
    assert_eq!(hanging.connections(), 3, "the cap holds");
}

#[tokio::test]
async fn a_backlog_for_one_host_is_worked_off() {
    let bench = Bench::start(CallbacksConfig { concurrency: 8, per_host: 1, ..config() }).await;
    let slow = ResponseTemplate::new(200).set_delay(Duration::from_millis(5));
    let server = receiver(slow).await;
    let mut ids = Vec::new();
    for _ in 0..20 {
        ids.push(bench.owe(&hook(&server)).await);
    }
    for id in ids {
        bench.reaches(id, DeliveryStatus::Delivered).await;
    }
    assert_eq!(requests(&server).await.len(), 20);
}

#[tokio::test]
async fn a_long_response_is_named_by_its_address() {
    let bench = Bench::start(config()).await;
    let server = receiver(ResponseTemplate::new(200)).await;
    for (length, is_inline) in
        [(MAX_INLINE_RESPONSE_BYTES, true), (MAX_INLINE_RESPONSE_BYTES + 1, false)]
    {
        let response = format!("\"{}\"", "x".repeat(length - 2));
        let (job, id) = bench.owe_for(&hook(&server), &response).await;
        bench.reaches(id, DeliveryStatus::Delivered).await;
        let request = requests(&server).await.pop().unwrap();
        bench.verifier().verify(&request.body, &request.headers).unwrap();
        let body: serde_json::Value = serde_json::from_slice(&request.body).unwrap();
        let data = body["data"].as_object().unwrap();
        assert_eq!(data["usage"]["input_tokens"], 3);
        if is_inline {
            assert_eq!(data["response"].as_str().unwrap().len(), length - 2);
            assert!(!data.contains_key("result_url"));
        } else {
            assert_eq!(data["response"], serde_json::Value::Null);
            let expected = format!("https://inferq.example/base/v5/jobs/{job}");
            assert_eq!(data["result_url"], expected);
        }
    }
}

#[tokio::test]
async fn during_a_rotation_both_secrets_sign() {
    let bench = Bench::start(config()).await;
    let server = receiver(ResponseTemplate::new(200)).await;
    let new = generate_secret(&mut StdRng::seed_from_u64(1));
    let now = bench.clock.now();
    let until = now + TimeDelta::hours(24);
    assert!(bench.store.rotate_webhook_secret(&bench.account, &new, now, until).await.unwrap());
    bench.settle(&hook(&server)).await;
    let request = requests(&server).await.remove(0);
    assert_eq!(header(&request, "webhook-signature").split(' ').count(), 2);
    bench.verifier().verify(&request.body, &request.headers).unwrap();
    let verifier = standardwebhooks::Webhook::new(new.expose_secret()).unwrap();
    verifier.verify(&request.body, &request.headers).unwrap();
}

#[tokio::test]
async fn a_store_that_is_away_is_asked_again() {
    let bench = Bench::start_unmigrated(config()).await;
    // The first questions fail: there are no tables.
    bench.prepare().await;
    let server = receiver(ResponseTemplate::new(200)).await;
    bench.settle(&hook(&server)).await;
}

#[tokio::test]
async fn attempts_and_lag_are_measured() {
    let metrics = install_metrics();
    let bench = Bench::start(config()).await;
    let server = receiver(ResponseTemplate::new(410)).await;
    let id = bench.owe(&hook(&server)).await;
    bench.reaches(id, DeliveryStatus::Failed).await;
    let wanted =
        ["inferq_callback_attempts_total{outcome=\"failed\"}", "inferq_callback_lag_seconds"];
    let rendered = async || {
        let text = metrics.render();
        wanted.iter().all(|name| text.contains(name)).then_some(())
    };
    eventually("the metrics".to_owned(), rendered).await;
}

#[tokio::test]
async fn a_soft_stop_lets_an_attempt_in_flight_end() {
    let mut bench = Bench::start(config()).await;
    let server = receiver(ResponseTemplate::new(200).set_delay(Duration::from_millis(300))).await;
    let id = bench.owe(&hook(&server)).await;
    bench.reaches(id, DeliveryStatus::Delivering).await;
    bench.shutdown.soft.cancel();
    bench.stopped().await;
    assert_eq!(bench.delivery(id).await.status, DeliveryStatus::Delivered);
    let late = bench.owe(&hook(&server)).await;
    assert_eq!(bench.delivery(late).await.status, DeliveryStatus::Pending);
}

#[tokio::test]
async fn a_hard_stop_drops_what_hangs_and_another_instance_frees_it() {
    let mut bench = Bench::start(config()).await;
    let hanging = Receiver::that_hangs("127.0.0.1").await;
    let id = bench.owe(&format!("http://127.0.0.1:{}/", hanging.port)).await;
    bench.reaches(id, DeliveryStatus::Delivering).await;
    bench.shutdown.hard.cancel();
    bench.stopped().await;
    assert_eq!(bench.delivery(id).await.status, DeliveryStatus::Delivering);
    assert!(bench.attempts(id).await.is_empty());
    bench.store.retire(bench.instance).await.unwrap();
    let now = bench.clock.now();
    let other = InstanceId::new(now);
    let host = "test".to_owned();
    bench.store.register(&NewInstance { id: other, role: "worker", host }).await.unwrap();
    let rescued = bench.store.rescue(other, now, 100).await.unwrap();
    assert_eq!(rescued.deliveries, 1);
    assert_eq!(bench.delivery(id).await.status, DeliveryStatus::Pending);
}

#[tokio::test]
async fn an_instance_that_was_lost_meanwhile_records_nothing() {
    let mut bench = Bench::start(config()).await;
    let server = receiver(ResponseTemplate::new(200).set_delay(Duration::from_millis(300))).await;
    let id = bench.owe(&hook(&server)).await;
    bench.reaches(id, DeliveryStatus::Delivering).await;
    bench.store.retire(bench.instance).await.unwrap();
    let arrived = async || (!requests(&server).await.is_empty()).then_some(());
    eventually("the request".to_owned(), arrived).await;
    bench.shutdown.soft.cancel();
    bench.stopped().await;
    assert!(bench.attempts(id).await.is_empty());
    assert_eq!(bench.delivery(id).await.status, DeliveryStatus::Delivering);
}
