//! What the members of a request for a job must be, wherever they stand.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use inferq_common::{
    egress::{EgressError, Guard, MAX_URL_BYTES},
    job::{Json, Limits, Route},
    members::each_member,
    model::{Model, ModelStatus},
    route::{can_be_streamed, choose, of_vendor},
    vendor::{ModelName, Vendor},
};
use serde_json::{json, value::RawValue};

use crate::{
    UpstreamModels,
    error::ApiError,
    extract::{Fault, read},
};

/// The longest `total_timeout_seconds`: 7 days.
const MAX_TOTAL_TIMEOUT_SECS: i64 = 7 * 24 * 60 * 60;

/// A client's own notes on a job or a model.
const MAX_METADATA_BYTES: usize = 16 * 1024;

/// What a model is made of, its defaults filled in. Every process that uses the model holds it.
const MAX_CONFIGURATION_BYTES: usize = 256 * 1024;

/// How far ahead a job can be scheduled.
const MAX_SCHEDULE_DAYS: i64 = 30;

/// Deeper documents are refused: what stores and vendors' parsers do with them is not ours to find
/// out, and one of them must not spoil the group it is written with.
const MAX_DEPTH: usize = 128;

/// Bodies above this size take longer to check than a task may hold its thread.
const LARGE_BODY_BYTES: usize = 256 * 1024;

/// Runs `check` here if it is quick, else where it disturbs nobody.
pub(crate) async fn off_thread_if_large<T: Send + 'static>(
    size: usize,
    check: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    if size <= LARGE_BODY_BYTES { check() } else { off_thread(check).await }
}

/// Runs `check` where it disturbs nobody.
pub(crate) async fn off_thread<T: Send + 'static>(
    check: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    tokio::task::spawn_blocking(check).await.map_err(ApiError::internal)?
}

/// `vendor/name`.
pub(crate) fn model(raw: &RawValue) -> Result<ModelName, Fault> {
    read::string(raw)?.parse().map_err(Fault::value)
}

/// A JSON object for the model.
pub(crate) fn args(raw: &RawValue) -> Result<Json, Fault> {
    not_too_deep(raw)?;
    read::dict(raw)
}

/// What stands for `args` that were left out.
pub(crate) fn no_args() -> Json {
    Json::parse("{}").expect("an empty object is JSON")
}

/// Whether the arguments themselves ask the model for a stream.
pub(crate) fn args_stream(args: &Json) -> bool {
    let mut streams = false;
    // It is an object: that has been checked.
    let _ = each_member(args.as_str(), |member| {
        if member.key == "stream" {
            streams = member.value == "true";
        }
    });
    streams
}

/// The endpoint that the arguments go to, unless the platform itself runs the model.
///
/// # Errors
/// If the vendor could make nothing of the arguments.
pub(crate) fn args_fit(
    upstream: &UpstreamModels,
    model: &ModelName,
    args: &Json,
    route: Option<Route>,
) -> Result<Option<Route>, Fault> {
    if model.is_built_in() {
        return Ok(None);
    }
    choose(model.vendor, upstream.name(model), args.as_str(), route).map(Some).map_err(Fault::value)
}

/// # Errors
/// If the endpoint answers in one piece only.
pub(crate) fn can_stream(model: &ModelName, route: Option<Route>) -> Result<(), Fault> {
    match route {
        Some(route) if !can_be_streamed(model.vendor, route) => Err(Fault::value(format!(
            "'{route}' of {} cannot be streamed; leave stream out",
            model.vendor
        ))),
        _ => Ok(()),
    }
}

/// 1 s to 24 h.
pub(crate) fn timeout(raw: &RawValue) -> Result<Duration, Fault> {
    let max = i64::try_from(Limits::MAX_TIMEOUT.as_secs()).unwrap_or(i64::MAX);
    read::whole(1..=max)(raw).map(seconds)
}

/// 0 to 10.
pub(crate) fn num_retries(raw: &RawValue) -> Result<u32, Fault> {
    let retries = read::whole(0..=Limits::MAX_RETRIES.into())(raw)?;
    Ok(u32::try_from(retries).unwrap_or(Limits::MAX_RETRIES))
}

/// 1 s to 7 days.
pub(crate) fn total_timeout(raw: &RawValue) -> Result<Duration, Fault> {
    read::whole(1..=MAX_TOTAL_TIMEOUT_SECS)(raw).map(seconds)
}

fn seconds(number: i64) -> Duration {
    Duration::from_secs(number.unsigned_abs())
}

/// One of the vendor's endpoints.
pub(crate) fn route(vendor: Vendor) -> impl Fn(&RawValue) -> Result<Route, Fault> {
    move |raw| {
        let route = read::word::<Route>(raw)?;
        if of_vendor(vendor).contains(&route) {
            return Ok(route);
        }
        let own: Vec<&str> = of_vendor(vendor).iter().map(|route| route.as_str()).collect();
        let own = own.join(", ");
        Err(Fault::value(format!("vendor '{vendor}' has no endpoint '{route}'; it has: {own}")))
    }
}

