//! Checks a document against its schema, so that what the OpenAPI document says is what is enforced.
//!
//! Errors are those of a FastAPI application with the same schema: all of a document in one list, in
//! the order of its members. Numbers and texts that are right keep the spelling they came in.

use std::{borrow::Cow, collections::HashMap, fmt::Write as _};

use inferq_common::job::Json;
use serde::{
    Deserializer as _,
    de::{DeserializeOwned, MapAccess, Visitor},
};
use serde_json::{Value, json, value::RawValue};
use utoipa::{
    Number, ToSchema,
    openapi::{
        AllOf, AnyOf, Array, Object, RefOr, Schema, Type,
        schema::{AdditionalProperties, ArrayItems, SchemaType},
    },
};

use super::{
    components,
    error::{Location, ValidationError},
};

/// A body of millions of wrong members gets no list of millions of errors.
const MAX_FINDINGS: usize = 100;

/// What is wrong with a document, and where the reader is in it.
#[derive(Debug)]
pub struct Findings {
    path: Vec<Location>,
    errors: Vec<ValidationError>,
}

impl Findings {
    /// Starts at `body` or `query`.
    pub fn of(root: &str) -> Self {
        Self { path: vec![root.into()], errors: Vec::new() }
    }

    /// Goes into a member or an element for the time of `read`.
    pub fn within<T>(
        &mut self,
        place: impl Into<Location>,
        read: impl FnOnce(&mut Self) -> T,
    ) -> T {
        self.path.push(place.into());
        let result = read(self);
        self.path.pop();
        result
    }

    /// Notes an error here; `kind` is one of pydantic's words.
    pub fn add(
        &mut self,
        kind: &'static str,
        msg: impl Into<String>,
        input: Option<&RawValue>,
        ctx: Option<Value>,
    ) {
        let path = self.path.clone();
        self.push(ValidationError::new(kind, path, msg, input, ctx));
    }

    /// Notes that a rule beyond types is broken at `member`, below here.
    pub fn refuse(&mut self, member: &[&str], reason: impl std::fmt::Display) {
        let mut path = self.path.clone();
        path.extend(member.iter().map(|&name| Location::from(name)));
        self.push(ValidationError::refused(path, reason));
    }

    fn push(&mut self, error: ValidationError) {
        if self.errors.len() < MAX_FINDINGS {
            self.errors.push(error);
        }
    }

    pub fn is_empty(&self) -> bool {
        self.errors.is_empty()
    }

    pub fn into_errors(self) -> Vec<ValidationError> {
        self.errors
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
    let before = findings.errors.len();
    let schema = components().get(&*T::name()).and_then(resolve);
    let text = schema.and_then(|schema| any(schema, true, input, findings));
    if findings.errors.len() > before {
        return None;
    }
    let text = text?.into_owned();
    match (serde_json::from_str(&text), Json::parse(text)) {
        (Ok(value), Ok(json)) => Some((json, value)),
        // The schema let through what the type cannot hold; the message names the member.
        (Err(error), _) | (_, Err(error)) => {
            findings.refuse(&[], error);
            None
        }
    }
}

/// The members of an object in their order, unread. Of two with one name the last counts.
pub struct Members<'a> {
    list: Vec<(String, &'a RawValue)>,
    places: HashMap<String, usize>,
}

impl<'a> Members<'a> {
    /// `None`: it is no object.
    pub fn of(input: &'a RawValue) -> Option<Self> {
        let mut json = serde_json::Deserializer::from_str(input.get());
        json.deserialize_map(MembersReader).ok()
    }

    pub fn get(&self, name: &str) -> Option<&'a RawValue> {
        self.places.get(name).map(|&place| self.list[place].1)
    }

    /// As [`get`](Self::get), where `null` counts as not given.
    pub fn given(&self, name: &str) -> Option<&'a RawValue> {
        self.get(name).filter(|value| value.get() != "null")
    }
}

struct MembersReader;

