//! The adapters of a process: by vendor, by model where a model has settings of its own, and by key
//! where a vendor has several.

mod account;

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use async_trait::async_trait;
use inferq_common::{
    clock::{Clock, SystemClock},
    config::{Config, ModelOverrides, VendorConfig},
    credential::OpenCredential,
    error::ErrorClass,
    vendor::Vendor,
};

use self::account::Kept;
use crate::{
    Adapter, Assemble, Call, Chunks, Progress, Reply, anthropic, azure, bedrock, cohere,
    error::{BuildError, VendorError},
    fireworks_ai, gemini, launch, llmengine, model_zoo, openai,
    remote::http::Clients,
    vertex_ai, xai,
};

/// One way to make a call: an adapter and the key it uses.
#[derive(Debug, Clone)]
pub struct Candidate {
    /// Names the key among those of its vendor, without telling it; for circuits and limits.
    pub credential: Arc<str>,
    pub adapter: Arc<dyn Adapter>,
}

/// The ways to make a call, to be tried in their order; at least one.
pub type Candidates = Arc<[Candidate]>;

/// The adapters of a process. Clones share it.
#[derive(Debug, Clone)]
pub struct Registry(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    entries: BTreeMap<Vendor, Entry>,
    workshop: Workshop,
    /// Of accounts' credentials.
    kept: Kept,
}

#[derive(Debug)]
struct Entry {
    config: VendorConfig,
    /// For models without settings of their own.
    shared: Candidates,
    models: HashMap<String, Candidates>,
}

impl Registry {
    /// The adapters of every vendor, as `config` describes them.
    ///
    /// # Errors
    /// `BuildError` names the vendor and what to change.
    pub fn new(config: &Config) -> Result<Self, BuildError> {
        let workshop = Workshop::default();
        let mut vendors = BTreeMap::new();
        for &vendor in Vendor::ALL {
            let entry = workshop.entry(vendor, &config.vendor(vendor));
            vendors.insert(vendor, entry.map_err(|reason| BuildError { vendor, reason })?);
        }
        Ok(Self(Arc::new(Inner { entries: vendors, workshop, kept: Kept::default() })))
    }

    /// These adapters alone.
    pub fn of(adapters: impl IntoIterator<Item = (Vendor, Arc<dyn Adapter>)>) -> Self {
        Self::of_keys(adapters.into_iter().map(|(vendor, adapter)| (vendor, vec![adapter])))
    }

    /// These adapters alone, one for each key of a vendor; at least one.
    pub fn of_keys(adapters: impl IntoIterator<Item = (Vendor, Vec<Arc<dyn Adapter>>)>) -> Self {
        let named = |(index, adapter)| {
            let credential =
                if index == 0 { "default".into() } else { format!("key-{}", index + 1) };
            Candidate { credential: credential.into(), adapter }
        };
        let entry = |adapters: Vec<_>| Entry {
            config: VendorConfig::default(),
            shared: adapters.into_iter().enumerate().map(named).collect(),
            models: HashMap::new(),
        };
        let entries = adapters.into_iter().map(|(vendor, adapters)| (vendor, entry(adapters)));
        let (entries, workshop) = (entries.collect(), Workshop::default());
        Self(Arc::new(Inner { entries, workshop, kept: Kept::default() }))
    }

    /// The ways to call a model; `None`: this process has no adapter for the vendor.
    pub fn candidates(&self, vendor: Vendor, model: &str) -> Option<&Candidates> {
        let entry = self.0.entries.get(&vendor)?;
        Some(entry.models.get(model).unwrap_or(&entry.shared))
    }

