//! House rules, held by reading the sources.

#![expect(clippy::unwrap_used, reason = "stories unwrap freely")]

use std::{
    fs,
    path::{Path, PathBuf},
};

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}

/// The files of a module, be it one or a folder.
fn module(parent: &Path, name: &str) -> Vec<PathBuf> {
    let file = parent.join(format!("{name}.rs"));
    if file.exists() { vec![file] } else { sources(&parent.join(name)) }
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn the_domain_knows_no_store_broker_or_configuration() {
    let domain = [
        "account",
        "callback",
        "clock",
        "credential",
        "error",
        "id",
        "job",
        "json_schema",
        "members",
        "model",
        "retry",
        "route",
        "stream",
        "ticket",
        "usage",
        "vendor",
        "view",
    ];
    for name in domain {
        for path in module(&root().join("common/src"), name) {
            let text = fs::read_to_string(&path).unwrap();
            for edge in ["store", "broker", "config"] {
                let import = format!("crate::{edge}");
                let grouped =
                    text.lines().any(|line| line.trim().starts_with(&format!("{edge}::")));
                assert!(!text.contains(&import) && !grouped, "{} imports {edge}", path.display());
            }
        }
    }
}

#[test]
fn operators_are_told_of_every_metric() {
    let names = fs::read_to_string(root().join("common/src/telemetry/mod.rs")).unwrap();
    let manual = fs::read_to_string(root().join("docs/operations.md")).unwrap();
    let names: Vec<_> = names.split('"').filter(|text| text.starts_with("inferq_")).collect();
    assert!(names.len() > 10, "they were found: {names:?}");
    for name in names {
        assert!(manual.contains(&format!("`{name}`")), "docs/operations.md lacks {name}");
    }
}

#[test]
fn only_retry_knows_backoff_and_only_rabbitmq_knows_lapin() {
    for (name, home) in [("backoff::", "retry"), ("lapin::", "rabbitmq")] {
        for path in sources(&root().join("common/src")) {
            let text = fs::read_to_string(&path).unwrap();
            let at_home = path.to_string_lossy().contains(home);
            assert!(at_home || !text.contains(name), "{} uses {name}", path.display());
        }
    }
}

#[test]
fn no_test_is_switched_off_without_a_reason() {
    for folder in ["api", "bench", "common", "src", "tests", "vendors", "worker"] {
        for path in sources(&root().join(folder)) {
            let text = fs::read_to_string(&path).unwrap();
            let bare = concat!("#[", "ignore]");
            assert!(!text.contains(bare), "{} ignores a test without a reason", path.display());
        }
    }
}
