//! The body of `POST /v5/inference`: the seed's `GenericInferenceRequest` and our extensions of it.

use chrono::{DateTime, Utc};
use http::{HeaderMap, Method};
use inferq_common::{
    id::AccountId,
    job::{IdempotencyKey, Json, Limits, Operation, Priority, Route},
    model::Model,
    vendor::{ModelName, Vendor},
};

use crate::{
    credential,
    error::ApiError,
    extract::{Members, Payload, Problems, Share, read},
    registered::{self, Given},
    rules,
    state::AppState,
    submit::{Order, idempotency_key, traceparent},
};

const MEMBERS: &[&str] = &[
    "model",
    "args",
    "inference_configuration",
    "stream",
    "callback_url",
    "metadata",
    "priority",
    "run_at",
    "expires_at",
    "cancel_on_disconnect",
];

const CONFIGURATION: &[&str] =
    &["timeout_seconds", "num_retries", "total_timeout_seconds", "route"];

/// A request whose every member is right.
#[derive(Debug)]
pub(super) struct Request {
    model: ModelName,
    args: Json,
    limits: Limits,
    route: Option<Route>,
    stream: bool,
    pub(super) callback_url: Option<String>,
    pub(super) cancel_on_disconnect: bool,
    metadata: Option<Json>,
    priority: Priority,
    given: Given,
    run_at: Option<DateTime<Utc>>,
    expires_at: Option<DateTime<Utc>>,
    idempotency: Option<IdempotencyKey>,
    trace: Option<String>,
    share: Option<Share>,
}

impl Request {
    /// # Errors
    /// 422 with all that is wrong, headers first, then the body in the order of its members.
    pub(super) async fn read(
        state: &AppState,
        headers: &HeaderMap,
        mut payload: Payload,
    ) -> Result<Self, ApiError> {
        let trace = traceparent(headers);
        let mut problems = Problems::default();
        let idempotency =
            idempotency_key(headers, &Method::POST, "/v5/inference", &payload.bytes, &mut problems);
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
        let now = state.clock.now();
        let body = problems.with(payload.members(MEMBERS))?;
        let model = body.required("model", &mut problems, rules::model);
        let args = body.optional("args", &mut problems, rules::args);
        let (limits, route, given) = configuration(&body, model.as_ref(), &mut problems);
        let stream = body.optional("stream", &mut problems, read::boolean);
        let callback_url =
            body.optional("callback_url", &mut problems, rules::callback_url(&state.guard));
        let metadata = body.optional("metadata", &mut problems, rules::metadata);
        let priority = body.optional("priority", &mut problems, read::word::<Priority>);
        let run_at = body.optional("run_at", &mut problems, rules::run_at(now)).flatten();
        let expires_at = body.optional("expires_at", &mut problems, rules::expires_at(now, run_at));
        let cancel_on_disconnect =
            body.optional("cancel_on_disconnect", &mut problems, read::boolean);
        let args = args.unwrap_or_else(rules::no_args);
        let stream = stream.unwrap_or(false) || rules::args_stream(&args);
        if problems.is_empty()
            && let Some(model) = &model
        {
            match rules::args_fit(&state.upstream, model, &args, route) {
                Err(fault) => problems.add(body.loc("args"), fault, body.get("args")),
                Ok(route) if stream => {
                    if let Err(fault) = rules::can_stream(model, route) {
                        problems.add(body.loc("stream"), fault, None);
                    }
                }
                Ok(_) => {}
            }
        }
        problems.check()?;
        let Some(model) = model else {
            return Err(ApiError::internal("a missing model is a problem"));
        };
        Ok(Self {
            model,
            args,
            limits,
            route,
            stream,
            callback_url,
            cancel_on_disconnect: cancel_on_disconnect.unwrap_or(false),
            metadata,
            priority: priority.unwrap_or(Priority::Normal),
            given: Given { priority: priority.is_some(), ..given },
            run_at,
            expires_at,
            idempotency: None,
            trace: None,
            share: None,
        })
    }

    /// Completes the request with what is registered under the model's name.
    pub(super) async fn order(
        self,
        state: &AppState,
        account: AccountId,
    ) -> Result<Order, ApiError> {
        let registered = state.catalogue.model_by_name(&state.store, &account, &self.model).await?;
        let registered = registered.as_deref();
        if let Some(model) = registered {
            rules::ready(model)?;
        }
        let loc = || vec!["body".into(), "model".into()];
        let credential = credential::of_model(state, &account, registered, loc).await?;
        let route = self.route.or_else(|| registered.and_then(Model::route));
        if self.stream {
            let loc = vec!["body".into(), "stream".into()];
            rules::can_stream(&self.model, route)
                .map_err(|fault| ApiError::Invalid(vec![fault.at(loc, None)]))?;
        }
        let mut order = Order {
            operation: Operation::Inference,
            account,
            alias: None,
            model: self.model,
            model_id: registered.map(|model| model.id),
            args: self.args,
            limits: self.limits,
            route,
            credential,
            priority: self.priority,
            stream: self.stream,
            callback_url: self
                .callback_url
                .or_else(|| registered.and_then(|model| model.default_callback_url.clone())),
            metadata: self.metadata,
            run_at: self.run_at,
            expires_at: self.expires_at,
            retry_of: None,
            idempotency: self.idempotency,
            trace: self.trace,
            share: self.share,
        };
        if let Some(model) = registered {
            let loc = ["body".into(), "args".into()];
            registered::complete(state, &mut order, model, self.given, &loc).await?;
        }
        Ok(order)
    }
}

/// The seed's `LaunchInferenceConfiguration`, with our total timeout and route.
fn configuration(
    body: &Members<'_>,
    model: Option<&ModelName>,
    problems: &mut Problems,
) -> (Limits, Option<Route>, Given) {
    let members = body.object("inference_configuration", CONFIGURATION, problems);
    let timeout = members.optional("timeout_seconds", problems, rules::timeout);
    let retries = members.optional("num_retries", problems, rules::num_retries);
    let total_timeout = members.optional("total_timeout_seconds", problems, rules::total_timeout);
    let vendor = model.map_or(Vendor::OpenAi, |model| model.vendor);
    let route = members.optional("route", problems, rules::route(vendor));
    let default = Limits::default();
    let limits = Limits {
        timeout: timeout.unwrap_or(default.timeout),
        num_retries: retries.unwrap_or(default.num_retries),
        total_timeout,
    };
    let given =
        Given { timeout: timeout.is_some(), num_retries: retries.is_some(), priority: false };
    (limits, route, given)
}
