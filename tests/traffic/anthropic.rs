//! Anthropic.

use inferq_common::{error::ErrorClass, job::Route};
use serde_json::Value;

use super::{
    Body, Expected, Failing, Failure, KEY, Plan, Recording, Success, Target, claudes_usage,
    document, no_messages, settings,
};

const FAILURES: &[Failing] = &[
    ("024", ErrorClass::Overloaded, None),
    ("043", ErrorClass::InvalidRequest, None),
    ("044", ErrorClass::InvalidRequest, None),
    ("045", ErrorClass::InvalidRequest, None),
    ("046", ErrorClass::InvalidRequest, None),
    ("047", ErrorClass::InvalidRequest, None),
    ("048", ErrorClass::Auth, None),
    ("049", ErrorClass::Auth, None),
    ("050", ErrorClass::NotFound, None),
    ("051", ErrorClass::NotFound, None),
    ("052", ErrorClass::NotFound, None),
    ("053", ErrorClass::RateLimited, Some(65)),
    ("054", ErrorClass::RateLimited, Some(4)),
    ("055", ErrorClass::RateLimited, None),
    ("056", ErrorClass::RateLimited, Some(8)),
    // The vendor says that another attempt would not help.
    ("057", ErrorClass::InvalidRequest, None),
    ("058", ErrorClass::Overloaded, None),
    ("059", ErrorClass::Overloaded, None),
    ("060", ErrorClass::Overloaded, None),
];

const COUNT: &str = "/v1/messages/count_tokens";

/// The one freedom: `?beta=true` is a habit of the vendor's own clients that the API does not ask
/// for.
pub(super) fn plan(recording: &Recording) -> Result<Plan, &'static str> {
    let path = recording.request.url.path();
    let is_call = ["/v1/messages", COUNT].contains(&path);
    if !is_call && !recording.has_failed() {
        return Err(reason(path));
    }
    let args = if is_call { recording.args().ok_or("no body")? } else { no_messages() };
    let sent = document(args.as_str());
    let streams = sent["stream"] == true;
    let texts = recording.texts(recording.is_event_stream());
    let betas = recording.request.headers.get("anthropic-beta").cloned();
    let in_body = || texts.iter().find_map(|it| Some(document(it)["request_id"].as_str()?.into()));
    Ok(Plan {
        settings: settings([("api_key", Some(KEY)), ("headers.anthropic-beta", betas.as_deref())]),
        prefix: String::new(),
        model: sent["model"].as_str().ok_or("no model")?.to_owned(),
        args,
        // Tokens are counted of what is sent as messages: the route alone tells the two apart.
        route: (path == COUNT).then_some(Route::CountTokens),
        streams,
        request: Expected {
            target: if is_call { Target::Is(path.to_owned()) } else { Target::Unknown },
            headers: vec![
                ("x-api-key", Some(KEY.to_owned())),
                ("authorization", None),
                ("anthropic-version", Some("2023-06-01".to_owned())),
                ("anthropic-beta", betas),
            ],
            body: Body::Json(sent),
        },
        request_id: recording.header("request-id").or_else(in_body),
        answer: match recording.failure(FAILURES) {
            Some(failure) => {
                let last = texts.last().map_or("", String::as_str);
                Err(Failure { said: said(last), ..failure })
            }
            None => Ok(Success { usage: claudes_usage(&texts), texts }),
        },
    })
}

fn reason(path: &str) -> &'static str {
    match path {
        "/v1/complete" => "the old completions, which the vendor's own clients dropped",
        _ if path.contains("/batches") => "a batch, no call for inference",
        _ if path.contains("/models") => "a list of models, no call for inference",
        _ => "unknown",
    }
}

fn said(answer: &str) -> String {
    let document = document(answer);
    let message = document.pointer("/error/message").and_then(Value::as_str);
    message.unwrap_or(answer).chars().take(300).collect()
}
