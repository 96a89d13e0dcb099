//! Streams: their chunks on the way in and out, a job's outline, and a job's twin.

use std::collections::HashSet;

use chrono::{DateTime, Utc};
use sqlx::{Connection as _, FromRow, PgConnection};
use uuid::Uuid;

use super::{
    PostgresStore,
    jobs::{job_columns, result_columns},
    submit::{chunks_by_bytes, count},
};
use crate::{
    id::{AccountId, InstanceId, JobId},
    job::{Job, Outcome},
    store::{
        Claim, StoreError, Twin,
        rows::{self, AttemptRow, ChunkRow, FoundRow, JobRow, Reader, TwinBounds},
    },
    stream::{ChunkGroup, Outline},
};

/// As FINISH guards itself. Whoever ends the attempt waits for the lock and then sees what was
/// stored, or has it first, and then the guard fails. The lock also keeps appends to one job apart;
/// one that waited for another still does not see what that wrote, but the key refuses a group with
/// the same place, and the statement holds each job once, so nothing can come after the gap.
pub(super) const APPEND: &str = "
WITH held AS (
    SELECT jobs.job_id, input.attempt, input.first, input.n, input.position
    FROM unnest(
        $1::uuid[], $2::uuid[], $3::int4[], $4::int8[], $5::int4[]
    ) WITH ORDINALITY AS input (job_id, instance_id, attempt, first, n, position)
    JOIN jobs ON jobs.job_id = ANY (ARRAY[input.job_id])
    WHERE jobs.status || '' = 'running'
        AND jobs.instance_id = input.instance_id
        AND jobs.attempt = input.attempt
        AND input.instance_id = ANY (ARRAY(
            SELECT instance_id FROM instances WHERE instance_id = ANY ($2) AND lost_at IS NULL
        ))
    FOR NO KEY UPDATE OF jobs
), added AS (
    INSERT INTO job_chunks (job_id, attempt, first, n, chunks)
    SELECT job_id, attempt, first, n, ($6::text[])[position]
    FROM held
    WHERE first = COALESCE((
        SELECT last.first + last.n
        FROM job_chunks AS last
        WHERE last.job_id = held.job_id AND last.attempt = held.attempt
        ORDER BY last.first DESC
        LIMIT 1
    ), 0)
    ON CONFLICT (job_id, attempt, first) DO NOTHING
    RETURNING job_id
)
SELECT held.position, EXISTS (SELECT FROM added WHERE added.job_id = held.job_id) AS added
FROM held";

/// Which of these groups are the last that is stored of their attempts.
pub(super) const REPEATED_GROUPS: &str = "
SELECT input.position
FROM unnest(
    $1::uuid[], $2::int4[], $3::int8[], $4::int4[]
) WITH ORDINALITY AS input (job_id, attempt, first, n, position)
WHERE (input.first, input.n) = (
    SELECT last.first, last.n
    FROM job_chunks AS last
    WHERE last.job_id = input.job_id AND last.attempt = input.attempt
    ORDER BY last.first DESC
    LIMIT 1
)";

/// Locks jobs in the order given.
pub(super) const LOCK: &str = "
SELECT jobs.job_id
FROM unnest($1::uuid[]) AS input (job_id)
JOIN jobs ON jobs.job_id = ANY (ARRAY[input.job_id])
FOR NO KEY UPDATE OF jobs";

pub(super) const BEGUN: &str = "
SELECT input.job_id, input.attempt
FROM unnest($1::uuid[], $2::int4[]) AS input (job_id, attempt)
WHERE EXISTS (
    SELECT FROM job_chunks
    WHERE job_chunks.job_id = input.job_id AND job_chunks.attempt = input.attempt
)";

/// The group that holds the chunk, and those after it until they have filled the answer. Texts are
/// read once it is known which.
pub(super) const READ: &str = "
SELECT job_chunks.first, job_chunks.n, job_chunks.chunks
FROM (
    SELECT first, (sum(bytes) OVER (ORDER BY first))::int8 - bytes AS filled
    FROM (
        SELECT first, octet_length(chunks) AS bytes
        FROM job_chunks
        WHERE job_id = $1 AND attempt = $2
            AND first >= COALESCE((
                SELECT first
                FROM job_chunks
                WHERE job_id = $1 AND attempt = $2 AND first <= $3
                ORDER BY first DESC
                LIMIT 1
            ), 0)
        ORDER BY first
        LIMIT $5
    ) AS following
) AS page
JOIN job_chunks ON job_chunks.job_id = $1 AND job_chunks.attempt = $2
    AND job_chunks.first = ANY (ARRAY[page.first])