impl<'de> Visitor<'de> for MembersReader {
    type Value = Members<'de>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<'de>, A::Error> {
        let mut members = Members { list: Vec::new(), places: HashMap::new() };
        while let Some((name, value)) = map.next_entry::<String, &'de RawValue>()? {
            let place = *members.places.entry(name.clone()).or_insert(members.list.len());
            match members.list.get_mut(place) {
                Some(earlier) => earlier.1 = value,
                None => members.list.push((name, value)),
            }
        }
        Ok(members)
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

fn referred<'a>(
    schema: &RefOr<Schema>,
    input: &'a RawValue,
    findings: &mut Findings,
) -> Text<'a> {
    let titled = matches!(schema, RefOr::Ref(_));
    any(resolve(schema)?, titled, input, findings)
}

/// `named`: the schema has a name of its own in the contract.
fn any<'a>(
    schema: &Schema,
    named: bool,
    input: &'a RawValue,
    findings: &mut Findings,
) -> Text<'a> {
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
    let Some(members) = Members::of(input) else {
        let msg = "Input should be a valid dictionary or object to extract fields from";
        findings.add("model_attributes_type", msg, Some(input), None);
        return None;
    };
    let mut out = Writer::object();
    for (name, property) in &schema.properties {
        let required = schema.required.contains(name);
        let value = if required { members.get(name) } else { members.given(name) };
        match value {
            Some(value) => {
                let text =
                    findings.within(name.as_str(), |inner| referred(property, value, inner));
                out.member(name, text.as_deref());
            }
            None if required => {
                findings.within(name.as_str(), |inner| {
                    inner.add("missing", "Field required", Some(input), None);
                });
            }
            None => out.member(name, default(property).map(Value::to_string).as_deref()),
        }
    }
    if allows_more(schema) {
        for (name, value) in &members.list {
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
    let Some(members) = Members::of(input) else {
        findings.add("dict_type", "Input should be a valid dictionary", Some(input), None);
        return None;
    };
    let Some(AdditionalProperties::RefOr(each)) = schema.additional_properties.as_deref() else {
        return Some(Cow::Borrowed(input.get()));
    };
    let mut out = Writer::object();
    for (name, value) in &members.list {
        let text = findings.within(name.as_str(), |inner| referred(each, value, inner));
        out.member(name, text.as_deref());
    }
    Some(Cow::Owned(out.end()))
}

fn list<'a>(schema: &Array, input: &'a RawValue, findings: &mut Findings) -> Text<'a> {
    let Ok(elements) = serde_json::from_str::<Vec<&RawValue>>(input.get()) else {
        findings.add("list_type", "Input should be a valid list", Some(input), None);
        return None;
    };
    let ArrayItems::RefOrSchema(each) = &schema.items else {
        return Some(Cow::Borrowed(input.get()));
    };
    let mut out = Writer::list();
    for (index, element) in elements.into_iter().enumerate() {
        let text = findings.within(index, |inner| referred(each, element, inner));
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
        let mut attempt = Findings { path: findings.path.clone(), errors: Vec::new() };
        let kind = resolve(schema).map_or("any", kind_of);
        let text = attempt.within(kind, |inner| referred(schema, input, inner));
        if attempt.is_empty() {
            return text;
        }
        all.append(&mut attempt.errors);
    }
    findings.errors.append(&mut all);
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
    let text = serde_json::from_str::<Cow<'_, str>>(input.get());
    if let Some(words) = &schema.enum_values {
        let known = text.is_ok_and(|text| words.iter().any(|word| *word == text.as_ref()));
        if known {
            return Some(Cow::Borrowed(input.get()));
        }
        let expected = expected(words);
        let kind = if named { "enum" } else { "literal_error" };
        let msg = format!("Input should be {expected}");
        findings.add(kind, msg, Some(input), Some(json!({ "expected": expected })));
        return None;
    }
    let Ok(text) = text else {
        findings.add("string_type", "Input should be a valid string", Some(input), None);
        return None;
    };
    let n_chars = text.chars().count();
    if let Some(min) = schema.min_length.filter(|&min| n_chars < min) {
        let msg = format!("String should have at least {min} {}", characters(min));
        findings.add("string_too_short", msg, Some(input), Some(json!({ "min_length": min })));
        return None;
    }
    if let Some(max) = schema.max_length.filter(|&max| n_chars > max) {
        let msg = format!("String should have at most {max} {}", characters(max));
        findings.add("string_too_long", msg, Some(input), Some(json!({ "max_length": max })));
        return None;
    }
    Some(Cow::Borrowed(input.get()))
}

