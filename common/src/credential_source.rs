//! Open credentials for those who call vendors.

use std::{sync::Arc, time::Duration};

use crate::{
    cache::Cache,
    credential::{CredentialName, MasterKeys, OpenCredential, SealError, SealedCredential},
    id::AccountId,
    store::{SharedStore, StoreError},
    vendor::Vendor,
};

/// A credential that was put or deleted is seen after at most this long.
const LIFETIME: Duration = Duration::from_secs(5);

/// Answers kept in memory, "there is none" included.
const MAX_ENTRIES: usize = 10_000;

/// Account, vendor and the name that is wanted; without one, the vendor's default.
type Key = (AccountId, Vendor, Option<CredentialName>);
type Found = Result<Option<Arc<OpenCredential>>, CredentialError>;

/// Why a credential cannot be used.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CredentialError {
    /// Whether there is one cannot be told now.
    #[error("credentials cannot be read")]
    Store(#[source] Arc<StoreError>),
    /// It is there, but this process cannot open it: an operator has to act.
    #[error("credential '{name}' cannot be used: {reason}")]
    Sealed { name: CredentialName, reason: SealError },
    /// The name was given to a credential of another vendor meanwhile.
    #[error("credential '{name}' is for {actual}, not for {wanted}")]
    OtherVendor { name: CredentialName, actual: Vendor, wanted: Vendor },
}

/// Finds and opens the credentials of accounts; clones share what they know.
///
/// An answer is up to 5 s old. Lookups of the same credential at the same time are one.
#[derive(Debug, Clone)]
pub struct CredentialSource {
    store: SharedStore,
    keys: Arc<MasterKeys>,
    cache: Arc<Cache<Key, Found, StoreError>>,
}

impl CredentialSource {
    pub fn new(store: SharedStore, keys: Arc<MasterKeys>) -> Self {
        Self { store, keys, cache: Arc::new(Cache::new(LIFETIME, MAX_ENTRIES)) }
    }

    /// The account's credential `wanted`, or its default for the vendor where none is wanted.
    /// `None`: there is no such credential.
    ///
    /// **Cancel safe:** another caller who waits for the same goes on with it.
    ///
    /// # Errors
    /// `Store` while the store is away, which is not remembered; `Sealed` and `OtherVendor` where
    /// there is one and it cannot be used.
    pub async fn find(
        &self,
        account: &AccountId,
        vendor: Vendor,
        wanted: Option<&CredentialName>,
    ) -> Found {
        let key = (account.clone(), vendor, wanted.cloned());
        let found = self.cache.get(key, self.load(account, vendor, wanted)).await;
        found.unwrap_or_else(|error| Err(CredentialError::Store(error)))
    }

    async fn load(
        &self,
        account: &AccountId,
        vendor: Vendor,
        wanted: Option<&CredentialName>,
    ) -> Result<Found, StoreError> {
        let sealed = match wanted {
            Some(name) => self.store.find_credential(account, name).await?,
            None => self.store.find_default_credential(account, vendor).await?,
        };
        Ok(sealed.map(|sealed| self.open(sealed, vendor)).transpose())
    }

