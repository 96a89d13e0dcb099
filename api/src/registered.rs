//! What a registered model says about the jobs that are made of it.

use inferq_common::{
    json_schema::{Misfit, MisfitKind, Step},
    model::Model,
};

use crate::{
    error::{ApiError, Loc, Problem},
    extract::Fault,
    rules,
    schema::check::Entries,
    state::AppState,
    submit::Order,
};

/// What a request has said itself, so that its model's word does not count.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Given {
    pub(crate) timeout: bool,
    pub(crate) num_retries: bool,
    pub(crate) priority: bool,
}

/// Completes an order with what its registered model says, and checks its arguments against the
/// model's request schema. `loc` is where the arguments stand.
///
/// The request wins over the model, and the model over the defaults.
///
/// # Errors
/// 422 with each place where the arguments do not fit.
pub(crate) async fn complete(
    state: &AppState,
    order: &mut Order,
    model: &Model,
    given: Given,
    loc: &[Loc],
) -> Result<(), ApiError> {
    let settings = model.settings();
    if settings.high_priority && !given.priority {
        order.priority = inferq_common::job::Priority::High;
    }
    if let Some(metadata) = model.metadata.as_ref().and_then(|json| Entries::of(json.raw())) {
        // What cannot be read was stored before it was checked, and says nothing.
        let timeout = metadata.given("timeout_seconds").and_then(|raw| rules::timeout(raw).ok());
        if let Some(timeout) = timeout.filter(|_| !given.timeout) {
            order.limits.timeout = timeout;
        }
        let retries = metadata.given("num_retries").and_then(|raw| rules::num_retries(raw).ok());
        if let Some(retries) = retries.filter(|_| !given.num_retries) {
            order.limits.num_retries = retries;
        }
    }
    let Some(schema) = settings.request_schema else { return Ok(()) };
    let (schemas, args, loc) = (state.schemas.clone(), order.args.clone(), loc.to_vec());
    let is_quick = schemas.at_hand(&schema).is_some_and(|it| it.is_quick(args.as_str().len()));
    // A schema that is no longer usable was stored before it was checked, and asks for nothing.
    let check = move || match schemas.get(&schema).map(|schema| schema.check(args.as_str())) {
        Ok(Err(misfits)) => Err(ApiError::Invalid(
            misfits.into_iter().map(|misfit| problem(misfit, loc.clone())).collect(),
        )),
        Ok(Ok(())) | Err(_) => Ok(()),
    };
    if is_quick { check() } else { rules::off_thread(check).await }
}

/// A misfit in FastAPI's words, as far as it has them.
fn problem(misfit: Misfit, mut loc: Vec<Loc>) -> Problem {
    loc.extend(misfit.path.into_iter().map(|step| match step {
        Step::Name(name) => Loc::Name(name.into()),
        Step::At(at) => Loc::At(at),
    }));
    let fault = match misfit.kind {
        MisfitKind::Missing => Fault::missing(),
        MisfitKind::Unexpected => Fault::new("extra_forbidden", misfit.message),
        MisfitKind::Type(name) => match name {
            "string" => Fault::new("string_type", "Input should be a valid string"),
            "integer" => Fault::new("int_type", "Input should be a valid integer"),
            "number" => Fault::new("float_type", "Input should be a valid number"),
            "boolean" => Fault::new("bool_type", "Input should be a valid boolean"),
            "array" => Fault::new("list_type", "Input should be a valid list"),
            "object" => Fault::new("dict_type", "Input should be a valid dictionary"),
            _ => Fault::value(misfit.message),
        },
        MisfitKind::Rule => Fault::value(misfit.message),
    };
    fault.at(loc, None)
}