/// A URL that callbacks may go to, in its normal form.
pub(crate) fn callback_url(guard: &Guard) -> impl Fn(&RawValue) -> Result<String, Fault> {
    |raw| {
        let text = read::string(raw)?;
        guard.check_url(&text).map(String::from).map_err(|error| match error {
            EgressError::NotAUrl(reason) => {
                Fault::new("url_parsing", format!("Input should be a valid URL, {reason}"))
                    .with_ctx(json!({ "error": reason.to_string() }))
            }
            EgressError::Scheme => {
                Fault::new("url_scheme", "URL scheme should be 'http' or 'https'")
                    .with_ctx(json!({ "expected_schemes": "'http' or 'https'" }))
            }
            EgressError::TooLong => {
                let msg = format!("URL should have at most {MAX_URL_BYTES} characters");
                Fault::new("url_too_long", msg).with_ctx(json!({ "max_length": MAX_URL_BYTES }))
            }
            refused => Fault::value(refused),
        })
    }
}

/// A JSON object of at most 16 KiB.
pub(crate) fn metadata(raw: &RawValue) -> Result<Json, Fault> {
    not_too_deep(raw)?;
    let metadata = read::dict(raw)?;
    not_too_large("metadata", raw, MAX_METADATA_BYTES)?;
    Ok(metadata)
}

/// An object of a model, known to be one: at most 16 KiB.
pub(crate) fn model_metadata(raw: &RawValue) -> Result<(), Fault> {
    not_too_deep(raw)?;
    not_too_large("model_metadata", raw, MAX_METADATA_BYTES)
}

/// An object of a model, known to be one: at most 256 KiB.
pub(crate) fn vendor_configuration(raw: &RawValue) -> Result<(), Fault> {
    not_too_deep(raw)?;
    not_too_large("vendor_configuration", raw, MAX_CONFIGURATION_BYTES)
}

fn not_too_large(name: &str, raw: &RawValue, max: usize) -> Result<(), Fault> {
    if raw.get().len() > max {
        return Err(Fault::value(format!("{name} has more than {max} bytes")));
    }
    Ok(())
}

/// At most 30 days ahead; `None`: what lies behind means at once.
pub(crate) fn run_at(
    now: DateTime<Utc>,
) -> impl Fn(&RawValue) -> Result<Option<DateTime<Utc>>, Fault> {
    move |raw| {
        let at = read::instant(raw)?;
        if at > now + TimeDelta::days(MAX_SCHEDULE_DAYS) {
            let reason = format!("run_at is more than {MAX_SCHEDULE_DAYS} days ahead");
            return Err(Fault::value(reason));
        }
        Ok(Some(at).filter(|at| *at > now))
    }
}

/// In the future, and after `run_at`.
pub(crate) fn expires_at(
    now: DateTime<Utc>,
    run_at: Option<DateTime<Utc>>,
) -> impl Fn(&RawValue) -> Result<DateTime<Utc>, Fault> {
    move |raw| {
        let at = read::instant(raw)?;
        if at <= now {
            return Err(Fault::value("expires_at is not in the future"));
        }
        if run_at.is_some_and(|run_at| at <= run_at) {
            return Err(Fault::value("expires_at is not after run_at"));
        }
        Ok(at)
    }
}

/// # Errors
/// 409 for a registered model that cannot be called yet, or any more.
pub(crate) fn ready(model: &Model) -> Result<(), ApiError> {
    if model.status == ModelStatus::Ready {
        return Ok(());
    }
    let detail = format!("model {}/{} is {}", model.vendor, model.name, model.status);
    Err(ApiError::Conflict(detail.into()))
}

/// # Errors
/// For a document with more than [`MAX_DEPTH`] brackets open at once.
pub(crate) fn not_too_deep(raw: &RawValue) -> Result<(), Fault> {
    let text = raw.get().as_bytes();
    let openings = text.iter().filter(|byte| matches!(byte, b'{' | b'[')).count();
    if openings <= MAX_DEPTH || depth(text) <= MAX_DEPTH {
        return Ok(());
    }
    Err(Fault::value(format!("the document is nested more than {MAX_DEPTH} deep")))
}

/// How many brackets are open at once at most; brackets within strings do not count.
fn depth(text: &[u8]) -> usize {
    let (mut deepest, mut open, mut quoted, mut escaped) = (0_usize, 0_usize, false, false);
    for byte in text {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = quoted,
            b'"' => quoted = !quoted,
            b'{' | b'[' if !quoted => {
                open += 1;
                deepest = deepest.max(open);
            }
            b'}' | b']' if !quoted => open = open.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn depth_counts_open_brackets_outside_strings() {
        assert_eq!(depth(br#"{"a":[{}],"b":[]}"#), 3);
        assert_eq!(depth(br#"{"a":"[[[\"[["}"#), 1);
        assert_eq!(depth(br#"{"a":"\\","b":[[]]}"#), 3);
    }

    #[test]
    fn a_wide_document_is_no_deep_one() {
        let wide = format!("[{}]", vec!["[]"; 1000].join(","));
        assert!(not_too_deep(&serde_json::from_str::<Box<RawValue>>(&wide).unwrap()).is_ok());
        let deep = format!("{}{}", "[".repeat(129), "]".repeat(129));
        assert!(not_too_deep(&serde_json::from_str::<Box<RawValue>>(&deep).unwrap()).is_err());
    }
}
