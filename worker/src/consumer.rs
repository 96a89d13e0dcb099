//! Takes the messages of one vendor's lanes, as many as may run at once, and claims their jobs.

use std::{array, sync::Arc, time::Duration};

use chrono::{DateTime, TimeDelta, Utc};
use inferq_common::{
    broker::{AHEAD_PATIENCE, BrokerError, Deliveries, Delivery, Message, SharedBroker},
    id::JobId,
    job::Lane,
    outage::Outage,
    store::{Claim, group::GroupError},
    telemetry::field,
    vendor::Vendor,
};
use rand::Rng as _;
use tokio::{
    sync::mpsc,
    time::{Instant, sleep},
};
use tracing::{debug, info};

use crate::{
    attempt,
    lent::{self, Lent},
    runner::Runner,
    weighted::{N_LANES, Weighted},
};

/// Messages of a lane this process holds before it can run them, at most. RabbitMQ delivers no
/// faster with more, and each one held here is kept from other workers.
const MAX_PREFETCH: usize = 256;
/// How long a message is held that could not be claimed; with the permit, so that an outage of the
/// store costs each permit one message a second at most.
const NACK_AFTER: Duration = Duration::from_secs(1);
/// When the job of a message that is ahead is looked for again; each further wait is twice as long.
const FIRST_LOOK_AFTER: Duration = Duration::from_millis(1);
/// A job made longer ago is not still being stored. Clocks of hosts may differ by as much.
const YOUNG: TimeDelta = TimeDelta::seconds(10);

/// Runs the jobs of one vendor until the soft stop. Attempts it started go on.
pub(crate) async fn run(runner: Arc<Runner>, vendor: Vendor, mut lent: mpsc::Receiver<Lent>) {
    take_all(&runner, vendor, &mut lent).await;
    lent.close();
    while let Some(left) = lent.recv().await {
        lent::give_back(&runner, left).await;
    }
}

/// What there is to run.
enum Work {
    Lent(Lent),
    Message(Box<dyn Delivery>),
}

async fn take_all(runner: &Arc<Runner>, vendor: Vendor, lent: &mut mpsc::Receiver<Lent>) {
    let soft = &runner.soft;
    let places = &runner.places[&vendor];
    let concurrency = runner.worker.config.concurrency;
    let open = Lanes::open(&runner.worker.broker, vendor, prefetch(concurrency));
    let Some(Ok(mut lanes)) = soft.run_until_cancelled(open).await else { return };
    info!({ field::VENDOR_NAME } = %vendor, concurrency, "worker takes jobs");
    loop {
        let next = async {
            let place = places.free().await;
            // While the store does not know this process, it would lend it nothing.
            runner.worker.instance.fresh().await;
            let work = tokio::select! {
                // What is claimed already goes first.
                biased;
                Some(lent) = lent.recv() => Work::Lent(lent),
                delivery = lanes.next() => Work::Message(delivery?),
            };
            Some((place, work))
        };
        let next = tokio::select! {
            // In this order: a message that comes with the stop is for others.
            biased;
            () = soft.cancelled() => break,
            next = next => next,
        };
        let Some((place, work)) = next else { break };
        let runner = Arc::clone(runner);
        runner.attempts.clone().spawn(async move {
            let _place = place.take();
            match work {
                Work::Lent(lent) => lent::run(&runner, lent).await,
                Work::Message(delivery) => take(&runner, delivery).await,
            }
        });
    }
}

/// Twice what can run, so that a freed permit finds a message at hand.
fn prefetch(concurrency: usize) -> u16 {
    u16::try_from(concurrency.saturating_mul(2).min(MAX_PREFETCH)).unwrap_or(u16::MAX)
}

