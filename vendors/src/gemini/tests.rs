use inferq_common::{
    clock::{Clock as _, ManualClock, SystemClock},
    id::JobId,
    job::Json,
};
use std::time::Duration;

use super::*;
use crate::Share;

fn dialect(config: &VendorConfig) -> Gemini {
    Gemini {
        base_url: base_url(config, wire::BASE_URL).unwrap(),
        version: version(config, wire::VERSION).unwrap(),
        headers: HeaderMap::new(),
    }
}

fn call(model: &str) -> Call {
    Call {
        job_id: JobId::new(SystemClock.now()),
        attempt: 1,
        model: model.to_owned(),
        args: Json::parse("{}").unwrap(),
        route: None,
        timeout: Duration::from_secs(60),
        memory: Share::default(),
    }
}

#[test]
fn each_route_has_its_address() {
    let google = dialect(&VendorConfig::default());
    let base = "https://generativelanguage.googleapis.com/v1beta";
    for (model, route, mode, at) in [
        ("m", Route::GenerateContent, Mode::Whole, "models/m:generateContent"),
        ("m", Route::GenerateContent, Mode::Stream, "models/m:streamGenerateContent?alt=sse"),
        ("models/m", Route::EmbedContent, Mode::Whole, "models/m:embedContent"),
        ("m", Route::BatchEmbedContents, Mode::Whole, "models/m:batchEmbedContents"),
        ("tunedModels/m", Route::CountTokens, Mode::Whole, "tunedModels/m:countTokens"),
        ("bad model", Route::GenerateContent, Mode::Whole, "models/bad%20model:generateContent"),
        ("m", Route::ChatCompletions, Mode::Stream, "openai/chat/completions"),
        ("m", Route::Embeddings, Mode::Whole, "openai/embeddings"),
        ("m", Route::Interactions, Mode::Stream, "interactions"),
    ] {
        let request = google.request(&call(model), route, mode).unwrap();
        assert_eq!(request.url.as_str(), format!("{base}/{at}"));
    }
    let error = google.request(&call("a?b"), Route::GenerateContent, Mode::Whole).unwrap_err();
    assert_eq!(error.class(), inferq_common::error::ErrorClass::InvalidRequest);
}

#[test]
fn the_version_can_be_chosen() {
    let with = |version: &str| VendorConfig {
        api_version: Some(version.to_owned()),
        ..VendorConfig::default()
    };
    let request = dialect(&with("v1")).request(&call("m"), Route::CountTokens, Mode::Whole);
    assert!(request.unwrap().url.path().starts_with("/v1/models/"));
    assert!(version(&with("v1/../x"), "v1").unwrap_err().starts_with("api_version: "));
    assert_eq!(version(&with(" "), "v1").unwrap(), "v1");
}

#[test]
fn only_answers_of_known_types_are_streams() {
    let framing = |content_type: Option<&str>| {
        let mut headers = HeaderMap::new();
        if let Some(content_type) = content_type {
            headers.insert(CONTENT_TYPE, content_type.parse().unwrap());
        }
        follow(&headers, "check it").map(|(framing, _)| framing)
    };
    assert_eq!(framing(None), Some(Framing::Events));
    assert_eq!(framing(Some("text/event-stream")), Some(Framing::Events));
    assert_eq!(framing(Some("application/json; charset=UTF-8")), Some(Framing::Elements));
    assert_eq!(framing(Some("text/html")), None);
}

#[tokio::test]
async fn without_a_key_and_an_address_nothing_is_sent() {
    use crate::Adapter as _;
    let noon = "2026-11-20T12:00:00Z".parse().unwrap();
    let http = VendorConfig {
        base_url: Some("http://127.0.0.1:1".parse().unwrap()),
        ..VendorConfig::default()
    };
    let http = Clients::default().http(http.base_url.as_ref().unwrap(), &http).unwrap();
    let config = VendorConfig::default();
    let auth = authorize(&config).unwrap();
    let adapter =
        Remote::new(dialect(&config), http, auth, &config, Arc::new(ManualClock::at(noon)));
    let call = Call { args: Json::parse(r#"{"contents":[]}"#).unwrap(), ..call("m") };
    let error = adapter.call(&call).await.unwrap_err();
    assert_eq!(error.class(), inferq_common::error::ErrorClass::Auth);
    assert!(error.to_string().contains("set GEMINI_API_KEY"), "{error}");
    assert!(error.to_string().contains("vendors.gemini.api_key"), "{error}");
}
