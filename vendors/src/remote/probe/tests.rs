//! What every adapter owes whatever a vendor, or someone in its place, answers.

use std::{collections::VecDeque, sync::LazyLock};

use ::http::{HeaderName, HeaderValue, header::CONTENT_TYPE};
use bytes::Bytes;
use inferq_common::{clock::ManualClock, error::ErrorClass, route, usage::Usage};
use proptest::{collection::vec, prelude::*, sample::Index};
use serde_json::{Value, json};

use super::*;
use crate::framing::Frame;

const SECRET: &str = "sk-secret-0123456789abcdefghijklmnopqrstuvwxyz";
const MAX_MESSAGE_CHARS: usize = 1_000;

static PROBES: LazyLock<Vec<(Vendor, Box<dyn Probe>)>> = LazyLock::new(|| {
    let noon = "2026-11-20T12:00:00Z".parse().unwrap();
    let probe = |vendor| {
        let config = VendorConfig {
            base_url: Some("http://127.0.0.1:1".parse().unwrap()),
            api_key: Some(SECRET.into()),
            region: Some("us-east-1".to_owned()),
            ..VendorConfig::default()
        };
        adapter(vendor, &config, &Clients::default(), Arc::new(ManualClock::at(noon))).unwrap()
    };
    Vendor::ALL.iter().map(|&vendor| (vendor, probe(vendor))).collect()
});

/// Errors as the vendors spell them; `SECRET` where servers repeat what they were sent.
static ERRORS: LazyLock<Vec<Value>> = LazyLock::new(|| {
    let said = format!("Incorrect API key provided: {SECRET}. Please try again in 1m2.5s.");
    vec![
        json!({"error": {"message": said, "type": "invalid_request_error", "param": null, "code": SECRET}}),
        json!({"type": "error", "error": {"type": "overloaded_error", "message": said}, "request_id": SECRET}),
        json!({"id": "1", "message": said}),
        json!({"error": {"code": 429, "message": said, "status": "RESOURCE_EXHAUSTED", "details": [
            {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "48.9s"},
            {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": SECRET, "metadata": {"a": said}},
        ]}}),
        json!([{"error": {"code": 503, "message": said, "status": "UNAVAILABLE"}}]),
        json!({"__type": "com.amazon#ThrottlingException", "message": said, "Message": said}),
        json!({"code": SECRET, "error": said}),
        json!({"detail": [{"loc": ["body", "args"], "msg": said, "type": "missing"}]}),
        json!({"detail": said, "object": "error"}),
        json!({"status": "FAILURE", "result": null, "traceback": format!("a\nb\n{said}\n"), "status_code": 400}),
        json!({"request_id": SECRET, "error": {"status_code": 400, "content": {"error": said, "timestamp": "t"}}}),
        json!({"error": {"message": said, "innererror": {"code": "ResponsibleAIPolicyViolation", "content_filter_result": {"hate": {"filtered": true, "severity": "high"}}}}}),
        json!({"choices": [{"finish_reason": "error"}], "error": said, "usage": {"prompt_tokens": 1e300}}),
        json!({"promptFeedback": {"blockReason": said}, "usageMetadata": {"promptTokenCount": -1}}),
        json!({"type": "message-end", "delta": {"finish_reason": "ERROR", "error": said}}),
        json!({"type": "response.failed", "response": {"status": "failed", "error": {"code": SECRET, "message": said}}}),
    ]
});

/// Values that no vendor documents where they may come to stand.
fn odd() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(|number| json!(number)),
        Just(json!([])),
        Just(json!({})),
        Just(json!([[[{"error": [{"message": {}}]}]]])),
        Just(json!("\u{0}\u{1b}[31m\r\n\t\u{202e}")),
        Just(json!(SECRET)),
        // The end of what an error repeats may fall anywhere into it.
        (0_usize..420).prop_map(|n| json!(format!("{}{SECRET} {SECRET}", "x".repeat(n)))),
        Just(json!("é漢🦀".repeat(1_000))),
        Just(nested(100)),
        ".{0,40}".prop_map(Value::from),
    ]
}

fn nested(depth: usize) -> Value {
    (0..depth).fold(json!("deep"), |inner, _| json!({ "error": [inner] }))
}

