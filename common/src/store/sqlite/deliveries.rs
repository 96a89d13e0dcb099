//! Callbacks that are owed.

use std::collections::HashMap;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use secrecy::SecretString;
use sqlx::{FromRow, SqliteConnection};
use uuid::Uuid;

use super::{
    SqliteStore,
    accounts::active_secrets,
    commit,
    error::in_table,
    jobs,
    values::{array, ids, micros},
};
use crate::{
    callback::{Delivery, DeliveryAttempt, DeliveryStatus},
    id::{AccountId, DeliveryId, InstanceId, JobId},
    job::{Job, JobResult},
    store::{
        DeliveryClaim, DeliveryOutcome, DeliveryStore, StoreError,
        rows::{self, DeliveryAttemptRow, DeliveryRow, FoundRow, Reader},
    },
};

macro_rules! delivery_columns {
    () => {
        "delivery_id, job_id, account_id, url, host, job_status, status, attempt, instance_id, \
         created_at, next_attempt_at, finished_at"
    };
}

#[derive(FromRow)]
struct ClaimedRow {
    #[sqlx(flatten)]
    delivery: DeliveryRow<i64>,
    number: i32,
}

/// The due deliveries to claim. The first part walks from host to host along an index, so that a
/// host with a long backlog costs no more than any other.
pub(super) const DUE: &str = "
    WITH RECURSIVE hosts (host) AS (
        SELECT min(host) FROM deliveries WHERE status = 'pending'
        UNION ALL
        SELECT (SELECT min(d.host) FROM deliveries AS d
                WHERE d.status = 'pending' AND d.host > hosts.host)
        FROM hosts WHERE hosts.host IS NOT NULL
    )
    SELECT d.delivery_id FROM hosts CROSS JOIN deliveries AS d
    WHERE hosts.host NOT IN (SELECT value FROM json_each(?1))
        AND d.delivery_id IN (
            SELECT c.delivery_id FROM deliveries AS c
            WHERE c.status = 'pending' AND c.host = hosts.host AND c.next_attempt_at <= ?2
            ORDER BY c.next_attempt_at, c.delivery_id LIMIT ?3
        )
    ORDER BY d.next_attempt_at, d.delivery_id LIMIT ?4";

pub(super) const CLAIM: &str = concat!(
    "UPDATE deliveries
     SET status = 'delivering', instance_id = ?2, attempt = attempt + 1, next_attempt_at = NULL
     WHERE delivery_id IN (SELECT unhex(value) FROM json_each(?1)) AND status = 'pending'
         AND EXISTS (SELECT 1 FROM instances WHERE instance_id = ?2 AND lost_at IS NULL)
     RETURNING ",
    delivery_columns!(),
    ", (SELECT coalesce(max(a.number), 0) + 1 FROM delivery_attempts AS a
        WHERE a.delivery_id = deliveries.delivery_id) AS number"
);

#[async_trait]
impl DeliveryStore for SqliteStore {
    async fn claim_deliveries(
        &self,
        instance: InstanceId,
        now: DateTime<Utc>,
        limit: u32,
        per_host: u32,
        busy: &[String],
    ) -> Result<Vec<DeliveryClaim>, StoreError> {
        let mut tx = self.write().await?;
        let due: Vec<Uuid> = sqlx::query_scalar(DUE)
            .bind(array(busy))
            .bind(micros(now))
            .bind(per_host)
            .bind(limit)
            .fetch_all(&mut *tx)
            .await
            .map_err(in_table("deliveries"))?;
        if due.is_empty() {
            return Ok(Vec::new());
        }
        let mut claimed: Vec<ClaimedRow> = sqlx::query_as(CLAIM)
            .bind(ids(due.iter().copied()))
            .bind(instance.as_uuid())
            .fetch_all(&mut *tx)
            .await
            .map_err(in_table("deliveries"))?;
        // RETURNING keeps no order; the oldest is to go first.
        claimed.sort_by_key(|row| due.iter().position(|id| *id == row.delivery.delivery_id));
        let claims = complete(&mut tx, claimed, now).await?;
        commit(tx).await?;
        Ok(claims)
    }

