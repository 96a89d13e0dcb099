//! `PUT /v5/credentials/{name}`.

use axum::{Json, extract::State};
use http::StatusCode;
use inferq_common::{
    credential::{CredentialName, CredentialSecret, MemberFault, MemberFaultKind, MemberStep},
    id::CredentialId,
    store::{Added, NewCredential},
    vendor::Vendor,
};
use serde_json::{json, value::RawValue};

use crate::{
    auth::Caller,
    error::{ApiError, Loc, Problem},
    extract::{Fault, Payload, Problems, Segment, read},
    schema::{
        check::Entries,
        credential::{Credential, PutCredentialRequest},
        error::{ErrorDetail, HTTPValidationError},
    },
    state::AppState,
};

/// Sixteen keys and a key file fit in, with room to spare.
const MAX_BODY_BYTES: usize = 128 * 1024;

/// A body of thousands of wrong members gets no list of thousands of errors.
const MAX_PROBLEMS: usize = 100;

/// Put Credential
///
/// Stores a credential, encrypted, or replaces the one of this name as a whole. Its secret values
/// can never be read again. A change is seen by all attempts that begin later than five seconds
/// from now.
#[utoipa::path(
    put,
    path = "/v5/credentials/{name}",
    tag = "Credentials",
    operation_id = "PUT-V5-/v5/credentials/name",
    params(("name" = String, Path, pattern = "^[a-z0-9][a-z0-9_-]{0,62}$")),
    request_body = PutCredentialRequest,
    responses(
        (status = 200, description = "Replaced", body = Credential),
        (status = 201, description = "Created", body = Credential),
        (status = 409, description = "The name is taken by a credential of another vendor; not to \
            be repeated", body = ErrorDetail),
        (status = 413, description = "The body is too large", body = ErrorDetail),
        (status = 422, description = "Validation Error; it repeats nothing of the body",
            body = HTTPValidationError),
        (status = 503, description = "Overloaded or the store is unavailable; try again after \
            `retry-after` seconds. With `x-should-retry: false`: this server has no master key",
            body = ErrorDetail),
    ),
    security(("APIKeyHeader" = [])),
)]
pub(crate) async fn put_credential(
    State(state): State<AppState>,
    caller: Caller,
    Segment(name): Segment<String>,
    payload: Payload,
) -> Result<(StatusCode, Json<Credential>), ApiError> {
    let put = Put::read(&name, &payload).map_err(without_inputs)?;
    let now = state.clock.now();
    let owner = (&caller.account, &put.name, put.vendor);
    let secret = state
        .master_keys
        .seal(&put.secret, owner, &mut rand::rng())
        .map_err(|problem| ApiError::NotConfigured(problem.to_string().into()))?;
    let new = NewCredential {
        id: CredentialId::new(now),
        account: caller.account,
        name: put.name,
        vendor: put.vendor,
        secret,
        default: put.default,
        now,
    };
    let (status, sealed) = match state.store.put_credential(&new).await? {
        Added::New(sealed) => (StatusCode::CREATED, sealed),
        Added::Updated(sealed) => (StatusCode::OK, sealed),
        Added::Conflict(there) => {
            let (name, vendor) = (there.name, there.vendor);
            let detail = format!(
                "credential '{name}' is for {vendor}; choose another name, or delete it first"
            );
            return Err(ApiError::Conflict(detail.into()));
        }
    };
    state.catalogue.forget();
    Ok((status, Json(Credential::of(&sealed, &state.master_keys))))
}

/// A request whose every member is right.
struct Put {
    name: CredentialName,
    vendor: Vendor,
    default: Option<bool>,
    secret: CredentialSecret,
}

impl Put {
    fn read(name: &str, payload: &Payload) -> Result<Self, ApiError> {
        if payload.bytes.len() > MAX_BODY_BYTES {
            return Err(ApiError::TooLarge { limit_bytes: MAX_BODY_BYTES });
        }
        let mut problems = Problems::default();
        let name: Option<CredentialName> = name.parse().ok();
        if name.is_none() {
            problems.add(vec!["path".into(), "name".into()], unusable_name(), None);
        }
        let body = problems.with(payload.members(&["vendor", "default"]))?;
        let vendor = body.required("vendor", &mut problems, read::word::<Vendor>);
        let default = body.optional("default", &mut problems, read::boolean);
        let raw: &RawValue = serde_json::from_str(payload.text()?).map_err(ApiError::internal)?;
        let secret = vendor.and_then(|vendor| secret(vendor, raw, &mut problems));
        problems.check()?;
        match (name, vendor, secret) {
            (Some(name), Some(vendor), Some(secret)) => Ok(Self { name, vendor, default, secret }),
            _ => Err(ApiError::internal("a credential without problems and without a reading")),
        }
    }
}

fn unusable_name() -> Fault {
    let pattern = CredentialName::PATTERN;
    let msg = format!("String should match pattern '{pattern}'");
    Fault::new("string_pattern_mismatch", msg).with_ctx(json!({ "pattern": pattern }))
}

/// Reads all members but those that are the request's own.
fn secret(vendor: Vendor, body: &RawValue, problems: &mut Problems) -> Option<CredentialSecret> {
    let entries = Entries::of(body)?;
    let given = entries.iter().filter(|(name, _)| !matches!(*name, "vendor" | "default"));
    CredentialSecret::read(vendor, given)
        .map_err(|faults| faults.into_iter().for_each(|fault| problems.push(problem(fault))))
        .ok()
}

fn problem(fault: MemberFault) -> Problem {
    let kind = match fault.kind {
        MemberFaultKind::Missing => "missing",
        MemberFaultKind::NotText => "string_type",
        MemberFaultKind::NotList => "list_type",
        MemberFaultKind::NotAllowed => "extra_forbidden",
        MemberFaultKind::Value => "value_error",
    };
    let step = |step| match step {
        MemberStep::Name(name) => Loc::Name(name),
        MemberStep::At(index) => Loc::At(index),
    };
    let loc = std::iter::once("body".into()).chain(fault.path.into_iter().map(step)).collect();
    let fault = match fault.kind {
        MemberFaultKind::Value => Fault::value(fault.message),
        _ => Fault::new(kind, fault.message),
    };
    fault.at(loc, None)
}

/// An answer never repeats what may be a secret, not even to the one who sent it: answers are logged
/// by more programs than requests are.
fn without_inputs(error: ApiError) -> ApiError {
    let ApiError::Invalid(mut problems) = error else { return error };
    problems.truncate(MAX_PROBLEMS);
    for problem in &mut problems {
        problem.input = None;
    }
    ApiError::Invalid(problems)
}
