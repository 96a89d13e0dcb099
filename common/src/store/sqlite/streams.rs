//! Streams: their chunks on the way in and out, a job's outline, and a job's twin.

use chrono::{DateTime, Utc};
use rusqlite::params;

use super::{
    SqliteStore,
    error::in_table,
    jobs::job_columns,
    values::micros,
    writer::{Durability, Tx},
};
use crate::{
    id::{AccountId, InstanceId, JobId},
    job::Job,
    store::{
        StoreError, Twin,
        rows::{self, AttemptRow, ChunkRow, FoundRow, JobRow, Reader, TwinBounds},
    },
    stream::{ChunkGroup, Outline},
};

/// The claim's job and the last group that is stored of the attempt, guarded as END is.
pub(super) const LAST_GROUP: &str = "SELECT c.first, c.n
     FROM jobs AS j LEFT JOIN job_chunks AS c ON c.job_id = j.job_id AND c.attempt = j.attempt
     WHERE j.job_id = ?1 AND j.status = 'running' AND j.attempt = ?2 AND j.instance_id = ?3
         AND EXISTS (SELECT 1 FROM instances WHERE instance_id = ?3 AND lost_at IS NULL)
     ORDER BY c.first DESC LIMIT 1";

pub(super) async fn append(
    store: &SqliteStore,
    groups: &[(InstanceId, ChunkGroup)],
) -> Result<Vec<bool>, StoreError> {
    if groups.is_empty() {
        return Ok(Vec::new());
    }
    let groups = groups.to_vec();
    let append_all = move |tx: &Tx<'_>| {
        groups.iter().map(|(instance, group)| append_one(tx, *instance, group)).collect()
    };
    store.writer.write(Durability::Disk, append_all).await
}

fn append_one(tx: &Tx<'_>, instance: InstanceId, group: &ChunkGroup) -> Result<bool, StoreError> {
    let Some(n) = rows::n_chunks(group) else { return Ok(false) };
    let claim = params![group.job_id.as_uuid(), group.attempt, instance.as_uuid()];
    let last = tx.optional("job_chunks", LAST_GROUP, claim, |row| {
        Ok((row.get::<_, Option<i64>>(0)?.unwrap_or(0), row.get::<_, Option<i32>>(1)?.unwrap_or(0)))
    })?;
    let Some((last_first, last_n)) = last else { return Ok(false) };
    let first = rows::index_of(group.first);
    if first != last_first + i64::from(last_n) {
        // Written before, and the answer was lost.
        return Ok((first, n) == (last_first, last_n));
    }
    tx.execute(
        "job_chunks",
        "INSERT INTO job_chunks (job_id, attempt, first, n, chunks) VALUES (?1, ?2, ?3, ?4, ?5)",
        params![group.job_id.as_uuid(), group.attempt, first, n, rows::chunks_text(&group.chunks),],
    )?;
    Ok(true)
}

/// Whether part of the stream of a job's present attempt is stored.
pub(super) fn has_chunks(tx: &Tx<'_>, job: &Job) -> Result<bool, StoreError> {
    let found = tx.optional(
        "job_chunks",
        "SELECT 1 FROM job_chunks WHERE job_id = ?1 AND attempt = ?2 LIMIT 1",
        params![job.id.as_uuid(), job.attempt],
        |_| Ok(()),
    )?;
    Ok(found.is_some())
}

/// The group that holds the chunk, and those after it until they have filled the answer. Texts are
/// read once it is known which.
pub(super) const READ_CHUNKS: &str = "SELECT c.first, c.n, c.chunks
     FROM (
         SELECT first, sum(bytes) OVER (ORDER BY first) - bytes AS filled
         FROM (
             SELECT first, octet_length(chunks) AS bytes FROM job_chunks
             WHERE job_id = ?1 AND attempt = ?2
                 AND first >= coalesce((
                     SELECT first FROM job_chunks
                     WHERE job_id = ?1 AND attempt = ?2 AND first <= ?3
                     ORDER BY first DESC LIMIT 1
                 ), 0)
             ORDER BY first LIMIT ?5
         )
     ) AS page
     JOIN job_chunks AS c ON c.job_id = ?1 AND c.attempt = ?2 AND c.first = page.first
     WHERE page.filled < ?4 OR page.filled = 0
     ORDER BY page.first";

