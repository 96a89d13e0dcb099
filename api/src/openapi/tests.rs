//! The document and the router speak of the same routes, and of the same members.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use chrono::DateTime;
use http::Method;
use inferq_common::{testing::queued_job, view::JobView};
use serde_json::Value;

use crate::testing::TestApi;

const METHODS: [Method; 5] =
    [Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE];

fn document() -> Value {
    serde_json::to_value(super::document()).unwrap()
}

/// Every path that stands in a `.route("…")` of this crate.
fn routed_paths() -> BTreeSet<String> {
    let mut paths = BTreeSet::new();
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src/routes")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path: PathBuf = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|end| end == "rs") && !path.ends_with("tests.rs")
            {
                let source = fs::read_to_string(path).unwrap();
                let calls = source.split(".route(").skip(1);
                let literal = |call: &str| call.trim_start().split('"').nth(1).map(str::to_owned);
                paths.extend(calls.filter_map(literal));
            }
        }
    }
    paths
}

#[tokio::test]
async fn every_route_is_in_the_document_and_every_operation_has_a_route() {
    let api = TestApi::start().await;
    let document = document();
    let documented: BTreeSet<String> =
        document["paths"].as_object().unwrap().keys().cloned().collect();
    assert_eq!(routed_paths(), documented);
    for path in documented {
        for method in METHODS {
            let name = method.as_str().to_ascii_lowercase();
            let listed = document["paths"][&path].get(&name).is_some();
            // A path is never taken for another: what stands in for a parameter is no id.
            let concrete = path.replace(['{', '}'], "_");
            let reply = api.send(api.request(method, &concrete, &[], "")).await;
            assert_eq!(reply.status != 405, listed, "{name} {path}: {reply:?}");
        }
    }
}

#[test]
fn a_job_has_the_members_the_document_lists() {
    let job = serde_json::to_value(JobView::new(queued_job(DateTime::UNIX_EPOCH), None)).unwrap();
    let schema = &document()["components"]["schemas"]["Job"];
    let names = |value: &Value| -> BTreeSet<String> {
        value.as_object().unwrap().keys().cloned().collect()
    };
    assert_eq!(names(&job), names(&schema["properties"]));
    for (name, value) in job.as_object().unwrap() {
        let property = &schema["properties"][name];
        let nullable = property.get("type").is_none_or(|kind| kind.to_string().contains("null"));
        assert!(!value.is_null() || nullable, "{name} is null");
    }
}
