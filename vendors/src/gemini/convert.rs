//! Turns arguments into the body of a request and a body of a response into a reply; pure.

use chrono::{DateTime, Utc};
use http::HeaderMap;
use inferq_common::{
    job::Route,
    members::{NotAnObject, each_member},
    usage::Usage,
};
use serde::{Deserialize, de::IgnoredAny};
use serde_json::value::RawValue;

use super::{classify, wire};
use crate::{
    choices::Choices,
    error::VendorError,
    json,
    remote::{Failure, Parsed},
};

/// What stands in the path and in the query, and what the caller asked for: no native endpoint takes
/// them at the top level.
const NOT_IN_BODY: &[&str] = &["model", "stream", "stream_options"];

/// The body for a call of a native endpoint: `args` as they are spelt, without `model` and `stream`.
///
/// Where Google wants the model's name a second time, inside of the members of `requests` and of
/// `generateContentRequest`, `model` takes the place of whatever stands there. `model` is the name
/// with `models/` in front.
pub(crate) fn request_body(args: &str, model: &str, route: Route) -> Result<String, NotAnObject> {
    let mut named: Option<(String, String)> = None;
    each_member(args, |member| {
        let own = match (route, member.key.as_ref()) {
            (Route::BatchEmbedContents, "requests") => each_named(member.value, model),
            (Route::CountTokens, "generateContentRequest" | "generate_content_request") => {
                with_model(member.value, model)
            }
            _ => None,
        };
        if let Some(own) = own {
            named = Some((member.key.into_owned(), own));
        }
    })?;
    let mut body = String::with_capacity(args.len() + 80);
    body.push('{');
    if let Some((key, value)) = &named {
        body.extend(["\"", key.as_str(), "\":", value.as_str()]);
    }
    let is_named = |key: &str| named.as_ref().is_some_and(|(name, _)| name == key);
    json::push_members(&mut body, args, |member| {
        !NOT_IN_BODY.contains(&member.key.as_ref()) && !is_named(&member.key)
    })?;
    if named.is_none() && body.starts_with("{,") {
        // A comma stands in front of every member that was kept.
        body.remove(1);
    }
    Ok(body)
}

/// The list with the model's name in each of its objects; `None` where it is there already, or what
/// stands there is for Google to refuse.
fn each_named(list: &str, model: &str) -> Option<String> {
    let requests: Vec<&RawValue> = serde_json::from_str(list).ok()?;
    let named: Vec<_> = requests.iter().map(|request| with_model(request.get(), model)).collect();
    if named.iter().all(Option::is_none) {
        return None;
    }
    let texts = requests.iter().zip(&named);
    let texts: Vec<&str> =
        texts.map(|(request, named)| named.as_deref().unwrap_or(request.get())).collect();
    Some(format!("[{}]", texts.join(",")))
}

/// The object with the model's name; `None` where it is there already, or it is no object.
fn with_model(object: &str, model: &str) -> Option<String> {
    let name = serde_json::to_string(model).expect("a text is always valid JSON");
    let (mut n_models, mut is_same) = (0, true);
    each_member(object, |member| {
        if member.key == "model" {
            n_models += 1;
            is_same &= serde_json::from_str::<String>(member.value).is_ok_and(|own| own == model);
        }
    })
    .ok()?;
    if n_models == 1 && is_same {
        return None;
    }
    let mut body = format!(r#"{{"model":{name}"#);
    json::push_members(&mut body, object, |member| member.key != "model").ok()?;
    Some(body)
}

/// Reads the body of a 2xx answer of a native endpoint. `advice` as for [`classify::error`].
///
/// # Errors
/// What an error inside the answer means; `Transient` where the JSON ends too early; `Protocol`
/// for what is no JSON object.
pub(crate) fn parse(
    route: Route,
    headers: &HeaderMap,
    body: Vec<u8>,
    advice: &str,
    now: DateTime<Utc>,
) -> Result<Parsed, VendorError> {
    let text = json::text(headers, body)?;
    let failure = Failure { status: None, headers, body: &text };
    let Ok(found) = Found::of(&text, &mut Choices::default()) else {
        let is_error = serde_json::from_str::<serde_json::Value>(&text)
            .is_ok_and(|document| wire::WireError::of(&document).is_some());
        return Err(if is_error {
            classify::error(failure, advice, now)
        } else {
            json::no_object(headers, &text)
        });
    };
    if found.is_error {
        return Err(VendorError { usage: found.usage, ..classify::error(failure, advice, now) });
    }
    let Found { mut usage, request_id, .. } = found;
    if route == Route::Predict && usage.is_empty() {
        usage.input_tokens = predicted_tokens(&text);
    }
    Ok(Parsed { response: json::keep(text)?, usage, request_id })
}

/// What matters of the top level of an answer.
#[derive(Default)]
pub(super) struct Found {
    pub usage: Usage,
    pub request_id: Option<String>,
    /// It holds an error.
    pub is_error: bool,
    /// The prompt was blocked, and there will be no candidate.
    pub is_blocked: bool,
}

impl Found {
    /// Notes in `candidates` which ones are complete.
    pub(super) fn of(text: &str, candidates: &mut Choices) -> Result<Self, NotAnObject> {
        let mut found = Self::default();
        each_member(text, |member| match member.key.as_ref() {
            _ if member.is_null() => {}
            "usageMetadata" => found.usage = wire::usage(member.value),
            "responseId" => found.request_id = serde_json::from_str(member.value).ok(),
            "error" => found.is_error = true,
            "candidates" => candidates.take(member.value, "finishReason", wire::is_reason),
            "promptFeedback" => found.is_blocked |= has_member(member.value, "blockReason"),
            _ => {}
        })?;
        Ok(found)
    }
}

/// Whether `object` has this member, with a word that says something.
fn has_member(object: &str, name: &str) -> bool {
    let mut has = false;
    let read = each_member(object, |member| {
        has |= member.key == name && wire::is_reason(member.value);
    });
    read.is_ok() && has
}

/// The tokens of the texts that were embedded, which `predict` tells beside each embedding.
fn predicted_tokens(text: &str) -> Option<u64> {
    #[derive(Deserialize)]
    struct Answer {
        predictions: Vec<Prediction>,
    }
    #[derive(Deserialize)]
    struct Prediction {
        embeddings: Embeddings,
    }
    #[derive(Deserialize)]
    struct Embeddings {
        statistics: Statistics,
        #[expect(dead_code, reason = "passed over without a tree of it")]
        values: Option<IgnoredAny>,
    }
    #[derive(Deserialize)]
    struct Statistics {
        /// Some versions write `2.0`.
        token_count: f64,
    }
    let answer: Answer = serde_json::from_str(text).ok()?;
    let mut total: u64 = 0;
    for prediction in answer.predictions {
        let count = prediction.embeddings.statistics.token_count;
        if count.fract() != 0.0 || count < 0.0 {
            return None;
        }
        total = total.saturating_add(format!("{count:.0}").parse().ok()?);
    }
    Some(total)
}

#[cfg(test)]
mod tests;