pub(super) async fn read(
    store: &SqliteStore,
    id: JobId,
    attempt: u32,
    from: u64,
    max_bytes: usize,
) -> Result<Vec<ChunkGroup>, StoreError> {
    let found: Vec<ChunkRow> = sqlx::query_as(READ_CHUNKS)
        .bind(id.as_uuid())
        .bind(attempt)
        .bind(rows::index_of(from))
        .bind(i64::try_from(max_bytes).unwrap_or(i64::MAX))
        .bind(rows::MAX_GROUPS_READ)
        .fetch_all(&store.readers)
        .await
        .map_err(in_table("job_chunks"))?;
    rows::chunk_groups(id, attempt, from, found)
}

/// How many chunks each attempt has: one look at the end of each, however long the streams are.
pub(super) const COUNT_CHUNKS: &str = "WITH RECURSIVE numbers (attempt) AS (
         SELECT 1 UNION ALL SELECT attempt + 1 FROM numbers WHERE attempt < ?2
     )
     SELECT attempt, n
     FROM (
         SELECT attempt, (
             SELECT c.first + c.n FROM job_chunks AS c
             WHERE c.job_id = ?1 AND c.attempt = numbers.attempt
             ORDER BY c.first DESC LIMIT 1
         ) AS n
         FROM numbers
     )
     WHERE n IS NOT NULL
     ORDER BY attempt";

pub(super) async fn outline(
    store: &SqliteStore,
    id: JobId,
    account: &AccountId,
) -> Result<Option<Outline>, StoreError> {
    // One transaction sees one moment.
    let mut tx = store.readers.begin().await.map_err(in_table("sqlite_master"))?;
    let found: Option<FoundRow<i64>> = sqlx::query_as(concat!(
        "SELECT ",
        job_columns!(),
        ", response, error, usage FROM jobs LEFT JOIN job_results USING (job_id)
         WHERE job_id = ?1 AND account_id = ?2"
    ))
    .bind(id.as_uuid())
    .bind(account.as_str())
    .fetch_optional(&mut *tx)
    .await
    .map_err(in_table("jobs"))?;
    let Some(found) = found else { return Ok(None) };
    let job = Job::try_from(found.job)?;
    let attempts: Vec<AttemptRow<i64>> = sqlx::query_as(super::jobs::LIST_ATTEMPTS)
        .bind(id.as_uuid())
        .fetch_all(&mut *tx)
        .await
        .map_err(in_table("attempts"))?;
    let chunks: Vec<(i64, i64)> = if job.stream {
        sqlx::query_as(COUNT_CHUNKS)
            .bind(id.as_uuid())
            .bind(job.attempt)
            .fetch_all(&mut *tx)
            .await
            .map_err(in_table("job_chunks"))?
    } else {
        Vec::new()
    };
    tx.rollback().await.map_err(in_table("sqlite_master"))?;
    let result = if job.status.is_final() { Some(found.result.try_into()?) } else { None };
    let read = Reader("job_chunks");
    let chunks = chunks
        .into_iter()
        .map(|(attempt, n)| Ok((read.count("attempt", attempt)?, read.count("n", n)?)))
        .collect::<Result<_, StoreError>>()?;
    Ok(Some(Outline { job, result, attempts: rows::all(attempts)?, chunks }))
}

/// The inner limit bounds the work whatever the account did meanwhile. Documents of another length
/// are not read.
pub(super) const FIND_TWIN: &str = concat!(
    "SELECT ",
    job_columns!(),
    " FROM (
         SELECT * FROM jobs WHERE account_id = ?1 AND job_id >= ?2 ORDER BY job_id DESC LIMIT ?3
     ) AS recent
     WHERE status IN ('queued', 'running') AND created_at >= ?4
         AND operation = ?5 AND alias IS ?6 AND vendor = ?7 AND model = ?8 AND stream = ?9
         AND EXISTS (
             SELECT 1 FROM job_inputs AS i
             WHERE i.job_id = recent.job_id
                 AND octet_length(i.args) = octet_length(?10) AND i.args = ?10
         )
     ORDER BY job_id DESC LIMIT 1"
);

pub(super) async fn find_twin(
    store: &SqliteStore,
    twin: &Twin,
    since: DateTime<Utc>,
) -> Result<Option<Job>, StoreError> {
    let bounds = TwinBounds::of(since);
    let found: Option<JobRow<i64>> = sqlx::query_as(FIND_TWIN)
        .bind(twin.account.as_str())
        .bind(bounds.low)
        .bind(bounds.limit)
        .bind(micros(since))
        .bind(twin.operation.as_str())
        .bind(twin.alias.as_deref())
        .bind(twin.vendor.as_str())
        .bind(&twin.model)
        .bind(twin.stream)
        .bind(twin.args.as_str())
        .fetch_optional(&store.readers)
        .await
        .map_err(in_table("jobs"))?;
    found.map(Job::try_from).transpose()
}
