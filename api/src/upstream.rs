//! What vendors' servers call the models that clients name otherwise.

use std::{collections::HashMap, sync::Arc};

use inferq_common::{
    config::Config,
    vendor::{ModelName, Vendor},
};

/// The `upstream_model` of each model that has one; clones share them.
///
/// A vendor's endpoint can depend on the model's name: on the one that the vendor is told.
#[derive(Debug, Clone, Default)]
pub struct UpstreamModels(Arc<HashMap<Vendor, HashMap<String, String>>>);

impl UpstreamModels {
    pub fn of(config: &Config) -> Self {
        let named = |vendor| {
            let models = config.vendor(vendor).models.into_iter();
            models.filter_map(|(name, own)| Some((name, own.upstream_model?))).collect()
        };
        Self(Arc::new(Vendor::ALL.iter().map(|&vendor| (vendor, named(vendor))).collect()))
    }

    /// What the server of `model` calls it.
    pub(crate) fn name<'a>(&'a self, model: &'a ModelName) -> &'a str {
        let upstream = self.0.get(&model.vendor).and_then(|models| models.get(&model.name));
        upstream.unwrap_or(&model.name)
    }
}

#[cfg(test)]
mod tests {
    use inferq_common::job::{Json, Route};

    use super::*;
    use crate::rules::args_fit;

    #[test]
    fn the_endpoint_is_that_of_the_model_the_vendor_is_told() {
        let mut config = Config::load(None).unwrap();
        let bedrock = config.vendors.entry(Vendor::Bedrock).or_default();
        let own = bedrock.models.entry("my-claude".to_owned()).or_default();
        own.upstream_model = Some("anthropic.claude-haiku-4-5-20251001-v1:0".to_owned());
        let upstream = UpstreamModels::of(&config);
        let args = Json::parse(r#"{"messages":[{"role":"user","content":"hi"}],"max_tokens":1}"#);
        let args = args.unwrap();
        let fit = |model: &str| args_fit(&upstream, &model.parse().unwrap(), &args, None);
        let of_vendor = fit("bedrock/anthropic.claude-haiku-4-5-20251001-v1:0").unwrap();
        assert_eq!(of_vendor, Some(Route::Invoke));
        assert_eq!(fit("bedrock/my-claude").unwrap(), of_vendor);
        assert_ne!(fit("bedrock/other").ok(), Some(of_vendor));
    }
}
