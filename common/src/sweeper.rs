//! Repairs what was left behind: lost instances, due jobs, missed deadlines, forgotten messages,
//! old rows.
//!
//! It runs in every instance and has no leader: each repair is one guarded move of the store, so
//! two sweepers at the same work do no harm. Their ticks are jittered so that they seldom meet.

use std::{collections::HashMap, sync::Arc, time::Duration};

use chrono::TimeDelta;
use metrics::{counter, gauge};
use rand::Rng as _;
use tokio::time::{error::Elapsed, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::{
    broker::{BrokerError, Event, SharedBroker},
    clock::Clock,
    config::RetentionConfig,
    id::InstanceId,
    instance::{CurrentInstance, GRACE},
    job::{Job, Lane},
    outage::Outage,
    publisher::Publisher,
    shutdown::Shutdown,
    store::{Rescued, SharedStore, StoreError, Wakeup},
    telemetry::{self, field, metric},
};

/// Loss and due times: with a heartbeat each second and a grace of 3 s, a killed process's jobs are
/// with others within 3.5 s.
const QUICK: Duration = Duration::from_millis(250);
const EXPIRE_EVERY: Duration = Duration::from_secs(1);
const NET_EVERY: Duration = Duration::from_secs(5);
const CLEAN_EVERY: Duration = Duration::from_secs(60);
/// Bounds one round of one step.
const ROUND_TIMEOUT: Duration = Duration::from_secs(30);
/// Bounds the telling of those who wait for the jobs of one round.
const TELL_TIMEOUT: Duration = Duration::from_secs(2);
/// The most rows one statement moves.
const BATCH: u32 = 500;
/// A round of the net publishes at most this many jobs of a lane again.
const NET_BATCH: u32 = 1000;
/// A job that has been ready this long in a lane whose queue is empty has lost its message.
const OVERDUE_AFTER: TimeDelta = TimeDelta::seconds(10);
/// With more publishes waiting, more would only push out others: the jobs stay where they are.
const MAX_BACKLOG: usize = 50_000;
/// Lost instances are kept this long for people who look into what happened.
const FORGET_AFTER: Duration = Duration::from_secs(24 * 60 * 60);

/// The repairs of one process.
#[derive(Debug, Clone)]
pub struct Sweeper {
    pub store: SharedStore,
    pub broker: SharedBroker,
    pub publisher: Publisher,
    pub instance: CurrentInstance,
    pub clock: Arc<dyn Clock>,
    pub retention: RetentionConfig,
}

/// Why a round ended early.
#[derive(Debug, thiserror::Error)]
enum SweepError {
    #[error("the store failed")]
    Store(#[from] StoreError),
    #[error("the broker failed")]
    Broker(#[from] BrokerError),
    #[error("the round took too long")]
    TimedOut(#[from] Elapsed),
}

/// The steps, each on its own tick. An error in one does not hold up the others.
#[derive(Debug, Clone, Copy)]
enum Step {
    Rescue,
    TakeDue,
    Expire,
    Net,
    Clean,
}

impl Step {
    const ALL: [Self; 5] = [Self::Rescue, Self::TakeDue, Self::Expire, Self::Net, Self::Clean];

    const fn name(self) -> &'static str {
        match self {
            Self::Rescue => "rescue jobs of lost instances",
            Self::TakeDue => "publish due jobs",
            Self::Expire => "expire jobs",
            Self::Net => "look for forgotten jobs",
            Self::Clean => "delete old jobs",
        }
    }

    const fn period(self) -> Duration {
        match self {
            Self::Rescue | Self::TakeDue => QUICK,
            Self::Expire => EXPIRE_EVERY,
            Self::Net => NET_EVERY,
            Self::Clean => CLEAN_EVERY,
        }
    }
}

impl Sweeper {
    /// Sweeps until the soft stop; a hard stop cuts the round in progress short.
    pub async fn run(self, shutdown: Shutdown) {
        let steps = Step::ALL.map(|step| self.repeat(step, &shutdown.soft));
        shutdown.hard.run_until_cancelled(futures::future::join_all(steps)).await;
    }

    async fn repeat(&self, step: Step, soft: &CancellationToken) {
        let mut outage = Outage::of(step.name());
        loop {
            let pause = jittered(step.period());
            if soft.run_until_cancelled(sleep(pause)).await.is_none() {
                return;
            }
            match self.round(step, soft).await {
                Ok(()) => outage.succeeded(),
                Err(error) => {
                    let pause = outage.failed(&error);
                    soft.run_until_cancelled(sleep(pause)).await;
                }
            }
        }
    }

    async fn round(&self, step: Step, soft: &CancellationToken) -> Result<(), SweepError> {
        let work = async {
            match step {
                Step::Rescue => self.rescue(soft).await,
                Step::TakeDue => self.take_due(soft).await,
                Step::Expire => self.expire(soft).await,
                Step::Net => self.net(soft).await,
                Step::Clean => self.clean(soft).await,
            }
        };
        timeout(ROUND_TIMEOUT, work).await?
    }

    /// Marks the dead lost and takes over what they held.
    async fn rescue(&self, soft: &CancellationToken) -> Result<(), SweepError> {
        if self.instance.steady_for() >= GRACE {
            for id in self.store.judge(GRACE).await? {
                warn!({ field::INSTANCE_ID } = %id, "instance is lost");
                repaired("instance_lost", 1);
            }
        }
        while let Some(to) = self.may_take_over(soft) {
            let rescued = self.store.rescue(to, self.clock.now(), BATCH).await?;
            if rescued == Rescued::default() {
                break;
            }
            let (requeued, failed) = (rescued.requeued, rescued.failed.len() as u64);
            let republished = (rescued.wakeups.len() as u64).saturating_sub(requeued);
            let deliveries = rescued.deliveries;
            info!(requeued, republished, failed, deliveries, "took over from lost instances");
            repaired("requeued", requeued);
            repaired("republished", republished);
            repaired("failed", failed);
            self.publish(rescued.wakeups);
            self.tell_ended(&rescued.failed).await;
        }
        Ok(())
    }

    /// Publishes jobs whose waiting time is over.
    async fn take_due(&self, soft: &CancellationToken) -> Result<(), SweepError> {
        while let Some(publisher) = self.may_take_over(soft) {
            let due = self.store.take_due(publisher, self.clock.now(), BATCH).await?;
            let was_full = is_full(due.len(), BATCH);
            self.publish(due);
            if !was_full {
                break;
            }
        }
        Ok(())
    }

    /// Ends jobs whose start-by deadline has passed, and tells who waits for them.
    async fn expire(&self, soft: &CancellationToken) -> Result<(), SweepError> {
        while !soft.is_cancelled() {
            let expired = self.store.expire(self.clock.now(), BATCH).await?;
            let was_full = is_full(expired.len(), BATCH);
            repaired("expired", expired.len() as u64);
            self.tell_ended(&expired).await;
            if !was_full {
                break;
            }
        }
        Ok(())
    }

    /// Counts jobs that ended here, and tells who waits for them.
    async fn tell_ended(&self, jobs: &[Job]) {
        for job in jobs {
            telemetry::count_ended(job, job.status, job.finished_at.unwrap_or(job.created_at));
            info!({ field::JOB_ID } = %job.id, { field::JOB_STATUS } = %job.status, "job has ended");
        }
        let tell = jobs.iter().filter_map(|job| {
            let (job_id, status, attempt) = (job.id, job.status, job.attempt);
            let event = Event::Finished {
                job_id,
                status,
                attempt,
                result: None,
                times: None,
                chunks: 0,
                room: None,
            };
            Some(self.send(job.reply_to?, event))
        });
        // All at once and no longer than this: the broker may be away, and the jobs are in the store.
        if timeout(TELL_TIMEOUT, futures::future::join_all(tell)).await.is_err() {
            debug!("not all events were sent in time; who waits looks into the store");
        }
    }

    async fn send(&self, to: InstanceId, event: Event) {
        if let Err(error) = self.broker.send(to, &event).await {
            debug!(%error, "the event was not sent; who waits looks into the store");
        }
    }

    /// The slow net: where a lane's queue is empty, its long-ready jobs have lost their messages.
    async fn net(&self, soft: &CancellationToken) -> Result<(), SweepError> {
        let queued: HashMap<Lane, u64> = self
            .store
            .count_lanes()
            .await?
            .iter()
            .map(|count| (count.lane, count.queued))
            .collect();
        // All of them before the broker is asked, which may be away.
        for lane in Lane::all() {
            let queued = queued.get(&lane).copied().unwrap_or(0);
            #[expect(clippy::cast_precision_loss, reason = "a gauge is an f64")]
            gauge!(metric::QUEUE_DEPTH, "lane" => lane.to_string()).set(queued as f64);
        }
        for lane in Lane::all().filter(|lane| queued.get(lane).is_some_and(|&queued| queued > 0)) {
            if self.may_take_over(soft).is_some() {
                self.republish_overdue(lane).await?;
            }
        }
        Ok(())
    }

    async fn republish_overdue(&self, lane: Lane) -> Result<(), SweepError> {
        if self.broker.depth(lane).await?.ready > 0 {
            return Ok(());
        }
        let ready_before = self.clock.now() - OVERDUE_AFTER;
        let overdue = self.store.overdue(lane, ready_before, NET_BATCH).await?;
        if !overdue.is_empty() {
            // Or they lie at a busy worker: the new message goes to whoever is idle.
            info!(%lane, n_jobs = overdue.len(), "jobs wait and no message is left; published again");
            repaired("republished", overdue.len() as u64);
            self.publish(overdue);
        }
        Ok(())
    }

    /// Deletes what has been kept long enough.
    async fn clean(&self, soft: &CancellationToken) -> Result<(), SweepError> {
        let before = self.clock.now() - TimeDelta::hours(self.retention.job_hours.into());
        while !soft.is_cancelled() {
            let n_removed = self.store.remove_finished(before, BATCH).await?;
            repaired("removed", n_removed);
            if n_removed < BATCH.into() {
                break;
            }
        }
        self.store.forget_instances(FORGET_AFTER).await?;
        Ok(())
    }

    /// The id to take jobs over for, unless this process should not: it stops, does not know itself
    /// to be alive, or has more to publish than the broker takes.
    fn may_take_over(&self, soft: &CancellationToken) -> Option<InstanceId> {
        let may = !soft.is_cancelled()
            && self.instance.is_fresh()
            && self.publisher.backlog() < MAX_BACKLOG;
        may.then(|| self.instance.id())
    }

    fn publish(&self, wakeups: Vec<Wakeup>) {
        for wakeup in wakeups {
            self.publisher.publish(wakeup, None);
        }
    }
}

fn is_full(len: usize, limit: u32) -> bool {
    u32::try_from(len).is_ok_and(|len| len >= limit)
}

fn repaired(kind: &'static str, n: u64) {
    if n > 0 {
        counter!(metric::SWEEPER_REPAIRS, "kind" => kind).increment(n);
    }
}

/// The period, up to a tenth shorter or longer.
fn jittered(period: Duration) -> Duration {
    period.mul_f64(rand::rng().random_range(0.9..=1.1))
}
