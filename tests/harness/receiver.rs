//! A callback receiver that answers as its path says, and remembers.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Instant,
};

use axum::{
    Router,
    body::Bytes,
    extract::{Path, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::post,
};
use serde_json::Value;

/// One POST, as the receiver saw it.
#[derive(Debug, Clone)]
pub struct Post {
    pub path: String,
    pub headers: HeaderMap,
    pub body: Bytes,
    pub at: Instant,
}

impl Post {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

#[derive(Debug, Clone, Default)]
struct Seen(Arc<Mutex<Vec<Post>>>);

pub struct Receiver {
    address: SocketAddr,
    seen: Seen,
    server: tokio::task::JoinHandle<()>,
}

impl Receiver {
    pub async fn start() -> Self {
        let seen = Seen::default();
        let router = Router::new().route("/{*path}", post(receive)).with_state(seen.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = async move { axum::serve(listener, router).await.unwrap() };
        #[expect(clippy::disallowed_methods, reason = "the receiver owns it and aborts it")]
        let server = tokio::spawn(server);
        Self { address, seen, server }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The address of a path: `ok/…`, `status/404/…`, `fail_once/…`, `hang/…`, `redirect/…`.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}/{path}", self.address)
    }

    pub fn posts(&self, path: &str) -> Vec<Post> {
        self.seen.0.lock().unwrap().iter().filter(|post| post.path == path).cloned().collect()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn receive(
    State(seen): State<Seen>,
    Path(path): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let earlier = {
        let mut posts = seen.0.lock().unwrap();
        let earlier = posts.iter().filter(|post| post.path == path).count();
        posts.push(Post { path: path.clone(), headers, body, at: Instant::now() });
        earlier
    };
    let mut words = path.split('/');
    match (words.next().unwrap_or_default(), words.next().unwrap_or_default()) {
        ("ok", _) => StatusCode::NO_CONTENT.into_response(),
        ("status", code) => StatusCode::from_u16(code.parse().unwrap()).unwrap().into_response(),
        ("fail_once", _) if earlier == 0 => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
        ("fail_once", _) => StatusCode::OK.into_response(),
        ("hang", _) => std::future::pending().await,
        ("redirect", _) => {
            (StatusCode::FOUND, [(header::LOCATION, "/ok/redirected")]).into_response()
        }
        (other, _) => panic!("the receiver knows no '{other}'"),
    }
}
