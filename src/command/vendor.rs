//! `inferq vendor`: what is set up for each vendor, and whether it works. Asks the vendors directly,
//! with this machine's configuration; no platform needs to run.

use std::{path::Path, time::Duration};

use clap::{Args, Subcommand};
use inferq_common::{
    clock::{Clock as _, SystemClock},
    config::{Config, VendorConfig},
    error::ErrorClass,
    id::JobId,
    job::Json,
    vendor::Vendor,
};
use inferq_vendors::{Call, Candidate, Registry, Share, VendorError};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::{
    exit::{Failure, code},
    output,
};

/// No vendor has a model of this name: who answers that has accepted the key, and charges nothing.
const NO_MODEL: &str = "inferq-check";

#[derive(Debug, Args)]
pub struct VendorArgs {
    /// Print JSON for programs
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: VendorCommand,
}

#[derive(Debug, Subcommand)]
enum VendorCommand {
    /// List the vendors and what is configured for each
    List,
    /// Call a vendor with each of its keys and say what is wrong if that fails
    ///
    /// Without --model it asks for a model that does not exist, which costs nothing: a vendor that
    /// says so has accepted the key.
    Check {
        /// The vendor, such as openai
        vendor: Vendor,
        /// Call this model for real, with as short an answer as it can give
        #[arg(long)]
        model: Option<String>,
        /// How long the vendor may take, in seconds
        #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=600))]
        timeout: u64,
    },
}

pub async fn run(args: VendorArgs, file: Option<&Path>) -> Result<(), Failure> {
    let config = Config::load(file)?;
    match args.command {
        VendorCommand::List => list(&config, args.json),
        VendorCommand::Check { vendor, model, timeout } => {
            let own = config.vendor(vendor);
            if let (None, Some(reason)) = (&model, needs_model(vendor, &own)) {
                return Err(Failure::new(code::INVALID, reason));
            }
            let registry = Registry::new(&config)
                .map_err(|error| Failure::new(code::CONFIG, error.to_string()))?;
            let timeout = Duration::from_secs(timeout);
            check(&registry, vendor, model.as_deref(), timeout, args.json).await
        }
    }
}

fn list(config: &Config, json: bool) -> Result<(), Failure> {
    let entries = Vendor::ALL.iter().map(|&vendor| (vendor, config.vendor(vendor)));
    if json {
        let items: Vec<Value> = entries.map(|(vendor, config)| entry(vendor, &config)).collect();
        return output::json(&json!({ "items": items }));
    }
    let rows = entries.map(|(vendor, config)| {
        let models: Vec<&str> = config.models.keys().map(String::as_str).collect();
        let models = if models.is_empty() { "-".to_owned() } else { models.join(", ") };
        vec![vendor.to_string(), address(&config), credentials(vendor, &config).join(", "), models]
    });
    let header = ["vendor", "address", "credentials", "models with settings of their own"];
    output::table(&header, rows.collect(), "no vendors")
}

fn entry(vendor: Vendor, config: &VendorConfig) -> Value {
    json!({
        "vendor": vendor,
        "base_url": config.base_url.as_ref().map(url::Url::as_str),
        "credentials": credentials(vendor, config),
        "models": config.models.keys().collect::<Vec<_>>(),
    })
}

fn address(config: &VendorConfig) -> String {
    config.base_url.as_ref().map_or_else(|| "the vendor's own".to_owned(), ToString::to_string)
}

/// What there is to prove who calls, without telling it.
fn credentials(vendor: Vendor, config: &VendorConfig) -> Vec<String> {
    let n_keys = usize::from(config.api_key.is_some()) + config.api_keys.len();
    let keys = match n_keys {
        0 => None,
        1 => Some("1 key".to_owned()),
        n => Some(format!("{n} keys")),
    };
    let named = [
        (config.access_key_id.is_some(), "AWS access key"),
        (config.profile.is_some(), "AWS profile"),
        (config.service_account.is_some(), "service account"),
        (config.credentials_file.is_some(), "credentials file"),
        (config.client_secret.is_some(), "Entra client"),
        (config.federated_token_file.is_some(), "Entra workload"),
        (config.managed_identity == Some(true), "managed identity"),
    ];
    let named = named.into_iter().filter(|(there, _)| *there).map(|(_, name)| name.to_owned());
    let found: Vec<String> = keys.into_iter().chain(named).collect();
    if !found.is_empty() {
        return found;
    }
    vec![match vendor {
        // AWS's and Google's own places are looked through when a call is made.
        Vendor::Bedrock | Vendor::VertexAi => "what this machine has, if any".to_owned(),
        _ => "none configured".to_owned(),
    }]
}

