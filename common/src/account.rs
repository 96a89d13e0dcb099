//! Accounts, their API keys and their callback secrets.

use chrono::{DateTime, Utc};
use rand::Rng;
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};

use crate::id::{AccountId, ApiKeyId};

/// A client's key as it is stored: only its hash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiKey {
    pub id: ApiKeyId,
    /// The account it acts for unless the request selects another.
    pub account: AccountId,
    /// Further accounts it may act for.
    pub other_accounts: Vec<AccountId>,
    /// For people.
    pub name: String,
    /// The first characters of the key, to tell keys apart.
    pub prefix: String,
    pub hash: KeyHash,
    pub created_at: DateTime<Utc>,
    pub revoked_at: Option<DateTime<Utc>>,
}

impl ApiKey {
    pub fn may_use(&self, account: &AccountId) -> bool {
        self.account == *account || self.other_accounts.contains(account)
    }
}

/// SHA-256 of a key. Keys made here carry 256 random bits, so a slow hash would add nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyHash(pub [u8; 32]);

impl KeyHash {
    pub fn of(key: &SecretString) -> Self {
        Self(Sha256::digest(key.expose_secret().as_bytes()).into())
    }
}

/// How many characters of a key are kept for display.
const PREFIX_CHARS: usize = 8;

/// The part of a key that may be shown.
pub fn key_prefix(key: &SecretString) -> String {
    key.expose_secret().chars().take(PREFIX_CHARS).collect()
}

/// A new key: `iq_` and 256 random bits in lower-case hex.
pub fn generate_key(rng: &mut impl Rng) -> SecretString {
    let halves: [u128; 2] = rng.random();
    SecretString::from(format!("iq_{:032x}{:032x}", halves[0], halves[1]))
}

#[cfg(test)]
mod tests {
    use rand::{SeedableRng, rngs::StdRng};

    use super::*;

    #[test]
    fn a_key_is_long_and_its_debug_hides_it() {
        let key = generate_key(&mut StdRng::seed_from_u64(1));
        assert_eq!(key.expose_secret().len(), 3 + 64);
        assert!(key_prefix(&key).starts_with("iq_"));
        assert!(!format!("{key:?}").contains("iq_"));
        assert_eq!(KeyHash::of(&key), KeyHash::of(&key));
    }
}
