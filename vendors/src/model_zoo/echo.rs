//! What `echo` is told in its `args`.

use std::time::Duration;

use inferq_common::{
    error::ErrorClass,
    job::Json,
    members::{Member, each_member},
};

use crate::error::{VendorError, class_of_status};

/// As long as any attempt may last.
const MAX_DELAY_MS: f64 = 24.0 * 60.0 * 60.0 * 1000.0;
/// The longest wait it asks for.
const MAX_RETRY_AFTER_SECS: f64 = 24.0 * 60.0 * 60.0;

#[derive(Debug)]
pub(super) struct Echo {
    pub delay: Duration,
    /// Attempts up to this one fail.
    fail_times: u32,
    status: u16,
    retry_after: Option<Duration>,
}

impl Echo {
    /// Reads what steers it; other members, and `args` that are no object, mean nothing to it.
    ///
    /// # Errors
    /// `InvalidRequest` names the member that cannot be followed.
    pub(super) fn of(args: &Json) -> Result<Self, VendorError> {
        let mut echo =
            Self { delay: Duration::ZERO, fail_times: 0, status: 503, retry_after: None };
        let mut wrong = None;
        // What is no object has no members; that is all right.
        let _ = each_member(args.as_str(), |member| {
            if !member.is_null() {
                wrong = wrong.take().or(echo.set(&member).err());
            }
        });
        match wrong {
            Some(message) => Err(VendorError::new(ErrorClass::InvalidRequest, message)),
            None => Ok(echo),
        }
    }

    fn set(&mut self, member: &Member<'_>) -> Result<(), &'static str> {
        match member.key.as_ref() {
            "delay_ms" => {
                let millis = number(member, MAX_DELAY_MS)
                    .ok_or("delay_ms must be a number from 0 to 86400000 (24 h)")?;
                self.delay = Duration::from_secs_f64(millis / 1000.0);
            }
            "fail_times" => {
                self.fail_times = serde_json::from_str(member.value)
                    .map_err(|_| "fail_times must be a whole number of attempts, from 0")?;
            }
            "status" => {
                self.status = serde_json::from_str(member.value)
                    .ok()
                    .filter(|status| (400..600).contains(status))
                    .ok_or("status must be an HTTP status from 400 to 599")?;
            }
            "retry_after" => {
                let seconds = number(member, MAX_RETRY_AFTER_SECS)
                    .ok_or("retry_after must be a number of seconds from 0 to 86400 (24 h)")?;
                self.retry_after = Some(Duration::from_secs_f64(seconds));
            }
            _ => {}
        }
        Ok(())
    }

    /// # Errors
    /// The failure that attempt number `attempt` was told to end with.
    pub(super) fn failure(&self, attempt: u32) -> Result<(), VendorError> {
        if attempt > self.fail_times {
            return Ok(());
        }
        let class = class_of_status(self.status);
        let message =
            format!("echo was told to fail {} times, with status {}", self.fail_times, self.status);
        let mut error = VendorError::new(class, message);
        error.error.vendor_status = Some(self.status);
        error.retry_after = self.retry_after.filter(|wait| class.is_transient() && !wait.is_zero());
        Err(error)
    }
}

fn number(member: &Member<'_>, max: f64) -> Option<f64> {
    serde_json::from_str(member.value).ok().filter(|number| (0.0..=max).contains(number))
}