/// The shortest request there is, in the vendor's own format.
fn smallest(vendor: Vendor) -> Value {
    match vendor {
        Vendor::Gemini | Vendor::VertexAi => json!({
            "contents": [{ "role": "user", "parts": [{ "text": "hi" }] }],
            "generationConfig": { "maxOutputTokens": 1 },
        }),
        Vendor::Bedrock => json!({
            "messages": [{ "role": "user", "content": [{ "text": "hi" }] }],
            "inferenceConfig": { "maxTokens": 1 },
        }),
        Vendor::LlmEngine => json!({ "prompt": "hi", "max_new_tokens": 1, "temperature": 0.1 }),
        Vendor::Launch => json!({}),
        Vendor::Anthropic | Vendor::Cohere => json!({
            "messages": [{ "role": "user", "content": "hi" }], "max_tokens": 1,
        }),
        Vendor::OpenAi | Vendor::Azure | Vendor::Xai | Vendor::FireworksAi | Vendor::ModelZoo => {
            json!({ "messages": [{ "role": "user", "content": "hi" }] })
        }
    }
}

/// What to say where no vendor can be asked about a model that does not exist: the catalogue has a
/// server for each of its entries.
fn needs_model(vendor: Vendor, config: &VendorConfig) -> Option<String> {
    if vendor != Vendor::ModelZoo || config.base_url.is_some() {
        return None;
    }
    let names: Vec<&str> = config.models.keys().map(String::as_str).collect();
    let names = ["echo"].iter().chain(&names).copied().collect::<Vec<_>>().join(", ");
    Some(format!("each entry of {vendor} has a server of its own: name one with --model ({names})"))
}

/// What came of one key.
struct Checked {
    credential: String,
    works: bool,
    words: String,
    /// How the command ends if this key does not work.
    code: u8,
}

async fn check(
    registry: &Registry,
    vendor: Vendor,
    model: Option<&str>,
    limit: Duration,
    json: bool,
) -> Result<(), Failure> {
    let asked = model.unwrap_or(NO_MODEL);
    let candidates = registry
        .candidates(vendor, asked)
        .ok_or_else(|| Failure::new(code::INVALID, format!("there is no adapter for {vendor}")))?;
    let args = Json::of(&smallest(vendor))
        .map_err(|error| Failure::new(code::INTERNAL, error.to_string()))?;
    let mut all = Vec::new();
    for candidate in candidates.iter() {
        let call = Call {
            job_id: JobId::new(SystemClock.now()),
            attempt: 1,
            model: asked.to_owned(),
            args: args.clone(),
            route: None,
            timeout: limit,
            memory: Share::default(),
        };
        all.push(check_one(candidate, &call, model.is_some()).await);
    }
    if json {
        let items = all.iter().map(
            |one| json!({ "credential": one.credential, "works": one.works, "message": one.words }),
        );
        output::json(&json!({ "vendor": vendor, "items": items.collect::<Vec<_>>() }))?;
    } else {
        for Checked { credential, works, words, .. } in &all {
            let sign = if *works { "ok" } else { "failed" };
            output::line(format_args!("{vendor} {credential}: {sign}: {words}"))?;
        }
    }
    match all.iter().find(|one| !one.works) {
        // The lines above say it.
        Some(failed) => Err(Failure::new(failed.code, "")),
        None => Ok(()),
    }
}

async fn check_one(candidate: &Candidate, call: &Call, is_real: bool) -> Checked {
    let credential = candidate.credential.to_string();
    let answer = timeout(call.timeout, candidate.adapter.call(call)).await;
    let (works, words, code) = match answer {
        Ok(Ok(_)) => (true, "the vendor answered".to_owned(), 0),
        Ok(Err(error)) => judge(&error, is_real),
        Err(_) => {
            let words = format!("no answer within {} s", call.timeout.as_secs());
            (false, words, code::UNAVAILABLE)
        }
    };
    Checked { credential, works, words, code }
}

