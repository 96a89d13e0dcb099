//! Claims: how they are made, held and ended.

use chrono::{DateTime, Utc};
use rusqlite::params;
use uuid::Uuid;

use super::{
    SqliteStore,
    defer::defer,
    ending::{AttemptEnd, JobEnd, insert_attempt, insert_result},
    error::in_table,
    jobs::{Columns, job_columns, job_row},
    streams::has_chunks,
    values::{self, Hex, array, micros},
    writer::{Durability, Tx},
};
use crate::{
    id::{InstanceId, JobId},
    job::Outcome,
    store::{
        Claim, StoreError,
        rows::{self, ClaimRow, Ending, ready_at},
    },
};

/// Those of a [`ClaimRow`].
macro_rules! claim_columns {
    () => {
        concat!(
            job_columns!(),
            ", (SELECT args FROM job_inputs AS i WHERE i.job_id = jobs.job_id) AS args, ready_at"
        )
    };
}

pub(super) const CLAIM: &str = concat!(
    "UPDATE jobs
     SET status = 'running', instance_id = ?2, attempt = attempt + 1, run_at = NULL,
         started_at = coalesce(started_at, ?3), attempt_started_at = ?3
     WHERE job_id = ?1 AND status = 'queued'
         AND (run_at IS NULL OR run_at <= ?3)
         AND (expires_at IS NULL OR expires_at > ?3 OR started_at IS NOT NULL
             OR ticket IS NOT NULL)
         AND EXISTS (SELECT 1 FROM instances WHERE instance_id = ?2 AND lost_at IS NULL)
     RETURNING ",
    claim_columns!()
);

/// A claim that a loss of power forgets leaves its job queued, to be claimed again; what the claim
/// led to is written after it and brings it to the disk. So it need not wait for the disk itself.
pub(super) async fn claim(
    store: &SqliteStore,
    jobs: &[JobId],
    instance: InstanceId,
    now: DateTime<Utc>,
) -> Result<Vec<Claim>, StoreError> {
    if jobs.is_empty() {
        return Ok(Vec::new());
    }
    let jobs = jobs.to_vec();
    let claim_all = move |tx: &Tx<'_>| {
        let mut claimed = Vec::with_capacity(jobs.len());
        for id in jobs {
            claimed.extend(claim_one(tx, id, instance, now)?);
        }
        Ok(claimed)
    };
    let claimed: Vec<ClaimRow<i64>> = store.writer.write(Durability::System, claim_all).await?;
    Ok(rows::claims(claimed, instance))
}

fn claim_one(
    tx: &Tx<'_>,
    id: JobId,
    instance: InstanceId,
    now: DateTime<Utc>,
) -> Result<Option<ClaimRow<i64>>, StoreError> {
    let values = params![id.as_uuid(), instance.as_uuid(), micros(now)];
    tx.optional("jobs", CLAIM, values, |row| {
        let mut columns = Columns::of(row);
        let job = job_row(&mut columns)?;
        Ok(ClaimRow { job, args: columns.next()?, ready_at: columns.next()? })
    })
}

pub(super) const LENT: &str = concat!(
    "SELECT ",
    claim_columns!(),
    "
     FROM jobs
     WHERE job_id IN (SELECT unhex(value) FROM jsonb_each(?1))
         AND status = 'running' AND instance_id = ?2
         AND attempt = 1 AND attempt_started_at = created_at
         AND EXISTS (SELECT 1 FROM instances WHERE instance_id = ?2 AND lost_at IS NULL)"
);

pub(super) async fn lent(
    store: &SqliteStore,
    ids: &[JobId],
    instance: InstanceId,
) -> Result<Vec<Claim>, StoreError> {
    let lent: Vec<ClaimRow<i64>> = sqlx::query_as(LENT)
        .bind(values::ids(ids.iter().map(|id| id.as_uuid())))
        .bind(instance.as_uuid())
        .fetch_all(&store.readers)
        .await
        .map_err(in_table("jobs"))?;
    Ok(rows::claims(lent, instance))
}

/// The status stands twice: the first is the condition of the index by instance.
pub(super) const STRAYS: &str = concat!(
    "SELECT ",
    claim_columns!(),
    "
     FROM jobs
     WHERE status IN ('queued', 'running') AND status = 'running'
         AND instance_id = ?1
         AND attempt_started_at < ?3
         AND NOT EXISTS (
             SELECT 1 FROM jsonb_each(?2)
             WHERE unhex(value ->> 0) = jobs.job_id AND value ->> 1 = jobs.attempt
         )
     LIMIT ?4"
);

