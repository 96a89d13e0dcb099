//! The credential that a registered model names, as a submit needs it.

use inferq_common::{credential::CredentialName, id::AccountId, model::Model, vendor::Vendor};

use crate::{
    error::{ApiError, Loc},
    extract::Fault,
    state::AppState,
};

/// The name in a model's metadata, if there is one and the model's account has that credential.
///
/// # Errors
/// 422 at `loc` if it cannot be used; 409 without a word on credentials if the model is not the
/// caller's.
pub(crate) async fn of_model(
    state: &AppState,
    caller: &AccountId,
    model: Option<&Model>,
    loc: impl FnOnce() -> Vec<Loc>,
) -> Result<Option<CredentialName>, ApiError> {
    let Some(model) = model else { return Ok(None) };
    let named = match model.credential() {
        Ok(None) => return Ok(None),
        Ok(Some(name)) => name,
        Err(_) if model.account != *caller => return Err(foreign()),
        Err(reason) => return Err(refused(reason, loc())),
    };
    match usable(state, &model.account, model.vendor, &named).await? {
        Ok(()) => Ok(Some(named)),
        Err(_) if model.account != *caller => Err(foreign()),
        Err(why) => Err(refused(why, loc())),
    }
}

/// What the caller of another account's model is told whose credential cannot be used.
pub(crate) fn foreign() -> ApiError {
    ApiError::Conflict("the model cannot be called; its owner must mend it".into())
}

fn refused(reason: impl std::fmt::Display, loc: Vec<Loc>) -> ApiError {
    let fault = Fault::value(format!("the model's model_metadata.credential: {reason}"));
    ApiError::Invalid(vec![fault.at(loc, None)])
}

/// Whether the account has this credential, for this vendor; if not, in words.
pub(crate) async fn usable(
    state: &AppState,
    account: &AccountId,
    vendor: Vendor,
    name: &CredentialName,
) -> Result<Result<(), String>, ApiError> {
    Ok(match state.catalogue.credential(&state.store, account, name).await? {
        Some(actual) if actual == vendor => Ok(()),
        Some(actual) => Err(format!("credential '{name}' is for {actual}, not for {vendor}")),
        None => Err(format!(
            "the account has no credential '{name}'; PUT /v5/credentials/{name} makes one"
        )),
    })
}
