//! What operators and their probers read.

use serde::Serialize;
use utoipa::ToSchema;

/// The process lives.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[schema(title = "Liveness")]
pub struct Liveness {
    /// Always `ok`.
    pub status: &'static str,
    pub version: &'static str,
}

/// Whether the process can do its work.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(title = "Readiness")]
pub struct Readiness {
    pub status: ReadyStatus,
    pub checks: Checks,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[schema(title = "ReadyStatus")]
#[serde(rename_all = "snake_case")]
pub enum ReadyStatus {
    Ok,
    /// It works, but jobs run late or not until something is back.
    Degraded,
    /// It cannot work.
    Unavailable,
}

#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(title = "Checks")]
pub struct Checks {
    /// Whether the store answers.
    pub store: Check,
    /// Whether its tables are those of this release.
    pub migrations: Check,
    /// Whether the broker can be reached.
    pub broker: Check,
}

#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(title = "Check")]
pub struct Check {
    pub status: CheckStatus,
    /// What stands behind it: `postgres`, `sqlite`, `rabbitmq` or `memory`.
    pub kind: &'static str,
    /// What is wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    pub duration_ms: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[schema(title = "CheckStatus")]
#[serde(rename_all = "snake_case")]
pub enum CheckStatus {
    Ok,
    Failed,
}
