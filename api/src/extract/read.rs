//! Reads single values by pydantic's lax rules.
//!
//! Source: <https://docs.pydantic.dev/latest/concepts/conversion_table/> and
//! <https://docs.pydantic.dev/latest/errors/validation_errors/>.

use std::{borrow::Cow, ops::RangeInclusive, str::FromStr};

use chrono::{DateTime, Utc};
use inferq_common::{job::Json, vendor::UnknownWord};
use serde_json::{json, value::RawValue};

use super::Fault;

/// The JSON type of a raw value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Null,
    Bool,
    Number,
    Text,
    List,
    Object,
}

fn kind(raw: &RawValue) -> Kind {
    match raw.get().as_bytes().first() {
        Some(b'{') => Kind::Object,
        Some(b'[') => Kind::List,
        Some(b'"') => Kind::Text,
        Some(b't' | b'f') => Kind::Bool,
        Some(b'n') => Kind::Null,
        _ => Kind::Number,
    }
}

/// A text.
pub fn string(raw: &RawValue) -> Result<String, Fault> {
    text(raw).map(Cow::into_owned)
}

fn text(raw: &RawValue) -> Result<Cow<'_, str>, Fault> {
    if kind(raw) != Kind::Text {
        return Err(Fault::new("string_type", "Input should be a valid string"));
    }
    let inner = &raw.get()[1..raw.get().len() - 1];
    if !inner.contains('\\') {
        return Ok(Cow::Borrowed(inner));
    }
    serde_json::from_str::<String>(raw.get()).map(Cow::Owned).map_err(|_| {
        Fault::new(
            "string_unicode",
            "Input should be a valid string, unable to parse raw data as a unicode string",
        )
    })
}

/// A text of at most `max` characters and, unless `min` is 0, at least `min`.
pub fn string_of(min: usize, max: usize) -> impl Fn(&RawValue) -> Result<String, Fault> {
    move |raw| {
        let text = string(raw)?;
        let length = text.chars().count();
        let plural = |n: usize| if n == 1 { "" } else { "s" };
        if length < min {
            let msg = format!("String should have at least {min} character{}", plural(min));
            return Err(Fault::new("string_too_short", msg).with_ctx(json!({ "min_length": min })));
        }
        if length > max {
            let msg = format!("String should have at most {max} character{}", plural(max));
            return Err(Fault::new("string_too_long", msg).with_ctx(json!({ "max_length": max })));
        }
        Ok(text)
    }
}

/// A JSON object, kept as its text.
pub fn dict(raw: &RawValue) -> Result<Json, Fault> {
    if kind(raw) == Kind::Object {
        Ok(Json::from(raw.to_owned()))
    } else {
        Err(Fault::new("dict_type", "Input should be a valid dictionary"))
    }
}

/// A whole number within `range`.
pub fn whole(range: RangeInclusive<i64>) -> impl Fn(&RawValue) -> Result<i64, Fault> {
    move |raw| {
        let number = integer(raw)?;
        let (min, max) = (*range.start(), *range.end());
        if number < min {
            let msg = format!("Input should be greater than or equal to {min}");
            return Err(Fault::new("greater_than_equal", msg).with_ctx(json!({ "ge": min })));
        }
        if number > max {
            let msg = format!("Input should be less than or equal to {max}");
            return Err(Fault::new("less_than_equal", msg).with_ctx(json!({ "le": max })));
        }
        Ok(number)
    }
}

/// What is beyond an `i64` becomes its nearest bound: every range here is far inside.
fn integer(raw: &RawValue) -> Result<i64, Fault> {
    match kind(raw) {
        Kind::Number => integer_of_number(raw.get()),
        Kind::Bool => Ok(i64::from(raw.get() == "true")),
        Kind::Text => integer_of_text(&text(raw)?),
        Kind::Null | Kind::List | Kind::Object => {
            Err(Fault::new("int_type", "Input should be a valid integer"))
        }
    }
}

fn integer_of_number(digits: &str) -> Result<i64, Fault> {
    if !digits.contains(['.', 'e', 'E']) {
        return Ok(saturating(digits));
    }
    let number: f64 = digits.parse().unwrap_or(f64::INFINITY);
    if !number.is_finite() {
        return Err(Fault::new("finite_number", "Input should be a finite number"));
    }
    if number.fract() != 0.0 {
        let msg = "Input should be a valid integer, got a number with a fractional part";
        return Err(Fault::new("int_from_float", msg));
    }
    #[expect(clippy::cast_possible_truncation, reason = "it has no fraction; the cast saturates")]
    Ok(number as i64)
}

