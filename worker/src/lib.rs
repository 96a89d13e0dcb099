//! Deliveries in, results out: takes the messages of its vendors' lanes, runs the jobs they name
//! and records what came of them.

mod attempt;
mod call;
pub mod callback;
mod claims;
mod consumer;
mod credential;
mod gate;
mod lent;
mod places;
mod registered;
mod runner;
mod running;
mod streaming;
mod weighted;

use std::{collections::HashMap, sync::Arc, time::Duration};

use inferq_common::{
    broker::SharedBroker,
    clock::Clock,
    config::{CallbacksConfig, WorkerConfig},
    credential_source::CredentialSource,
    egress::Guard,
    instance::CurrentInstance,
    publisher::Publisher,
    shutdown::Shutdown,
    store::{SharedStore, path::JobPath},
    telemetry::field,
    vendor::Vendor,
};
use inferq_vendors::Registry;
use tokio::{task::JoinSet, time::timeout};
use tracing::{error, info, warn};
use url::Url;

use self::{callback::Callbacks, places::Places, runner::Runner};
pub use self::{lent::Intake, running::Running};

/// How long handing back may take before what is left is dropped for others to find.
const HAND_BACK_TIMEOUT: Duration = Duration::from_secs(3);

/// All a worker works with.
#[derive(Debug, Clone)]
pub struct Worker {
    pub store: SharedStore,
    pub broker: SharedBroker,
    pub publisher: Publisher,
    pub path: JobPath,
    /// Kept alive by [`inferq_common::instance::keep_alive`]: before that registers it, and while
    /// the store does not renew it, no job is taken.
    pub instance: CurrentInstance,
    /// Its attempts; the inbox's cancels go to [`Running::cancel`].
    pub running: Running,
    /// What is lent to it; the inbox's loans go to [`Intake::take`].
    pub intake: Intake,
    pub registry: Registry,
    /// Of the accounts whose jobs it runs.
    pub credentials: CredentialSource,
    pub config: WorkerConfig,
    pub callbacks: CallbacksConfig,
    /// How clients reach the api, for links in callbacks.
    pub public_url: Url,
    pub clock: Arc<dyn Clock>,
}

/// Runs jobs until the soft stop, then ends what is in hand and returns.
///
/// Attempts in flight have `shutdown_grace_secs` to end. After that, or at the hard stop, they are
/// stopped and handed back, and their messages are published again. The instance must be kept alive
/// and publisher and job path open until it has returned.
pub async fn run(worker: Worker, shutdown: Shutdown) {
    let grace = Duration::from_secs(worker.config.shutdown_grace_secs);
    let (mut places, mut lent) = (HashMap::new(), Vec::new());
    for vendor in served(&worker) {
        let (own, told) = Places::new(worker.config.concurrency);
        places.insert(vendor, own);
        lent.push((vendor, told));
    }
    let runner = Arc::new(Runner::new(worker, places, shutdown.soft.clone()));

    let mut consumers = JoinSet::new();
    for (vendor, lent) in lent {
        consumers.spawn(consumer::run(Arc::clone(&runner), vendor, lent));
    }
    let mut helpers = JoinSet::new();
    helpers.spawn(lent::pass_on(Arc::clone(&runner)));
    helpers.spawn(claims::watch(Arc::clone(&runner)));
    helpers.spawn(callback::run(callbacks(&runner), shutdown.clone()));

    shutdown.soft.cancelled().await;
    info!(attempts = runner.worker.running.count(), "worker stops: it takes no new jobs");
    join_all(consumers).await;
    runner.attempts.close();
    let in_hand = timeout(grace, runner.attempts.wait());
    let ended = shutdown.hard.run_until_cancelled(in_hand).await;
    if !matches!(ended, Some(Ok(()))) {
        hand_back(&runner).await;
    }
    runner.give_up.cancel();
    join_all(helpers).await;
    info!("worker has stopped");
}

/// Stops all calls in flight and gives their jobs back.
async fn hand_back(runner: &Runner) {
    warn!(attempts = runner.worker.running.count(), "worker hands back what it has not finished");
    runner.hand_back.cancel();
    if timeout(HAND_BACK_TIMEOUT, runner.attempts.wait()).await.is_err() {
        warn!("not all could be handed back; others will find them");
        runner.give_up.cancel();
        runner.attempts.wait().await;
    }
}

fn callbacks(runner: &Runner) -> Callbacks {
    let Worker { store, instance, callbacks, public_url, clock, .. } = &runner.worker;
    Callbacks {
        store: Arc::clone(store),
        instance: instance.clone(),
        guard: Arc::new(Guard::new(callbacks.allow_networks.clone())),
        config: callbacks.clone(),
        public_url: public_url.clone(),
        clock: Arc::clone(clock),
        due: Arc::clone(&runner.callback_due),
    }
}

/// The vendors whose lanes this process consumes: configured ones (none named: all) it has an
/// adapter for.
fn served(worker: &Worker) -> Vec<Vendor> {
    let wanted = &worker.config.vendors;
    let can_serve = |&&vendor: &&Vendor| worker.registry.vendors().any(|own| own == vendor);
    for vendor in wanted.iter().filter(|vendor| !can_serve(vendor)) {
        warn!({ field::VENDOR_NAME } = %vendor, "there is no adapter for a configured vendor");
    }
    let is_wanted = |vendor: &Vendor| wanted.is_empty() || wanted.contains(vendor);
    worker.registry.vendors().filter(is_wanted).collect()
}

async fn join_all(mut tasks: JoinSet<()>) {
    while let Some(ended) = tasks.join_next().await {
        if let Err(error) = ended {
            error!(%error, "a task of the worker died; this is a defect of inferq");
        }
    }
}
