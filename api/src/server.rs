//! Serves connections, and stops in good order.

use std::{io, sync::Arc, time::Duration};

use axum::Router;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{conn::auto, graceful::GracefulShutdown},
    service::TowerToHyperService,
};
use inferq_common::shutdown::Shutdown;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinSet,
    time::{sleep, timeout},
};
use tracing::{debug, info, warn};

use crate::{Api, routes, state::AppState};

/// Bounds how long a connection may take over the head of a request, and how long it may idle
/// between two.
const HEADER_READ_TIMEOUT: Duration = Duration::from_secs(75);

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
    let mut server = Server {
        router: routes::router(&state),
        http: http(),
        graceful: GracefulShutdown::new(),
        connections: JoinSet::new(),
        permits: Arc::new(Semaphore::new(MAX_CONNECTIONS)),
    };
    info!(%address, "api is listening");
    shutdown.soft.run_until_cancelled(server.accept_all(&listener)).await;
    drop(listener);
    server.finish(&state, grace).await;
    state.tasks.close();
    if timeout(FAREWELL, state.tasks.wait()).await.is_err() {
        warn!("submits in flight were given up");
    }
    info!("api has stopped");
    Ok(())
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
    async fn finish(mut self, state: &AppState, grace: Duration) {
        let ended = self.graceful.shutdown();
        tokio::pin!(ended);
        tokio::select! {
            () = &mut ended => {}
            () = sleep(grace) => {}
            () = state.shutdown.hard.cancelled() => {}
        }
        state.closing.cancel();
        if timeout(FAREWELL, ended).await.is_err() {
            warn!(connections = self.connections.len(), "connections were cut");
        }
        self.connections.shutdown().await;
    }
}
