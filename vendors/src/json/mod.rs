//! Reads and edits JSON as text, so that what passes through stays as it is spelt; pure.

use http::{HeaderMap, header::CONTENT_TYPE};
use inferq_common::{
    error::ErrorClass,
    job::Json,
    members::{Member, NotAnObject, each_member},
};
use serde::de::IgnoredAny;

use crate::error::{VendorError, excerpt, shorten};

/// Deeper documents are refused: what clients, and Postgres, can read has an end.
pub const MAX_DEPTH: usize = 128;

/// Adds the members of `object` that are to be kept, byte for byte and each with a comma in front,
/// and closes the object.
pub fn push_members(
    body: &mut String,
    object: &str,
    keep: impl Fn(&Member<'_>) -> bool,
) -> Result<(), NotAnObject> {
    let offset = |part: &str| part.as_ptr().addr() - object.as_ptr().addr();
    // Where the text after the previous member begins, and whether that member was kept.
    let mut previous: Option<(usize, bool)> = None;
    each_member(object, |member| {
        let start = offset(member.raw_key);
        let end = offset(member.value) + member.value.len();
        let kept = keep(&member);
        let gap = previous.map_or(0, |(end, _)| end)..start;
        // Between two members stand a comma and white space, before the first one the brace.
        let (before, after) = object[gap].split_once([',', '{']).unwrap_or_default();
        if previous.is_some_and(|(_, kept)| kept) {
            body.push_str(before);
        }
        if kept {
            body.push(',');
            body.push_str(after);
            body.push_str(&object[start..end]);
        }
        previous = Some((end, kept));
    })?;
    match previous {
        Some((end, true)) => body.push_str(object[end..].trim_end()),
        _ => body.push('}'),
    }
    Ok(())
}

/// The same object with only the members that are to be kept, byte for byte.
///
/// # Errors
/// `NotAnObject` for any other JSON.
pub fn pick_members(
    object: &str,
    keep: impl Fn(&Member<'_>) -> bool,
) -> Result<String, NotAnObject> {
    let mut picked = String::with_capacity(object.len());
    push_members(&mut picked, object, keep)?;
    if picked.starts_with(',') {
        picked.replace_range(..1, "{");
    } else {
        picked.insert(0, '{');
    }
    Ok(picked)
}

/// The text of a body: UTF-8, and of bearable depth if it is JSON.
///
/// # Errors
/// `Protocol`.
pub fn text(headers: &HeaderMap, body: Vec<u8>) -> Result<String, VendorError> {
    let text = String::from_utf8(body).map_err(|error| {
        unusable(headers, &String::from_utf8_lossy(error.as_bytes()), "it is not UTF-8")
    })?;
    if depth(&text) > MAX_DEPTH {
        return Err(unusable(headers, &text, "it is nested too deeply"));
    }
    Ok(text)
}

/// The response to keep of a text whose members have been read.
///
/// # Errors
/// `Internal`: it is no JSON.
pub fn keep(text: String) -> Result<Json, VendorError> {
    Json::parse(text).map_err(|error| VendorError::new(ErrorClass::Internal, error.to_string()))
}

/// Says what is wrong with an answer that is not one JSON object.
pub fn no_object(headers: &HeaderMap, text: &str) -> VendorError {
    if text.trim_ascii().is_empty() {
        let message = format!("the vendor answered with nothing{}", typed(headers));
        return VendorError::new(ErrorClass::Protocol, message);
    }
    match serde_json::from_str::<IgnoredAny>(text) {
        Err(error) if error.is_eof() && text.trim_ascii_start().starts_with(['{', '[']) => {
            let message = "the vendor's answer ends in the middle of its JSON";
            VendorError::new(ErrorClass::Transient, message)
        }
        Err(_) => unusable(headers, text, "it is not JSON"),
        Ok(_) => unusable(headers, text, "it is not a JSON object"),
    }
}

/// Whether an answer can be a stream of events. One that names no type is given the chance.
pub fn may_be_events(headers: &HeaderMap) -> bool {
    headers
        .get(CONTENT_TYPE)
        .is_none_or(|value| value.as_bytes().to_ascii_lowercase().starts_with(b"text/event-stream"))
}

/// How deep the objects and lists of a JSON document are nested.
pub(crate) fn depth(json: &str) -> usize {
    let (mut depth, mut deepest) = (0_usize, 0);
    let mut bytes = json.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'{' | b'[' => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            b'"' => skip_text(&mut bytes),
            _ => {}
        }
    }
    deepest
}

/// Moves behind the quote that ends a text.
fn skip_text(bytes: &mut std::str::Bytes<'_>) {
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => return,
            b'\\' => _ = bytes.next(),
            _ => {}
        }
    }
}

/// ` (content type text/html)`, or nothing where the type is not told.
fn typed(headers: &HeaderMap) -> String {
    let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    content_type.map_or_else(String::new, |value| format!(" (content type {})", excerpt(value)))
}

/// The error of a 2xx answer that cannot be used, with its beginning.
pub fn unusable(headers: &HeaderMap, body: &str, why: &str) -> VendorError {
    let typed = typed(headers);
    let message = format!("cannot use the vendor's answer{typed}: {why}: {}", shorten(body, 200));
    VendorError::new(ErrorClass::Protocol, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_kept_leaves_no_trace() {
        let keep = |member: &Member<'_>| member.key != "x";
        for (object, picked) in [
            (r#"{"x":1}"#, "{}"),
            ("{ }", "{}"),
            (r#"{"x":1, "a" : 1.50 ,"x":[]}"#, r#"{ "a" : 1.50 }"#),
            (r#"{ "a":1,"b":{"x":2}}"#, r#"{ "a":1,"b":{"x":2}}"#),
        ] {
            assert_eq!(pick_members(object, keep).unwrap(), picked);
        }
        assert!(pick_members("[]", keep).is_err());
    }

    #[test]
    fn brackets_in_texts_do_not_nest() {
        assert_eq!(depth(r#"{"[[\"[":["}"],"b":{}}"#), 2);
        assert_eq!(depth("1"), 0);
        assert_eq!(depth("[[[[[[[["), 8);
    }
}