pub(super) async fn strays(
    store: &SqliteStore,
    instance: InstanceId,
    held: &[(JobId, u32)],
    before: DateTime<Utc>,
    limit: u32,
) -> Result<Vec<Claim>, StoreError> {
    let held = held.iter().map(|(id, attempt)| (Hex(id.as_uuid()), attempt));
    let strays: Vec<ClaimRow<i64>> = sqlx::query_as(STRAYS)
        .bind(instance.as_uuid())
        .bind(array(held))
        .bind(micros(before))
        .bind(limit)
        .fetch_all(&store.readers)
        .await
        .map_err(in_table("jobs"))?;
    Ok(rows::claims(strays, instance))
}

pub(super) async fn finish(
    store: &SqliteStore,
    outcomes: &[(Claim, Outcome)],
    now: DateTime<Utc>,
) -> Result<Vec<bool>, StoreError> {
    if outcomes.is_empty() {
        return Ok(Vec::new());
    }
    let outcomes = outcomes.to_vec();
    let end_all = move |tx: &Tx<'_>| {
        // In their order: of two outcomes of one claim the first counts.
        outcomes.iter().map(|(claim, outcome)| end(tx, claim, outcome, now)).collect()
    };
    store.writer.write(Durability::Disk, end_all).await
}

/// Ends one attempt if its claim still holds.
fn end(
    tx: &Tx<'_>,
    claim: &Claim,
    outcome: &Outcome,
    now: DateTime<Utc>,
) -> Result<bool, StoreError> {
    let ending = if rows::gives_stream_back(claim, outcome) && has_chunks(tx, &claim.job)? {
        Ending::stream_lost(claim.job.id)
    } else if let Outcome::Deferred { run_at, ticket } = outcome {
        return defer(tx, claim, *run_at, ticket.as_deref(), now);
    } else {
        let Some(ending) = Ending::of(outcome) else { return Ok(false) };
        ending
    };
    let values = params![
        claim.job.id.as_uuid(),
        claim.job.attempt,
        claim.instance.as_uuid(),
        ending.status.as_str(),
        ending.status.is_final(),
        ending.lost,
        ending.run_at.map(micros),
        micros(ready_at(ending.run_at, now)),
        micros(now),
        claim.job.attempt_started_at.map(micros),
    ];
    if tx.execute("jobs", END, values)? == 0 {
        return Ok(false);
    }
    let attempt = AttemptEnd {
        job: &claim.job,
        instance: claim.instance,
        outcome: ending.outcome,
        error: ending.error.as_ref(),
        usage: &ending.usage,
        vendor_request_id: ending.vendor_request_id.as_deref(),
    };
    insert_attempt(tx, &attempt, now)?;
    if ending.status.is_final() {
        let end = JobEnd {
            job: &claim.job,
            status: ending.status,
            response: ending.response.as_ref(),
            error: ending.error.as_ref(),
            usage: &ending.usage,
        };
        insert_result(tx, &end, now)?;
    }
    Ok(true)
}

pub(super) async fn revoked(
    store: &SqliteStore,
    instance: InstanceId,
    held: &[(JobId, u32)],
) -> Result<Vec<JobId>, StoreError> {
    if held.is_empty() {
        return Ok(Vec::new());
    }
    let values = held.iter().map(|(id, attempt)| (Hex(id.as_uuid()), attempt));
    let gone: Vec<Uuid> = sqlx::query_scalar(REVOKED)
        .bind(array(values))
        .bind(instance.as_uuid())
        .fetch_all(&store.readers)
        .await
        .map_err(in_table("jobs"))?;
    Ok(gone.into_iter().map(JobId::from_uuid).collect())
}

pub(super) const END: &str = "UPDATE jobs
         SET status = ?4,
             finished_at = iif(?5, ?9, NULL),
             instance_id = iif(?5, NULL, instance_id),
             lost_attempts = lost_attempts + ?6,
             run_at = ?7,
             ticket = iif(?6 AND NOT ?5, ticket, NULL),
             ready_at = iif(?5, ready_at, ?8)
         WHERE job_id = ?1 AND status = 'running' AND attempt = ?2 AND instance_id = ?3
             AND attempt_started_at = ?10
             AND EXISTS (SELECT 1 FROM instances WHERE instance_id = ?3 AND lost_at IS NULL)";

pub(super) const REVOKED: &str = "SELECT e.job_id
         FROM (
             SELECT unhex(value ->> 0) AS job_id, value ->> 1 AS attempt FROM jsonb_each(?1)
         ) AS e
         LEFT JOIN jobs AS j ON j.job_id = e.job_id
             AND j.status = 'running' AND j.instance_id = ?2 AND j.attempt = e.attempt
             AND EXISTS (SELECT 1 FROM instances WHERE instance_id = ?2 AND lost_at IS NULL)
         WHERE j.job_id IS NULL";
