//! Callbacks: claims what is owed, posts it, and records what came of it.
//!
//! **Invariant:** a slow or dead receiver delays nobody else. It holds at most
//! `callbacks.per_host` slots, and each for at most `callbacks.timeout_ms`.

mod body;
mod deliver;
mod post;

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use inferq_common::{
    clock::Clock,
    config::CallbacksConfig,
    egress::Guard,
    instance::CurrentInstance,
    shutdown::Shutdown,
    store::{DeliveryClaim, SharedStore, StoreError},
    telemetry::{field, metric},
};
use tokio::{sync::Notify, task::JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, error, info, info_span, warn};
use url::Url;

pub use self::body::MAX_INLINE_RESPONSE_BYTES;
use self::post::Poster;

/// How often the store is asked when nothing woke us: what other processes made due, and retries.
const POLL_EVERY: Duration = Duration::from_secs(1);

/// While the store is away the waits between questions grow up to this.
const MAX_STORE_WAIT: Duration = Duration::from_secs(8);

/// Deliveries of one claim. Each brings its job's whole result into memory for a moment.
const MAX_CLAIM: usize = 16;

/// How often the lag is measured.
const MEASURE_EVERY: Duration = Duration::from_secs(5);

/// After a soft stop: what recording may take beyond the longest POST.
const RECORD_GRACE: Duration = Duration::from_secs(5);

/// What delivering callbacks takes.
#[derive(Debug, Clone)]
pub struct Callbacks {
    pub store: SharedStore,
    pub instance: CurrentInstance,
    pub guard: Arc<Guard>,
    pub config: CallbacksConfig,
    /// How clients reach the api, for the address of a result that is too large to post.
    pub public_url: Url,
    pub clock: Arc<dyn Clock>,
    /// Told whenever this process may have made a delivery due.
    pub due: Arc<Notify>,
}

/// Delivers callbacks until `shutdown`.
///
/// A soft stop lets attempts in flight end, a hard one drops them; what is dropped is freed with
/// the instance.
pub async fn run(parts: Callbacks, shutdown: Shutdown) {
    let timeout = Duration::from_millis(parts.config.timeout_ms);
    let poster = match Poster::new(Arc::clone(&parts.guard), timeout) {
        Ok(poster) => poster,
        Err(error) => return error!(%error, "callbacks cannot be delivered: no HTTP client"),
    };
    let parts = Arc::new(parts);
    let mut dispatcher = Dispatcher::new(Arc::clone(&parts), poster);
    let work = async {
        let lag = shutdown.soft.run_until_cancelled(measure_lag(&parts));
        tokio::join!(dispatcher.run(&shutdown.soft), lag);
        // Past this it hangs; what is left is dropped.
        let _ = tokio::time::timeout(timeout + RECORD_GRACE, dispatcher.drain()).await;
    };
    shutdown.hard.run_until_cancelled(work).await;
    dispatcher.tasks.shutdown().await;
}

/// Hands due deliveries to tasks, within the limits.
struct Dispatcher {
    parts: Arc<Callbacks>,
    poster: Poster,
    tasks: JoinSet<()>,
    /// The host each task posts to.
    hosts: HashMap<tokio::task::Id, String>,
    /// Tasks by host; hosts without any are left out.
    in_flight: BTreeMap<String, u32>,
}

/// What a claim says about the next one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    /// There is more: claim again at once.
    Now,
    /// No slot is free until a task ends.
    Full,
    /// Nothing is due but, perhaps, for a host that has all its slots.
    HeldBack,
    /// Nothing is due.
    WhenDue,
    /// The store did not answer.
    Later,
}

impl Dispatcher {
    fn new(parts: Arc<Callbacks>, poster: Poster) -> Self {
        let (tasks, hosts, in_flight) = (JoinSet::new(), HashMap::new(), BTreeMap::new());
        Self { parts, poster, tasks, hosts, in_flight }
    }

