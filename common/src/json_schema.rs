//! Checks documents against the JSON Schemas that models declare.
//!
//! Schemas are a client's own, so all that one can cost is bounded: its size, its patterns (which run
//! in linear time), and what it refers to (nothing outside itself). Formats are annotations, as the
//! specification has them by default.
//!
//! Source: <https://json-schema.org/draft/2020-12/json-schema-validation>; older drafts by `$schema`.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex},
};

use jsonschema::{
    PatternOptions, ValidationError, Validator,
    error::{TypeKind, ValidationErrorKind},
    paths::LocationSegment,
};
use serde_json::Value;

use crate::job::Json;

/// The longest schema, as text.
pub const MAX_SCHEMA_BYTES: usize = 64 * 1024;

/// Regular expressions of one schema: each is compiled and kept.
const MAX_PATTERNS: usize = 64;

/// What one regular expression may take once it is compiled.
const MAX_PATTERN_BYTES: usize = 256 * 1024;

/// Misfits that are told of one document.
const MAX_MISFITS: usize = 20;

/// A message is cut here: some spell out what the schema lists.
const MAX_MESSAGE_CHARS: usize = 300;

/// Compiled schemas a process keeps. When there are more it begins anew.
const MAX_KEPT: usize = 256;

/// Why a schema cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("is no JSON schema that can be used: {0}")]
pub struct InvalidSchema(String);

/// A schema, ready to check documents.
pub struct Schema {
    validator: Validator,
    /// Whether it refers to parts of itself. Such a one may reach one place by very many ways; the
    /// search for the first misfit remembers where it has been, the list of all does not.
    refers: bool,
}

/// One place where a document does not fit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Misfit {
    /// Names and indexes that lead there.
    pub path: Vec<Step>,
    pub kind: MisfitKind,
    /// For a person; holds nothing of the document but names of its members.
    pub message: String,
}

/// One step into a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    Name(String),
    At(usize),
}

/// What is wrong at a place, as far as it has a word of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MisfitKind {
    /// A member that has to be there is not; the path names it.
    Missing,
    /// A member that may not be there is; the path leads to its object.
    Unexpected,
    /// It has another JSON type than this one.
    Type(&'static str),
    /// Any other rule.
    Rule,
}

/// `a.b[0]`; empty for the document itself.
pub struct Path<'a>(pub &'a [Step]);

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, step) in self.0.iter().enumerate() {
            match step {
                Step::Name(name) if index == 0 => f.write_str(name)?,
                Step::Name(name) => write!(f, ".{name}")?,
                Step::At(at) => write!(f, "[{at}]")?,
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Schema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Schema").field("refers", &self.refers).finish_non_exhaustive()
    }
}

impl Schema {
    /// Takes milliseconds for a large schema.
    ///
    /// # Errors
    /// If it is none, is too large, or refers to what lies outside it.
    pub fn compile(text: &str) -> Result<Self, InvalidSchema> {
        if text.len() > MAX_SCHEMA_BYTES {
            return Err(InvalidSchema(format!("it has more than {MAX_SCHEMA_BYTES} bytes")));
        }
        let schema: Value =
            serde_json::from_str(text).map_err(|error| InvalidSchema(error.to_string()))?;
        let mut seen = Seen::default();
        seen.look(&schema);
        if seen.n_patterns > MAX_PATTERNS {
            return Err(InvalidSchema(format!("it has more than {MAX_PATTERNS} patterns")));
        }
        let patterns = PatternOptions::regex()
            .size_limit(MAX_PATTERN_BYTES)
            .dfa_size_limit(MAX_PATTERN_BYTES);
        let validator = jsonschema::options()
            .offline()
            .with_pattern_options(patterns)
            .build(&schema)
            .map_err(|error| InvalidSchema(cut(&invalid(&error))))?;
        Ok(Self { validator, refers: seen.refers })
    }

    /// Checks a document. It is parsed into a tree for that, so a large one belongs on a thread that
    /// may block.
    ///
    /// # Errors
    /// Where it does not fit: all places, up to 20, or the first one where the schema refers to
    /// itself.
    pub fn check(&self, document: &str) -> Result<(), Vec<Misfit>> {
        let document: Value = serde_json::from_str(document).map_err(|error| {
            let message = format!("cannot be checked: {error}");
            vec![Misfit { path: Vec::new(), kind: MisfitKind::Rule, message }]
        })?;
        if self.validator.is_valid(&document) {
            return Ok(());
        }
        if self.refers {
            return self.validator.validate(&document).map_err(|error| vec![misfit(&error)]);
        }
        let misfits: Vec<_> =
            self.validator.iter_errors(&document).take(MAX_MISFITS).map(|it| misfit(&it)).collect();
        if misfits.is_empty() { Ok(()) } else { Err(misfits) }
    }
}