fn any_json() -> impl Strategy<Value = Value> {
    let names = prop_oneof![
        prop::sample::select(vec![
            "error",
            "message",
            "code",
            "type",
            "status",
            "usage",
            "choices",
            "detail",
            "result",
            "candidates",
            "delta",
            "response",
            "output",
            "finish_reason",
        ])
        .prop_map(str::to_owned),
        ".{0,6}",
    ];
    odd().prop_recursive(6, 40, 6, move |inner| {
        prop_oneof![
            vec(inner.clone(), 0..6).prop_map(Value::from),
            vec((names.clone(), inner), 0..6)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

/// Every value inside of a document, the document itself included.
fn places(value: &Value, path: &str, found: &mut Vec<String>) {
    found.push(path.to_owned());
    match value {
        Value::Object(members) => {
            for (name, value) in members {
                let name = name.replace('~', "~0").replace('/', "~1");
                places(value, &format!("{path}/{name}"), found);
            }
        }
        Value::Array(elements) => {
            for (n, value) in elements.iter().enumerate() {
                places(value, &format!("{path}/{n}"), found);
            }
        }
        _ => {}
    }
}

/// A document of a vendor with something odd in it.
fn mutated(documents: Vec<Value>) -> impl Strategy<Value = Value> {
    (prop::sample::select(documents), vec((any::<Index>(), odd()), 0..3)).prop_map(
        |(mut document, changes)| {
            for (at, odd) in changes {
                let mut paths = Vec::new();
                places(&document, "", &mut paths);
                *document.pointer_mut(&paths[at.index(paths.len())]).unwrap() = odd;
            }
            document
        },
    )
}

/// What the samples of all vendors say, as documents.
fn answers() -> Vec<Value> {
    let answers = Vendor::ALL.iter().map(|&vendor| Sample::of(vendor, 2).response);
    answers.map(|answer| serde_json::from_slice(&answer).unwrap()).collect()
}

/// Bodies of every kind: of a vendor and changed, other JSON, JSON that is cut or damaged, anything.
fn body() -> impl Strategy<Value = Vec<u8>> {
    let documents: Vec<Value> = ERRORS.iter().cloned().chain(answers()).collect();
    let text = prop_oneof![mutated(documents), any_json()]
        .prop_map(|document| document.to_string().into_bytes());
    let damaged = (text, any::<Index>(), vec(any::<u8>(), 0..4), any::<bool>()).prop_map(
        |(mut text, at, bytes, is_cut)| {
            let at = at.index(text.len() + 1);
            if is_cut {
                text.truncate(at);
            }
            let at = at.min(text.len());
            text.splice(at..at, bytes);
            text
        },
    );
    prop_oneof![
        mutated(ERRORS.clone()).prop_map(|document| document.to_string().into_bytes()),
        any_json().prop_map(|document| document.to_string().into_bytes()),
        damaged,
        vec(any::<u8>(), 0..80),
    ]
}

fn headers() -> impl Strategy<Value = HeaderMap> {
    let names = prop::sample::select(vec![
        "content-type",
        "retry-after",
        "retry-after-ms",
        "x-should-retry",
        "x-request-id",
        "x-amzn-requestid",
        "x-amzn-errortype",
        "x-ratelimit-reset-requests",
        "www-authenticate",
    ]);
    let values = prop_oneof![
        Just(SECRET.as_bytes().to_vec()),
        Just(b"text/event-stream".to_vec()),
        Just(b"true".to_vec()),
        Just(b"ThrottlingException:http://x/".to_vec()),
        Just(b"1e300".to_vec()),
        vec(0x80_u8.., 0..8),
    ];
    vec((names, values), 0..4).prop_map(|pairs| {
        let pair = |(name, value): (&'static str, Vec<u8>)| {
            Some((HeaderName::from_static(name), HeaderValue::from_bytes(&value).ok()?))
        };
        pairs.into_iter().filter_map(pair).collect()
    })
}

/// An error is short, has a class that is not a defect of ours, and shows no secret.
fn check(vendor: Vendor, error: &VendorError) -> Result<(), TestCaseError> {
    let own = &error.error;
    prop_assert_ne!(error.class(), ErrorClass::Internal, "{}: {}", vendor, own.message);
    prop_assert!(!own.message.trim().is_empty(), "{vendor}");
    let n_chars = own.message.chars().count();
    prop_assert!(n_chars <= MAX_MESSAGE_CHARS, "{vendor}: {n_chars} characters");
    prop_assert!(!own.message.contains(|c: char| c.is_control()), "{vendor}: {}", own.message);
    for words in [Some(&own.message), own.vendor_code.as_ref(), own.vendor_request_id.as_ref()] {
        let words = words.map_or("", String::as_str);
        prop_assert!(!words.contains(SECRET), "{vendor}: {words}");
        prop_assert!(words.chars().count() <= MAX_MESSAGE_CHARS, "{vendor}: {words}");
    }
    Ok(())
}

fn check_everything(headers: &HeaderMap, status: u16, body: &[u8]) -> Result<(), TestCaseError> {
    let text = String::from_utf8_lossy(body);
    for (vendor, probe) in PROBES.iter() {
        for status in [Some(status), None] {
            check(*vendor, &probe.failure(Failure { status, headers, body: &text }))?;
        }
        for &route in route::of_vendor(*vendor) {
            match probe.parse(route, headers, body.to_vec()) {
                // What counts as an answer is passed on as it is, or a part of it.
                Ok(parsed) => prop_assert!(parsed.response.as_str().len() <= body.len()),
                Err(error) => check(*vendor, &error)?,
            }
        }
    }
    Ok(())
}

/// What a stream comes to: what is passed on of it, its error, and what it consumed.
type Followed = (Vec<Bytes>, Option<VendorError>, Usage);

fn take_all(
    probe: &dyn Probe,
    follow: &mut dyn Follow,
    frames: &mut VecDeque<Frame>,
    passed: &mut Vec<Bytes>,
) -> Result<(), VendorError> {
    while let Some(frame) = frames.pop_front() {
        if follow.is_over() {
            break;
        }
        passed.extend(follow.take(frame, probe.now())?);
    }
    Ok(())
}

/// Decodes and follows a stream that comes in these pieces.
fn follow<'a>(
    probe: &dyn Probe,
    route: Route,
    headers: &HeaderMap,
    pieces: impl IntoIterator<Item = &'a [u8]>,
) -> Option<Followed> {
    const MAX: usize = 4 << 10;
    let (framing, mut follow) = probe.follow(route, headers)?;
    let (mut decoder, mut frames, mut passed) = (framing.decoder(MAX), VecDeque::new(), Vec::new());
    let run = || {
        for piece in pieces {
            let pushed = decoder.push(piece, &mut frames);
            take_all(probe, follow.as_mut(), &mut frames, &mut passed)?;
            if follow.is_over() {
                return Ok(());
            }
            pushed?;
        }
        let finished = decoder.finish(&mut frames);
        take_all(probe, follow.as_mut(), &mut frames, &mut passed)?;
        if follow.is_over() {
            return Ok(());
        }
        finished.and_then(|()| follow.end())
    };
    let error = run().err().map(|error| probe.labelled(headers, error));
    Some((passed, error, follow.usage()))
}

/// Streams made of the vendors' own chunks, errors and whatever else, in any order.
fn stream() -> impl Strategy<Value = Vec<u8>> {
    let chunks: Vec<Vec<u8>> =
        Vendor::ALL.iter().flat_map(|&vendor| Sample::of(vendor, 2).stream).collect();
    let piece = prop_oneof![
        4 => prop::sample::select(chunks),
        2 => body().prop_map(|body| [b"data: ", body.as_slice(), b"\n\n"].concat()),
        1 => body().prop_map(|body| [b"event: error\r\ndata:", body.as_slice(), b"\r\n\r\n"].concat()),
        1 => body(),
        1 => body().prop_map(|body| [b"[", body.as_slice(), b",\r\n"].concat()),
        1 => vec(any::<u8>(), 0..8),
    ];
    vec(piece, 0..6).prop_map(|pieces| pieces.concat())
}

/// The headers and payload of a message of AWS's, or of an event without headers.
fn frame() -> impl Strategy<Value = Frame> {
    let names = prop::sample::select(vec![
        ":message-type",
        ":event-type",
        ":exception-type",
        ":error-code",
        ":error-message",
    ]);
    let values = prop_oneof![
        prop::sample::select(vec![
            "event",
            "exception",
            "error",
            "chunk",
            "metadata",
            "messageStop",
            "throttlingException",
            SECRET,
        ])
        .prop_map(str::to_owned),
        ".{0,12}",
        Just(format!("{}{SECRET}", "é".repeat(380))),
    ];
    let pairs = vec((names, values), 0..4);
    (pairs, body()).prop_map(|(pairs, body)| {
        let headers = pairs.into_iter().map(|(name, value)| (name.to_owned(), value));
        Frame { headers: headers.collect(), data: body.into() }
    })
}

fn stream_heads() -> impl Iterator<Item = HeaderMap> {
    ["text/event-stream", "application/json", "application/vnd.amazon.eventstream"]
        .into_iter()
        .map(|kind| HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(kind))]))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn whatever_is_answered_the_error_is_short_and_shows_no_secret(
        headers in headers(),
        status in 100_u16..600,
        body in body(),
    ) {
        check_everything(&headers, status, &body)?;
    }

    #[test]
    fn whatever_is_streamed_is_followed_to_its_end(frames in vec(frame(), 0..6)) {
        for (vendor, probe) in PROBES.iter() {
            for &route in route::of_vendor(*vendor) {
                for headers in stream_heads() {
                    let Some((_, mut follow)) = probe.follow(route, &headers) else { continue };
                    for frame in &frames {
                        if let Err(error) = follow.take(frame.clone(), probe.now()) {
                            check(*vendor, &probe.labelled(&headers, error))?;
                        }
                    }
                    if let Err(error) = follow.end() {
                        check(*vendor, &probe.labelled(&headers, error))?;
                    }
                    let _ = (follow.usage(), follow.request_id());
                    // Only a gateway's end of the connection is told by the connection alone.
                    prop_assert_eq!(follow.end(), follow.end(), "{}", vendor);
                }
            }
        }
    }

    #[test]
    fn however_a_stream_is_split_it_comes_to_the_same(
        stream in stream(),
        cuts in vec(any::<Index>(), 0..8),
    ) {
        let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(stream.len() + 1)).collect();
        cuts.extend([0, stream.len()]);
        cuts.sort_unstable();
        for (vendor, probe) in PROBES.iter() {
            for &route in route::of_vendor(*vendor) {
                for headers in stream_heads() {
                    let run = |pieces: Vec<&[u8]>| follow(probe.as_ref(), route, &headers, pieces);
                    let whole = run(vec![&stream]);
                    let pieces = cuts.windows(2).map(|pair| &stream[pair[0]..pair[1]]).collect();
                    prop_assert_eq!(&run(pieces), &whole, "{} {}", vendor, route);
                    prop_assert_eq!(&run(stream.chunks(1).collect()), &whole, "{} {}", vendor, route);
                    if let Some((_, Some(error), _)) = &whole {
                        check(*vendor, error)?;
                    }
                }
            }
        }
    }
}

