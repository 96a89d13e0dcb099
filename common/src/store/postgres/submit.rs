//! Submit: jobs, inputs and idempotency records in one statement.

use std::{collections::HashMap, ops::Range};

use chrono::{DateTime, Utc};
use sqlx::{Connection as _, FromRow, PgConnection};
use uuid::Uuid;

use super::{PostgresStore, jobs::job_columns};
use crate::{
    credential::CredentialName,
    id::InstanceId,
    job::{Json, NewJob},
    store::{StoreError, Submitted, rows, rows::JobRow},
};

/// Payload of one statement. A larger group takes several, in one transaction: a message of
/// Postgres and an array in it have at most 1 GB, and both sides hold it in memory.
const MAX_STATEMENT_BYTES: usize = 16 << 20;

/// A key that was taken is free again when its job was removed meanwhile; then submit again.
const MAX_ROUNDS: usize = 3;

/// `won` waits for other transactions that add the same key. One that it loses to has committed
/// then, so the statement that reads the winner's job sees it. All add in the order of the keys,
/// so that none waits for one that waits for it.
macro_rules! submit {
    ($won:literal, $condition:literal, $how:ident) => {
        concat!(
            "
WITH input AS (
    SELECT * FROM unnest(
        $1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::uuid[],
        $8::uuid[], $9::text[], $10::int8[], $11::int4[], $12::int8[], $13::text[], $14::bool[],
        $15::text[], $16::text[], $17::uuid[], $18::timestamptz[], $19::timestamptz[],
        $20::timestamptz[], $21::timestamptz[], $22::text[], $23::bytea[], $26::text[],
        $27::uuid[]
    ) WITH ORDINALITY AS input (
        job_id, account_id, operation, alias, vendor, model, model_id, retry_of, priority,
        timeout_ms, num_retries, total_timeout_ms, route, stream, callback_url, metadata, reply_to,
        created_at, ready_at, run_at, expires_at, idempotency_key, fingerprint, credential,
        lend_to, position
    )
",
            $won,
            "), documents AS (
    INSERT INTO job_inputs (job_id, args)
    SELECT job_id, ($24::text[])[position]::json
    FROM input",
            $condition,
            "
)
INSERT INTO jobs (
    job_id, account_id, operation, alias, vendor, model, model_id, retry_of, priority,
    lost_attempts, timeout_ms, num_retries, total_timeout_ms, route, stream, callback_url,
    metadata, reply_to, created_at, ready_at, run_at, expires_at, credential, instance_id, status,
    attempt, started_at, attempt_started_at
)
SELECT
    job_id, account_id, operation, alias, vendor, model, model_id, retry_of, priority,
    0, timeout_ms, num_retries, total_timeout_ms, route, stream, callback_url,
    metadata::json, reply_to, created_at, ready_at, run_at, expires_at, credential, ",
            submit!(@$how),
            $condition,
            "
RETURNING job_id, status = 'running' AS lent"
        )
    };
    (@queued) => {
        "$25, 'queued', 0, NULL, NULL FROM input"
    };
    (@lent) => {
        "
    COALESCE(borrower.instance_id, $25),
    CASE WHEN borrower.instance_id IS NULL THEN 'queued' ELSE 'running' END,
    (borrower.instance_id IS NOT NULL)::int4,
    CASE WHEN borrower.instance_id IS NOT NULL THEN created_at END,
    CASE WHEN borrower.instance_id IS NOT NULL THEN created_at END
FROM input
LEFT JOIN instances AS borrower ON borrower.instance_id = ANY (ARRAY[input.lend_to])
    AND borrower.lost_at IS NULL"
    };
}

/// For groups with idempotency keys, lent or not.
pub(super) const SUBMIT: &str = submit!(
    "), won AS (
    INSERT INTO idempotency_keys (account_id, idempotency_key, fingerprint, job_id, created_at)
    SELECT account_id, idempotency_key, fingerprint, job_id, created_at
    FROM input
    WHERE idempotency_key IS NOT NULL
    ORDER BY account_id, idempotency_key, position
    ON CONFLICT (account_id, idempotency_key) DO NOTHING
    RETURNING job_id
",
    "
    WHERE idempotency_key IS NULL OR job_id IN (SELECT job_id FROM won)",
    lent
);

