//! `POST /v5/jobs/{job_id}/retry`

use axum::{extract::State, response::Response};
use http::{HeaderMap, Method};
use inferq_common::{id::JobId, vendor::ModelName};

use crate::{
    answer,
    auth::Caller,
    credential,
    error::ApiError,
    extract::{Payload, Prefer, Problems, Segment},
    state::AppState,
    submit::{Order, idempotency_key, traceparent},
    waiting::{find, job_not_found},
};

/// Makes a new job of an ended one, with the same arguments and limits, and answers 202 with it.
pub(super) async fn retry(
    State(state): State<AppState>,
    caller: Caller,
    Segment(id): Segment<JobId>,
    headers: HeaderMap,
    payload: Payload,
) -> Result<Response, ApiError> {
    let (job, _) = find(&state, &caller.account, id).await?;
    if !job.status.is_final() {
        return Err(ApiError::JobConflict {
            detail: format!(
                "only a job that has ended can be repeated; this one is {}",
                job.status
            )
            .into(),
            job_id: id,
            status: job.status,
        });
    }
    let mut problems = Problems::default();
    let path = format!("/v5/jobs/{id}/retry");
    let idempotency =
        idempotency_key(&headers, &Method::POST, &path, &payload.bytes, &mut problems);
    problems.check()?;
    let args =
        state.store.find_args(id, &caller.account).await?.ok_or_else(|| job_not_found(id))?;
    let mut payer = caller.account.clone();
    if let Some(model) = job.model_id {
        let model = state.catalogue.model(&state.store, &caller.account, model).await?;
        let gone = "the registered model of this job was deleted, or is no longer open to you";
        payer = model.ok_or(ApiError::Conflict(gone.into()))?.account.clone();
    }
    if let Some(name) = &job.credential {
        let usable = credential::usable(&state, &payer, job.vendor, name).await?;
        usable.map_err(|reason| {
            if payer == caller.account {
                ApiError::Refused(reason.into())
            } else {
                credential::foreign()
            }
        })?;
    }
    let order = Order {
        operation: job.operation,
        account: caller.account,
        alias: job.alias,
        model: ModelName { vendor: job.vendor, name: job.model },
        model_id: job.model_id,
        args,
        limits: job.limits,
        route: job.route,
        credential: job.credential,
        priority: job.priority,
        stream: job.stream,
        callback_url: job.callback_url,
        metadata: job.metadata,
        run_at: None,
        expires_at: None,
        retry_of: Some(id),
        idempotency,
        trace: traceparent(&headers),
        share: payload.share,
    };
    let prefer = Prefer { wait: None, ..Prefer::of(&headers) };
    answer::accept(&state, order, prefer).await
}
