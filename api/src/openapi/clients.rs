//! The operations on jobs and callbacks, whose handlers write their answers themselves.
//!
//! A function here carries the documentation of one route; it is never called. The tests beside
//! compare them with the routes there are.
#![expect(dead_code, reason = "only the documentation on them is used")]

use crate::schema::{
    error::{ErrorDetail, HTTPValidationError},
    inference::{
        GenericInferenceRequest, GenericModelRequest, GenericModelResponse, InferenceAnswer,
    },
    job::{AttemptList, Delivery, DeliveryList, FailedInference, Job, JobList},
    words::{InferenceModelVendor, JobPriority, JobStatus},
};

/// Generic Inference
///
/// Makes a job and answers with its result; with `Prefer: respond-async` or a `callback_url`
/// answers 202 with the job. `args` and the response pass through as they are spelt.
///
/// With `stream` (beside `args` or in them) the answer is a stream of server-sent events: an unnamed
/// one for each chunk, then `event: done` with `data: [DONE]`. A failure after the first byte is a
/// chunk with `error`, and nothing follows it.
#[utoipa::path(
    post,
    path = "/v5/inference",
    tag = "Inference",
    operation_id = "POST-V5-/v5/inference",
    params(
        ("prefer" = Option<String>, Header, description =
            "`respond-async`: 202 at once. `wait=N`: 202 if the job has not ended after N seconds"),
        ("idempotency-key" = Option<String>, Header, description =
            "1 to 255 characters; a repeat with the same body is answered with the first job"),
        ("x-stainless-read-timeout" = Option<String>, Header, description =
            "Seconds for which the caller waits for a byte; the answer begins 5 s before, with white \
            space if it is not there yet"),
        ("x-stainless-retry-count" = Option<String>, Header, description =
            "Above 0: a copy of a request, which joins the first one's job while that runs"),
        ("traceparent" = Option<String>, Header, description = "W3C trace context"),
    ),
    request_body = GenericInferenceRequest,
    responses(
        (status = 200, description = "Successful Response", headers(("x-job-id" = String)),
            content(
                (inline(InferenceAnswer) = "application/json"),
                (String = "text/event-stream"),
            )),
        (status = 202, description = "The job is accepted", body = Job, headers(
            ("location" = String, description = "The job"),
            ("retry-after" = i64, description = "Seconds"),
            ("preference-applied" = String),
            ("x-job-id" = String),
        )),
        (status = 400, description = "The vendor calls the request invalid", body = FailedInference),
        (status = 404, description = "The vendor knows no such model", body = FailedInference),
        (status = 409, description = "The first request with this idempotency key is still in \
            progress, or the job was cancelled; not to be repeated", body = ErrorDetail),
        (status = 413, description = "The body is too large", body = ErrorDetail),
        (status = 422, description = "Validation Error", body = HTTPValidationError),
        (status = 429, description = "The vendor asks to slow down, after all retries",
            body = FailedInference),
        (status = 502, description = "The vendor failed, after all retries", body = FailedInference),
        (status = 504, description = "The job timed out, or has not ended within the time a caller \
            is held and goes on", body = FailedInference),
    ),
    security(("APIKeyHeader" = [])),
)]
fn inference() {}

