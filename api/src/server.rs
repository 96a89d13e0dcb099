//! Serves connections, and stops in good order.

use std::{io, sync::Arc, time::Duration};

use axum::Router;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{conn::auto, graceful::GracefulShutdown},
    service::TowerToHyperService,
};
use inferq_common::shutdown::Shutdown;
#[cfg(target_os = "linux")]
use socket2::SockRef;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::{Api, routes, state::AppState};

/// Bounds how long a connection may take over the head of a request, and how long it may idle
/// between two.
const HEADER_READ_TIMEOUT: Duration = Duration::from_secs(75);

/// A client that takes no byte for so long is cut off: a stream it has forgotten would keep its
/// place for ever. It can resume its job's events.
#[cfg(target_os = "linux")]
const STALLED: Duration = Duration::from_secs(120);

/// Open connections; more wait in the listener's backlog.
const MAX_CONNECTIONS: usize = 16_384;

/// Streams of one HTTP/2 connection at once.
const MAX_HTTP2_STREAMS: u32 = 256;

/// After a failed accept: it is mostly a lack of file descriptors, which passes.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How long callers that are given up have to read their answer.
const FAREWELL: Duration = Duration::from_secs(2);

/// Serves until a soft stop; then accepts no more, and lets callers in flight finish within
/// `shutdown_grace_secs`. Those who still wait then are told that their job goes on. A hard stop
/// does the same at once.
///
/// # Errors
/// If the listener has no address: it was never bound.
pub async fn serve(api: Api, listener: TcpListener, shutdown: Shutdown) -> io::Result<()> {
    let address = listener.local_addr()?;
    let grace = Duration::from_secs(api.config.shutdown_grace_secs);
    let state = AppState::new(api, shutdown.clone());
    let server = Server::new(routes::router(&state));
    info!(%address, "api is listening");
    server.run(listener, &shutdown, grace, &state.closing).await;
    state.tasks.close();
    if timeout(FAREWELL, state.tasks.wait()).await.is_err() {
        warn!("submits in flight were given up");
    }
    info!("api has stopped");
    Ok(())
}

/// Serves `router`, whose answers take no time, as the health and metrics of a worker. After a stop
/// requests in flight have two seconds.
pub async fn serve_operators(router: Router, listener: TcpListener, shutdown: Shutdown) {
    Server::new(router).run(listener, &shutdown, Duration::ZERO, &CancellationToken::new()).await;
}

struct Server {
    router: Router,
    http: auto::Builder<TokioExecutor>,
    graceful: GracefulShutdown,
    connections: JoinSet<()>,
    permits: Arc<Semaphore>,
}

fn http() -> auto::Builder<TokioExecutor> {
    let mut http = auto::Builder::new(TokioExecutor::new());
    http.http1().timer(TokioTimer::new()).header_read_timeout(HEADER_READ_TIMEOUT);
    http.http2().timer(TokioTimer::new()).max_concurrent_streams(MAX_HTTP2_STREAMS);
    http
}

impl Server {
    fn new(router: Router) -> Self {
        Self {
            router,
            http: http(),
            graceful: GracefulShutdown::new(),
            connections: JoinSet::new(),
            permits: Arc::new(Semaphore::new(MAX_CONNECTIONS)),
        }
    }

    /// Serves until a soft stop, and then those in flight for as long as `grace`. Who waits after
    /// that learns of it by `closing`.
    async fn run(
        mut self,
        listener: TcpListener,
        shutdown: &Shutdown,
        grace: Duration,
        closing: &CancellationToken,
    ) {
        shutdown.soft.run_until_cancelled(self.accept_all(&listener)).await;
        drop(listener);
        self.finish(shutdown, grace, closing).await;
    }