/// Python's `int("…")` with a zero fraction allowed.
fn integer_of_text(text: &str) -> Result<i64, Fault> {
    let trimmed = text.trim();
    let whole = match trimmed.split_once('.') {
        Some((whole, zeros)) if zeros.bytes().all(|byte| byte == b'0') => whole,
        Some(_) => "",
        None => trimmed,
    };
    let digits = whole.strip_prefix(['-', '+']).unwrap_or(whole);
    let grouped = digits
        .split('_')
        .all(|group| !group.is_empty() && group.bytes().all(|byte| byte.is_ascii_digit()));
    if !grouped {
        let msg = "Input should be a valid integer, unable to parse string as an integer";
        return Err(Fault::new("int_parsing", msg));
    }
    Ok(saturating(&whole.replace('_', "")))
}

fn saturating(digits: &str) -> i64 {
    let bound = if digits.starts_with('-') { i64::MIN } else { i64::MAX };
    digits.parse().unwrap_or(bound)
}

/// A number, whole or not; or a text that is one.
pub fn float(raw: &RawValue) -> Result<f64, Fault> {
    let number = match kind(raw) {
        Kind::Number => raw.get().parse().ok(),
        Kind::Bool => Some(f64::from(u8::from(raw.get() == "true"))),
        Kind::Text => Some(text(raw)?.trim().parse().map_err(|_| {
            let msg = "Input should be a valid number, unable to parse string as a number";
            Fault::new("float_parsing", msg)
        })?),
        Kind::Null | Kind::List | Kind::Object => None,
    };
    let number: f64 =
        number.ok_or_else(|| Fault::new("float_type", "Input should be a valid number"))?;
    if !number.is_finite() {
        return Err(Fault::new("finite_number", "Input should be a finite number"));
    }
    Ok(number)
}

/// A truth value, or a word or number that stands for one.
pub fn boolean(raw: &RawValue) -> Result<bool, Fault> {
    let unclear =
        || Fault::new("bool_parsing", "Input should be a valid boolean, unable to interpret input");
    match kind(raw) {
        Kind::Bool => Ok(raw.get() == "true"),
        Kind::Number => match raw.get().parse::<f64>() {
            Ok(1.0) => Ok(true),
            Ok(0.0) => Ok(false),
            _ => Err(unclear()),
        },
        Kind::Text => match text(raw)?.to_ascii_lowercase().as_str() {
            "1" | "on" | "t" | "true" | "y" | "yes" => Ok(true),
            "0" | "off" | "f" | "false" | "n" | "no" => Ok(false),
            _ => Err(unclear()),
        },
        Kind::Null | Kind::List | Kind::Object => {
            Err(Fault::new("bool_type", "Input should be a valid boolean"))
        }
    }
}

/// One word of a closed set.
pub fn word<T: FromStr<Err = UnknownWord>>(raw: &RawValue) -> Result<T, Fault> {
    // What is no text is none of the words either, and neither is the empty text.
    let given = text(raw).unwrap_or_default();
    given.parse().map_err(|UnknownWord { known, .. }| {
        let expected = alternatives(known);
        Fault::new("enum", format!("Input should be {expected}"))
            .with_ctx(json!({ "expected": expected }))
    })
}

/// `'a', 'b' or 'c'`.
pub(crate) fn alternatives(words: &[&str]) -> String {
    let quoted: Vec<String> = words.iter().map(|word| format!("'{word}'")).collect();
    match quoted.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, rest)) => format!("{} or {last}", rest.join(", ")),
        None => String::new(),
    }
}

/// An instant: RFC 3339 with a zone, or seconds since 1970.
pub fn instant(raw: &RawValue) -> Result<DateTime<Utc>, Fault> {
    let unreadable = || {
        Fault::new("datetime_parsing", "Input should be a valid datetime, invalid datetime format")
            .with_ctx(json!({ "error": "invalid datetime format" }))
    };
    match kind(raw) {
        Kind::Text => {
            let text = text(raw)?;
            if let Ok(at) = DateTime::parse_from_rfc3339(&text) {
                return Ok(inferq_common::clock::to_micros(at.to_utc()));
            }
            if text.parse::<chrono::NaiveDateTime>().is_ok() {
                return Err(Fault::new("timezone_aware", "Input should have timezone info"));
            }
            Err(unreadable())
        }
        Kind::Number => {
            let seconds: f64 = raw.get().parse().map_err(|_| unreadable())?;
            #[expect(clippy::cast_possible_truncation, reason = "the cast saturates")]
            DateTime::from_timestamp_micros((seconds * 1e6) as i64).ok_or_else(unreadable)
        }
        _ => Err(Fault::new("datetime_type", "Input should be a valid datetime")),
    }
}

#[cfg(test)]
mod tests {
    use inferq_common::job::Priority;

    use super::*;

