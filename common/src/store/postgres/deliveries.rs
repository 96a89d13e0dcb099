//! Callbacks that are owed.

use std::collections::HashMap;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use secrecy::SecretString;
use sqlx::{Connection as _, FromRow, PgConnection};
use uuid::Uuid;

use super::{
    PostgresStore,
    finish::without_nul,
    jobs::{Step, job_columns, result_columns},
    submit::count,
};
use crate::{
    callback::{Delivery, DeliveryAttempt, DeliveryStatus},
    id::{AccountId, DeliveryId, InstanceId, JobId},
    store::{
        DeliveryClaim, DeliveryOutcome, DeliveryStore, StoreError,
        rows::{self, DeliveryAttemptRow, DeliveryRow, FoundRow, Reader},
    },
};

/// The columns of a [`DeliveryRow`].
macro_rules! delivery_columns {
    () => {
        "deliveries.delivery_id, deliveries.job_id, deliveries.account_id, deliveries.url, \
         deliveries.host, deliveries.job_status, deliveries.status, deliveries.attempt, \
         deliveries.instance_id, deliveries.created_at, deliveries.next_attempt_at, \
         deliveries.finished_at"
    };
}

/// Walks from host to host along the index, so that thousands of deliveries to one host cost
/// another one nothing. Two workers that look at the same moment see the same head; who comes
/// second skips what is locked and has fewer.
pub(super) const CLAIM: &str = concat!(
    "
WITH RECURSIVE hosts (host) AS (
    (SELECT host FROM deliveries WHERE status = 'pending' ORDER BY host LIMIT 1)
    UNION ALL
    SELECT (
        SELECT deliveries.host FROM deliveries
        WHERE deliveries.status = 'pending' AND deliveries.host > hosts.host
        ORDER BY deliveries.host LIMIT 1
    )
    FROM hosts
    WHERE hosts.host IS NOT NULL
), oldest AS (
    SELECT due.delivery_id
    FROM hosts CROSS JOIN LATERAL (
        SELECT deliveries.delivery_id, deliveries.next_attempt_at
        FROM deliveries
        WHERE deliveries.host = hosts.host
            AND deliveries.status = 'pending' AND deliveries.next_attempt_at <= $2
        ORDER BY deliveries.next_attempt_at
        LIMIT $4
    ) AS due
    WHERE hosts.host <> ALL ($5)
        AND EXISTS (SELECT FROM instances WHERE instance_id = $1 AND lost_at IS NULL)
    ORDER BY due.next_attempt_at, due.delivery_id
    LIMIT $3
), due AS (
    SELECT delivery_id, next_attempt_at
    FROM deliveries
    WHERE delivery_id = ANY (ARRAY(SELECT delivery_id FROM oldest))
        AND status || '' = 'pending' AND next_attempt_at <= $2
    FOR UPDATE SKIP LOCKED
)
UPDATE deliveries
SET status = 'delivering', attempt = deliveries.attempt + 1, instance_id = $1,
    next_attempt_at = NULL
FROM due
WHERE deliveries.delivery_id = ANY (ARRAY[due.delivery_id])
RETURNING due.next_attempt_at AS due_at, (
    SELECT COALESCE(max(number), 0) + 1 FROM delivery_attempts
    WHERE delivery_attempts.delivery_id = deliveries.delivery_id
) AS number, ",
    delivery_columns!()
);

pub(super) const JOBS: &str = concat!(
    "SELECT ",
    job_columns!(),
    ", ",
    result_columns!(),
    " FROM jobs LEFT JOIN job_results ON job_results.job_id = ANY (ARRAY[jobs.job_id])
    WHERE jobs.job_id = ANY ($1)"
);

pub(super) const FINISH: &str = "
WITH ended AS (
    UPDATE deliveries
    SET status = $4, instance_id = NULL, next_attempt_at = $5,
        finished_at = CASE WHEN $4 <> 'pending' THEN $8::timestamptz END
    WHERE delivery_id = $1 AND status || '' = 'delivering' AND instance_id = $2 AND attempt = $3
        AND EXISTS (SELECT FROM instances WHERE instance_id = $2 AND lost_at IS NULL)
    RETURNING delivery_id
)
INSERT INTO delivery_attempts (
    delivery_id, number, started_at, finished_at, status_code, error
)
SELECT delivery_id, $6, $7, $8, $9, $10 FROM ended";

