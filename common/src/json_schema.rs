//! Checks documents against the JSON Schemas that models declare.
//!
//! Schemas are a client's own, so all that one can cost is bounded: its size, its patterns (which run
//! in linear time), and what it refers to. References stay within the schema and are written out
//! before it is compiled: a checker that follows them can be led to one place by more ways than it
//! ever ends with. A schema that refers to itself is written out once around; what lies deeper fits.
//! Formats are annotations, as the specification has them by default.
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
use percent_encoding::percent_decode_str;
use serde_json::{Map, Value};

use crate::job::Json;

/// The longest schema, as text.
pub const MAX_SCHEMA_BYTES: usize = 64 * 1024;

/// Regular expressions of one schema: each is compiled and kept.
const MAX_PATTERNS: usize = 64;

/// What one regular expression may take once it is compiled.
const MAX_PATTERN_BYTES: usize = 256 * 1024;

/// Parts of a schema, its references written out.
const MAX_NODES: usize = 20_000;

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
pub struct Schema(Validator);

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
        f.debug_tuple("Schema").finish_non_exhaustive()
    }
}

impl Schema {
    /// Takes milliseconds for a large schema.
    ///
    /// # Errors
    /// If it is none, is too large, or refers to what is not in it.
    pub fn compile(text: &str) -> Result<Self, InvalidSchema> {
        if text.len() > MAX_SCHEMA_BYTES {
            return Err(InvalidSchema(format!("it has more than {MAX_SCHEMA_BYTES} bytes")));
        }
        let schema: Value =
            serde_json::from_str(text).map_err(|error| InvalidSchema(error.to_string()))?;
        let schema = Writer::write_out(&schema)?;
        let patterns =
            PatternOptions::regex().size_limit(MAX_PATTERN_BYTES).dfa_size_limit(MAX_PATTERN_BYTES);
        let validator = jsonschema::options()
            .offline()
            .with_pattern_options(patterns)
            .build(&schema)
            .map_err(|error| InvalidSchema(cut(&invalid(&error))))?;
        Ok(Self(validator))
    }

    /// Checks a document. It is parsed into a tree for that, so a large one belongs on a thread that
    /// may block.
    ///
    /// # Errors
    /// Where it does not fit: up to 20 places.
    pub fn check(&self, document: &str) -> Result<(), Vec<Misfit>> {
        let document: Value = serde_json::from_str(document).map_err(|error| {
            let message = format!("cannot be checked: {error}");
            vec![Misfit { path: Vec::new(), kind: MisfitKind::Rule, message }]
        })?;
        if self.0.is_valid(&document) {
            return Ok(());
        }
        let errors = self.0.iter_errors(&document);
        Err(errors.take(MAX_MISFITS).map(|error| misfit(&error)).collect())
    }
}

/// Members of a schema that hold data, not schemas.
const DATA: [&str; 4] = ["const", "default", "enum", "examples"];
/// Members that hold schemas under names of the client's.
const NAMED: [&str; 3] = ["dependentSchemas", "patternProperties", "properties"];
/// Members that hold schemas for references alone: those are written out.
const DEFINITIONS: [&str; 2] = ["$defs", "definitions"];
/// Words that lead a reader elsewhere in ways that are not followed here.
const UNFOLLOWED: [&str; 4] = ["$anchor", "$dynamicAnchor", "$dynamicRef", "$recursiveRef"];

/// Writes a schema's references out.
struct Writer<'a> {
    root: &'a Value,
    /// In drafts up to 7 the neighbours of a reference do not count.
    lonely: bool,
    /// The references that lead to where the writer is.
    trail: Vec<&'a str>,
    n_nodes: usize,
    n_patterns: usize,
}

impl<'a> Writer<'a> {
    fn write_out(root: &'a Value) -> Result<Value, InvalidSchema> {
        let draft = root.get("$schema").and_then(Value::as_str).unwrap_or_default();
        let lonely = ["draft-04", "draft-06", "draft-07"].iter().any(|old| draft.contains(old));
        let mut writer = Self { root, lonely, trail: Vec::new(), n_nodes: 0, n_patterns: 0 };
        writer.schema(root)
    }

    fn schema(&mut self, schema: &'a Value) -> Result<Value, InvalidSchema> {
        self.n_nodes += 1;
        if self.n_nodes > MAX_NODES {
            let reason = "it has too many parts once its references are written out";
            return Err(InvalidSchema(reason.to_owned()));
        }
        match schema {
            Value::Object(members) => self.object(members),
            Value::Array(elements) => elements
                .iter()
                .map(|element| self.schema(element))
                .collect::<Result<_, _>>()
                .map(Value::Array),
            other => Ok(other.clone()),
        }
    }

