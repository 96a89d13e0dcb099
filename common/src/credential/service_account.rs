//! Google's JSON key files.
//!
//! Source: <https://cloud.google.com/iam/docs/keys-create-delete>,
//! <https://google.aip.dev/auth/4112>.

use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{
    CredentialMember,
    secret::{MemberFault, MemberFaultKind, MemberStep},
};

/// Where tokens are asked for. A key file that names another address would send a signed assertion
/// there.
pub const TOKEN_URI: &str = "https://oauth2.googleapis.com/token";

/// The one domain whose APIs we call.
const UNIVERSE: &str = "googleapis.com";

const MAX_BYTES: usize = 16 * 1024;

/// What is kept of a key file. Its further addresses are not.
#[derive(Deserialize, Serialize)]
struct KeyFile {
    #[serde(rename = "type", default)]
    kind: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    project_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    private_key_id: Option<String>,
    #[serde(default)]
    private_key: String,
    #[serde(default)]
    client_email: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    client_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    token_uri: Option<String>,
    #[serde(default, skip_serializing)]
    universe_domain: Option<String>,
}

/// Reads a key file, given as an object or as its text, and answers its text with those members
/// that calls need.
pub(super) fn read(raw: &RawValue) -> Result<SecretString, MemberFault> {
    let member = CredentialMember::ServiceAccount.as_str();
    let refuse = |message: &'static str| MemberFault::of(member, MemberFaultKind::Value, message);
    let within = |name: &'static str, message: &'static str| {
        refuse(message).at(MemberStep::Name(name.into()))
    };
    if raw.get().len() > 2 * MAX_BYTES {
        return Err(refuse("must have at most 16 KiB"));
    }
    let text = if raw.get().starts_with('"') {
        serde_json::from_str::<String>(raw.get())
            .map_err(|_| refuse("must be the JSON key file of a service account"))?
    } else {
        raw.get().to_owned()
    };
    if text.len() > MAX_BYTES {
        return Err(refuse("must have at most 16 KiB"));
    }
    // A list would be read as the members in their order; what serde says would repeat values.
    let object = text.trim_start().starts_with('{');
    let file = if object { serde_json::from_str(&text).ok() } else { None };
    let mut file: KeyFile =
        file.ok_or_else(|| refuse("must be the JSON key file of a service account"))?;
    if file.kind != "service_account" {
        return Err(within(
            "type",
            "must be 'service_account': other kinds of key files name addresses of their own",
        ));
    }
    if file.client_email.is_empty() || !file.client_email.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(within("client_email", "must be the service account's address"));
    }
    if !is_private_key(&file.private_key) {
        return Err(within("private_key", "must be a private key in PEM (PKCS#8)"));
    }
    if file.token_uri.as_deref().is_some_and(|uri| uri != TOKEN_URI) {
        return Err(within("token_uri", "must be https://oauth2.googleapis.com/token, or absent"));
    }
    if file.universe_domain.as_deref().is_some_and(|domain| domain != UNIVERSE) {
        return Err(within("universe_domain", "must be googleapis.com, or absent"));
    }
    file.token_uri = Some(TOKEN_URI.to_owned());
    Ok(serde_json::to_string(&file).expect("texts are always JSON").into())
}

fn is_private_key(pem: &str) -> bool {
    let pem = pem.trim();
    pem.starts_with("-----BEGIN PRIVATE KEY-----") && pem.ends_with("-----END PRIVATE KEY-----")
}
