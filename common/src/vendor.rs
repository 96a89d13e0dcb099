//! Who serves a model, and how a model is named.

use std::{fmt, str::FromStr};

macro_rules! text_enum {
    (
        $(#[$doc:meta])*
        $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $text:literal),+ $(,)? }
    ) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, ::serde::Serialize, ::serde::Deserialize)]
        pub enum $name {
            $($(#[$variant_doc])* #[serde(rename = $text)] $variant,)+
        }

        impl $name {
            /// All of them, in the order of the contract.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The word used on the wire, in columns, metrics and messages.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }
        }

        impl ::std::fmt::Display for $name {
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl ::std::str::FromStr for $name {
            type Err = $crate::vendor::UnknownWord;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                match text {
                    $($text => Ok(Self::$variant),)+
                    other => Err($crate::vendor::UnknownWord {
                        word: other.to_owned(),
                        known: &[$($text),+],
                    }),
                }
            }
        }
    };
}
pub(crate) use text_enum;

/// A word outside a closed set.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{word}' is none of {}", known.join(", "))]
pub struct UnknownWord {
    pub word: String,
    pub known: &'static [&'static str],
}

text_enum! {
    /// Who serves a model.
    Vendor {
        OpenAi = "openai",
        Cohere = "cohere",
        VertexAi = "vertex_ai",
        Anthropic = "anthropic",
        Azure = "azure",
        Gemini = "gemini",
        Launch = "launch",
        LlmEngine = "llmengine",
        ModelZoo = "model_zoo",
        Bedrock = "bedrock",
        Xai = "xai",
        FireworksAi = "fireworks_ai",
    }
}

/// `vendor/name`: split once, at the first `/`; the name is the vendor's own and passed on as it is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ModelName {
    pub vendor: Vendor,
    pub name: String,
}

/// Why a text is no `vendor/name`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidModelName {
    #[error("model must be 'vendor/name', such as openai/gpt-5; '{0}' has no '/'")]
    NoSlash(String),
    #[error("unknown vendor: {0}")]
    UnknownVendor(#[from] UnknownWord),
    #[error("the model name after '{0}/' is empty")]
    EmptyName(Vendor),
    #[error("a model name has at most {MAX_MODEL_NAME_BYTES} bytes")]
    TooLong,
    #[error("a model name has no control characters")]
    ControlCharacter,
}

/// Long enough for any Bedrock ARN (2,048 is AWS's own bound).
pub const MAX_MODEL_NAME_BYTES: usize = 2048;

impl ModelName {
    /// Whether inferq runs the model itself; it takes any JSON and has no endpoint to choose.
    pub fn is_built_in(&self) -> bool {
        self.vendor == Vendor::ModelZoo && self.name == "echo"
    }
}

impl FromStr for ModelName {
    type Err = InvalidModelName;

    fn from_str(text: &str) -> Result<Self, InvalidModelName> {
        let Some((vendor, name)) = text.split_once('/') else {
            return Err(InvalidModelName::NoSlash(text.chars().take(200).collect()));
        };
        let vendor: Vendor = vendor.parse()?;
        if name.is_empty() {
            return Err(InvalidModelName::EmptyName(vendor));
        }
        if text.len() > MAX_MODEL_NAME_BYTES {
            return Err(InvalidModelName::TooLong);
        }
        if name.chars().any(char::is_control) {
            return Err(InvalidModelName::ControlCharacter);
        }
        Ok(Self { vendor, name: name.to_owned() })
    }
}

impl fmt::Display for ModelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.vendor, self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_name_is_split_at_the_first_slash() {
        for text in [
            "openai/ft:gpt-4o-mini-2024-07-18:acme::abc123",
            "fireworks_ai/accounts/acme/models/m#accounts/acme/deployments/d1",
            "bedrock/arn:aws:bedrock:us-east-1:000000000000:inference-profile/us.amazon.nova-pro-v1:0",
        ] {
            let model: ModelName = text.parse().unwrap();
            assert_eq!(model.to_string(), text);
        }
        let model: ModelName = "openai/a/b".parse().unwrap();
        assert_eq!((model.vendor, model.name.as_str()), (Vendor::OpenAi, "a/b"));
    }

    #[test]
    fn what_is_no_model_name_says_why() {
        let message = |text: &str| text.parse::<ModelName>().unwrap_err().to_string();
        assert_eq!(
            message("gpt-5"),
            "model must be 'vendor/name', such as openai/gpt-5; 'gpt-5' has no '/'"
        );
        assert!(message("acme/x").starts_with("unknown vendor: 'acme' is none of openai, cohere"));
        assert_eq!(message("xai/"), "the model name after 'xai/' is empty");
        assert!(message("OpenAI/x").starts_with("unknown vendor"));
    }
}