/// Claims the job of one message and, if it is to be had, runs it.
async fn take(runner: &Runner, delivery: Box<dyn Delivery>) {
    let message = delivery.message();
    let trace = message.trace.clone();
    let _taken = runner.worker.running.take_up(message.job_id);
    let instance = &runner.worker.instance;
    let id = instance.id();
    match claim(runner, message).await {
        Ok(Some(claim)) => {
            // Polled in this order: the call need not wait for the broker's client to wake up.
            let attempt = attempt::run(runner, claim, trace.as_deref());
            futures::join!(attempt, delivery.ack());
        }
        // Fresh under the same id, it was not lost when it asked.
        Ok(None) if instance.is_fresh() && instance.is_current(id) => {
            debug!({ field::JOB_ID } = %message.job_id, "nothing to do for this message");
            delivery.ack().await;
        }
        // A process that is lost is lent nothing: the job may well be there for others.
        Ok(None) | Err(_) => {
            let pause = NACK_AFTER.mul_f64(rand::rng().random_range(0.5..=1.0));
            runner.soft.run_until_cancelled(sleep(pause)).await;
            delivery.nack().await;
        }
    }
}

/// Claims the job of a message; of one that is ahead of its job, as soon as that is there.
async fn claim(runner: &Runner, message: &Message) -> Result<Option<Claim>, GroupError> {
    let job_id = message.job_id;
    let mut claimed = runner.claim(job_id).await;
    if !message.ahead || !is_young(job_id, runner.worker.clock.now()) {
        return claimed;
    }
    let until = Instant::now() + AHEAD_PATIENCE;
    let mut pause = FIRST_LOOK_AFTER;
    while matches!(claimed, Ok(None)) && Instant::now() < until {
        if runner.soft.run_until_cancelled(sleep(pause)).await.is_none() {
            return Err(GroupError::Closed);
        }
        pause *= 2;
        claimed = runner.claim(job_id).await;
    }
    claimed
}

/// Whether the job may still be being stored. A message that waited in its lane until its job was
/// cancelled, say, must not hold up the others.
fn is_young(job_id: JobId, now: DateTime<Utc>) -> bool {
    job_id.made_at().is_some_and(|made_at| now - made_at < YOUNG)
}

/// The lanes of one vendor, most urgent first.
struct Lanes {
    deliveries: [Box<dyn Deliveries>; N_LANES],
    /// The next message of each lane, where one is at hand.
    heads: [Option<Box<dyn Delivery>>; N_LANES],
    turns: Weighted,
}

impl Lanes {
    /// Consumes all lanes of `vendor`, as soon as the broker can.
    async fn open(
        broker: &SharedBroker,
        vendor: Vendor,
        prefetch: u16,
    ) -> Result<Self, BrokerError> {
        let mut deliveries = Vec::with_capacity(N_LANES);
        for lane in Lane::of_vendor(vendor) {
            deliveries.push(consume(broker, lane, prefetch).await?);
        }
        let deliveries =
            deliveries.try_into().ok().expect("a vendor has one lane for each priority");
        Ok(Self { deliveries, heads: array::from_fn(|_| None), turns: Weighted::default() })
    }

    /// The next message of the lane whose turn it is; `None` once the broker is closed.
    ///
    /// **Cancel safe:** a message taken from a lane stays in its head until it is handed out.
    async fn next(&mut self) -> Option<Box<dyn Delivery>> {
        loop {
            for (head, lane) in self.heads.iter_mut().zip(&mut self.deliveries) {
                if head.is_none() {
                    *head = lane.try_next();
                }
            }
            if let Some(turn) = self.turns.pick(self.heads.each_ref().map(Option::is_some)) {
                return self.heads[turn].take();
            }
            let [high, normal, low] = &mut self.deliveries;
            tokio::select! {
                delivery = high.next() => self.heads[0] = Some(delivery?),
                delivery = normal.next() => self.heads[1] = Some(delivery?),
                delivery = low.next() => self.heads[2] = Some(delivery?),
            }
        }
    }
}

/// Consumes one lane; tries again until it can or the broker is closed.
async fn consume(
    broker: &SharedBroker,
    lane: Lane,
    prefetch: u16,
) -> Result<Box<dyn Deliveries>, BrokerError> {
    let mut outage = Outage::of("consume a lane");
    loop {
        match broker.consume(lane, prefetch).await {
            Ok(deliveries) => {
                outage.succeeded();
                return Ok(deliveries);
            }
            Err(BrokerError::Closed) => return Err(BrokerError::Closed),
            Err(error) => sleep(outage.failed(&error)).await,
        }
    }
}
