//! The OpenAPI document holds the whole contract: three documents kept as they were published.

use serde_json::Value;

const CONTRACT: [&str; 3] = [
    include_str!("openapi/inference.json"),
    include_str!("openapi/get-model.json"),
    include_str!("openapi/execute-by-alias.json"),
];

fn ours() -> Value {
    serde_json::to_value(inferq_api::openapi::document()).unwrap()
}

fn contract() -> impl Iterator<Item = Value> {
    CONTRACT.iter().map(|text| serde_json::from_str(text).unwrap())
}

/// Notes at which places `ours` lacks what `theirs` has. Lists must be equal, their order apart.
fn compare(place: &str, theirs: &Value, ours: &Value, missing: &mut Vec<String>) {
    match (theirs, ours) {
        (Value::Object(theirs), Value::Object(ours)) => {
            for (name, value) in theirs {
                let place = format!("{place}.{name}");
                match ours.get(name) {
                    Some(ours) => compare(&place, value, ours, missing),
                    None => missing.push(format!("{place}: absent")),
                }
            }
        }
        (Value::Array(theirs), Value::Array(ours)) => {
            let sorted = |list: &[Value]| {
                let mut list: Vec<String> = list.iter().map(Value::to_string).collect();
                list.sort();
                list
            };
            if sorted(theirs) != sorted(ours) {
                missing.push(format!("{place}: {theirs:?}, not {ours:?}"));
            }
        }
        _ if theirs == ours => {}
        _ => missing.push(format!("{place}: {theirs}, not {ours}")),
    }
}

#[test]
fn every_schema_of_the_contract_is_in_the_document() {
    let ours = ours();
    let mut missing = Vec::new();
    let mut n_schemas = 0;
    for document in contract() {
        for (name, schema) in document["components"]["schemas"].as_object().unwrap() {
            n_schemas += 1;
            compare(name, schema, &ours["components"]["schemas"][name], &mut missing);
        }
        for (name, scheme) in
            document["components"]["securitySchemes"].as_object().into_iter().flatten()
        {
            compare(name, scheme, &ours["components"]["securitySchemes"][name], &mut missing);
        }
    }
    assert_eq!(missing, [""; 0], "the document lacks parts of the contract");
    assert_eq!(n_schemas, 22, "the contract's copies are whole");
}

#[test]
fn every_operation_of_the_contract_is_in_the_document() {
    let ours = ours();
    let mut missing = Vec::new();
    let mut n_operations = 0;
    for document in contract() {
        for (path, item) in document["paths"].as_object().unwrap() {
            for (method, theirs) in item.as_object().unwrap() {
                n_operations += 1;
                let place = format!("{method} {path}");
                let mut theirs = theirs.clone();
                let parameters = theirs.as_object_mut().unwrap().remove("parameters").unwrap();
                compare(&place, &theirs, &ours["paths"][path][method], &mut missing);
                let known = ours["paths"][path][method]["parameters"].as_array().unwrap();
                for parameter in parameters.as_array().unwrap() {
                    let named = |one: &&Value| {
                        one["name"] == parameter["name"] && one["in"] == parameter["in"]
                    };
                    let found = known.iter().find(named).unwrap_or(&Value::Null);
                    let place = format!("{place} {}", parameter["name"]);
                    compare(&place, parameter, found, &mut missing);
                }
            }
        }
    }
    assert_eq!(missing, [""; 0], "the document lacks parts of the contract");
    assert_eq!(n_operations, 3);
}

#[test]
fn the_document_is_openapi_3_1_and_its_references_lead_somewhere() {
    let ours = ours();
    assert!(ours["openapi"].as_str().unwrap().starts_with("3.1."));
    let mut lost = Vec::new();
    follow(&ours, &ours, &mut lost);
    assert_eq!(lost, [""; 0]);
}

fn follow(root: &Value, value: &Value, lost: &mut Vec<String>) {
    match value {
        Value::Object(members) => {
            if let Some(reference) = members.get("$ref").and_then(Value::as_str) {
                if root.pointer(reference.strip_prefix('#').unwrap()).is_none() {
                    lost.push(reference.to_owned());
                }
            }
            members.values().for_each(|member| follow(root, member, lost));
        }
        Value::Array(elements) => elements.iter().for_each(|each| follow(root, each, lost)),
        _ => {}
    }
}

#[test]
fn the_operations_are_these() {
    let ours = ours();
    let mut list = Vec::new();
    for (path, item) in ours["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let secured = if operation["security"].is_array() { "key" } else { "open" };
            let id = operation["operationId"].as_str().unwrap();
            let responses: Vec<&str> =
                operation["responses"].as_object().unwrap().keys().map(String::as_str).collect();
            list.push(format!("{id} [{method} {path}] {secured}: {}", responses.join(" ")));
        }
    }
    insta::assert_snapshot!(list.join("\n"));
}
