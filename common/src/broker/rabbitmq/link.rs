//! One connection, kept up: a supervisor connects, watches, and connects again.
//!
//! lapin's own recovery stays off. It replays what it believes was declared, cannot repair a
//! channel that the server closed, and gives up after a number of tries.

use std::{
    collections::HashMap,
    io,
    net::{Shutdown, TcpStream},
    os::fd::AsFd as _,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use futures::StreamExt as _;
use lapin::{
    AsyncTcpStream, Channel, Connection, ConnectionProperties, ErrorKind, Event,
    tcp::{AMQPUriTcpExt as _, OwnedTLSConfig},
};
use tokio::{
    sync::{Mutex as AsyncMutex, watch},
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{address::Address, topology};
use crate::{broker::BrokerError, job::Lane, tls};

/// How often a connection's state is looked at beside its events, which say nothing of some ends.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// How long a polite end may take before the socket is shut.
const CLOSE_WITHIN: Duration = Duration::from_secs(1);

/// One live connection. Ends with `over`.
pub(super) struct Live {
    pub(super) connection: Connection,
    /// Cancelled once the connection is known to be dead.
    pub(super) over: CancellationToken,
    /// Lanes declared on this connection. Not remembered beyond it: the server may be a new one.
    lanes: Mutex<Lanes>,
    declaring: AsyncMutex<Option<Channel>>,
    /// For questions whose answer may be that the server closes the channel.
    scratch: AsyncMutex<Option<Channel>>,
    /// Events go out here, without confirms.
    events: AsyncMutex<Option<Channel>>,
    _socket: Socket,
}

impl Live {
    fn lanes(&self) -> MutexGuard<'_, Lanes> {
        self.lanes.lock().expect("no one panics while holding the lanes")
    }

    /// Makes sure a lane's queue exists; costs nothing once it is known to.
    pub(super) async fn declare(&self, lane: Lane) -> lapin::Result<Declared> {
        if let Some(declared) = self.lanes().known.get(&lane) {
            return Ok(*declared);
        }
        let mut slot = self.declaring.lock().await;
        if let Some(declared) = self.lanes().known.get(&lane) {
            return Ok(*declared);
        }
        // Taken out and put back only after success: a channel that failed is never used again.
        let channel = self.channel(&mut slot).await?;
        if self.lanes().known.is_empty() {
            topology::declare_dead(&channel).await?;
        }
        topology::declare_lane(&channel, lane).await?;
        *slot = Some(channel);
        let mut lanes = self.lanes();
        lanes.last.0 += 1;
        let declared = lanes.last;
        lanes.known.insert(lane, declared);
        Ok(declared)
    }

    /// Someone has deleted the lane's queue since it was declared.
    pub(super) fn forget(&self, lane: Lane, declared: Declared) {
        let mut lanes = self.lanes();
        // Another caller may have declared it again.
        if lanes.known.get(&lane) == Some(&declared) {
            lanes.known.remove(&lane);
        }
    }

    /// What lies in a lane; `None` if it has no queue.
    pub(super) async fn depth(
        &self,
        lane: Lane,
    ) -> lapin::Result<Option<crate::broker::LaneDepth>> {
        let mut slot = self.scratch.lock().await;
        let channel = self.channel(&mut slot).await?;
        let depth = topology::lane_depth(&channel, lane).await?;
        *slot = Some(channel);
        Ok(depth)
    }

    /// The channel events go out on.
    pub(super) async fn events(&self) -> lapin::Result<Channel> {
        let mut slot = self.events.lock().await;
        let channel = self.channel(&mut slot).await?;
        *slot = Some(channel.clone());
        Ok(channel)
    }

    async fn channel(&self, slot: &mut Option<Channel>) -> lapin::Result<Channel> {
        match slot.take().filter(|channel| channel.status().connected()) {
            Some(channel) => Ok(channel),
            None => self.connection.create_channel().await,
        }
    }
}

#[derive(Default)]
struct Lanes {
    known: HashMap<Lane, Declared>,
    last: Declared,
}

/// One declaration of a lane, told from later ones.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Declared(u64);

/// How a link stands.
#[derive(Clone)]
pub(super) enum State {
    /// The first try has not ended yet.
    Connecting,
    Up(Arc<Live>),
    /// The server takes nothing from us: its memory or disk alarm is on.
    Blocked(Arc<Live>, String),
    Down(String),
    Closed,
}

/// A connection that comes back.
#[derive(Clone)]
pub(super) struct Link {
    address: Arc<Address>,
    state: watch::Receiver<State>,
}

impl Link {
    /// The link, and the supervisor that must run for it.
    pub(super) fn new(
        address: Arc<Address>,
        name: &'static str,
        connect_timeout: Duration,
        closed: CancellationToken,
    ) -> (Self, Supervisor) {
        let (sender, state) = watch::channel(State::Connecting);
        let link = Self { address: Arc::clone(&address), state };
        (link, Supervisor { address, name, connect_timeout, closed, state: sender })
    }

    pub(super) fn state(&self) -> State {
        self.state.borrow().clone()
    }

    /// Waits for a connection; `None` once the broker is closed.
    pub(super) async fn live(&self) -> Option<Arc<Live>> {
        let mut state = self.state.clone();
        let settled = state
            .wait_for(|state| match state {
                State::Up(live) | State::Blocked(live, _) => !live.over.is_cancelled(),
                State::Closed => true,
                State::Connecting | State::Down(_) => false,
            })
            .await
            .ok()?;
        match &*settled {
            State::Up(live) | State::Blocked(live, _) => Some(Arc::clone(live)),
            _ => None,
        }
    }

    /// Returns once the first try to connect has ended, either way.
    pub(super) async fn tried(&self) {
        let mut state = self.state.clone();
        // An error means that the supervisor is gone, which is an end as well.
        let _ = state.wait_for(|state| !matches!(state, State::Connecting)).await;
    }

    /// Why nothing can be sent at present, if so; in words for an operator.
    pub(super) fn trouble(&self) -> Option<String> {
        let place = self.address.place();
        match &*self.state.borrow() {
            State::Up(_) => None,
            State::Connecting => Some(format!("connecting to RabbitMQ at {place}")),
            State::Blocked(_, reason) => {
                Some(format!("RabbitMQ at {place} is blocked: {reason}; free its memory or disk"))
            }
            State::Down(reason) => Some(reason.clone()),
            State::Closed => Some("the connection to RabbitMQ is closed".to_owned()),
        }
    }

    /// The live connection if messages can be sent on it now or soon.
    pub(super) async fn sending(&self) -> Result<Arc<Live>, BrokerError> {
        let live = self.live().await.ok_or(BrokerError::Closed)?;
        // Handing lapin a message now would only fill its buffers.
        if let (State::Blocked(..), Some(reason)) = (self.state(), self.trouble()) {
            return Err(BrokerError::Unavailable(reason));
        }
        Ok(live)
    }
}

/// Keeps one link up until the broker is closed.
pub(super) struct Supervisor {
    address: Arc<Address>,
    name: &'static str,
    connect_timeout: Duration,
    closed: CancellationToken,
    state: watch::Sender<State>,
}

impl Supervisor {
    pub(super) async fn run(self) {
        let mut backoff = Backoff::default();
        while !self.closed.is_cancelled() {
            let connecting = self.closed.run_until_cancelled(self.connect());
            let reason = match connecting.await {
                None => break,
                Some(Ok(live)) => {
                    let since = Instant::now();
                    let reason = self.watch(live).await;
                    if since.elapsed() > Backoff::MAX {
                        backoff = Backoff::default();
                    }
                    reason
                }
                Some(Err(reason)) => reason,
            };
            if self.closed.is_cancelled() {
                break;
            }
            self.down(reason);
            self.closed.run_until_cancelled(sleep(backoff.next())).await;
        }
        self.state.send_replace(State::Closed);
    }

    fn down(&self, reason: String) {
        let known = matches!(&*self.state.borrow(), State::Down(known) if *known == reason);
        if !known {
            warn!(link = self.name, reason, "rabbitmq is out of reach; trying again");
        }
        self.state.send_replace(State::Down(reason));
    }

    /// Watches a connection to its end, and says what ended it.
    async fn watch(&self, live: Arc<Live>) -> String {
        info!(link = self.name, broker = self.address.place(), "connected to rabbitmq");
        let mut events = pin!(live.connection.events_listener());
        self.state.send_replace(State::Up(Arc::clone(&live)));
        let mut reason = format!("the connection to RabbitMQ at {} broke", self.address.place());
        while live.connection.status().connected() {
            tokio::select! {
                () = self.closed.cancelled() => {
                    let closing = live.connection.close(200, "closed by its owner".into());
                    // Late or refused: the socket is shut all the same.
                    let _ = timeout(CLOSE_WITHIN, closing).await;
                    break;
                }
                Some(event) = events.next() => match event {
                    Event::ConnectionBlocked(reason) => {
                        warn!(link = self.name, reason, "rabbitmq takes no messages at present");
                        self.state.send_replace(State::Blocked(Arc::clone(&live), reason));
                    }
                    Event::ConnectionUnblocked => {
                        info!(link = self.name, "rabbitmq takes messages again");
                        self.state.send_replace(State::Up(Arc::clone(&live)));
                    }
                    Event::Error(error) => reason = self.words(&error),
                    _ => {}
                },
                () = sleep(LOOK_EVERY) => {}
            }
        }
        live.over.cancel();
        reason
    }

    async fn connect(&self) -> Result<Arc<Live>, String> {
        if self.address.uri().scheme == lapin::uri::AMQPScheme::AMQPS {
            // An error means that there is one already, which serves as well.
            let _ = rustls::crypto::ring::default_provider().install_default();
        }
        let runtime = lapin::runtime::default_runtime().map_err(|error| self.words(&error))?;
        let socket = Socket::default();
        let (slot, limit) = (socket.clone_slot(), self.connect_timeout);
        let connecting = Connection::connector(
            self.address.uri(),
            runtime,
            async move |uri, runtime| {
                let tls = OwnedTLSConfig::default();
                let connecting = uri.connect_with_config_async(tls.as_ref(), &runtime);
                // lapin has no such timeout of its own on this path.
                let stream = timeout(limit, connecting).await.map_err(io::Error::from)??;
                let plain = match &stream {
                    AsyncTcpStream::Plain(plain) => plain,
                    AsyncTcpStream::Rustls(tls) => tls.get_ref().0,
                    _ => return Err(io::Error::from(io::ErrorKind::Unsupported).into()),
                };
                slot.fill(TcpStream::from(plain.get_ref().as_fd().try_clone_to_owned()?))?;
                Ok(stream)
            },
            ConnectionProperties::default()
                .with_connection_name(self.name.into())
                .with_client_property("product".into(), "inferq".into()),
        );
        let connection = match timeout(self.connect_timeout, connecting).await {
            Ok(Ok(connection)) => connection,
            Ok(Err(error)) => return Err(self.words(&error)),
            Err(_) => {
                return Err(format!(
                    "RabbitMQ at {} did not answer within {} ms: is it one, and is it well?",
                    self.address.place(),
                    self.connect_timeout.as_millis()
                ));
            }
        };
        Ok(Arc::new(Live {
            connection,
            over: CancellationToken::new(),
            lanes: Mutex::default(),
            declaring: AsyncMutex::default(),
            scratch: AsyncMutex::default(),
            events: AsyncMutex::default(),
            _socket: socket,
        }))
    }

    /// An error for an operator: where, what, and what to do.
    fn words(&self, error: &lapin::Error) -> String {
        let place = self.address.place();
        match error.kind() {
            // AMQP 0-9-1 reply codes access-refused and not-allowed.
            ErrorKind::ProtocolError(error) if error.get_id() == 403 => {
                format!(
                    "RabbitMQ at {place} refused the login: check user and password in broker.url"
                )
            }
            ErrorKind::ProtocolError(error) if error.get_id() == 530 => format!(
                "RabbitMQ at {place} refused the virtual host in broker.url: {}",
                error.get_message()
            ),
            ErrorKind::ProtocolError(error) => {
                format!("RabbitMQ at {place} ended the connection: {}", error.get_message())
            }
            ErrorKind::IOError(error) => match tls::error_in(&**error) {
                Some(error) => format!(
                    "TLS with RabbitMQ at {place} failed: {}; correct broker.url, or trust the \
                     server's authority with SSL_CERT_FILE",
                    tls::words(error)
                ),
                None => {
                    format!("no RabbitMQ at {place} ({error}): start one, or correct broker.url")
                }
            },
            ErrorKind::ParsingError(_) => format!(
                "what answers at {place} does not speak AMQP: correct broker.url (amqps:// for TLS)"
            ),
            other => format!("RabbitMQ at {place}: {}", lapin::Error::from(other.clone())),
        }
    }
}

/// Shuts a connection's socket when dropped, so that no thread of lapin's waits for a dead peer.
#[derive(Default)]
struct Socket(Arc<Slot>);

#[derive(Default)]
struct Slot(Mutex<(Option<TcpStream>, bool)>);

impl Socket {
    fn clone_slot(&self) -> Arc<Slot> {
        Arc::clone(&self.0)
    }
}

impl Slot {
    fn fill(&self, socket: TcpStream) -> io::Result<()> {
        let mut slot = self.0.lock().expect("no one panics while holding the socket");
        if slot.1 {
            return Err(io::ErrorKind::TimedOut.into());
        }
        slot.0 = Some(socket);
        Ok(())
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let mut slot = self.0.0.lock().expect("no one panics while holding the socket");
        slot.1 = true;
        if let Some(socket) = slot.0.take() {
            // It may be shut already.
            let _ = socket.shutdown(Shutdown::Both);
        }
    }
}

/// Growing waits between tries: from 100 ms, doubled, up to 3 s, each shortened by up to a half so
/// that the processes of a fleet do not come back at the same moment.
#[derive(Default)]
pub(super) struct Backoff {
    tries: u32,
}

impl Backoff {
    const MIN: Duration = Duration::from_millis(100);
    pub(super) const MAX: Duration = Duration::from_secs(3);

    pub(super) fn next(&mut self) -> Duration {
        let bound = Self::MIN.saturating_mul(1 << self.tries.min(8)).min(Self::MAX);
        self.tries += 1;
        bound.mul_f64(rand::random_range(0.5..=1.0))
    }
}
