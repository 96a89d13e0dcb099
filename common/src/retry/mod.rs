//! Decides when to try again; pure. The only user of the `backoff` crate.

use std::time::Duration;

use backoff::{ExponentialBackoff, backoff::Backoff as _};
use chrono::{DateTime, TimeDelta, Utc};
use rand::Rng;

use crate::{error::ErrorClass, job::Job};

/// How waits grow between attempts where the vendor names none.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RetryPolicy {
    /// The upper bound of the wait after the first attempt.
    pub initial: Duration,
    /// What each further bound is multiplied by.
    pub multiplier: f64,
    /// No wait of ours is longer.
    pub max: Duration,
    /// A vendor's hint is followed up to this, then cut.
    pub max_hint: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            initial: Duration::from_millis(500),
            multiplier: 2.0,
            max: Duration::from_mins(1),
            max_hint: Duration::from_hours(24),
        }
    }
}

/// What becomes of a job whose attempt failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Queue the job again, not before this delay has passed.
    Retry(Duration),
    /// Give up: the job has failed.
    GiveUp,
}

impl RetryPolicy {
    /// Decides after an attempt of `job` failed with `class`; `hint` is the wait the vendor asked for.
    ///
    /// Attempts that were lost with their process cost no retry. A retry that could not start
    /// before the job's deadline is not made.
    pub fn verdict(
        &self,
        job: &Job,
        class: ErrorClass,
        hint: Option<Duration>,
        now: DateTime<Utc>,
        rng: &mut impl Rng,
    ) -> Verdict {
        let tries = job.attempt.saturating_sub(job.lost_attempts).max(1);
        if !class.is_transient() || tries > job.limits.num_retries {
            return Verdict::GiveUp;
        }
        let delay = match hint.filter(|hint| !hint.is_zero()) {
            Some(hint) => hint.min(self.max_hint),
            None => self.jittered(tries, class, rng),
        };
        let starts_at =
            TimeDelta::from_std(delay).ok().and_then(|wait| now.checked_add_signed(wait));
        match (starts_at, job.deadline()) {
            (None, _) => Verdict::GiveUp,
            (Some(starts_at), Some(deadline)) if starts_at >= deadline => Verdict::GiveUp,
            _ => Verdict::Retry(delay),
        }
    }

    /// Exponential with full jitter; an overloaded vendor is given four times as long.
    fn jittered(&self, tries: u32, class: ErrorClass, rng: &mut impl Rng) -> Duration {
        let factor = if class == ErrorClass::Overloaded { 4 } else { 1 };
        let bound = self.bound(tries).saturating_mul(factor).min(self.max);
        bound.mul_f64(rng.random_range(0.0..=1.0))
    }

    /// The longest wait after try number `tries` (from 1).
    fn bound(&self, tries: u32) -> Duration {
        let mut policy = ExponentialBackoff {
            current_interval: self.initial,
            initial_interval: self.initial,
            multiplier: self.multiplier,
            max_interval: self.max,
            randomization_factor: 0.0, // The jitter is ours: it takes the caller's randomness.
            max_elapsed_time: None,
            ..ExponentialBackoff::default()
        };
        let mut bound = self.initial;
        for _ in 0..tries {
            bound = policy.next_backoff().unwrap_or(self.max);
        }
        bound.min(self.max)
    }
}

#[cfg(test)]
mod tests;
