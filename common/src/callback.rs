//! Callbacks: what is owed to a client's URL, when it is tried again, and how it is signed.
//!
//! Source: Standard Webhooks 1.0, <https://github.com/standard-webhooks/standard-webhooks>.

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use chrono::{DateTime, TimeDelta, Utc};
use hmac::{Hmac, Mac};
use rand::Rng;
use secrecy::{ExposeSecret, SecretString};
use sha2::Sha256;

use crate::{
    id::{AccountId, DeliveryId, InstanceId, JobId},
    job::JobStatus,
    vendor::text_enum,
};

text_enum! {
    /// Where a callback is in its life.
    DeliveryStatus {
        /// Due now or at `next_attempt_at`.
        Pending = "pending",
        /// An instance is posting it.
        Delivering = "delivering",
        Delivered = "delivered",
        /// No further attempt will be made by itself.
        Failed = "failed",
    }
}

/// One callback that is owed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    pub id: DeliveryId,
    pub job_id: JobId,
    pub account: AccountId,
    pub url: String,
    /// The host of `url`, in lower case: what the cap per receiver counts.
    pub host: String,
    /// The job's final status, and so the event's type.
    pub job_status: JobStatus,
    pub status: DeliveryStatus,
    /// Attempts begun since it was made or last asked to be repeated.
    pub attempt: u32,
    pub instance: Option<InstanceId>,
    pub created_at: DateTime<Utc>,
    /// When the next attempt is due; `None` once it ended.
    pub next_attempt_at: Option<DateTime<Utc>>,
    pub finished_at: Option<DateTime<Utc>>,
}

/// One POST of a callback and what came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeliveryAttempt {
    pub delivery_id: DeliveryId,
    /// Counted from 1 over the delivery's whole life, redeliveries included.
    pub number: u32,
    pub started_at: DateTime<Utc>,
    pub finished_at: DateTime<Utc>,
    /// What the receiver answered, if it answered.
    pub status_code: Option<u16>,
    /// Why it counts as a failure; `None` on success.
    pub error: Option<String>,
}

/// `job.succeeded` and its like.
pub fn event_type(status: JobStatus) -> String {
    format!("job.{status}")
}

/// Seconds from the end of one attempt to the start of the next, for attempts 2 to 10.
///
/// Each is changed by up to 10 % either way, so that receivers which failed together are not
/// called together again.
pub const RETRY_DELAYS_SECS: [u64; 9] =
    [5, 5 * 60, 30 * 60, 2 * 3600, 5 * 3600, 10 * 3600, 14 * 3600, 20 * 3600, 24 * 3600];

/// When to try again after attempt number `attempt` failed; `None`: never.
pub fn next_attempt_at(
    attempt: u32,
    now: DateTime<Utc>,
    rng: &mut impl Rng,
) -> Option<DateTime<Utc>> {
    let index = usize::try_from(attempt.checked_sub(1)?).ok()?;
    let base = Duration::from_secs(*RETRY_DELAYS_SECS.get(index)?);
    let delay = base.mul_f64(rng.random_range(0.9..=1.1));
    Some(now + TimeDelta::from_std(delay).ok()?)
}

/// A new signing secret: `whsec_` and 256 random bits in base64.
pub fn generate_secret(rng: &mut impl Rng) -> SecretString {
    let bytes: [u8; 32] = rng.random();
    SecretString::from(format!("whsec_{}", BASE64.encode(bytes)))
}

/// The text is no `whsec_…` secret.
#[derive(Debug, thiserror::Error)]
#[error("a callback secret is 'whsec_' followed by base64")]
pub struct InvalidSecret;

/// The `webhook-signature` of one attempt: one `v1,…` for each active secret, newest first.
pub fn signature(
    secrets: &[SecretString],
    id: DeliveryId,
    timestamp: DateTime<Utc>,
    body: &[u8],
) -> Result<String, InvalidSecret> {
    let mut signatures = Vec::with_capacity(secrets.len());
    for secret in secrets {
        let encoded = secret.expose_secret().strip_prefix("whsec_").ok_or(InvalidSecret)?;
        let key = BASE64.decode(encoded).map_err(|_| InvalidSecret)?;
        let mut mac = Hmac::<Sha256>::new_from_slice(&key).map_err(|_| InvalidSecret)?;
        mac.update(format!("{id}.{}.", timestamp.timestamp()).as_bytes());
        mac.update(body);
        signatures.push(format!("v1,{}", BASE64.encode(mac.finalize().into_bytes())));
    }
    Ok(signatures.join(" "))
}

#[cfg(test)]
mod tests {
    use rand::{SeedableRng, rngs::StdRng};

    use super::*;

    #[test]
    fn both_secrets_of_a_rotation_verify_with_the_reference_library() {
        let mut rng = StdRng::seed_from_u64(7);
        let secrets = [generate_secret(&mut rng), generate_secret(&mut rng)];
        #[expect(clippy::disallowed_methods, reason = "the verifier compares with the real clock")]
        let now = Utc::now();
        let id = DeliveryId::new(now);
        let body = br#"{"type":"job.succeeded"}"#;
        let signed = signature(&secrets, id, now, body).unwrap();
        let mut headers = http_headers();
        for (name, value) in [
            ("webhook-id", id.to_string()),
            ("webhook-timestamp", now.timestamp().to_string()),
            ("webhook-signature", signed),
        ] {
            headers.insert(name, value.parse().unwrap());
        }
        for secret in &secrets {
            let webhook = standardwebhooks::Webhook::new(secret.expose_secret()).unwrap();
            webhook.verify(body, &headers).unwrap();
            assert!(webhook.verify(b"{}", &headers).is_err());
        }
    }

    fn http_headers() -> http::HeaderMap {
        http::HeaderMap::new()
    }

    #[test]
    fn ten_attempts_and_no_more() {
        let mut rng = StdRng::seed_from_u64(7);
        let now = DateTime::<Utc>::UNIX_EPOCH;
        for attempt in 1..=9u32 {
            let wait = next_attempt_at(attempt, now, &mut rng).unwrap() - now;
            let base = Duration::from_secs(RETRY_DELAYS_SECS[attempt as usize - 1]);
            let ratio = wait.to_std().unwrap().div_duration_f64(base);
            assert!((0.9..=1.1).contains(&ratio), "attempt {attempt}: {ratio}");
        }
        assert_eq!(next_attempt_at(10, now, &mut rng), None);
        assert_eq!(next_attempt_at(0, now, &mut rng), None);
    }
}
