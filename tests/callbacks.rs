//! Every final status is told, to receivers good and bad, and to no address it must not go to.

#![expect(clippy::unwrap_used, reason = "stories unwrap freely")]

mod harness;

use std::time::{Duration, Instant};

use harness::{Mode, Platform, chat, echo, eventually, receiver::Receiver};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

stories!(
    a_receiver_that_fails_once_is_called_again,
    a_receiver_that_is_gone_is_left_alone,
    a_redirect_is_a_failure,
    a_hanging_receiver_delays_no_other,
    failure_and_cancellation_are_told_too,
    a_delivery_is_repeated_on_request,
    a_forbidden_address_is_refused_at_submit,
);

async fn submit(platform: &Platform, mut body: Value, url: &str) -> String {
    body["callback_url"] = url.into();
    platform.submit(&body).await
}

/// The job's only delivery once `done` holds of it.
async fn delivery(platform: &Platform, job: &str, done: impl Fn(&Value) -> bool) -> Value {
    eventually(&format!("the delivery of {job}"), async || {
        let page = platform.get(&format!("/v5/jobs/{job}/deliveries")).await;
        let delivery = page["items"][0].clone();
        (!delivery.is_null() && done(&delivery)).then_some(delivery)
    })
    .await
}

async fn attempts(platform: &Platform, delivery: &Value) -> Vec<Value> {
    let path = format!("/v5/deliveries/{}", delivery["id"].as_str().unwrap());
    platform.get(&path).await["attempts"].as_array().unwrap().clone()
}

async fn a_receiver_that_fails_once_is_called_again(mode: Mode) {
    let platform = Platform::start(mode).await;
    let receiver = Receiver::start().await;
    let job = submit(&platform, echo(&json!({})), &receiver.url("fail_once/1")).await;
    let delivered = delivery(&platform, &job, |delivery| delivery["status"] == "delivered").await;
    let posts = receiver.posts("fail_once/1");
    assert_eq!(posts.len(), 2);
    assert_eq!(posts[0].headers["webhook-id"], posts[1].headers["webhook-id"]);
    assert_eq!(posts[0].body, posts[1].body);
    let wait = posts[1].at - posts[0].at;
    assert!((4.4..8.0).contains(&wait.as_secs_f64()), "the second came after {wait:?}");
    let attempts = attempts(&platform, &delivered).await;
    assert_eq!(attempts.len(), 2);
    assert_eq!(
        (&attempts[0]["status_code"], &attempts[1]["status_code"]),
        (&json!(500), &json!(200))
    );
}

async fn a_receiver_that_is_gone_is_left_alone(mode: Mode) {
    let platform = Platform::start(mode).await;
    let receiver = Receiver::start().await;
    let job = submit(&platform, echo(&json!({})), &receiver.url("status/410")).await;
    delivery(&platform, &job, |delivery| delivery["status"] == "failed").await;
    assert_eq!(receiver.posts("status/410").len(), 1);
}

async fn a_redirect_is_a_failure(mode: Mode) {
    let platform = Platform::start(mode).await;
    let receiver = Receiver::start().await;
    let job = submit(&platform, echo(&json!({})), &receiver.url("redirect/1")).await;
    let pending = |delivery: &Value| delivery["status"] == "pending" && delivery["attempt"] == 1;
    let delivery = delivery(&platform, &job, pending).await;
    assert_eq!(attempts(&platform, &delivery).await[0]["status_code"], 302);
    assert!(receiver.posts("ok/redirected").is_empty());
}

async fn a_hanging_receiver_delays_no_other(mode: Mode) {
    let platform = Platform::start(mode).await;
    let (slow, quick) = (Receiver::start().await, Receiver::start().await);
    // Hosts are told apart by name; both receivers are this machine.
    let slow_url = slow.url("hang/1");
    let quick_url = quick.url("ok/1").replace("127.0.0.1", "localhost");
    for _ in 0..20 {
        submit(&platform, echo(&json!({})), &slow_url).await;
    }
    eventually("the slow receiver to be called", async || slow.posts("hang/1").first().cloned())
        .await;
    let begun = Instant::now();
    submit(&platform, echo(&json!({})), &quick_url).await;
    eventually("the quick receiver to be called", async || quick.posts("ok/1").first().cloned())
        .await;
    assert!(begun.elapsed() < Duration::from_secs(5), "it waited {:?}", begun.elapsed());
}