    /// The ways to call a model with an account's credential: one for each of its keys.
    ///
    /// # Errors
    /// Of class `auth`: nothing can be called with the credential. `Internal`: this process has no
    /// adapter for the vendor.
    pub fn candidates_with(
        &self,
        credential: &OpenCredential,
        model: &str,
    ) -> Result<Candidates, VendorError> {
        let vendor = credential.vendor;
        let Some(entry) = self.0.entries.get(&vendor) else {
            let message = "the worker has no adapter for this vendor";
            return Err(VendorError::new(ErrorClass::Internal, message));
        };
        let own = entry.config.models.get_key_value(model);
        let own = own.map(|(name, own)| (name.as_str(), own));
        let key = account::Key {
            credential: credential.id,
            version: credential.version,
            model: own.map(|_| model.to_owned()),
        };
        let build = || {
            let config =
                account::with_credential(vendor, &entry.config.for_model(model), credential);
            let prefix = format!("{}.{}.", credential.id, credential.version);
            self.0.workshop.candidates(vendor, &config, own, &prefix)
        };
        self.0.kept.get_or(key, build).map_err(|reason| {
            let message = format!("credential '{}' cannot be used: {reason}", credential.name);
            VendorError::new(ErrorClass::Auth, message)
        })
    }

    /// The vendors it can serve.
    pub fn vendors(&self) -> impl Iterator<Item = Vendor> {
        self.0.entries.keys().copied()
    }
}

/// What adapters are built with.
#[derive(Debug)]
struct Workshop {
    clients: Clients,
    clock: Arc<dyn Clock>,
}

impl Default for Workshop {
    fn default() -> Self {
        Self { clients: Clients::default(), clock: Arc::new(SystemClock) }
    }
}

impl Workshop {
    fn entry(&self, vendor: Vendor, config: &VendorConfig) -> Result<Entry, String> {
        let mut models = HashMap::new();
        for (name, own) in &config.models {
            let own = Some((name.as_str(), own));
            let candidates = self.candidates(vendor, &config.for_model(name), own, "");
            let candidates = candidates.map_err(|reason| format!("models.{name}: {reason}"))?;
            models.insert(name.clone(), candidates);
        }
        let shared = self.candidates(vendor, config, None, "")?;
        Ok(Entry { config: config.clone(), shared, models })
    }

    /// One candidate for each key, or a single one, `default`, where there is no key. `prefix` tells
    /// keys of accounts apart; where a model has a server or a way to prove itself of its own, its
    /// name tells them from the vendor's, which are good or bad without it.
    fn candidates(
        &self,
        vendor: Vendor,
        config: &VendorConfig,
        model: Option<(&str, &ModelOverrides)>,
        prefix: &str,
    ) -> Result<Candidates, String> {
        let mut prefix = prefix.to_owned();
        if let Some((name, _)) = model.filter(|(_, own)| proves_itself(own)) {
            prefix = format!("{prefix}{name}.");
        }
        let keys: Vec<_> = config.api_key.iter().chain(&config.api_keys).cloned().collect();
        let one = |label: String, api_key| {
            let own = VendorConfig { api_key, api_keys: Vec::new(), ..config.clone() };
            let mut adapter = self.adapter(vendor, &own, model.is_some())?;
            if let Some(model) = model.and_then(|(_, own)| own.upstream_model.clone()) {
                adapter = Arc::new(Renamed { adapter, model });
            }
            Ok(Candidate { credential: format!("{prefix}{label}").into(), adapter })
        };
        if keys.is_empty() {
            return Ok(Arc::new([one("default".to_owned(), None)?]));
        }
        let numbered = (1..).zip(keys);
        numbered.map(|(number, key)| one(format!("key-{number}"), Some(key))).collect()
    }

