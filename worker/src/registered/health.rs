//! Whether registered models can be called, as this process sees it.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard},
};

use chrono::{DateTime, TimeDelta, Utc};
use inferq_common::{
    error::ErrorClass,
    id::{InstanceId, ModelId},
    model::Sighting,
};

use crate::call::End;

/// A model is unavailable once so many attempts in a row could not call it; one that can makes it
/// available again.
const FAILURES: u32 = 3;
/// A model that is as it was is noted again after this long: the api forgets what is older than ten
/// of these.
const REFRESH: TimeDelta = TimeDelta::minutes(1);
/// Models that are remembered; then the process begins anew.
const MAX_REMEMBERED: usize = 10_000;
/// A reason is cut here.
const MAX_REASON_CHARS: usize = 500;

/// What one attempt says about its model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    Callable,
    /// It could not be called, and why.
    Not(String),
}

impl Verdict {
    /// `None`: it says nothing about the model. `own`: the job is of the model's account, which may
    /// be told what the vendor said of it.
    pub(super) fn of(end: &End, own: bool) -> Option<Self> {
        let failure = match end {
            // A task that goes on elsewhere was taken or asked for.
            End::Answered(_) | End::Parked { .. } => return Some(Self::Callable),
            End::Failed(failure) => failure,
            End::HeldBack(_) | End::Parked { .. } | End::Revoked | End::Interrupted => return None,
        };
        // No wildcard: a new class must choose.
        match failure.class() {
            // The model has looked into the request.
            ErrorClass::InvalidRequest
            | ErrorClass::ContextLength
            | ErrorClass::Blocked
            | ErrorClass::ResponseTooLarge => Some(Self::Callable),
            class @ (ErrorClass::Overloaded
            | ErrorClass::Transient
            | ErrorClass::Timeout
            | ErrorClass::QuotaExhausted
            | ErrorClass::Auth
            | ErrorClass::NotFound) => {
                let message = if own { failure.error.message.as_str() } else { "" };
                Some(Self::Not(reason(class, message)))
            }
            // A model that asks to slow down is there; the others are about the attempt.
            ErrorClass::RateLimited
            | ErrorClass::Lost
            | ErrorClass::Protocol
            | ErrorClass::Cancelled
            | ErrorClass::Expired
            | ErrorClass::Internal => None,
        }
    }
}

