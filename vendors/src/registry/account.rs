//! Adapters that use an account's credential in place of the operator's.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use inferq_common::{
    config::VendorConfig,
    credential::{CredentialMember, CredentialSecret, OpenCredential},
    id::CredentialId,
    vendor::Vendor,
};

use super::Candidates;

/// Credentials whose adapters are kept; each has a few kilobytes, and connections are shared.
const MAX_KEPT: usize = 1024;

/// What an adapter is built for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub credential: CredentialId,
    /// A credential that was replaced has another.
    pub version: i64,
    /// The model, if it has settings of its own.
    pub model: Option<String>,
}

/// Adapters that were built before, so that their tokens are fetched once.
#[derive(Debug, Default)]
pub(super) struct Kept(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    adapters: HashMap<Key, (u64, Candidates)>,
    /// Counts the uses; what was used longest ago goes first.
    uses: u64,
}

impl Kept {
    /// What is kept under `key`, else what `build` makes of it.
    pub(super) fn get_or(
        &self,
        key: Key,
        build: impl FnOnce() -> Result<Candidates, String>,
    ) -> Result<Candidates, String> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.uses += 1;
        let now = state.uses;
        if let Some((used, candidates)) = state.adapters.get_mut(&key) {
            *used = now;
            return Ok(candidates.clone());
        }
        let candidates = build()?;
        if state.adapters.len() >= MAX_KEPT {
            let mut uses: Vec<u64> = state.adapters.values().map(|(used, _)| *used).collect();
            let (_, &mut middle, _) = uses.select_nth_unstable(MAX_KEPT / 2);
            state.adapters.retain(|_, (used, _)| *used > middle);
        }
        state.adapters.insert(key, (now, candidates.clone()));
        Ok(candidates)
    }
}

/// The operator's settings with an account's credential in place of every one of the operator's own:
/// what the credential leaves out is absent, never the operator's. Where calls go stays the
/// operator's.
pub(super) fn with_credential(
    vendor: Vendor,
    config: &VendorConfig,
    credential: &OpenCredential,
) -> VendorConfig {
    let secret = &credential.secret;
    let get = |member| secret.get(member).cloned();
    let plain = |member| secret.plain(member).map(str::to_owned);
    let text = |member| member_text(secret, member);
    let is_google = vendor == Vendor::VertexAi;
    VendorConfig {
        api_key: None,
        api_keys: secret.api_keys().cloned().collect(),
        access_key_id: get(CredentialMember::AccessKeyId),
        secret_access_key: get(CredentialMember::SecretAccessKey),
        session_token: get(CredentialMember::SessionToken),
        profile: None,
        service_account: get(CredentialMember::ServiceAccount),
        credentials_file: None,
        tenant_id: text(CredentialMember::TenantId),
        client_id: text(CredentialMember::ClientId),
        client_secret: get(CredentialMember::ClientSecret),
        federated_token_file: None,
        managed_identity: None,
        organization: plain(CredentialMember::Organization),
        // Google's project says where a model is called, OpenAI's who pays.
        project: plain(CredentialMember::Project)
            .or_else(|| config.project.clone().filter(|_| is_google)),
        region: plain(CredentialMember::Region).or_else(|| config.region.clone()),
        location: plain(CredentialMember::Location).or_else(|| config.location.clone()),
        models: std::collections::BTreeMap::new(),
        ..config.clone()
    }
}

/// The text of a member that settings do not treat as a secret.
fn member_text(secret: &CredentialSecret, member: CredentialMember) -> Option<String> {
    secret.get(member).map(|text| secrecy::ExposeSecret::expose_secret(text).to_owned())
}
