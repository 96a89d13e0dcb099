//! Jobs whose callers wait, lent to a worker with room as they are stored.
//!
//! The worker is told through its inbox, with the claim where that is not too large. If it is never told,
//! because this process ends or the broker is away, it finds the job by itself.

use std::sync::Arc;

use inferq_common::{
    broker::{BrokerError, Event, MAX_INLINE_BYTES},
    id::InstanceId,
    job::{Job, Json, NewJob, Outcome},
    store::{Claim, Wakeup, group::GroupError},
    telemetry::{field, metric},
};
use tracing::debug;

use crate::{state::AppState, submit::wakeup};

/// A job that is to be lent.
pub(crate) struct Loan {
    pub(crate) borrower: InstanceId,
    /// The worker's claim, where it is not too large to be sent.
    claim: Option<Json>,
}

impl Loan {
    /// Lends the job to a worker with room, if one is known.
    pub(crate) fn of(state: &AppState, new: &mut NewJob) -> Option<Self> {
        let borrower = state.rooms.take(new.job.vendor)?;
        new.lend_to = Some(borrower);
        let is_small = new.args.as_str().len() <= MAX_INLINE_BYTES;
        let claim = is_small.then(|| Json::of(&Claim::lent(new, borrower)).ok()).flatten();
        Some(Self { borrower, claim })
    }
}

/// Tells a worker of a job that was lent to it; nobody waits for that.
pub(crate) fn tell(state: &AppState, job: &Job, loan: Loan, trace: Option<String>) {
    metrics::counter!(metric::JOBS_LENT, "vendor" => job.vendor.as_str()).increment(1);
    let (state, wakeup) = (state.clone(), wakeup(job));
    state.clone().tasks.spawn(async move {
        let Loan { borrower, claim } = loan;
        let Wakeup { job_id, lane, .. } = wakeup;
        let event = Event::Lent { job_id, vendor: lane.vendor, trace: trace.clone(), claim };
        let Err(error) = state.broker.hand(borrower, &event).await else { return };
        debug!({ field::JOB_ID } = %job_id, { field::INSTANCE_ID } = %borrower, %error, "the worker was not told");
        // In doubt the job stays with it: should it have been told, it must not run elsewhere too.
        if matches!(error, BrokerError::Refused(_)) {
            state.rooms.forget(borrower);
            if let Err(error) = take_back(&state, wakeup, borrower, trace).await {
                debug!({ field::JOB_ID } = %job_id, %error, "the loan cannot be taken back yet");
            }
        }
    });
}