pub(super) const REDELIVER: &str = concat!(
    "
UPDATE deliveries
SET status = 'pending', attempt = 0, next_attempt_at = $3, finished_at = NULL
WHERE delivery_id = $1 AND account_id = $2 AND status <> 'delivering'
RETURNING ",
    delivery_columns!()
);

pub(super) const FIND: &str = concat!(
    "SELECT ",
    delivery_columns!(),
    " FROM deliveries WHERE delivery_id = $1 AND account_id = $2"
);

pub(super) const LIST: &str = concat!(
    "SELECT ",
    delivery_columns!(),
    " FROM deliveries WHERE job_id = $1 ORDER BY delivery_id"
);

#[derive(FromRow)]
struct ClaimedRow {
    due_at: DateTime<Utc>,
    number: i32,
    #[sqlx(flatten)]
    delivery: DeliveryRow<DateTime<Utc>>,
}

#[async_trait]
impl DeliveryStore for PostgresStore {
    async fn claim_deliveries(
        &self,
        instance: InstanceId,
        now: DateTime<Utc>,
        limit: u32,
        per_host: u32,
        busy: &[String],
    ) -> Result<Vec<DeliveryClaim>, StoreError> {
        self.run(|lent| {
            Box::pin(async move {
                // One transaction: a claim whose job could not be read must not stay claimed.
                let mut transaction = lent.connection().begin().await?;
                let claimed: Vec<ClaimedRow> = sqlx::query_as(CLAIM)
                    .bind(instance.as_uuid())
                    .bind(now)
                    .bind(i64::from(limit))
                    .bind(i64::from(per_host))
                    .bind(busy)
                    .fetch_all(&mut *transaction)
                    .await?;
                let claims = match complete(&mut transaction, claimed, now).await? {
                    Ok(claims) => claims,
                    Err(error) => return Ok(Err(error)),
                };
                transaction.commit().await?;
                Step::Ok(Ok(claims))
            })
        })
        .await?
    }

    async fn finish_delivery(
        &self,
        claim: &DeliveryClaim,
        attempt: &DeliveryAttempt,
        outcome: DeliveryOutcome,
    ) -> Result<bool, StoreError> {
        let (status, next_attempt_at) = match outcome {
            DeliveryOutcome::Delivered => (DeliveryStatus::Delivered, None),
            DeliveryOutcome::Retry(at) => (DeliveryStatus::Pending, Some(at)),
            DeliveryOutcome::Failed => (DeliveryStatus::Failed, None),
        };
        let written = self
            .run(|lent| {
                let query = sqlx::query(FINISH)
                    .bind(claim.delivery.id.as_uuid())
                    .bind(claim.delivery.instance.map(InstanceId::as_uuid))
                    .bind(count(claim.delivery.attempt))
                    .bind(status.as_str())
                    .bind(next_attempt_at)
                    .bind(count(claim.number))
                    .bind(attempt.started_at)
                    .bind(attempt.finished_at)
                    .bind(attempt.status_code.map(i32::from))
                    .bind(attempt.error.as_deref().map(without_nul));
                Box::pin(query.execute(lent.connection()))
            })
            .await?;
        Ok(written.rows_affected() > 0)
    }

    async fn list_deliveries(&self, job: JobId) -> Result<Vec<Delivery>, StoreError> {
        let found: Vec<DeliveryRow<DateTime<Utc>>> = self
            .run(|lent| {
                Box::pin(sqlx::query_as(LIST).bind(job.as_uuid()).fetch_all(lent.connection()))
            })
            .await?;
        rows::all(found)
    }

    async fn find_delivery(
        &self,
        id: DeliveryId,
        account: &AccountId,
    ) -> Result<Option<Delivery>, StoreError> {
        let found: Option<DeliveryRow<DateTime<Utc>>> = self
            .run(|lent| {
                let query = sqlx::query_as(FIND).bind(id.as_uuid()).bind(account.as_str());
                Box::pin(query.fetch_optional(lent.connection()))
            })
            .await?;
        found.map(TryInto::try_into).transpose()
    }

