use inferq_common::error::ErrorClass;

use super::*;

fn noon() -> DateTime<Utc> {
    "2026-11-20T12:00:00Z".parse().unwrap()
}

#[track_caller]
fn assert_body(route: Route, args: &str, expected: &str) {
    assert_eq!(request_body(args, "models/m", route).as_deref(), Ok(expected), "{args}");
}

#[test]
fn arguments_go_out_as_they_are_spelt() {
    for args in [
        r#"{"contents":[]}"#,
        r#"{ "contents" : [ ],"generationConfig":{"temperature":0.10} }"#,
        "{}",
        r#"{"x":1.50,"x":12345678901234567890123}"#,
    ] {
        assert_body(Route::GenerateContent, args, args);
    }
}

#[test]
fn what_stands_in_the_address_does_not_stand_in_the_body() {
    let args = r#"{"model":"models/other","contents":[],"stream":true,"a":1}"#;
    assert_body(Route::GenerateContent, args, r#"{"contents":[],"a":1}"#);
    assert_body(Route::EmbedContent, r#"{"model":"x"}"#, "{}");
}

#[test]
fn each_request_of_a_batch_names_the_model() {
    let route = Route::BatchEmbedContents;
    let named = r#"{"requests":[{"content": {"parts":[]}, "model": "models/m"}]}"#;
    assert_body(route, named, named);
    assert_body(
        route,
        r#"{"a":1,"requests":[{"content":{}},{"model":"models/m","content":{}},{"model":"x"},{}]}"#,
        r#"{"requests":[{"model":"models/m","content":{}},{"model":"models/m","content":{}},{"model":"models/m"},{"model":"models/m"}],"a":1}"#,
    );
    assert_body(route, r#"{"requests":7}"#, r#"{"requests":7}"#);
    assert_body(route, r#"{"requests":[7]}"#, r#"{"requests":[7]}"#);
}

#[test]
fn the_request_whose_tokens_are_counted_names_the_model() {
    let route = Route::CountTokens;
    assert_body(
        route,
        r#"{"generateContentRequest":{"contents":[]}}"#,
        r#"{"generateContentRequest":{"model":"models/m","contents":[]}}"#,
    );
    assert_body(route, r#"{"contents":[]}"#, r#"{"contents":[]}"#);
}

#[test]
fn arguments_that_are_no_object_are_refused() {
    assert_eq!(request_body("[]", "models/m", Route::GenerateContent), Err(NotAnObject));
}

fn parsed(route: Route, body: &str) -> Result<Parsed, VendorError> {
    parse(route, &HeaderMap::new(), body.as_bytes().to_vec(), "check it", noon())
}

#[test]
fn an_answer_comes_back_as_it_is_spelt() {
    let body = r#"{ "candidates": [{"content":{},"finishReason":"SAFETY"}],"responseId":"r1",
        "usageMetadata":{"promptTokenCount":14}, "n":1.50}"#;
    let parsed = parsed(Route::GenerateContent, body).unwrap();
    assert_eq!(parsed.response.as_str(), body);
    assert_eq!(parsed.request_id.as_deref(), Some("r1"));
    assert_eq!(parsed.usage, Usage { input_tokens: Some(14), ..Usage::default() });
}

#[test]
fn the_tokens_of_predicted_embeddings_are_added_up() {
    let one = |count: &str| {
        format!(r#"{{"embeddings":{{"statistics":{{"token_count":{count}}},"values":[0.1]}}}}"#)
    };
    let usage = |counts: &[&str]| {
        let all: Vec<_> = counts.iter().map(|count| one(count)).collect();
        let body = format!(r#"{{"predictions":[{}]}}"#, all.join(","));
        parsed(Route::Predict, &body).unwrap().usage.input_tokens
    };
    assert_eq!(usage(&["2", "3.0"]), Some(5));
    assert_eq!(usage(&["2", "-1"]), None);
    assert_eq!(usage(&["2", "\"3\""]), None);
    let other = parsed(Route::Predict, r#"{"predictions":["text"]}"#).unwrap();
    assert_eq!(other.usage, Usage::default());
}

#[test]
fn an_error_inside_a_200_is_one() {
    let error = r#"{"error":{"code":503,"message":"no","status":"UNAVAILABLE"}}"#;
    for body in [error.to_owned(), format!("[{error}]")] {
        let found = parsed(Route::GenerateContent, &body).unwrap_err();
        assert_eq!(found.class(), ErrorClass::Overloaded, "{body}");
        assert_eq!(found.to_string(), "the vendor answered an error: no");
    }
}

#[test]
fn what_is_no_answer_says_so() {
    for (body, expected) in [
        ("", ErrorClass::Protocol),
        ("<html>", ErrorClass::Protocol),
        ("[]", ErrorClass::Protocol),
        (r#"{"candidates":["#, ErrorClass::Transient),
    ] {
        assert_eq!(parsed(Route::GenerateContent, body).unwrap_err().class(), expected, "{body}");
    }
}
