//! Claims: how they are made, held and ended.

use std::collections::HashSet;

use chrono::{DateTime, Utc};
use sqlx::{FromRow, SqliteConnection};
use uuid::Uuid;

use super::{
    SqliteStore, commit,
    defer::defer,
    ending::{AttemptEnd, JobEnd, insert_attempts, insert_results},
    error::in_table,
    jobs::job_columns,
    values::{Hex, array, ids, micros},
};
use crate::{
    id::{InstanceId, JobId},
    job::Outcome,
    store::{
        Claim, StoreError,
        rows::{self, Ending, JobRow, Reader, ready_at},
    },
};

#[derive(FromRow)]
struct ClaimRow {
    #[sqlx(flatten)]
    job: JobRow<i64>,
    args: Option<String>,
    ready_at: i64,
}

impl ClaimRow {
    fn into_claim(self, instance: InstanceId) -> Result<Claim, StoreError> {
        let read = Reader("job_inputs");
        let args = self.args.ok_or_else(|| read.corrupt("args", "there is no row"))?;
        let args = read.json("args", args)?;
        let ready_at = Reader("jobs").instant("ready_at", self.ready_at)?;
        Ok(Claim { job: self.job.try_into()?, args, instance, ready_at })
    }
}

pub(super) const CLAIM: &str = concat!(
    "UPDATE jobs
     SET status = 'running', instance_id = ?2, attempt = attempt + 1, run_at = NULL,
         started_at = coalesce(started_at, ?3), attempt_started_at = ?3
     WHERE job_id IN (SELECT unhex(value) FROM json_each(?1))
         AND status = 'queued'
         AND (run_at IS NULL OR run_at <= ?3)
         AND (expires_at IS NULL OR expires_at > ?3 OR started_at IS NOT NULL)
         AND EXISTS (SELECT 1 FROM instances WHERE instance_id = ?2 AND lost_at IS NULL)
     RETURNING ",
    job_columns!(),
    ", (SELECT args FROM job_inputs AS i WHERE i.job_id = jobs.job_id) AS args, ready_at"
);

pub(super) async fn claim(
    store: &SqliteStore,
    jobs: &[JobId],
    instance: InstanceId,
    now: DateTime<Utc>,
) -> Result<Vec<Claim>, StoreError> {
    if jobs.is_empty() {
        return Ok(Vec::new());
    }
    let mut tx = store.write().await?;
    let claimed: Vec<ClaimRow> = sqlx::query_as(CLAIM)
        .bind(ids(jobs.iter().map(|id| id.as_uuid())))
        .bind(instance.as_uuid())
        .bind(micros(now))
        .fetch_all(&mut *tx)
        .await
        .map_err(in_table("jobs"))?;
    commit(tx).await?;
    // The claims beside one that cannot be read are good and must reach their worker. That one ends
    // when its instance does.
    let read = |row: ClaimRow| rows::readable(row.job.job_id, row.into_claim(instance));
    Ok(claimed.into_iter().filter_map(read).collect())
}

/// The status stands twice: the first is the condition of the index by instance.
pub(super) const STRAYS: &str = concat!(
    "SELECT ",
    job_columns!(),
    ", (SELECT args FROM job_inputs AS i WHERE i.job_id = jobs.job_id) AS args, ready_at
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
    let strays: Vec<ClaimRow> = sqlx::query_as(STRAYS)
        .bind(instance.as_uuid())
        .bind(array(held))
        .bind(micros(before))
        .bind(limit)
        .fetch_all(&store.readers)
        .await
        .map_err(in_table("jobs"))?;
    let read = |row: ClaimRow| rows::readable(row.job.job_id, row.into_claim(instance));
    Ok(strays.into_iter().filter_map(read).collect())
}

pub(super) async fn finish(
    store: &SqliteStore,
    outcomes: &[(Claim, Outcome)],
    now: DateTime<Utc>,
) -> Result<Vec<bool>, StoreError> {
    if outcomes.is_empty() {
        return Ok(Vec::new());
    }
    // Where each ending stands among the outcomes; deferrals, which end nothing, stand between.
    let (places, endings): (Vec<usize>, Vec<(&Claim, Ending)>) = outcomes
        .iter()
        .enumerate()
        .filter_map(|(index, (claim, outcome))| Some((index, (claim, Ending::of(outcome)?))))
        .unzip();
    let mut held = vec![false; endings.len()];
    let mut tx = store.write().await?;
    // One statement can end a job once. Where a job stands twice in the batch, its second claim
    // is looked at after the first has been dealt with.
    let mut round: Vec<usize> = (0..endings.len()).collect();
    while !round.is_empty() {
        let mut jobs = HashSet::with_capacity(round.len());
        let (now_ending, later) =
            round.into_iter().partition(|&index| jobs.insert(endings[index].0.job.id));
        end(&mut tx, &endings, now_ending, &mut held, now).await?;
        round = later;
    }
    let mut answers = vec![false; outcomes.len()];
    defer(&mut tx, outcomes, now, &mut answers).await?;
    commit(tx).await?;
    for (place, held) in places.into_iter().zip(held) {
        answers[place] = held;
    }
    Ok(answers)
}