/// What a schema holds that can be dear.
#[derive(Default)]
struct Seen {
    n_patterns: usize,
    refers: bool,
}

impl Seen {
    fn look(&mut self, schema: &Value) {
        match schema {
            Value::Object(members) => {
                for (name, value) in members {
                    match name.as_str() {
                        "pattern" if value.is_string() => self.n_patterns += 1,
                        "patternProperties" => {
                            self.n_patterns += value.as_object().map_or(0, serde_json::Map::len);
                        }
                        "$ref" | "$dynamicRef" | "$recursiveRef" => self.refers = true,
                        _ => {}
                    }
                    self.look(value);
                }
            }
            Value::Array(elements) => elements.iter().for_each(|element| self.look(element)),
            _ => {}
        }
    }
}

fn invalid(error: &ValidationError<'_>) -> String {
    let place = error.instance_path().as_str();
    if place.is_empty() { error.to_string() } else { format!("at {place}: {error}") }
}

fn misfit(error: &ValidationError<'_>) -> Misfit {
    let mut path: Vec<Step> = error
        .instance_path()
        .segments()
        .map(|segment| match segment {
            LocationSegment::Index(at) => Step::At(at),
            LocationSegment::Property(name) => Step::Name(name.into_owned()),
        })
        .collect();
    let kind = match error.kind() {
        ValidationErrorKind::Required { property } => {
            path.extend(property.as_str().map(|name| Step::Name(name.to_owned())));
            MisfitKind::Missing
        }
        ValidationErrorKind::AdditionalProperties { .. }
        | ValidationErrorKind::UnevaluatedProperties { .. } => MisfitKind::Unexpected,
        ValidationErrorKind::Type { kind: TypeKind::Single(kind) } => {
            MisfitKind::Type(kind.as_str())
        }
        _ => MisfitKind::Rule,
    };
    Misfit { path, kind, message: cut(&error.masked().to_string()) }
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(MAX_MESSAGE_CHARS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// Schemas that were used lately, each compiled once. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Schemas(Arc<Mutex<HashMap<String, Arc<Schema>>>>);

impl Schemas {
    /// # Errors
    /// As [`Schema::compile`]; a failure is not kept.
    pub fn get(&self, schema: &Json) -> Result<Arc<Schema>, InvalidSchema> {
        if let Some(known) = self.kept().get(schema.as_str()) {
            return Ok(Arc::clone(known));
        }
        let compiled = Arc::new(Schema::compile(schema.as_str())?);
        let mut kept = self.kept();
        if kept.len() >= MAX_KEPT {
            kept.clear();
        }
        kept.insert(schema.as_str().to_owned(), Arc::clone(&compiled));
        Ok(compiled)
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, HashMap<String, Arc<Schema>>> {
        self.0.lock().expect("no one panics while holding the schemas")
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use serde_json::json;

    use super::*;

    fn schema(schema: &Value) -> Result<Schema, InvalidSchema> {
        Schema::compile(&schema.to_string())
    }

    #[track_caller]
    fn misfits(of: &Value, document: &str) -> Vec<(String, MisfitKind, String)> {
        let misfits = schema(of).unwrap().check(document).err().unwrap_or_default();
        let told = |misfit: Misfit| (Path(&misfit.path).to_string(), misfit.kind, misfit.message);
        misfits.into_iter().map(told).collect()
    }

    #[test]
    fn every_misfit_is_told_with_its_place_and_without_the_value() {
        let of = json!({
            "type": "object",
            "required": ["prompt"],
            "properties": {
                "prompt": { "type": "string" },
                "n": { "type": "integer", "maximum": 3 },
                "tags": { "items": { "type": "string" } },
                "mode": { "enum": ["a", "b"] },
            },
            "additionalProperties": false,
        });
        assert!(schema(&of).unwrap().check(r#"{"prompt":"x","n":3}"#).is_ok());
        let found = misfits(&of, r#"{"n":4,"tags":["a",5678],"mode":"c9","zz":1}"#);
        let places: Vec<_> = found.iter().map(|(path, kind, _)| (path.as_str(), *kind)).collect();
        for expected in [
            ("prompt", MisfitKind::Missing),
            ("n", MisfitKind::Rule),
            ("tags[1]", MisfitKind::Type("string")),
            ("mode", MisfitKind::Rule),
            ("", MisfitKind::Unexpected),
        ] {
            assert!(places.contains(&expected), "{expected:?} is not in {found:?}");
        }
        assert_eq!(found.len(), 5, "{found:?}");
        let messages: String = found.into_iter().map(|(_, _, message)| message).collect();
        assert!(!messages.contains("5678") && !messages.contains("c9"), "{messages}");
    }

    #[test]
    fn a_schema_that_cannot_be_used_says_why() {
        let patterns: Vec<_> = (0..65).map(|n| json!({ "pattern": n.to_string() })).collect();
        for (of, why) in [
            (json!({ "type": "text" }), "/type"),
            (json!({ "minimum": "x" }), "/minimum"),
            (json!({ "$ref": "https://schemas.example/a.json" }), "schemas.example"),
            (json!({ "$ref": "file:///etc/passwd" }), "passwd"),
            (json!({ "$ref": "#/$defs/none" }), "none"),
            (json!({ "pattern": "(?=a)b" }), "pattern"),
            (json!({ "pattern": "\\w{500}{500}" }), "pattern"),
            (json!({ "allOf": patterns }), "patterns"),
            (json!({ "description": "x".repeat(MAX_SCHEMA_BYTES) }), "bytes"),
        ] {
            let error = schema(&of).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
            assert!(error.len() < 600, "{error}");
        }
    }

    #[test]
    fn references_within_the_schema_are_followed() {
        let of = json!({
            "$defs": { "node": { "type": "object", "properties": {
                "left": { "$ref": "#/$defs/node" }, "right": { "$ref": "#/$defs/node" },
            } } },
            "$ref": "#/$defs/node",
        });
        assert!(schema(&of).unwrap().check(r#"{"left":{"right":{}}}"#).is_ok());
        let found = misfits(&of, r#"{"left":{"right":1},"right":2}"#);
        assert_eq!(found.len(), 1, "{found:?}");
    }

    /// Schemas that visit one place by a number of ways that doubles with each level.
    #[test]
    fn a_schema_made_to_take_for_ever_does_not() {
        let mut definitions = serde_json::Map::new();
        for level in 0..60 {
            let next = json!({ "$ref": format!("#/$defs/d{}", level + 1) });
            let word = if level % 2 == 0 { "allOf" } else { "anyOf" };
            definitions.insert(format!("d{level}"), json!({ word: [next, next] }));
        }
        definitions.insert("d60".to_owned(), json!({ "type": "string" }));
        let wide = json!({ "$defs": definitions, "$ref": "#/$defs/d0" });
        let deep = json!({
            "properties": { "a": { "allOf": [{ "$ref": "#" }, { "anyOf": [{ "$ref": "#" }, { "$ref": "#" }] }] } },
            "type": "object",
        });
        let nested = |end: &str| format!("{}{end}{}", r#"{"a":"#.repeat(60), "}".repeat(60));
        let begun = Instant::now();
        for (of, document) in
            [(&wide, "1".to_owned()), (&wide, "\"x\"".to_owned()), (&deep, nested("{}")), (&deep, nested("1"))]
        {
            let _ = schema(of).unwrap().check(&document);
            assert!(begun.elapsed() < Duration::from_secs(10), "{of}");
        }
    }

    #[test]
    fn a_schema_that_refers_to_itself_alone_ends() {
        for of in [json!({ "$ref": "#" }), json!({ "allOf": [{ "$ref": "#" }] })] {
            if let Ok(schema) = schema(&of) {
                let _ = schema.check("1");
            }
        }
    }

    #[test]
    fn a_schema_is_compiled_once() {
        let schemas = Schemas::default();
        let text = Json::parse(r#"{"type":"object"}"#).unwrap();
        let first = schemas.get(&text).unwrap();
        assert!(Arc::ptr_eq(&first, &schemas.get(&text).unwrap()));
        for n in 0..2 * MAX_KEPT {
            schemas.get(&Json::parse(format!(r#"{{"maximum":{n}}}"#)).unwrap()).unwrap();
            assert!(schemas.kept().len() <= MAX_KEPT);
        }
    }

    #[test]
    fn a_document_too_deep_to_be_read_does_not_fit() {
        let deep = format!("{}1{}", "[".repeat(5000), "]".repeat(5000));
        let found = misfits(&json!({ "type": "array" }), &deep);
        assert!(found[0].2.contains("cannot be checked"), "{found:?}");
    }
}
