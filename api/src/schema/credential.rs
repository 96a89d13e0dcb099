//! Credentials: what goes in, and the little that is ever shown of it.

use inferq_common::{
    credential::{CredentialSecret, MasterKeys, SealedCredential},
    view,
};
use serde::Serialize;
use serde_json::Value;
use utoipa::{
    ToSchema,
    openapi::{
        Object, ObjectBuilder, Schema, Type,
        schema::{AdditionalProperties, AnyOfBuilder},
    },
};

use super::words::InferenceModelVendor;

/// A credential of an account for one vendor. Its secret values are never shown.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(title = "Credential")]
pub struct Credential {
    pub id: String,
    #[schema(schema_with = constant_credential)]
    pub object: &'static str,
    /// What a model's `model_metadata.credential` names.
    pub name: String,
    pub vendor: InferenceModelVendor,
    /// Whether it is used for calls of its vendor whose model names no credential.
    pub default: bool,
    /// Which members are set. Absent where this server cannot open the credential.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub members: Option<Vec<CredentialMember>>,
    /// Why it cannot be opened, and what an operator has to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// Counts the times it was put, from 1.
    pub version: i64,
    #[schema(value_type = String, format = DateTime)]
    pub created_at: String,
    #[schema(value_type = String, format = DateTime)]
    pub updated_at: String,
}

/// One member of a credential that is set.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(title = "CredentialMember")]
pub struct CredentialMember {
    pub name: &'static str,
    /// How many values it has: more than one for `api_keys` alone.
    pub count: usize,
    /// The value of a member that is no secret, such as `region`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// The last four characters of each secret value that has 20 or more.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    pub hints: Vec<String>,
}

impl Credential {
    pub(crate) fn of(sealed: &SealedCredential, keys: &MasterKeys) -> Self {
        let opened = keys.open(sealed.clone());
        Self {
            id: sealed.id.to_string(),
            object: "credential",
            name: sealed.name.to_string(),
            vendor: sealed.vendor.into(),
            default: sealed.is_default,
            problem: opened.as_ref().err().map(ToString::to_string),
            members: opened.ok().map(|open| members(&open.secret)),
            version: sealed.version,
            created_at: view::rfc3339(sealed.created_at),
            updated_at: view::rfc3339(sealed.updated_at),
        }
    }
}

fn members(secret: &CredentialSecret) -> Vec<CredentialMember> {
    secret
        .members()
        .map(|(member, count)| {
            let value = if member.is_secret() { None } else { secret.plain(member) };
            let (name, hints) = (member.as_str(), secret.hints(member));
            CredentialMember { name, count, value: value.map(str::to_owned), hints }
        })
        .collect()
}

/// A page of credentials.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(title = "CredentialList")]
pub struct CredentialList {
    #[schema(schema_with = super::list::constant_list)]
    pub object: &'static str,
    pub items: Vec<Credential>,
    /// How many items a page has at most.
    pub limit: u32,
    /// Whether there are more in the direction that was asked for.
    pub has_more: bool,
}

/// What is left of a credential that was deleted.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(title = "DeletedCredential")]
pub struct DeletedCredential {
    pub id: String,
    #[schema(schema_with = constant_credential)]
    pub object: &'static str,
    pub name: String,
    pub deleted: bool,
}

fn constant_credential() -> Object {
    super::list::constant("credential")
}

/// A credential to be put: a vendor, and the members that this vendor's credentials hold. Exactly
/// one way in: keys, an Entra client (`azure`), AWS keys (`bedrock`) or a service account
/// (`vertex_ai`). Addresses are the operator's and refused.
///
/// It is checked by `inferq_common::credential`; this type is its documentation.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it is read member by member, so that no error repeats a secret")]
#[schema(title = "PutCredentialRequest")]
pub struct PutCredentialRequest {
    /// A credential keeps its vendor: with another one the answer is 409.
    vendor: InferenceModelVendor,
    /// Whether it is to be used for calls of this vendor whose model names no credential; it takes
    /// that from the one before. Not given: as it was, and a new credential is not.
    default: Option<bool>,
    /// All vendors; for `bedrock` a bearer token. Visible ASCII without spaces.
    #[schema(min_length = 1, max_length = 4096)]
    api_key: Option<String>,
    /// Tried in their order after `api_key`. All vendors but `bedrock` and `vertex_ai`.
    #[schema(min_items = 1, max_items = 16)]
    api_keys: Option<Vec<String>>,
    /// `azure`, with `client_id` and `client_secret`.
    #[schema(min_length = 1, max_length = 128)]
    tenant_id: Option<String>,
    /// `azure`.
    #[schema(min_length = 1, max_length = 4096)]
    client_id: Option<String>,
    /// `azure`.
    #[schema(min_length = 1, max_length = 4096)]
    client_secret: Option<String>,
    /// `bedrock`, with `secret_access_key`.
    #[schema(min_length = 1, max_length = 128)]
    access_key_id: Option<String>,
    /// `bedrock`.
    #[schema(min_length = 1, max_length = 4096)]
    secret_access_key: Option<String>,
    /// `bedrock`, where the keys are temporary.
    #[schema(min_length = 1, max_length = 4096)]
    session_token: Option<String>,
    /// `vertex_ai`: the JSON key file of a service account, as an object or as its text; at most
    /// 16 KiB. Its `token_uri` is `https://oauth2.googleapis.com/token` or absent.
    #[schema(schema_with = service_account, required = false)]
    service_account: Value,
    /// `bedrock`; shown.
    #[schema(min_length = 1, max_length = 32)]
    region: Option<String>,
    /// `vertex_ai`; shown.
    #[schema(min_length = 1, max_length = 32)]
    location: Option<String>,
    /// `vertex_ai`, `openai`; shown.
    #[schema(min_length = 1, max_length = 128)]
    project: Option<String>,
    /// `openai`; shown.
    #[schema(min_length = 1, max_length = 4096)]
    organization: Option<String>,
}

fn service_account() -> Schema {
    let object = ObjectBuilder::new()
        .schema_type(Type::Object)
        .additional_properties(Some(AdditionalProperties::FreeForm(true)));
    let text = ObjectBuilder::new().schema_type(Type::String);
    AnyOfBuilder::new().item(object).item(text).build().into()
}
