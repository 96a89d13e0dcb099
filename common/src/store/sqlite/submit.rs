//! Jobs on their way in.

use rusqlite::params;
use uuid::Uuid;

use super::{
    SqliteStore,
    jobs::{Columns, job_columns, job_row},
    values::micros,
    writer::{Durability, Tx},
};
use crate::{
    id::{AccountId, InstanceId, JobId},
    job::{IdempotencyKey, Job, JobStatus, NewJob},
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
    let jobs = jobs.to_vec();
    let add_all = move |tx: &Tx<'_>| jobs.iter().map(|new| add(tx, new, publisher)).collect();
    store.writer.write(Durability::Disk, add_all).await
}

/// Adds one job, unless its idempotency key made one before, maybe one of the same batch.
fn add(tx: &Tx<'_>, new: &NewJob, publisher: InstanceId) -> Result<Submitted, StoreError> {
    if let Some(idempotency) = &new.idempotency {
        match known_key(tx, &new.job.account, &idempotency.key)? {
            Some((fingerprint, id)) if fingerprint == idempotency.fingerprint => {
                let job = job_by_id(tx, id)?;
                let job = job.ok_or_else(|| {
                    Reader("idempotency_keys").corrupt("job_id", "there is no such job")
                });
                return Ok(Submitted::Repeated(Box::new(job?)));
            }
            Some(_) => return Ok(Submitted::KeyReused),
            None => insert_key(tx, &new.job, idempotency)?,
        }
    }
    let borrower = match new.lend_to {
        Some(instance) => living(tx, instance)?,
        None => None,
    };
    insert_job(tx, &new.job, publisher, borrower)?;
    insert_input(tx, new)?;
    Ok(if borrower.is_some() { Submitted::Lent } else { Submitted::Added })
}

pub(super) const LIVING: &str =
    "SELECT instance_id FROM instances WHERE instance_id = ?1 AND lost_at IS NULL";

/// The instance, if it is known and not lost.
fn living(tx: &Tx<'_>, instance: InstanceId) -> Result<Option<InstanceId>, StoreError> {
    let found = tx.optional("instances", LIVING, [instance.as_uuid()], |row| row.get(0))?;
    Ok(found.map(InstanceId::from_uuid))
}

pub(super) const KNOWN_KEY: &str = "SELECT fingerprint, job_id FROM idempotency_keys
     WHERE account_id = ?1 AND idempotency_key = ?2";

fn known_key(
    tx: &Tx<'_>,
    account: &AccountId,
    key: &str,
) -> Result<Option<(Vec<u8>, Uuid)>, StoreError> {
    tx.optional("idempotency_keys", KNOWN_KEY, [account.as_str(), key], |row| {
        Ok((row.get(0)?, row.get(1)?))
    })
}

fn job_by_id(tx: &Tx<'_>, id: Uuid) -> Result<Option<Job>, StoreError> {
    let statement = concat!("SELECT ", job_columns!(), " FROM jobs WHERE job_id = ?1");
    let row = tx.optional("jobs", statement, [id], |row| job_row(&mut Columns::of(row)))?;
    row.map(Job::try_from).transpose()
}

fn insert_key(tx: &Tx<'_>, job: &Job, idempotency: &IdempotencyKey) -> Result<(), StoreError> {
    let insert = "INSERT INTO idempotency_keys (
             account_id, idempotency_key, fingerprint, job_id, created_at
         )
         VALUES (?1, ?2, ?3, ?4, ?5)";
    let values = params![
        job.account.as_str(),
        idempotency.key,
        idempotency.fingerprint,
        job.id.as_uuid(),
        micros(job.created_at),
    ];
    tx.execute("idempotency_keys", insert, values)?;
    Ok(())
}

fn insert_job(
    tx: &Tx<'_>,
    job: &Job,
    publisher: InstanceId,
    borrower: Option<InstanceId>,
) -> Result<(), StoreError> {
    let status = if borrower.is_some() { JobStatus::Running } else { JobStatus::Queued };
    let started_at = borrower.map(|_| micros(job.created_at));
    let insert = "INSERT INTO jobs (
             job_id, account_id, operation, alias, vendor, model, model_id, retry_of, priority,
             status, attempt, lost_attempts, timeout_ms, num_retries, total_timeout_ms, route,
             stream, callback_url, metadata, reply_to, created_at, ready_at, run_at, expires_at,
             instance_id, credential, started_at, attempt_started_at
         )
         VALUES (
             ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?24, ?25, 0, ?10, ?11, ?12, ?13, ?14, ?15, ?16,
             ?17, ?18, ?19, ?20, ?21, ?22, ?23, ?26, ?26
         )";
    let values = params![
        job.id.as_uuid(),
        job.account.as_str(),
        job.operation.as_str(),
        job.alias,
        job.vendor.as_str(),
        job.model,
        job.model_id.map(crate::id::ModelId::as_uuid),
        job.retry_of.map(JobId::as_uuid),
        job.priority.as_str(),
        millis(job.limits.timeout),
        job.limits.num_retries,
        job.limits.total_timeout.map(millis),
        job.route.map(crate::job::Route::as_str),
        job.stream,
        job.callback_url,
        job.metadata.as_ref().map(crate::job::Json::as_str),
        job.reply_to.map(InstanceId::as_uuid),
        micros(job.created_at),
        micros(rows::ready_at(job.run_at, job.created_at)),
        job.run_at.map(micros),
        job.expires_at.map(micros),
        borrower.unwrap_or(publisher).as_uuid(),
        job.credential.as_ref().map(crate::credential::CredentialName::as_str),
        status.as_str(),
        u32::from(borrower.is_some()),
        started_at,
    ];
    tx.execute("jobs", insert, values)?;
    Ok(())
}

fn insert_input(tx: &Tx<'_>, new: &NewJob) -> Result<(), StoreError> {
    tx.execute(
        "job_inputs",
        "INSERT INTO job_inputs (job_id, args) VALUES (?1, ?2)",
        params![new.job.id.as_uuid(), new.args.as_str()],
    )?;
    Ok(())
}

/// A duration for its column.
fn millis(duration: std::time::Duration) -> i64 {
    i64::try_from(rows::millis_of(duration)).unwrap_or(i64::MAX)
}
