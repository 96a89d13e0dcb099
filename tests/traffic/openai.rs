//! OpenAI, and the self-hosted servers of the model zoo, which speak its format.

use inferq_common::{error::ErrorClass, job::Route};
use serde_json::{Value, json};

use super::{
    Body, Expected, Failing, Failure, KEY, Plan, Recording, Success, Target, bearer, document,
    no_messages, openai_usage, settings,
};

const FAILURES: &[Failing] = &[
    ("036", ErrorClass::Transient, None),
    ("037", ErrorClass::Transient, None),
    ("044", ErrorClass::InvalidRequest, None),
    ("045", ErrorClass::InvalidRequest, None),
    ("046", ErrorClass::InvalidRequest, None),
    ("047", ErrorClass::InvalidRequest, None),
    ("048", ErrorClass::NotFound, None),
    ("049", ErrorClass::Auth, None),
    ("050", ErrorClass::Auth, None),
    ("051", ErrorClass::Auth, None),
    ("052", ErrorClass::Auth, None),
    ("053", ErrorClass::Auth, None),
    ("054", ErrorClass::NotFound, None),
    ("055", ErrorClass::NotFound, None),
    ("056", ErrorClass::NotFound, None),
    ("057", ErrorClass::RateLimited, None),
    ("058", ErrorClass::QuotaExhausted, None),
    ("059", ErrorClass::InvalidRequest, None),
    ("060", ErrorClass::QuotaExhausted, None),
    ("061", ErrorClass::Transient, None),
    ("062", ErrorClass::Transient, None),
    ("063", ErrorClass::Overloaded, None),
    ("064", ErrorClass::Overloaded, None),
];

const ZOO_FAILURES: &[Failing] = &[
    ("014", ErrorClass::InvalidRequest, None),
    ("015", ErrorClass::ContextLength, None),
    ("016", ErrorClass::InvalidRequest, None),
    ("017", ErrorClass::Auth, None),
    ("018", ErrorClass::InvalidRequest, None),
    ("019", ErrorClass::InvalidRequest, None),
    ("020", ErrorClass::InvalidRequest, None),
];

const PATHS: &[&str] =
    &["/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses", COUNT];

const COUNT: &str = "/v1/responses/input_tokens";

pub(super) fn plan(recording: &Recording) -> Result<Plan, &'static str> {
    compatible(recording, FAILURES)
}

pub(super) fn zoo(recording: &Recording) -> Result<Plan, &'static str> {
    compatible(recording, ZOO_FAILURES)
}

/// The one freedom: a stream of chat or completions asks for its usage where the recorded one did
/// not.
fn compatible(recording: &Recording, failures: &[Failing]) -> Result<Plan, &'static str> {
    let path = recording.request.url.path();
    let is_call = recording.request.method == "POST" && PATHS.contains(&path);
    if !is_call && !recording.has_failed() {
        return Err(reason(path));
    }
    let args = recording.args().filter(|_| is_call);
    let sent = args.as_ref().map(|args| document(args.as_str()));
    let model = sent.as_ref().map_or("some-model", |sent| sent["model"].as_str().expect("a name"));
    let model = model.to_owned();
    let streams = sent.as_ref().is_some_and(|sent| sent["stream"] == true);
    let body = sent.map_or(Body::Unknown, |mut sent| {
        if streams && path != "/v1/responses" && sent.get("stream_options").is_none() {
            sent["stream_options"] = json!({"include_usage": true});
        }
        Body::Json(sent)
    });
    let texts = recording.texts(streams);
    Ok(Plan {
        settings: settings([("api_key", Some(KEY))]),
        prefix: "/v1".to_owned(),
        model,
        args: args.unwrap_or_else(no_messages),
        // Tokens are counted of what responses are made of: the route alone tells the two apart.
        route: (path == COUNT).then_some(Route::CountTokens),
        streams,
        request: Expected {
            target: if is_call { Target::Is(path.to_owned()) } else { Target::Unknown },
            headers: bearer(),
            body,
        },
        request_id: recording.header("x-request-id"),
        answer: match recording.failure(failures) {
            Some(failure) => Err(Failure {
                wait: recording
                    .header("retry-after")
                    .map(|wait| std::time::Duration::from_secs(wait.parse().expect("seconds"))),
                said: said(recording.body()),
                ..failure
            }),
            None => Ok(Success { usage: openai_usage(&texts), texts }),
        },
    })
}

fn reason(path: &str) -> &'static str {
    match path {
        _ if path.contains("/batches") || path.contains("/files") => {
            "a batch or a file, no call for inference"
        }
        _ if path.contains("/models") => "a list of models, no call for inference",
        _ => "unknown",
    }
}

fn said(body: &str) -> String {
    let document = document(body);
    let message = document.pointer("/error/message").and_then(Value::as_str);
    message.unwrap_or_default().chars().take(300).collect()
}
