//! Claim: queued jobs to running ones, with their arguments.

use chrono::{DateTime, Utc};
use sqlx::FromRow;
use uuid::Uuid;

use super::{PostgresStore, jobs::job_columns};
use crate::{
    id::{InstanceId, JobId},
    store::{Claim, StoreError, rows::JobRow, rows::Reader},
};

/// A job locked by another statement is being claimed, cancelled, expired or republished; whoever
/// does that sees to it, so it is skipped, not waited for.
pub(super) const CLAIM: &str = concat!(
    "
WITH due AS (
    SELECT job_id
    FROM jobs
    WHERE job_id = ANY ($1)
        AND status || '' = 'queued'
        AND (run_at IS NULL OR run_at <= $3)
        AND (expires_at IS NULL OR started_at IS NOT NULL OR expires_at > $3)
        AND EXISTS (SELECT FROM instances WHERE instance_id = $2 AND lost_at IS NULL)
    FOR UPDATE SKIP LOCKED
)
UPDATE jobs
SET status = 'running', attempt = jobs.attempt + 1, instance_id = $2, run_at = NULL,
    started_at = COALESCE(jobs.started_at, $3), attempt_started_at = $3
FROM due
WHERE jobs.job_id = ANY (ARRAY[due.job_id])
RETURNING ",
    job_columns!(),
    ", (SELECT job_inputs.args::text FROM job_inputs WHERE job_inputs.job_id = jobs.job_id) AS args"
);

#[derive(FromRow)]
struct ClaimRow {
    #[sqlx(flatten)]
    job: JobRow<DateTime<Utc>>,
    args: Option<String>,
}

impl ClaimRow {
    fn into_claim(self, instance: InstanceId) -> Result<Claim, StoreError> {
        let read = Reader("job_inputs");
        let args = self.args.ok_or_else(|| read.corrupt("args", "there is no row"))?;
        Ok(Claim { args: read.json("args", args)?, job: self.job.try_into()?, instance })
    }
}

impl PostgresStore {
    pub(super) async fn claim_jobs(
        &self,
        ids: &[JobId],
        instance: InstanceId,
        now: DateTime<Utc>,
    ) -> Result<Vec<Claim>, StoreError> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let ids: Vec<Uuid> = ids.iter().map(|id| id.as_uuid()).collect();
        let claimed: Vec<ClaimRow> = self
            .run(|lent| {
                let query = sqlx::query_as(CLAIM).bind(&ids).bind(instance.as_uuid()).bind(now);
                Box::pin(query.fetch_all(lent.connection()))
            })
            .await?;
        let mut claims = Vec::with_capacity(claimed.len());
        for row in claimed {
            let job_id = row.job.job_id;
            match row.into_claim(instance) {
                Ok(claim) => claims.push(claim),
                // The claims beside it are good and must reach their worker. This one ends when
                // its instance does, and as failed in the end.
                Err(error) => {
                    tracing::error!(job.id = %job_id, error = &error as &dyn std::error::Error, "claimed job cannot be read");
                }
            }
        }
        Ok(claims)
    }
}
