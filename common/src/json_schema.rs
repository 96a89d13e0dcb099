//! Checks documents against the JSON Schemas that models declare.
//!
//! Schemas are a client's own, so all that one can cost is bounded: its size, its patterns (which run
//! in linear time), and what it refers to. References stay within the schema and are written out
//! before it is compiled: a checker that follows them can be led to one place by more ways than it
//! ever ends with. A schema that refers to itself is written out once around; what lies deeper fits.
//! What is written out is bounded in parts, bytes and depth: each level takes some of the stack.
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

/// Parts of a schema, its references written out: each can be asked about each part of a document.
const MAX_NODES: usize = 2_000;

/// Bytes of names and values of a schema, its references written out.
const MAX_WRITTEN_BYTES: usize = 1024 * 1024;

/// Objects and lists of a schema that lie in one another, its references written out. A text that is
/// parsed has no more either.
const MAX_DEPTH: usize = 128;

/// Parts of a schema times bytes of a document: what is checked within few milliseconds.
const QUICK_WORK: usize = 1024 * 1024;

/// A document of up to this many bytes is parsed within few milliseconds.
const QUICK_BYTES: usize = 256 * 1024;

/// Misfits that are told of one document.
const MAX_MISFITS: usize = 20;

/// A message is cut here: some spell out what the schema lists.
const MAX_MESSAGE_CHARS: usize = 300;

/// Compiled schemas a process keeps. When there are more it begins anew.
const MAX_KEPT: usize = 256;

/// What the compiled schemas a process keeps may take. When it is more it begins anew.
const MAX_KEPT_BYTES: usize = 128 * 1024 * 1024;

/// About what one part of a schema takes once it is compiled.
const NODE_BYTES: usize = 1024;

/// Why a schema cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("is no JSON schema that can be used: {0}")]
pub struct InvalidSchema(String);

/// A schema, ready to check documents.
pub struct Schema {
    validator: Validator,
    n_nodes: usize,
    /// What it takes in memory, at most about.
    weight: usize,
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
        let Written { schema, n_nodes, n_bytes, n_patterns } = Writer::write_out(&schema)?;
        let patterns =
            PatternOptions::regex().size_limit(MAX_PATTERN_BYTES).dfa_size_limit(MAX_PATTERN_BYTES);
        let validator = jsonschema::options()
            .offline()
            .with_pattern_options(patterns)
            .build(&schema)
            .map_err(|error| InvalidSchema(cut(&invalid(&error))))?;
        let weight = n_bytes + n_nodes * NODE_BYTES + n_patterns * MAX_PATTERN_BYTES;
        Ok(Self { validator, n_nodes, weight })
    }

    /// Whether a document of so many bytes is checked within few milliseconds, so that a task may do
    /// it without a thread of its own.
    pub fn is_quick(&self, n_bytes: usize) -> bool {
        n_bytes <= QUICK_BYTES && self.n_nodes.saturating_mul(n_bytes) <= QUICK_WORK
    }

    /// Checks a document, which is parsed into a tree for that. What is not
    /// [quick](Self::is_quick) belongs on a thread that may block.
    ///
    /// # Errors
    /// Where it does not fit: up to 20 places.
    pub fn check(&self, document: &str) -> Result<(), Vec<Misfit>> {
        let document: Value = serde_json::from_str(document).map_err(|error| {
            let message = format!("cannot be checked: {error}");
            vec![Misfit { path: Vec::new(), kind: MisfitKind::Rule, message }]
        })?;
        if self.validator.is_valid(&document) {
            return Ok(());
        }
        let errors = self.validator.iter_errors(&document);
        Err(errors.take(MAX_MISFITS).map(|error| misfit(&error)).collect())
    }
}

/// Members of a schema that hold data, not schemas.
const DATA: [&str; 2] = ["const", "enum"];
/// Members that check nothing. They are left out: a reference would copy them wherever it stands.
const ANNOTATIONS: [&str; 9] = [
    "$comment",
    "default",
    "deprecated",
    "description",
    "example",
    "examples",
    "readOnly",
    "title",
    "writeOnly",
];
/// Members that hold schemas, or lists of names, under names of the client's.
const NAMED: [&str; 5] =
    ["dependencies", "dependentRequired", "dependentSchemas", "patternProperties", "properties"];