#[test]
fn the_huge_and_the_deep_are_answered_like_the_small() {
    let huge = "x ".repeat(1 << 19);
    let mut bodies = vec![
        huge.clone().into_bytes(),
        [b"[".repeat(1 << 20), b"1".to_vec()].concat(),
        b"{\"error\":".repeat(1 << 17),
        [b"{\"error\":{\"code\":1".to_vec(), b"0".repeat(1 << 20), b"}}".to_vec()].concat(),
        b"\xff".repeat(1 << 20),
        b"{\"error\":{\"message\":\"\xff\xfe\"}}".to_vec(),
        format!(r#"{{"usage":{{"prompt_tokens":1{}}}}}"#, "0".repeat(1 << 20)).into_bytes(),
    ];
    // Enough to be cut everywhere; larger ones take minutes without telling more.
    let large = &huge[..16 << 10];
    for document in ERRORS.iter() {
        let mut paths = Vec::new();
        places(document, "", &mut paths);
        for path in paths {
            let mut document = document.clone();
            *document.pointer_mut(&path).unwrap() = Value::from(large);
            bodies.push(document.to_string().into_bytes());
        }
    }
    for body in bodies {
        check_everything(&HeaderMap::new(), 400, &body).unwrap();
    }
}

#[test]
fn a_secret_that_is_cut_off_is_not_shown_in_part() {
    for n in 0..500 {
        let said = format!("{} {SECRET} and {SECRET}", "x".repeat(n));
        for body in [json!({"error": {"message": said}}).to_string(), said] {
            check_everything(&HeaderMap::new(), 401, body.as_bytes()).unwrap();
        }
    }
}

#[test]
fn the_samples_are_good_for_their_vendors() {
    for (vendor, probe) in PROBES.iter() {
        let sample = Sample::of(*vendor, 3);
        let call = sample.call();
        let route = probe.route(&call).unwrap();
        let parsed = probe.parse(route, &HeaderMap::new(), sample.response.clone()).unwrap();
        let n_bytes = call.args.as_str().len().min(sample.response.len());
        assert!((1_800..3_000).contains(&n_bytes), "{vendor}: {n_bytes} bytes");
        let pieces = sample.stream.iter().map(Vec::as_slice);
        let (passed, error, usage) =
            follow(probe.as_ref(), route, &sample.stream_headers(), pieces).unwrap();
        assert_eq!(error, None, "{vendor}");
        assert!(passed.len() >= 3, "{vendor}");
        if *vendor != Vendor::Launch {
            assert_eq!(usage.output_tokens.is_some(), parsed.usage.output_tokens.is_some());
            assert!(usage.input_tokens.is_some(), "{vendor}");
        }
    }
}
