//! `GET /v5/jobs/{job_id}/events`

use axum::{
    extract::State,
    response::{IntoResponse as _, Response},
};
use http::{HeaderMap, StatusCode, Uri};
use inferq_common::id::JobId;

use crate::{
    auth::Caller,
    error::{ApiError, JOB_ID, job_header},
    extract::{Members, Problems, Segment, read},
    state::AppState,
    stream::{follower::Follower, sse},
};

const QUERY: &[&str] = &["starting_after"];
const HEADERS: &[&str] = &["last-event-id"];

/// Follows a job: its status, its attempts and its chunks, each with a number, until it has ended.
///
/// `starting_after`, or else `Last-Event-ID`, names the last event that was seen. Where nothing can
/// follow, the answer is 204, which tells an `EventSource` not to come back.
pub(super) async fn events(
    State(state): State<AppState>,
    caller: Caller,
    Segment(id): Segment<JobId>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let seen = seen(&uri, &headers)?;
    let Some(follower) = Follower::new(&state, caller.account, id, seen).await? else {
        return Ok(StatusCode::NO_CONTENT.into_response());
    };
    let mut response = sse::response(follower.body());
    response.headers_mut().insert(JOB_ID, job_header(id));
    Ok(response)
}

/// The number of the last event that was seen; 0: none.
fn seen(uri: &Uri, headers: &HeaderMap) -> Result<u64, ApiError> {
    let mut problems = Problems::default();
    let texts = HEADERS.iter().filter_map(|name| {
        // What is no ASCII is no number either.
        headers.get(*name).map(|value| (*name, value.to_str().unwrap_or("\u{fffd}").trim()))
    });
    let header = Members::of_texts("header", HEADERS, texts);
    let header = header.optional("last-event-id", &mut problems, read::whole(0..=i64::MAX));
    let query = Members::of_query(uri, QUERY);
    let query = query.optional("starting_after", &mut problems, read::whole(0..=i64::MAX));
    problems.check()?;
    Ok(query.or(header).map_or(0, i64::unsigned_abs))
}
