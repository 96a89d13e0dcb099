//! One attempt of a delivery, from claim to record.

use std::{panic::AssertUnwindSafe, time::Duration};

use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures::FutureExt as _;
use inferq_common::{
    callback::{DeliveryAttempt, next_attempt_at, signature},
    store::{DeliveryClaim, DeliveryOutcome, StoreError},
    telemetry::{field, metric},
};
use rand::Rng;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use tracing::{debug, error, info, warn};

use super::{
    Callbacks, body,
    post::{PostError, Poster},
};

/// Waits between tries to record an attempt grow up to this.
const MAX_RECORD_WAIT: Duration = Duration::from_secs(5);

/// Tries to record an attempt when the store is up and refuses; while it is down, there is no limit.
const MAX_REFUSED_RECORDS: u32 = 5;

/// Makes one attempt and records it.
pub(super) async fn deliver(parts: &Callbacks, poster: &Poster, mut claim: DeliveryClaim) {
    let started_at = parts.clock.now();
    // A panic must end in a record, too: a claim of a living instance is nobody else's to free.
    let answer = AssertUnwindSafe(post(parts, poster, &mut claim, started_at)).catch_unwind().await;
    let answer = answer.unwrap_or_else(|_| {
        error!("making a callback panicked");
        Err("inferq could not make the request".to_owned())
    });
    let finished_at = parts.clock.now();
    let (error, outcome) =
        judge(answer.as_ref(), claim.delivery.attempt, finished_at, &mut rand::rng());
    let attempt = DeliveryAttempt {
        delivery_id: claim.delivery.id,
        number: claim.number,
        started_at,
        finished_at,
        status_code: answer.ok(),
        error,
    };
    record(parts, &claim, &attempt, outcome).await;
}

/// Posts the callback; answers the receiver's status, or why there is none.
async fn post(
    parts: &Callbacks,
    poster: &Poster,
    claim: &mut DeliveryClaim,
    now: DateTime<Utc>,
) -> Result<u16, String> {
    // The response may be large: it goes into the body and is let go.
    let result = std::mem::take(&mut claim.result);
    let body = body::of(claim.job.clone(), result, &parts.public_url)
        .map_err(|_| "the job could not be written as JSON".to_owned())?;
    let headers = headers(claim, now, &body)?;
    let answer = poster.post(&claim.delivery.url, headers, body).await;
    answer.map_err(|error: PostError| error.to_string())
}

fn headers(claim: &DeliveryClaim, now: DateTime<Utc>, body: &Bytes) -> Result<HeaderMap, String> {
    if claim.secrets.is_empty() {
        return Err("the account has no signing secret".to_owned());
    }
    let signature = signature(&claim.secrets, claim.delivery.id, now, body)
        .map_err(|error| format!("the account's signing secret cannot be used: {error}"))?;
    let value = |text: String| {
        HeaderValue::from_str(&text).map_err(|_| "a header could not be written".to_owned())
    };
    Ok(HeaderMap::from_iter([
        (CONTENT_TYPE, HeaderValue::from_static("application/json")),
        (name("webhook-id"), value(claim.delivery.id.to_string())?),
        (name("webhook-timestamp"), value(now.timestamp().to_string())?),
        (name("webhook-signature"), value(signature)?),
    ]))
}

fn name(text: &'static str) -> reqwest::header::HeaderName {
    reqwest::header::HeaderName::from_static(text)
}

/// Why the attempt counts as a failure, and what becomes of the delivery. `attempt` counts from 1.
fn judge(
    answer: Result<&u16, &String>,
    attempt: u32,
    now: DateTime<Utc>,
    rng: &mut impl Rng,
) -> (Option<String>, DeliveryOutcome) {
    let error = match answer {
        Ok(200..=299) => return (None, DeliveryOutcome::Delivered),
        Ok(410) => {
            let error = "answered 410: the receiver wants no more of it".to_owned();
            return (Some(error), DeliveryOutcome::Failed);
        }
        Ok(status @ 300..=399) => format!("answered {status}: redirects are not followed"),
        Ok(status) => format!("answered {status}"),
        Err(error) => error.clone(),
    };
    let next = next_attempt_at(attempt, now, rng);
    (Some(error), next.map_or(DeliveryOutcome::Failed, DeliveryOutcome::Retry))
}

