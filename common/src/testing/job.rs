//! A job for tests of all crates, so that a new member of [`Job`] is spelt out once.

use chrono::{DateTime, Utc};

use crate::{
    id::JobId,
    job::{Job, JobStatus, Limits, Operation, Priority},
    vendor::Vendor,
};

/// A plain queued job of `acme`, made now.
#[expect(clippy::missing_panics_doc, reason = "the name is one for an account")]
pub fn queued_job(now: DateTime<Utc>) -> Job {
    Job {
        id: JobId::new(now),
        account: "acme".parse().expect("a name for an account"),
        operation: Operation::Inference,
        alias: None,
        vendor: Vendor::OpenAi,
        model: "gpt-5".to_owned(),
        model_id: None,
        retry_of: None,
        priority: Priority::Normal,
        status: JobStatus::Queued,
        attempt: 0,
        lost_attempts: 0,
        limits: Limits::default(),
        route: None,
        credential: None,
        stream: false,
        deferred: false,
        ticket: None,
        callback_url: None,
        metadata: None,
        reply_to: None,
        created_at: now,
        run_at: None,
        expires_at: None,
        started_at: None,
        attempt_started_at: None,
        finished_at: None,
    }
}
