use std::time::Duration;

use inferq_common::{
    clock::{Clock as _, ManualClock, SystemClock},
    id::JobId,
    job::Json,
};

use super::*;
use crate::Share;

fn dialect() -> VertexAi {
    VertexAi {
        base_url: Some("http://127.0.0.1:9".parse().unwrap()),
        version: VERSION.to_owned(),
        place: Place { project: Some("p".into()), location: Some("l".into()), express: false },
        headers: HeaderMap::new(),
        advice: ACCESS_ADVICE,
    }
}

fn call(model: &str, args: &str) -> Call {
    Call {
        job_id: JobId::new(SystemClock.now()),
        attempt: 1,
        model: model.to_owned(),
        args: Json::parse(args).unwrap(),
        route: None,
        timeout: Duration::from_secs(60),
        memory: Share::default(),
    }
}

#[test]
fn each_route_has_its_method() {
    let google = "publishers/google/models/m";
    let claude = "publishers/anthropic/models/claude-x";
    for (model, route, mode, at) in [
        ("m", Route::GenerateContent, Mode::Whole, format!("{google}:generateContent")),
        (
            "m",
            Route::GenerateContent,
            Mode::Stream,
            format!("{google}:streamGenerateContent?alt=sse"),
        ),
        ("m", Route::CountTokens, Mode::Whole, format!("{google}:countTokens")),
        ("m", Route::EmbedContent, Mode::Whole, format!("{google}:embedContent")),
        ("m", Route::Predict, Mode::Whole, format!("{google}:predict")),
        ("7", Route::Predict, Mode::Whole, "endpoints/7:predict".to_owned()),
        (
            "m",
            Route::ChatCompletions,
            Mode::Stream,
            "endpoints/openapi/chat/completions".to_owned(),
        ),
        ("claude-x", Route::Messages, Mode::Whole, format!("{claude}:rawPredict")),
        ("claude-x", Route::Messages, Mode::Stream, format!("{claude}:streamRawPredict")),
        ("claude-x", Route::RawPredict, Mode::Stream, format!("{claude}:streamRawPredict")),
        (
            "claude-x",
            Route::CountTokens,
            Mode::Whole,
            "publishers/anthropic/models/count-tokens:rawPredict".to_owned(),
        ),
        (
            "mistralai/m",
            Route::RawPredict,
            Mode::Whole,
            "publishers/mistralai/models/m:rawPredict".to_owned(),
        ),
    ] {
        let request = dialect().request(&call(model, "{}"), route, mode).unwrap();
        let expected = format!("http://127.0.0.1:9/v1/projects/p/locations/l/{at}");
        assert_eq!(request.url.as_str(), expected);
    }
}

#[test]
fn errors_are_understood_in_every_publishers_shape() {
    let headers = HeaderMap::new();
    let noon = "2026-11-20T12:00:00Z".parse().unwrap();
    for (status, body, expected) in [
        (
            403,
            r#"[{"error":{"code":403,"message":"denied","status":"PERMISSION_DENIED"}}]"#,
            ErrorClass::Auth,
        ),
        (
            429,
            r#"{"type":"error","error":{"type":"rate_limit_error","message":"no"}}"#,
            ErrorClass::RateLimited,
        ),
        (
            400,
            r#"{"type":"error","error":{"type":"invalid_request_error","message":"prompt is too long: 9 tokens > 8 maximum"}}"#,
            ErrorClass::ContextLength,
        ),
        (429, r#"{"object":"error","message":"slow down","type":"x"}"#, ErrorClass::RateLimited),
        (503, "upstream connect error", ErrorClass::Overloaded),
    ] {
        let error =
            dialect().failure(Failure { status: Some(status), headers: &headers, body }, noon);
        assert_eq!(error.class(), expected, "{body}");
        assert_eq!(error.error.vendor_status, Some(status));
    }
}

#[test]
fn settings_of_no_use_are_refused() {
    let refused = |change: fn(&mut VendorConfig)| {
        let mut config = VendorConfig {
            base_url: Some("http://127.0.0.1:1".parse().unwrap()),
            ..VendorConfig::default()
        };
        change(&mut config);
        let clock = Arc::new(ManualClock::at("2026-11-20T12:00:00Z".parse().unwrap()));
        adapter(&config, &Clients::default(), clock).map(drop).unwrap_err()
    };
    let words = refused(|config| config.location = Some("evil.example/".into()));
    assert!(words.starts_with("location: "), "{words}");
    let words = refused(|config| config.project = Some("a/b".into()));
    assert!(words.starts_with("project: "), "{words}");
    let words = refused(|config| config.service_account = Some("{}".into()));
    assert!(words.starts_with("service_account: "), "{words}");
    let words = refused(|config| config.api_version = Some("v1/x".into()));
    assert!(words.starts_with("api_version: "), "{words}");
}
