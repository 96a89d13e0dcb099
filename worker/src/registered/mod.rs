//! What a registered model asks of the attempts at it: no more calls at once than it bears, answers
//! of its form, and an eye on whether it can be called.

mod health;
mod places;

use std::{sync::Arc, time::Duration};

use inferq_common::{
    cache::Cache,
    error::ErrorClass,
    id::{AccountId, ModelId},
    job::Json,
    json_schema::{Path, Schemas},
    model::{Model, ModelSettings},
    store::{Claim, SharedStore, StoreError},
};
use inferq_vendors::{Reply, VendorError};
use tokio::time::timeout;
use tracing::{debug, warn};

use self::{
    health::{Health, Verdict},
    places::{Asked, Place, Places},
};
use crate::{
    attempt::SHORT_WAIT,
    call::{Called, End},
    gate,
    runner::Runner,
    running::Held,
};

/// What has changed of a model is acted on after at most this long. As in the api's catalogue: who
/// changes a model is answered after it.
const LIFETIME: Duration = Duration::from_millis(250);
/// Models kept in memory.
const MAX_ENTRIES: usize = 10_000;
/// Bounds the noting of what was seen of a model. What was not noted is seen again.
const NOTE_TIMEOUT: Duration = Duration::from_secs(5);

/// The registered models whose jobs this process runs.
#[derive(Debug)]
pub(crate) struct Registered {
    models: Cache<ModelId, Option<Arc<Entry>>, StoreError>,
    schemas: Schemas,
    places: Places,
    health: Health,
}

#[derive(Debug)]
struct Entry {
    model: Model,
    settings: ModelSettings,
}

impl Registered {
    /// For a worker that runs up to `concurrency` jobs of a vendor at once.
    pub(crate) fn new(concurrency: usize) -> Self {
        Self {
            models: Cache::new(LIFETIME, MAX_ENTRIES),
            schemas: Schemas::default(),
            places: Places::new(concurrency),
            health: Health::default(),
        }
    }

    /// **Cancel safe.**
    async fn find(
        &self,
        store: &SharedStore,
        id: ModelId,
    ) -> Result<Option<Arc<Entry>>, Arc<StoreError>> {
        let load = async {
            let found = store.find_any_model(id).await?;
            Ok(found.map(|model| Arc::new(Entry { settings: model.settings(), model })))
        };
        self.models.get(id, load).await
    }
}

/// Makes the call of an attempt as its registered model has it. `call` is told the account that pays:
/// the model's, where that is another than the job's.
///
/// A job whose model was deleted or closed to it since it was made fails: a name of the model's
/// credential means another one in another account, and no one else is to pay for its call.
pub(crate) async fn around(
    runner: &Runner,
    claim: &Claim,
    held: &Held,
    call: impl AsyncFnOnce(&AccountId) -> Called,
) -> Called {
    let own = &claim.job.account;
    let Some(id) = claim.job.model_id else { return call(own).await };
    let found = tokio::select! {
        found = runner.registered.find(&runner.worker.store, id) => found,
        () = held.revoked.cancelled() => return End::Revoked.into(),
        () = runner.hand_back.cancelled() => return End::Interrupted.into(),
    };
    let entry = match found {
        Ok(Some(entry)) if entry.model.account == *own || entry.settings.public_inference => entry,
        Ok(_) => return End::Failed(gone()).into(),
        Err(error) => return End::Failed(unread(&error)).into(),
    };
    let place = match place(runner, claim, held, &entry).await {
        Ok(place) => place,
        Err(end) => return end.into(),
    };
    let mut called = call(&entry.model.account).await;
    if let Some(place) = place {
        place.leave(runner.worker.clock.now());
    }
    note(runner, claim, &entry, &called.end);
    if let Some(schema) = &entry.settings.response_schema {
        called.end = fitting(&runner.registered.schemas, schema, called.end).await;
    }
    called
}

fn gone() -> VendorError {
    let message = "the registered model of this job was deleted, or is no longer open to the job's \
        account, before the attempt";
    VendorError::new(ErrorClass::NotFound, message)
}

fn unread(error: &StoreError) -> VendorError {
    let class = match error {
        StoreError::Unavailable(_) | StoreError::NotMigrated(_) => ErrorClass::Transient,
        StoreError::Corrupt { .. } | StoreError::Other(_) => ErrorClass::Internal,
    };
    // The client sees the message; the cause is the operator's.
    warn!(error = inferq_common::outage::chain(error), "models cannot be read");
    VendorError::new(class, "the registered model could not be read from the store")
}