    /// `is_entry`: the settings are those of a single model.
    fn adapter(
        &self,
        vendor: Vendor,
        config: &VendorConfig,
        is_entry: bool,
    ) -> Result<Arc<dyn Adapter>, String> {
        let (clients, clock) = (&self.clients, Arc::clone(&self.clock));
        Ok(match vendor {
            Vendor::Anthropic => Arc::new(anthropic::adapter(config, clients, clock)?),
            Vendor::Cohere => Arc::new(cohere::adapter(config, clients, clock)?),
            Vendor::OpenAi => Arc::new(openai::adapter(config, clients, clock)?),
            Vendor::Gemini => Arc::new(gemini::adapter(config, clients, clock)?),
            Vendor::VertexAi => Arc::new(vertex_ai::adapter(config, clients, clock)?),
            Vendor::Azure => Arc::new(azure::adapter(config, clients, clock)?),
            Vendor::Xai => Arc::new(xai::adapter(config, clients, clock)?),
            Vendor::FireworksAi => Arc::new(fireworks_ai::adapter(config, clients, clock)?),
            Vendor::ModelZoo if is_entry => Arc::new(model_zoo::entry(config, clients, clock)?),
            Vendor::ModelZoo => Arc::new(model_zoo::adapter(config, clients, clock)?),
            Vendor::Bedrock => Arc::new(bedrock::adapter(config, clients, clock)?),
            Vendor::Launch => Arc::new(launch::adapter(config, clients, clock)?),
            Vendor::LlmEngine => Arc::new(llmengine::adapter(config, clients, clock)?),
        })
    }
}

/// Whether a model's server, or what it is shown, is not the vendor's.
fn proves_itself(own: &ModelOverrides) -> bool {
    own.api_key.is_some() || own.base_url.is_some() || !own.headers.is_empty()
}

/// Calls a model by the name its server has for it.
#[derive(Debug)]
struct Renamed {
    adapter: Arc<dyn Adapter>,
    model: String,
}

impl Renamed {
    fn renamed(&self, call: &Call) -> Call {
        Call { model: self.model.clone(), ..call.clone() }
    }
}

#[async_trait]
impl Adapter for Renamed {
    async fn call(&self, call: &Call) -> Result<Reply, VendorError> {
        self.adapter.call(&self.renamed(call)).await
    }

    async fn advance(&self, call: &Call, ticket: Option<&str>) -> Result<Progress, VendorError> {
        self.adapter.advance(&self.renamed(call), ticket).await
    }

    async fn stream(&self, call: &Call) -> Result<Chunks, VendorError> {
        self.adapter.stream(&self.renamed(call)).await
    }

    fn assemble(&self, call: &Call) -> Box<dyn Assemble> {
        self.adapter.assemble(&self.renamed(call))
    }
}

#[cfg(test)]
mod tests {
    use secrecy::SecretString;

    use super::*;
    use crate::Share;

    fn config(change: impl FnOnce(&mut VendorConfig)) -> Config {
        let mut config = Config::load(None).unwrap();
        let openai = config.vendors.entry(Vendor::OpenAi).or_default();
        // Without TLS, so that the machine needs no root certificates.
        openai.base_url = Some("http://127.0.0.1:1/v1".parse().unwrap());
        change(openai);
        config
    }

    #[test]
    fn there_is_an_adapter_for_every_vendor() {
        let registry = Registry::new(&config(|_| {})).unwrap();
        assert!(registry.vendors().eq(Vendor::ALL.iter().copied()));
    }

    #[test]
    fn a_bad_setting_is_named_with_its_vendor() {
        let config = config(|openai| openai.api_key = Some("\u{7}".into()));
        let error = Registry::new(&config).unwrap_err().to_string();
        assert!(error.starts_with("vendors.openai: api_key: "), "{error}");
        assert!(!error.contains('\u{7}'));
    }

