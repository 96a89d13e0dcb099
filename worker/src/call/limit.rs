//! How long one attempt may take.

use std::time::Duration;

use chrono::{DateTime, Utc};
use inferq_common::{error::ErrorClass, job::Job};
use inferq_vendors::VendorError;

/// How long one attempt may take, and what sets it.
pub(crate) struct Limit {
    pub(crate) time: Duration,
    by_total: bool,
}

impl Limit {
    /// What is left of the job's timeout after `spent`, or of its total timeout if that is less; the
    /// error if nothing is left.
    pub(super) fn of(job: &Job, spent: Duration, now: DateTime<Utc>) -> Result<Self, VendorError> {
        let time = job.limits.timeout.saturating_sub(spent);
        let left = job.deadline().map(|deadline| (deadline - now).to_std().unwrap_or_default());
        let by_total = left.is_some_and(|left| left < time);
        let limit = Self { time: left.map_or(time, |left| time.min(left)), by_total };
        match (limit.time.is_zero(), spent.is_zero()) {
            (false, _) => Ok(limit),
            (true, true) => Err(too_late(job)),
            (true, false) => Err(limit.passed(job)),
        }
    }

    /// The error where the vendor has not answered.
    pub(crate) fn passed(&self, job: &Job) -> VendorError {
        let message = format!("no answer from {} within {}", job.vendor, self.what(job));
        VendorError::new(ErrorClass::Timeout, message)
    }

    /// The error where the vendor has begun a stream and not ended it.
    pub(crate) fn cut(&self, job: &Job) -> VendorError {
        let vendor = job.vendor;
        let message = format!("the stream from {vendor} did not end within {}", self.what(job));
        VendorError::new(ErrorClass::Timeout, message)
    }

    fn what(&self, job: &Job) -> String {
        match job.limits.total_timeout.filter(|_| self.by_total) {
            Some(total) => format!("the total timeout of {}", seconds(total)),
            None => seconds(job.limits.timeout),
        }
    }
}

fn too_late(job: &Job) -> VendorError {
    let total = seconds(job.limits.total_timeout.unwrap_or_default());
    let message = format!("the total timeout of {total} passed before the attempt could start");
    VendorError::new(ErrorClass::Expired, message)
}

/// `60 s`, or `0.25 s` where it is no whole number.
fn seconds(duration: Duration) -> String {
    format!("{} s", duration.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;
    use crate::attempt::tests::{NOW, a_job, limits};

    const ZERO: Duration = Duration::ZERO;

    #[test]
    fn an_attempt_has_its_own_timeout_or_what_is_left_of_the_total() {
        let at = |seconds| NOW + TimeDelta::seconds(seconds);
        let job = a_job(limits(60, None));
        assert_eq!(Limit::of(&job, ZERO, at(1000)).unwrap().time, Duration::from_secs(60));
        let job = a_job(limits(60, Some(90)));
        assert_eq!(Limit::of(&job, ZERO, at(10)).unwrap().time, Duration::from_secs(60));
        assert_eq!(Limit::of(&job, ZERO, at(50)).unwrap().time, Duration::from_secs(40));
        for late in [at(90), at(91)] {
            let error = Limit::of(&job, ZERO, late).err().unwrap().error;
            assert_eq!(error.class, ErrorClass::Expired);
            assert_eq!(
                error.message,
                "the total timeout of 90 s passed before the attempt could start"
            );
        }
    }

    #[test]
    fn a_timeout_says_who_was_silent_for_how_long() {
        let message = |limits, after| {
            let job = a_job(limits);
            let error =
                Limit::of(&job, ZERO, NOW + TimeDelta::seconds(after)).unwrap().passed(&job).error;
            assert_eq!(error.class, ErrorClass::Timeout);
            error.message
        };
        assert_eq!(message(limits(60, None), 0), "no answer from openai within 60 s");
        assert_eq!(message(limits(60, Some(600)), 0), "no answer from openai within 60 s");
        assert_eq!(
            message(limits(60, Some(90)), 50),
            "no answer from openai within the total timeout of 90 s"
        );
    }

    #[test]
    fn what_an_attempt_has_spent_is_taken_off() {
        let of = |total, spent, after| {
            let job = a_job(limits(60, total));
            let limit =
                Limit::of(&job, Duration::from_secs(spent), NOW + TimeDelta::seconds(after));
            limit.map(|limit| (limit.time.as_secs(), limit.passed(&job).error.message))
        };
        let own = "no answer from openai within 60 s".to_owned();
        let total = "no answer from openai within the total timeout of 90 s".to_owned();
        assert_eq!(of(None, 59, 59).unwrap(), (1, own.clone()));
        assert_eq!(of(Some(90), 30, 50).unwrap(), (30, own.clone()));
        assert_eq!(of(Some(90), 30, 70).unwrap(), (20, total.clone()));
        for (over, message) in [(of(None, 60, 60), own), (of(Some(90), 30, 90), total)] {
            let error = over.unwrap_err().error;
            assert_eq!((error.class, error.message), (ErrorClass::Timeout, message));
        }
    }
}
