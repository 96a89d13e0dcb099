//! Jobs on their way in.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::{FromRow, SqliteConnection};
use uuid::Uuid;

use super::{
    SqliteStore, commit,
    error::in_table,
    jobs::jobs_by_id,
    values::{Hex, array, as_micros, as_optional_micros, hex, texts},
};
use crate::{
    credential::CredentialName,
    id::{InstanceId, JobId},
    job::{IdempotencyKey, Job, NewJob},
    store::{
        StoreError, Submitted,
        rows::{self, Reader},
    },
};

pub(super) async fn submit(
    store: &SqliteStore,
    jobs: &[NewJob],
    publisher: InstanceId,
) -> Result<Vec<Submitted>, StoreError> {
    if jobs.is_empty() {
        return Ok(Vec::new());
    }
    let mut tx = store.write().await?;
    let plan = plan(&mut tx, jobs).await?;
    let added: Vec<&NewJob> = jobs
        .iter()
        .zip(&plan)
        .filter(|(_, fate)| matches!(fate, Fate::Add))
        .map(|(j, _)| j)
        .collect();
    insert(&mut tx, &added, publisher).await?;
    let repeated = plan.iter().filter_map(|fate| match fate {
        Fate::Repeat(id) => Some(id.as_uuid()),
        Fate::Add | Fate::Refuse => None,
    });
    let repeated: Vec<Uuid> = repeated.collect();
    // Read after the insert: the first use of a key may stand in the same batch.
    let repeated = jobs_by_id(&mut tx, &repeated).await?;
    let answers = answers(&plan, &repeated)?;
    commit(tx).await?;
    Ok(answers)
}

/// What becomes of one job of a batch.
enum Fate {
    Add,
    /// Its key made this job before.
    Repeat(JobId),
    Refuse,
}

fn answers(plan: &[Fate], repeated: &HashMap<JobId, Job>) -> Result<Vec<Submitted>, StoreError> {
    let answer = |fate: &Fate| match fate {
        Fate::Add => Ok(Submitted::Added),
        Fate::Repeat(id) => match repeated.get(id) {
            Some(job) => Ok(Submitted::Repeated(Box::new(job.clone()))),
            None => Err(Reader("idempotency_keys").corrupt("job_id", "there is no such job")),
        },
        Fate::Refuse => Ok(Submitted::KeyReused),
    };
    plan.iter().map(answer).collect()
}

#[derive(FromRow)]
struct KeyRow {
    account_id: String,
    idempotency_key: String,
    fingerprint: Vec<u8>,
    job_id: Uuid,
}

/// Decides by the idempotency keys, those stored and those that stand earlier in the batch.
async fn plan(tx: &mut SqliteConnection, jobs: &[NewJob]) -> Result<Vec<Fate>, StoreError> {
    let mut keys = known_keys(tx, jobs).await?;
    let mut plan = Vec::with_capacity(jobs.len());
    for new in jobs {
        let Some(IdempotencyKey { key, fingerprint }) = &new.idempotency else {
            plan.push(Fate::Add);
            continue;
        };
        let name = (new.job.account.as_str().to_owned(), key.clone());
        plan.push(match keys.get(&name) {
            None => {
                keys.insert(name, (fingerprint.to_vec(), new.job.id));
                Fate::Add
            }
            Some((known, job_id)) if known == fingerprint => Fate::Repeat(*job_id),
            Some(_) => Fate::Refuse,
        });
    }
    Ok(plan)
}

/// CROSS keeps the order: from the keys that are asked for to those that are stored.
pub(super) const KNOWN_KEYS: &str =
    "SELECT k.account_id, k.idempotency_key, k.fingerprint, k.job_id
         FROM jsonb_each(?1) AS e
         CROSS JOIN idempotency_keys AS k
             ON k.account_id = e.value ->> 0 AND k.idempotency_key = e.value ->> 1";

type Keys = HashMap<(String, String), (Vec<u8>, JobId)>;

async fn known_keys(tx: &mut SqliteConnection, jobs: &[NewJob]) -> Result<Keys, StoreError> {
    let used = jobs.iter().filter_map(|new| {
        new.idempotency.as_ref().map(|idempotency| (&new.job.account, &idempotency.key))
    });
    let used: Vec<_> = used.collect();
    if used.is_empty() {
        return Ok(HashMap::new());
    }
    let rows: Vec<KeyRow> = sqlx::query_as(KNOWN_KEYS)
        .bind(array(used))
        .fetch_all(tx)
        .await
        .map_err(in_table("idempotency_keys"))?;
    let entry = |row: KeyRow| {
        ((row.account_id, row.idempotency_key), (row.fingerprint, JobId::from_uuid(row.job_id)))
    };
    Ok(rows.into_iter().map(entry).collect())
}

