//! Checks a document against its schema, so that what the OpenAPI document says is what is enforced.
//!
//! Errors are those of a FastAPI application with the same schema: all of a document in one list, in
//! the order of the schema. Texts and open objects keep the spelling they came in.

use std::{borrow::Cow, collections::HashMap};

use inferq_common::job::Json;
use serde::{
    Deserializer as _,
    de::{DeserializeOwned, MapAccess, Visitor},
};
use serde_json::{Value, json, value::RawValue};
use utoipa::{
    Number, ToSchema,
    openapi::{
        AllOf, Array, Object, RefOr, Schema, Type,
        schema::{AdditionalProperties, AnyOf, ArrayItems, SchemaType},
    },
};

use super::components;
use crate::{
    error::{ApiError, Loc, Problem},
    extract::{Fault, read},
};

/// A body of millions of wrong members gets no list of millions of errors.
const MAX_FINDINGS: usize = 100;

/// What is wrong with a document, and where the reader is in it.
#[derive(Debug)]
pub struct Findings {
    path: Vec<Loc>,
    problems: Vec<Problem>,
}

impl Findings {
    /// Starts at the body of a request.
    pub fn of_body() -> Self {
        Self { path: vec!["body".into()], problems: Vec::new() }
    }

    /// Goes into a member for the time of `read`.
    pub fn within<T>(&mut self, name: &str, read: impl FnOnce(&mut Self) -> T) -> T {
        self.at(Loc::Name(Cow::Owned(name.to_owned())), read)
    }

    /// Goes into an element for the time of `read`.
    pub fn at<T>(&mut self, step: Loc, read: impl FnOnce(&mut Self) -> T) -> T {
        self.path.push(step);
        let result = read(self);
        self.path.pop();
        result
    }

    /// Notes a fault of what stands here.
    pub fn add(&mut self, fault: Fault, input: Option<&RawValue>) {
        if self.problems.len() < MAX_FINDINGS {
            self.problems.push(fault.at(self.path.clone(), input));
        }
    }

    /// Notes that a rule beyond types is broken by a member.
    pub fn refuse(&mut self, member: &str, reason: impl std::fmt::Display) {
        self.within(member, |inner| inner.add(Fault::value(reason), None));
    }

    /// # Errors
    /// 422 with all that was found, if anything was.
    pub fn finish(self) -> Result<(), ApiError> {
        if self.problems.is_empty() { Ok(()) } else { Err(ApiError::Invalid(self.problems)) }
    }

    /// The value, or a note of its fault.
    fn note<T>(&mut self, value: Result<T, Fault>, input: &RawValue) -> Option<T> {
        value.map_err(|fault| self.add(fault, Some(input))).ok()
    }
}

/// Checks `input` against the schema of `T`.
///
/// Answers the document with its defaults filled in and nothing but the members of the schema (and
/// further ones where it allows them), together with its reading; `None` if there were findings.
pub fn check<T: ToSchema + DeserializeOwned>(
    input: &RawValue,
    findings: &mut Findings,
) -> Option<(Json, T)> {
    let before = findings.problems.len();
    let schema = components().get(&*T::name()).and_then(resolve);
    let text = schema.and_then(|schema| any(schema, true, input, findings));
    if findings.problems.len() > before {
        return None;
    }
    let text = text?.into_owned();
    match (serde_json::from_str(&text), Json::parse(text)) {
        (Ok(value), Ok(json)) => Some((json, value)),
        // The schema let through what the type cannot hold; the message names the member.
        (Err(error), _) | (_, Err(error)) => {
            findings.add(Fault::value(error), Some(input));
            None
        }
    }
}

/// All members of an object in their order, unread. Of two with one name the last counts.
pub struct Entries<'a> {
    list: Vec<(String, &'a RawValue)>,
    places: HashMap<String, usize>,
}

impl<'a> Entries<'a> {
    /// `None`: it is no object.
    pub fn of(input: &'a RawValue) -> Option<Self> {
        let mut json = serde_json::Deserializer::from_str(input.get());
        json.deserialize_map(EntriesReader).ok()
    }

    pub fn get(&self, name: &str) -> Option<&'a RawValue> {
        self.places.get(name).map(|&place| self.list[place].1)
    }

    /// All of them, each name once.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &'a RawValue)> {
        self.list.iter().map(|(name, value)| (name.as_str(), *value))
    }

    /// As [`get`](Self::get), where `null` counts as not given.
    pub fn given(&self, name: &str) -> Option<&'a RawValue> {
        self.get(name).filter(|value| value.get() != "null")
    }
}

struct EntriesReader;

impl<'de> Visitor<'de> for EntriesReader {
    type Value = Entries<'de>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entries<'de>, A::Error> {
        let mut entries = Entries { list: Vec::new(), places: HashMap::new() };
        while let Some((name, value)) = map.next_entry::<String, &'de RawValue>()? {
            let place = *entries.places.entry(name.clone()).or_insert(entries.list.len());
            match entries.list.get_mut(place) {
                Some(earlier) => earlier.1 = value,
                None => entries.list.push((name, value)),
            }
        }
        Ok(entries)
    }
}

