//! The adapters of a process: by vendor, by model where a model has settings of its own, and by key
//! where a vendor has several.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use async_trait::async_trait;
use inferq_common::{
    clock::{Clock, SystemClock},
    config::{Config, VendorConfig},
    vendor::Vendor,
};

use crate::{
    Adapter, Call, Chunks, Reply, bedrock,
    error::{BuildError, VendorError},
    model_zoo, openai,
    remote::http::Clients,
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
#[derive(Debug, Clone, Default)]
pub struct Registry(Arc<BTreeMap<Vendor, Entry>>);

#[derive(Debug)]
struct Entry {
    /// For models without settings of their own.
    shared: Candidates,
    models: HashMap<String, Candidates>,
}

impl Registry {
    /// The adapters of every vendor this release serves, as `config` describes them.
    ///
    /// # Errors
    /// `BuildError` names the vendor and what to change.
    pub fn new(config: &Config) -> Result<Self, BuildError> {
        let workshop = Workshop { clients: Clients::default(), clock: Arc::new(SystemClock) };
        let mut vendors = BTreeMap::new();
        for &vendor in Vendor::SERVED {
            let entry = workshop.entry(vendor, &config.vendor(vendor));
            vendors.insert(vendor, entry.map_err(|reason| BuildError { vendor, reason })?);
        }
        Ok(Self(Arc::new(vendors)))
    }

    /// These adapters alone.
    pub fn of(adapters: impl IntoIterator<Item = (Vendor, Arc<dyn Adapter>)>) -> Self {
        let entry = |adapter| Entry {
            shared: Arc::new([Candidate { credential: "default".into(), adapter }]),
            models: HashMap::new(),
        };
        let entries = adapters.into_iter().map(|(vendor, adapter)| (vendor, entry(adapter)));
        Self(Arc::new(entries.collect()))
    }

    /// The ways to call a model; `None`: this process has no adapter for the vendor.
    pub fn candidates(&self, vendor: Vendor, model: &str) -> Option<&Candidates> {
        let entry = self.0.get(&vendor)?;
        Some(entry.models.get(model).unwrap_or(&entry.shared))
    }

    /// The vendors it can serve.
    pub fn vendors(&self) -> impl Iterator<Item = Vendor> {
        self.0.keys().copied()
    }
}

/// What adapters are built with.
struct Workshop {
    clients: Clients,
    clock: Arc<dyn Clock>,
}

impl Workshop {
    fn entry(&self, vendor: Vendor, config: &VendorConfig) -> Result<Entry, String> {
        let mut models = HashMap::new();
        for (name, own) in &config.models {
            let upstream = own.upstream_model.as_deref();
            let candidates = self.candidates(vendor, &config.for_model(name), upstream);
            let candidates = candidates.map_err(|reason| format!("models.{name}: {reason}"))?;
            models.insert(name.clone(), candidates);
        }
        Ok(Entry { shared: self.candidates(vendor, config, None)?, models })
    }

    /// One candidate for each key, or a single one where there is no key.
    fn candidates(
        &self,
        vendor: Vendor,
        config: &VendorConfig,
        upstream_model: Option<&str>,
    ) -> Result<Candidates, String> {
        let keys: Vec<_> = config.api_key.iter().chain(&config.api_keys).cloned().collect();
        let one = |number: usize, api_key| {
            let own = VendorConfig { api_key, api_keys: Vec::new(), ..config.clone() };
            let mut adapter = self.adapter(vendor, &own)?;
            if let Some(model) = upstream_model {
                adapter = Arc::new(Renamed { adapter, model: model.to_owned() });
            }
            Ok(Candidate { credential: format!("key-{number}").into(), adapter })
        };
        if keys.is_empty() {
            return Ok(Arc::new([one(1, None)?]));
        }
        keys.into_iter().enumerate().map(|(index, key)| one(index + 1, Some(key))).collect()
    }

    fn adapter(&self, vendor: Vendor, config: &VendorConfig) -> Result<Arc<dyn Adapter>, String> {
        let (clients, clock) = (&self.clients, Arc::clone(&self.clock));
        Ok(match vendor {
            Vendor::OpenAi => Arc::new(openai::adapter(config, clients, clock)?),
            Vendor::ModelZoo => Arc::new(model_zoo::ModelZoo),
            Vendor::Bedrock => Arc::new(bedrock::adapter(config, clients, clock)?),
            _ => return Err("this release has no adapter for it".to_owned()),
        })
    }
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

    async fn stream(&self, call: &Call) -> Result<Chunks, VendorError> {
        self.adapter.stream(&self.renamed(call)).await
    }
}

#[cfg(test)]
mod tests {
    use secrecy::SecretString;

    use super::*;

    fn config(change: impl FnOnce(&mut VendorConfig)) -> Config {
        let mut config = Config::load(None).unwrap();
        let openai = config.vendors.entry(Vendor::OpenAi).or_default();
        // Without TLS, so that the machine needs no root certificates.
        openai.base_url = Some("http://127.0.0.1:1/v1".parse().unwrap());
        change(openai);
        config
    }

    #[test]
    fn there_is_an_adapter_for_every_vendor_served() {
        let registry = Registry::new(&config(|_| {})).unwrap();
        assert!(registry.vendors().eq(Vendor::SERVED.iter().copied()));
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
        }))
        .unwrap();
        let names = |model| {
            let candidates = registry.candidates(Vendor::OpenAi, model).unwrap();
            candidates.iter().map(|one| one.credential.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(names("gpt-5"), ["key-1", "key-2"]);
        assert_eq!(names("special"), ["key-1"]);
    }
}
