//! This process as the others know it, and what keeps it alive in their eyes.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    time::{Instant, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::{
    clock::Clock,
    id::InstanceId,
    outage::{Outage, chain},
    store::{NewInstance, SharedStore, StoreError},
    telemetry::field,
};

/// How often an instance renews its heartbeat.
pub const HEARTBEAT_EVERY: Duration = Duration::from_secs(1);
/// An instance is lost when its heartbeat is older than this: two beats may fail.
pub const GRACE: Duration = Duration::from_secs(3);
/// A heartbeat that takes longer counts as missed.
const HEARTBEAT_TIMEOUT: Duration = Duration::from_secs(2);
/// Renewals further apart than this have a gap between them. Below `GRACE`, so that a process knows
/// of its own gap before anyone else could judge it.
const FRESH_FOR: Duration = Duration::from_secs(2);
/// The good-bye at the end is tried this long; after it the others notice by the heartbeat.
const RETIRE_TIMEOUT: Duration = Duration::from_secs(2);

/// The id this process has at present, and since when the store knows it.
///
/// The id changes when the process finds itself lost and registers anew.
#[derive(Debug, Clone)]
pub struct CurrentInstance(Arc<watch::Sender<State>>);

#[derive(Debug, Clone, Copy)]
struct State {
    id: InstanceId,
    /// The store has marked `id` lost; a new id will follow.
    lost: bool,
    /// When the last successful renewal began.
    renewed_at: Option<Instant>,
    /// Since when renewals have succeeded without a gap.
    renewed_since: Option<Instant>,
}

impl State {
    fn new(id: InstanceId) -> Self {
        Self { id, lost: false, renewed_at: None, renewed_since: None }
    }

    fn is_fresh(&self, now: Instant) -> bool {
        !self.lost && self.renewed_at.is_some_and(|at| now.duration_since(at) < FRESH_FOR)
    }
}

impl CurrentInstance {
    /// An id the store does not know yet: [`keep_alive`] registers it.
    pub fn new(id: InstanceId) -> Self {
        Self(Arc::new(watch::Sender::new(State::new(id))))
    }

    pub fn id(&self) -> InstanceId {
        self.0.borrow().id
    }

    /// Takes a new id. It is not fresh before its first renewal is noted.
    pub fn replace(&self, id: InstanceId) {
        self.0.send_replace(State::new(id));
    }

    /// Notes a registration or renewal that succeeded and had begun at `began`.
    pub fn renewed(&self, began: Instant) {
        self.0.send_modify(|state| {
            let gapless =
                state.renewed_at.is_some_and(|last| began.duration_since(last) <= FRESH_FOR);
            if !gapless || state.renewed_since.is_none() {
                state.renewed_since = Some(began);
            }
            state.renewed_at = Some(began);
        });
    }

    /// Notes a renewal that failed.
    pub fn missed(&self) {
        self.0.send_modify(|state| state.renewed_since = None);
    }

    /// Notes that the store has marked the present id lost.
    pub fn lost(&self) {
        self.0.send_modify(|state| {
            *state = State { lost: true, ..State::new(state.id) };
        });
    }

    /// Whether the store knew the present id a moment ago. While it did not, an empty answer to a
    /// claim says nothing about the job.
    pub fn is_fresh(&self) -> bool {
        self.0.borrow().is_fresh(Instant::now())
    }

    /// Waits until [`Self::is_fresh`].
    ///
    /// **Cancel safe.**
    pub async fn fresh(&self) {
        self.until(|state| state.is_fresh(Instant::now())).await;
    }

    /// Whether `id` is this process's present id and not known to be lost.
    pub fn is_current(&self, id: InstanceId) -> bool {
        let state = self.0.borrow();
        state.id == id && !state.lost
    }

    /// Waits until `id` is no longer this process's: it is lost or has been replaced.
    ///
    /// **Cancel safe.**
    pub async fn gone(&self, id: InstanceId) {
        self.until(|state| state.lost || state.id != id).await;
    }

    /// Waits until the present id is another than `id`.
    ///
    /// **Cancel safe.**
    pub async fn replaced(&self, id: InstanceId) {
        self.until(|state| state.id != id).await;
    }

    async fn until(&self, holds: impl FnMut(&State) -> bool) {
        let mut states = self.0.subscribe();
        states.wait_for(holds).await.expect("self holds the sender");
    }

    /// For how long this process's own renewals have succeeded without a gap; zero while they fail.
    ///
    /// Who was out of touch must not judge others: after an outage of the store all heartbeats are
    /// old, and each needs time to be renewed.
    pub fn steady_for(&self) -> Duration {
        let now = Instant::now();
        let state = *self.0.borrow();
        match state.renewed_since {
            Some(since) if state.is_fresh(now) => now.duration_since(since),
            _ => Duration::ZERO,
        }
    }
}

/// What a process says of itself when it registers.
#[derive(Debug, Clone)]
pub struct Identity {
    /// `api`, `worker` or `dev`.
    pub role: &'static str,
    /// The machine's name, for people.
    pub host: String,
    /// This process owns the store alone: all other instances in it are from the past and are
    /// marked lost at once.
    pub alone: bool,
}