fn characters(n: usize) -> &'static str {
    if n == 1 { "character" } else { "characters" }
}

/// `'a', 'b' or 'c'`.
fn expected(words: &[Value]) -> String {
    let mut text = String::new();
    for (index, word) in words.iter().enumerate() {
        let joint = match index {
            0 => "",
            _ if index + 1 == words.len() => " or ",
            _ => ", ",
        };
        let word = word.as_str().unwrap_or_default();
        write!(text, "{joint}'{word}'").expect("writing to a String cannot fail");
    }
    text
}

fn integer<'a>(schema: &Object, input: &'a RawValue, findings: &mut Findings) -> Text<'a> {
    let (number, text) = match read_integer(input.get()) {
        Ok(read) => read,
        Err((kind, msg)) => {
            findings.add(kind, msg, Some(input), None);
            return None;
        }
    };
    if let Some(min) = schema.minimum.as_ref().and_then(whole).filter(|&min| number < min) {
        let msg = format!("Input should be greater than or equal to {min}");
        findings.add("greater_than_equal", msg, Some(input), Some(json!({ "ge": min })));
        return None;
    }
    if let Some(max) = schema.maximum.as_ref().and_then(whole).filter(|&max| number > max) {
        let msg = format!("Input should be less than or equal to {max}");
        findings.add("less_than_equal", msg, Some(input), Some(json!({ "le": max })));
        return None;
    }
    Some(text)
}

/// The bound of an integer as the schema's own kind of number.
fn whole(bound: &Number) -> Option<i64> {
    match bound {
        Number::Int(bound) => i64::try_from(*bound).ok(),
        Number::UInt(bound) => i64::try_from(*bound).ok(),
        // Written without a fraction in every schema here.
        Number::Float(bound) => format!("{bound}").parse().ok(),
    }
}

type IntegerError = (&'static str, &'static str);

/// Reads 5, 5.0 and "5".
fn read_integer(text: &str) -> Result<(i64, Cow<'_, str>), IntegerError> {
    const TOO_LARGE: IntegerError = (
        "int_parsing_size",
        "Unable to parse input string as an integer, exceeded maximum size",
    );
    if let Ok(number) = text.parse() {
        return Ok((number, Cow::Borrowed(text)));
    }
    let coerced = |number: i64| (number, Cow::Owned(number.to_string()));
    match serde_json::from_str::<Value>(text) {
        Ok(Value::String(inner)) => inner.trim().parse().map(coerced).map_err(|_| {
            let msg = "Input should be a valid integer, unable to parse string as an integer";
            ("int_parsing", msg)
        }),
        Ok(Value::Number(number)) => {
            let float = number.as_f64().ok_or(TOO_LARGE)?;
            if float.fract() != 0.0 {
                let msg = "Input should be a valid integer, got a number with a fractional part";
                return Err(("int_from_float", msg));
            }
            format!("{float:.0}").parse().map(coerced).map_err(|_| TOO_LARGE)
        }
        // A number too large even for a float.
        Err(_) => Err(TOO_LARGE),
        Ok(_) => Err(("int_type", "Input should be a valid integer")),
    }
}

fn boolean<'a>(input: &'a RawValue, findings: &mut Findings) -> Text<'a> {
    match input.get() {
        "true" | "1" | "1.0" => return Some(Cow::Borrowed("true")),
        "false" | "0" | "0.0" => return Some(Cow::Borrowed("false")),
        _ => {}
    }
    match serde_json::from_str::<Value>(input.get()) {
        Ok(Value::String(word)) => match word.to_ascii_lowercase().as_str() {
            "true" | "t" | "yes" | "y" | "on" | "1" => return Some(Cow::Borrowed("true")),
            "false" | "f" | "no" | "n" | "off" | "0" => return Some(Cow::Borrowed("false")),
            _ => {}
        },
        Ok(Value::Number(_)) => {}
        _ => {
            findings.add("bool_type", "Input should be a valid boolean", Some(input), None);
            return None;
        }
    }
    let msg = "Input should be a valid boolean, unable to interpret input";
    findings.add("bool_parsing", msg, Some(input), None);
    None
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
