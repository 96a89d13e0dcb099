//! What is reached over TLS is trusted as the machine trusts it; `SSL_CERT_FILE` names an authority
//! of one's own.

#![expect(clippy::unwrap_used, reason = "stories unwrap freely")]

mod harness;

use harness::{
    Mode, Platform, chat, eventually,
    receiver::Receiver,
    tls::{Authority, Front},
    vendor::Vendor,
};
use serde_json::{Value, json};

stories!(
    an_authority_of_ones_own_is_trusted_where_it_is_named,
    a_receiver_nobody_vouches_for_is_told_in_words,
);

fn https(front: &Front, path: &str) -> String {
    format!("https://localhost:{}/{path}", front.address.port())
}

async fn an_authority_of_ones_own_is_trusted_where_it_is_named(mode: Mode) {
    let authority = Authority::new();
    let (vendor, receiver) = (Vendor::start().await, Receiver::start().await);
    let vendor_front = authority.front("localhost", vendor.address()).await;
    let receiver_front = authority.front("localhost", receiver.address()).await;
    let platform = Platform::start_with(
        mode,
        &[
            ("SSL_CERT_FILE", &authority.file()),
            ("INFERQ__VENDORS__OPENAI__BASE_URL", &https(&vendor_front, "v1")),
        ],
    )
    .await;
    let mut body = chat("private", &json!({}));
    body["callback_url"] = https(&receiver_front, "ok/1").into();
    let id = platform.submit(&body).await;
    platform.reaches(&id, "succeeded").await;
    eventually("the callback", async || receiver.posts("ok/1").pop()).await;
    // The address was pinned, and the name was asked for all the same.
    assert_eq!(receiver_front.names(), ["localhost"]);
    assert_eq!(vendor_front.names(), ["localhost"]);
}

async fn a_receiver_nobody_vouches_for_is_told_in_words(mode: Mode) {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let receiver = Receiver::start().await;
    let other_name = authority.front("other.example", receiver.address()).await;
    let unknown = stranger.front("localhost", receiver.address()).await;
    let platform = Platform::start_with(mode, &[("SSL_CERT_FILE", &authority.file())]).await;
    for (front, words) in [
        (&other_name, "TLS failed: its certificate is for other names"),
        (&unknown, "TLS failed: its certificate is of no authority that is trusted here"),
    ] {
        let mut body = harness::echo(&json!({}));
        body["callback_url"] = https(front, "ok/1").into();
        let id = platform.submit(&body).await;
        let error = eventually("an attempt", async || first_error(&platform, &id).await).await;
        assert!(error.contains(words), "{error}");
    }
    assert!(receiver.posts("ok/1").is_empty());
}

/// Why the first attempt to deliver the job's callback failed.
async fn first_error(platform: &Platform, job: &str) -> Option<String> {
    let page = platform.get(&format!("/v5/jobs/{job}/deliveries")).await;
    let id = page["items"][0]["id"].as_str()?.to_owned();
    let delivery: Value = platform.get(&format!("/v5/deliveries/{id}")).await;
    delivery["attempts"][0]["error"].as_str().map(str::to_owned)
}

#[cfg(feature = "servers")]
mod broker {
    use std::{collections::BTreeMap, net::SocketAddr};

    use harness::process::{Process, free_address};
    use inferq_common::testing::{postgres, rabbitmq};
    use url::Url;

    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn rabbitmq_is_reached_over_tls_and_an_authority_it_lacks_is_told_in_words() {
        let authority = Authority::new();
        let mut url = Url::parse(&rabbitmq::virtual_host().await).unwrap();
        let plain: SocketAddr = url.socket_addrs(|| None).unwrap()[0];
        let front = authority.front("localhost", plain).await;
        url.set_scheme("amqps").unwrap();
        url.set_host(Some("localhost")).unwrap();
        url.set_port(Some(front.address.port())).unwrap();
        let database = postgres::fresh_database().await;
        let mut settings = BTreeMap::from([
            ("INFERQ__DATABASE__URL".to_owned(), database),
            ("INFERQ__BROKER__URL".to_owned(), url.to_string()),
        ]);

        let trusting = BTreeMap::from([("SSL_CERT_FILE".to_owned(), authority.file())]);
        let trusting = trusting.into_iter().chain(settings.clone()).collect();
        let platform = Platform::start_on(Mode::Distributed, trusting).await;
        let answer = platform.infer(&harness::echo(&json!({"n": 1}))).await;
        assert_eq!(answer.json::<Value>().await.unwrap()["response"], json!({"n": 1}));
        assert!(!front.names().is_empty());
        assert!(front.names().iter().all(|name| name == "localhost"));

        let stranger = Authority::new();
        settings.insert("SSL_CERT_FILE".to_owned(), stranger.file());
        let listen = free_address();
        let args = ["api", "--listen", &listen.to_string()];
        let _api = Process::start("api", &args, listen, &settings, platform.folder.path());
        let message = eventually("what is wrong with the broker", async || {
            let answer = platform.http.get(format!("http://{listen}/readyz")).send().await.ok()?;
            assert_eq!(answer.status(), 200, "it is degraded, not dead");
            let body: Value = answer.json().await.ok()?;
            let message = body["checks"]["broker"]["message"].as_str()?.to_owned();
            (!message.contains("connecting")).then_some(message)
        })
        .await;
        assert!(message.contains("its certificate is of no authority"), "{message}");
        assert!(message.contains("SSL_CERT_FILE"), "{message}");
    }
}