    #[track_caller]
    fn outcome<T: std::fmt::Debug>(
        read: impl Fn(&RawValue) -> Result<T, Fault>,
        json: &str,
    ) -> Result<T, &'static str> {
        read(serde_json::from_str(json).unwrap()).map_err(|fault| fault.kind)
    }

    #[test]
    fn whole_numbers_are_read_as_pydantic_reads_them() {
        for (json, expected) in [
            ("5", Ok(5)),
            ("5.0", Ok(5)),
            ("5e0", Ok(5)),
            ("true", Ok(1)),
            ("\"5\"", Ok(5)),
            ("\" +1_0.00 \"", Ok(10)),
            ("0", Err("greater_than_equal")),
            ("-0.0", Err("greater_than_equal")),
            ("-1", Err("greater_than_equal")),
            ("11", Err("less_than_equal")),
            ("1e30", Err("less_than_equal")),
            ("123456789012345678901234567890", Err("less_than_equal")),
            ("-123456789012345678901234567890", Err("greater_than_equal")),
            ("1.5", Err("int_from_float")),
            ("1e400", Err("finite_number")),
            ("\"soon\"", Err("int_parsing")),
            ("\"1.5\"", Err("int_parsing")),
            ("\"\"", Err("int_parsing")),
            ("\"_1\"", Err("int_parsing")),
            ("\"+-1\"", Err("int_parsing")),
            ("null", Err("int_type")),
            ("[]", Err("int_type")),
            ("{}", Err("int_type")),
        ] {
            assert_eq!(outcome(whole(1..=10), json), expected, "{json}");
        }
    }

    #[test]
    fn numbers_are_read_as_pydantic_reads_them() {
        for (json, expected) in [
            ("1.5", Ok(1.5)),
            ("5", Ok(5.0)),
            ("-1e2", Ok(-100.0)),
            ("true", Ok(1.0)),
            ("\" 1.5 \"", Ok(1.5)),
            ("\"soon\"", Err("float_parsing")),
            ("\"inf\"", Err("finite_number")),
            ("1e400", Err("finite_number")),
            ("null", Err("float_type")),
            ("[]", Err("float_type")),
        ] {
            assert_eq!(outcome(float, json), expected, "{json}");
        }
    }

    #[test]
    fn truth_values_are_read_as_pydantic_reads_them() {
        for json in ["true", "1", "1.0", "\"yes\"", "\"ON\"", "\"t\"", "\"1\""] {
            assert_eq!(outcome(boolean, json), Ok(true), "{json}");
        }
        for json in ["false", "0", "0.0", "\"no\"", "\"Off\"", "\"f\"", "\"n\""] {
            assert_eq!(outcome(boolean, json), Ok(false), "{json}");
        }
        for json in ["2", "0.5", "\"maybe\"", "\"\""] {
            assert_eq!(outcome(boolean, json), Err("bool_parsing"), "{json}");
        }
        for json in ["null", "[]", "{}"] {
            assert_eq!(outcome(boolean, json), Err("bool_type"), "{json}");
        }
    }

    #[test]
    fn texts_and_objects_are_of_their_own_type_only() {
        assert_eq!(outcome(string, r#""a\u0062\n""#).as_deref(), Ok("ab\n"));
        assert_eq!(outcome(string, r#""\ud800""#), Err("string_unicode"));
        assert_eq!(outcome(string, "1"), Err("string_type"));
        assert_eq!(outcome(string_of(1, 2), r#""""#), Err("string_too_short"));
        assert_eq!(outcome(string_of(1, 2), r#""abc""#), Err("string_too_long"));
        assert_eq!(outcome(dict, r#"{"a": 1}"#).unwrap().as_str(), r#"{"a": 1}"#);
        assert_eq!(outcome(dict, "[]").unwrap_err(), "dict_type");
        assert_eq!(outcome(word::<Priority>, r#""low""#), Ok(Priority::Low));
        for json in ["1", "null", r#""Low""#] {
            let fault = word::<Priority>(serde_json::from_str(json).unwrap()).unwrap_err();
            assert_eq!(fault.kind, "enum");
            assert_eq!(fault.msg, "Input should be 'high', 'normal' or 'low'");
        }
    }

    #[test]
    fn an_instant_has_a_zone() {
        let at = outcome(instant, r#""2026-01-02T03:04:05.678901234+01:00""#).unwrap();
        assert_eq!(at.to_rfc3339(), "2026-01-02T02:04:05.678901+00:00");
        assert_eq!(outcome(instant, "0").unwrap(), DateTime::UNIX_EPOCH);
        assert_eq!(outcome(instant, r#""2026-01-02T03:04:05""#), Err("timezone_aware"));
        assert_eq!(outcome(instant, r#""tomorrow""#), Err("datetime_parsing"));
        assert_eq!(outcome(instant, "1e300"), Err("datetime_parsing"));
        assert_eq!(outcome(instant, "true"), Err("datetime_type"));
    }
}