    async fn list_delivery_attempts(
        &self,
        id: DeliveryId,
    ) -> Result<Vec<DeliveryAttempt>, StoreError> {
        let query = "
            SELECT delivery_id, number, started_at, finished_at, status_code, error
            FROM delivery_attempts WHERE delivery_id = $1 ORDER BY number";
        let found: Vec<DeliveryAttemptRow<DateTime<Utc>>> = self
            .run(|lent| {
                Box::pin(sqlx::query_as(query).bind(id.as_uuid()).fetch_all(lent.connection()))
            })
            .await?;
        rows::all(found)
    }

    async fn redeliver(
        &self,
        id: DeliveryId,
        account: &AccountId,
        now: DateTime<Utc>,
    ) -> Result<Option<Delivery>, StoreError> {
        let due: Option<DeliveryRow<DateTime<Utc>>> = self
            .run(|lent| {
                let query =
                    sqlx::query_as(REDELIVER).bind(id.as_uuid()).bind(account.as_str()).bind(now);
                Box::pin(query.fetch_optional(lent.connection()))
            })
            .await?;
        match due {
            Some(due) => due.try_into().map(Some),
            // Being delivered, or not there.
            None => self.find_delivery(id, account).await,
        }
    }

    async fn oldest_due_delivery(
        &self,
        now: DateTime<Utc>,
    ) -> Result<Option<DateTime<Utc>>, StoreError> {
        let query = "
            SELECT min(next_attempt_at) FROM deliveries
            WHERE status = 'pending' AND next_attempt_at <= $1";
        let oldest: Option<Option<DateTime<Utc>>> = self
            .run(|lent| {
                let query = sqlx::query_scalar(query).bind(now);
                Box::pin(query.fetch_optional(lent.connection()))
            })
            .await?;
        Ok(oldest.flatten())
    }
}

/// Adds to claimed deliveries what is posted: job, result and secrets; oldest first.
async fn complete(
    connection: &mut PgConnection,
    mut claimed: Vec<ClaimedRow>,
    now: DateTime<Utc>,
) -> Step<Vec<DeliveryClaim>> {
    if claimed.is_empty() {
        return Ok(Ok(Vec::new()));
    }
    claimed.sort_by_key(|row| (row.due_at, row.delivery.delivery_id));
    let ids: Vec<Uuid> = claimed.iter().map(|row| row.delivery.job_id).collect();
    let jobs: Vec<FoundRow<DateTime<Utc>>> =
        sqlx::query_as(JOBS).bind(ids).fetch_all(&mut *connection).await?;
    let accounts: Vec<String> = claimed.iter().map(|row| row.delivery.account_id.clone()).collect();
    let secrets: Vec<(String, String)> = sqlx::query_as(
        "SELECT account_id, secret FROM webhook_secrets
        WHERE account_id = ANY ($1) AND (expires_at IS NULL OR expires_at > $2)
        ORDER BY webhook_secret_id DESC",
    )
    .bind(accounts)
    .bind(now)
    .fetch_all(connection)
    .await?;
    Ok(assemble(claimed, jobs, secrets))
}

fn assemble(
    claimed: Vec<ClaimedRow>,
    jobs: Vec<FoundRow<DateTime<Utc>>>,
    secrets: Vec<(String, String)>,
) -> Result<Vec<DeliveryClaim>, StoreError> {
    let read = Reader("deliveries");
    let mut ended = HashMap::with_capacity(jobs.len());
    for row in jobs {
        ended.insert(row.job.job_id, (row.job.try_into()?, row.result.try_into()?));
    }
    let mut by_account: HashMap<String, Vec<SecretString>> = HashMap::new();
    for (account, secret) in secrets {
        by_account.entry(account).or_default().push(secret.into());
    }
    let mut claims = Vec::with_capacity(claimed.len());
    for row in claimed {
        // Two deliveries may be about one job.
        let (job, result): (crate::job::Job, crate::job::JobResult) = ended
            .get(&row.delivery.job_id)
            .cloned()
            .ok_or_else(|| read.corrupt("job_id", "there is no such job"))?;
        let secrets = by_account.get(&row.delivery.account_id).cloned().unwrap_or_default();
        let number = read.count("attempt", row.number)?;
        claims.push(DeliveryClaim {
            delivery: row.delivery.try_into()?,
            number,
            job,
            result,
            secrets,
        });
    }
    Ok(claims)
}