/// Fixed Server interface for Model execution by named alias
///
/// Makes a job of what the alias stands for and answers with its result. The body is the model's
/// own; what else can be asked for are headers.
///
/// With `stream` the answer is a stream of server-sent events: an unnamed one for each of the model's
/// chunks, then `event: done` with `data: [DONE]`, or `event: error` with a `GenericModelResponse`.
#[utoipa::path(
    post,
    path = "/v4/serving/a/{alias}/execute",
    tag = "Model server",
    operation_id = "POST-V4-/v4/serving/a/{alias}/execute",
    params(
        ("alias" = String, Path),
        ("x-callback-url" = Option<String>, Header, description =
            "Where the job is posted once it has ended; the answer is 202 then"),
        ("x-priority" = Option<JobPriority>, Header),
        ("x-timeout-seconds" = Option<i64>, Header, minimum = 1, maximum = 86_400,
            description = "Bounds one attempt; 60 if not given"),
        ("x-num-retries" = Option<i64>, Header, minimum = 0, maximum = 10,
            description = "Attempts after the first; 2 if not given"),
        ("prefer" = Option<String>, Header, description =
            "`respond-async`: 202 at once. `wait=N`: 202 if the job has not ended after N seconds"),
        ("x-cancel-on-disconnect" = Option<bool>, Header, description =
            "Whether the job is cancelled once its caller is gone"),
        ("idempotency-key" = Option<String>, Header, description =
            "1 to 255 characters; a repeat with the same body is answered with the first job"),
        ("x-stainless-read-timeout" = Option<String>, Header, description =
            "Seconds for which the caller waits for a byte; the answer begins 5 s before, with white \
            space if it is not there yet"),
        ("x-stainless-retry-count" = Option<String>, Header, description =
            "Above 0: a copy of a request, which joins the first one's job while that runs"),
    ),
    request_body = GenericModelRequest,
    responses(
        (status = 200, description = "Successful Response", headers(("x-job-id" = String)),
            content(
                (GenericModelResponse = "application/json"),
                (String = "text/event-stream"),
            )),
        (status = 202, description = "The job is accepted", body = Job,
            headers(("location" = String, description = "The job"), ("retry-after" = i64))),
        (status = 400, description = "The vendor calls a streamed request invalid",
            body = FailedInference),
        (status = 404, description = "No model server has this alias", body = ErrorDetail),
        (status = 409, description = "The first request with this idempotency key is still in \
            progress; not to be repeated", body = ErrorDetail),
        (status = 413, description = "The body is too large", body = ErrorDetail),
        (status = 422, description = "Validation Error", body = HTTPValidationError),
        (status = 429, description = "The vendor asks to slow down; only if a stream was asked for",
            body = FailedInference),
        (status = 502, description = "The vendor failed; only if a stream was asked for",
            body = FailedInference),
        (status = 504, description = "The job has not ended within the time a caller is held and \
            goes on", body = ErrorDetail),
    ),
    security(("APIKeyHeader" = [])),
)]
fn execute() {}

/// List Jobs
///
/// Newest first unless `sort_order` says `asc`; without responses.
#[utoipa::path(
    get,
    path = "/v5/jobs",
    tag = "Jobs",
    operation_id = "GET-V5-/v5/jobs",
    params(
        ("status" = Option<JobStatus>, Query),
        ("model_vendor" = Option<InferenceModelVendor>, Query),
        ("model" = Option<String>, Query, description = "With its vendor or without"),
        ("limit" = Option<i64>, Query, minimum = 1, maximum = 1000, description = "100 if not given"),
        ("starting_after" = Option<String>, Query, description = "Id of the last item before the page"),
        ("ending_before" = Option<String>, Query, description = "Id of the first item after the page"),
        ("sort_order" = Option<String>, Query, description = "`asc` or `desc`"),
    ),
    responses(
        (status = 200, description = "Successful Response", body = JobList),
        (status = 422, description = "Validation Error", body = HTTPValidationError),
    ),
    security(("APIKeyHeader" = [])),
)]
fn list_jobs() {}

/// Get Job
#[utoipa::path(
    get,
    path = "/v5/jobs/{job_id}",
    tag = "Jobs",
    operation_id = "GET-V5-/v5/jobs/job_id",
    params(
        ("job_id" = Uuid, Path),
        ("prefer" = Option<String>, Header, description =
            "`wait=N`: answer once the job has ended, but after N seconds at the latest"),
    ),
    responses(
        (status = 200, description = "Successful Response", body = Job),
        (status = 404, description = "The account has no such job", body = ErrorDetail),
    ),
    security(("APIKeyHeader" = [])),
)]
fn get_job() {}

/// Cancel Job
///
/// At once if it is queued; a running attempt is stopped.
#[utoipa::path(
    post,
    path = "/v5/jobs/{job_id}/cancel",
    tag = "Jobs",
    operation_id = "POST-V5-/v5/jobs/job_id/cancel",
    params(("job_id" = Uuid, Path)),
    responses(
        (status = 200, description = "Successful Response", body = Job),
        (status = 404, description = "The account has no such job", body = ErrorDetail),
        (status = 409, description = "It has ended already; not to be repeated", body = ErrorDetail),
    ),
    security(("APIKeyHeader" = [])),
)]
fn cancel_job() {}