/// What a refusal tells about the credential.
fn judge(error: &VendorError, is_real: bool) -> (bool, String, u8) {
    let message = &error.error.message;
    // A refusal without the vendor's status is our own: the vendor was not asked.
    let answered = error.error.vendor_status.is_some();
    match error.class() {
        // A page that is missing, or a method that is not allowed, says nothing about the key.
        ErrorClass::NotFound | ErrorClass::InvalidRequest
            if answered && !is_real && !speaks_of_model(message) =>
        {
            let words =
                "the answer says nothing of the model asked for: check the vendor's base_url";
            (false, format!("{message}; {words}"), code::INVALID)
        }
        ErrorClass::NotFound | ErrorClass::InvalidRequest if answered && !is_real => {
            (true, format!("the credential is accepted; no model was called ({message})"), 0)
        }
        ErrorClass::Auth => (false, message.clone(), code::NO_PERMISSION),
        ErrorClass::QuotaExhausted => {
            (false, format!("{message}; the credential's quota is exhausted"), code::UNAVAILABLE)
        }
        ErrorClass::RateLimited | ErrorClass::Overloaded => {
            (false, format!("{message}; try again later"), code::UNAVAILABLE)
        }
        ErrorClass::NotFound | ErrorClass::InvalidRequest => {
            (false, message.clone(), code::INVALID)
        }
        ErrorClass::Protocol => (
            false,
            format!("{message}; is it the vendor that answers? check its base_url"),
            code::UNAVAILABLE,
        ),
        _ => (false, message.clone(), code::UNAVAILABLE),
    }
}

/// Whether a refusal is about a model, as vendors call it.
fn speaks_of_model(message: &str) -> bool {
    let message = message.to_ascii_lowercase();
    [NO_MODEL, "model", "deployment", "endpoint"].iter().any(|word| message.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(class: ErrorClass, status: Option<u16>) -> VendorError {
        said(class, status, "the vendor answered: the model does not exist")
    }

    fn said(class: ErrorClass, status: Option<u16>, message: &str) -> VendorError {
        let mut error = VendorError::new(class, message);
        error.error.vendor_status = status;
        error
    }

    #[test]
    fn a_server_that_knows_of_no_models_is_not_the_vendor() {
        for (class, status, message) in [
            (ErrorClass::NotFound, 404, "the vendor answered 404: Not Found"),
            (ErrorClass::NotFound, 404, "the vendor answered 404: <html><title>404</title></html>"),
            (ErrorClass::InvalidRequest, 405, "the vendor answered 405: Method Not Allowed"),
            (ErrorClass::InvalidRequest, 501, "the vendor answered 501: Unsupported method"),
        ] {
            let (works, words, code) = judge(&said(class, Some(status), message), false);
            assert_eq!((works, code), (false, code::INVALID), "{words}");
            assert!(words.contains("check the vendor's base_url"), "{words}");
        }
        for message in [
            "the vendor answered 404: The API deployment for this resource does not exist.",
            "the vendor answered 404: The specified endpoint could not be found.",
            "the vendor answered 404: inferq-check",
        ] {
            assert!(judge(&said(ErrorClass::NotFound, Some(404), message), false).0, "{message}");
        }
    }

    #[test]
    fn a_vendor_that_misses_the_model_has_accepted_the_key() {
        for class in [ErrorClass::NotFound, ErrorClass::InvalidRequest] {
            assert!(judge(&error(class, Some(404)), false).0);
            assert!(!judge(&error(class, Some(404)), true).0, "a real model is to be there");
            assert!(!judge(&error(class, None), false).0, "nobody was asked");
        }
    }

    #[test]
    fn each_kind_of_failure_ends_with_its_code() {
        for (class, expected) in [
            (ErrorClass::Auth, code::NO_PERMISSION),
            (ErrorClass::QuotaExhausted, code::UNAVAILABLE),
            (ErrorClass::RateLimited, code::UNAVAILABLE),
            (ErrorClass::Transient, code::UNAVAILABLE),
            (ErrorClass::Protocol, code::UNAVAILABLE),
        ] {
            let (works, _, code) = judge(&error(class, Some(500)), false);
            assert_eq!((works, code), (false, expected), "{class}");
        }
    }

    #[test]
    fn an_entry_of_the_catalogue_is_to_be_named() {
        let mut config = VendorConfig::default();
        config.models.entry("llama".to_owned()).or_default();
        let reason = needs_model(Vendor::ModelZoo, &config).unwrap();
        assert!(reason.ends_with("name one with --model (echo, llama)"), "{reason}");
        assert_eq!(needs_model(Vendor::OpenAi, &config), None);
        config.base_url = Some("http://127.0.0.1:1/v1".parse().unwrap());
        assert_eq!(needs_model(Vendor::ModelZoo, &config), None);
    }

    #[test]
    fn the_smallest_request_fits_an_endpoint_of_its_vendor() {
        for &vendor in Vendor::ALL {
            let args = smallest(vendor).to_string();
            inferq_common::route::choose(vendor, NO_MODEL, &args, None)
                .unwrap_or_else(|error| panic!("{vendor}: {error}"));
        }
    }
}