/// A checked value: as it came in, or put into its proper form.
type Text<'a> = Option<Cow<'a, str>>;

fn resolve(schema: &RefOr<Schema>) -> Option<&Schema> {
    // A reference is resolved in the components, which live as long as the process; a schema given
    // in place is borrowed.
    match schema {
        RefOr::T(schema) => Some(schema),
        RefOr::Ref(reference) => {
            let name = reference.ref_location.rsplit('/').next()?;
            resolve(components().get(name)?)
        }
    }
}

fn referred<'a>(schema: &RefOr<Schema>, input: &'a RawValue, findings: &mut Findings) -> Text<'a> {
    let titled = matches!(schema, RefOr::Ref(_));
    any(resolve(schema)?, titled, input, findings)
}

/// `named`: the schema has a name of its own in the contract.
fn any<'a>(schema: &Schema, named: bool, input: &'a RawValue, findings: &mut Findings) -> Text<'a> {
    match schema {
        Schema::Object(object) => scalar_or_object(object, named, input, findings),
        Schema::Array(array) => list(array, input, findings),
        Schema::AnyOf(AnyOf { items, .. }) => alternatives(items, input, findings),
        Schema::OneOf(one_of) => alternatives(&one_of.items, input, findings),
        Schema::AllOf(AllOf { items, .. }) => match items.as_slice() {
            // How a reference carries a description of its own.
            [only] => referred(only, input, findings),
            _ => Some(Cow::Borrowed(input.get())),
        },
        _ => Some(Cow::Borrowed(input.get())),
    }
}

fn scalar_or_object<'a>(
    schema: &Object,
    named: bool,
    input: &'a RawValue,
    findings: &mut Findings,
) -> Text<'a> {
    let SchemaType::Type(kind) = &schema.schema_type else {
        return Some(Cow::Borrowed(input.get()));
    };
    match kind {
        Type::String => string(schema, named, input, findings),
        Type::Integer => integer(schema, input, findings),
        Type::Boolean => boolean(input, findings),
        Type::Object if schema.properties.is_empty() => dictionary(schema, input, findings),
        Type::Object => object(schema, input, findings),
        _ => Some(Cow::Borrowed(input.get())),
    }
}

fn object<'a>(schema: &Object, input: &'a RawValue, findings: &mut Findings) -> Text<'a> {
    let Some(entries) = Entries::of(input) else {
        let msg = "Input should be a valid dictionary or object to extract fields from";
        findings.add(Fault::new("model_attributes_type", msg), Some(input));
        return None;
    };
    let mut out = Writer::object();
    for (name, property) in &schema.properties {
        let required = schema.required.contains(name);
        let value = if required { entries.get(name) } else { entries.given(name) };
        match value {
            Some(value) => {
                let text = findings.within(name, |inner| referred(property, value, inner));
                out.member(name, text.as_deref());
            }
            None if required => {
                findings.within(name, |inner| inner.add(Fault::missing(), Some(input)));
            }
            None => out.member(name, default(property).map(Value::to_string).as_deref()),
        }
    }
    if allows_more(schema) {
        for (name, value) in &entries.list {
            if !schema.properties.contains_key(name) {
                out.member(name, Some(value.get()));
            }
        }
    }
    Some(Cow::Owned(out.end()))
}

fn allows_more(schema: &Object) -> bool {
    matches!(schema.additional_properties.as_deref(), Some(AdditionalProperties::FreeForm(true)))
}

fn default(property: &RefOr<Schema>) -> Option<&Value> {
    match property {
        RefOr::Ref(reference) => reference.default.as_ref(),
        RefOr::T(Schema::Object(object)) => object.default.as_ref(),
        RefOr::T(Schema::Array(array)) => array.default.as_ref(),
        RefOr::T(Schema::AnyOf(any)) => any.default.as_ref(),
        RefOr::T(Schema::AllOf(all)) => all.default.as_ref(),
        RefOr::T(Schema::OneOf(one)) => one.default.as_ref(),
        RefOr::T(_) => None,
    }
}

/// An object whose member names are the client's own.
fn dictionary<'a>(schema: &Object, input: &'a RawValue, findings: &mut Findings) -> Text<'a> {
    let Some(entries) = Entries::of(input) else {
        let fault = Fault::new("dict_type", "Input should be a valid dictionary");
        findings.add(fault, Some(input));
        return None;
    };
    let Some(AdditionalProperties::RefOr(each)) = schema.additional_properties.as_deref() else {
        return Some(Cow::Borrowed(input.get()));
    };
    let mut out = Writer::object();
    for (name, value) in &entries.list {
        let text = findings.within(name, |inner| referred(each, value, inner));
        out.member(name, text.as_deref());
    }
    Some(Cow::Owned(out.end()))
}