/// Writes the attempt down, however long the store is away.
async fn record(
    parts: &Callbacks,
    claim: &DeliveryClaim,
    attempt: &DeliveryAttempt,
    outcome: DeliveryOutcome,
) {
    let mut n_refused = 0;
    let mut wait = Duration::from_millis(100);
    loop {
        match parts.store.finish_delivery(claim, attempt, outcome).await {
            Ok(true) => return announce(attempt, outcome),
            Ok(false) => {
                // Another instance has it since this one was lost, and will post it again.
                return debug!("attempt of a callback came too late to be recorded");
            }
            Err(StoreError::Unavailable(_)) => {}
            Err(error) => {
                n_refused += 1;
                if n_refused == MAX_REFUSED_RECORDS {
                    return error!(
                        error = &error as &dyn std::error::Error,
                        "attempt of a callback could not be recorded"
                    );
                }
            }
        }
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(MAX_RECORD_WAIT);
    }
}

fn announce(attempt: &DeliveryAttempt, outcome: DeliveryOutcome) {
    let status = attempt.status_code;
    let reason = attempt.error.as_deref();
    let number = attempt.number;
    let label = match outcome {
        DeliveryOutcome::Delivered => {
            info!({ field::DELIVERY_ATTEMPT } = number, status, "callback delivered");
            "delivered"
        }
        DeliveryOutcome::Retry(at) => {
            info!(
                { field::DELIVERY_ATTEMPT } = number,
                status,
                reason,
                next_attempt_at = %at,
                "callback will be retried"
            );
            "retried"
        }
        DeliveryOutcome::Failed => {
            warn!({ field::DELIVERY_ATTEMPT } = number, status, reason, "callback given up");
            "failed"
        }
    };
    metrics::counter!(metric::CALLBACK_ATTEMPTS, "outcome" => label).increment(1);
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;
    use rand::{SeedableRng, rngs::StdRng};

    use super::*;

    fn outcome(answer: Result<u16, &str>, attempt: u32) -> (Option<String>, DeliveryOutcome) {
        let answer = answer.map_err(str::to_owned);
        let mut rng = StdRng::seed_from_u64(5);
        judge(answer.as_ref(), attempt, DateTime::UNIX_EPOCH, &mut rng)
    }

    #[test]
    fn only_2xx_is_success_and_only_410_ends_it_at_once() {
        for status in 200..=299 {
            assert_eq!(outcome(Ok(status), 1), (None, DeliveryOutcome::Delivered), "{status}");
        }
        for status in (100..200).chain(300..600).filter(|status| *status != 410) {
            let (error, outcome) = outcome(Ok(status), 1);
            assert!(matches!(outcome, DeliveryOutcome::Retry(_)), "{status}");
            assert!(error.unwrap().starts_with(&format!("answered {status}")), "{status}");
        }
        let (error, gone) = outcome(Ok(410), 1);
        assert_eq!(gone, DeliveryOutcome::Failed);
        assert_eq!(error.unwrap(), "answered 410: the receiver wants no more of it");
        let (error, _) = outcome(Ok(302), 1);
        assert_eq!(error.unwrap(), "answered 302: redirects are not followed");
    }

    #[test]
    fn a_failure_is_retried_on_schedule_until_the_tenth_attempt() {
        for (attempt, secs) in [(1, 5), (2, 300), (5, 5 * 3600), (9, 24 * 3600)] {
            let (error, outcome) = outcome(Err("no answer"), attempt);
            assert_eq!(error.as_deref(), Some("no answer"));
            let DeliveryOutcome::Retry(at) = outcome else { panic!("attempt {attempt}") };
            let wait = at - DateTime::UNIX_EPOCH;
            let (least, most) =
                (TimeDelta::seconds(secs) * 9 / 10, TimeDelta::seconds(secs) * 11 / 10);
            assert!((least..=most).contains(&wait), "attempt {attempt}: {wait}");
        }
        assert_eq!(outcome(Err("no answer"), 10).1, DeliveryOutcome::Failed);
        assert_eq!(outcome(Ok(500), 10).1, DeliveryOutcome::Failed);
    }
}
