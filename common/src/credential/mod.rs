//! Credentials: how an account pays a vendor by itself, instead of with the operator's keys.
//!
//! A credential is a name, a vendor and a [`CredentialSecret`]. It is stored and passed around as a
//! [`SealedCredential`]; [`MasterKeys`] turn one into the other.

mod member;
mod seal;
mod secret;
mod service_account;
#[cfg(test)]
mod tests;

use std::{fmt, str::FromStr};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

pub use self::{
    member::CredentialMember,
    seal::{
        Envelope, InvalidMasterKey, KeyId, MasterKey, MasterKeys, SealError, generate_master_key,
    },
    secret::{CredentialSecret, MemberFault, MemberFaultKind, MemberStep},
    service_account::TOKEN_URI,
};
use crate::{
    id::{AccountId, CredentialId},
    vendor::Vendor,
};

/// The name of a credential, unique within its account: 1 to 63 characters of `a-z 0-9 _ -`, the
/// first a letter or a digit.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct CredentialName(std::sync::Arc<str>);

/// The text is no name of a credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "a credential's name has 1 to 63 characters of a-z, 0-9, '_' and '-', the first a letter or a \
     digit"
)]
pub struct InvalidCredentialName;

impl CredentialName {
    /// What a name must match.
    pub const PATTERN: &str = "^[a-z0-9][a-z0-9_-]{0,62}$";

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for CredentialName {
    type Err = InvalidCredentialName;

    fn from_str(text: &str) -> Result<Self, InvalidCredentialName> {
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let first = text.bytes().next().is_some_and(plain);
        let rest = text.bytes().all(|byte| plain(byte) || matches!(byte, b'_' | b'-'));
        if first && rest && text.len() <= 63 {
            Ok(Self(text.into()))
        } else {
            Err(InvalidCredentialName)
        }
    }
}

impl TryFrom<String> for CredentialName {
    type Error = InvalidCredentialName;

    fn try_from(text: String) -> Result<Self, InvalidCredentialName> {
        text.parse()
    }
}

impl From<CredentialName> for String {
    fn from(name: CredentialName) -> Self {
        name.0.as_ref().to_owned()
    }
}

impl fmt::Display for CredentialName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for CredentialName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CredentialName({})", self.0)
    }
}

/// A credential of an account: open, or with its secret as `S`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credential<S = CredentialSecret> {
    pub id: CredentialId,
    pub account: AccountId,
    pub name: CredentialName,
    pub vendor: Vendor,
    pub secret: S,
    /// Whether jobs of this vendor use it whose model names none; at most one a vendor is.
    pub is_default: bool,
    pub created_at: DateTime<Utc>,
    /// When it was put last.
    pub updated_at: DateTime<Utc>,
    /// Counts the times it was put, from 1.
    pub version: i64,
}

/// A credential as it is stored: nobody can read it without the master key.
pub type SealedCredential = Credential<Envelope>;

/// What a vendor's adapter needs of a credential. `id` and `version` together name its content: a
/// credential that was replaced has another version.
#[derive(Debug, Clone)]
pub struct OpenCredential {
    pub id: CredentialId,
    pub version: i64,
    /// For messages.
    pub name: CredentialName,
    pub vendor: Vendor,
    pub secret: CredentialSecret,
}

impl From<Credential> for OpenCredential {
    fn from(credential: Credential) -> Self {
        let Credential { id, version, name, vendor, secret, .. } = credential;
        Self { id, version, name, vendor, secret }
    }
}
