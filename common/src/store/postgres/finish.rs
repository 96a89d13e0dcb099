//! Finish: what became of attempts, with results and deliveries, in one statement.

use std::ops::Range;

use chrono::{DateTime, Utc};
use sqlx::{Connection as _, PgConnection};
use uuid::Uuid;

use super::{
    PostgresStore,
    defer::{Deferral, defer},
    streams::{Begun, lock_streams},
    submit::{chunks_by_bytes, count},
};
use crate::{
    callback::Delivery,
    error::JobError,
    id::JobId,
    job::{Json, Outcome},
    store::{
        Claim, StoreError,
        rows::{self, Ending},
    },
};

/// `ended` is what the claims still held; all else is written from it alone.
///
/// Documents are picked by their position, so that they are not carried through the steps.
macro_rules! finish {
    ($owed:literal) => {
        concat!(
            "
WITH ended AS (
    UPDATE jobs
    SET status = input.status,
        lost_attempts = jobs.lost_attempts + input.lost::int4,
        run_at = input.run_at,
        ticket = CASE WHEN input.lost AND input.status = 'queued' THEN jobs.ticket END,
        ready_at = CASE
            WHEN input.status = 'queued' THEN GREATEST(input.run_at, $12) ELSE jobs.ready_at
        END,
        finished_at = CASE WHEN input.status <> 'queued' THEN $12 END,
        instance_id = CASE WHEN input.status = 'queued' THEN jobs.instance_id END
    FROM unnest(
        $1::uuid[], $2::uuid[], $3::int4[], $4::text[], $5::text[], $6::bool[], $7::timestamptz[],
        $8::text[], $9::uuid[], $10::text[], $15::timestamptz[], $16::timestamptz[]
    ) WITH ORDINALITY AS input (
        job_id, instance_id, attempt, status, outcome, lost, run_at, vendor_request_id,
        delivery_id, host, attempt_started_at, began_at, position
    )
    WHERE jobs.job_id = ANY (ARRAY[input.job_id])
        AND jobs.status || '' = 'running'
        AND jobs.instance_id = input.instance_id
        AND jobs.attempt = input.attempt
        AND jobs.attempt_started_at = input.attempt_started_at
        AND input.instance_id = ANY (ARRAY(
            SELECT instance_id FROM instances WHERE instance_id = ANY ($2) AND lost_at IS NULL
        ))
    RETURNING jobs.job_id, jobs.account_id, jobs.callback_url, jobs.attempt, jobs.status,
        input.began_at, input.instance_id, input.outcome,
        input.vendor_request_id, input.delivery_id, input.host, input.position
), tried AS (
    INSERT INTO attempts (
        job_id, number, outcome, instance_id, started_at, finished_at, error, usage,
        vendor_request_id
    )
    SELECT job_id, attempt, outcome, instance_id, began_at, $12,
        ($13::text[])[position]::json, ($14::text[])[position]::json, vendor_request_id
    FROM ended
), results AS (
    INSERT INTO job_results (job_id, response, error, usage)
    SELECT job_id, ($11::text[])[position]::json, ($13::text[])[position]::json,
        ($14::text[])[position]::json
    FROM ended
    WHERE status <> 'queued'
",
            $owed,
            ")
SELECT position FROM ended"
        )
    };
}

/// For groups that owe callbacks.
pub(super) const FINISH: &str = finish!(
    "), owed AS (
    INSERT INTO deliveries (
        delivery_id, job_id, account_id, url, host, job_status, status, attempt, created_at,
        next_attempt_at
    )
    SELECT delivery_id, job_id, account_id, callback_url, host, status, 'pending', 0, $12, $12
    FROM ended
    WHERE status <> 'queued' AND delivery_id IS NOT NULL
"
);

/// For groups that owe none: a statement pays for each table it names, written to or not.
pub(super) const FINISH_QUIETLY: &str = finish!("");

/// One outcome as it is bound, and where its answer goes.
struct Finished<'a> {
    index: usize,
    claim: &'a Claim,
    ending: Ending,
    delivery: Option<Delivery>,
}

/// The statements of a group of outcomes.
struct Plan<'a> {
    finished: Vec<Finished<'a>>,
    /// What each statement of them holds.
    ranges: Vec<Range<usize>>,
    deferrals: Vec<Deferral<'a>>,
}

impl<'a> Plan<'a> {
    /// Attempts in `begun` that are given back end their jobs.
    fn of(outcomes: &'a [(Claim, Outcome)], begun: &Begun, now: DateTime<Utc>) -> Self {
        let mut finished: Vec<Finished> = outcomes
            .iter()
            .enumerate()
            .filter_map(|(index, (claim, outcome))| {
                let lost = begun.contains(&(claim.job.id, claim.job.attempt))
                    && rows::gives_stream_back(claim, outcome);
                let ending =
                    if lost { Ending::stream_lost(claim.job.id) } else { Ending::of(outcome)? };
                let delivery = ending
                    .status
                    .is_final()
                    .then(|| rows::delivery_owed(&claim.job, ending.status, now))
                    .flatten();
                Some(Finished { index, claim, ending, delivery })
            })
            .collect();
        finished.sort_by_key(|finished| finished.claim.job.id);
        let sizes = finished.iter().map(|finished| {
            finished.ending.response.as_ref().map_or(0, |response| response.as_str().len())
        });
        let ranges = chunks_by_bytes(sizes);
        Self { finished, ranges, deferrals: Deferral::of(outcomes, begun) }
    }

    fn is_one_statement(&self) -> bool {
        self.ranges.len() + usize::from(!self.deferrals.is_empty()) <= 1
    }

