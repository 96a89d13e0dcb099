//! Encryption of secrets at rest.
//!
//! An envelope is one byte of format, 8 bytes that name the master key, a random nonce of 24 bytes,
//! and the ciphertext of XChaCha20-Poly1305 with its tag. What else the credential is (account, name
//! and vendor) is authenticated with it, so that no envelope can be moved to another row.
//!
//! Source: <https://datatracker.ietf.org/doc/html/draft-irtf-cfrg-xchacha-03>.

use std::fmt;

use base64::{
    Engine as _,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig, general_purpose::STANDARD},
};
use chacha20poly1305::{
    XChaCha20Poly1305, XNonce,
    aead::{Aead as _, KeyInit as _, Payload},
};
use rand::{CryptoRng, Rng};
use secrecy::{ExposeSecret as _, SecretBox, SecretString, zeroize::Zeroizing};
use sha2::{Digest as _, Sha256};

use super::{Credential, CredentialName, CredentialSecret, SealedCredential};
use crate::{id::AccountId, vendor::Vendor};

/// The only format there is so far.
const FORMAT: u8 = 1;
const KEY_ID_BYTES: usize = 8;
const NONCE_BYTES: usize = 24;
const HEAD_BYTES: usize = 1 + KEY_ID_BYTES + NONCE_BYTES;
const KEY_BYTES: usize = 32;

/// Keeps what is authenticated here apart from other uses of the same key.
const PURPOSE: &[u8] = b"inferq credential";

/// A sealed secret, as it is stored.
#[derive(Clone, PartialEq, Eq)]
pub struct Envelope(pub Vec<u8>);

/// The bytes are of use to nobody, and many.
impl fmt::Debug for Envelope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Envelope({} bytes)", self.0.len())
    }
}

impl Envelope {
    /// Which master key sealed it; `None`: it is damaged.
    pub fn key_id(&self) -> Option<KeyId> {
        let (_, rest) = self.0.split_first()?;
        rest.first_chunk().copied().map(KeyId)
    }
}

/// Names a master key without telling it: the first 8 bytes of its SHA-256.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyId([u8; KEY_ID_BYTES]);

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyId({self})")
    }
}

/// A key of 256 bits that seals secrets.
pub struct MasterKey {
    id: KeyId,
    key: SecretBox<[u8; KEY_BYTES]>,
}

impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MasterKey({})", self.id)
    }
}

/// The text is no master key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be 32 bytes in base64 or hex; `openssl rand -base64 32` makes one")]
pub struct InvalidMasterKey;

/// A new master key in base64, for a file or a setting.
pub fn generate_master_key(rng: &mut (impl Rng + CryptoRng)) -> SecretString {
    let mut bytes = Zeroizing::new([0; KEY_BYTES]);
    rng.fill(&mut *bytes);
    STANDARD.encode(*bytes).into()
}

impl MasterKey {
    /// Reads 32 bytes in hex or in base64 of either alphabet, padded or not; white space around
    /// them is dropped.
    ///
    /// # Errors
    /// If it is anything else.
    pub fn parse(text: &SecretString) -> Result<Self, InvalidMasterKey> {
        let bytes = decode(text.expose_secret().trim()).ok_or(InvalidMasterKey)?;
        let key: [u8; KEY_BYTES] = bytes.as_slice().try_into().map_err(|_| InvalidMasterKey)?;
        let mut id = [0; KEY_ID_BYTES];
        id.copy_from_slice(&Sha256::digest(key)[..KEY_ID_BYTES]);
        Ok(Self { id: KeyId(id), key: SecretBox::new(Box::new(key)) })
    }

    pub fn id(&self) -> KeyId {
        self.id
    }

    fn cipher(&self) -> XChaCha20Poly1305 {
        XChaCha20Poly1305::new(self.key.expose_secret().into())
    }

    fn encrypt(&self, nonce: [u8; NONCE_BYTES], plaintext: &[u8], aad: &[u8]) -> Vec<u8> {
        self.cipher()
            .encrypt(&XNonce::from(nonce), Payload { msg: plaintext, aad })
            .expect("a secret is far smaller than what one nonce can encrypt")
    }
}

fn decode(text: &str) -> Option<Zeroizing<Vec<u8>>> {
    if text.len() == 2 * KEY_BYTES && text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        let byte = |at: usize| u8::from_str_radix(&text[at..at + 2], 16).ok();
        return (0..text.len()).step_by(2).map(byte).collect::<Option<Vec<u8>>>().map(Into::into);
    }
    let url_safe = text.contains(['-', '_']);
    let alphabet = if url_safe { &base64::alphabet::URL_SAFE } else { &base64::alphabet::STANDARD };
    let lenient =
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    GeneralPurpose::new(alphabet, lenient).decode(text).ok().map(Into::into)
}

