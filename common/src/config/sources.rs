//! Where settings come from, and what is said about those that cannot be used.

use std::path::Path;

use figment::{
    Figment, Metadata, Profile, Provider,
    error::{Actual, Kind},
    providers::{Env, Format as _, Serialized, Toml},
    value::{Dict, Map, Value},
};
use serde::de::DeserializeOwned;

use super::{ConfigError, DEFAULTS};

/// Variables other tools use as well, and the key each one stands for.
const CONVENTIONAL: &[(&str, &str)] = &[
    ("DATABASE_URL", "database.url"),
    ("AMQP_URL", "broker.url"),
    ("OPENAI_API_KEY", "vendors.openai.api_key"),
    ("OPENAI_BASE_URL", "vendors.openai.base_url"),
    ("OPENAI_ORG_ID", "vendors.openai.organization"),
    ("OPENAI_PROJECT_ID", "vendors.openai.project"),
    ("ANTHROPIC_API_KEY", "vendors.anthropic.api_key"),
    ("ANTHROPIC_BASE_URL", "vendors.anthropic.base_url"),
    ("COHERE_API_KEY", "vendors.cohere.api_key"),
    ("CO_API_KEY", "vendors.cohere.api_key"),
    ("CO_API_URL", "vendors.cohere.base_url"),
    // Google's own clients take the second where both are set.
    ("GEMINI_API_KEY", "vendors.gemini.api_key"),
    ("GOOGLE_API_KEY", "vendors.gemini.api_key"),
    ("GOOGLE_GEMINI_BASE_URL", "vendors.gemini.base_url"),
    ("GOOGLE_CLOUD_PROJECT", "vendors.vertex_ai.project"),
    ("GOOGLE_CLOUD_LOCATION", "vendors.vertex_ai.location"),
    ("GOOGLE_APPLICATION_CREDENTIALS", "vendors.vertex_ai.credentials_file"),
    ("AZURE_OPENAI_API_KEY", "vendors.azure.api_key"),
    ("AZURE_OPENAI_ENDPOINT", "vendors.azure.base_url"),
    ("OPENAI_API_VERSION", "vendors.azure.api_version"),
    ("AZURE_TENANT_ID", "vendors.azure.tenant_id"),
    ("AZURE_CLIENT_ID", "vendors.azure.client_id"),
    ("AZURE_CLIENT_SECRET", "vendors.azure.client_secret"),
    ("AZURE_FEDERATED_TOKEN_FILE", "vendors.azure.federated_token_file"),
    ("AZURE_AUTHORITY_HOST", "vendors.azure.authority_url"),
    ("AWS_BEARER_TOKEN_BEDROCK", "vendors.bedrock.api_key"),
    ("AWS_DEFAULT_REGION", "vendors.bedrock.region"),
    ("AWS_REGION", "vendors.bedrock.region"),
    ("AWS_ENDPOINT_URL_BEDROCK_RUNTIME", "vendors.bedrock.base_url"),
    ("XAI_API_KEY", "vendors.xai.api_key"),
    ("FIREWORKS_API_KEY", "vendors.fireworks_ai.api_key"),
    ("FIREWORKS_BASE_URL", "vendors.fireworks_ai.base_url"),
    ("LAUNCH_API_KEY", "vendors.launch.api_key"),
    ("SCALE_API_KEY", "vendors.llmengine.api_key"),
    ("LLM_ENGINE_BASE_PATH", "vendors.llmengine.base_url"),
];

/// Begins the name of every variable of ours.
const PREFIX: &str = "INFERQ__";

/// Parts sections and keys in a variable's name; one `_` is part of a key.
const SEPARATOR: &str = "__";

/// The defaults alone.
pub(super) fn defaults() -> Figment {
    Figment::from(Toml::string(DEFAULTS))
}

/// The defaults, then `file`, then the environment: later ones win.
pub(super) fn layered(file: Option<&Path>) -> Figment {
    let mut figment = defaults();
    if let Some(file) = file {
        figment = figment.merge(Toml::file_exact(file));
    }
    for (name, key) in CONVENTIONAL {
        figment = with_variable(figment, name, key, &Env::var(name).unwrap_or_default());
    }
    for (key, value) in Env::prefixed(PREFIX).split(SEPARATOR).iter() {
        let name = format!("{PREFIX}{}", key.as_str().to_uppercase().replace('.', SEPARATOR));
        figment = with_variable(figment, &name, key.as_str(), &value);
    }
    figment
}

/// A variable that means a setting and is spelt with single underscores: it would be passed over.
///
/// # Errors
/// `Invalid`, with the right spelling.
pub(super) fn refuse_single_underscores(
    is_setting: impl Fn(&str) -> bool,
) -> Result<(), ConfigError> {
    for (name, value) in Env::prefixed("INFERQ_").iter() {
        let name = name.as_str();
        // One more `_`: that is how a setting begins.
        if name.starts_with('_') || value.trim().is_empty() {
            continue;
        }
        let words: Vec<&str> = name.split('_').filter(|word| !word.is_empty()).collect();
        if let Some(key) = keys(&words).into_iter().find(|key| is_setting(key)) {
            let right = format!("{PREFIX}{}", key.replace('.', SEPARATOR)).to_uppercase();
            let name = name.to_uppercase();
            let words = format!("INFERQ_{name} is no setting: write {right}");
            return Err(ConfigError::Invalid(words));
        }
    }
    Ok(())
}