/// Members that hold schemas for references alone: those are written out.
const DEFINITIONS: [&str; 2] = ["$defs", "definitions"];
/// Words that lead a reader elsewhere in ways that are not followed here.
const UNFOLLOWED: [&str; 4] = ["$anchor", "$dynamicAnchor", "$dynamicRef", "$recursiveRef"];

/// A schema with its references written out, and what there is of it.
struct Written {
    schema: Value,
    n_nodes: usize,
    n_bytes: usize,
    n_patterns: usize,
}

/// Members that ask what their neighbours looked at, which looks at all of it once more.
const REPEATING: [&str; 2] = ["unevaluatedItems", "unevaluatedProperties"];
/// Objects with such members that lie in one another: each makes a check about three times as long.
const MAX_REPEATS: usize = 3;

/// Writes a schema's references out.
struct Writer<'a> {
    root: &'a Value,
    /// In drafts up to 7 the neighbours of a reference do not count.
    lonely: bool,
    /// The references that lead to where the writer is.
    trail: Vec<&'a str>,
    /// Objects and lists the writer is in.
    depth: usize,
    /// Those of them that have [`REPEATING`] members.
    n_repeats: usize,
    n_nodes: usize,
    n_bytes: usize,
    n_patterns: usize,
}

impl<'a> Writer<'a> {
    fn write_out(root: &'a Value) -> Result<Written, InvalidSchema> {
        let draft = root.get("$schema").and_then(Value::as_str).unwrap_or_default();
        let lonely = ["draft-04", "draft-06", "draft-07"].iter().any(|old| draft.contains(old));
        let mut writer = Self {
            root,
            lonely,
            trail: Vec::new(),
            depth: 0,
            n_repeats: 0,
            n_nodes: 0,
            n_bytes: 0,
            n_patterns: 0,
        };
        let schema = writer.schema(root)?;
        let Self { n_nodes, n_bytes, n_patterns, .. } = writer;
        Ok(Written { schema, n_nodes, n_bytes, n_patterns })
    }

    fn schema(&mut self, schema: &'a Value) -> Result<Value, InvalidSchema> {
        match schema {
            Value::Object(members) => {
                self.part(0)?;
                let repeats = usize::from(REPEATING.iter().any(|it| members.contains_key(*it)));
                self.n_repeats += repeats;
                if self.n_repeats > MAX_REPEATS {
                    let reason = format!("it has 'unevaluated…' more than {MAX_REPEATS} deep");
                    return Err(InvalidSchema(reason));
                }
                let written = self.deeper(|inner| inner.object(members));
                self.n_repeats -= repeats;
                written
            }
            Value::Array(elements) => {
                self.part(0)?;
                self.deeper(|inner| {
                    let written = elements.iter().map(|element| inner.schema(element));
                    written.collect::<Result<_, _>>().map(Value::Array)
                })
            }
            other => self.data(other),
        }
    }

    /// Counts a part with so many bytes of its own.
    fn part(&mut self, n_bytes: usize) -> Result<(), InvalidSchema> {
        self.n_nodes += 1;
        if self.n_nodes > MAX_NODES {
            let reason = format!(
                "it has too many parts once its references are written out, more than {MAX_NODES}"
            );
            return Err(InvalidSchema(reason));
        }
        self.bytes(n_bytes)
    }

    fn bytes(&mut self, n_bytes: usize) -> Result<(), InvalidSchema> {
        self.n_bytes = self.n_bytes.saturating_add(n_bytes);
        if self.n_bytes > MAX_WRITTEN_BYTES {
            let reason = format!(
                "it has more than {MAX_WRITTEN_BYTES} bytes once its references are written out"
            );
            return Err(InvalidSchema(reason));
        }
        Ok(())
    }

    /// Goes into an object or a list for the time of `write`.
    fn deeper<T>(
        &mut self,
        write: impl FnOnce(&mut Self) -> Result<T, InvalidSchema>,
    ) -> Result<T, InvalidSchema> {
        if self.depth == MAX_DEPTH {
            let reason = format!(
                "it is nested more than {MAX_DEPTH} deep once its references are written out"
            );
            return Err(InvalidSchema(reason));
        }
        self.depth += 1;
        let written = write(self);
        self.depth -= 1;
        written
    }

