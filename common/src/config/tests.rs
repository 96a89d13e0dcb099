//! What needs no environment; the rest is in `common/tests/config.rs`, a process of its own.

use std::collections::BTreeSet;

use figment::providers::{Format as _, Toml};
use secrecy::ExposeSecret as _;

use super::*;

fn with(text: &str) -> Result<Config, ConfigError> {
    Config::extract(&sources::defaults().merge(Toml::string(text)))
}

#[track_caller]
fn complaint(text: &str) -> String {
    let message = with(text).unwrap_err().to_string();
    assert_eq!(message.lines().count(), 1, "{message}");
    message
}

/// Every `section.key` that a setting or a comment of the defaults gives a value, and the same text
/// with those comments turned into settings.
fn documented() -> (BTreeSet<String>, String) {
    let mut section = String::new();
    let mut keys = BTreeSet::new();
    let mut text = String::new();
    for line in DEFAULTS.lines() {
        let setting = line.strip_prefix("# ").unwrap_or(line);
        let name = setting.split_once(" = ").map(|(name, _)| name).filter(|name| {
            name.chars().all(|c| c.is_ascii_lowercase() || c == '_') && !name.is_empty()
        });
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            name.clone_into(&mut section);
        }
        match name {
            Some(name) => {
                keys.insert(format!("{section}.{name}"));
                text.push_str(setting);
            }
            None => text.push_str(line),
        }
        text.push('\n');
    }
    (keys, text)
}

fn keys_of(value: &serde_json::Value, path: &str, keys: &mut BTreeSet<String>) {
    match value.as_object() {
        Some(members) => {
            for (name, member) in members {
                let dot = if path.is_empty() { "" } else { "." };
                keys_of(member, &format!("{path}{dot}{name}"), keys);
            }
        }
        None => {
            keys.insert(path.to_owned());
        }
    }
}

#[test]
fn every_setting_is_in_the_defaults_and_nothing_else() {
    let mut keys = BTreeSet::new();
    keys_of(&serde_json::to_value(with("").unwrap()).unwrap(), "", &mut keys);
    assert_eq!(documented().0, keys);
}

#[test]
fn what_the_defaults_leave_as_a_comment_can_be_set() {
    let text =
        documented().1.replace("bootstrap_key = \"\"", "bootstrap_key = \"0123456789abcdef\"");
    let text = text.replace("master_key = \"\"", &format!("master_key = \"{}\"", "0f".repeat(32)));
    let config = with(&text).unwrap();
    assert_eq!(config.api.public_url.unwrap().as_str(), "https://inferq.example/");
    assert!(config.auth.bootstrap_key.is_some());
    assert!(config.vendors[&Vendor::OpenAi].api_key.is_some());
    assert!(config.worker.listen.is_some());
}

#[test]
fn the_defaults_are_these() {
    let shown = with("").unwrap().redacted().replace(' ', "\n");
    insta::assert_snapshot!(shown);
}

#[test]
fn a_vendor_without_a_section_has_the_same_defaults_as_one_with() {
    let config = with("").unwrap();
    let written = serde_json::to_value(config.vendor(Vendor::OpenAi)).unwrap();
    let mut built_in = serde_json::to_value(config.vendor(Vendor::Bedrock)).unwrap();
    built_in["base_url"] = "https://api.openai.com/v1".into();
    assert_eq!(written, built_in);
}