WHERE page.filled < $4 OR page.filled = 0
ORDER BY page.first";

/// One statement sees one moment. Of each attempt's chunks only the last group is looked at.
pub(super) const OUTLINE: &str = concat!(
    "SELECT ",
    job_columns!(),
    ", ",
    result_columns!(),
    ",
    tried.numbers, tried.outcomes, tried.instances, tried.starts, tried.ends, tried.errors,
    tried.usages, tried.vendor_request_ids, streamed.attempts, streamed.counts
FROM jobs
LEFT JOIN job_results ON job_results.job_id = ANY (ARRAY[jobs.job_id])
CROSS JOIN LATERAL (
    SELECT array_agg(number ORDER BY number) AS numbers,
        array_agg(outcome ORDER BY number) AS outcomes,
        array_agg(attempts.instance_id ORDER BY number) AS instances,
        array_agg(attempts.started_at ORDER BY number) AS starts,
        array_agg(attempts.finished_at ORDER BY number) AS ends,
        array_agg(attempts.error::text ORDER BY number) AS errors,
        array_agg(attempts.usage::text ORDER BY number) AS usages,
        array_agg(vendor_request_id ORDER BY number) AS vendor_request_ids
    FROM attempts
    WHERE attempts.job_id = $1
) AS tried
CROSS JOIN LATERAL (
    SELECT array_agg(last.attempt ORDER BY last.attempt) AS attempts,
        array_agg(last.count ORDER BY last.attempt) AS counts
    FROM generate_series(1, jobs.attempt) AS number
    CROSS JOIN LATERAL (
        SELECT attempt, first + n AS count
        FROM job_chunks
        WHERE job_chunks.job_id = $1 AND job_chunks.attempt = number
        ORDER BY first DESC
        LIMIT 1
    ) AS last
    WHERE jobs.stream
) AS streamed
WHERE jobs.job_id = $1 AND jobs.account_id = $2"
);

/// The inner limit bounds the work whatever the account did meanwhile. Postgres compares lengths
/// before it reads a document.
pub(super) const FIND_TWIN: &str = concat!(
    "SELECT ",
    job_columns!(),
    "
FROM (
    SELECT * FROM jobs
    WHERE account_id = $1 AND job_id >= $2
    ORDER BY job_id DESC
    LIMIT $3
) AS jobs
WHERE jobs.status IN ('queued', 'running') AND jobs.created_at >= $4
    AND jobs.operation = $5 AND jobs.alias IS NOT DISTINCT FROM $6 AND jobs.vendor = $7
    AND jobs.model = $8 AND jobs.stream = $9
    AND (
        SELECT job_inputs.args::text FROM job_inputs WHERE job_inputs.job_id = jobs.job_id
    ) = $10
ORDER BY jobs.job_id DESC
LIMIT 1"
);

/// A job with all that its events are made of; the columns of `attempts` as arrays.
#[derive(FromRow)]
struct OutlineRow {
    #[sqlx(flatten)]
    found: FoundRow<DateTime<Utc>>,
    numbers: Option<Vec<i32>>,
    outcomes: Option<Vec<String>>,
    instances: Option<Vec<Option<Uuid>>>,
    starts: Option<Vec<DateTime<Utc>>>,
    ends: Option<Vec<DateTime<Utc>>>,
    errors: Option<Vec<Option<String>>>,
    usages: Option<Vec<Option<String>>>,
    vendor_request_ids: Option<Vec<Option<String>>>,
    attempts: Option<Vec<i32>>,
    counts: Option<Vec<i64>>,
}

impl TryFrom<OutlineRow> for Outline {
    type Error = StoreError;

    fn try_from(mut row: OutlineRow) -> Result<Self, StoreError> {
        let attempts = rows::all(row.take_attempts())?;
        let read = Reader("job_chunks");
        let (numbers, counts) = (row.attempts.unwrap_or_default(), row.counts.unwrap_or_default());
        let chunks = numbers
            .into_iter()
            .zip(counts)
            .map(|(attempt, n)| Ok((read.count("attempt", attempt)?, read.count("n", n)?)))
            .collect::<Result<_, StoreError>>()?;
        let (job, result) = row.found.into_found()?;
        Ok(Self { job, result, attempts, chunks })
    }
}