fn list<'a>(schema: &Array, input: &'a RawValue, findings: &mut Findings) -> Text<'a> {
    let Ok(elements) = serde_json::from_str::<Vec<&RawValue>>(input.get()) else {
        findings.add(Fault::new("list_type", "Input should be a valid list"), Some(input));
        return None;
    };
    let ArrayItems::RefOrSchema(each) = &schema.items else {
        return Some(Cow::Borrowed(input.get()));
    };
    let mut out = Writer::list();
    for (index, element) in elements.into_iter().enumerate() {
        let text = findings.at(Loc::At(index), |inner| referred(each, element, inner));
        out.element(text.as_deref());
    }
    Some(Cow::Owned(out.end()))
}

/// The first alternative of the input's own JSON type; without one, what is wrong with each.
fn alternatives<'a>(
    schemas: &[RefOr<Schema>],
    input: &'a RawValue,
    findings: &mut Findings,
) -> Text<'a> {
    let mut all = Vec::new();
    for schema in schemas {
        let mut attempt = Findings { path: findings.path.clone(), problems: Vec::new() };
        let kind = resolve(schema).map_or("any", kind_of);
        let text = attempt.within(kind, |inner| referred(schema, input, inner));
        if attempt.problems.is_empty() {
            return text;
        }
        all.append(&mut attempt.problems);
    }
    findings.problems.append(&mut all);
    None
}

/// pydantic's name of an alternative, as it stands in an error's location.
fn kind_of(schema: &Schema) -> &'static str {
    let Schema::Object(Object { schema_type: SchemaType::Type(kind), .. }) = schema else {
        return "list";
    };
    match kind {
        Type::String => "str",
        Type::Integer => "int",
        Type::Boolean => "bool",
        Type::Number => "float",
        _ => "dict",
    }
}

fn string<'a>(
    schema: &Object,
    named: bool,
    input: &'a RawValue,
    findings: &mut Findings,
) -> Text<'a> {
    let read = if let Some(words) = &schema.enum_values {
        word(words, named, input)
    } else {
        let max = schema.max_length.unwrap_or(usize::MAX);
        read::string_of(schema.min_length.unwrap_or(0), max)(input).map(drop)
    };
    findings.note(read, input).map(|()| Cow::Borrowed(input.get()))
}

fn word(words: &[Value], named: bool, input: &RawValue) -> Result<(), Fault> {
    let given = read::string(input).unwrap_or_default();
    if words.iter().any(|word| *word == given) {
        return Ok(());
    }
    let words: Vec<&str> = words.iter().filter_map(Value::as_str).collect();
    let expected = read::alternatives(&words);
    // pydantic tells an enumeration with a name from a list of literals.
    let kind = if named { "enum" } else { "literal_error" };
    let msg = format!("Input should be {expected}");
    Err(Fault::new(kind, msg).with_ctx(json!({ "expected": expected })))
}

fn integer<'a>(schema: &Object, input: &'a RawValue, findings: &mut Findings) -> Text<'a> {
    // No bound of ours is wider than that of an f64's whole numbers.
    let min = schema.minimum.as_ref().and_then(whole).unwrap_or(-(1 << 53));
    let max = schema.maximum.as_ref().and_then(whole).unwrap_or(1 << 53);
    let number = findings.note(read::whole(min..=max)(input), input)?;
    Some(Cow::Owned(number.to_string()))
}

/// The bound of an integer, which no schema here writes with a fraction.
fn whole(bound: &Number) -> Option<i64> {
    match bound {
        Number::Int(bound) => i64::try_from(*bound).ok(),
        Number::UInt(bound) => i64::try_from(*bound).ok(),
        Number::Float(bound) => format!("{bound:.0}").parse().ok(),
    }
}

fn boolean<'a>(input: &'a RawValue, findings: &mut Findings) -> Text<'a> {
    let value = findings.note(read::boolean(input), input)?;
    Some(Cow::Borrowed(if value { "true" } else { "false" }))
}

/// Puts JSON together from parts that are JSON already.
struct Writer {
    text: String,
    end: char,
}

impl Writer {
    fn object() -> Self {
        Self { text: "{".to_owned(), end: '}' }
    }

    fn list() -> Self {
        Self { text: "[".to_owned(), end: ']' }
    }

    fn member(&mut self, name: &str, value: Option<&str>) {
        let Some(value) = value else { return };
        self.separate();
        self.text.push_str(&Value::from(name).to_string());
        self.text.push(':');
        self.text.push_str(value);
    }

    fn element(&mut self, value: Option<&str>) {
        let Some(value) = value else { return };
        self.separate();
        self.text.push_str(value);
    }

    fn separate(&mut self) {
        if self.text.len() > 1 {
            self.text.push(',');
        }
    }

    fn end(mut self) -> String {
        self.text.push(self.end);
        self.text
    }
}
