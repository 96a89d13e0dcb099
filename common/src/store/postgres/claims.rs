//! Claim: queued jobs to running ones, with their arguments.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::{PostgresStore, jobs::job_columns, submit::count};
use crate::{
    id::{InstanceId, JobId},
    store::{
        Claim, StoreError,
        rows::{self, ClaimRow},
    },
};

/// Those of a [`ClaimRow`].
macro_rules! claim_columns {
    () => {
        concat!(
            job_columns!(),
            ", (SELECT job_inputs.args::text FROM job_inputs WHERE job_inputs.job_id = jobs.job_id)
    AS args, jobs.ready_at"
        )
    };
}

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
        AND (
            expires_at IS NULL OR started_at IS NOT NULL OR ticket IS NOT NULL OR expires_at > $3
        )
        AND EXISTS (SELECT FROM instances WHERE instance_id = $2 AND lost_at IS NULL)
    FOR UPDATE SKIP LOCKED
)
UPDATE jobs
SET status = 'running', attempt = jobs.attempt + 1, instance_id = $2, run_at = NULL,
    started_at = COALESCE(jobs.started_at, $3), attempt_started_at = $3
FROM due
WHERE jobs.job_id = ANY (ARRAY[due.job_id])
RETURNING ",
    claim_columns!()
);

pub(super) const LENT: &str = concat!(
    "SELECT ",
    claim_columns!(),
    "
    FROM jobs
    WHERE jobs.job_id = ANY ($1)
        AND jobs.status || '' = 'running'
        AND jobs.instance_id = $2
        AND jobs.attempt = 1
        AND jobs.attempt_started_at = jobs.created_at
        AND EXISTS (SELECT FROM instances WHERE instance_id = $2 AND lost_at IS NULL)"
);

/// The status stands twice: the first is the condition of the index by instance.
pub(super) const STRAYS: &str = concat!(
    "SELECT ",
    claim_columns!(),
    "
    FROM jobs
    WHERE jobs.status IN ('queued', 'running') AND jobs.status = 'running'
        AND jobs.instance_id = $1
        AND jobs.attempt_started_at < $4
        AND NOT EXISTS (
            SELECT FROM unnest($2::uuid[], $3::int4[]) AS held (job_id, attempt)
            WHERE held.job_id = jobs.job_id AND held.attempt = jobs.attempt
        )
    LIMIT $5"
);

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
        let claimed: Vec<ClaimRow<DateTime<Utc>>> = self
            .run(|lent| {
                let query = sqlx::query_as(CLAIM).bind(&ids).bind(instance.as_uuid()).bind(now);
                Box::pin(query.fetch_all(lent.connection()))
            })
            .await?;
        Ok(rows::claims(claimed, instance))
    }

    pub(super) async fn find_lent(
        &self,
        ids: &[JobId],
        instance: InstanceId,
    ) -> Result<Vec<Claim>, StoreError> {
        let ids: Vec<Uuid> = ids.iter().map(|id| id.as_uuid()).collect();
        let lent: Vec<ClaimRow<DateTime<Utc>>> = self
            .run(|lent| {
                let query = sqlx::query_as(LENT).bind(&ids).bind(instance.as_uuid());
                Box::pin(query.fetch_all(lent.connection()))
            })
            .await?;
        Ok(rows::claims(lent, instance))
    }

    pub(super) async fn find_strays(
        &self,
        instance: InstanceId,
        held: &[(JobId, u32)],
        before: DateTime<Utc>,
        limit: u32,
    ) -> Result<Vec<Claim>, StoreError> {
        let ids: Vec<Uuid> = held.iter().map(|(id, _)| id.as_uuid()).collect();
        let attempts: Vec<i32> = held.iter().map(|(_, attempt)| count(*attempt)).collect();
        let strays: Vec<ClaimRow<DateTime<Utc>>> = self
            .run(|lent| {
                let query = sqlx::query_as(STRAYS)
                    .bind(instance.as_uuid())
                    .bind(&ids)
                    .bind(&attempts)
                    .bind(before)
                    .bind(i64::from(limit));
                Box::pin(query.fetch_all(lent.connection()))
            })
            .await?;
        Ok(rows::claims(strays, instance))
    }
}
