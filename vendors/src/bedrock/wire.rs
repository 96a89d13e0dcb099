//! Bedrock's addresses and what its documents say, as types.
//!
//! Sources: <https://docs.aws.amazon.com/bedrock/latest/APIReference/API_Operations_Amazon_Bedrock_Runtime.html>,
//! <https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_TokenUsage.html>.

use http::{HeaderMap, header::CONTENT_TYPE};
use inferq_common::{job::Route, usage::Usage};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use url::Url;

use crate::{
    error::{VendorError, invalid},
    remote::Mode,
};

pub(super) const EVENT_STREAM: &str = "application/vnd.amazon.eventstream";

/// All but what RFC 3986 §2.3 calls unreserved: an id's colons and slashes are encoded.
const IN_PATH: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// Whether the endpoint speaks OpenAI's format, with the model in the body.
pub(super) fn is_openai(route: Route) -> bool {
    matches!(route, Route::ChatCompletions | Route::Responses)
}

/// Whether a streamed answer can be in AWS's framing. One that names no type is given the chance.
pub(super) fn may_be_messages(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_none_or(|value| {
        value.as_bytes().to_ascii_lowercase().starts_with(EVENT_STREAM.as_bytes())
    })
}

/// The address of an endpoint.
///
/// The path is set as one text, so that what is encoded in it goes out, and is signed, as it stands.
/// Where `base` ends in `/v1` it is the prefix of the endpoints in OpenAI's format, else `/openai/v1`
/// follows it.
///
/// # Errors
/// `InvalidRequest`: no path can carry the id.
pub(super) fn url(base: &Url, route: Route, id: &str, mode: Mode) -> Result<Url, VendorError> {
    if matches!(id, "." | "..") {
        return Err(invalid("a model's id cannot be '.' or '..'"));
    }
    let prefix = base.path().trim_end_matches('/');
    let path = if is_openai(route) {
        let own = if prefix.ends_with("/v1") { "" } else { "/openai/v1" };
        let endpoint = if route == Route::Responses { "responses" } else { "chat/completions" };
        format!("{prefix}{own}/{endpoint}")
    } else {
        let id = utf8_percent_encode(id, IN_PATH);
        format!("{prefix}/model/{id}/{}", operation(route, mode))
    };
    let mut url = base.clone();
    url.set_path(&path);
    Ok(url)
}

fn operation(route: Route, mode: Mode) -> &'static str {
    match (route, mode) {
        (Route::CountTokens, _) => "count-tokens",
        (Route::Invoke, Mode::Whole) => "invoke",
        (Route::Invoke, Mode::Stream) => "invoke-with-response-stream",
        (_, Mode::Whole) => "converse",
        (_, Mode::Stream) => "converse-stream",
    }
}

/// Reads a `usage` of Converse, which is also that of Amazon's own models on InvokeModel.
pub(super) fn usage(usage: &Value) -> Usage {
    let count = |names: [&str; 2]| names.iter().find_map(|name| usage.get(name)?.as_u64());
    let read = count(["cacheReadInputTokens", "cacheReadInputTokenCount"]);
    let write = count(["cacheWriteInputTokens", "cacheWriteInputTokenCount"]);
    of_counts(usage["inputTokens"].as_u64(), read, write, usage["outputTokens"].as_u64())
}

/// Reads a `usage` of Anthropic's, as far as it goes: the end of a stream tells the output alone.
pub(super) fn anthropic_usage(usage: &Value) -> Usage {
    let count = |name: &str| usage[name].as_u64();
    of_counts(
        count("input_tokens"),
        count("cache_read_input_tokens"),
        count("cache_creation_input_tokens"),
        count("output_tokens"),
    )
}

/// Reads `amazon-bedrock-invocationMetrics`, at the end of a stream of InvokeModel.
pub(super) fn metrics(metrics: &Value) -> Usage {
    let count = |name: &str| metrics[name].as_u64();
    of_counts(
        count("inputTokenCount"),
        count("cacheReadInputTokenCount"),
        count("cacheWriteInputTokenCount"),
        count("outputTokenCount"),
    )
}