    fn open(
        &self,
        sealed: SealedCredential,
        vendor: Vendor,
    ) -> Result<Arc<OpenCredential>, CredentialError> {
        let name = sealed.name.clone();
        if sealed.vendor != vendor {
            let actual = sealed.vendor;
            return Err(CredentialError::OtherVendor { name, actual, wanted: vendor });
        }
        match self.keys.open(sealed) {
            Ok(open) => Ok(Arc::new(open.into())),
            Err(reason) => Err(CredentialError::Sealed { name, reason }),
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::{SeedableRng as _, rngs::StdRng};
    use secrecy::{ExposeSecret as _, SecretString};
    use serde_json::value::RawValue;
    use tempfile::TempDir;
    use tokio::time::advance;

    use super::*;
    use crate::{
        clock::{Clock as _, SystemClock},
        config::DatabaseConfig,
        credential::{CredentialMember, CredentialSecret, MasterKey},
        id::CredentialId,
        store::{NewCredential, sqlite::SqliteStore},
    };

    const VENDOR: Vendor = Vendor::OpenAi;

    fn keys(byte: u8) -> Arc<MasterKeys> {
        let key = SecretString::from(format!("{byte:02x}").repeat(32));
        Arc::new(MasterKeys::new(Some(MasterKey::parse(&key).unwrap()), Vec::new()))
    }

    struct Shelf {
        store: SharedStore,
        _folder: TempDir,
    }

    impl Shelf {
        async fn new() -> Self {
            let folder = TempDir::new().unwrap();
            let config = DatabaseConfig {
                url: format!("sqlite://{}/test.db", folder.path().display()).into(),
                max_connections: 4,
                acquire_timeout_ms: 5000,
                max_group: 64,
            };
            let store: SharedStore = Arc::new(SqliteStore::open(&config).unwrap());
            store.migrate().await.unwrap();
            let secret = SecretString::from("whsec_x");
            store.ensure_account(&acme(), &secret, SystemClock.now()).await.unwrap();
            Self { store, _folder: folder }
        }

        fn source(&self) -> CredentialSource {
            CredentialSource::new(Arc::clone(&self.store), keys(7))
        }

        async fn put(&self, text: &str, key: &str, default: bool) {
            let raw: Box<RawValue> = serde_json::from_str(&format!("\"{key}\"")).unwrap();
            let secret = CredentialSecret::read(VENDOR, [("api_key", &*raw)]).unwrap();
            let (account, name, now) = (acme(), name(text), SystemClock.now());
            let mut rng = StdRng::seed_from_u64(1);
            let secret = keys(7).seal(&secret, (&account, &name, VENDOR), &mut rng).unwrap();
            let id = CredentialId::new(now);
            let default = Some(default);
            let new = NewCredential { id, account, name, vendor: VENDOR, secret, default, now };
            self.store.put_credential(&new).await.unwrap();
        }
    }

    fn acme() -> AccountId {
        "acme".parse().unwrap()
    }

    fn name(text: &str) -> CredentialName {
        text.parse().unwrap()
    }

    /// The key of a credential that is found.
    async fn key(source: &CredentialSource, wanted: Option<&str>) -> Option<String> {
        let wanted = wanted.map(name);
        let open = source.find(&acme(), VENDOR, wanted.as_ref()).await.unwrap()?;
        Some(open.secret.get(CredentialMember::ApiKey).unwrap().expose_secret().to_owned())
    }

    /// What was learned before is too old now. The store's threads need real time to answer, so
    /// tokio's stands still only for this.
    async fn later() {
        tokio::time::pause();
        advance(LIFETIME).await;
        tokio::time::resume();
    }

    #[tokio::test]
    async fn the_one_that_is_wanted_is_found_or_else_the_default() {
        let shelf = Shelf::new().await;
        let source = shelf.source();
        assert_eq!(key(&source, None).await, None);
        shelf.put("a", "key-a", false).await;
        shelf.put("b", "key-b", true).await;
        assert_eq!(key(&source, Some("a")).await.as_deref(), Some("key-a"));
        assert_eq!(key(&source, Some("c")).await, None);
        assert_eq!(key(&source, None).await, None, "that there is none is remembered");
        later().await;
        assert_eq!(key(&source, None).await.as_deref(), Some("key-b"));
        let other: AccountId = "other".parse().unwrap();
        assert!(source.find(&other, VENDOR, Some(&name("a"))).await.unwrap().is_none());
        assert!(source.find(&other, VENDOR, None).await.unwrap().is_none());
        assert!(source.find(&acme(), Vendor::Xai, None).await.unwrap().is_none());
    }

    #[tokio::test]
    async fn a_change_is_seen_after_five_seconds() {
        let shelf = Shelf::new().await;
        let source = shelf.source();
        shelf.put("a", "one", false).await;
        let first = source.find(&acme(), VENDOR, Some(&name("a"))).await.unwrap().unwrap();
        shelf.put("a", "two", false).await;
        assert_eq!(key(&source, Some("a")).await.as_deref(), Some("one"));
        later().await;
        let second = source.find(&acme(), VENDOR, Some(&name("a"))).await.unwrap().unwrap();
        assert_eq!(key(&source, Some("a")).await.as_deref(), Some("two"));
        assert_eq!((first.version, second.version), (1, 2));
        assert_eq!(first.id, second.id);
        shelf.store.delete_credential(&acme(), &name("a")).await.unwrap();
        later().await;
        assert_eq!(key(&source, Some("a")).await, None);
    }

    #[tokio::test]
    async fn lookups_of_the_same_at_the_same_time_are_one() {
        let shelf = Shelf::new().await;
        shelf.put("a", "one", true).await;
        let source = shelf.source();
        let account = acme();
        let lookups = (0..100).map(|_| source.find(&account, VENDOR, None));
        let found = futures::future::try_join_all(lookups).await.unwrap();
        let first = found[0].as_ref().unwrap();
        assert!(found.iter().all(|one| Arc::ptr_eq(one.as_ref().unwrap(), first)));
    }

    #[tokio::test]
    async fn what_cannot_be_opened_is_an_error_that_names_it() {
        let shelf = Shelf::new().await;
        shelf.put("a", "one", true).await;
        for (keys, words) in [
            (keys(8), "is sealed with master key"),
            (Arc::default(), "this server has no master key; set INFERQ__SECRETS__MASTER_KEY"),
        ] {
            let source = CredentialSource::new(Arc::clone(&shelf.store), keys);
            for wanted in [None, Some(name("a"))] {
                let error = source.find(&acme(), VENDOR, wanted.as_ref()).await.unwrap_err();
                let text = error.to_string();
                assert!(text.starts_with("credential 'a' cannot be used: "), "{text}");
                assert!(text.contains(words), "{text}");
            }
            // An account without credentials needs no key.
            assert!(source.find(&acme(), Vendor::Xai, None).await.unwrap().is_none());
        }
        let error = shelf.source().find(&acme(), Vendor::Xai, Some(&name("a"))).await.unwrap_err();
        assert_eq!(error.to_string(), "credential 'a' is for openai, not for xai");
    }

    #[tokio::test]
    async fn an_outage_is_told_to_all_and_not_remembered() {
        let shelf = Shelf::new().await;
        shelf.put("a", "one", true).await;
        let source = shelf.source();
        shelf.store.close().await;
        let error = source.find(&acme(), VENDOR, None).await.unwrap_err();
        assert!(matches!(error, CredentialError::Store(_)), "{error:?}");
        let key = (acme(), VENDOR, None);
        let again = source.cache.get(key, async { Ok(Ok(None)) }).await;
        assert!(matches!(again, Ok(Ok(None))), "the failure is forgotten");
    }
}