/// For groups without any: a statement pays for each table it names, written to or not.
pub(super) const SUBMIT_UNKEYED: &str = submit!("", "", queued);

/// The same, for groups of which some are to be lent.
pub(super) const SUBMIT_LENDING: &str = submit!("", "", lent);

pub(super) const REPEATED: &str = concat!(
    "SELECT wanted.position, idempotency_keys.fingerprint, ",
    job_columns!(),
    "
FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS wanted (account_id, key, position)
JOIN idempotency_keys ON idempotency_keys.account_id = ANY (ARRAY[wanted.account_id])
    AND idempotency_keys.idempotency_key = ANY (ARRAY[wanted.key])
JOIN jobs ON jobs.job_id = ANY (ARRAY[idempotency_keys.job_id])"
);

#[derive(FromRow)]
struct RepeatedRow {
    /// From 1.
    position: i64,
    fingerprint: Vec<u8>,
    #[sqlx(flatten)]
    job: JobRow<DateTime<Utc>>,
}

impl PostgresStore {
    pub(super) async fn submit_jobs(
        &self,
        jobs: &[NewJob],
        publisher: InstanceId,
    ) -> Result<Vec<Submitted>, StoreError> {
        let mut answers: Vec<Option<Submitted>> = vec![None; jobs.len()];
        for _ in 0..MAX_ROUNDS {
            let open: Vec<(usize, &NewJob)> =
                jobs.iter().enumerate().filter(|(index, _)| answers[*index].is_none()).collect();
            if open.is_empty() {
                break;
            }
            let added = self.add_jobs(&open, publisher).await?;
            let mut taken = Vec::new();
            for (index, new) in open {
                match added.get(&new.job.id.as_uuid()) {
                    Some(false) => answers[index] = Some(Submitted::Added),
                    Some(true) => answers[index] = Some(Submitted::Lent),
                    None => taken.push((index, new)),
                }
            }
            for (index, answer) in self.find_repeated(&taken).await? {
                answers[index] = Some(answer);
            }
        }
        let answers: Option<Vec<Submitted>> = answers.into_iter().collect();
        answers.ok_or_else(|| {
            StoreError::Unavailable("an idempotency key is taken and free by turns".into())
        })
    }

    /// Those that were added, each with whether it was lent.
    async fn add_jobs(
        &self,
        jobs: &[(usize, &NewJob)],
        publisher: InstanceId,
    ) -> Result<HashMap<Uuid, bool>, StoreError> {
        let chunks = chunks_by_bytes(jobs.iter().map(|(_, new)| new.args.as_str().len()));
        let added = self
            .run(|lent| {
                let chunks = &chunks;
                Box::pin(async move {
                    if let [all] = &chunks[..] {
                        return insert(lent.connection(), &jobs[all.clone()], publisher).await;
                    }
                    let mut transaction = lent.connection().begin().await?;
                    let mut added = Vec::new();
                    for chunk in chunks {
                        added.extend(
                            insert(&mut transaction, &jobs[chunk.clone()], publisher).await?,
                        );
                    }
                    transaction.commit().await?;
                    Ok(added)
                })
            })
            .await?;
        Ok(added.into_iter().collect())
    }

    /// The answers for those jobs whose keys name a job by now.
    async fn find_repeated(
        &self,
        jobs: &[(usize, &NewJob)],
    ) -> Result<Vec<(usize, Submitted)>, StoreError> {
        let keyed: Vec<_> = jobs
            .iter()
            .filter_map(|(index, new)| Some((*index, new, new.idempotency.as_ref()?)))
            .collect();
        if keyed.is_empty() {
            return Ok(Vec::new());
        }
        let accounts: Vec<&str> =
            keyed.iter().map(|(_, new, _)| new.job.account.as_str()).collect();
        let keys: Vec<&str> = keyed.iter().map(|(_, _, key)| key.key.as_str()).collect();
        let found: Vec<RepeatedRow> = self
            .run(|lent| {
                let query = sqlx::query_as(REPEATED).bind(&accounts).bind(&keys);
                Box::pin(query.fetch_all(lent.connection()))
            })
            .await?;
        let mut answers = Vec::with_capacity(found.len());
        for row in found {
            let position: usize =
                rows::Reader("idempotency_keys").count("position", row.position - 1)?;
            let Some((index, _, key)) = keyed.get(position) else { continue };
            let answer = if row.fingerprint[..] == key.fingerprint[..] {
                Submitted::Repeated(Box::new(row.job.try_into()?))
            } else {
                Submitted::KeyReused
            };
            answers.push((*index, answer));
        }
        Ok(answers)
    }
}

