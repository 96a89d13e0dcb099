//! The body of a task, and the endpoint its query names.

use std::time::Duration;

use http::{HeaderMap, Method, Uri};
use inferq_common::{
    id::AccountId,
    job::{IdempotencyKey, Json, Limits, Operation, Priority},
    model::Model,
};
use serde_json::{json, value::RawValue};

use super::endpoint::Endpoint;
use crate::{
    credential,
    error::ApiError,
    extract::{Fault, Members, Payload, Problems, Share, read},
    registered::{self, Given},
    rules,
    state::AppState,
    submit::{Order, idempotency_key, traceparent},
};

const MEMBERS: &[&str] = &[
    "url",
    "args",
    "cloudpickle",
    "callback_url",
    "callback_auth",
    "return_pickled",
    "destination_path",
    "timeout_seconds",
    "num_retries",
];

/// A task whose every member is right.
#[derive(Debug)]
pub(super) struct Request {
    args: Json,
    timeout: Option<Duration>,
    num_retries: Option<u32>,
    callback_url: Option<String>,
    idempotency: Option<IdempotencyKey>,
    trace: Option<String>,
    share: Option<Share>,
}

/// The endpoint's id in the query, and the task in the body.
///
/// # Errors
/// 422 with all that is wrong: the query first, then the headers, then the body.
pub(super) async fn read(
    state: &AppState,
    uri: &Uri,
    headers: &HeaderMap,
    payload: Payload,
) -> Result<(String, Request), ApiError> {
    let mut problems = Problems::default();
    let query = Members::of_query(uri, &["model_endpoint_id"]);
    let id = query.required("model_endpoint_id", &mut problems, read::string);
    // The endpoint is part of what a repeat has to repeat.
    let path = uri.path_and_query().map_or(uri.path(), http::uri::PathAndQuery::as_str);
    let request = Request::read(state, path, headers, payload, problems).await?;
    match id {
        Some(id) => Ok((id, request)),
        None => Err(ApiError::internal("a missing endpoint is a problem")),
    }
}

impl Request {
    /// # Errors
    /// 422 with all that is wrong after what is in `problems`, headers first.
    pub(super) async fn read(
        state: &AppState,
        path: &str,
        headers: &HeaderMap,
        mut payload: Payload,
        mut problems: Problems,
    ) -> Result<Self, ApiError> {
        let trace = traceparent(headers);
        let idempotency =
            idempotency_key(headers, &Method::POST, path, &payload.bytes, &mut problems);
        let size = payload.bytes.len();
        let share = payload.share.take();
        let state = state.clone();
        let mut request =
            rules::off_thread_if_large(size, move || Self::read_body(&state, &payload, problems))
                .await?;
        request.idempotency = idempotency;
        request.trace = trace;
        request.share = share;
        Ok(request)
    }

    fn read_body(
        state: &AppState,
        payload: &Payload,
        mut problems: Problems,
    ) -> Result<Self, ApiError> {
        let body = problems.with(payload.members(MEMBERS))?;
        body.optional("url", &mut problems, |_| {
            refuse("inputs are not fetched from a URL: send them in args")
        });
        let args = body.optional("args", &mut problems, rules::args);
        body.optional("cloudpickle", &mut problems, |_| {
            refuse("pickled inputs are not supported: send JSON in args")
        });
        let callback_url =
            body.optional("callback_url", &mut problems, rules::callback_url(&state.guard));
        body.optional("callback_auth", &mut problems, |_| {
            refuse(
                "callbacks carry a signature, not credentials: leave callback_auth out and \
                 verify webhook-signature",
            )
        });
        body.optional("return_pickled", &mut problems, |raw| {
            if read::boolean(raw)? {
                return refuse("results are JSON, never pickled: set return_pickled to false");
            }
            Ok(())
        });
        body.optional("destination_path", &mut problems, |_| {
            refuse("a task goes to the model's own route: leave destination_path out")
        });
        let timeout = body.optional("timeout_seconds", &mut problems, timeout);
        let num_retries = body.optional("num_retries", &mut problems, rules::num_retries);
        problems.check()?;
        Ok(Self {
            args: args.unwrap_or_else(rules::no_args),
            timeout,
            num_retries,
            callback_url,
            idempotency: None,
            trace: None,
            share: None,
        })
    }

    /// Completes the request with the endpoint it is for.
    ///
    /// # Errors
    /// 409 for a model that is not ready; 422 for arguments it could make nothing of, for a stream of
    /// what answers in one piece, or for a credential that cannot be used.
    pub(super) async fn order(
        self,
        state: &AppState,
        account: AccountId,
        endpoint: Endpoint,
        stream: bool,
    ) -> Result<Order, ApiError> {
        let model = endpoint.registered.as_deref();
        if let Some(model) = model {
            rules::ready(model)?;
        }
        let route = model.and_then(Model::route);
        let chosen = rules::args_fit(&state.upstream, &endpoint.model, &self.args, route);
        let chosen = chosen.map_err(|fault| {
            let loc = vec!["body".into(), "args".into()];
            ApiError::Invalid(vec![fault.at(loc, Some(self.args.raw()))])
        })?;
        if stream && let Err(fault) = rules::can_stream(&endpoint.model, chosen) {
            let loc = vec!["query".into(), "model_endpoint_id".into()];
            return Err(ApiError::Invalid(vec![fault.at(loc, None)]));
        }
        let loc = || vec!["query".into(), "model_endpoint_id".into()];
        let credential = credential::of_model(state, &account, model, loc).await?;
        let default = Limits::default();
        let given = Given {
            timeout: self.timeout.is_some(),
            num_retries: self.num_retries.is_some(),
            priority: false,
        };
        // Who has opened a model to others is not told what they get.
        let own = model.filter(|model| model.account == account);
        let mut order = Order {
            operation: Operation::Inference,
            account,
            alias: endpoint.alias,
            model_id: model.map(|model| model.id),
            args: self.args,
            limits: Limits {
                timeout: self.timeout.unwrap_or(default.timeout),
                num_retries: self.num_retries.unwrap_or(default.num_retries),
                total_timeout: None,
            },
            route,
            credential,
            priority: Priority::Normal,
            stream,
            callback_url: self
                .callback_url
                .or_else(|| own.and_then(|model| model.default_callback_url.clone())),
            model: endpoint.model,
            metadata: None,
            run_at: None,
            expires_at: None,
            retry_of: None,
            idempotency: self.idempotency,
            trace: self.trace,
            share: self.share,
        };
        if let Some(model) = model {
            let loc = ["body".into(), "args".into()];
            registered::complete(state, &mut order, model, given, &loc).await?;
        }
        Ok(order)
    }
}

/// What Launch takes and inferq does not is refused in words, never passed over.
fn refuse(reason: &'static str) -> Result<(), Fault> {
    Err(Fault::value(reason))
}

/// Above 0 s, at most 24 h; part of a second counts as a whole one.
fn timeout(raw: &RawValue) -> Result<Duration, Fault> {
    let seconds = read::float(raw)?;
    if seconds <= 0.0 {
        return Err(Fault::new("greater_than", "Input should be greater than 0")
            .with_ctx(json!({ "gt": 0 })));
    }
    let max = Limits::MAX_TIMEOUT.as_secs();
    Duration::try_from_secs_f64(seconds.ceil())
        .ok()
        .filter(|timeout| *timeout <= Limits::MAX_TIMEOUT)
        .ok_or_else(|| {
            let msg = format!("Input should be less than or equal to {max}");
            Fault::new("less_than_equal", msg).with_ctx(json!({ "le": max }))
        })
}