/// Ends those of `endings` that `round` names, each of another job, and notes which were held.
async fn end(
    tx: &mut SqliteConnection,
    endings: &[(&Claim, Ending)],
    round: Vec<usize>,
    held: &mut [bool],
    now: DateTime<Utc>,
) -> Result<(), StoreError> {
    let ended = update_held(tx, round.iter().map(|&index| &endings[index]), now).await?;
    let mut attempts = Vec::with_capacity(round.len());
    let mut results = Vec::with_capacity(round.len());
    for index in round {
        let (claim, ending) = &endings[index];
        if !ended.contains(&claim.job.id.as_uuid()) {
            continue;
        }
        held[index] = true;
        attempts.push(AttemptEnd {
            job: &claim.job,
            instance: claim.instance,
            outcome: ending.outcome,
            error: ending.error.as_ref(),
            usage: &ending.usage,
            vendor_request_id: ending.vendor_request_id.as_deref(),
        });
        if ending.status.is_final() {
            results.push(JobEnd {
                job: &claim.job,
                status: ending.status,
                response: ending.response.as_ref(),
                error: ending.error.as_ref(),
                usage: &ending.usage,
            });
        }
    }
    insert_attempts(tx, &attempts, now).await?;
    insert_results(tx, &results, now).await
}

/// Moves the jobs whose claim still holds and answers which.
async fn update_held<'a>(
    tx: &mut SqliteConnection,
    endings: impl Iterator<Item = &'a (&'a Claim, Ending)>,
    now: DateTime<Utc>,
) -> Result<HashSet<Uuid>, StoreError> {
    let values = endings.map(|(claim, ending)| {
        (
            Hex(claim.job.id.as_uuid()),
            claim.job.attempt,
            Hex(claim.instance.as_uuid()),
            ending.status.as_str(),
            ending.status.is_final(),
            ending.lost,
            ending.run_at.map(micros),
            micros(ready_at(ending.run_at, now)),
            claim.job.attempt_started_at.map(micros),
        )
    });
    let ended: Vec<Uuid> = sqlx::query_scalar(END)
        .bind(array(values))
        .bind(micros(now))
        .fetch_all(tx)
        .await
        .map_err(in_table("jobs"))?;
    Ok(ended.into_iter().collect())
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
         SET status = e.status,
             finished_at = iif(e.final, ?2, NULL),
             instance_id = iif(e.final, NULL, jobs.instance_id),
             lost_attempts = jobs.lost_attempts + e.lost,
             run_at = e.run_at,
             ready_at = iif(e.final, jobs.ready_at, e.ready_at)
         FROM (
             SELECT unhex(value ->> 0) AS job_id, value ->> 1 AS attempt,
                 unhex(value ->> 2) AS instance_id, value ->> 3 AS status, value ->> 4 AS final,
                 value ->> 5 AS lost, value ->> 6 AS run_at, value ->> 7 AS ready_at,
                 value ->> 8 AS attempt_started_at
             FROM jsonb_each(?1)
         ) AS e
         WHERE jobs.job_id = e.job_id AND jobs.status = 'running'
             AND jobs.attempt = e.attempt AND jobs.instance_id = e.instance_id
             AND jobs.attempt_started_at = e.attempt_started_at
             AND EXISTS (
                 SELECT 1 FROM instances AS i
                 WHERE i.instance_id = e.instance_id AND i.lost_at IS NULL
             )
         RETURNING job_id";

pub(super) const REVOKED: &str = "SELECT e.job_id
         FROM (
             SELECT unhex(value ->> 0) AS job_id, value ->> 1 AS attempt FROM jsonb_each(?1)
         ) AS e
         LEFT JOIN jobs AS j ON j.job_id = e.job_id
             AND j.status = 'running' AND j.instance_id = ?2 AND j.attempt = e.attempt
             AND EXISTS (SELECT 1 FROM instances WHERE instance_id = ?2 AND lost_at IS NULL)
         WHERE j.job_id IS NULL";
