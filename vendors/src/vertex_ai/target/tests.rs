use super::*;

fn place() -> Place {
    Place { project: Some("my-p".into()), location: Some("us-east5".into()), express: false }
}

fn at(model: &str, location: &str) -> Result<String, VendorError> {
    let place = Place { location: Some(location.to_owned()), ..place() };
    let url = Target::of(model)?.url(None, "v1", &place, "go")?;
    Ok(url.to_string())
}

#[test]
fn each_location_has_its_host() {
    for (location, host) in [
        ("us-central1", "us-central1-aiplatform.googleapis.com"),
        ("global", "aiplatform.googleapis.com"),
        ("us", "aiplatform.us.rep.googleapis.com"),
        ("eu", "aiplatform.eu.rep.googleapis.com"),
    ] {
        let expected = format!(
            "https://{host}/v1/projects/my-p/locations/{location}/publishers/google/models/m:go"
        );
        assert_eq!(at("m", location).unwrap(), expected);
    }
}

#[test]
fn every_form_of_a_name_has_its_path() {
    for (model, path) in [
        ("gemini-2.5-flash", "publishers/google/models/gemini-2.5-flash"),
        ("claude-opus-4-1@20250805", "publishers/anthropic/models/claude-opus-4-1@20250805"),
        ("meta/llama-4", "publishers/meta/models/llama-4"),
        ("publishers/mistralai/models/m@1", "publishers/mistralai/models/m@1"),
        ("1234567890", "endpoints/1234567890"),
        ("endpoints/my-endpoint", "endpoints/my-endpoint"),
        ("models/42", "models/42"),
    ] {
        let base = "https://us-east5-aiplatform.googleapis.com/v1/projects/my-p/locations/us-east5";
        assert_eq!(at(model, "us-east5").unwrap(), format!("{base}/{path}:go"));
    }
}

#[test]
fn a_full_name_says_where_by_itself() {
    for (model, expected) in [
        (
            "projects/other/locations/eu/endpoints/7",
            "https://aiplatform.eu.rep.googleapis.com/v1/projects/other/locations/eu/endpoints/7:go",
        ),
        (
            "projects/example.com:old/locations/us-west1/publishers/google/models/m",
            "https://us-west1-aiplatform.googleapis.com/v1/projects/example.com:old/locations/\
             us-west1/publishers/google/models/m:go",
        ),
    ] {
        assert_eq!(at(model, "us-east5").unwrap(), expected);
    }
}

#[test]
fn a_name_cannot_lead_our_token_elsewhere() {
    for location in ["evil.example", "evil.example/x", "a@b", "", "-a", "a-", "A", "x:1", "é"] {
        let model = format!("projects/p/locations/{location}/endpoints/1");
        let error = Target::of(&model).map(drop).unwrap_err();
        assert_eq!(error.class(), ErrorClass::InvalidRequest, "{model}");
    }
    for model in [
        "projects/p/locations/us-east5",
        "projects/p/locations/us-east5/m",
        "projects/p q/locations/us-east5/endpoints/1",
        "a/b/c",
        "publishers/google/models/m/x",
    ] {
        assert!(Target::of(model).is_err(), "{model}");
    }
}

#[test]
fn a_place_that_is_not_set_is_named() {
    for (place, key, variable) in [
        (Place { project: None, ..place() }, "vendors.vertex_ai.project", "GOOGLE_CLOUD_PROJECT"),
        (
            Place { location: None, ..place() },
            "vendors.vertex_ai.location",
            "GOOGLE_CLOUD_LOCATION",
        ),
    ] {
        let target = Target::of("m").unwrap();
        let error = target.url(None, "v1", &place, "go").unwrap_err();
        assert_eq!(error.class(), ErrorClass::Auth);
        assert!(error.to_string().contains(key) && error.to_string().contains(variable), "{error}");
        assert!(target.chat(None, "v1", &place).is_err());
        // A full name needs neither.
        let full = Target::of("projects/p/locations/global/endpoints/1").unwrap();
        assert!(full.url(None, "v1", &place, "go").is_ok());
    }
}

#[test]
fn with_a_key_there_is_no_project() {
    let place = Place { express: true, ..place() };
    let target = Target::of("m").unwrap();
    let url = target.url(None, "v1", &place, "go").unwrap();
    assert_eq!(url.as_str(), "https://aiplatform.googleapis.com/v1/publishers/google/models/m:go");
    let error = target.chat(None, "v1", &place).unwrap_err();
    assert_eq!(error.class(), ErrorClass::InvalidRequest);
}

#[test]
fn chat_completions_name_the_model_in_the_body() {
    let base: Url = "http://127.0.0.1:9/gw".parse().unwrap();
    let chat = |model: &'static str| {
        let (url, model) = Target::of(model).unwrap().chat(Some(&base), "v1", &place()).unwrap();
        let prefix = "http://127.0.0.1:9/gw/v1/projects/my-p/locations/us-east5/endpoints/";
        (url.as_str().strip_prefix(prefix).unwrap().to_owned(), model)
    };
    let open = |model: &str| ("openapi/chat/completions".to_owned(), model.to_owned());
    assert_eq!(chat("gemini-2.5-flash"), open("google/gemini-2.5-flash"));
    assert_eq!(chat("meta/llama-4"), open("meta/llama-4"));
    assert_eq!(chat("123"), ("123/chat/completions".to_owned(), String::new()));
    assert!(Target::of("models/1").unwrap().chat(Some(&base), "v1", &place()).is_err());
}