async fn insert(
    connection: &mut PgConnection,
    jobs: &[(usize, &NewJob)],
    publisher: InstanceId,
) -> Result<Vec<(Uuid, bool)>, sqlx::Error> {
    macro_rules! column {
        (|$new:ident| $value:expr) => {
            jobs.iter().map(|(_, $new)| $value).collect::<Vec<_>>()
        };
    }
    let statement = if jobs.iter().any(|(_, new)| new.idempotency.is_some()) {
        SUBMIT
    } else if jobs.iter().any(|(_, new)| new.lend_to.is_some()) {
        SUBMIT_LENDING
    } else {
        SUBMIT_UNKEYED
    };
    sqlx::query_as(statement)
        .bind(column!(|new| new.job.id.as_uuid()))
        .bind(column!(|new| new.job.account.as_str()))
        .bind(column!(|new| new.job.operation.as_str()))
        .bind(column!(|new| new.job.alias.as_deref()))
        .bind(column!(|new| new.job.vendor.as_str()))
        .bind(column!(|new| new.job.model.as_str()))
        .bind(column!(|new| new.job.model_id.map(crate::id::ModelId::as_uuid)))
        .bind(column!(|new| new.job.retry_of.map(crate::id::JobId::as_uuid)))
        .bind(column!(|new| new.job.priority.as_str()))
        .bind(column!(|new| millis(new.job.limits.timeout)))
        .bind(column!(|new| count(new.job.limits.num_retries)))
        .bind(column!(|new| new.job.limits.total_timeout.map(millis)))
        .bind(column!(|new| new.job.route.map(crate::job::Route::as_str)))
        .bind(column!(|new| new.job.stream))
        .bind(column!(|new| new.job.callback_url.as_deref()))
        .bind(column!(|new| new.job.metadata.as_ref().map(Json::as_str)))
        .bind(column!(|new| new.job.reply_to.map(InstanceId::as_uuid)))
        .bind(column!(|new| new.job.created_at))
        .bind(column!(|new| rows::ready_at(new.job.run_at, new.job.created_at)))
        .bind(column!(|new| new.job.run_at))
        .bind(column!(|new| new.job.expires_at))
        .bind(column!(|new| new.idempotency.as_ref().map(|key| key.key.as_str())))
        .bind(column!(|new| new.idempotency.as_ref().map(|key| &key.fingerprint[..])))
        .bind(column!(|new| new.args.as_str()))
        .bind(publisher.as_uuid())
        .bind(column!(|new| new.job.credential.as_ref().map(CredentialName::as_str)))
        .bind(column!(|new| new.lend_to.map(InstanceId::as_uuid)))
        .fetch_all(connection)
        .await
}

pub(super) fn millis(duration: std::time::Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

pub(super) fn count(number: u32) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

/// Cuts a group into ranges of at most `MAX_STATEMENT_BYTES`, or of one item.
pub(super) fn chunks_by_bytes(sizes: impl Iterator<Item = usize>) -> Vec<Range<usize>> {
    let mut chunks: Vec<Range<usize>> = Vec::new();
    let mut bytes = 0;
    for (index, size) in sizes.enumerate() {
        bytes += size;
        match chunks.last_mut() {
            Some(chunk) if bytes <= MAX_STATEMENT_BYTES => chunk.end = index + 1,
            _ => {
                chunks.push(index..index + 1);
                bytes = size;
            }
        }
    }
    chunks
}
