//! xAI: OpenAI's format with arithmetic and words of its own.
//!
//! Source: <https://docs.x.ai/docs/api-reference>.

mod classify;
mod wire;

use std::{borrow::Cow, sync::Arc};

use inferq_common::{clock::Clock, config::VendorConfig, vendor::Vendor};

use crate::{
    openai::{self, Flavor, OpenAi},
    remote::{Remote, http::Clients},
};

static FLAVOR: Flavor = Flavor {
    vendor: Vendor::Xai,
    base_url: "https://api.x.ai/v1",
    asks_for_usage: true,
    model: |name| Cow::Borrowed(name),
    usage: wire::usage,
    class: classify::class,
    key_advice: "set XAI_API_KEY or vendors.xai.api_key",
};

/// An adapter for xAI, or for what stands in for it at the address in `config`.
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