impl OutlineRow {
    /// All columns are of the same length.
    fn take_attempts(&mut self) -> Vec<AttemptRow<DateTime<Utc>>> {
        let job_id = self.found.job.job_id;
        let mut outcomes = self.outcomes.take().unwrap_or_default().into_iter();
        let mut instances = self.instances.take().unwrap_or_default().into_iter();
        let mut starts = self.starts.take().unwrap_or_default().into_iter();
        let mut ends = self.ends.take().unwrap_or_default().into_iter();
        let mut errors = self.errors.take().unwrap_or_default().into_iter();
        let mut usages = self.usages.take().unwrap_or_default().into_iter();
        let mut ids = self.vendor_request_ids.take().unwrap_or_default().into_iter();
        let mut row = |number| {
            Some(AttemptRow {
                job_id,
                number,
                outcome: outcomes.next()?,
                instance_id: instances.next()?,
                started_at: starts.next()?,
                finished_at: ends.next()?,
                error: errors.next()?,
                usage: usages.next()?,
                vendor_request_id: ids.next()?,
            })
        };
        self.numbers.take().unwrap_or_default().into_iter().map_while(&mut row).collect()
    }
}

/// A group that is to be appended, and where its answer goes.
struct Appended<'a> {
    index: usize,
    instance: InstanceId,
    group: &'a ChunkGroup,
    n: i32,
}

impl PostgresStore {
    pub(super) async fn append_groups(
        &self,
        groups: &[(InstanceId, ChunkGroup)],
    ) -> Result<Vec<bool>, StoreError> {
        let statements = statements(groups);
        let held = self
            .run(|lent| {
                let statements = &statements;
                Box::pin(async move {
                    match &statements[..] {
                        [] => Ok(Vec::new()),
                        [all] => append(lent.connection(), all).await,
                        many => {
                            let mut transaction = lent.connection().begin().await?;
                            let mut held = Vec::new();
                            for some in many {
                                held.extend(append(&mut transaction, some).await?);
                            }
                            transaction.commit().await?;
                            Ok(held)
                        }
                    }
                })
            })
            .await?;
        let mut answers = vec![false; groups.len()];
        for index in held {
            answers[index] = true;
        }
        Ok(answers)
    }

    pub(super) async fn read_groups(
        &self,
        id: JobId,
        attempt: u32,
        from: u64,
        max_bytes: usize,
    ) -> Result<Vec<ChunkGroup>, StoreError> {
        let found: Vec<ChunkRow> = self
            .run(|lent| {
                let query = sqlx::query_as(READ)
                    .bind(id.as_uuid())
                    .bind(count(attempt))
                    .bind(rows::index_of(from))
                    .bind(i64::try_from(max_bytes).unwrap_or(i64::MAX))
                    .bind(rows::MAX_GROUPS_READ);
                Box::pin(query.fetch_all(lent.connection()))
            })
            .await?;
        rows::chunk_groups(id, attempt, from, found)
    }

    pub(super) async fn find_outline(
        &self,
        id: JobId,
        account: &AccountId,
    ) -> Result<Option<Outline>, StoreError> {
        let found: Option<OutlineRow> = self
            .run(|lent| {
                let query = sqlx::query_as(OUTLINE).bind(id.as_uuid()).bind(account.as_str());
                Box::pin(query.fetch_optional(lent.connection()))
            })
            .await?;
        found.map(Outline::try_from).transpose()
    }

    pub(super) async fn find_twin_job(
        &self,
        twin: &Twin,
        since: DateTime<Utc>,
    ) -> Result<Option<Job>, StoreError> {
        let bounds = TwinBounds::of(since);
        let found: Option<JobRow<DateTime<Utc>>> = self
            .run(|lent| {
                let query = sqlx::query_as(FIND_TWIN)
                    .bind(twin.account.as_str())
                    .bind(bounds.low)
                    .bind(bounds.limit)
                    .bind(since)
                    .bind(twin.operation.as_str())
                    .bind(twin.alias.as_deref())
                    .bind(twin.vendor.as_str())
                    .bind(&twin.model)
                    .bind(twin.stream)
                    .bind(twin.args.as_str());
                Box::pin(query.fetch_optional(lent.connection()))
            })
            .await?;
        found.map(Job::try_from).transpose()
    }
}

