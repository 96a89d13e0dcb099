//! Whether models answer at present, as the workers have lately seen.

use std::collections::HashMap;

use chrono::TimeDelta;
use inferq_common::{
    id::ModelId,
    model::{Model, Sighting},
};

use crate::{
    error::ApiError,
    schema::{model::InferenceModel, words::InferenceModelAvailability},
    state::AppState,
};

/// What was seen longer ago says nothing about the present. A worker that goes on calling a model
/// notes what it sees every minute.
const LATELY: TimeDelta = TimeDelta::minutes(10);

/// A worker whose model is as it was notes it again only after this long, the workers' `REFRESH`: a
/// call may have succeeded so long after the last one that was noted.
const REFRESH: TimeDelta = TimeDelta::minutes(1);

/// Models as clients see them.
pub(super) async fn shown(
    state: &AppState,
    models: Vec<Model>,
) -> Result<Vec<InferenceModel>, ApiError> {
    let ids: Vec<ModelId> = models.iter().map(|model| model.id).collect();
    let mut seen: HashMap<ModelId, Vec<Sighting>> = HashMap::new();
    for sighting in state.store.sightings(&ids, state.clock.now() - LATELY).await? {
        seen.entry(sighting.model).or_default().push(sighting);
    }
    let each = models.into_iter().map(|model| {
        let (availability, reason) = judge(seen.get(&model.id).map_or(&[], Vec::as_slice));
        let mut shown = InferenceModel::from(model);
        shown.model_availability = availability;
        shown.status_reason = shown.status_reason.or(reason);
        shown
    });
    Ok(each.collect())
}

/// A model as clients see it.
pub(super) async fn shown_one(state: &AppState, model: Model) -> Result<InferenceModel, ApiError> {
    let shown = shown(state, vec![model]).await?.pop();
    shown.ok_or_else(|| ApiError::internal("one model makes one"))
}

/// What several workers have seen, taken together: who could call the model after the last of the
/// others came to think that it cannot be called is right, and so is who may have.
fn judge(seen: &[Sighting]) -> (InferenceModelAvailability, Option<String>) {
    let called_at = seen.iter().filter(|it| it.available).map(|it| it.updated_at).max();
    let failing = seen.iter().filter(|it| !it.available).max_by_key(|it| it.since);
    match (called_at, failing) {
        (None, None) => (InferenceModelAvailability::Unknown, None),
        (Some(called_at), Some(failing)) if called_at + REFRESH < failing.since => {
            (InferenceModelAvailability::Unavailable, failing.reason.clone())
        }
        (Some(_), _) => (InferenceModelAvailability::Available, None),
        (None, Some(failing)) => (InferenceModelAvailability::Unavailable, failing.reason.clone()),
    }
}

#[cfg(test)]
mod tests {
    use chrono::{DateTime, Utc};
    use inferq_common::id::InstanceId;

    use super::*;

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::UNIX_EPOCH + TimeDelta::seconds(seconds)
    }

    fn seen(available: bool, since: i64, updated_at: i64) -> Sighting {
        Sighting {
            model: ModelId::new(at(0)),
            instance: InstanceId::new(at(0)),
            available,
            reason: (!available).then(|| format!("since {since}")),
            since: at(since),
            updated_at: at(updated_at),
        }
    }

    #[test]
    fn the_latest_word_on_a_model_counts() {
        use InferenceModelAvailability::{Available, Unavailable, Unknown};
        for (sightings, expected) in [
            (vec![], (Unknown, None)),
            (vec![seen(true, 0, 5)], (Available, None)),
            (vec![seen(false, 3, 5)], (Unavailable, Some("since 3"))),
            // One worker's own trouble is not the model's.
            (vec![seen(false, 3, 50), seen(true, 0, 40)], (Available, None)),
            // What was fine before has failed since.
            (vec![seen(false, 105, 110), seen(true, 0, 40)], (Unavailable, Some("since 105"))),
            // A worker that goes on calling it has not noted that yet.
            (vec![seen(false, 45, 50), seen(true, 0, 40)], (Available, None)),
            (vec![seen(false, 100, 100), seen(true, 0, 40)], (Available, None)),
            (vec![seen(false, 3, 50), seen(false, 7, 8)], (Unavailable, Some("since 7"))),
        ] {
            let (availability, reason) = judge(&sightings);
            assert_eq!((availability, reason.as_deref()), expected, "{sightings:?}");
        }
    }
}
