//! What a model is, apart from its name: how a creation and a change of it are checked alike.

use inferq_common::{
    credential::CredentialName, egress::Guard, id::AccountId, job::Json, vendor::Vendor,
};
use serde_json::value::RawValue;

use crate::{
    credential,
    error::{ApiError, Loc},
    extract::{Fault, read},
    rules,
    schema::{
        check::{Entries, Findings, check},
        launch::LaunchVendorConfiguration,
        llm_engine::LLMEngineVendorConfiguration,
    },
    state::AppState,
};

/// The hooks that may be named: those of the engine behind Launch and LLM Engine.
const HOOKS: [&str; 3] = ["billing", "callback", "logging"];

/// The hook without which a model's default callback address is not used.
const CALLBACK: &str = "callback";

/// Definitions up to this size are checked on the spot; the schemas in larger ones may take longer
/// than a task may hold its thread.
const QUICK_BYTES: usize = 4 * 1024;

/// Runs the check of a definition of so many bytes, where it disturbs nobody.
pub(super) async fn run<T: Send + 'static>(
    n_bytes: usize,
    check: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    if n_bytes <= QUICK_BYTES { check() } else { rules::off_thread(check).await }
}

/// Checks how large and deep a configuration and metadata are, as they would be stored.
pub(super) fn bounds(
    configuration: Option<&Json>,
    metadata: Option<&Json>,
    findings: &mut Findings,
) {
    let mut note = |name: &str, json: Option<&Json>, rule: fn(&RawValue) -> Result<(), Fault>| {
        if let Some(json) = json
            && let Err(fault) = rule(json.raw())
        {
            // Not shown: clients cannot read what is nested so deep.
            findings.within(name, |inner| inner.add(fault, None));
        }
    };
    note("vendor_configuration", configuration, rules::vendor_configuration);
    note("model_metadata", metadata, rules::model_metadata);
}

/// Checks the configuration of a vendor that has one; answers it with its defaults filled in.
pub(super) fn configuration(
    vendor: Vendor,
    given: &RawValue,
    findings: &mut Findings,
) -> Option<Json> {
    if vendor == Vendor::Launch {
        let (json, configuration) = check::<LaunchVendorConfiguration>(given, findings)?;
        configuration.check(findings);
        Some(json)
    } else {
        let (json, configuration) = check::<LLMEngineVendorConfiguration>(given, findings)?;
        configuration.check(findings);
        Some(json)
    }
}

/// Checks what the metadata say about the model's jobs, and answers where callbacks go by default.
///
/// The address is that of LLM Engine's configuration, else that of the metadata. Where hooks are
/// named and `callback` is not among them there is none.
pub(super) fn default_callback(
    vendor: Vendor,
    configuration: Option<&Json>,
    metadata: Option<&Json>,
    guard: &Guard,
    findings: &mut Findings,
) -> Option<String> {
    let own = configuration
        .filter(|_| vendor == Vendor::LlmEngine)
        .and_then(|json| Entries::of(json.raw()));
    let (own_url, own_hooks) = findings.within("vendor_configuration", |inner| {
        own.as_ref().map_or((None, None), |entries| addressed(entries, guard, inner))
    });
    let metadata = metadata.and_then(|json| Entries::of(json.raw()));
    let (url, hooks) = findings.within("model_metadata", |inner| {
        let Some(entries) = &metadata else { return (None, None) };
        limits(entries, inner);
        addressed(entries, guard, inner)
    });
    let calls_back = own_hooks.or(hooks).is_none_or(|hooks| hooks.iter().any(|it| it == CALLBACK));
    own_url.or(url).filter(|_| calls_back)
}

/// The members that override the limits of jobs.
fn limits(entries: &Entries<'_>, findings: &mut Findings) {
    let note = |name: &str, fault: Option<Fault>, findings: &mut Findings| {
        if let Some(fault) = fault {
            findings.within(name, |inner| inner.add(fault, entries.get(name)));
        }
    };
    let timeout = entries.given("timeout_seconds").and_then(|raw| rules::timeout(raw).err());
    note("timeout_seconds", timeout, findings);
    let retries = entries.given("num_retries").and_then(|raw| rules::num_retries(raw).err());
    note("num_retries", retries, findings);
}

/// The default callback address and the hooks among these members.
fn addressed(
    entries: &Entries<'_>,
    guard: &Guard,
    findings: &mut Findings,
) -> (Option<String>, Option<Vec<String>>) {
    let url = entries.given("default_callback_url").and_then(|given| {
        findings.within("default_callback_url", |inner| callback_url(given, guard, inner))
    });
    let hooks = entries
        .given("post_inference_hooks")
        .and_then(|given| findings.within("post_inference_hooks", |inner| hooks(given, inner)));
    (url, hooks)
}

/// An address callbacks may go to.
fn callback_url(input: &RawValue, guard: &Guard, findings: &mut Findings) -> Option<String> {
    let checked = read::string(input).and_then(|url| match guard.check_url(&url) {
        Ok(_) => Ok(url),
        Err(reason) => Err(Fault::value(reason)),
    });
    checked.map_err(|fault| findings.add(fault, Some(input))).ok()
}

fn hooks(input: &RawValue, findings: &mut Findings) -> Option<Vec<String>> {
    let Ok(hooks) = serde_json::from_str::<Vec<&RawValue>>(input.get()) else {
        findings.add(Fault::new("list_type", "Input should be a valid list"), Some(input));
        return None;
    };
    let mut names = Vec::new();
    for (index, hook) in hooks.into_iter().enumerate() {
        match read::string(hook) {
            Ok(name) if HOOKS.contains(&name.as_str()) => names.push(name),
            _ => {
                let expected = read::alternatives(&HOOKS);
                let fault = Fault::new("literal_error", format!("Input should be {expected}"))
                    .with_ctx(serde_json::json!({ "expected": expected }));
                findings.at(Loc::At(index), |inner| inner.add(fault, Some(hook)));
            }
        }
    }
    Some(names)
}

/// A credential that the metadata name must be there.
pub(super) async fn check_credential(
    state: &AppState,
    account: &AccountId,
    vendor: Vendor,
    metadata: Option<&Json>,
    findings: &mut Findings,
) -> Result<(), ApiError> {
    let metadata = metadata.and_then(|json| Entries::of(json.raw()));
    let Some(given) = metadata.and_then(|metadata| metadata.given("credential")) else {
        return Ok(());
    };
    let fault = match read::string(given).map(|name| name.parse::<CredentialName>()) {
        Ok(Ok(name)) => {
            let usable = credential::usable(state, account, vendor, &name).await?;
            usable.err().map(Fault::value)
        }
        Ok(Err(reason)) => Some(Fault::value(reason)),
        Err(fault) => Some(fault),
    };
    if let Some(fault) = fault {
        findings.within("model_metadata", |inner| {
            inner.within("credential", |inner| inner.add(fault, Some(given)));
        });
    }
    Ok(())
}
