//! How long a vendor asks to wait before the next attempt: one parser for all vendors.

use std::time::Duration;

use chrono::{DateTime, Utc};
use http::HeaderMap;
use serde_json::Value;

/// A longer wait is a mistake of the vendor, such as a Unix time in `retry-after`.
const LONGEST: Duration = Duration::from_hours(31 * 24);

/// The wait that an answer names, from the most to the least exact place it can stand in:
/// `retry-after-ms`, `x-amz-retry-after` (milliseconds), `retry-after` (seconds or a date, which
/// `now` is taken from), Google's `RetryInfo` in the body, a number in the message.
///
/// A place that names zero, less or nonsense is passed over: Azure sends `retry-after-ms: 0` beside
/// `retry-after: 1`.
pub fn retry_after(
    headers: &HeaderMap,
    body: Option<&Value>,
    message: &str,
    now: DateTime<Utc>,
) -> Option<Duration> {
    millis(headers, "retry-after-ms")
        .or_else(|| millis(headers, "x-amz-retry-after"))
        .or_else(|| retry_after_header(headers, now))
        .or_else(|| body.and_then(retry_info))
        .or_else(|| in_message(message))
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok().map(str::trim)
}

fn millis(headers: &HeaderMap, name: &str) -> Option<Duration> {
    seconds(text(headers, name)?.parse::<f64>().ok()? / 1000.0)
}

/// RFC 9110 §10.2.3; vendors also send fractions of a second.
fn retry_after_header(headers: &HeaderMap, now: DateTime<Utc>) -> Option<Duration> {
    let value = text(headers, "retry-after")?;
    if let Ok(number) = value.parse::<f64>() {
        return seconds(number);
    }
    let date: DateTime<Utc> = httpdate::parse_http_date(value).ok()?.into();
    sensible((date - now).to_std().ok()?)
}

/// `error.details[]` of type `google.rpc.RetryInfo`; its delay is a protobuf duration: `"48.9s"`.
fn retry_info(body: &Value) -> Option<Duration> {
    let body = body.get(0).unwrap_or(body); // A stream's error comes as a list of one.
    body.pointer("/error/details")?.as_array()?.iter().find_map(|detail| {
        let kind = detail.get("@type")?.as_str()?;
        let delay = detail.get("retryDelay")?.as_str()?;
        kind.ends_with("google.rpc.RetryInfo")
            .then(|| seconds(delay.strip_suffix('s')?.parse().ok()?))?
    })
}

/// `Please try again in 1m2.5s`, `Please retry after 38 seconds`, `Please retry in 48.93s`.
fn in_message(message: &str) -> Option<Duration> {
    let message = message.to_ascii_lowercase();
    ["try again in ", "retry after ", "retry in "].iter().find_map(|phrase| {
        let (_, rest) = message.split_once(phrase)?;
        seconds(leading_duration(rest)?)
    })
}

/// The seconds of a duration at the start of `text`: numbers, each with its unit, as Go or a person
/// writes them (`1m2.5s`, `174ms`, `38 seconds`).
fn leading_duration(mut text: &str) -> Option<f64> {
    let mut total = None;
    while let Some((number, unit, rest)) = number_and_unit(text) {
        *total.get_or_insert(0.0) += number * unit;
        text = rest;
    }
    total
}

fn number_and_unit(text: &str) -> Option<(f64, f64, &str)> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.')?;
    let (number, rest) = text.split_at(digits);
    let number = number.parse().ok()?;
    let rest = rest.strip_prefix(' ').unwrap_or(rest);
    let word = rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len());
    let (unit, rest) = rest.split_at(word);
    let unit = match unit {
        "ms" | "millisecond" | "milliseconds" => 0.001,
        "s" | "sec" | "secs" | "second" | "seconds" => 1.0,
        "m" | "min" | "mins" | "minute" | "minutes" => 60.0,
        "h" | "hr" | "hour" | "hours" => 3600.0,
        "d" | "day" | "days" => 86_400.0,
        _ => return None,
    };
    Some((number, unit, rest))
}