    /// **Cancel safe:** an accepted connection is served.
    async fn accept_all(&mut self, listener: &TcpListener) {
        loop {
            let permit = Arc::clone(&self.permits).acquire_owned().await;
            match listener.accept().await {
                Ok((stream, _)) => self.serve_one(stream, permit.ok()),
                Err(error) => {
                    warn!(%error, "connection was not accepted");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
            while self.connections.try_join_next().is_some() {}
        }
    }

    fn serve_one(&mut self, stream: TcpStream, permit: Option<tokio::sync::OwnedSemaphorePermit>) {
        if let Err(error) = stream.set_nodelay(true) {
            debug!(%error, "connection stays with delayed sends");
        }
        #[cfg(target_os = "linux")]
        if let Err(error) = SockRef::from(&stream).set_tcp_user_timeout(Some(STALLED)) {
            debug!(%error, "connection may stall");
        }
        let service = TowerToHyperService::new(self.router.clone());
        let connection = self.http.serve_connection_with_upgrades(TokioIo::new(stream), service);
        let connection = self.graceful.watch(connection.into_owned());
        self.connections.spawn(async move {
            // Who breaks off or speaks no HTTP is no concern of an operator.
            if let Err(error) = connection.await {
                debug!(error, "connection ended early");
            }
            drop(permit);
        });
    }

    /// Lets requests in flight end, then gives up those that wait, then drops what is left.
    async fn finish(mut self, shutdown: &Shutdown, grace: Duration, closing: &CancellationToken) {
        let ended = self.graceful.shutdown();
        tokio::pin!(ended);
        let all_ended = tokio::select! {
            () = &mut ended => true,
            () = sleep(grace) => false,
            () = shutdown.hard.cancelled() => false,
        };
        closing.cancel();
        if !all_ended && timeout(FAREWELL, ended).await.is_err() {
            warn!(connections = self.connections.len(), "connections were cut");
        }
        self.connections.shutdown().await;
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use inferq_common::store::Claim;
    use secrecy::ExposeSecret as _;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;
    use crate::testing::{TestApi, succeeded};

    /// A server on a port of its own, and the task it runs in.
    async fn served(api: &TestApi) -> (SocketAddr, Shutdown, JoinSet<io::Result<()>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shutdown = Shutdown::new();
        let mut tasks = JoinSet::new();
        tasks.spawn(serve(api.state.api.clone(), listener, shutdown.clone()));
        (address, shutdown, tasks)
    }

    /// Sends an inference over a new connection.
    async fn call(api: &TestApi, address: SocketAddr) -> TcpStream {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let body = r#"{"model":"model_zoo/echo"}"#;
        let key = api.key.expose_secret();
        let length = body.len();
        let head = format!("host: x\r\nx-api-key: {key}\r\ncontent-length: {length}\r\n\r\n");
        let request = format!("POST /v5/inference HTTP/1.1\r\n{head}{body}");
        stream.write_all(request.as_bytes()).await.unwrap();
        stream
    }

    async fn answer(mut stream: TcpStream) -> String {
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        text
    }

    #[tokio::test]
    async fn a_caller_in_flight_gets_its_answer_after_a_soft_stop() {
        let api = TestApi::start().await;
        let (address, shutdown, mut tasks) = served(&api).await;
        let stream = call(&api, address).await;
        let claim = api.claim().await;
        shutdown.soft.cancel();
        while TcpStream::connect(address).await.is_ok() {
            tokio::task::yield_now().await;
        }
        api.finish(claim, succeeded("[1]")).await;
        let text = answer(stream).await;
        assert!(text.starts_with("HTTP/1.1 200 OK\r\n"), "{text}");
        assert!(text.ends_with(r#"{"object":"generic_inference","response":[1]}"#), "{text}");
        tasks.join_next().await.unwrap().unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_caller_who_still_waits_when_the_grace_is_over_is_told_the_job() {
        let api = TestApi::with(|config| config.shutdown_grace_secs = 0).await;
        let (address, shutdown, mut tasks) = served(&api).await;
        let stream = call(&api, address).await;
        let claim = api.claim().await;
        shutdown.soft.cancel();
        let text = answer(stream).await;
        assert!(text.starts_with("HTTP/1.1 503 "), "{text}");
        assert!(text.contains("x-should-retry: false\r\n"), "{text}");
        assert!(text.contains(&format!("location: /v5/jobs/{}\r\n", claim.job.id)), "{text}");
        tasks.join_next().await.unwrap().unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_hard_stop_waits_for_nobody() {
        let api = TestApi::start().await;
        let (address, shutdown, mut tasks) = served(&api).await;
        let stream = call(&api, address).await;
        api.claim().await;
        shutdown.hard.cancel();
        assert!(answer(stream).await.starts_with("HTTP/1.1 503 "));
        tasks.join_next().await.unwrap().unwrap().unwrap();
    }

    #[tokio::test]
    async fn half_a_request_holds_up_no_stop() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().route("/healthz", axum::routing::get(async || "alive"));
        let shutdown = Shutdown::new();
        let serving = JoinSet::from_iter([serve_operators(router, listener, shutdown.clone())]);
        let mut stream = TcpStream::connect(address).await.unwrap();
        // A whole one and half of the next.
        let requests = b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\nGET /heal";
        stream.write_all(requests).await.unwrap();
        let mut text = Vec::new();
        while !text.ends_with(b"alive") {
            text.push(stream.read_u8().await.unwrap());
        }
        shutdown.soft.cancel();
        timeout(2 * FAREWELL, serving.join_all()).await.expect("it ends by itself");
        assert!(stream.read_u8().await.is_err(), "its socket is closed");
    }

    /// Sends an `execute` that is to be streamed and reads the head and the first chunk, `1`.
    async fn stream_of(api: &TestApi, address: SocketAddr, header: &str) -> (TcpStream, Claim) {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let key = api.key.expose_secret();
        let body = r#"{"stream":true}"#;
        let length = body.len();
        let head =
            format!("host: x\r\nx-api-key: {key}\r\n{header}content-length: {length}\r\n\r\n");
        let request = format!("POST /v4/serving/a/greeter/execute HTTP/1.1\r\n{head}{body}");
        stream.write_all(request.as_bytes()).await.unwrap();
        let claim = api.claim().await;
        api.tell(&claim, 0, &["1"]);
        let mut text = Vec::new();
        while !text.ends_with(b"data: 1\n\n\r\n") {
            text.push(stream.read_u8().await.unwrap());
        }
        (stream, claim)
    }

    async fn with_greeter() -> TestApi {
        let api = TestApi::with(|config| config.shutdown_grace_secs = 0).await;
        api.add_server("greeter", "model_zoo/echo").await;
        api
    }

    #[tokio::test]
    async fn a_reader_whose_socket_closes_is_noticed_at_once() {
        let api = with_greeter().await;
        let (address, _shutdown, _tasks) = served(&api).await;
        let (stream, _) = stream_of(&api, address, "").await;
        assert_eq!(api.state.waiters.len(), 1);
        drop(stream);
        while !api.state.waiters.is_empty() {
            tokio::task::yield_now().await;
        }
        let header = "x-cancel-on-disconnect: true\r\n";
        let (stream, claim) = stream_of(&api, address, header).await;
        drop(stream);
        let path = format!("/v5/jobs/{}", claim.job.id);
        let poll = [("prefer", "wait=10")];
        let job = api.send(api.request(http::Method::GET, &path, &poll, "")).await.json();
        assert_eq!(job["status"], "cancelled");
    }

    #[tokio::test]
    async fn a_stop_ends_a_stream_with_an_error_and_cancels_nothing() {
        let api = with_greeter().await;
        let (address, shutdown, mut tasks) = served(&api).await;
        let header = "x-cancel-on-disconnect: true\r\n";
        let (stream, claim) = stream_of(&api, address, header).await;
        shutdown.soft.cancel();
        let text = answer(stream).await;
        assert!(text.contains("event: error\ndata: {"), "{text}");
        assert!(!text.contains("[DONE]"), "{text}");
        tasks.join_next().await.unwrap().unwrap().unwrap();
        let job = api.get(&format!("/v5/jobs/{}", claim.job.id)).await.json();
        assert_eq!(job["status"], "running");
    }

    #[tokio::test]
    async fn a_reader_that_comes_late_gets_every_chunk() {
        let api = with_greeter().await;
        let (address, _shutdown, _tasks) = served(&api).await;
        let (mut stream, claim) = stream_of(&api, address, "").await;
        let text = format!("\"{}\"", "x".repeat(50_000));
        api.append(&claim, 0, &["1"]).await;
        for n in 1..=400 {
            api.append(&claim, n, &[&text]).await;
            api.tell(&claim, n, &[&text]);
            tokio::task::yield_now().await;
        }
        api.finish_stream(claim, 401, succeeded("0")).await;
        let mut seen = Vec::new();
        while !seen.ends_with(b"[DONE]\n\n\r\n0\r\n\r\n") {
            let mut part = vec![0; 65536];
            let n = stream.read(&mut part).await.unwrap();
            assert_ne!(n, 0, "cut after {} bytes", seen.len());
            seen.extend_from_slice(&part[..n]);
        }
        let seen = String::from_utf8(seen).unwrap();
        assert_eq!(seen.matches("data: \"x").count(), 400);
    }
}