/// What each statement of an append holds: a job once, and no more than one can carry. The first
/// round comes first, so that all jobs are locked in their order.
fn statements(groups: &[(InstanceId, ChunkGroup)]) -> Vec<Vec<Appended<'_>>> {
    let mut statements = Vec::new();
    for round in rows::rounds(groups) {
        let mut round: Vec<Appended> = round
            .into_iter()
            .filter_map(|index| {
                let (instance, group) = &groups[index];
                let n = rows::n_chunks(group)?;
                Some(Appended { index, instance: *instance, group, n })
            })
            .collect();
        let bytes = |one: &Appended| one.group.chunks.iter().map(|it| it.as_str().len() + 1).sum();
        let ranges = chunks_by_bytes(round.iter().map(bytes));
        for range in ranges {
            statements.push(round.drain(..range.len()).collect());
        }
    }
    statements
}

/// Answers the indices of those that are stored now.
async fn append(
    connection: &mut PgConnection,
    groups: &[Appended<'_>],
) -> Result<Vec<usize>, sqlx::Error> {
    macro_rules! column {
        (|$one:ident| $value:expr) => {
            groups.iter().map(|$one| $value).collect::<Vec<_>>()
        };
    }
    let held: Vec<(i64, bool)> = sqlx::query_as(APPEND)
        .bind(column!(|one| one.group.job_id.as_uuid()))
        .bind(column!(|one| one.instance.as_uuid()))
        .bind(column!(|one| count(one.group.attempt)))
        .bind(column!(|one| rows::index_of(one.group.first)))
        .bind(column!(|one| one.n))
        .bind(column!(|one| rows::chunks_text(&one.group.chunks)))
        .fetch_all(&mut *connection)
        .await?;
    let mut stored = Vec::with_capacity(held.len());
    let mut refused = Vec::new();
    for (position, added) in held {
        let one = usize::try_from(position - 1).ok().and_then(|at| groups.get(at));
        match one {
            Some(one) if added => stored.push(one.index),
            Some(one) => refused.push(one),
            None => {}
        }
    }
    stored.extend(find_repeated(connection, &refused).await?);
    Ok(stored)
}

/// Answers the indices of those that had been stored before: the answer to that was lost.
async fn find_repeated(
    connection: &mut PgConnection,
    refused: &[&Appended<'_>],
) -> Result<Vec<usize>, sqlx::Error> {
    if refused.is_empty() {
        return Ok(Vec::new());
    }
    macro_rules! column {
        (|$one:ident| $value:expr) => {
            refused.iter().map(|$one| $value).collect::<Vec<_>>()
        };
    }
    let positions: Vec<i64> = sqlx::query_scalar(REPEATED_GROUPS)
        .bind(column!(|one| one.group.job_id.as_uuid()))
        .bind(column!(|one| count(one.group.attempt)))
        .bind(column!(|one| rows::index_of(one.group.first)))
        .bind(column!(|one| one.n))
        .fetch_all(connection)
        .await?;
    let index = |position: i64| {
        let one = usize::try_from(position - 1).ok().and_then(|at| refused.get(at))?;
        Some(one.index)
    };
    Ok(positions.into_iter().filter_map(index).collect())
}

/// Locks the jobs of these outcomes, and answers which attempts are given back though their stream
/// has begun. Those must be read after the lock is held, by a statement of their own.
pub(super) async fn lock_streams(
    connection: &mut PgConnection,
    outcomes: &[(Claim, Outcome)],
) -> Result<Begun, sqlx::Error> {
    // All of them, so that the statements that follow lock nothing out of order.
    let mut ids: Vec<Uuid> = outcomes.iter().map(|(claim, _)| claim.job.id.as_uuid()).collect();
    ids.sort_unstable();
    sqlx::query(LOCK).bind(ids).execute(&mut *connection).await?;
    let given_back = outcomes
        .iter()
        .filter(|(claim, outcome)| rows::gives_stream_back(claim, outcome))
        .map(|(claim, _)| &claim.job);
    streams_begun(connection, given_back).await
}

/// Attempts that have chunks.
pub(super) type Begun = HashSet<(JobId, u32)>;

/// Those of the jobs' present attempts that have chunks.
pub(super) async fn streams_begun(
    connection: &mut PgConnection,
    jobs: impl Iterator<Item = &Job>,
) -> Result<Begun, sqlx::Error> {
    let (ids, attempts): (Vec<Uuid>, Vec<i32>) =
        jobs.map(|job| (job.id.as_uuid(), count(job.attempt))).unzip();
    if ids.is_empty() {
        return Ok(HashSet::new());
    }
    let begun: Vec<(Uuid, i32)> =
        sqlx::query_as(BEGUN).bind(ids).bind(attempts).fetch_all(connection).await?;
    let attempt = |(id, number): (Uuid, i32)| Some((JobId::from_uuid(id), number.try_into().ok()?));
    Ok(begun.into_iter().filter_map(attempt).collect())
}