    /// Claims and starts deliveries until `stop`. What it started goes on.
    async fn run(&mut self, stop: &CancellationToken) {
        let parts = Arc::clone(&self.parts);
        let mut store_wait = POLL_EVERY;
        while !stop.is_cancelled() {
            let next = self.claim().await;
            let wait = match next {
                Next::Now => continue,
                Next::Full | Next::HeldBack | Next::WhenDue => POLL_EVERY,
                Next::Later => store_wait,
            };
            store_wait = match next {
                Next::Later => (store_wait * 2).min(MAX_STORE_WAIT),
                _ => POLL_EVERY,
            };
            let tick = tokio::time::sleep(wait);
            tokio::pin!(tick);
            // Left when it is time to claim again.
            loop {
                tokio::select! {
                    biased;
                    () = stop.cancelled() => return,
                    Some(ended) = self.tasks.join_next_with_id() => {
                        self.forget(ended);
                        if matches!(next, Next::Full | Next::HeldBack) {
                            break;
                        }
                    }
                    () = parts.due.notified(), if matches!(next, Next::HeldBack | Next::WhenDue) => break,
                    () = &mut tick => break,
                }
            }
        }
    }

    /// Claims what is due as far as slots are free, and starts it.
    async fn claim(&mut self) -> Next {
        while let Some(ended) = self.tasks.try_join_next_with_id() {
            self.forget(ended);
        }
        let config = &self.parts.config;
        let limit = config.concurrency.saturating_sub(self.tasks.len()).min(MAX_CLAIM);
        if limit == 0 {
            return Next::Full;
        }
        let cap = config.per_host;
        let full = self.in_flight.iter().filter(|(_, n)| **n >= cap);
        let busy: Vec<String> = full.map(|(host, _)| host.clone()).collect();
        // The store does not know what is in flight here, so no host gets more than what fits
        // beside the most that any of the others has.
        let most = self.in_flight.values().filter(|n| **n < cap).max().copied().unwrap_or(0);
        let claimed = self.parts.store.claim_deliveries(
            self.parts.instance.id(),
            self.parts.clock.now(),
            u32::try_from(limit).unwrap_or(u32::MAX),
            cap - most,
            &busy,
        );
        let claims = match claimed.await {
            Ok(claims) => claims,
            Err(error) => {
                complain(&error);
                return Next::Later;
            }
        };
        let n_claimed = claims.len();
        for claim in claims {
            self.start(claim);
        }
        match n_claimed {
            0 if busy.is_empty() => Next::WhenDue,
            0 => Next::HeldBack,
            // The cap per host may have kept some back, so one more question is asked.
            _ => Next::Now,
        }
    }

    fn start(&mut self, claim: DeliveryClaim) {
        let host = claim.delivery.host.clone();
        let span = info_span!(
            "callback.deliver",
            { field::DELIVERY_ID } = %claim.delivery.id,
            { field::JOB_ID } = %claim.job.id,
            { field::CALLBACK_HOST } = host,
        );
        let (parts, poster) = (Arc::clone(&self.parts), self.poster.clone());
        let attempt = async move { deliver::deliver(&parts, &poster, claim).await };
        let task = self.tasks.spawn(attempt.instrument(span));
        *self.in_flight.entry(host.clone()).or_default() += 1;
        self.hosts.insert(task.id(), host);
    }

    /// Frees the slot of a task that ended.
    fn forget(&mut self, ended: Result<(tokio::task::Id, ()), tokio::task::JoinError>) {
        let id = match ended {
            Ok((id, ())) => id,
            Err(error) => {
                error!(%error, "delivering a callback panicked");
                error.id()
            }
        };
        let Some(host) = self.hosts.remove(&id) else { return };
        if let Some(n) = self.in_flight.get_mut(&host) {
            *n -= 1;
            if *n == 0 {
                self.in_flight.remove(&host);
            }
        }
    }

    async fn drain(&mut self) {
        if !self.tasks.is_empty() {
            info!(n_deliveries = self.tasks.len(), "waiting for callbacks in flight");
        }
        while let Some(ended) = self.tasks.join_next_with_id().await {
            self.forget(ended);
        }
    }
}

fn complain(error: &StoreError) {
    let source = error as &dyn std::error::Error;
    warn!(error = source, "due callbacks could not be claimed; asking again");
}

/// Keeps the gauge of the oldest due callback.
async fn measure_lag(parts: &Callbacks) {
    loop {
        let now = parts.clock.now();
        // Whether the store is up, others say.
        if let Ok(oldest) = parts.store.oldest_due_delivery(now).await {
            let lag = oldest.map_or(0, |due| (now - due).num_milliseconds().max(0));
            #[expect(clippy::cast_precision_loss, reason = "milliseconds of years fit")]
            metrics::gauge!(metric::CALLBACK_LAG).set(lag as f64 / 1000.0);
        }
        tokio::time::sleep(MEASURE_EVERY).await;
    }
}

#[cfg(test)]
mod tests;
