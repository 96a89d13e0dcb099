//! Fireworks: OpenAI's format, model ids in accounts, and errors of several shapes.
//!
//! Source: <https://docs.fireworks.ai/api-reference/introduction>.

mod classify;
mod wire;

use std::sync::Arc;

use inferq_common::{clock::Clock, config::VendorConfig, vendor::Vendor};

use crate::{
    openai::{self, Flavor, OpenAi},
    remote::{Remote, http::Clients},
};

static FLAVOR: Flavor = Flavor {
    vendor: Vendor::FireworksAi,
    base_url: "https://api.fireworks.ai/inference/v1",
    // The last chunk has the usage without being asked for it.
    asks_for_usage: false,
    model: wire::model,
    usage: openai::wire::usage,
    class: classify::class,
    key_advice: "set FIREWORKS_API_KEY or vendors.fireworks_ai.api_key",
};

/// An adapter for Fireworks, or for what stands in for it at the address in `config`.
///
/// # Errors
/// A sentence for an operator: which setting is at fault, or that TLS cannot be set up.
pub fn adapter(
    config: &VendorConfig,
    clients: &Clients,
    clock: Arc<dyn Clock>,
) -> Result<Remote<OpenAi>, String> {
    openai::compatible(&FLAVOR, config, clients, clock)
}