/// Reads the headers in which InvokeModel tells what it consumed.
pub(super) fn header_usage(headers: &HeaderMap) -> Usage {
    let count = |name: &str| {
        let name = format!("x-amzn-bedrock-{name}-token-count");
        headers.get(name)?.to_str().ok()?.parse().ok()
    };
    of_counts(
        count("input"),
        count("cache-read-input"),
        count("cache-write-input"),
        count("output"),
    )
}

/// Bedrock and Anthropic count what was cached apart from the rest of the prompt.
fn of_counts(
    input: Option<u64>,
    read: Option<u64>,
    write: Option<u64>,
    output: Option<u64>,
) -> Usage {
    let cached = read.unwrap_or(0).saturating_add(write.unwrap_or(0));
    Usage {
        input_tokens: input.map(|input| input.saturating_add(cached)),
        cached_input_tokens: read,
        cache_write_tokens: write,
        output_tokens: output,
        reasoning_tokens: None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn at(base: &str, route: Route, id: &str, mode: Mode) -> String {
        url(&base.parse().unwrap(), route, id, mode).unwrap().to_string()
    }

    #[test]
    fn every_endpoint_has_its_path_and_the_id_is_encoded_whole() {
        let base = "https://bedrock-runtime.us-east-1.amazonaws.com";
        let nova = "us.amazon.nova-lite-v1:0";
        for (route, mode, path) in [
            (Route::Converse, Mode::Whole, "converse"),
            (Route::Converse, Mode::Stream, "converse-stream"),
            (Route::Invoke, Mode::Whole, "invoke"),
            (Route::Invoke, Mode::Stream, "invoke-with-response-stream"),
            (Route::CountTokens, Mode::Whole, "count-tokens"),
        ] {
            let expected = format!("{base}/model/us.amazon.nova-lite-v1%3A0/{path}");
            assert_eq!(at(base, route, nova, mode), expected);
        }
        let profile = "arn:aws:bedrock:us-east-1:000000000000:inference-profile/a.b/c?d#é %2F";
        assert_eq!(
            at(base, Route::Converse, profile, Mode::Whole),
            format!(
                "{base}/model/arn%3Aaws%3Abedrock%3Aus-east-1%3A000000000000%3Ainference-profile\
                 %2Fa.b%2Fc%3Fd%23%C3%A9%20%252F/converse"
            )
        );
    }

    #[test]
    fn an_address_keeps_its_own_path() {
        let nova = "amazon.nova-lite-v1:0";
        assert_eq!(
            at("http://proxy:8080/aws/", Route::Converse, nova, Mode::Whole),
            "http://proxy:8080/aws/model/amazon.nova-lite-v1%3A0/converse"
        );
        for (base, expected) in [
            ("http://h", "http://h/openai/v1/chat/completions"),
            ("http://h/v1", "http://h/v1/chat/completions"),
            ("http://h/openai/v1/", "http://h/openai/v1/chat/completions"),
        ] {
            assert_eq!(at(base, Route::ChatCompletions, nova, Mode::Whole), expected);
        }
        assert_eq!(
            at("http://h", Route::Responses, nova, Mode::Stream),
            "http://h/openai/v1/responses"
        );
    }

    #[test]
    fn an_id_cannot_leave_its_place_in_the_path() {
        let base = "http://h".parse().unwrap();
        for id in [".", ".."] {
            assert!(url(&base, Route::Converse, id, Mode::Whole).is_err());
        }
        assert_eq!(
            at("http://h", Route::Converse, "../..", Mode::Whole),
            "http://h/model/..%2F../converse"
        );
    }

    #[test]
    fn cached_tokens_are_part_of_the_input() {
        let read = usage(&json!({
            "inputTokens": 3, "outputTokens": 5, "totalTokens": 20,
            "cacheReadInputTokens": 8, "cacheWriteInputTokens": 4
        }));
        let expected = Usage {
            input_tokens: Some(15),
            cached_input_tokens: Some(8),
            cache_write_tokens: Some(4),
            output_tokens: Some(5),
            reasoning_tokens: None,
        };
        assert_eq!(read, expected);
        let read = metrics(&json!({
            "inputTokenCount": 3, "outputTokenCount": 5,
            "cacheReadInputTokenCount": 8, "cacheWriteInputTokenCount": 4
        }));
        assert_eq!(read, expected);
        assert_eq!(usage(&json!({})), Usage::default());
        assert_eq!(usage(&json!({"inputTokens": -1, "outputTokens": "5"})), Usage::default());
    }
}
