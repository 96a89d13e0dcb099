//! What a process says about itself: the names of metrics and log fields, and their subscribers.

mod log;
mod metrics;

pub use self::{
    log::{filter, init},
    metrics::{count_ended, describe_metrics, install_metrics, keep_up},
};

/// Names of log and span fields, the same everywhere. Macros take them in braces:
/// `info!({ field::JOB_ID } = %id, "job finished")`.
pub mod field {
    pub const JOB_ID: &str = "job.id";
    pub const JOB_STATUS: &str = "job.status";
    /// Counted from 1.
    pub const JOB_ATTEMPT: &str = "job.attempt";
    pub const ACCOUNT_ID: &str = "account.id";
    pub const INSTANCE_ID: &str = "instance.id";
    pub const LANE: &str = "lane";
    pub const MODEL_ALIAS: &str = "model.alias";
    pub const VENDOR_NAME: &str = "vendor.name";
    /// The class of a [`crate::error::JobError`].
    pub const ERROR_CLASS: &str = "error.class";
    pub const DELIVERY_ID: &str = "delivery.id";
    /// Counted from 1 over the delivery's whole life.
    pub const DELIVERY_ATTEMPT: &str = "delivery.attempt";
    /// The receiver's host; never more of its URL.
    pub const CALLBACK_HOST: &str = "callback.host";
    pub const REQUEST_ID: &str = "request.id";
}

/// Names of metrics. Labels come from closed sets, never from ids.
pub mod metric {
    /// Counter by `vendor` and `priority`.
    pub const JOBS_SUBMITTED: &str = "inferq_jobs_submitted_total";
    /// Counter by `vendor`: jobs given to a worker with room as they were stored, past their lane.
    pub const JOBS_LENT: &str = "inferq_jobs_lent_total";
    /// Counter by `vendor`: of these the ones that came back to their lane, not begun.
    pub const LOANS_RETURNED: &str = "inferq_loans_returned_total";
    /// Counter by `vendor` and `status`.
    pub const JOBS_FINISHED: &str = "inferq_jobs_finished_total";
    /// Gauge by `lane`: queued jobs in the store.
    pub const QUEUE_DEPTH: &str = "inferq_queue_depth";
    /// Gauge by `vendor`: attempts running in this process.
    pub const ATTEMPTS_RUNNING: &str = "inferq_attempts_running";
    /// Histogram by `vendor`: from ready to run to claimed.
    pub const QUEUE_WAIT: &str = "inferq_queue_wait_seconds";
    /// Histogram by `vendor` and `outcome` (`succeeded` or the error's class).
    pub const ATTEMPT_DURATION: &str = "inferq_attempt_duration_seconds";
    /// Histogram by `vendor`: from the call to the first chunk of its stream.
    pub const FIRST_CHUNK: &str = "inferq_first_chunk_seconds";
    /// Counter by `vendor`: chunks of streams received.
    pub const STREAM_CHUNKS: &str = "inferq_stream_chunks_total";
    /// Counter by `vendor`: chunks a waiting process was not sent because the broker did not keep
    /// up; it reads them from the store.
    pub const LIVE_CHUNKS_DROPPED: &str = "inferq_live_chunks_dropped_total";
    /// Histogram by `vendor` and `status`: from submit to the final status.
    pub const JOB_DURATION: &str = "inferq_job_duration_seconds";
    /// Counter by `class`.
    pub const RETRIES: &str = "inferq_retries_total";
    /// Counter by `vendor`: jobs put back uncalled because their model's lane is held back.
    pub const GATE_DEFERRED: &str = "inferq_gate_deferred_total";
    /// Counter by `vendor` and `class`: attempts failed uncalled because their credential is refused.
    pub const GATE_REFUSED: &str = "inferq_gate_refused_total";
    /// Counter by `vendor`: calls the vendor answered with a request to slow down.
    pub const RATE_LIMITED: &str = "inferq_rate_limited_total";
    pub const ANSWERS_HELD_UP: &str = "inferq_answers_held_up_total";
    /// Counter by `outcome`: `delivered`, `retried`, `failed`.
    pub const CALLBACK_ATTEMPTS: &str = "inferq_callback_attempts_total";
    /// Gauge: age of the oldest due callback.
    pub const CALLBACK_LAG: &str = "inferq_callback_lag_seconds";
    /// Counter by `kind`: `instance_lost`, `requeued`, `republished`, `expired`, `failed`, `removed`.
    pub const SWEEPER_REPAIRS: &str = "inferq_sweeper_repairs_total";
    /// Histogram by `kind`: `submit`, `claim`, `finish`, `append`, `find`.
    pub const GROUP_SIZE: &str = "inferq_group_commit_size";
    /// Histogram by `route`, `method` and `status`.
    pub const HTTP_DURATION: &str = "inferq_http_request_duration_seconds";
    /// Gauge: publishes waiting for the broker in this process.
    pub const PUBLISH_BACKLOG: &str = "inferq_publish_backlog";
}