/// The master keys of a process: the one that seals, and older ones that can still open.
#[derive(Debug, Default)]
pub struct MasterKeys {
    current: Option<MasterKey>,
    previous: Vec<MasterKey>,
}

/// Why a secret cannot be sealed or opened. An operator has to act; nothing here will pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    #[error(
        "this server has no master key; set INFERQ__SECRETS__MASTER_KEY (32 bytes in base64) or \
         secrets.key_file"
    )]
    NoMasterKey,
    #[error(
        "it is sealed with master key {0}, which this server does not have; add that key to \
         secrets.previous_master_keys, or put the credential again"
    )]
    UnknownKey(KeyId),
    #[error("its envelope has format {0}, which a newer release writes")]
    UnknownFormat(u8),
    #[error(
        "its envelope is damaged, or was made for another credential; put the credential again"
    )]
    Damaged,
}

impl MasterKeys {
    pub fn new(current: Option<MasterKey>, previous: Vec<MasterKey>) -> Self {
        Self { current, previous }
    }

    /// The key that seals, if there is one.
    pub fn current(&self) -> Result<&MasterKey, SealError> {
        self.current.as_ref().ok_or(SealError::NoMasterKey)
    }

    /// Seals a secret for the credential of this account, name and vendor.
    ///
    /// # Errors
    /// `NoMasterKey`.
    pub fn seal(
        &self,
        secret: &CredentialSecret,
        (account, name, vendor): (&AccountId, &CredentialName, Vendor),
        rng: &mut (impl Rng + CryptoRng),
    ) -> Result<Envelope, SealError> {
        let key = self.current()?;
        let mut nonce = [0; NONCE_BYTES];
        rng.fill(&mut nonce);
        let aad = aad(key.id, account, name, vendor);
        let sealed = key.encrypt(nonce, &secret.to_plaintext(), &aad);
        let mut envelope = Vec::with_capacity(HEAD_BYTES + sealed.len());
        envelope.push(FORMAT);
        envelope.extend(key.id.0);
        envelope.extend(nonce);
        envelope.extend(sealed);
        Ok(Envelope(envelope))
    }

    /// Opens a credential.
    ///
    /// # Errors
    /// `NoMasterKey`, or why the key at hand does not open it.
    pub fn open(&self, sealed: SealedCredential) -> Result<Credential, SealError> {
        let secret = self.open_secret(&sealed)?;
        let Credential { id, account, name, vendor, is_default, .. } = sealed;
        let Credential { created_at, updated_at, version, .. } = sealed;
        Ok(Credential {
            id,
            account,
            name,
            vendor,
            secret,
            is_default,
            created_at,
            updated_at,
            version,
        })
    }

    fn open_secret(&self, sealed: &SealedCredential) -> Result<CredentialSecret, SealError> {
        let bytes = sealed.secret.0.as_slice();
        match bytes.first() {
            Some(&FORMAT) => {}
            Some(&other) => return Err(SealError::UnknownFormat(other)),
            None => return Err(SealError::Damaged),
        }
        let parts = bytes[1..].split_first_chunk::<KEY_ID_BYTES>();
        let parts = parts.and_then(|(id, rest)| {
            rest.split_first_chunk::<NONCE_BYTES>()
                .map(|(nonce, sealed)| (KeyId(*id), nonce, sealed))
        });
        let (id, nonce, ciphertext) = parts.ok_or(SealError::Damaged)?;
        let known = self.current.iter().chain(&self.previous).find(|key| key.id == id);
        let Some(key) = known else {
            // Without any key that is what to say: it is true of all credentials alike.
            return Err(self.current().err().unwrap_or(SealError::UnknownKey(id)));
        };
        let aad = aad(id, &sealed.account, &sealed.name, sealed.vendor);
        let payload = Payload { msg: ciphertext, aad: &aad };
        let opened =
            key.cipher().decrypt(&XNonce::from(*nonce), payload).map_err(|_| SealError::Damaged)?;
        CredentialSecret::of_plaintext(&Zeroizing::new(opened)).ok_or(SealError::Damaged)
    }
}

/// What is authenticated with a secret. Each part has its length before it, so that no two
/// credentials have the same.
fn aad(key: KeyId, account: &AccountId, name: &CredentialName, vendor: Vendor) -> Vec<u8> {
    let parts: [&[u8]; 5] = [
        PURPOSE,
        &key.0,
        account.as_str().as_bytes(),
        name.as_str().as_bytes(),
        vendor.as_str().as_bytes(),
    ];
    let mut aad = vec![FORMAT];
    for part in parts {
        aad.extend((part.len() as u64).to_be_bytes());
        aad.extend(part);
    }
    aad
}