/// Whether `T` has this key: a nonsensical value of it is wrong, but not unknown.
pub(super) fn knows<T: DeserializeOwned>(key: &str) -> bool {
    let variable = Variable { name: String::new(), key: key.into(), value: "?".into() };
    match defaults().merge(variable).extract_lossy::<T>() {
        Ok(_) => true,
        Err(errors) => errors.into_iter().any(|error| {
            !matches!(error.kind, Kind::UnknownField(..)) && error.path.join(".") == key
        }),
    }
}

/// The keys that these words could spell.
fn keys(words: &[&str]) -> Vec<String> {
    let Some((section, rest)) = words.split_first() else { return Vec::new() };
    if rest.is_empty() {
        return Vec::new();
    }
    if *section != "vendors" {
        return vec![format!("{section}.{}", rest.join("_"))];
    }
    // A vendor's name may be of two words.
    (1..rest.len())
        .map(|n| format!("vendors.{}.{}", rest[..n].join("_"), rest[n..].join("_")))
        .collect()
}

/// The same with settings of the command line on top.
pub(super) fn with_settings(figment: Figment, settings: &[(&'static str, &str)]) -> Figment {
    settings.iter().fold(figment, |figment, (key, value)| {
        let nested = figment::util::nest(key, Value::from(*value));
        figment.merge(Serialized::defaults(nested))
    })
}

/// An empty variable is taken as unset: that is how compose files and CI leave one out.
fn with_variable(figment: Figment, name: &str, key: &str, value: &str) -> Figment {
    let value = value.trim();
    if value.is_empty() {
        return figment;
    }
    figment.merge(Variable { name: name.into(), key: key.into(), value: value.into() })
}

/// One environment variable. Its value stays text: figment's own provider would read a key of
/// digits as a number and a comma or bracket as a list.
struct Variable {
    name: String,
    key: String,
    value: String,
}

impl Provider for Variable {
    fn metadata(&self) -> Metadata {
        Metadata::named(format!("environment variable {}", self.name))
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        let nested = figment::util::nest(&self.key, Value::from(self.value.as_str()));
        Ok(Profile::Default.collect(nested.into_dict().unwrap_or_default()))
    }
}

/// Reads the settings; text becomes a number where a number is asked for.
pub(super) fn extract<T: DeserializeOwned>(figment: &Figment) -> Result<T, ConfigError> {
    figment.extract_lossy().map_err(|errors| {
        let each = errors.into_iter().map(|error| words(figment, &error));
        ConfigError::Invalid(each.collect::<Vec<_>>().join("; "))
    })
}

/// One complaint: the key, what is wrong, and where the value came from; never the value itself,
/// which may be a secret in the wrong place.
fn words(figment: &Figment, error: &figment::Error) -> String {
    let mut path = error.path.clone();
    if let Kind::UnknownField(field, _) = &error.kind
        && path.last() != Some(field)
    {
        path.push(field.clone());
    }
    let key = path.join(".");
    let found = figment.find_metadata(&key).or(error.metadata.as_ref());
    let source = found.map(|metadata| match &metadata.source {
        Some(source) => format!("{} {source}", metadata.name),
        None => metadata.name.to_string(),
    });
    let mut words = describe(&error.kind);
    if !key.is_empty() {
        words = format!("{key}: {words}");
    }
    match source {
        Some(source) => format!("{words} (in {source})"),
        None => words,
    }
}

fn describe(kind: &Kind) -> String {
    match kind {
        Kind::Message(text) => one_line(text),
        Kind::InvalidType(actual, expected) => {
            format!("must be {}, not {}", plain(expected), sort_of(actual))
        }
        Kind::InvalidValue(Actual::Signed(number), expected) => {
            format!("must be {}, not {number}", plain(expected))
        }
        Kind::InvalidValue(Actual::Unsigned(number), expected) => {
            format!("must be {}, not {number}", plain(expected))
        }
        Kind::InvalidValue(_, expected) => format!("must be {}", plain(expected)),
        Kind::UnknownField(_, known) => format!("no such setting; there are {}", known.join(", ")),
        Kind::UnknownVariant(_, known) => format!("must be one of {}", known.join(", ")),
        other => one_line(&other.to_string()),
    }
}

/// What serde expected, for people.
fn plain(expected: &str) -> &str {
    match expected {
        "u8" | "u16" | "u32" | "u64" | "usize" => "a whole number",
        "a string" | "a borrowed string" => "text",
        _ if expected.starts_with("struct ") => "a section",
        _ => expected,
    }
}

fn sort_of(actual: &Actual) -> &'static str {
    match actual {
        Actual::Bool(_) => "true or false",
        Actual::Unsigned(_) | Actual::Signed(_) => "a whole number",
        Actual::Float(_) => "a fraction",
        Actual::Char(_) | Actual::Str(_) => "text",
        Actual::Seq => "a list",
        Actual::Map => "a section",
        _ => "this",
    }
}

/// Leaves out the lines of the file that the TOML parser quotes: they may hold secrets.
fn one_line(text: &str) -> String {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let said = lines.filter(|line| {
        let margin = line.trim_start_matches(|c: char| c.is_ascii_digit()).trim_start();
        !margin.starts_with('|')
    });
    said.collect::<Vec<_>>().join(": ")
}
