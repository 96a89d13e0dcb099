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
    /// The job's timeout, or what is left of its total timeout if that is less; the error if
    /// nothing is left.
    pub(super) fn of(job: &Job, now: DateTime<Utc>) -> Result<Self, VendorError> {
        let time = job.limits.timeout;
        let Some(deadline) = job.deadline() else { return Ok(Self { time, by_total: false }) };
        match (deadline - now).to_std() {
            Ok(left) if left.is_zero() => Err(too_late(job)),
            Ok(left) => Ok(Self { time: time.min(left), by_total: left < time }),
            Err(_) => Err(too_late(job)),
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
            None => seconds(self.time),
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

    #[test]
    fn an_attempt_has_its_own_timeout_or_what_is_left_of_the_total() {
        let at = |seconds| NOW + TimeDelta::seconds(seconds);
        let job = a_job(limits(60, None));
        assert_eq!(Limit::of(&job, at(1000)).unwrap().time, Duration::from_secs(60));
        let job = a_job(limits(60, Some(90)));
        assert_eq!(Limit::of(&job, at(10)).unwrap().time, Duration::from_secs(60));
        assert_eq!(Limit::of(&job, at(50)).unwrap().time, Duration::from_secs(40));
        for late in [at(90), at(91)] {
            let error = Limit::of(&job, late).err().unwrap().error;
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
                Limit::of(&job, NOW + TimeDelta::seconds(after)).unwrap().passed(&job).error;
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
}