    async fn finish_delivery(
        &self,
        claim: &DeliveryClaim,
        attempt: &DeliveryAttempt,
        outcome: DeliveryOutcome,
    ) -> Result<bool, StoreError> {
        let mut tx = self.write().await?;
        if !end_claim(&mut tx, claim, attempt.finished_at, outcome).await? {
            return Ok(false);
        }
        sqlx::query(
            "INSERT INTO delivery_attempts (
                 delivery_id, number, started_at, finished_at, status_code, error
             )
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )
        .bind(claim.delivery.id.as_uuid())
        .bind(claim.number)
        .bind(micros(attempt.started_at))
        .bind(micros(attempt.finished_at))
        .bind(attempt.status_code)
        .bind(attempt.error.as_deref())
        .execute(&mut *tx)
        .await
        .map_err(in_table("delivery_attempts"))?;
        commit(tx).await?;
        Ok(true)
    }

    async fn list_deliveries(&self, job: JobId) -> Result<Vec<Delivery>, StoreError> {
        let rows: Vec<DeliveryRow<i64>> = sqlx::query_as(concat!(
            "SELECT ",
            delivery_columns!(),
            " FROM deliveries WHERE job_id = ?1 ORDER BY delivery_id"
        ))
        .bind(job.as_uuid())
        .fetch_all(&self.readers)
        .await
        .map_err(in_table("deliveries"))?;
        rows::all(rows)
    }

    async fn find_delivery(
        &self,
        id: DeliveryId,
        account: &AccountId,
    ) -> Result<Option<Delivery>, StoreError> {
        let row: Option<DeliveryRow<i64>> = sqlx::query_as(concat!(
            "SELECT ",
            delivery_columns!(),
            " FROM deliveries WHERE delivery_id = ?1 AND account_id = ?2"
        ))
        .bind(id.as_uuid())
        .bind(account.as_str())
        .fetch_optional(&self.readers)
        .await
        .map_err(in_table("deliveries"))?;
        row.map(Delivery::try_from).transpose()
    }

    async fn list_delivery_attempts(
        &self,
        id: DeliveryId,
    ) -> Result<Vec<DeliveryAttempt>, StoreError> {
        let rows: Vec<DeliveryAttemptRow<i64>> = sqlx::query_as(
            "SELECT delivery_id, number, started_at, finished_at, status_code, error
             FROM delivery_attempts WHERE delivery_id = ?1 ORDER BY number",
        )
        .bind(id.as_uuid())
        .fetch_all(&self.readers)
        .await
        .map_err(in_table("delivery_attempts"))?;
        rows::all(rows)
    }

    async fn redeliver(
        &self,
        id: DeliveryId,
        account: &AccountId,
        now: DateTime<Utc>,
    ) -> Result<Option<Delivery>, StoreError> {
        let mut tx = self.write().await?;
        sqlx::query(
            "UPDATE deliveries
             SET status = 'pending', attempt = 0, next_attempt_at = ?3, finished_at = NULL
             WHERE delivery_id = ?1 AND account_id = ?2 AND status <> 'delivering'",
        )
        .bind(id.as_uuid())
        .bind(account.as_str())
        .bind(micros(now))
        .execute(&mut *tx)
        .await
        .map_err(in_table("deliveries"))?;
        commit(tx).await?;
        self.find_delivery(id, account).await
    }

    async fn oldest_due_delivery(
        &self,
        now: DateTime<Utc>,
    ) -> Result<Option<DateTime<Utc>>, StoreError> {
        let oldest: Option<i64> = sqlx::query_scalar(
            "SELECT min(next_attempt_at) FROM deliveries
             WHERE status = 'pending' AND next_attempt_at <= ?1",
        )
        .bind(micros(now))
        .fetch_one(&self.readers)
        .await
        .map_err(in_table("deliveries"))?;
        Reader("deliveries").optional_instant("next_attempt_at", oldest)
    }
}

/// Moves a delivery whose claim still holds.
async fn end_claim(
    tx: &mut SqliteConnection,
    claim: &DeliveryClaim,
    now: DateTime<Utc>,
    outcome: DeliveryOutcome,
) -> Result<bool, StoreError> {
    let (status, next_attempt_at, finished_at) = match outcome {
        DeliveryOutcome::Delivered => (DeliveryStatus::Delivered, None, Some(now)),
        DeliveryOutcome::Retry(at) => (DeliveryStatus::Pending, Some(at), None),
        DeliveryOutcome::Failed => (DeliveryStatus::Failed, None, Some(now)),
    };
    let ended = sqlx::query(
        "UPDATE deliveries
         SET status = ?4, next_attempt_at = ?5, finished_at = ?6, instance_id = NULL
         WHERE delivery_id = ?1 AND status = 'delivering' AND instance_id = ?2 AND attempt = ?3
             AND EXISTS (SELECT 1 FROM instances WHERE instance_id = ?2 AND lost_at IS NULL)",
    )
    .bind(claim.delivery.id.as_uuid())
    .bind(claim.delivery.instance.map(InstanceId::as_uuid))
    .bind(claim.delivery.attempt)
    .bind(status.as_str())
    .bind(next_attempt_at.map(micros))
    .bind(finished_at.map(micros))
    .execute(tx)
    .await
    .map_err(in_table("deliveries"))?;
    Ok(ended.rows_affected() == 1)
}

/// Adds to claimed deliveries what their callbacks are made of.
async fn complete(
    tx: &mut SqliteConnection,
    claimed: Vec<ClaimedRow>,
    now: DateTime<Utc>,
) -> Result<Vec<DeliveryClaim>, StoreError> {
    let rows: Vec<FoundRow<i64>> = sqlx::query_as(jobs::FIND)
        .bind(ids(claimed.iter().map(|row| row.delivery.job_id)))
        .fetch_all(&mut *tx)
        .await
        .map_err(in_table("jobs"))?;
    let mut jobs: HashMap<JobId, (Job, JobResult)> = HashMap::with_capacity(rows.len());
    for row in rows {
        let job = Job::try_from(row.job)?;
        jobs.insert(job.id, (job, row.result.try_into()?));
    }
    let mut secrets: HashMap<AccountId, Vec<SecretString>> = HashMap::new();
    let mut claims = Vec::with_capacity(claimed.len());
    for row in claimed {
        let delivery = Delivery::try_from(row.delivery)?;
        let number = Reader("delivery_attempts").count("number", row.number)?;
        let Some((job, result)) = jobs.get(&delivery.job_id).cloned() else {
            let orphan = Reader("deliveries").corrupt("job_id", "there is no such job");
            return Err(orphan);
        };
        if !secrets.contains_key(&delivery.account) {
            let active = active_secrets(&mut *tx, &delivery.account, now).await?;
            let active = active.into_iter().map(|secret| secret.secret).collect();
            secrets.insert(delivery.account.clone(), active);
        }
        let secrets = secrets.get(&delivery.account).cloned().unwrap_or_default();
        claims.push(DeliveryClaim { delivery, number, job, result, secrets });
    }
    Ok(claims)
}
