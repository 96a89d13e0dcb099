//! What a credential may hold, vendor by vendor.

use crate::vendor::{Vendor, text_enum};

text_enum! {
    /// A member of a credential's secret, by its name in JSON.
    CredentialMember {
        ApiKey = "api_key",
        /// 1 to 16 keys, tried in their order after `api_key`.
        ApiKeys = "api_keys",
        /// The Entra tenant of a client.
        TenantId = "tenant_id",
        ClientId = "client_id",
        ClientSecret = "client_secret",
        AccessKeyId = "access_key_id",
        SecretAccessKey = "secret_access_key",
        SessionToken = "session_token",
        /// Google's JSON key file, as text.
        ServiceAccount = "service_account",
        Region = "region",
        Location = "location",
        Project = "project",
        Organization = "organization",
    }
}

impl CredentialMember {
    /// What a credential of this vendor may hold, in the order in which mistakes are told.
    pub const fn of_vendor(vendor: Vendor) -> &'static [Self] {
        // No wildcard: a new vendor must choose.
        match vendor {
            Vendor::Cohere
            | Vendor::Anthropic
            | Vendor::Gemini
            | Vendor::Launch
            | Vendor::LlmEngine
            | Vendor::ModelZoo
            | Vendor::Xai
            | Vendor::FireworksAi => &[Self::ApiKey, Self::ApiKeys],
            Vendor::OpenAi => &[Self::ApiKey, Self::ApiKeys, Self::Organization, Self::Project],
            Vendor::Azure => {
                &[Self::ApiKey, Self::ApiKeys, Self::TenantId, Self::ClientId, Self::ClientSecret]
            }
            Vendor::Bedrock => &[
                Self::ApiKey,
                Self::AccessKeyId,
                Self::SecretAccessKey,
                Self::SessionToken,
                Self::Region,
            ],
            Vendor::VertexAi => {
                &[Self::ServiceAccount, Self::ApiKey, Self::Project, Self::Location]
            }
        }
    }

    /// The ways to prove who calls; a credential holds exactly one of them.
    pub(super) const fn ways(vendor: Vendor) -> &'static [Way] {
        match vendor {
            Vendor::Azure => &[Way::KEYS, Way::ENTRA],
            Vendor::Bedrock => &[Way::KEY, Way::AWS],
            Vendor::VertexAi => &[Way::SERVICE_ACCOUNT, Way::KEY],
            Vendor::Cohere
            | Vendor::Anthropic
            | Vendor::Gemini
            | Vendor::Launch
            | Vendor::LlmEngine
            | Vendor::ModelZoo
            | Vendor::Xai
            | Vendor::FireworksAi
            | Vendor::OpenAi => &[Way::KEYS],
        }
    }

    /// Whether its value is shown to nobody.
    pub const fn is_secret(self) -> bool {
        !matches!(self, Self::Region | Self::Location | Self::Project | Self::Organization)
    }
}

/// One way to prove who calls.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Way {
    /// Any of these makes it chosen.
    pub(super) members: &'static [CredentialMember],
    /// All of these it cannot do without; empty: any one of `members` will do.
    pub(super) required: &'static [CredentialMember],
    /// For people.
    pub(super) words: &'static str,
}

impl Way {
    const KEY: Self =
        Self { members: &[CredentialMember::ApiKey], required: &[], words: "api_key" };
    const KEYS: Self = Self {
        members: &[CredentialMember::ApiKey, CredentialMember::ApiKeys],
        required: &[],
        words: "api_key (or api_keys)",
    };
    const ENTRA: Self = Self {
        members: &[
            CredentialMember::TenantId,
            CredentialMember::ClientId,
            CredentialMember::ClientSecret,
        ],
        required: &[
            CredentialMember::TenantId,
            CredentialMember::ClientId,
            CredentialMember::ClientSecret,
        ],
        words: "tenant_id with client_id and client_secret",
    };
    const AWS: Self = Self {
        members: &[
            CredentialMember::AccessKeyId,
            CredentialMember::SecretAccessKey,
            CredentialMember::SessionToken,
        ],
        required: &[CredentialMember::AccessKeyId, CredentialMember::SecretAccessKey],
        words: "access_key_id with secret_access_key",
    };
    const SERVICE_ACCOUNT: Self = Self {
        members: &[CredentialMember::ServiceAccount],
        required: &[],
        words: "service_account",
    };
}