async fn insert(
    tx: &mut SqliteConnection,
    jobs: &[&NewJob],
    publisher: InstanceId,
) -> Result<(), StoreError> {
    if jobs.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "INSERT INTO jobs (
             job_id, account_id, operation, alias, vendor, model, model_id, retry_of, priority,
             status, attempt, lost_attempts, timeout_ms, num_retries, total_timeout_ms, route,
             stream, callback_url, metadata, reply_to, created_at, ready_at, run_at, expires_at,
             instance_id, credential
         )
         SELECT
             unhex(value ->> 'job_id'), value ->> 'account_id', value ->> 'operation',
             value ->> 'alias', value ->> 'vendor', value ->> 'model',
             unhex(value ->> 'model_id'), unhex(value ->> 'retry_of'), value ->> 'priority',
             'queued', 0, 0, value ->> 'timeout_ms', value ->> 'num_retries',
             value ->> 'total_timeout_ms', value ->> 'route', value ->> 'stream',
             value ->> 'callback_url', value ->> 'metadata', unhex(value ->> 'reply_to'),
             value ->> 'created_at', value ->> 'ready_at', value ->> 'run_at',
             value ->> 'expires_at', ?2, value ->> 'credential'
         FROM jsonb_each(?1)",
    )
    .bind(array(jobs.iter().map(|new| JobValues::of(&new.job))))
    .bind(publisher.as_uuid())
    .execute(&mut *tx)
    .await
    .map_err(in_table("jobs"))?;
    let inputs =
        jobs.iter().map(|new| (new.job.id.as_uuid().simple().to_string(), Some(new.args.as_str())));
    sqlx::query(
        "INSERT INTO job_inputs (job_id, args) SELECT unhex(key), value FROM json_each(?1)",
    )
    .bind(texts(inputs))
    .execute(&mut *tx)
    .await
    .map_err(in_table("job_inputs"))?;
    insert_keys(tx, jobs).await
}

async fn insert_keys(tx: &mut SqliteConnection, jobs: &[&NewJob]) -> Result<(), StoreError> {
    let keys = jobs.iter().filter_map(|new| {
        let IdempotencyKey { key, fingerprint } = new.idempotency.as_ref()?;
        let created_at = new.job.created_at.timestamp_micros();
        Some((&new.job.account, key, hex(fingerprint), Hex(new.job.id.as_uuid()), created_at))
    });
    let keys: Vec<_> = keys.collect();
    if keys.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "INSERT INTO idempotency_keys (
             account_id, idempotency_key, fingerprint, job_id, created_at
         )
         SELECT value ->> 0, value ->> 1, unhex(value ->> 2), unhex(value ->> 3), value ->> 4
         FROM jsonb_each(?1)",
    )
    .bind(array(keys))
    .execute(tx)
    .await
    .map_err(in_table("idempotency_keys"))?;
    Ok(())
}

/// A job as the insert takes it apart.
#[derive(Serialize)]
struct JobValues<'a> {
    job_id: Hex,
    account_id: &'a str,
    operation: &'static str,
    alias: Option<&'a str>,
    vendor: &'static str,
    model: &'a str,
    model_id: Option<Hex>,
    retry_of: Option<Hex>,
    priority: &'static str,
    timeout_ms: u64,
    num_retries: u32,
    total_timeout_ms: Option<u64>,
    route: Option<&'static str>,
    credential: Option<&'a str>,
    stream: bool,
    callback_url: Option<&'a str>,
    metadata: Option<&'a str>,
    reply_to: Option<Hex>,
    #[serde(serialize_with = "as_micros")]
    created_at: DateTime<Utc>,
    #[serde(serialize_with = "as_micros")]
    ready_at: DateTime<Utc>,
    #[serde(serialize_with = "as_optional_micros")]
    run_at: Option<DateTime<Utc>>,
    #[serde(serialize_with = "as_optional_micros")]
    expires_at: Option<DateTime<Utc>>,
}

impl<'a> JobValues<'a> {
    fn of(job: &'a Job) -> Self {
        Self {
            job_id: Hex(job.id.as_uuid()),
            account_id: job.account.as_str(),
            operation: job.operation.as_str(),
            alias: job.alias.as_deref(),
            vendor: job.vendor.as_str(),
            model: &job.model,
            model_id: job.model_id.map(|id| Hex(id.as_uuid())),
            retry_of: job.retry_of.map(|id| Hex(id.as_uuid())),
            priority: job.priority.as_str(),
            timeout_ms: rows::millis_of(job.limits.timeout),
            num_retries: job.limits.num_retries,
            total_timeout_ms: job.limits.total_timeout.map(rows::millis_of),
            route: job.route.map(crate::job::Route::as_str),
            credential: job.credential.as_ref().map(CredentialName::as_str),
            stream: job.stream,
            callback_url: job.callback_url.as_deref(),
            metadata: job.metadata.as_ref().map(crate::job::Json::as_str),
            reply_to: job.reply_to.map(|id| Hex(id.as_uuid())),
            created_at: job.created_at,
            ready_at: rows::ready_at(job.run_at, job.created_at),
            run_at: job.run_at,
            expires_at: job.expires_at,
        }
    }
}