/// Registers this process and renews its heartbeat every second until `stop`, then retires it. A process runs it
/// as [`Heartbeat`](crate::heartbeat::Heartbeat).
///
/// A process that finds itself lost takes a new id and puts it into `current`; whoever holds
/// something under the old id learns it from [`CurrentInstance::gone`]. While the store is away it
/// keeps trying. Stop it last: what is not finished when the instance retires goes to others.
pub async fn keep_alive(
    store: SharedStore,
    clock: Arc<dyn Clock>,
    identity: Identity,
    current: CurrentInstance,
    stop: CancellationToken,
) {
    let mut member = Member { store, clock, identity, current, phase: Phase::New };
    let mut outage = Outage::of("heartbeat");
    loop {
        let began = Instant::now();
        let Some(beat) = stop.run_until_cancelled(timeout(HEARTBEAT_TIMEOUT, member.beat())).await
        else {
            break;
        };
        match beat {
            Ok(Ok(())) => {
                outage.succeeded();
                member.current.renewed(began);
            }
            Ok(Err(error)) => {
                outage.failed(&error);
                member.current.missed();
            }
            Err(elapsed) => {
                outage.failed(&elapsed);
                member.current.missed();
            }
        }
        let next = sleep_until(began + HEARTBEAT_EVERY);
        if stop.run_until_cancelled(next).await.is_none() {
            break;
        }
    }
    member.retire().await;
}

struct Member {
    store: SharedStore,
    clock: Arc<dyn Clock>,
    identity: Identity,
    current: CurrentInstance,
    phase: Phase,
}

/// What the store knows of the present id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Nothing: it was never sent.
    New,
    /// It was sent and no answer came: it may be registered.
    Sent,
    Registered,
}

impl Member {
    /// One sign of life: a renewal where the id is registered, else its registration.
    async fn beat(&mut self) -> Result<(), StoreError> {
        let id = self.current.id();
        if self.phase == Phase::New {
            return self.register(id).await;
        }
        if self.store.heartbeat(id).await? {
            if self.phase == Phase::Sent {
                self.registered(id).await?;
            }
            return Ok(());
        }
        if self.phase == Phase::Registered {
            warn!({ field::INSTANCE_ID } = %id, "the store holds this process for lost; it registers anew");
            self.current.lost();
        }
        let id = InstanceId::new(self.clock.now());
        self.phase = Phase::New;
        self.register(id).await
    }

    async fn register(&mut self, id: InstanceId) -> Result<(), StoreError> {
        let Identity { role, ref host, .. } = self.identity;
        if id != self.current.id() {
            // Before it is registered: a beat that is cut short must find the same id again.
            self.current.replace(id);
        }
        self.phase = Phase::Sent;
        self.store.register(&NewInstance { id, role, host: host.clone() }).await?;
        self.registered(id).await
    }

    async fn registered(&mut self, id: InstanceId) -> Result<(), StoreError> {
        if self.identity.alone {
            self.store.retire_others(id).await?;
        }
        self.phase = Phase::Registered;
        info!({ field::INSTANCE_ID } = %id, role = self.identity.role, "instance is registered");
        Ok(())
    }

    async fn retire(&self) {
        if self.phase == Phase::New {
            return;
        }
        match timeout(RETIRE_TIMEOUT, self.store.retire(self.current.id())).await {
            Ok(Ok(())) => debug!("instance is retired"),
            Ok(Err(error)) => warn!(error = chain(&error), "instance could not be retired"),
            Err(_) => warn!("instance could not be retired in time"),
        }
    }
}

#[cfg(test)]
mod tests {
    use chrono::{DateTime, Utc};
    use tokio::time::advance;

    use super::*;

    fn an_instance() -> CurrentInstance {
        CurrentInstance::new(InstanceId::new(DateTime::<Utc>::UNIX_EPOCH))
    }

    /// Renews each second, `n` times, from now on.
    async fn renew(instance: &CurrentInstance, n: u32) {
        for _ in 0..n {
            instance.renewed(Instant::now());
            advance(HEARTBEAT_EVERY).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn renewals_are_steady_while_none_is_missed() {
        let instance = an_instance();
        assert_eq!(instance.steady_for(), Duration::ZERO, "it was never renewed");
        renew(&instance, 3).await;
        assert_eq!(instance.steady_for(), Duration::from_secs(3));
        instance.missed();
        assert_eq!(instance.steady_for(), Duration::ZERO);
        renew(&instance, 2).await;
        assert!(instance.steady_for() < GRACE, "after an outage nobody is judged early");
        renew(&instance, 1).await;
        assert!(instance.steady_for() >= GRACE);
    }

    #[tokio::test(start_paused = true)]
    async fn a_process_that_was_suspended_starts_to_count_anew() {
        let instance = an_instance();
        renew(&instance, 5).await;
        advance(Duration::from_secs(60)).await;
        assert_eq!(instance.steady_for(), Duration::ZERO);
        assert!(!instance.is_fresh());
        renew(&instance, 1).await;
        assert!(instance.is_fresh());
        assert_eq!(instance.steady_for(), Duration::from_secs(1));
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_waits_learns_of_loss_and_of_the_new_id() {
        let instance = an_instance();
        let old = instance.id();
        renew(&instance, 1).await;
        instance.lost();
        instance.gone(old).await;
        assert!(!instance.is_fresh() && !instance.is_current(old));
        let new = InstanceId::new(DateTime::<Utc>::UNIX_EPOCH + chrono::TimeDelta::seconds(1));
        instance.replace(new);
        instance.replaced(old).await;
        assert!(instance.is_current(new) && !instance.is_fresh());
        instance.renewed(Instant::now());
        instance.fresh().await;
    }
}
