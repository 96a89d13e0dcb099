//! Jobs by the name of a model (v5).

mod request;
#[cfg(test)]
mod tests;

use axum::{Router, extract::State, response::Response, routing::post};
use http::HeaderMap;

use self::request::Request;
use crate::{
    answer, auth::Caller, error::ApiError, extract::Payload, state::AppState, terms::Terms,
};

/// The routes of this resource.
pub(crate) fn router() -> Router<AppState> {
    Router::new().route("/v5/inference", post(create))
}

/// Runs a model: answers with its response, or with the job where the caller prefers that.
async fn create(
    State(state): State<AppState>,
    caller: Caller,
    headers: HeaderMap,
    payload: Payload,
) -> Result<Response, ApiError> {
    let request = Request::read(&state, &headers, payload).await?;
    let terms = Terms {
        callback: request.callback_url.is_some(),
        cancel_on_disconnect: request.cancel_on_disconnect,
        ..Terms::of(&headers)
    };
    let order = request.order(&state, caller.account).await?;
    answer::place(&state, order, terms).await
}
