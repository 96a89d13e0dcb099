//! Finds the job of a request's first copy.
//!
//! The vendor's SDKs send a request again when its answer is late or lost, with nothing but a count
//! to tell the copy by. While the job of the first copy runs, the second one joins it.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use inferq_common::{job::Job, store::Twin};

use crate::{error::ApiError, state::AppState, submit::Order, terms::Terms};

/// How long ago the first copy may have been sent, beside the time its answer is waited for at most:
/// the SDKs' own waits between copies are at most a minute each.
const WINDOW: Duration = Duration::from_secs(5 * 60);

/// The unfinished job that an equal request of the account made a short while ago, if this one is
/// a copy of it and has no idempotency key, which would tell for certain.
pub(crate) async fn find(
    state: &AppState,
    order: &Order,
    terms: Terms,
) -> Result<Option<Job>, ApiError> {
    // A job that ends with its reader may end any moment: the first copy's has gone.
    if !terms.sent_again || order.idempotency.is_some() || terms.cancel_on_disconnect {
        return Ok(None);
    }
    let twin = Twin {
        account: order.account.clone(),
        operation: order.operation,
        alias: order.alias.clone(),
        vendor: order.model.vendor,
        model: order.model.name.clone(),
        stream: order.stream,
        args: order.args.clone(),
    };
    // A call that is kept alive may be cut off at any time while it is held.
    let held = Duration::from_secs(state.config.max_wait_secs);
    let window = TimeDelta::from_std(WINDOW + held).unwrap_or(TimeDelta::MAX);
    let found = state.store.find_twin(&twin, state.clock.now() - window).await?;
    Ok(found.filter(|job| is_of(order, job)))
}

/// Whether the order would make the same job, in all that is not asked of the store.
fn is_of(order: &Order, job: &Job) -> bool {
    job.model_id == order.model_id
        && job.limits == order.limits
        && job.route == order.route
        && job.credential == order.credential
        && job.priority == order.priority
        && job.callback_url == order.callback_url
        && job.metadata == order.metadata
        && job.retry_of == order.retry_of
        && same_moment(job.expires_at, order.expires_at)
        && is_due_alike(order, job)
}

/// A job that waits for another attempt was due at once.
fn is_due_alike(order: &Order, job: &Job) -> bool {
    match order.run_at {
        Some(_) => same_moment(job.run_at, order.run_at),
        None => job.run_at.is_none() || job.attempt > 0 || job.deferred,
    }
}

/// The stores keep microseconds.
fn same_moment(stored: Option<DateTime<Utc>>, asked: Option<DateTime<Utc>>) -> bool {
    let micros = |at: Option<DateTime<Utc>>| at.map(|at| at.timestamp_micros());
    micros(stored) == micros(asked)
}

#[cfg(test)]
mod tests;
