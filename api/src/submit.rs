//! Makes a job of a checked request: stored first, then published.

use chrono::{DateTime, Utc};
use http::{HeaderMap, Method};
use inferq_common::{
    broker::MAX_AHEAD,
    credential::CredentialName,
    id::{AccountId, JobId, ModelId},
    job::{IdempotencyKey, Job, JobStatus, Json, Limits, NewJob, Operation, Priority, Route},
    store::{Submitted, Wakeup},
    telemetry::metric,
    vendor::ModelName,
};
use sha2::{Digest, Sha256};

use crate::{
    cancel::OnLeave,
    error::{ApiError, Problem},
    extract::{Fault, Problems, Share},
    loans::{self, Loan},
    state::AppState,
    stream::feed::{BUFFER_BYTES, Feed},
    waiters::Waiter,
};

/// A request for a job, checked and complete.
#[derive(Debug)]
pub struct Order {
    pub operation: Operation,
    pub account: AccountId,
    /// The alias (or model server id) an `execute` named.
    pub alias: Option<String>,
    pub model: ModelName,
    pub model_id: Option<ModelId>,
    pub args: Json,
    pub limits: Limits,
    pub route: Option<Route>,
    /// What the registered model names.
    pub credential: Option<CredentialName>,
    pub priority: Priority,
    /// Whether the answer is to come in chunks.
    pub stream: bool,
    pub callback_url: Option<String>,
    pub metadata: Option<Json>,
    /// In the future, or `None`.
    pub run_at: Option<DateTime<Utc>>,
    pub expires_at: Option<DateTime<Utc>>,
    pub retry_of: Option<JobId>,
    pub idempotency: Option<IdempotencyKey>,
    /// W3C `traceparent` of the request.
    pub trace: Option<String>,
    /// Of the memory for bodies, until the job is stored.
    pub share: Option<Share>,
}

/// A job that is stored.
#[derive(Debug)]
pub struct Placed {
    pub job: Job,
    /// Whether an earlier request with the same idempotency key made it.
    pub repeated: bool,
    /// Armed where the caller wants the job cancelled when it leaves; it may have left already.
    pub(crate) leave: OnLeave,
}

/// Stores the job and has it published. Its end is told to this process, for who comes to wait for
/// it here.
///
/// Once begun it is done even if the caller goes away: what is stored is also published.
///
/// # Errors
/// `Unavailable` if the store does not take it, `Invalid` if its idempotency key was used before for
/// another request. Nothing is stored then.
pub async fn submit(state: &AppState, mut order: Order) -> Result<Placed, ApiError> {
    let (trace, share) = (order.trace.take(), order.share.take());
    let purpose = Purpose { waits: false, cancel: false };
    place(state, new_job(state, order), trace, share, purpose).await
}

/// As [`submit`]; the end of the job is sent to this process and wakes the waiter. `cancel`: the job
/// is cancelled if the caller leaves.
pub async fn submit_and_wait(
    state: &AppState,
    mut order: Order,
    cancel: bool,
) -> Result<(Placed, Waiter), ApiError> {
    let (trace, share) = (order.trace.take(), order.share.take());
    let new = new_job(state, order);
    // Registered before anyone can run the job.
    let waiter = state.waiters.register(new.job.id);
    let purpose = Purpose { waits: true, cancel };
    let placed = place(state, new, trace, share, purpose).await?;
    // What ends after a repeated request is the first one's job.
    let waiter = if placed.repeated { state.waiters.register(placed.job.id) } else { waiter };
    Ok((placed, waiter))
}

/// As [`submit_and_wait`]; the chunks of the job and its end are told to the feed.
pub(crate) async fn submit_and_listen(
    state: &AppState,
    mut order: Order,
    cancel: bool,
) -> Result<(Placed, Feed), ApiError> {
    let (trace, share) = (order.trace.take(), order.share.take());
    let new = new_job(state, order);
    let feed = state.waiters.listen(new.job.id, BUFFER_BYTES);
    let purpose = Purpose { waits: true, cancel };
    let placed = place(state, new, trace, share, purpose).await?;
    let feed =
        if placed.repeated { state.waiters.listen(placed.job.id, BUFFER_BYTES) } else { feed };
    Ok((placed, feed))
}

