//! What the derived schemas lack to say exactly what the contract says.

use utoipa::{
    Modify, ToSchema as _,
    openapi::{
        ContentBuilder, KnownFormat, Object, ObjectBuilder, OpenApi, Ref, RefOr, Required,
        ResponseBuilder, Schema, SchemaFormat, Type,
        path::{Operation, Parameter, ParameterBuilder, ParameterIn},
        schema::{AdditionalProperties, AnyOfBuilder, ArrayItems, SchemaType},
    },
};

use crate::schema::error::ErrorDetail;

/// Documents whose absent values are shown as `null`. In all others they are left out, and `null`
/// in a request means "not given".
const SHOW_NULL: [&str; 7] =
    ["Job", "Attempt", "Delivery", "DeliveryAttempt", "LaunchTask", "HostedTask", "ModelEndpoint"];

/// Gives members their titles and takes away what only Rust's types say.
pub(super) struct Polish;

impl Modify for Polish {
    fn modify(&self, document: &mut OpenApi) {
        let Some(components) = &mut document.components else { return };
        for (name, schema) in &mut components.schemas {
            if !SHOW_NULL.contains(&name.as_str()) {
                each_member(schema, &mut |_, member| without_null(member));
            }
            each_member(schema, &mut |name, member| {
                merge(member);
                title(name, member);
            });
            plain(schema);
        }
        for item in document.paths.paths.values_mut() {
            let operations =
                [&mut item.get, &mut item.post, &mut item.put, &mut item.patch, &mut item.delete];
            operations.into_iter().flatten().for_each(operation);
        }
    }
}

/// What all operations have in common.
fn operation(operation: &mut Operation) {
    let parameters = operation.parameters.get_or_insert_default();
    for parameter in &mut *parameters {
        if let RefOr::T(Parameter { name, schema: Some(schema), .. }) = parameter {
            without_null(schema);
            plain(schema);
            title(&name.replace('-', "_"), schema);
        }
    }
    if operation.security.is_none() {
        return;
    }
    parameters.push(RefOr::T(account_parameter()));
    for (status, description) in [
        ("401", "No API key, or one that is unknown or revoked"),
        ("403", "The key may not use the selected account"),
        ("503", "Overloaded or the store is unavailable; try again after `retry-after` seconds"),
    ] {
        let schema = Ref::from_schema_name(ErrorDetail::name());
        let content = ContentBuilder::new().schema(Some(schema)).build();
        let response =
            ResponseBuilder::new().description(description).content("application/json", content);
        operation.responses.responses.entry(status.to_owned()).or_insert_with(|| response.into());
    }
}

/// The header that selects an account, as the contract has it.
fn account_parameter() -> Parameter {
    let kind = |kind| ObjectBuilder::new().schema_type(kind);
    let mut either = AnyOfBuilder::new().item(kind(Type::String)).item(kind(Type::Null)).build();
    let extensions = either.extensions.get_or_insert_default();
    extensions.insert("title".to_owned(), "Account ID Header".into());
    ParameterBuilder::new()
        .name("x-selected-account-id")
        .parameter_in(ParameterIn::Header)
        .required(Required::False)
        .description(Some("Default: the key's own account"))
        .schema(Some(Schema::from(either)))
        .build()
}

fn each_member(schema: &mut RefOr<Schema>, change: &mut dyn FnMut(&str, &mut RefOr<Schema>)) {
    if let RefOr::T(Schema::Object(object)) = schema {
        for (name, member) in &mut object.properties {
            change(name, member);
        }
    }
}

/// `string` for what was `string` or `null`.
fn without_null(member: &mut RefOr<Schema>) {
    let only = match member {
        RefOr::T(Schema::OneOf(one_of)) => {
            one_of.items.retain(|item| !is_null(item));
            match one_of.items.as_mut_slice() {
                [only] => Some(only.clone()),
                _ => None,
            }
        }
        RefOr::T(Schema::Object(object)) => {
            not_null(&mut object.schema_type);
            None
        }
        RefOr::T(Schema::Array(array)) => {
            not_null(&mut array.schema_type);
            None
        }
        _ => None,
    };
    if let Some(only) = only {
        *member = only;
    }
}

fn is_null(schema: &RefOr<Schema>) -> bool {
    matches!(
        schema,
        RefOr::T(Schema::Object(Object { schema_type: SchemaType::Type(Type::Null), .. }))
    )
}

fn not_null(kind: &mut SchemaType) {
    if let SchemaType::Array(kinds) = kind {
        kinds.retain(|kind| *kind != Type::Null);
        if let [only] = kinds.as_slice() {
            *kind = SchemaType::Type(only.clone());
        }
    }
}

/// Puts the default of a member into the member itself; derived, it stands beside it in an `allOf`.
fn merge(member: &mut RefOr<Schema>) {
    let RefOr::T(Schema::AllOf(all_of)) = member else { return };
    let [RefOr::T(kind), RefOr::T(Schema::Object(extra))] = all_of.items.as_mut_slice() else {
        return;
    };
    let (default, description) = (extra.default.take(), extra.description.take());
    match kind {
        Schema::Object(object) => {
            object.default = default;
            object.description = description.or(object.description.take());
        }
        Schema::AnyOf(any_of) => (any_of.default, any_of.description) = (default, description),
        _ => return,
    }
    *member = RefOr::T(kind.clone());
}

/// `Gpu Type` for `gpu_type`, as the contract titles its members.
fn title(name: &str, member: &mut RefOr<Schema>) {
    let RefOr::T(schema) = member else { return };
    let words: Vec<String> = name.split('_').map(capital).collect();
    let words = words.join(" ");
    match schema {
        Schema::Object(object) => _ = object.title.get_or_insert(words),
        Schema::Array(array) => _ = array.title.get_or_insert(words),
        Schema::AnyOf(any_of) => {
            any_of.extensions.get_or_insert_default().insert("title".to_owned(), words.into());
        }
        _ => {}
    }
}

fn capital(word: &str) -> String {
    let mut chars = word.chars();
    chars
        .next()
        .map_or_else(String::new, |first| first.to_ascii_uppercase().to_string() + chars.as_str())
}

/// Takes away the widths of Rust's integers and what is true of every JSON object.
fn plain(schema: &mut RefOr<Schema>) {
    let RefOr::T(schema) = schema else { return };
    match schema {
        Schema::Object(object) => {
            let width = [KnownFormat::Int32, KnownFormat::Int64].map(SchemaFormat::KnownFormat);
            object.format = object.format.take().filter(|format| !width.contains(format));
            object.property_names = None;
            object.properties.values_mut().for_each(plain);
            if let Some(AdditionalProperties::RefOr(each)) =
                object.additional_properties.as_deref_mut()
            {
                plain(each);
                // Any value at all.
                if *each == RefOr::T(Schema::Object(Object::with_type(SchemaType::AnyValue))) {
                    *object.additional_properties.as_deref_mut().expect("just seen") =
                        AdditionalProperties::FreeForm(true);
                }
            }
        }
        Schema::Array(array) => {
            if let ArrayItems::RefOrSchema(each) = &mut array.items {
                plain(each);
            }
        }
        Schema::OneOf(one_of) => one_of.items.iter_mut().for_each(plain),
        Schema::AnyOf(any_of) => any_of.items.iter_mut().for_each(plain),
        Schema::AllOf(all_of) => all_of.items.iter_mut().for_each(plain),
        _ => {}
    }
}
