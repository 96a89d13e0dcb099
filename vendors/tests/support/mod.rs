//! A server that answers with exactly the bytes a test wants, and an adapter that calls it.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use inferq_common::{
    clock::{Clock as _, ManualClock, SystemClock},
    config::VendorConfig,
    id::JobId,
    job::Json,
};
use inferq_vendors::{
    Call, Share,
    openai::{self, OpenAi},
    remote::{Remote, http::Clients},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

/// One request as it came over the wire.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    /// `POST /v1/responses HTTP/1.1` and the headers, in lower case but for the first line.
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }
}

/// Serves until it is dropped.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    requests: Arc<Mutex<Vec<Request>>>,
    _tasks: JoinSet<()>,
}

impl Server {
    /// Lets `handle` write the answer to each request; the socket closes when it returns.
    pub(crate) async fn start<F, Fut>(handle: F) -> Self
    where
        F: Fn(TcpStream) -> Fut + Send + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("a bound socket");
        let requests = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&requests);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((mut socket, _)) = listener.accept().await {
                let Some(request) = read_request(&mut socket).await else { continue };
                seen.lock().expect("no panic while locked").push(request);
                connections.spawn(handle(socket));
            }
        });
        Self { address, requests, _tasks: tasks }
    }

    /// Answers every request with these bytes and closes.
    pub(crate) async fn answering(bytes: impl Into<Vec<u8>>) -> Self {
        let bytes = Arc::new(bytes.into());
        Self::start(move |mut socket| {
            let bytes = Arc::clone(&bytes);
            async move {
                // The client may hang up early; that is its right.
                let _ = socket.write_all(&bytes).await;
                let _ = socket.shutdown().await;
            }
        })
        .await
    }

    pub(crate) fn requests(&self) -> Vec<Request> {
        self.requests.lock().expect("no panic while locked").clone()
    }

    /// An adapter that calls this server, with whatever limits `change` sets.
    pub(crate) fn adapter(&self, change: impl FnOnce(&mut VendorConfig)) -> Remote<OpenAi> {
        adapter(&format!("http://{}/v1", self.address), change)
    }
}

/// The adapter's clock stands at noon of 2026-11-20.
pub(crate) fn adapter(base_url: &str, change: impl FnOnce(&mut VendorConfig)) -> Remote<OpenAi> {
    let base_url = Some(base_url.parse().expect("an address"));
    let mut config = VendorConfig { base_url, ..VendorConfig::default() };
    change(&mut config);
    let noon = "2026-11-20T12:00:00Z".parse().expect("an instant");
    openai::adapter(&config, &Clients::default(), Arc::new(ManualClock::at(noon)))
        .expect("a good configuration")
}

pub(crate) fn call(args: &str) -> Call {
    Call {
        job_id: JobId::new(SystemClock.now()),
        attempt: 1,
        model: "gpt-5".to_owned(),
        args: Json::parse(args).expect("arguments are JSON"),
        route: None,
        timeout: Duration::from_secs(60),
        memory: Share::default(),
    }
}

/// Fails the test rather than hanging it.
pub(crate) async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), future).await.expect("it takes too long")
}

async fn read_request(socket: &mut TcpStream) -> Option<Request> {
    let mut bytes = Vec::new();
    let head_end = loop {
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            break end;
        }
        if socket.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    };
    let head = String::from_utf8_lossy(&bytes[..head_end]).into_owned();
    let (first, headers) = head.split_once("\r\n")?;
    let mut request =
        Request { head: format!("{first}\r\n{}", lower_names(headers)), body: String::new() };
    let length: usize = request.header("content-length").unwrap_or("0").parse().ok()?;
    let mut body = bytes.split_off(head_end + 4);
    while body.len() < length {
        if socket.read_buf(&mut body).await.ok()? == 0 {
            return None;
        }
    }
    request.body = String::from_utf8(body).ok()?;
    Some(request)
}

fn lower_names(headers: &str) -> String {
    let lines = headers.lines().map(|line| match line.split_once(':') {
        Some((name, value)) => format!("{}:{value}", name.to_lowercase()),
        None => line.to_owned(),
    });
    lines.collect::<Vec<_>>().join("\r\n")
}
