//! Deferrals: claims that were never used for a call, taken back.

use chrono::{DateTime, Utc};
use rusqlite::params;

use super::{values::micros, writer::Tx};
use crate::store::{Claim, StoreError, rows::ready_at};

/// As END guards itself. What the claim had overwritten is put back: with no attempt before it the
/// job has not started, unless it has a ticket: then its vendor is at work. Its last attempt is that
/// of the row before.
pub(super) const DEFER: &str = "UPDATE jobs
         SET status = 'queued',
             attempt = attempt - 1,
             started_at = iif(attempt > 1 OR coalesce(?7, ticket) IS NOT NULL, started_at, NULL),
             attempt_started_at = (
                 SELECT a.started_at FROM attempts AS a
                 WHERE a.job_id = jobs.job_id AND a.number = jobs.attempt - 1
             ),
             run_at = ?5,
             ready_at = ?6,
             deferred = 1,
             ticket = coalesce(?7, ticket)
         WHERE job_id = ?1 AND status = 'running' AND attempt = ?2 AND instance_id = ?3
             AND attempt_started_at = ?4
             AND EXISTS (SELECT 1 FROM instances WHERE instance_id = ?3 AND lost_at IS NULL)";

/// Takes a claim back if it still holds.
pub(super) fn defer(
    tx: &Tx<'_>,
    claim: &Claim,
    run_at: DateTime<Utc>,
    ticket: Option<&str>,
    now: DateTime<Utc>,
) -> Result<bool, StoreError> {
    let values = params![
        claim.job.id.as_uuid(),
        claim.job.attempt,
        claim.instance.as_uuid(),
        claim.job.attempt_started_at.map(micros),
        micros(run_at),
        micros(ready_at(Some(run_at), now)),
        ticket,
    ];
    Ok(tx.execute("jobs", DEFER, values)? == 1)
}