/// Waits for a place among the calls of the model, for a short while at most; `None`: there is no
/// bound.
///
/// # Errors
/// How the attempt ends that got none.
async fn place(
    runner: &Runner,
    claim: &Claim,
    held: &Held,
    entry: &Entry,
) -> Result<Option<Place>, End> {
    // To ask for a task that is under way is no call of the model.
    if claim.job.ticket.is_some() {
        return Ok(None);
    }
    let Some(limit) = entry.settings.per_worker else { return Ok(None) };
    let clock = &runner.worker.clock;
    let later = |slot| End::HeldBack(gate::run_at(slot, &claim.job, clock.now()));
    let waiting = match runner.registered.places.ask(entry.model.id, limit, clock.now()) {
        Asked::Place(place) => return Ok(Some(place)),
        Asked::Later(slot) => return Err(later(slot)),
        Asked::Wait(waiting) => waiting,
    };
    let patience = SHORT_WAIT.to_std().unwrap_or_default();
    tokio::select! {
        biased;
        () = held.revoked.cancelled() => Err(End::Revoked),
        () = runner.hand_back.cancelled() => Err(End::Interrupted),
        turn = timeout(patience, waiting.turn(&**clock)) => match turn {
            Ok(place) => Ok(Some(place)),
            Err(_) => Err(later(waiting.later(clock.now()))),
        },
    }
}

/// Notes whether the model could be called, without waiting for it.
fn note(runner: &Runner, claim: &Claim, entry: &Entry, end: &End) {
    let model = &entry.model;
    let Some(verdict) = Verdict::of(end, claim.job.account == model.account) else { return };
    let instance = runner.worker.instance.id();
    let now = runner.worker.clock.now();
    let Some(sighting) = runner.registered.health.note(model.id, instance, verdict, now) else {
        return;
    };
    let store = SharedStore::clone(&runner.worker.store);
    let health = runner.registered.health.clone();
    runner.attempts.spawn(async move {
        let noted = timeout(NOTE_TIMEOUT, store.put_sighting(&sighting)).await;
        if !matches!(noted, Ok(Ok(()))) {
            debug!("what was seen of a model could not be noted; the next attempt tries again");
            health.not_noted(sighting.model);
        }
    });
}

/// The end of an attempt whose answer must fit `schema`. What does not is the model's own fault and
/// would not fit another time: it fails with class `protocol` and is not repeated.
async fn fitting(schemas: &Schemas, schema: &Json, end: End) -> End {
    let End::Answered(reply) = end else { return end };
    let n_bytes = reply.response.as_str().len();
    let is_quick = schemas.at_hand(schema).is_some_and(|it| it.is_quick(n_bytes));
    let (schemas, schema, response) = (schemas.clone(), schema.clone(), reply.response.clone());
    let check = move || match schemas.get(&schema).map(|schema| schema.check(response.as_str())) {
        Ok(Err(misfits)) => misfits.into_iter().next(),
        // A schema that is no longer usable was stored before it was checked, and asks for nothing.
        Ok(Ok(())) | Err(_) => None,
    };
    let misfit = if is_quick {
        check()
    } else {
        let Ok(misfit) = tokio::task::spawn_blocking(check).await else {
            let message = "the response could not be checked against the model's schema";
            return End::Failed(VendorError::new(ErrorClass::Internal, message));
        };
        misfit
    };
    let Some(misfit) = misfit else { return End::Answered(reply) };
    let place = match misfit.path.as_slice() {
        [] => String::new(),
        path => format!(" at {}", Path(path)),
    };
    let message =
        format!("the model's response does not fit its response_schema{place}: {}", misfit.message);
    let Reply { usage, vendor_request_id, .. } = reply;
    let mut failure = VendorError { usage, ..VendorError::new(ErrorClass::Protocol, message) };
    failure.error.vendor_request_id = vendor_request_id;
    End::Failed(failure)
}

#[cfg(test)]
mod tests {
    use inferq_common::usage::Usage;

    use super::*;

    fn reply(response: &str) -> End {
        End::Answered(Reply {
            response: Json::parse(response).unwrap(),
            usage: Usage { output_tokens: Some(3), ..Usage::default() },
            vendor_request_id: Some("req-1".to_owned()),
        })
    }

    #[tokio::test]
    async fn a_response_that_does_not_fit_fails_for_good_and_keeps_its_usage() {
        let schemas = Schemas::default();
        let schema = Json::parse(r#"{"properties":{"a":{"items":{"type":"integer"}}}}"#).unwrap();
        let fits = fitting(&schemas, &schema, reply(r#"{"a":[1]}"#)).await;
        assert!(matches!(fits, End::Answered(_)), "{fits:?}");
        let End::Failed(failure) = fitting(&schemas, &schema, reply(r#"{"a":["s3cret"]}"#)).await
        else {
            panic!("it does not fit");
        };
        assert_eq!(failure.class(), ErrorClass::Protocol);
        assert!(!failure.class().is_transient());
        assert!(failure.error.message.contains("at a[0]"), "{failure}");
        assert!(!failure.error.message.contains("s3cret"), "{failure}");
        assert_eq!(failure.usage.output_tokens, Some(3));
        assert_eq!(failure.error.vendor_request_id.as_deref(), Some("req-1"));
        let revoked = fitting(&schemas, &schema, End::Revoked).await;
        assert!(matches!(revoked, End::Revoked));
    }
}