#[test]
fn a_value_out_of_range_names_its_key_and_the_range() {
    for (text, expected) in [
        ("[worker]\nconcurrency = 0", "worker.concurrency: must be 1 to 10000, not 0"),
        ("[worker]\nconcurrency = 10001", "worker.concurrency: must be 1 to 10000, not 10001"),
        (
            "[worker]\nshutdown_grace_secs = 86401",
            "worker.shutdown_grace_secs: must be 0 to 86400, not 86401",
        ),
        ("[callbacks]\nconcurrency = 0", "callbacks.concurrency: must be 1 to 10000, not 0"),
        ("[callbacks]\nper_host = 0", "callbacks.per_host: must be 1 to 10000, not 0"),
        ("[callbacks]\ntimeout_ms = 0", "callbacks.timeout_ms: must be 1 to 86400000, not 0"),
        (
            "[worker]\nanswer_memory_bytes = 1",
            "worker.answer_memory_bytes: must be 1048576 to 1099511627776, not 1",
        ),
        ("[database]\nmax_connections = 3", "database.max_connections: must be 4 to 10000, not 3"),
        ("[database]\nmax_group = 0", "database.max_group: must be 1 to 1000, not 0"),
        (
            "[database]\nacquire_timeout_ms = 0",
            "database.acquire_timeout_ms: must be 1 to 86400000, not 0",
        ),
        (
            "[database]\nurl = \"mysql://x\"",
            "database.url: must start with sqlite:// or postgres://",
        ),
        (
            "[broker]\nurl = \"redis://x\"",
            "broker.url: must be memory: or start with amqp:// or amqps://",
        ),
        ("[broker]\nmax_outstanding = 0", "broker.max_outstanding: must be 1 to 100000, not 0"),
        (
            "[broker]\npublish_timeout_ms = 0",
            "broker.publish_timeout_ms: must be 1 to 86400000, not 0",
        ),
        (
            "[broker]\nconnect_timeout_ms = 0",
            "broker.connect_timeout_ms: must be 1 to 86400000, not 0",
        ),
        ("[api]\nmax_body_bytes = 0", "api.max_body_bytes: must be 1 to 1073741824, not 0"),
        (
            "[api]\nmax_concurrent_requests = 0",
            "api.max_concurrent_requests: must be 1 to 1000000, not 0",
        ),
        (
            "[api]\nmax_streams_per_account = 0",
            "api.max_streams_per_account: must be 1 to 1000000, not 0",
        ),
        ("[api]\nmax_wait_secs = 86401", "api.max_wait_secs: must be 1 to 86400, not 86401"),
        ("[api]\npublic_url = \"ftp://x\"", "api.public_url: must start with http:// or https://"),
        (
            "[api]\npublic_url = \"https://x/?y\"",
            "api.public_url: must end with its path: no '?' and no '#'",
        ),
        (
            "[auth]\nbootstrap_key = \"short\"",
            "auth.bootstrap_key: must be 16 to 256 letters, digits and signs of ASCII; \
             `openssl rand -hex 32` makes a good one",
        ),
        ("[retention]\njob_hours = 0", "retention.job_hours: must be 1 to 876000, not 0"),
        (
            "[vendors.vertex_ai]\nidle_timeout_ms = 0",
            "vendors.vertex_ai.idle_timeout_ms: must be 1 to 86400000, not 0",
        ),
        (
            "[vendors.xai]\nbase_url = \"http://me:pw@x\"",
            "vendors.xai.base_url: must not carry a user name or password",
        ),
        (
            "[vendors.xai]\napi_key = \"a b\"",
            "vendors.xai.api_key: must be visible ASCII, no spaces",
        ),
        (
            "[log]\nfilter = \"chatty\"",
            "log.filter: 'chatty' is no level (error, warn, info, debug, trace or off); for one \
             module write module=level",
        ),
    ] {
        assert_eq!(complaint(text), format!("configuration: {expected}"), "{text}");
    }
}

#[test]
fn a_misspelt_key_names_itself_and_what_there_is() {
    let message = complaint("[worker]\nconcurency = 5");
    assert!(
        message.starts_with(
            "configuration: worker.concurency: no such setting; there are concurrency, vendors, "
        ),
        "{message}"
    );
    let message = complaint("[wroker]\nconcurrency = 5");
    assert!(
        message.starts_with("configuration: wroker: no such setting; there are database, broker"),
        "{message}"
    );
    let message = complaint("[vendors.openia]\nidle_timeout_ms = 5");
    assert!(message.starts_with("configuration: vendors"), "{message}");
    assert!(message.contains("must be one of openai, cohere, vertex_ai"), "{message}");
}

#[test]
fn a_wrong_type_names_the_key_and_never_the_value() {
    for (text, expected) in [
        (
            "[worker]\nconcurrency = \"sk-secret\"",
            "worker.concurrency: must be a whole number, not text",
        ),
        (
            "[worker]\nconcurrency = 1.5",
            "worker.concurrency: must be a whole number, not a fraction",
        ),
        ("[worker]\nconcurrency = -1", "worker.concurrency: must be a whole number, not -1"),
        (
            "[worker]\nvendors = 5",
            "worker.vendors: must be a list of texts, or one text with commas, not a whole number",
        ),
        (
            "[vendors.openai]\napi_key = 123456789",
            "vendors.openai.api_key: must be text, not a whole number",
        ),
        ("worker = \"sk-secret\"", "worker: must be a section, not text"),
        ("[log]\nformat = \"sk-secret\"", "log.format: must be one of human, json"),
        (
            "[vendors.openai]\nbase_url = \"sk-secret\"",
            "vendors.openai.base_url: is no URL: relative URL without a base",
        ),
        ("[api]\nlisten = \"sk-secret\"", "api.listen: invalid socket address syntax"),
        (
            "[callbacks]\nallow_networks = [\"10.0.0.0/33\"]",
            "callbacks.allow_networks: '10.0.0.0/33' cannot be used: invalid IP address syntax",
        ),
        (
            "[worker]\nvendors = [\"acme\"]",
            "worker.vendors: 'acme' cannot be used: 'acme' is none of openai, ",
        ),
    ] {
        let message = complaint(text);
        assert!(message.starts_with(&format!("configuration: {expected}")), "{message}");
        assert!(!message.contains("sk-secret") && !message.contains("123456789"), "{message}");
    }
}