fn reason(class: ErrorClass, message: &str) -> String {
    let text = match message {
        "" => class.to_string(),
        message => format!("{class}: {message}"),
    };
    match text.char_indices().nth(MAX_REASON_CHARS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

/// What was seen of each model. Clones share it.
#[derive(Debug, Clone, Default)]
pub(super) struct Health(Arc<Mutex<HashMap<ModelId, Seen>>>);

#[derive(Debug)]
struct Seen {
    /// In a row, up to now.
    n_failures: u32,
    available: Option<bool>,
    since: DateTime<Utc>,
    /// When and for whom it was last noted as it is.
    noted: Option<(DateTime<Utc>, InstanceId)>,
}

impl Health {
    /// Takes in what an attempt says; answers what is to be noted, if anything is: a change at once,
    /// what stays as it is once a minute.
    pub(super) fn note(
        &self,
        model: ModelId,
        instance: InstanceId,
        verdict: Verdict,
        now: DateTime<Utc>,
    ) -> Option<Sighting> {
        let mut models = self.models();
        if models.len() >= MAX_REMEMBERED && !models.contains_key(&model) {
            models.clear();
        }
        let seen = models.entry(model).or_insert(Seen {
            n_failures: 0,
            available: None,
            since: now,
            noted: None,
        });
        let (available, reason) = match verdict {
            Verdict::Callable => {
                seen.n_failures = 0;
                (true, None)
            }
            Verdict::Not(reason) => {
                seen.n_failures = seen.n_failures.saturating_add(1);
                if seen.n_failures < FAILURES {
                    return None;
                }
                let reason =
                    format!("{} attempts in a row failed; the last: {reason}", seen.n_failures);
                (false, Some(reason))
            }
        };
        if seen.available != Some(available) {
            (seen.available, seen.since, seen.noted) = (Some(available), now, None);
        }
        let fresh = |(at, of): (DateTime<Utc>, InstanceId)| of == instance && now - at < REFRESH;
        if seen.noted.is_some_and(fresh) {
            return None;
        }
        seen.noted = Some((now, instance));
        let since = seen.since;
        Some(Sighting { model, instance, available, reason, since, updated_at: now })
    }

    /// What was to be noted was not: the next attempt notes it.
    pub(super) fn not_noted(&self, model: ModelId) {
        if let Some(seen) = self.models().get_mut(&model) {
            seen.noted = None;
        }
    }

    fn models(&self) -> MutexGuard<'_, HashMap<ModelId, Seen>> {
        self.0.lock().expect("no one panics while holding the models")
    }
}

#[cfg(test)]
mod tests {
    use inferq_vendors::VendorError;

    use super::*;

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::UNIX_EPOCH + TimeDelta::seconds(seconds)
    }

    fn failed(class: ErrorClass) -> End {
        End::Failed(VendorError::new(class, "no such thing"))
    }

    #[test]
    fn a_class_says_whether_the_model_could_be_called() {
        let not = |class| matches!(Verdict::of(&failed(class), true), Some(Verdict::Not(_)));
        let none = |class| Verdict::of(&failed(class), true).is_none();
        for &class in ErrorClass::ALL {
            let expected = matches!(
                class,
                ErrorClass::Overloaded
                    | ErrorClass::Transient
                    | ErrorClass::Timeout
                    | ErrorClass::QuotaExhausted
                    | ErrorClass::Auth
                    | ErrorClass::NotFound
            );
            assert_eq!(not(class), expected, "{class}");
        }
        assert!(none(ErrorClass::RateLimited) && none(ErrorClass::Internal));
        assert_eq!(Verdict::of(&failed(ErrorClass::Blocked), true), Some(Verdict::Callable));
        assert_eq!(Verdict::of(&End::Revoked, true), None);
    }

    #[test]
    fn another_accounts_failure_is_told_by_its_class_alone() {
        let told = |own| match Verdict::of(&failed(ErrorClass::Auth), own) {
            Some(Verdict::Not(reason)) => reason,
            other => panic!("{other:?}"),
        };
        assert_eq!(told(true), "auth: no such thing");
        assert_eq!(told(false), "auth");
    }

    #[test]
    fn three_failures_in_a_row_make_a_model_unavailable_and_one_success_available() {
        let health = Health::default();
        let (model, instance) = (ModelId::new(at(0)), InstanceId::new(at(0)));
        let not = || Verdict::Not("auth: no".to_owned());
        let note = |verdict, seconds| health.note(model, instance, verdict, at(seconds));
        assert_eq!(note(not(), 1), None);
        assert_eq!(note(not(), 2), None);
        let seen = note(not(), 3).unwrap();
        assert!(!seen.available);
        assert_eq!((seen.since, seen.updated_at), (at(3), at(3)));
        let reason = seen.reason.unwrap();
        assert_eq!(reason, "3 attempts in a row failed; the last: auth: no");
        let seen = note(Verdict::Callable, 4).unwrap();
        assert_eq!((seen.available, seen.reason, seen.since), (true, None, at(4)));
        // A failure now and then is none of the model.
        for round in 0..5 {
            assert_eq!(note(not(), 5 + round), None);
            assert_eq!(note(not(), 5 + round), None);
            assert_eq!(note(Verdict::Callable, 5 + round), None);
        }
    }

    #[test]
    fn what_stays_as_it_is_is_noted_once_a_minute() {
        let health = Health::default();
        let (model, instance) = (ModelId::new(at(0)), InstanceId::new(at(0)));
        let note = |seconds| health.note(model, instance, Verdict::Callable, at(seconds));
        let n_noted = (0..600).filter_map(note).count();
        assert_eq!(n_noted, 10);
        let seen = note(600).unwrap();
        assert_eq!((seen.since, seen.updated_at), (at(0), at(600)));
        // What could not be noted, or was for an instance that is gone, is noted again.
        health.not_noted(model);
        assert!(note(601).is_some());
        let anew = InstanceId::new(at(9));
        assert!(health.note(model, anew, Verdict::Callable, at(602)).is_some());
    }
}