/// Queues a job again whose worker is gone. It may have been told all the same, so this counts as an
/// attempt.
async fn take_back(
    state: &AppState,
    wakeup: Wakeup,
    borrower: InstanceId,
    trace: Option<String>,
) -> Result<(), GroupError> {
    let claims = state.store.lent(&[wakeup.job_id], borrower).await.map_err(Arc::new)?;
    let Some(claim) = claims.into_iter().next() else { return Ok(()) };
    let attempt = claim.attempt();
    if state.path.finish(claim, Outcome::HandedBack).await? {
        let vendor = wakeup.lane.vendor.as_str();
        metrics::counter!(metric::LOANS_RETURNED, "vendor" => vendor).increment(1);
        state.publisher.publish(Wakeup { attempt, ..wakeup }, trace);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use inferq_common::{
        broker::{Inbox, Room},
        clock::{Clock as _, SystemClock},
        id::JobId,
        job::{JobStatus, Lane, Priority},
        store::NewInstance,
        vendor::Vendor,
    };

    use super::*;
    use crate::testing::{Reply, TestApi, succeeded};

    const BODY: &str = r#"{"model":"model_zoo/echo","args":{}}"#;

    /// A worker that is alive and has told of room.
    async fn worker_with_room(api: &TestApi) -> InstanceId {
        let id = InstanceId::new(SystemClock.now());
        let new = NewInstance { id, role: "worker", host: "test".to_owned() };
        api.store.register(&new).await.unwrap();
        has_room(api, id);
        id
    }

    fn has_room(api: &TestApi, instance: InstanceId) {
        api.state.rooms.note(&Event::Finished {
            job_id: JobId::new(SystemClock.now()),
            status: JobStatus::Succeeded,
            attempt: 1,
            result: None,
            times: None,
            chunks: 0,
            room: Some(Room { instance, vendor: Vendor::ModelZoo, places: 9 }),
        });
    }

    /// What the worker is told of, as it finds it in the store.
    async fn lent(api: &TestApi, inbox: &mut Box<dyn Inbox>, worker: InstanceId) -> (Claim, Event) {
        let told = inbox.next().await.unwrap();
        let Event::Lent { job_id, .. } = told else { panic!("{told:?}") };
        let claim = api.store.lent(&[job_id], worker).await.unwrap().pop().expect("a loan");
        (claim, told)
    }

    #[tokio::test]
    async fn a_call_that_waits_goes_straight_to_a_worker_with_room() {
        let api = TestApi::start().await;
        let worker = worker_with_room(&api).await;
        let mut inbox = api.broker.inbox(worker).await.unwrap();
        let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let headers = [("traceparent", trace)];
        let runs = async {
            let (claim, told) = lent(&api, &mut inbox, worker).await;
            let Event::Lent { vendor, trace, claim: Some(told), .. } = told else {
                panic!("{told:?}")
            };
            assert_eq!((vendor, claim.attempt()), (Vendor::ModelZoo, 1));
            let told: Claim = serde_json::from_str(told.as_str()).unwrap();
            assert_eq!(told, claim, "it is told what the store has");
            api.finish(claim, succeeded(r#"{"n":1.50}"#)).await;
            trace
        };
        let (reply, told_trace) = tokio::join!(api.post("/v5/inference", &headers, BODY), runs);
        assert_eq!(reply.status, 200, "{reply:?}");
        assert_eq!(reply.json()["response"]["n"], 1.5);
        assert_eq!(told_trace.as_deref(), Some(trace));
        assert_eq!(depth(&api).await, 0, "nothing lies in the lane");
    }

    async fn depth(api: &TestApi) -> u64 {
        let lane = Lane { vendor: Vendor::ModelZoo, priority: Priority::Normal };
        api.broker.depth(lane).await.unwrap().ready
    }

    async fn posted(api: &TestApi, prefer: &str) -> Reply {
        api.post("/v5/inference", &[("prefer", prefer)], BODY).await
    }

    #[tokio::test]
    async fn a_job_nobody_waits_for_goes_through_its_lane() {
        let api = TestApi::start().await;
        worker_with_room(&api).await;
        let reply = posted(&api, "respond-async").await;
        assert_eq!((reply.status.as_u16(), reply.json()["status"].as_str()), (202, Some("queued")));
        assert_eq!(api.claim().await.job.id, reply.job_id());
    }

    #[tokio::test]
    async fn what_a_gone_worker_was_lent_goes_through_its_lane_and_the_worker_is_forgotten() {
        let api = TestApi::start().await;
        // It has no inbox, and nobody has judged it lost yet.
        let worker = worker_with_room(&api).await;
        let calls = async { tokio::join!(posted(&api, "wait=20"), posted(&api, "wait=20")) };
        let runs = async {
            let first = api.claim().await;
            api.finish(first.clone(), succeeded("1")).await;
            let second = api.claim().await;
            api.finish(second.clone(), succeeded("2")).await;
            [first, second]
        };
        let ((one, two), claims) = tokio::join!(calls, runs);
        assert_eq!((one.status.as_u16(), two.status.as_u16()), (200, 200));
        for claim in claims {
            assert_eq!((claim.attempt(), claim.job.lost_attempts), (2, 1));
        }
        assert!(api.state.rooms.take(Vendor::ModelZoo).is_none());

        has_room(&api, worker);
        api.store.retire(worker).await.unwrap();
        let runs = async { api.run_next(succeeded("3")).await };
        let (reply, claim) = tokio::join!(posted(&api, "wait=20"), runs);
        assert_eq!(reply.status, 200, "{reply:?}");
        assert_eq!(claim.attempt(), 1, "the store lends nothing to who is lost");
    }

    #[tokio::test]
    async fn a_loan_is_cancelled_at_its_worker() {
        let api = TestApi::start().await;
        let worker = worker_with_room(&api).await;
        let mut inbox = api.broker.inbox(worker).await.unwrap();
        let cancels = async {
            let (claim, _) = lent(&api, &mut inbox, worker).await;
            let id = claim.job.id;
            assert_eq!(api.get(&format!("/v5/jobs/{id}")).await.json()["status"], "running");
            let cancelled = api.post(&format!("/v5/jobs/{id}/cancel"), &[], "").await;
            assert_eq!(cancelled.json()["status"], "cancelled", "{cancelled:?}");
            let told = inbox.next().await.unwrap();
            assert_eq!(told, Event::Cancel { job_id: id, attempt: 1 });
        };
        let (reply, ()) = tokio::join!(posted(&api, "wait=20"), cancels);
        assert_eq!(reply.status, 409, "{reply:?}");
    }
}
