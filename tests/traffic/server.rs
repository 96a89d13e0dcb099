//! A server that answers as a vendor did, byte for byte.

use std::{
    fmt::Write as _,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

use super::Recording;

/// One request as it came over the wire.
#[derive(Debug, Clone)]
pub struct Request {
    /// `POST /v1/responses HTTP/1.1`.
    pub line: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Request {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find_map(|(own, value)| (own == name).then_some(value.as_str()))
    }
}

/// In which pieces an answer is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pieces {
    /// As they came off the socket where that was recorded; else a stream is cut at odd places, and
    /// a document comes whole.
    AsRecorded,
    /// One byte at a time.
    Bytes,
}

const ODD: usize = 137;

#[derive(Debug, Default)]
struct State {
    answer: Arc<[u8]>,
    requests: Vec<Request>,
}

/// Serves until it is dropped.
#[derive(Debug)]
pub struct Server {
    pub address: SocketAddr,
    state: Arc<Mutex<State>>,
    _tasks: JoinSet<()>,
}

impl Server {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("a bound socket");
        let state = Arc::new(Mutex::new(State::default()));
        let shared = Arc::clone(&state);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((socket, _)) = listener.accept().await {
                connections.spawn(serve(socket, Arc::clone(&shared)));
            }
        });
        Self { address, state, _tasks: tasks }
    }

    /// Answers every request from now on as recorded, and forgets those before.
    pub fn replay(&self, recording: &Recording, pieces: Pieces) {
        let mut state = self.state.lock().expect("no panic while locked");
        *state = State { answer: answer(recording, pieces).into(), requests: Vec::new() };
    }

    /// Answers every request from now on with this document, and forgets those before.
    pub fn answer(&self, document: &str) {
        let (kind, length) = ("application/json", document.len());
        let head = format!(
            "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-type: {kind}\r\ncontent-length: \
             {length}\r\n\r\n"
        );
        let mut state = self.state.lock().expect("no panic while locked");
        let answer = [head, document.to_owned()].concat().into_bytes().into();
        *state = State { answer, requests: Vec::new() };
    }

    pub fn requests(&self) -> Vec<Request> {
        self.state.lock().expect("no panic while locked").requests.clone()
    }
}

async fn serve(mut socket: TcpStream, state: Arc<Mutex<State>>) {
    let Some(request) = read_request(&mut socket).await else { return };
    let answer = {
        let mut state = state.lock().expect("no panic while locked");
        state.requests.push(request);
        Arc::clone(&state.answer)
    };
    // The client may hang up early; that is its right.
    let _ = socket.write_all(&answer).await;
    let _ = socket.shutdown().await;
}

/// Status, headers and body as recorded; the pieces of the body are those of the transfer coding, as
/// a client's decoder hands them on one by one.
fn answer(recording: &Recording, pieces: Pieces) -> Vec<u8> {
    let body = recording.bytes();
    let response = &recording.response;
    let mut head = format!("HTTP/1.1 {} Recorded\r\nconnection: close\r\n", response.status);
    for (name, value) in &response.headers {
        write!(head, "{name}: {value}\r\n").expect("a text takes all");
    }
    let sizes = response.chunk_sizes.as_deref().unwrap_or_default();
    let is_whole = sizes.is_empty() && !recording.is_event_stream();
    let (sizes, rest) = match pieces {
        Pieces::AsRecorded if is_whole => {
            return [format!("{head}content-length: {}\r\n\r\n", body.len()).as_bytes(), &body]
                .concat();
        }
        Pieces::AsRecorded => (sizes, ODD),
        Pieces::Bytes => (&[][..], 1),
    };
    let mut bytes = format!("{head}transfer-encoding: chunked\r\n\r\n").into_bytes();
    let mut sizes = sizes.iter().copied().chain(std::iter::repeat(rest));
    let mut left = body.as_slice();
    while !left.is_empty() {
        let size = sizes.next().unwrap_or(rest).clamp(1, left.len());
        let (piece, after) = left.split_at(size);
        bytes.extend_from_slice(format!("{size:x}\r\n").as_bytes());
        bytes.extend_from_slice(piece);
        bytes.extend_from_slice(b"\r\n");
        left = after;
    }
    bytes.extend_from_slice(b"0\r\n\r\n");
    bytes
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
    let (line, headers) = head.split_once("\r\n")?;
    let headers = headers.lines().filter_map(|line| line.split_once(':'));
    let headers = headers.map(|(name, value)| (name.to_lowercase(), value.trim().to_owned()));
    let mut request =
        Request { line: line.to_owned(), headers: headers.collect(), body: String::new() };
    let length: usize = request.header("content-length")?.parse().ok()?;
    let mut body = bytes.split_off(head_end + 4);
    while body.len() < length {
        if socket.read_buf(&mut body).await.ok()? == 0 {
            return None;
        }
    }
    request.body = String::from_utf8(body).ok()?;
    Some(request)
}
