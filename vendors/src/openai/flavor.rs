//! What sets one vendor of OpenAI's format apart from another.

use std::borrow::Cow;

use inferq_common::{error::ErrorClass, job::Route, usage::Usage, vendor::Vendor};
use serde_json::Value;

use super::wire::{self, WireError};

/// A vendor's own ways with OpenAI's format; everything else is as OpenAI has it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Flavor {
    pub vendor: Vendor,
    /// Where the vendor's own address begins; empty where every customer has another.
    pub base_url: &'static str,
    /// Whether a stream tells its usage only where `stream_options` ask for it.
    pub asks_for_usage: bool,
    /// The name the vendor wants of a model.
    pub model: fn(&str) -> Cow<'_, str>,
    /// Reads a `usage` object.
    pub usage: fn(Route, &Value) -> Usage,
    /// The class of an error that the vendor names in its own words; looked at before OpenAI's.
    pub class: fn(Option<u16>, &WireError) -> Option<ErrorClass>,
    /// What to do about a missing or refused key, such as `set THIS or that`; empty: nothing is
    /// said.
    pub key_advice: &'static str,
}

/// OpenAI itself, and the servers that mimic it.
pub(crate) static OPENAI: Flavor = PLAIN;

/// Servers that the catalogue of models names.
pub(crate) static MODEL_ZOO: Flavor = Flavor { vendor: Vendor::ModelZoo, ..PLAIN };

const PLAIN: Flavor = Flavor {
    vendor: Vendor::OpenAi,
    base_url: wire::BASE_URL,
    asks_for_usage: true,
    model: |name| Cow::Borrowed(name),
    usage: wire::usage,
    class: |_, _| None,
    key_advice: "",
};
