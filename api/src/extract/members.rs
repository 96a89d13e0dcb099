//! The members of an object, read one by one.

use std::{borrow::Cow, fmt};

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::{RawValue, to_raw_value};

use super::{Fault, Problems};
use crate::error::{Loc, Problem};

/// The members of a body, an object within it, a query or the headers, as far as they are asked for.
///
/// Values stay in the text they came in; nothing is copied until it is read.
#[derive(Debug)]
pub struct Members<'a> {
    loc: Vec<Loc>,
    names: &'static [&'static str],
    values: Vec<Option<Cow<'a, RawValue>>>,
    /// The object itself, shown where a required member is missing.
    whole: Option<Cow<'a, RawValue>>,
}

impl<'a> Members<'a> {
    /// Reads the members `names` of the JSON object in `text`; others are checked for syntax only.
    /// Of repeated members the last counts.
    ///
    /// # Errors
    /// The one problem of a text that is no JSON or no object, at `loc`.
    pub fn parse(
        loc: Vec<Loc>,
        text: &'a str,
        names: &'static [&'static str],
    ) -> Result<Self, Problem> {
        let starts_with = text.trim_ascii_start().bytes().next();
        if starts_with != Some(b'{') {
            let raw: &RawValue =
                serde_json::from_str(text).map_err(|error| syntax(&loc, text, &error))?;
            return Err(not_an_object().at(loc, Some(raw)));
        }
        let mut deserializer = serde_json::Deserializer::from_str(text);
        let values = deserializer
            .deserialize_map(Collect { names })
            .and_then(|values| deserializer.end().map(|()| values))
            .map_err(|error| syntax(&loc, text, &error))?;
        let mut members = Self { loc, names, values, whole: None };
        if members.values.iter().any(Option::is_none) && text.len() <= super::MAX_ECHOED_BYTES {
            // Only a missing member shows the whole, and only a small one is shown.
            members.whole = serde_json::from_str(text).ok().map(Cow::Borrowed);
        }
        Ok(members)
    }

    /// Values that are texts: a query, or headers. They are read by the same rules as JSON strings.
    pub(crate) fn of_texts<'t>(
        source: &'static str,
        names: &'static [&'static str],
        texts: impl IntoIterator<Item = (&'t str, &'t str)>,
    ) -> Self {
        let mut values = vec![None; names.len()];
        for (name, text) in texts {
            if let Some(index) = names.iter().position(|known| *known == name) {
                let raw = to_raw_value(text).expect("a text is always JSON");
                values[index] = Some(Cow::Owned(raw));
            }
        }
        Self { loc: vec![source.into()], names, values, whole: None }
    }

    /// The parameters `names` of a query; of repeated ones the last counts.
    pub fn of_query(uri: &http::Uri, names: &'static [&'static str]) -> Self {
        let query = uri.query().unwrap_or_default();
        let pairs: Vec<_> = url::form_urlencoded::parse(query.as_bytes()).collect();
        Self::of_texts("query", names, pairs.iter().map(|(name, text)| (&**name, &**text)))
    }

    /// No members at all, such as those of an object that was left out.
    pub fn none(loc: Vec<Loc>, names: &'static [&'static str]) -> Self {
        Self { loc, names, values: vec![None; names.len()], whole: None }
    }

    /// The raw value of a member, if it was given.
    pub fn get(&self, name: &str) -> Option<&RawValue> {
        let index = self.names.iter().position(|known| *known == name);
        debug_assert!(index.is_some(), "{name} is not among the members asked for");
        self.values.get(index?)?.as_deref()
    }

    /// Where a member stands.
    pub fn loc(&self, name: &'static str) -> Vec<Loc> {
        let mut loc = self.loc.clone();
        loc.push(name.into());
        loc
    }

    /// Reads a member that must be there; `None` once a problem with it has been noted.
    pub fn required<T>(
        &self,
        name: &'static str,
        problems: &mut Problems,
        read: impl FnOnce(&RawValue) -> Result<T, Fault>,
    ) -> Option<T> {
        if let Some(raw) = self.get(name) {
            self.note(name, raw, read(raw), problems)
        } else {
            problems.add(self.loc(name), Fault::missing(), self.whole.as_deref());
            None
        }
    }

    /// Reads a member that may be absent or null; `None` also once a problem has been noted.
    pub fn optional<T>(
        &self,
        name: &'static str,
        problems: &mut Problems,
        read: impl FnOnce(&RawValue) -> Result<T, Fault>,
    ) -> Option<T> {
        let raw = self.get(name).filter(|raw| raw.get() != "null")?;
        self.note(name, raw, read(raw), problems)
    }

    /// The members of an object inside this one; none where it is absent, null or wrong.
    pub fn object(
        &self,
        name: &'static str,
        names: &'static [&'static str],
        problems: &mut Problems,
    ) -> Members<'_> {
        let Some(raw) = self.get(name).filter(|raw| raw.get() != "null") else {
            return Members::none(self.loc(name), names);
        };
        Members::parse(self.loc(name), raw.get(), names).unwrap_or_else(|problem| {
            problems.push(problem);
            Members::none(self.loc(name), names)
        })
    }

    fn note<T>(
        &self,
        name: &'static str,
        raw: &RawValue,
        value: Result<T, Fault>,
        problems: &mut Problems,
    ) -> Option<T> {
        value.map_err(|fault| problems.add(self.loc(name), fault, Some(raw))).ok()
    }
}