/// Retry Job
///
/// Makes a new job of an ended one, with the same arguments and limits.
#[utoipa::path(
    post,
    path = "/v5/jobs/{job_id}/retry",
    tag = "Jobs",
    operation_id = "POST-V5-/v5/jobs/job_id/retry",
    params(("job_id" = Uuid, Path), ("idempotency-key" = Option<String>, Header)),
    responses(
        (status = 202, description = "The new job is accepted", body = Job,
            headers(("location" = String, description = "The new job"), ("retry-after" = i64))),
        (status = 404, description = "The account has no such job", body = ErrorDetail),
        (status = 409, description = "It has not ended; not to be repeated", body = ErrorDetail),
        (status = 422, description = "Validation Error", body = HTTPValidationError),
    ),
    security(("APIKeyHeader" = [])),
)]
fn retry_job() {}

/// Watch Job
///
/// Server-sent events, each with a number as its `id`: `status` with the job as it is queued and as
/// each attempt runs, `chunk` with `attempt`, `index` and `chunk` for each part of a streamed answer,
/// `attempt` for each attempt that is over, and last `status` with the job and its result. They can
/// be followed from any number on, at any time.
#[utoipa::path(
    get,
    path = "/v5/jobs/{job_id}/events",
    tag = "Jobs",
    operation_id = "GET-V5-/v5/jobs/job_id/events",
    params(
        ("job_id" = Uuid, Path),
        ("starting_after" = Option<i64>, Query, minimum = 0, description =
            "Number of the last event that was seen; before `last-event-id`"),
        ("last-event-id" = Option<i64>, Header, minimum = 0, description =
            "Number of the last event that was seen"),
    ),
    responses(
        (status = 200, description = "Events", body = String, content_type = "text/event-stream",
            headers(("x-job-id" = String))),
        (status = 204, description = "The job has ended and all of it was seen"),
        (status = 404, description = "The account has no such job", body = ErrorDetail),
        (status = 422, description = "Validation Error", body = HTTPValidationError),
    ),
    security(("APIKeyHeader" = [])),
)]
fn watch_job() {}

/// List Attempts
///
/// Those that have ended, in their order.
#[utoipa::path(
    get,
    path = "/v5/jobs/{job_id}/attempts",
    tag = "Jobs",
    operation_id = "GET-V5-/v5/jobs/job_id/attempts",
    params(("job_id" = Uuid, Path)),
    responses(
        (status = 200, description = "Successful Response", body = AttemptList),
        (status = 404, description = "The account has no such job", body = ErrorDetail),
    ),
    security(("APIKeyHeader" = [])),
)]
fn list_attempts() {}

/// List Deliveries
///
/// The callbacks owed for a job.
#[utoipa::path(
    get,
    path = "/v5/jobs/{job_id}/deliveries",
    tag = "Jobs",
    operation_id = "GET-V5-/v5/jobs/job_id/deliveries",
    params(("job_id" = Uuid, Path)),
    responses(
        (status = 200, description = "Successful Response", body = DeliveryList),
        (status = 404, description = "The account has no such job", body = ErrorDetail),
    ),
    security(("APIKeyHeader" = [])),
)]
fn list_deliveries() {}

/// Get Delivery
///
/// With all its attempts.
#[utoipa::path(
    get,
    path = "/v5/deliveries/{delivery_id}",
    tag = "Deliveries",
    operation_id = "GET-V5-/v5/deliveries/delivery_id",
    params(("delivery_id" = Uuid, Path)),
    responses(
        (status = 200, description = "Successful Response", body = Delivery),
        (status = 404, description = "The account has no such delivery", body = ErrorDetail),
    ),
    security(("APIKeyHeader" = [])),
)]
fn get_delivery() {}

/// Redeliver
///
/// Makes a callback due now, with a fresh count of attempts.
#[utoipa::path(
    post,
    path = "/v5/deliveries/{delivery_id}/redeliver",
    tag = "Deliveries",
    operation_id = "POST-V5-/v5/deliveries/delivery_id/redeliver",
    params(("delivery_id" = Uuid, Path)),
    responses(
        (status = 202, description = "It is due", body = Delivery),
        (status = 404, description = "The account has no such delivery", body = ErrorDetail),
    ),
    security(("APIKeyHeader" = [])),
)]
fn redeliver() {}