    #[test]
    fn each_key_is_a_candidate_and_a_model_may_have_its_own() {
        let registry = Registry::new(&config(|openai| {
            openai.api_key = Some(SecretString::from("key-number-1"));
            openai.api_keys = vec![SecretString::from("key-number-2")];
            let own = openai.models.entry("special".to_owned()).or_default();
            own.api_key = Some(SecretString::from("key-number-3"));
            own.upstream_model = Some("plain".to_owned());
            let renamed = openai.models.entry("renamed".to_owned()).or_default();
            renamed.upstream_model = Some("plain".to_owned());
        }))
        .unwrap();
        let names = |model| {
            let candidates = registry.candidates(Vendor::OpenAi, model).unwrap();
            candidates.iter().map(|one| one.credential.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(names("gpt-5"), ["key-1", "key-2"]);
        assert_eq!(names("special"), ["special.key-1"], "a bad one says nothing of the vendor's");
        assert_eq!(names("renamed"), ["key-1", "key-2"]);
        let registry = Registry::new(&config(|_| {})).unwrap();
        let keyless = &registry.candidates(Vendor::OpenAi, "gpt-5").unwrap()[0];
        assert_eq!(&*keyless.credential, "default");
    }

    fn zoo(change: impl FnOnce(&mut VendorConfig)) -> Result<Registry, BuildError> {
        let mut config = config(|_| {});
        change(config.vendors.entry(Vendor::ModelZoo).or_default());
        Registry::new(&config)
    }

    #[tokio::test]
    async fn an_entry_of_the_catalogue_calls_its_own_server_by_its_own_name() {
        let server = wiremock::MockServer::start().await;
        let answer = wiremock::ResponseTemplate::new(200).set_body_raw("{}", "application/json");
        wiremock::Mock::given(wiremock::matchers::path("/v1/chat/completions"))
            .and(wiremock::matchers::body_string(r#"{"model":"meta/llama","messages":[]}"#))
            .and(wiremock::matchers::header("authorization", "Bearer zoo-key-1"))
            .respond_with(answer)
            .mount(&server)
            .await;
        let registry = zoo(|zoo| {
            let entry = zoo.models.entry("llama".to_owned()).or_default();
            entry.base_url = Some(format!("{}/v1", server.uri()).parse().unwrap());
            entry.upstream_model = Some("meta/llama".to_owned());
            entry.api_key = Some("zoo-key-1".into());
        })
        .unwrap();
        let call = |model: &str| Call {
            job_id: inferq_common::id::JobId::new(SystemClock.now()),
            attempt: 1,
            model: model.to_owned(),
            args: inferq_common::job::Json::parse(r#"{"messages":[]}"#).unwrap(),
            route: None,
            timeout: std::time::Duration::from_secs(60),
            memory: Share::default(),
        };
        let of = |model| &registry.candidates(Vendor::ModelZoo, model).unwrap()[0].adapter;
        let reply = of("llama").call(&call("llama")).await.unwrap();
        assert_eq!(reply.response.as_str(), "{}");
        let reply = of("echo").call(&call("echo")).await.unwrap();
        assert_eq!(reply.response.as_str(), r#"{"messages":[]}"#);
        let error = of("gpt").call(&call("gpt")).await.unwrap_err().to_string();
        assert!(error.starts_with("model_zoo has no model 'gpt'; it has: echo, llama"), "{error}");
    }

    #[test]
    fn entries_of_the_catalogue_are_judged_apart() {
        let registry = zoo(|zoo| {
            for (name, key) in [("llama", None), ("qwen", None), ("phi", Some("zoo-key-1"))] {
                let entry = zoo.models.entry(name.to_owned()).or_default();
                entry.base_url = Some("http://127.0.0.1:1/v1".parse().unwrap());
                entry.api_key = key.map(SecretString::from);
            }
        })
        .unwrap();
        let names = ["llama", "qwen", "phi", "echo"].map(|model| {
            registry.candidates(Vendor::ModelZoo, model).unwrap()[0].credential.clone()
        });
        assert_eq!(
            names.each_ref().map(|name| &**name),
            ["llama.default", "qwen.default", "phi.key-1", "default"]
        );
    }

    #[test]
    fn an_entry_of_the_catalogue_must_name_its_server() {
        let error = zoo(|zoo| _ = zoo.models.entry("llama".to_owned()).or_default()).unwrap_err();
        let error = error.to_string();
        assert!(error.starts_with("vendors.model_zoo: models.llama: base_url: "), "{error}");
    }
}