    fn object(&mut self, members: &'a Map<String, Value>) -> Result<Value, InvalidSchema> {
        let reference = members.get("$ref").and_then(Value::as_str);
        let mut written = Map::new();
        for (name, value) in members {
            if UNFOLLOWED.contains(&name.as_str()) || (name == "$id" && self.n_nodes > 1) {
                return Err(InvalidSchema(format!("'{name}' is not supported within it")));
            }
            if DEFINITIONS.contains(&name.as_str()) || (name == "$ref" && reference.is_some()) {
                continue;
            }
            if self.lonely && reference.is_some() && name != "$schema" {
                continue;
            }
            if name == "pattern" || name == "patternProperties" {
                self.n_patterns += value.as_object().map_or(1, Map::len);
                if self.n_patterns > MAX_PATTERNS {
                    let reason = format!("it has more than {MAX_PATTERNS} patterns");
                    return Err(InvalidSchema(reason));
                }
            }
            let value = match value {
                value if DATA.contains(&name.as_str()) => value.clone(),
                Value::Object(named) if NAMED.contains(&name.as_str()) => {
                    let mut schemas = Map::new();
                    for (name, schema) in named {
                        schemas.insert(name.clone(), self.schema(schema)?);
                    }
                    Value::Object(schemas)
                }
                value => self.schema(value)?,
            };
            written.insert(name.clone(), value);
        }
        if let Some(reference) = reference {
            let referred = self.referred(reference)?;
            match written.get_mut("allOf") {
                Some(Value::Array(all)) => all.push(referred),
                _ => drop(written.insert("allOf".to_owned(), Value::Array(vec![referred]))),
            }
        }
        Ok(Value::Object(written))
    }

    /// What stands at a reference; `true`, which everything fits, where it leads round in a circle.
    fn referred(&mut self, reference: &'a str) -> Result<Value, InvalidSchema> {
        if self.trail.contains(&reference) || reference == "#" {
            return Ok(Value::Bool(true));
        }
        let missing = || {
            let reason = format!("it refers to '{reference}', which is not in it");
            InvalidSchema(cut(&reason))
        };
        let pointer = reference.strip_prefix('#').ok_or_else(missing)?;
        let pointer = percent_decode_str(pointer).decode_utf8().map_err(|_| missing())?;
        let target = self.root.pointer(&pointer).ok_or_else(missing)?;
        self.trail.push(reference);
        let written = self.schema(target);
        self.trail.pop();
        written
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

    /// Whether it is at hand.
    pub fn has(&self, schema: &Json) -> bool {
        self.kept().contains_key(schema.as_str())
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, HashMap<String, Arc<Schema>>> {
        self.0.lock().expect("no one panics while holding the schemas")
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;
    use tokio::time::Instant;

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
            (json!({ "items": { "$ref": "#anchor" } }), "anchor"),
            (json!({ "items": { "$dynamicRef": "#a" } }), "$dynamicRef"),
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
        let places = |document| -> Vec<_> {
            misfits(&of, document).into_iter().map(|(path, ..)| path).collect()
        };
        assert_eq!(places("1"), [""]);
        // Once around, and no further.
        assert_eq!(places(r#"{"left":{"right":1},"right":2}"#), Vec::<String>::new());
        let of = json!({
            "definitions": { "a/b": { "type": "integer" }, "$ref": { "type": "string" } },
            "properties": {
                "x": { "$ref": "#/definitions/a~1b", "minimum": 3 },
                "$ref": { "$ref": "#/definitions/%24ref" },
                "definitions": { "enum": [{ "$ref": "data" }] },
            },
        });
        let document = r#"{"x":"1","$ref":2,"definitions":{"$ref":"data"}}"#;
        let mut found: Vec<_> = misfits(&of, document).into_iter().map(|it| it.0).collect();
        found.sort();
        assert_eq!(found, ["$ref", "x"]);
        assert_eq!(misfits(&of, r#"{"x":2}"#).len(), 1, "neighbours of a reference count");
        let mut old = of.clone();
        old["$schema"] = "http://json-schema.org/draft-07/schema#".into();
        assert_eq!(misfits(&old, r#"{"x":2}"#), [], "in old drafts they do not");
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
        let error = schema(&wide).unwrap_err().to_string();
        assert!(error.contains("too many parts"), "{error}");
        assert!(schema(&deep).unwrap().check(&nested("{}")).is_ok());
        assert!(begun.elapsed() < Duration::from_secs(10));
    }

    #[test]
    fn a_schema_that_refers_to_itself_alone_ends() {
        for of in [json!({ "$ref": "#" }), json!({ "allOf": [{ "$ref": "#" }] })] {
            assert_eq!(misfits(&of, "1"), []);
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
