//! What the end of an attempt or of a job writes besides its row.

use chrono::{DateTime, Utc};

use super::stream_lost;
use crate::{
    callback::{Delivery, DeliveryStatus},
    error::{ErrorClass, JobError},
    id::{DeliveryId, JobId},
    job::{AttemptOutcome, Job, JobStatus, Json, Limits, Outcome},
    usage::Usage,
};

/// What an outcome writes.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Ending {
    /// What the job becomes.
    pub(crate) status: JobStatus,
    /// What its attempt row says.
    pub(crate) outcome: AttemptOutcome,
    pub(crate) response: Option<Json>,
    pub(crate) error: Option<JobError>,
    pub(crate) usage: Usage,
    pub(crate) vendor_request_id: Option<String>,
    /// For a job that is queued again: not before this moment.
    pub(crate) run_at: Option<DateTime<Utc>>,
    /// Whether the attempt counts among the lost ones.
    pub(crate) lost: bool,
}

impl Ending {
    /// `None` for a deferral, which ends no attempt and is a statement of its own.
    pub(crate) fn of(outcome: &Outcome) -> Option<Self> {
        let empty = Self {
            status: JobStatus::Queued,
            outcome: AttemptOutcome::Failed,
            response: None,
            error: None,
            usage: Usage::default(),
            vendor_request_id: None,
            run_at: None,
            lost: false,
        };
        Some(match outcome.clone() {
            Outcome::Succeeded { response, usage, vendor_request_id } => Self {
                status: JobStatus::Succeeded,
                outcome: AttemptOutcome::Succeeded,
                response: Some(response),
                usage,
                vendor_request_id,
                ..empty
            },
            Outcome::Failed { error, usage } => {
                Self { status: JobStatus::Failed, usage, ..empty }.because(error)
            }
            Outcome::Retry { error, usage, run_at } => {
                Self { usage, run_at: Some(run_at), ..empty }.because(error)
            }
            Outcome::HandedBack => Self {
                outcome: AttemptOutcome::Lost,
                error: Some(handed_back()),
                lost: true,
                ..empty
            },
            Outcome::Deferred { .. } => return None,
        })
    }

    /// Of an attempt that is given back after part of its stream was passed on.
    pub(crate) fn stream_lost(id: JobId) -> Self {
        let ending = Self::of(&Outcome::HandedBack).expect("it ends the attempt");
        Self { status: JobStatus::Failed, error: Some(stream_lost(id)), ..ending }
    }

    fn because(self, error: JobError) -> Self {
        Self { vendor_request_id: error.vendor_request_id.clone(), error: Some(error), ..self }
    }
}

/// The error of a job that a client cancelled, and of the attempt this ended.
pub(crate) fn cancelled() -> JobError {
    JobError::new(ErrorClass::Cancelled, "the job was cancelled")
}

/// The error of a job whose start-by deadline passed.
pub(crate) fn expired() -> JobError {
    JobError::new(ErrorClass::Expired, "the job had not started when its deadline passed")
}

/// The error of an attempt whose process was lost.
pub(crate) fn lost() -> JobError {
    JobError::new(ErrorClass::Lost, "the process that ran this attempt was lost")
}

/// The error of an attempt whose process stopped in good order.
pub(crate) fn handed_back() -> JobError {
    JobError::new(ErrorClass::Lost, "the process that ran this attempt stopped before it ended")
}

/// The error of a job that lost [`Limits::MAX_LOST_ATTEMPTS`] processes.
pub(crate) fn lost_too_often() -> JobError {
    let message = format!(
        "the job lost the process that ran it {} times and is not run again",
        Limits::MAX_LOST_ATTEMPTS
    );
    JobError::new(ErrorClass::Lost, message)
}

/// The host of a callback's URL in lower case: what the cap per receiver counts.
///
/// URLs are checked when a job is submitted; one without a host shares the cap of the empty name.
pub(crate) fn callback_host(url: &str) -> String {
    let host = url::Url::parse(url).ok().and_then(|url| url.host_str().map(str::to_lowercase));
    host.unwrap_or_default()
}

/// The delivery a job owes once it has ended with `status`; `None` without a callback URL.
pub(crate) fn delivery_owed(job: &Job, status: JobStatus, now: DateTime<Utc>) -> Option<Delivery> {
    let url = job.callback_url.clone()?;
    Some(Delivery {
        id: DeliveryId::new(now),
        job_id: job.id,
        account: job.account.clone(),
        host: callback_host(&url),
        url,
        job_status: status,
        status: DeliveryStatus::Pending,
        attempt: 0,
        instance: None,
        created_at: now,
        next_attempt_at: Some(now),
        finished_at: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cap_per_receiver_ignores_case_and_port() {
        assert_eq!(callback_host("https://Hooks.Example.com:8443/x?y"), "hooks.example.com");
        assert_eq!(callback_host("http://[::1]/"), "[::1]");
        assert_eq!(callback_host("nonsense"), "");
    }

    #[test]
    fn an_outcome_becomes_what_the_state_machine_allows() {
        let error = JobError::new(ErrorClass::Timeout, "late");
        let usage = Usage::default();
        let outcomes = [
            Outcome::Succeeded {
                response: Json::parse("1").unwrap(),
                usage,
                vendor_request_id: None,
            },
            Outcome::Failed { error: error.clone(), usage },
            Outcome::Retry { error, usage, run_at: DateTime::UNIX_EPOCH },
            Outcome::HandedBack,
        ];
        for outcome in outcomes {
            let ending = Ending::of(&outcome).unwrap();
            assert!(JobStatus::Running.can_become(ending.status), "{outcome:?}");
            assert_eq!(ending.lost, outcome == Outcome::HandedBack);
        }
        assert!(
            Ending::of(&Outcome::Deferred { run_at: DateTime::UNIX_EPOCH, ticket: None }).is_none()
        );
    }
}
