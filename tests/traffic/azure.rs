//! Azure: its OpenAI surfaces, old and new, its model inference and Claude in its Foundry.

use inferq_common::error::ErrorClass;
use serde_json::{Value, json};

use super::{
    Body, Expected, Failing, Failure, KEY, Plan, Recording, Success, Target, claudes_usage,
    compatible::said, document, openai_usage, settings,
};

const FAILURES: &[Failing] = &[
    ("036", ErrorClass::Blocked, None),
    ("037", ErrorClass::Auth, None),
    ("038", ErrorClass::NotFound, None),
    ("039", ErrorClass::NotFound, None),
    ("040", ErrorClass::Transient, None),
    ("041", ErrorClass::InvalidRequest, None),
    ("042", ErrorClass::InvalidRequest, None),
    ("043", ErrorClass::RateLimited, Some(1)),
    ("044", ErrorClass::RateLimited, Some(38)),
    ("045", ErrorClass::Transient, None),
];

/// Went to a wrong address, by mistake of the recorded client: only the answer is replayed.
const WRONG_ADDRESS: &str = "azure/038";

const CLAUDE: &str = "/anthropic/v1/messages";

const ENDPOINTS: &[&str] =
    &["/chat/completions", "/completions", "/embeddings", "/responses", CLAUDE];

const REQUEST_IDS: &[&str] = &["apim-request-id", "x-request-id", "x-ms-request-id", "request-id"];

/// The freedoms: a doubled slash is one; a deployment that stands in the path is not repeated in the
/// body; a stream of chat asks for its usage where the recorded one did not.
pub(super) fn plan(recording: &Recording) -> Result<Plan, &'static str> {
    let url = &recording.request.url;
    let path = url.path().replace("//", "/");
    if !ENDPOINTS.iter().any(|end| path.ends_with(end)) {
        return Err("no call for inference");
    }
    let args = recording.args().ok_or("no body")?;
    let sent = document(args.as_str());
    let is_lost = recording.name.starts_with(WRONG_ADDRESS);
    let deployment = path
        .split_once("/openai/deployments/")
        .and_then(|(_, rest)| Some(rest.split_once('/')?.0.to_owned()));
    let own = match path.find("/openai").or(path.find("/models")) {
        _ if path.contains("/anthropic/") => CLAUDE.len(),
        _ if is_lost => path.len(),
        at => path.len() - at.ok_or("no surface that is known")?,
    };
    let api = match () {
        () if deployment.is_some() || path == "/openai/responses" => Some("classic"),
        () if path.starts_with("/models/") => Some("inference"),
        () => None,
    };
    let version = url.query_pairs().find(|(key, _)| key == "api-version").map(|(_, it)| it);
    let target = match url.query() {
        _ if is_lost => Target::Unknown,
        Some(query) => Target::Is(format!("{path}?{query}")),
        None if api.is_some() => Target::Path(path.clone()),
        None => Target::Is(path.clone()),
    };
    let is_claude = path.ends_with(CLAUDE);
    let streams = sent["stream"] == true;
    let texts = recording.texts(streams);
    let model = sent["model"].as_str().unwrap_or("some-model").to_owned();
    Ok(Plan {
        settings: settings([
            ("api_key", Some(KEY)),
            ("api", api),
            ("api_version", version.as_deref()),
        ]),
        prefix: path[..path.len() - own].to_owned(),
        model: deployment.clone().unwrap_or(model),
        args,
        route: None,
        streams,
        request: Expected {
            target,
            headers: headers(is_claude),
            body: Body::Json(body(sent, deployment.is_some(), streams && !is_claude)),
        },
        request_id: REQUEST_IDS.iter().find_map(|id| recording.header(id)),
        answer: match recording.failure(FAILURES) {
            Some(failure) => Err(Failure { said: said(recording.body()), ..failure }),
            None if is_claude => Ok(Success { usage: claudes_usage(&texts), texts }),
            None => Ok(Success { usage: openai_usage(&texts), texts }),
        },
    })
}

fn headers(is_claude: bool) -> Vec<(&'static str, Option<String>)> {
    if is_claude {
        return vec![
            ("x-api-key", Some(KEY.to_owned())),
            ("anthropic-version", Some("2023-06-01".to_owned())),
        ];
    }
    vec![("api-key", Some(KEY.to_owned()))]
}

fn body(mut sent: Value, is_model_in_path: bool, asks_for_usage: bool) -> Value {
    let members = sent.as_object_mut().expect("a JSON object");
    if is_model_in_path {
        members.remove("model");
    }
    if asks_for_usage && members.contains_key("messages") {
        members.entry("stream_options").or_insert(json!({"include_usage": true}));
    }
    sent
}