fn new_job(state: &AppState, order: Order) -> NewJob {
    let now = state.clock.now();
    let job = Job {
        id: JobId::new(now),
        account: order.account,
        operation: order.operation,
        alias: order.alias,
        vendor: order.model.vendor,
        model: order.model.name,
        model_id: order.model_id,
        retry_of: order.retry_of,
        priority: order.priority,
        status: JobStatus::Queued,
        attempt: 0,
        lost_attempts: 0,
        limits: order.limits,
        route: order.route,
        credential: order.credential,
        stream: order.stream,
        deferred: false,
        ticket: None,
        callback_url: order.callback_url,
        metadata: order.metadata,
        reply_to: Some(state.instance.id()),
        created_at: now,
        run_at: order.run_at,
        expires_at: order.expires_at,
        started_at: None,
        attempt_started_at: None,
        finished_at: None,
    };
    NewJob { job, args: order.args, idempotency: order.idempotency, lend_to: None }
}

/// What a job is made for.
#[derive(Debug, Clone, Copy)]
struct Purpose {
    /// Its caller waits for it; else one may come later to wait.
    waits: bool,
    /// It is not wanted without its caller.
    cancel: bool,
}

/// In a task of its own, which outlives the caller.
async fn place(
    state: &AppState,
    new: NewJob,
    trace: Option<String>,
    share: Option<Share>,
    purpose: Purpose,
) -> Result<Placed, ApiError> {
    let task = state.tasks.spawn({
        let state = state.clone();
        async move {
            let placed = store_and_publish(&state, new, trace, purpose.waits).await;
            drop(share);
            // A caller that has left meanwhile drops what is returned here, and so cancels the job.
            placed.map(|(job, repeated)| {
                let leave = OnLeave::new(purpose.cancel, &state, job.id, &job.account);
                Placed { job, repeated, leave }
            })
        }
    });
    task.await.map_err(ApiError::internal)?
}

/// The job, and whether an earlier request made it.
async fn store_and_publish(
    state: &AppState,
    mut new: NewJob,
    trace: Option<String>,
    waits: bool,
) -> Result<(Job, bool), ApiError> {
    let job = new.job.clone();
    let is_due = job.run_at.is_none();
    let loan = if waits && is_due { Loan::of(state, &mut new) } else { None };
    // A repeated request would make no job for the message.
    let sole = loan.is_none() && new.idempotency.is_none();
    let ahead = if is_due && sole && state.path.submits_promptly() {
        state.publisher.publish_ahead(wakeup(&job), trace.clone())
    } else {
        None
    };
    let submitted = state.path.submit(new).await?;
    match submitted {
        Submitted::Added | Submitted::Lent => {}
        Submitted::Repeated(first) => {
            wake_again(state, &first, trace);
            return Ok((*first, true));
        }
        Submitted::KeyReused => return Err(key_reused()),
    }
    metrics::counter!(
        metric::JOBS_SUBMITTED,
        "vendor" => job.vendor.as_str(),
        "priority" => job.priority.as_str(),
    )
    .increment(1);
    if let Some(loan) = loan {
        if submitted == Submitted::Lent {
            loans::tell(state, &job, loan, trace);
            return Ok((job, false));
        }
        state.rooms.forget(loan.borrower);
    }
    if !waits {
        state.waiters.placed(&job);
    }
    if is_due && ahead.is_none_or(|since| since.elapsed() > MAX_AHEAD) {
        state.publisher.publish(wakeup(&job), trace);
    }
    Ok((job, false))
}

/// The message of a job that no attempt has been made at.
pub(crate) fn wakeup(job: &Job) -> Wakeup {
    Wakeup { job_id: job.id, lane: job.lane(), attempt: 0, reply_to: job.reply_to }
}

/// The first request may have been stored and its answer lost, and with it the message: a repeated
/// one sees to it. One message too many does no harm.
fn wake_again(state: &AppState, job: &Job, trace: Option<String>) {
    if job.status == JobStatus::Queued && job.attempt == 0 && job.run_at.is_none() {
        state.publisher.publish(wakeup(job), trace);
    }
}

