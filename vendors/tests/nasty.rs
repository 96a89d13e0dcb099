//! What a vendor's server can do wrong on the wire, and what becomes of the attempt.

mod support;

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures::StreamExt as _;
use inferq_common::{clock::SystemClock, config::VendorConfig, error::ErrorClass, usage::Usage};
use inferq_vendors::{Adapter as _, Chunk, VendorError, openai, remote::http::Clients};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpSocket, TcpStream},
    sync::mpsc,
    time::Instant,
};

use self::support::{Server, adapter, call, soon};

const CHAT: &str = r#"{"messages":[]}"#;

/// Calls a server that answers with these bytes and closes.
async fn call_with_answer(bytes: impl Into<Vec<u8>>) -> VendorError {
    let server = Server::answering(bytes).await;
    soon(server.adapter(|_| {}).call(&call(CHAT))).await.expect_err("it cannot succeed")
}

fn with_length(content_type: &str, length: usize, body: &str) -> String {
    format!(
        "HTTP/1.1 200 OK\r\ncontent-type: {content_type}\r\ncontent-length: {length}\r\n\r\n{body}"
    )
}

#[track_caller]
fn assert_error(error: &VendorError, class: ErrorClass, message: &str) {
    let (text, found) = (error.to_string(), error.class());
    assert_eq!(found, class, "{text}");
    assert!(text.contains(message), "{text:?} does not say {message:?}");
}

#[tokio::test]
async fn nobody_listens() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let adapter = adapter(&format!("http://user:secret@{address}/v1?key=secret"), |_| {});
    let error = soon(adapter.call(&call(CHAT))).await.unwrap_err();
    assert_error(&error, ErrorClass::Transient, "refused the connection: nothing listens there");
    assert!(error.to_string().starts_with(&address.to_string()), "{error}");
    assert!(!format!("{error:?}{adapter:?}").contains("secret"), "{error:?} {adapter:?}");
}

#[tokio::test]
async fn nobody_takes_the_connection() {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let full = socket.listen(1).unwrap();
    let address = full.local_addr().unwrap();
    // The kernel answers for as many as may wait, and one more.
    let waiting = [TcpStream::connect(address).await, TcpStream::connect(address).await];
    assert!(waiting.iter().all(Result::is_ok));
    let adapter =
        adapter(&format!("http://{address}/v1"), |config| config.connect_timeout_ms = 100);
    let error = soon(adapter.call(&call(CHAT))).await.unwrap_err();
    assert_error(&error, ErrorClass::Transient, "did not take a connection within 100ms");
}

#[tokio::test]
async fn the_name_cannot_be_resolved() {
    let adapter = adapter("http://vendor.invalid/v1?key=secret", |_| {});
    let error = soon(adapter.call(&call(CHAT))).await.unwrap_err();
    assert_error(&error, ErrorClass::Transient, "the address of vendor.invalid:80 cannot be found");
    assert!(!format!("{error:?}").contains("secret"), "{error:?}");
}

#[tokio::test]
async fn the_server_speaks_no_tls() {
    let plain = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = plain.local_addr().unwrap();
    let adapter = adapter(&format!("https://{address}/v1"), |_| {});
    let serve = async {
        let (mut socket, _) = plain.accept().await.unwrap();
        socket.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
        socket.shutdown().await.unwrap();
        // Reading what is left keeps the kernel from resetting the connection.
        let _ = socket.read_to_end(&mut Vec::new()).await;
    };
    let call = call(CHAT);
    let (called, ()) = soon(async { tokio::join!(adapter.call(&call), serve) }).await;
    let error = called.unwrap_err();
    assert_error(&error, ErrorClass::Transient, &format!("TLS with {address} failed"));
}

#[tokio::test]
async fn the_socket_closes_at_once() {
    let error = call_with_answer("").await;
    assert_error(&error, ErrorClass::Transient, "closed the connection before it answered");
    let error = call_with_answer("HTTP/1.1 200 OK\r\ncontent-").await;
    assert_error(&error, ErrorClass::Transient, "closed the connection before it answered");
}

