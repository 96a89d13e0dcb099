//! Reads the members of a JSON object as text, without building a tree of it.
//!
//! Arguments and answers of models pass through untouched and may have many megabytes; where a few
//! of their top-level members must be looked at, this is how.

use std::{borrow::Cow, fmt};

use serde::de::{Deserializer as _, MapAccess, Visitor};
use serde_json::value::RawValue;

/// One member of an object, as slices of the object's own text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member<'a> {
    /// The name with its escapes resolved.
    pub key: Cow<'a, str>,
    /// The name as it is spelt, quotes included.
    pub raw_key: &'a str,
    /// The value as it is spelt, without the white space around it.
    pub value: &'a str,
}

impl Member<'_> {
    pub fn is_null(&self) -> bool {
        self.value == "null"
    }
}

/// The text is no JSON object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a JSON object")]
pub struct NotAnObject;

/// Shows `visit` each member of `object` in the order of the text; a repeated name is shown again.
///
/// # Errors
/// `NotAnObject` if the text is another JSON value or no JSON at all. What came before the fault
/// has been shown by then.
pub fn each_member<'a>(object: &'a str, visit: impl FnMut(Member<'a>)) -> Result<(), NotAnObject> {
    let mut text = serde_json::Deserializer::from_str(object);
    text.deserialize_map(Members(visit)).map_err(|_| NotAnObject)?;
    text.end().map_err(|_| NotAnObject)
}

struct Members<F>(F);

impl<'de, F: FnMut(Member<'de>)> Visitor<'de> for Members<F> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        while let Some((key, value)) = map.next_entry::<&'de RawValue, &'de RawValue>()? {
            let (raw_key, value) = (key.get(), value.get());
            (self.0)(Member { key: unescaped(raw_key), raw_key, value });
        }
        Ok(())
    }
}

/// What a quoted text says; one with a broken escape is left as it is spelt.
fn unescaped(quoted: &str) -> Cow<'_, str> {
    let inner = quoted.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    match inner {
        Some(inner) if !inner.contains('\\') => Cow::Borrowed(inner),
        _ => serde_json::from_str(quoted).map_or(Cow::Borrowed(quoted), Cow::Owned),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members(text: &str) -> Result<Vec<(String, &str)>, NotAnObject> {
        let mut found = Vec::new();
        each_member(text, |member| found.push((member.key.into_owned(), member.value)))?;
        Ok(found)
    }

    #[test]
    fn members_are_shown_as_they_are_spelt() {
        let text = r#" { "a" : 1.50 , "\u0061": [ 1, {"x":2} ], "a":1e999, "é\n": "\ud800" } "#;
        let found = members(text).unwrap();
        let expected = [
            ("a".to_owned(), "1.50"),
            ("a".to_owned(), r#"[ 1, {"x":2} ]"#),
            ("a".to_owned(), "1e999"),
            ("é\n".to_owned(), r#""\ud800""#),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn a_name_with_a_broken_escape_keeps_its_spelling() {
        assert_eq!(members(r#"{"\ud800":1}"#).unwrap(), [(r#""\ud800""#.to_owned(), "1")]);
    }

    #[test]
    fn only_one_object_will_do() {
        assert_eq!(members("{}"), Ok(vec![]));
        for text in ["", "[]", "null", "\"{}\"", "{", "{} {}", "{\"a\":}", "{a:1}"] {
            assert_eq!(members(text), Err(NotAnObject), "{text}");
        }
    }

    #[test]
    fn the_depth_of_a_value_costs_no_stack() {
        let text = format!(r#"{{"a":{}{}}}"#, "[".repeat(500_000), "]".repeat(500_000));
        assert_eq!(members(&text).unwrap().len(), 1);
    }
}