    /// Answers the indices of those whose claims still held.
    async fn write(
        &self,
        connection: &mut PgConnection,
        now: DateTime<Utc>,
    ) -> Result<Vec<usize>, sqlx::Error> {
        let mut held = Vec::new();
        for range in &self.ranges {
            held.extend(end(connection, &self.finished[range.clone()], now).await?);
        }
        held.extend(defer(connection, &self.deferrals, now).await?);
        Ok(held)
    }
}

impl PostgresStore {
    pub(super) async fn finish_jobs(
        &self,
        outcomes: &[(Claim, Outcome)],
        now: DateTime<Utc>,
    ) -> Result<Vec<bool>, StoreError> {
        let streams =
            outcomes.iter().any(|(claim, outcome)| rows::gives_stream_back(claim, outcome));
        let plan = Plan::of(outcomes, &Begun::new(), now);
        let held = self
            .run(|lent| {
                let plan = &plan;
                Box::pin(async move {
                    if plan.is_one_statement() && !streams {
                        return plan.write(lent.connection(), now).await;
                    }
                    let mut transaction = lent.connection().begin().await?;
                    let held = if streams {
                        let begun = lock_streams(&mut transaction, outcomes).await?;
                        Plan::of(outcomes, &begun, now).write(&mut transaction, now).await?
                    } else {
                        plan.write(&mut transaction, now).await?
                    };
                    transaction.commit().await?;
                    Ok(held)
                })
            })
            .await?;
        let mut answers = vec![false; outcomes.len()];
        for index in held {
            answers[index] = true;
        }
        Ok(answers)
    }
}

/// Answers the indices of those whose claims still held.
async fn end(
    connection: &mut PgConnection,
    finished: &[Finished<'_>],
    now: DateTime<Utc>,
) -> Result<Vec<usize>, sqlx::Error> {
    macro_rules! column {
        (|$one:ident| $value:expr) => {
            finished.iter().map(|$one| $value).collect::<Vec<_>>()
        };
    }
    let owes = finished.iter().any(|one| one.delivery.is_some());
    let positions: Vec<i64> = sqlx::query_scalar(if owes { FINISH } else { FINISH_QUIETLY })
        .bind(column!(|one| one.claim.job.id.as_uuid()))
        .bind(column!(|one| one.claim.instance.as_uuid()))
        .bind(column!(|one| count(one.claim.job.attempt)))
        .bind(column!(|one| one.ending.status.as_str()))
        .bind(column!(|one| one.ending.outcome.as_str()))
        .bind(column!(|one| one.ending.lost))
        .bind(column!(|one| one.ending.run_at))
        .bind(column!(|one| one.ending.vendor_request_id.as_deref().map(without_nul)))
        .bind(column!(|one| one.delivery.as_ref().map(|delivery| delivery.id.as_uuid())))
        .bind(column!(|one| one.delivery.as_ref().map(|delivery| delivery.host.as_str())))
        .bind(column!(|one| one.ending.response.as_ref().map(Json::as_str)))
        .bind(now)
        .bind(column!(|one| one.ending.error.as_ref().map(rows::text_of)))
        .bind(column!(|one| rows::usage_text(&one.ending.usage)))
        .bind(column!(|one| one.claim.job.attempt_started_at))
        .bind(column!(|one| one.claim.job.attempt_began_at()))
        .fetch_all(connection)
        .await?;
    let index = |position: i64| {
        let one = usize::try_from(position - 1).ok().and_then(|at| finished.get(at))?;
        Some(one.index)
    };
    Ok(positions.into_iter().filter_map(index).collect())
}

/// Postgres has no NUL in a text, and what others send us must not undo the whole group.
pub(super) fn without_nul(text: &str) -> std::borrow::Cow<'_, str> {
    if text.contains('\0') { text.replace('\0', "").into() } else { text.into() }
}

/// Results and deliveries of jobs that ended without a claim, each with its error.
pub(super) async fn write_ends(
    connection: &mut PgConnection,
    ends: &[(JobId, JobError)],
    deliveries: &[Delivery],
) -> Result<(), sqlx::Error> {
    let ids: Vec<Uuid> = ends.iter().map(|(id, _)| id.as_uuid()).collect();
    let errors: Vec<String> = ends.iter().map(|(_, error)| rows::text_of(error)).collect();
    sqlx::query(
        "INSERT INTO job_results (job_id, error)
        SELECT job_id, error::json FROM unnest($1::uuid[], $2::text[]) AS ended (job_id, error)",
    )
    .bind(ids)
    .bind(errors)
    .execute(&mut *connection)
    .await?;
    if deliveries.is_empty() {
        return Ok(());
    }
    macro_rules! column {
        (|$one:ident| $value:expr) => {
            deliveries.iter().map(|$one| $value).collect::<Vec<_>>()
        };
    }
    sqlx::query(
        "INSERT INTO deliveries (
            delivery_id, job_id, account_id, url, host, job_status, status, attempt, created_at,
            next_attempt_at
        )
        SELECT delivery_id, job_id, account_id, url, host, job_status, 'pending', 0, created_at,
            created_at
        FROM unnest(
            $1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::text[], $6::text[],
            $7::timestamptz[]
        ) AS owed (delivery_id, job_id, account_id, url, host, job_status, created_at)",
    )
    .bind(column!(|owed| owed.id.as_uuid()))
    .bind(column!(|owed| owed.job_id.as_uuid()))
    .bind(column!(|owed| owed.account.as_str()))
    .bind(column!(|owed| owed.url.as_str()))
    .bind(column!(|owed| owed.host.as_str()))
    .bind(column!(|owed| owed.job_status.as_str()))
    .bind(column!(|owed| owed.created_at))
    .execute(connection)
    .await?;
    Ok(())
}
