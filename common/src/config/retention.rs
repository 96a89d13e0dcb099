use serde::Deserialize;

use super::ConfigError;

/// How long ended jobs are kept.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RetentionConfig {
    /// Jobs, results, attempts, deliveries and idempotency keys are deleted this long after the
    /// job ended.
    pub job_hours: u32,
}

impl RetentionConfig {
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        if self.job_hours == 0 {
            return Err(ConfigError::refused("retention.job_hours", "must be at least 1"));
        }
        Ok(())
    }
}