#[tokio::test]
async fn the_status_line_is_garbage() {
    let error = call_with_answer("SSH-2.0-OpenSSH_9.2p1\r\n\r\n").await;
    assert_error(&error, ErrorClass::Transient, "answered something that is not HTTP");
}

#[tokio::test]
async fn the_head_has_no_end() {
    let head = format!("HTTP/1.1 200 OK\r\nx-big: {}\r\n\r\n", "x".repeat(1 << 20));
    let error = call_with_answer(head).await;
    assert_error(&error, ErrorClass::Transient, "the head of the answer of 127.0.0.1");
}

#[tokio::test]
async fn half_a_body() {
    let error = call_with_answer(with_length("application/json", 100, r#"{"choices":["#)).await;
    assert_error(&error, ErrorClass::Transient, "closed the connection in the middle");
    let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\n{\"cho\r\n";
    let error = call_with_answer(chunked).await;
    assert_error(&error, ErrorClass::Transient, "closed the connection in the middle");
    let to_the_end = "HTTP/1.1 200 OK\r\n\r\n{\"choices\":[";
    let error = call_with_answer(to_the_end).await;
    assert_error(&error, ErrorClass::Transient, "ends in the middle of its JSON");
}

#[tokio::test]
async fn a_page_instead_of_json() {
    let page = "<html><body>Please sign in</body></html>";
    let error = call_with_answer(with_length("text/html", page.len(), page)).await;
    assert_error(&error, ErrorClass::Protocol, "(content type text/html): it is not JSON: <html>");
    let error = call_with_answer(with_length("application/json", page.len(), page)).await;
    assert_error(&error, ErrorClass::Protocol, "(content type application/json): it is not JSON");
    let error = call_with_answer(with_length("application/json", 0, "")).await;
    assert_error(&error, ErrorClass::Protocol, "the vendor answered with nothing");
}

#[tokio::test]
async fn json_under_a_wrong_content_type_is_good_enough() {
    let body = r#"{"choices":[]}"#;
    let server = Server::answering(with_length("text/plain", body.len(), body)).await;
    let reply = soon(server.adapter(|_| {}).call(&call(CHAT))).await.unwrap();
    assert_eq!(reply.response.as_str(), body);
}

#[tokio::test]
async fn an_error_inside_a_200() {
    let body = r#"{"error":{"message":"try again in 2s","code":"rate_limit_exceeded"}}"#;
    let error = call_with_answer(with_length("application/json", body.len(), body)).await;
    assert_error(&error, ErrorClass::RateLimited, "try again in 2s");
    assert_eq!(error.retry_after, Some(Duration::from_secs(2)));
    assert_eq!(error.error.vendor_status, None);
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let other = Server::answering(with_length("application/json", 2, "{}")).await;
    let location = format!("http://{}/v1/chat/completions", other.address);
    let error = call_with_answer(format!(
        "HTTP/1.1 307 Temporary Redirect\r\nlocation: {location}\r\ncontent-length: 0\r\n\r\n"
    ))
    .await;
    assert_error(&error, ErrorClass::Protocol, "the vendor answered 307");
    assert!(other.requests().is_empty());
}

#[tokio::test]
async fn compression_that_is_broken_or_cut() {
    let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-encoding: gzip\r\n";
    let garbage = [head.as_bytes(), b"content-length: 7\r\n\r\ngarbage"].concat();
    let error = call_with_answer(garbage).await;
    assert_error(&error, ErrorClass::Protocol, "the compression of the answer");
    // The first bytes of a gzip member, and then the end.
    let cut =
        [head.as_bytes(), b"content-length: 12\r\n\r\n\x1f\x8b\x08\0\0\0\0\0\0\x03\xabV"].concat();
    let error = call_with_answer(cut).await;
    assert_error(&error, ErrorClass::Transient, "in the middle of its answer");
}

/// Writes spaces until the client hangs up; answers how many bytes went out.
async fn pour(mut socket: TcpStream) -> usize {
    let spaces = vec![b' '; 64 * 1024];
    let mut n_bytes = 0;
    while let Ok(n) = socket.write(&spaces).await {
        n_bytes += n;
    }
    n_bytes
}

/// A server that starts with `head` and then never stops; tells how much of it went out.
async fn endless(head: String) -> (Server, mpsc::UnboundedReceiver<usize>) {
    let (sent, written) = mpsc::unbounded_channel();
    let head = Arc::new(head);
    let server = Server::start(move |mut socket| {
        let (sent, head) = (sent.clone(), Arc::clone(&head));
        async move {
            socket.write_all(head.as_bytes()).await.expect("the client is there");
            let _ = sent.send(pour(socket).await);
        }
    })
    .await;
    (server, written)
}

#[tokio::test]
async fn an_endless_body_is_read_to_the_bound_and_no_further() {
    let heads = [
        "HTTP/1.1 200 OK\r\ncontent-length: 500000000\r\n\r\n",
        "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n",
        // Of an error's body even less is read.
        "HTTP/1.1 500 Oh no\r\ncontent-length: 500000000\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n",
    ];
    for head in heads {
        let (server, mut written) = endless(head.to_owned()).await;
        let adapter = server.adapter(|config| config.max_response_bytes = 1 << 20);
        let error = if head.contains("event-stream") {
            let mut chunks = soon(adapter.stream(&call(CHAT))).await.unwrap();
            soon(chunks.next()).await.unwrap().unwrap_err()
        } else {
            soon(adapter.call(&call(CHAT))).await.unwrap_err()
        };
        if head.contains("500 Oh no") {
            assert_error(&error, ErrorClass::Transient, "the vendor answered 500");
        } else {
            assert_error(&error, ErrorClass::ResponseTooLarge, "larger than 1048576 bytes");
        }
        // What the sockets hold in their buffers comes on top of what was read.
        let n_bytes = soon(written.recv()).await.unwrap();
        assert!(n_bytes < 16 << 20, "{n_bytes} bytes went out after {head:?}");
    }
}

#[tokio::test]
async fn the_bound_counts_what_decompresses() {
    // Some 66,000 bytes of gzip that are 10 MiB of zeros.
    let bomb = gzip_of_zeros(10 << 20);
    assert!(bomb.len() < 100_000);
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: {}\r\n\r\n",
        bomb.len()
    );
    let server = Server::answering([head.into_bytes(), bomb].concat()).await;
    let adapter = server.adapter(|config| config.max_response_bytes = 1 << 20);
    let error = soon(adapter.call(&call(CHAT))).await.unwrap_err();
    assert_error(&error, ErrorClass::ResponseTooLarge, "larger than 1048576 bytes");
}

/// A gzip member of `n` zero bytes, without its checksum: nobody reads so far.
fn gzip_of_zeros(n: usize) -> Vec<u8> {
    let mut bits = Bits::default();
    bits.push(0b011, 3); // One last block with fixed codes.
    bits.push_code(0x30, 8); // A zero byte.
    for _ in 0..n / 258 {
        bits.push_code(0b1100_0101, 8); // The 258 bytes …
        bits.push_code(0, 5); // … that lie one byte back.
    }
    [b"\x1f\x8b\x08\0\0\0\0\0\0\x03".as_slice(), &bits.bytes].concat()
}

/// Bits as deflate packs them (RFC 1951 §3.1.1).
#[derive(Default)]
struct Bits {
    bytes: Vec<u8>,
    n_bits: usize,
}

impl Bits {
    /// Adds a number, its lowest bit first.
    fn push(&mut self, number: u32, n_bits: u32) {
        for bit in 0..n_bits {
            if self.n_bits.is_multiple_of(8) {
                self.bytes.push(0);
            }
            if number >> bit & 1 == 1 {
                *self.bytes.last_mut().expect("one was pushed") |= 1 << (self.n_bits % 8);
            }
            self.n_bits += 1;
        }
    }

    /// Adds a Huffman code, its highest bit first.
    fn push_code(&mut self, code: u32, n_bits: u32) {
        self.push(code.reverse_bits() >> (32 - n_bits), n_bits);
    }
}

/// A server that writes `first` and then nothing, and tells when the client hung up.
async fn silent_after(first: &'static str) -> (Server, mpsc::UnboundedReceiver<Instant>) {
    let (closed, when) = mpsc::unbounded_channel();
    let server = Server::start(move |mut socket| {
        let closed = closed.clone();
        async move {
            socket.write_all(first.as_bytes()).await.expect("the client is there");
            let mut rest = Vec::new();
            let _ = socket.read_to_end(&mut rest).await;
            let _ = closed.send(Instant::now());
        }
    })
    .await;
    (server, when)
}

#[tokio::test]
async fn a_dropped_call_closes_its_socket() {
    let heads = [
        "",
        "HTTP/1.1 200 OK\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{",
        "HTTP/1.1 500 Oh no\r\ncontent-length: 100\r\n\r\n{",
    ];
    for first in heads {
        let (server, mut closed) = silent_after(first).await;
        let adapter = server.adapter(|_| {});
        let call = call(CHAT);
        let called = tokio::time::timeout(Duration::from_millis(100), adapter.call(&call)).await;
        assert!(called.is_err(), "it cannot have answered");
        let dropped = Instant::now();
        let after = soon(closed.recv()).await.unwrap().duration_since(dropped);
        assert!(after < Duration::from_millis(250), "{after:?} after {first:?}");
    }
}

#[tokio::test]
async fn a_vendor_that_does_not_begin_to_answer_is_given_up() {
    for first in ["", "HTTP/1.1 200 OK\r\n"] {
        let (server, mut closed) = silent_after(first).await;
        let adapter = server.adapter(|config| config.first_byte_timeout_ms = Some(50));
        let error = soon(adapter.call(&call(CHAT))).await.unwrap_err();
        assert_error(&error, ErrorClass::Transient, "sent no answer within 50ms");
        let error = soon(adapter.stream(&call(CHAT))).await.err().unwrap();
        assert_error(&error, ErrorClass::Transient, "sent no answer within 50ms");
        soon(closed.recv()).await.unwrap();
    }
    // The rest of the answer may take as long as it likes.
    let server = Server::start(|mut socket| async move {
        let answer = with_length("application/json", 2, "{}");
        let (head, body) = answer.split_at(answer.len() - 2);
        socket.write_all(head.as_bytes()).await.unwrap();
        tokio::time::sleep(Duration::from_millis(300)).await;
        socket.write_all(body.as_bytes()).await.unwrap();
    })
    .await;
    let adapter = server.adapter(|config| config.first_byte_timeout_ms = Some(200));
    assert_eq!(soon(adapter.call(&call(CHAT))).await.unwrap().response.as_str(), "{}");
}

#[tokio::test]
async fn a_configured_proxy_is_asked_for_the_vendor_s_address() {
    let proxy = Server::answering(with_length("application/json", 2, "{}")).await;
    let adapter = adapter("http://vendor.invalid/v1", |config| {
        config.proxy = Some(format!("http://{}", proxy.address).parse().unwrap());
    });
    assert_eq!(soon(adapter.call(&call(CHAT))).await.unwrap().response.as_str(), "{}");
    let head = &proxy.requests()[0].head;
    assert!(head.starts_with("POST http://vendor.invalid/v1/chat/completions HTTP/1.1"), "{head}");

    let adapter = support::adapter("https://vendor.invalid/v1", |config| {
        config.proxy = Some(format!("http://{}", proxy.address).parse().unwrap());
    });
    let error = soon(adapter.call(&call(CHAT))).await.unwrap_err();
    assert_eq!(error.class(), ErrorClass::Transient, "it speaks no TLS");
    let head = &proxy.requests()[1].head;
    assert!(head.starts_with("CONNECT vendor.invalid:443 HTTP/1.1"), "{head}");
}

#[tokio::test]
async fn a_host_has_no_more_connections_than_are_allowed_whatever_the_key() {
    let (open, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (now, peak) = (Arc::clone(&open), Arc::clone(&most));
    let server = Server::start(move |mut socket| {
        let (now, peak) = (Arc::clone(&now), Arc::clone(&peak));
        async move {
            peak.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            tokio::time::sleep(Duration::from_millis(20)).await;
            now.fetch_sub(1, Ordering::SeqCst);
            let answer = with_length("application/json", 2, "{}");
            socket.write_all(answer.as_bytes()).await.unwrap();
        }
    })
    .await;
    let clients = Clients::default();
    let with_key = |key: &str| {
        let config = VendorConfig {
            base_url: Some(format!("http://{}/v1", server.address).parse().unwrap()),
            api_key: Some(key.into()),
            max_connections: 2,
            ..VendorConfig::default()
        };
        openai::adapter(&config, &clients, Arc::new(SystemClock)).unwrap()
    };
    let adapters = ["key-number-1", "key-number-2", "key-number-3"].map(with_key);
    let call = call(CHAT);
    let calls = adapters.iter().cycle().take(12).map(|adapter| adapter.call(&call));
    for reply in soon(futures::future::join_all(calls)).await {
        reply.unwrap();
    }
    assert_eq!((server.requests().len(), most.load(Ordering::SeqCst)), (12, 2));
}

const STREAM: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n\
                      data: {\"choices\":[{\"delta\":{},\"finish_reason\":null}]}\n\n";

#[tokio::test]
async fn a_dropped_stream_closes_its_socket() {
    let (server, mut closed) = silent_after(STREAM).await;
    let mut chunks = soon(server.adapter(|_| {}).stream(&call(CHAT))).await.unwrap();
    assert!(matches!(soon(chunks.next()).await, Some(Ok(Chunk::Data(_)))));
    let dropped = Instant::now();
    drop(chunks);
    let after = soon(closed.recv()).await.unwrap().duration_since(dropped);
    assert!(after < Duration::from_millis(250), "{after:?}");
}

#[tokio::test]
async fn a_stream_that_falls_silent_ends() {
    let (server, mut closed) = silent_after(STREAM).await;
    let adapter = server.adapter(|config| config.idle_timeout_ms = 50);
    let mut chunks = soon(adapter.stream(&call(CHAT))).await.unwrap();
    assert!(matches!(soon(chunks.next()).await, Some(Ok(Chunk::Data(_)))));
    let error = soon(chunks.next()).await.unwrap().unwrap_err();
    assert_error(&error, ErrorClass::Transient, "the vendor's stream was silent for 50ms");
    soon(closed.recv()).await.unwrap();
    assert!(soon(chunks.next()).await.is_none());
}

/// All parts of a stream, and what it ended with.
async fn stream_of(bytes: &str) -> (Vec<Bytes>, Result<Usage, VendorError>) {
    let server = Server::answering(bytes).await;
    let mut chunks = match soon(server.adapter(|_| {}).stream(&call(CHAT))).await {
        Ok(chunks) => chunks,
        Err(error) => return (Vec::new(), Err(error)),
    };
    let mut parts = Vec::new();
    while let Some(chunk) = soon(chunks.next()).await {
        let end = match chunk {
            Ok(Chunk::Data(data)) => {
                parts.push(data);
                continue;
            }
            Ok(Chunk::End { usage, .. }) => Ok(usage),
            Err(error) => Err(error),
        };
        assert!(soon(chunks.next()).await.is_none(), "something follows the end");
        return (parts, end);
    }
    panic!("the stream ended without an end")
}

#[tokio::test]
async fn a_stream_that_is_cut() {
    for rest in ["", "data: {\"choices\":[{\"finish_re"] {
        let (parts, end) = stream_of(&format!("{STREAM}{rest}")).await;
        assert_eq!(parts.len(), 1);
        assert_error(&end.unwrap_err(), ErrorClass::Transient, "ended before the answer");
    }
    let chunked = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\
                   transfer-encoding: chunked\r\n\r\n";
    let (parts, end) = stream_of(&format!("{chunked}9\r\ndata: {{}}\n\r\n")).await;
    assert_eq!(parts.len(), 0);
    let message = "closed the connection in the middle of its answer";
    assert_error(&end.unwrap_err(), ErrorClass::Transient, message);
    // The answer was complete: how the connection ended does not matter.
    let stop = "data: {\"choices\":[{\"finish_reason\":\"stop\"}]}\n\n";
    let (parts, end) = stream_of(&format!("{chunked}{:x}\r\n{stop}\r\n", stop.len())).await;
    assert_eq!((parts.len(), end), (1, Ok(Usage::default())));
}

#[tokio::test]
async fn a_stream_that_is_none() {
    let error = r#"{"error":{"message":"busy","code":503}}"#;
    let whole = r#"{"choices":[{}],"usage":{"prompt_tokens":3}}"#;
    let page = "<html>";
    for (content_type, body, class, message) in [
        ("application/json", error, ErrorClass::Overloaded, "busy"),
        ("application/json", whole, ErrorClass::Protocol, "it is whole, not a stream"),
        ("text/html", page, ErrorClass::Protocol, "(content type text/html): it is not JSON"),
        (
            "text/event-stream",
            "data: hello\n\nd",
            ErrorClass::Protocol,
            "is not a JSON object: hello",
        ),
    ] {
        let (_, end) = stream_of(&with_length(content_type, body.len(), body)).await;
        assert_error(&end.unwrap_err(), class, message);
    }
    let (_, end) = stream_of(
        "HTTP/1.1 429 Too Many\r\ncontent-type: text/event-stream\r\nretry-after: 3\r\n\r\n",
    )
    .await;
    let error = end.unwrap_err();
    assert_error(&error, ErrorClass::RateLimited, "the vendor answered 429");
    assert_eq!(error.retry_after, Some(Duration::from_secs(3)));
}

#[tokio::test]
async fn a_slow_drip_is_an_answer_all_the_same() {
    let server = Server::start(|mut socket| async move {
        let body = r#"{"choices":[{"text":"drip"}]}"#;
        for byte in with_length("application/json", body.len(), body).into_bytes() {
            if socket.write_all(&[byte]).await.is_err() {
                return;
            }
            tokio::task::yield_now().await;
        }
    })
    .await;
    let reply = soon(server.adapter(|_| {}).call(&call(CHAT))).await.unwrap();
    assert_eq!(reply.response.as_str(), r#"{"choices":[{"text":"drip"}]}"#);
}

#[tokio::test]
async fn one_connection_serves_call_after_call() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let adapter = adapter(&format!("http://{}/v1", listener.local_addr().unwrap()), |_| {});
    let serve = async {
        let (mut socket, _) = listener.accept().await.unwrap();
        loop {
            let mut request = vec![0; 4096];
            if socket.read(&mut request).await.unwrap() == 0 {
                break;
            }
            if request.windows(5).any(|text| text == b"event") {
                let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n";
                let chunk = "transfer-encoding: chunked\r\n\r\ne\r\ndata: [DONE]\n\n\r\n";
                socket.write_all(format!("{head}{chunk}").as_bytes()).await.unwrap();
                // The end of the body comes a moment after the end of the answer.
                tokio::time::sleep(Duration::from_millis(5)).await;
                socket.write_all(b"0\r\n\r\n").await.unwrap();
            } else {
                let answer = with_length("application/json", 2, "{}");
                socket.write_all(answer.as_bytes()).await.unwrap();
            }
        }
    };
    let calls = async {
        for _ in 0..3 {
            adapter.call(&call(CHAT)).await.unwrap();
            let chunks = adapter.stream(&call(CHAT)).await.unwrap();
            assert_eq!(chunks.count().await, 1);
        }
    };
    soon(async {
        tokio::select! {
            () = serve => panic!("the client closed the connection"),
            () = calls => {}
        }
    })
    .await;
}
