//! Deferrals: claims that were never used for a call, taken back.

use chrono::{DateTime, Utc};
use sqlx::PgConnection;

use super::{finish::without_nul, streams::Begun, submit::count};
use crate::{job::Outcome, store::Claim};

/// As FINISH guards itself. What the claim had overwritten is put back: with no attempt before it
/// the job has not started, unless it has a ticket: then its vendor is at work. Its last attempt is
/// that of the row before.
pub(super) const DEFER: &str = "
UPDATE jobs
SET status = 'queued',
    attempt = jobs.attempt - 1,
    started_at = CASE
        WHEN jobs.attempt > 1 OR COALESCE(input.ticket, jobs.ticket) IS NOT NULL
        THEN jobs.started_at
    END,
    attempt_started_at = (
        SELECT attempts.started_at
        FROM attempts
        WHERE attempts.job_id = jobs.job_id AND attempts.number = jobs.attempt - 1
    ),
    run_at = input.run_at,
    ready_at = GREATEST(input.run_at, $6),
    deferred = true,
    ticket = COALESCE(input.ticket, jobs.ticket)
FROM unnest(
    $1::uuid[], $2::uuid[], $3::int4[], $4::timestamptz[], $5::timestamptz[], $7::text[]
) WITH ORDINALITY AS input (
    job_id, instance_id, attempt, attempt_started_at, run_at, ticket, position
)
WHERE jobs.job_id = ANY (ARRAY[input.job_id])
    AND jobs.status || '' = 'running'
    AND jobs.instance_id = input.instance_id
    AND jobs.attempt = input.attempt
    AND jobs.attempt_started_at = input.attempt_started_at
    AND input.instance_id = ANY (ARRAY(
        SELECT instance_id FROM instances WHERE instance_id = ANY ($2) AND lost_at IS NULL
    ))
RETURNING input.position";

/// One deferral, and where its answer goes.
pub(super) struct Deferral<'a> {
    index: usize,
    claim: &'a Claim,
    run_at: DateTime<Utc>,
    ticket: Option<&'a str>,
}

impl<'a> Deferral<'a> {
    /// Those of `outcomes` that are deferrals, in the order in which jobs are locked. An attempt
    /// whose stream has begun cannot be taken back.
    pub(super) fn of(outcomes: &'a [(Claim, Outcome)], begun: &Begun) -> Vec<Self> {
        let mut deferrals: Vec<Self> = outcomes
            .iter()
            .enumerate()
            .filter(|(_, (claim, _))| !begun.contains(&(claim.job.id, claim.job.attempt)))
            .filter_map(|(index, (claim, outcome))| match outcome {
                Outcome::Deferred { run_at, ticket } => {
                    Some(Self { index, claim, run_at: *run_at, ticket: ticket.as_deref() })
                }
                _ => None,
            })
            .collect();
        deferrals.sort_by_key(|deferral| deferral.claim.job.id);
        deferrals
    }
}

/// Answers the indices of those whose claims still held.
pub(super) async fn defer(
    connection: &mut PgConnection,
    deferrals: &[Deferral<'_>],
    now: DateTime<Utc>,
) -> Result<Vec<usize>, sqlx::Error> {
    if deferrals.is_empty() {
        return Ok(Vec::new());
    }
    macro_rules! column {
        (|$one:ident| $value:expr) => {
            deferrals.iter().map(|$one| $value).collect::<Vec<_>>()
        };
    }
    let positions: Vec<i64> = sqlx::query_scalar(DEFER)
        .bind(column!(|one| one.claim.job.id.as_uuid()))
        .bind(column!(|one| one.claim.instance.as_uuid()))
        .bind(column!(|one| count(one.claim.job.attempt)))
        .bind(column!(|one| one.claim.job.attempt_started_at))
        .bind(column!(|one| one.run_at))
        .bind(now)
        .bind(column!(|one| one.ticket.map(without_nul)))
        .fetch_all(connection)
        .await?;
    let index = |position: i64| {
        let one = usize::try_from(position - 1).ok().and_then(|at| deferrals.get(at))?;
        Some(one.index)
    };
    Ok(positions.into_iter().filter_map(index).collect())
}
