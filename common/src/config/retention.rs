use serde::{Deserialize, Serialize};

use super::ConfigError;

/// How long ended jobs are kept.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RetentionConfig {
    /// Jobs, results, attempts, deliveries and idempotency keys are deleted this long after the
    /// job ended.
    pub job_hours: u32,
}

impl RetentionConfig {
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        // A hundred years: beyond some hundred thousand, instants could not be reckoned.
        ConfigError::unless_in(1..=876_000, self.job_hours, "retention.job_hours")
    }
}