#[test]
fn a_file_that_is_no_toml_is_one_line_without_what_it_holds() {
    let message = complaint("[vendors.openai]\napi_key = sk-secret\n");
    assert!(message.contains("TOML parse error at line 2, column 11"), "{message}");
    assert!(!message.contains("sk-secret"), "{message}");
}

#[test]
fn secrets_show_neither_in_debug_nor_in_the_start_up_line() {
    let config = with(
        "[auth]\nbootstrap_key = \"hunter2hunter2hunter2\"\n\
         [vendors.openai]\napi_key = \"hunter2\"\n\
         proxy = \"http://me:hunter2@proxy:3128\"\nheaders = { x-secret = \"hunter2\" }\n\
         [vendors.openai.models.gpt-5]\nheaders = { x-secret = \"hunter2\" }\n\
         [database]\nurl = \"postgres://me:hunter2@db/jobs?password=hunter2\"\n\
         [broker]\nurl = \"amqp://me:hunter2@mq\"\n",
    )
    .unwrap();
    let (debug, shown) = (format!("{config:?}"), config.redacted());
    assert!(!debug.contains("hunter2"), "{debug}");
    assert!(!shown.contains("hunter2"), "{shown}");
    for part in [
        "database.url=postgres://me:***@db/jobs?***",
        "broker.url=amqp://me:***@mq",
        "auth.bootstrap_key=***",
        "vendors.openai.api_key=***",
        "vendors.openai.proxy=http://me:***@proxy:3128/",
        "worker.vendors=[]",
        "api.listen=127.0.0.1:8080",
    ] {
        assert!(shown.split(' ').any(|pair| pair == part), "{part}: {shown}");
    }
    assert_eq!(shown.lines().count(), 1);
}

#[test]
fn a_model_may_have_settings_of_its_own() {
    let config = with(
        "[vendors.azure]\nbase_url = \"https://a.example\"\napi_key = \"one\"\napi_keys = [\"two\"]\n\
         region = \"r\"\nproject = \"p\"\nlocation = \"l\"\napi_version = \"v\"\napi = \"v1\"\n\
         proxy = \"http://proxy:3128\"\nconnect_timeout_ms = 1\nidle_timeout_ms = 3\n\
         [vendors.azure.headers]\nx-team = \"search\"\nx-tier = \"gold\"\n\
         [vendors.azure.models.\"gpt-5/eu\"]\nbase_url = \"https://b.example\"\napi_key = \"three\"\n\
         region = \"R\"\nproject = \"P\"\nlocation = \"L\"\napi_version = \"V\"\napi = \"classic\"\n\
         connect_timeout_ms = 10\nfirst_byte_timeout_ms = 20\nidle_timeout_ms = 30\n\
         headers = { x-tier = \"iron\" }\n",
    )
    .unwrap();
    let vendor = config.vendor(Vendor::Azure);
    let own = vendor.for_model("gpt-5/eu");
    assert_eq!(own.base_url.unwrap().as_str(), "https://b.example/");
    assert_eq!((own.api_key.unwrap().expose_secret(), own.api_keys.len()), ("three", 0));
    let texts = [own.region, own.project, own.location, own.api_version, own.api];
    assert_eq!(texts.map(Option::unwrap), ["R", "P", "L", "V", "classic"]);
    assert_eq!((own.connect_timeout_ms, own.idle_timeout_ms), (10, 30));
    assert_eq!(own.first_byte_timeout_ms, Some(20));
    assert_eq!(own.proxy, vendor.proxy);
    let headers: Vec<_> =
        own.headers.iter().map(|(name, it)| (name.as_str(), it.expose_secret())).collect();
    assert_eq!(headers, [("x-team", "search"), ("x-tier", "iron")]);

    let other = vendor.for_model("gpt-5");
    assert_eq!(other.base_url, vendor.base_url);
    assert_eq!((other.connect_timeout_ms, other.first_byte_timeout_ms), (1, None));
    assert_eq!(other.api_keys.len(), 1);
}