fn seconds(seconds: f64) -> Option<Duration> {
    sensible(Duration::try_from_secs_f64(seconds).ok()?) // Refuses NaN, infinity and less than 0.
}

fn sensible(wait: Duration) -> Option<Duration> {
    (!wait.is_zero() && wait <= LONGEST).then_some(wait)
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn now() -> DateTime<Utc> {
        DateTime::parse_from_rfc3339("2026-11-20T12:00:00Z").unwrap().to_utc()
    }

    #[track_caller]
    fn hint(headers: &[(&'static str, &str)], body: Option<&Value>, message: &str) -> Option<u128> {
        let headers: HeaderMap = headers
            .iter()
            .map(|&(name, value)| {
                (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap())
            })
            .collect();
        retry_after(&headers, body, message, now()).map(|wait| wait.as_millis())
    }

    #[test]
    fn headers_are_read_from_the_most_exact_on() {
        assert_eq!(
            hint(&[("retry-after", "20"), ("retry-after-ms", "19500")], None, ""),
            Some(19_500)
        );
        assert_eq!(
            hint(&[("x-amz-retry-after", "250"), ("retry-after", "9")], None, ""),
            Some(250)
        );
        assert_eq!(hint(&[("retry-after", " 1.5 ")], None, "try again in 9s"), Some(1_500));
    }

    #[test]
    fn a_date_is_a_wait_from_now_on() {
        let at = |date| hint(&[("retry-after", date)], None, "");
        assert_eq!(at("Fri, 20 Nov 2026 12:00:30 GMT"), Some(30_000));
        assert_eq!(at("Fri, 20 Nov 2026 11:59:30 GMT"), None);
        assert_eq!(at("Sat, 20 Nov 2027 12:00:00 GMT"), None);
    }

    #[test]
    fn a_useless_value_gives_way_to_the_next_place() {
        for useless in ["0", "-1", "NaN", "inf", "1e300", "1795176000000", "soon", ""] {
            let headers = [("retry-after-ms", useless), ("retry-after", "1")];
            assert_eq!(hint(&headers, None, ""), Some(1_000), "{useless}");
            assert_eq!(hint(&[("retry-after", useless)], None, ""), None, "{useless}");
        }
    }

    #[test]
    fn googles_retry_info_is_read() {
        let body = |delay: &str| {
            json!({"error": {"details": [
                {"@type": "type.googleapis.com/google.rpc.Help"},
                {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": delay},
            ]}})
        };
        assert_eq!(hint(&[], Some(&body("48s")), ""), Some(48_000));
        assert_eq!(hint(&[], Some(&json!([body("48.9s")])), ""), Some(48_900));
        assert_eq!(hint(&[], Some(&body("soon")), "Please retry in 2s"), Some(2_000));
    }

    #[test]
    fn the_number_in_a_message_is_read() {
        for (message, expected) in [
            (
                "Limit 3, Used 3, Requested 1. Please try again in 20s. Visit https://x",
                Some(20_000),
            ),
            ("Please try again in 174ms.", Some(174)),
            ("please try again in 1m2.5s.", Some(62_500)),
            ("try again in 6m0s", Some(360_000)),
            ("Please retry after 38 seconds.", Some(38_000)),
            ("Please retry in 48.93s.", Some(48_930)),
            ("try again in 1 hour", Some(3_600_000)),
            ("Please try again in a moment", None),
            ("Please retry after 38", None),
            ("try again in 0s", None),
            ("try again in ...s", None),
        ] {
            assert_eq!(hint(&[], None, message), expected, "{message}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics_and_every_wait_is_sensible(header in "[ -~]{0,20}", message in ".{0,80}") {
            let message = format!("try again in {message}");
            let mut headers = HeaderMap::new();
            headers.insert("retry-after", HeaderValue::from_str(&header).unwrap());
            if let Some(wait) = retry_after(&headers, None, &message, now()) {
                prop_assert!(wait > Duration::ZERO && wait <= LONGEST);
            }
        }
    }
}
