//! Deferrals: claims that were never used for a call, taken back.

use std::collections::HashSet;

use chrono::{DateTime, Utc};
use sqlx::SqliteConnection;
use uuid::Uuid;

use super::{
    error::in_table,
    values::{Hex, array, micros},
};
use crate::{
    job::Outcome,
    store::{Claim, StoreError, rows::ready_at},
};

/// As END guards itself. What the claim had overwritten is put back: with no attempt before it the
/// job has not started, else its last attempt is that of the row before.
pub(super) const DEFER: &str = "UPDATE jobs
         SET status = 'queued',
             attempt = jobs.attempt - 1,
             started_at = iif(jobs.attempt > 1, jobs.started_at, NULL),
             attempt_started_at = (
                 SELECT a.started_at FROM attempts AS a
                 WHERE a.job_id = jobs.job_id AND a.number = jobs.attempt - 1
             ),
             run_at = d.run_at,
             ready_at = d.ready_at
         FROM (
             SELECT unhex(value ->> 0) AS job_id, value ->> 1 AS attempt,
                 unhex(value ->> 2) AS instance_id, value ->> 3 AS attempt_started_at,
                 value ->> 4 AS run_at, value ->> 5 AS ready_at
             FROM jsonb_each(?1)
         ) AS d
         WHERE jobs.job_id = d.job_id AND jobs.status = 'running'
             AND jobs.attempt = d.attempt AND jobs.instance_id = d.instance_id
             AND jobs.attempt_started_at = d.attempt_started_at
             AND EXISTS (
                 SELECT 1 FROM instances AS i
                 WHERE i.instance_id = d.instance_id AND i.lost_at IS NULL
             )
         RETURNING job_id";

/// Defers those of `outcomes` that say so, and notes in `answers` which claims still held.
pub(super) async fn defer(
    tx: &mut SqliteConnection,
    outcomes: &[(Claim, Outcome)],
    now: DateTime<Utc>,
    answers: &mut [bool],
) -> Result<(), StoreError> {
    let deferrals: Vec<(usize, &Claim, DateTime<Utc>)> = outcomes
        .iter()
        .enumerate()
        .filter_map(|(index, (claim, outcome))| match outcome {
            Outcome::Deferred { run_at } => Some((index, claim, *run_at)),
            _ => None,
        })
        .collect();
    if deferrals.is_empty() {
        return Ok(());
    }
    let values = deferrals.iter().map(|(_, claim, run_at)| {
        (
            Hex(claim.job.id.as_uuid()),
            claim.job.attempt,
            Hex(claim.instance.as_uuid()),
            claim.job.attempt_started_at.map(micros),
            micros(*run_at),
            micros(ready_at(Some(*run_at), now)),
        )
    });
    let deferred: Vec<Uuid> = sqlx::query_scalar(DEFER)
        .bind(array(values))
        .fetch_all(tx)
        .await
        .map_err(in_table("jobs"))?;
    let mut deferred: HashSet<Uuid> = deferred.into_iter().collect();
    for (index, claim, _) in deferrals {
        // A claim that stands twice in the batch is ended once.
        answers[index] = deferred.remove(&claim.job.id.as_uuid());
    }
    Ok(())
}
