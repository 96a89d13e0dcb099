use bytes::Bytes;
use chrono::{DateTime, Utc};
use inferq_common::{
    callback::event_type,
    job::{Job, JobResult},
    view::{JobView, instant},
};
use serde::Serialize;
use url::Url;

/// A longer response is left out of the body and named by its address. Counted on its text.
pub const MAX_INLINE_RESPONSE_BYTES: usize = 256 * 1024;

/// What is posted. Nothing in it changes from one attempt to the next.
#[derive(Serialize)]
struct Event {
    r#type: String,
    /// When the job ended, so that a consumer can put events in order.
    #[serde(serialize_with = "instant")]
    timestamp: DateTime<Utc>,
    data: Data,
}

#[derive(Serialize)]
struct Data {
    #[serde(flatten)]
    job: JobView,
    /// Where the job is with its whole response, if that is left out here.
    #[serde(skip_serializing_if = "Option::is_none")]
    result_url: Option<String>,
}

/// The body of the callback for an ended job.
pub(super) fn of(job: Job, mut result: JobResult, public_url: &Url) -> serde_json::Result<Bytes> {
    let is_long =
        |response: &inferq_common::job::Json| response.as_str().len() > MAX_INLINE_RESPONSE_BYTES;
    let left_out = result.response.take_if(|response| is_long(response)).is_some();
    let event = Event {
        r#type: event_type(job.status),
        timestamp: job.finished_at.unwrap_or(job.created_at),
        data: Data {
            result_url: left_out.then(|| {
                format!("{}/v5/jobs/{}", public_url.as_str().trim_end_matches('/'), job.id)
            }),
            job: JobView::new(job, Some(result)),
        },
    };
    serde_json::to_vec(&event).map(Bytes::from)
}