fn key_reused() -> ApiError {
    let fault = Fault::value("this idempotency key was used before for another request");
    ApiError::Invalid(vec![idempotency_problem(fault)])
}

fn idempotency_problem(fault: Fault) -> Problem {
    fault.at(vec!["header".into(), "idempotency-key".into()], None)
}

/// Reads `Idempotency-Key`: 1 to 255 visible ASCII characters, quoted or not.
///
/// Source: draft-ietf-httpapi-idempotency-key-header-07.
pub fn idempotency_key(
    headers: &HeaderMap,
    method: &Method,
    path: &str,
    body: &[u8],
    problems: &mut Problems,
) -> Option<IdempotencyKey> {
    let mut values = headers.get_all("idempotency-key").iter();
    let value = values.next()?;
    let text = value.to_str().unwrap_or_default().trim();
    let key = text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(text);
    let fits = (1..=255).contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_graphic());
    if !fits || values.next().is_some() {
        let fault =
            Fault::value("an idempotency key is one text of 1 to 255 visible ASCII characters");
        problems.push(idempotency_problem(fault));
        return None;
    }
    let mut fingerprint = Sha256::new();
    for part in [method.as_str().as_bytes(), path.as_bytes()] {
        fingerprint.update(part);
        fingerprint.update([0]);
    }
    fingerprint.update(body);
    Some(IdempotencyKey { key: key.to_owned(), fingerprint: fingerprint.finalize().into() })
}

/// The `traceparent` of a request, if it has the form of one.
///
/// Source: <https://www.w3.org/TR/trace-context/#traceparent-header>.
pub fn traceparent(headers: &HeaderMap) -> Option<String> {
    let text = headers.get("traceparent")?.to_str().ok()?;
    let lengths = [2, 32, 16, 2];
    let parts: Vec<&str> = text.split('-').collect();
    let fits = parts.len() == lengths.len()
        && parts.iter().zip(lengths).all(|(part, length)| {
            part.len() == length && part.bytes().all(|byte| byte.is_ascii_hexdigit())
        });
    fits.then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use inferq_common::{
        broker::{Message, memory::MemoryBroker},
        job::Lane,
        vendor::Vendor,
    };

    use super::*;
    use crate::testing::TestApi;

    /// Posts `body` and answers its job's message.
    async fn message_of(api: &TestApi, headers: &[(&str, &str)], body: &str) -> Message {
        let headers = [&[("prefer", "respond-async")], headers].concat();
        let posted = api.post("/v5/inference", &headers, body).await;
        assert_eq!(posted.status, 202, "{posted:?}");
        let lane = Lane { vendor: Vendor::ModelZoo, priority: Priority::Normal };
        let mut deliveries = api.broker.consume(lane, 10).await.unwrap();
        let delivery = deliveries.next().await.unwrap();
        let message = delivery.message().clone();
        delivery.ack().await;
        assert_eq!(message.job_id, posted.job_id());
        message
    }

    const BODY: &str = r#"{"model":"model_zoo/echo","args":{}}"#;

    #[tokio::test]
    async fn a_message_goes_ahead_of_its_job_once_the_store_is_known_to_be_prompt() {
        let api = TestApi::with_broker(Arc::new(MemoryBroker::that_takes_time())).await;
        assert!(!message_of(&api, &[], BODY).await.ahead);

        let api = TestApi::with_broker(Arc::new(MemoryBroker::that_takes_time())).await;
        api.state.path.submit(inferq_common::store::conformance::plain_job()).await.unwrap();
        assert!(message_of(&api, &[], BODY).await.ahead);
    }

    #[tokio::test]
    async fn no_message_goes_ahead_of_a_job_that_may_not_be_made() {
        let api = TestApi::with_broker(Arc::new(MemoryBroker::that_takes_time())).await;
        api.state.path.submit(inferq_common::store::conformance::plain_job()).await.unwrap();
        assert!(!message_of(&api, &[("idempotency-key", "k")], BODY).await.ahead);
    }
}