async fn failure_and_cancellation_are_told_too(mode: Mode) {
    let platform = Platform::start(mode).await;
    let receiver = Receiver::start().await;
    let wrong = chat("wrong", &json!({"fail_times": 9, "status": 400}));
    submit(&platform, wrong, &receiver.url("ok/failed")).await;
    let slow = chat("slow", &json!({"delay_ms": 60_000}));
    let job = submit(&platform, slow, &receiver.url("ok/cancelled")).await;
    let path = format!("/v5/jobs/{job}/cancel");
    assert_eq!(
        platform.request(Method::POST, &path).send().await.unwrap().status(),
        StatusCode::OK
    );
    for (path, kind) in [("ok/failed", "job.failed"), ("ok/cancelled", "job.cancelled")] {
        let post = eventually(kind, async || receiver.posts(path).first().cloned()).await;
        assert_eq!(post.json()["type"], kind);
        assert!(post.json()["data"]["error"]["message"].is_string(), "{}", post.json());
    }
}

async fn a_delivery_is_repeated_on_request(mode: Mode) {
    let platform = Platform::start(mode).await;
    let receiver = Receiver::start().await;
    let job = submit(&platform, echo(&json!({})), &receiver.url("ok/1")).await;
    let first = delivery(&platform, &job, |delivery| delivery["status"] == "delivered").await;
    let path = format!("/v5/deliveries/{}/redeliver", first["id"].as_str().unwrap());
    let response = platform.request(Method::POST, &path).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::ACCEPTED);
    eventually("the second post", async || (receiver.posts("ok/1").len() == 2).then_some(())).await;
    let posts = receiver.posts("ok/1");
    assert_eq!(posts[0].headers["webhook-id"], posts[1].headers["webhook-id"]);
}

/// This machine itself, in odd spellings. `dev` lets callbacks go there, and nobody else does.
const LOOPBACK: &[&str] = &[
    "http://127.0.0.1/",
    "http://127.1/",
    "http://2130706433/",
    "http://0x7f000001/",
    "http://0x7f.1/",
    "http://0177.0.0.1/",
    "http://127.000.000.001/",
    "http://127.0.0.1./",
    "http://localhost/",
    "http://LOCALHOST/",
    "http://localhost./",
    "http://app.localhost/",
    "http://[::1]/",
    "http://[0:0:0:0:0:0:0:1]/",
    "http://[::ffff:127.0.0.1]/",
    "http://[::ffff:7f00:1]/",
    "http://[::127.0.0.1]/",
    "http://[64:ff9b::7f00:1]/",
    "http://[2002:7f00:1::]/",
    "http://%31%32%37.0.0.1/",
    "http://①②⑦.0.0.1/",
];

/// What no callback may reach, and what is no address of a receiver at all.
const FORBIDDEN: &[&str] = &[
    "http://[fe80::1]/",
    "http://[fc00::1]/",
    "http://[fd00:ec2::254]/",
    "http://[::]/",
    "http://0/",
    "http://0.0.0.0/",
    "http://10.0.0.1/",
    "http://0xa.1/",
    "http://172.16.0.1/",
    "http://172.31.255.255/",
    "http://192.168.1.1/",
    "http://3232235777/",
    "http://169.254.169.254/latest/meta-data/",
    "http://[::ffff:169.254.169.254]/",
    "http://100.64.0.1/",
    "http://224.0.0.1/",
    "http://255.255.255.255/",
    "http://198.18.0.1/",
    "http://good.example@10.0.0.1/",
    "http://10.1/",
    "http://012.1/",
    "http://169.254.43518/",
    "http://2852039166/",
    "http://0xa9fea9fe/",
    "http://0251.0376.0251.0376/",
    "http://192.168.257/",
    "http://①⓪.0.0.1/",
    "http://%31%30.0.0.1/",
    "http://[::ffff:10.0.0.1]/",
    "http://[::ffff:a9fe:a9fe]/",
    "http://[64:ff9b::10.0.0.1]/",
    "http://[2002:a00:1::1]/",
    "ftp://example.com/",
    "file:///etc/passwd",
    "javascript:alert(1)",
    "/relative",
    "",
];

async fn a_forbidden_address_is_refused_at_submit(mode: Mode) {
    let none = [("INFERQ__CALLBACKS__ALLOW_NETWORKS", "")];
    // `dev` allows loopback by itself, and so lets those pass which lead there.
    let platform = Platform::start_with(mode, &none).await;
    let loopback: &[&str] = if mode == Mode::Distributed { LOOPBACK } else { &[] };
    for url in loopback.iter().chain(FORBIDDEN) {
        let mut body = echo(&json!({}));
        body["callback_url"] = (*url).into();
        let response = platform.try_submit(&body).await.unwrap();
        let status = response.status();
        let answer: Value = response.json().await.unwrap();
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{url}: {answer}");
        assert_eq!(answer["detail"][0]["loc"], json!(["body", "callback_url"]), "{url}: {answer}");
    }
    let page = platform.get("/v5/jobs").await;
    assert_eq!(page["items"], json!([]), "nothing was stored");
}