    /// A value as it is, counted before it is copied.
    fn data(&mut self, value: &Value) -> Result<Value, InvalidSchema> {
        self.count(value)?;
        Ok(value.clone())
    }

    fn count(&mut self, value: &Value) -> Result<(), InvalidSchema> {
        match value {
            Value::Null | Value::Bool(_) => self.part(1),
            Value::Number(number) => self.part(number.to_string().len()),
            Value::String(text) => self.part(text.len()),
            Value::Array(elements) => {
                self.part(0)?;
                self.deeper(|inner| elements.iter().try_for_each(|element| inner.count(element)))
            }
            Value::Object(members) => {
                self.part(0)?;
                self.deeper(|inner| {
                    members.iter().try_for_each(|(name, value)| {
                        inner.bytes(name.len())?;
                        inner.count(value)
                    })
                })
            }
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
            if ANNOTATIONS.contains(&name.as_str()) {
                continue;
            }
            if self.lonely && reference.is_some() && name != "$schema" {
                continue;
            }
            let value = self.member(name, value)?;
            written.insert(name.clone(), value);
        }
        if let Some(reference) = reference {
            let referred = self.deeper(|all| all.referred(reference))?;
            match written.get_mut("allOf") {
                Some(Value::Array(all)) => all.push(referred),
                _ => drop(written.insert("allOf".to_owned(), Value::Array(vec![referred]))),
            }
        }
        Ok(Value::Object(written))
    }

    fn member(&mut self, name: &str, value: &'a Value) -> Result<Value, InvalidSchema> {
        self.bytes(name.len())?;
        if name == "pattern" || name == "patternProperties" {
            self.n_patterns += value.as_object().map_or(1, Map::len);
            if self.n_patterns > MAX_PATTERNS {
                return Err(InvalidSchema(format!("it has more than {MAX_PATTERNS} patterns")));
            }
        }
        match value {
            value if DATA.contains(&name) => self.data(value),
            Value::Object(named) if NAMED.contains(&name) => self.deeper(|inner| {
                let mut schemas = Map::new();
                for (name, schema) in named {
                    inner.bytes(name.len())?;
                    schemas.insert(name.clone(), inner.schema(schema)?);
                }
                Ok(Value::Object(schemas))
            }),
            value => self.schema(value),
        }
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
pub struct Schemas(Arc<Mutex<Kept>>);

#[derive(Debug, Default)]
struct Kept {
    schemas: HashMap<String, Arc<Schema>>,
    n_bytes: usize,
}

impl Schemas {
    /// Compiles it unless it is [at hand](Self::at_hand), so this belongs on a thread that may block.
    ///
    /// # Errors
    /// As [`Schema::compile`]; a failure is not kept.
    pub fn get(&self, schema: &Json) -> Result<Arc<Schema>, InvalidSchema> {
        if let Some(known) = self.at_hand(schema) {
            return Ok(known);
        }
        let compiled = Arc::new(Schema::compile(schema.as_str())?);
        self.kept().keep(schema.as_str(), &compiled);
        Ok(compiled)
    }

    /// What was compiled already.
    pub fn at_hand(&self, schema: &Json) -> Option<Arc<Schema>> {
        self.kept().schemas.get(schema.as_str()).cloned()
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, Kept> {
        self.0.lock().expect("no one panics while holding the schemas")
    }
}

impl Kept {
    fn keep(&mut self, text: &str, compiled: &Arc<Schema>) {
        let n_bytes = text.len() + compiled.weight;
        if self.schemas.len() >= MAX_KEPT || self.n_bytes + n_bytes > MAX_KEPT_BYTES {
            *self = Self::default();
        }
        // Another thread may have kept the same one meanwhile: it counts once.
        if self.schemas.insert(text.to_owned(), Arc::clone(compiled)).is_none() {
            self.n_bytes += n_bytes;
        }
    }
}

#[cfg(test)]
mod tests;
