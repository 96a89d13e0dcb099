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
    for level in 0..28 {
        let next = json!({ "$ref": format!("#/$defs/d{}", level + 1) });
        let word = if level % 2 == 0 { "allOf" } else { "anyOf" };
        definitions.insert(format!("d{level}"), json!({ word: [next, next] }));
    }
    definitions.insert("d28".to_owned(), json!({ "type": "string" }));
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
        assert!(schemas.kept().schemas.len() <= MAX_KEPT);
    }
}

#[test]
fn schemas_that_take_much_memory_are_kept_in_smaller_numbers() {
    let schemas = Schemas::default();
    let patterns = vec![json!({ "pattern": "a" }); 60];
    for n in 0..40 {
        let text = json!({ "allOf": patterns, "maximum": n }).to_string();
        schemas.get(&Json::parse(text).unwrap()).unwrap();
        let kept = schemas.kept();
        assert!(kept.n_bytes <= MAX_KEPT_BYTES);
        let weight: usize = kept.schemas.iter().map(|(k, v)| k.len() + v.weight).sum();
        assert_eq!(kept.n_bytes, weight);
    }
}

#[test]
fn much_of_a_schema_and_much_of_a_document_are_not_quick() {
    let small = schema(&json!({ "type": "object" })).unwrap();
    assert!(small.is_quick(QUICK_BYTES) && !small.is_quick(QUICK_BYTES + 1));
    let large = schema(&json!({ "enum": (0..1500).collect::<Vec<_>>() })).unwrap();
    assert!(large.is_quick(500) && !large.is_quick(1000));
}

/// Each definition refers to the next; the stack is that of a thread of the runtime.
#[test]
fn a_chain_of_definitions_is_refused_before_it_takes_the_stack() {
    let chain = |n_levels: usize| {
        // A list, for its places are named shortly.
        let mut definitions: Vec<_> =
            (1..=n_levels).map(|next| json!({ "$ref": format!("#/$defs/{next}") })).collect();
        definitions.push(json!({ "type": "string" }));
        json!({ "$defs": definitions, "$ref": "#/$defs/0" }).to_string()
    };
    let run = move || {
        for n_levels in [70, 2_500] {
            let text = chain(n_levels);
            assert!(text.len() <= MAX_SCHEMA_BYTES);
            let error = Schema::compile(&text).unwrap_err().to_string();
            assert!(error.contains("nested more than 128 deep"), "{error}");
        }
        let deepest = Schema::compile(&chain(62)).unwrap();
        assert!(deepest.check("1").is_err() && deepest.check("\"a\"").is_ok());
    };
    std::thread::Builder::new().stack_size(2 << 20).spawn(run).unwrap().join().unwrap();
}

#[test]
fn what_references_copy_is_bounded_in_bytes_and_annotations_are_not_copied() {
    let of = |word: &str| {
        let uses = vec![json!({ "$ref": "#/$defs/a" }); 40];
        json!({ "$defs": { "a": { word: "x".repeat(50_000) } }, "anyOf": uses })
    };
    for word in ["const", "pattern", "x-note"] {
        let error = schema(&of(word)).unwrap_err().to_string();
        assert!(error.contains("bytes once its references are written out"), "{error}");
    }
    for word in ["$comment", "default", "description", "examples", "title"] {
        assert!(schema(&of(word)).unwrap().weight < 200_000, "{word}");
    }
    let named = json!({ "properties": { "title": { "type": "string" } },
        "dependentRequired": { "default": ["title"] } });
    assert_eq!(misfits(&named, r#"{"title":1}"#).len(), 1);
    assert_eq!(misfits(&named, r#"{"default":1}"#).len(), 1);
}

#[test]
fn listed_values_are_parts() {
    let error = schema(&json!({ "enum": (0..2001).collect::<Vec<_>>() })).unwrap_err();
    assert!(error.to_string().contains("too many parts"), "{error}");
}

#[test]
fn a_document_too_deep_to_be_read_does_not_fit() {
    let deep = format!("{}1{}", "[".repeat(5000), "]".repeat(5000));
    let found = misfits(&json!({ "type": "array" }), &deep);
    assert!(found[0].2.contains("cannot be checked"), "{found:?}");
}

/// Each level would make the check three times as long.
#[test]
fn unevaluated_members_do_not_multiply_checks() {
    for word in REPEATING {
        let nested = |n_levels| {
            (0..n_levels).fold(
                json!({ "prefixItems": [{}] }),
                |inner, _| json!({ "anyOf": [inner], word: { "type": "integer" } }),
            )
        };
        assert!(schema(&nested(MAX_REPEATS)).is_ok());
        let error = schema(&nested(24)).unwrap_err().to_string();
        assert!(error.contains("'unevaluated…' more than 3 deep"), "{error}");
    }
}
