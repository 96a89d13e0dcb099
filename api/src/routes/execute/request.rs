//! The body and headers of an `execute`: the seed's `GenericModelRequest`, whose members all but
//! `stream` are the model's own.

use http::{HeaderMap, Method};
use inferq_common::{
    job::{IdempotencyKey, Json, Limits, Priority, Route},
    members::each_member,
    vendor::ModelName,
};

use crate::{
    UpstreamModels,
    error::ApiError,
    extract::{Members, Payload, Problems, Share, read},
    registered::Given,
    rules,
    state::AppState,
    submit::{idempotency_key, traceparent},
};

const HEADERS: &[&str] = &[
    "x-callback-url",
    "x-priority",
    "x-timeout-seconds",
    "x-num-retries",
    "x-cancel-on-disconnect",
];

/// A request whose every member and header is right.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) args: Json,
    pub(super) limits: Limits,
    pub(super) priority: Priority,
    pub(super) given: Given,
    pub(super) stream: bool,
    pub(super) callback_url: Option<String>,
    pub(super) cancel_on_disconnect: bool,
    pub(super) idempotency: Option<IdempotencyKey>,
    pub(super) trace: Option<String>,
    pub(super) share: Option<Share>,
}

impl Request {
    /// # Errors
    /// 422 with all that is wrong, headers first.
    pub(super) async fn read(
        state: &AppState,
        path: &str,
        headers: &HeaderMap,
        mut payload: Payload,
        (model, route): (&ModelName, Option<Route>),
    ) -> Result<Self, ApiError> {
        let mut problems = Problems::default();
        let idempotency =
            idempotency_key(headers, &Method::POST, path, &payload.bytes, &mut problems);
        let options = options(headers);
        let callback_url =
            options.optional("x-callback-url", &mut problems, rules::callback_url(&state.guard));
        let priority = options.optional("x-priority", &mut problems, read::word::<Priority>);
        let timeout = options.optional("x-timeout-seconds", &mut problems, rules::timeout);
        let retries = options.optional("x-num-retries", &mut problems, rules::num_retries);
        let cancel_on_disconnect =
            options.optional("x-cancel-on-disconnect", &mut problems, read::boolean);
        let (model, upstream) = (model.clone(), state.upstream.clone());
        let share = payload.share.take();
        let (args, stream) = rules::off_thread_if_large(payload.bytes.len(), move || {
            args(&upstream, &payload, (&model, route), problems)
        })
        .await?;
        let default = Limits::default();
        Ok(Self {
            args,
            limits: Limits {
                timeout: timeout.unwrap_or(default.timeout),
                num_retries: retries.unwrap_or(default.num_retries),
                total_timeout: None,
            },
            priority: priority.unwrap_or(Priority::Normal),
            given: Given {
                timeout: timeout.is_some(),
                num_retries: retries.is_some(),
                priority: priority.is_some(),
            },
            stream,
            callback_url,
            cancel_on_disconnect: cancel_on_disconnect.unwrap_or(false),
            idempotency,
            trace: traceparent(headers),
            share,
        })
    }
}

fn options(headers: &HeaderMap) -> Members<'static> {
    let texts = HEADERS.iter().filter_map(|name| {
        // What is no ASCII is wrong in each of them; the reader says so.
        headers.get(*name).map(|value| (*name, value.to_str().unwrap_or("\u{fffd}").trim()))
    });
    Members::of_texts("header", HEADERS, texts)
}

/// The body without `stream`, as it is spelt, and what `stream` said.
fn args(
    upstream: &UpstreamModels,
    payload: &Payload,
    (model, route): (&ModelName, Option<Route>),
    mut problems: Problems,
) -> Result<(Json, bool), ApiError> {
    let body = problems.with(payload.members(&["stream"]))?;
    let text = payload.text()?;
    let stream = body.optional("stream", &mut problems, read::boolean).unwrap_or(false);
    let text = if body.get("stream").is_some() { without_stream(text) } else { text.to_owned() };
    let args = Json::parse(text).map_err(ApiError::internal)?;
    if problems.is_empty() {
        let fits = rules::not_too_deep(args.raw())
            .and_then(|()| rules::args_fit(upstream, model, &args, route));
        match fits {
            Err(fault) => problems.add(vec!["body".into()], fault, Some(args.raw())),
            Ok(route) if stream => {
                if let Err(fault) = rules::can_stream(model, route) {
                    problems.add(body.loc("stream"), fault, None);
                }
            }
            Ok(_) => {}
        }
    }
    problems.check()?;
    Ok((args, stream))
}

fn without_stream(object: &str) -> String {
    let mut rest = String::with_capacity(object.len());
    // It is an object: it has been parsed.
    let _ = each_member(object, |member| {
        if member.key == "stream" {
            return;
        }
        rest.push(if rest.is_empty() { '{' } else { ',' });
        rest.push_str(member.raw_key);
        rest.push(':');
        rest.push_str(member.value);
    });
    if rest.is_empty() {
        rest.push('{');
    }
    rest.push('}');
    rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_stream_is_taken_out_of_the_body() {
        for (body, expected) in [
            (r#"{"stream":false}"#, "{}"),
            (
                r#"{ "a" : 1.50 , "stream" : false, "\u0062":[ 1 ] }"#,
                r#"{"a":1.50,"\u0062":[ 1 ]}"#,
            ),
            (r#"{"\u0073tream":0,"a":{"stream":true}}"#, r#"{"a":{"stream":true}}"#),
        ] {
            assert_eq!(without_stream(body), expected);
        }
    }
}