fn not_an_object() -> Fault {
    Fault::new(
        "model_attributes_type",
        "Input should be a valid dictionary or object to extract fields from",
    )
}

/// A syntax error with its byte offset, in the place FastAPI puts it.
fn syntax(loc: &[Loc], text: &str, error: &serde_json::Error) -> Problem {
    let line_start: usize =
        text.split_inclusive('\n').take(error.line().saturating_sub(1)).map(str::len).sum();
    // At the end of the text the column counts what was read; elsewhere it is that of the culprit,
    // from 1.
    let back = usize::from(!error.is_eof());
    let offset = (line_start + error.column()).saturating_sub(back).min(text.len());
    let words = error.to_string();
    let words = words.rsplit_once(" at line ").map_or(words.as_str(), |(words, _)| words);
    let mut loc = loc.to_vec();
    loc.push(Loc::At(offset));
    let empty: &RawValue = serde_json::from_str("{}").expect("an empty object is JSON");
    Fault::new("json_invalid", "JSON decode error")
        .with_ctx(serde_json::json!({ "error": words }))
        .at(loc, Some(empty))
}

/// Collects the values of known names from a map.
struct Collect {
    names: &'static [&'static str],
}

impl<'de> Visitor<'de> for Collect {
    type Value = Vec<Option<Cow<'de, RawValue>>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut values = vec![None; self.names.len()];
        while let Some(index) = map.next_key_seed(KnownName(self.names))? {
            match index {
                Some(index) => values[index] = Some(Cow::Borrowed(map.next_value::<&RawValue>()?)),
                None => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(values)
    }
}

/// The place of a key among the known names.
struct KnownName(&'static [&'static str]);

impl<'de> DeserializeSeed<'de> for KnownName {
    type Value = Option<usize>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for KnownName {
    type Value = Option<usize>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E>(self, key: &str) -> Result<Self::Value, E> {
        Ok(self.0.iter().position(|known| *known == key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: &[&str] = &["a", "b"];

    fn parse(text: &str) -> Result<Members<'_>, Problem> {
        Members::parse(vec!["body".into()], text, NAMES)
    }

    #[test]
    fn known_members_keep_their_text_and_the_last_of_repeated_ones_counts() {
        let members = parse(r#" {"a":1.50, "x":{"a":2}, "\u0061": [1 , 2]} "#).unwrap();
        assert_eq!(members.get("a").map(RawValue::get), Some("[1 , 2]"));
        assert!(members.get("b").is_none());
    }

    #[test]
    fn a_syntax_error_is_named_with_its_byte_offset() {
        for (text, offset) in [
            ("{\"a\":", 5),
            ("{\"a\":x}", 5),
            ("{\"ä\":x}", 6),
            ("{\n\"a\": 1,\n}", 10),
            ("{\"a\":1} x", 8),
            ("[1,", 3),
            ("nope", 1),
            ("", 0),
        ] {
            let problem = parse(text).unwrap_err();
            assert_eq!(problem.kind, "json_invalid", "{text}");
            assert_eq!(problem.loc, ["body".into(), Loc::At(offset)], "{text}");
            assert_eq!(problem.msg, "JSON decode error");
        }
    }

    #[test]
    fn what_is_no_object_says_so() {
        for text in ["[1]", "1", "\"a\"", "null"] {
            let problem = parse(text).unwrap_err();
            assert_eq!(problem.kind, "model_attributes_type", "{text}");
            assert_eq!(problem.input.unwrap().as_str(), text);
        }
    }

    #[test]
    fn problems_come_in_the_order_of_reading() {
        use crate::extract::read;
        let members = parse(r#"{"b":"x"}"#).unwrap();
        let mut problems = Problems::default();
        assert_eq!(members.required("a", &mut problems, read::string), None);
        assert_eq!(members.optional("b", &mut problems, read::whole(0..=1)), None);
        let Err(crate::error::ApiError::Invalid(problems)) = problems.check() else { panic!() };
        let kinds: Vec<_> = problems.iter().map(|problem| problem.kind).collect();
        assert_eq!(kinds, ["missing", "int_parsing"]);
        assert_eq!(problems[0].input.as_ref().unwrap().as_str(), r#"{"b":"x"}"#);
    }
}
