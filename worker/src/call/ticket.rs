//! What a parked job is shown again: the task under way, and what is needed to go on with it.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use inferq_common::{clock::to_micros, error::ErrorClass, job::Job};
use inferq_vendors::{Candidate, Candidates, VendorError};
use serde::{Deserialize, Serialize};

use super::End;

/// A task at a vendor. Holds no secret.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Ticket {
    /// The name of the key that the task was started with.
    pub(super) key: String,
    /// When its attempt made its first call: waits count as time of the attempt.
    pub(super) started_at: DateTime<Utc>,
    /// The adapter's own; `None`: it has not answered yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) task: Option<String>,
}

impl Ticket {
    /// That of a job; `None`: nothing is under way.
    ///
    /// # Errors
    /// `Internal`: it cannot be read.
    pub(super) fn of(job: &Job) -> Result<Option<Self>, VendorError> {
        let read = |ticket: &String| {
            serde_json::from_str(ticket).map_err(|_| {
                VendorError::new(ErrorClass::Internal, "the job's ticket cannot be read")
            })
        };
        job.ticket.as_ref().map(read).transpose()
    }

    /// For a call that begins now, after the attempt has spent so much of its time.
    pub(super) fn start(candidate: &Candidate, spent: Duration, now: DateTime<Utc>) -> Self {
        let spent = TimeDelta::from_std(spent).unwrap_or_default();
        let started_at = to_micros(now - spent);
        Self { key: candidate.credential.as_ref().to_owned(), started_at, task: None }
    }

    /// The key that the task was started with; another one where that is gone.
    pub(super) fn candidate<'a>(&self, candidates: &'a Candidates) -> Option<&'a Candidate> {
        let same = candidates.iter().find(|candidate| *candidate.credential == *self.key);
        same.or(candidates.first())
    }

    /// How long its attempt has lasted; more than nothing.
    pub(super) fn spent(&self, now: DateTime<Utc>) -> Duration {
        (now - self.started_at).to_std().unwrap_or_default().max(Duration::from_millis(1))
    }

    /// The job comes back after the wait, or when its time is up.
    pub(super) fn parked(self, task: String, wait: Duration, job: &Job, now: DateTime<Utc>) -> End {
        let after = |from: DateTime<Utc>, time: Duration| {
            TimeDelta::from_std(time).ok().and_then(|time| from.checked_add_signed(time))
        };
        let ends = [after(self.started_at, job.limits.timeout), job.deadline(), after(now, wait)];
        let run_at = ends.into_iter().flatten().min().unwrap_or(now).max(now);
        let ticket = Self { task: Some(task), ..self };
        End::Parked { run_at: to_micros(run_at), ticket: ticket.text() }
    }

    fn text(&self) -> String {
        serde_json::to_string(self).expect("texts and a time are JSON")
    }
}

#[cfg(test)]
mod tests {
    use inferq_common::job::Limits;

    use super::*;
    use crate::attempt::tests::{NOW, a_job};

    #[test]
    fn a_ticket_is_read_as_it_was_written() {
        let task = Some(r#"{"id":"t"}"#.to_owned());
        let ticket = Ticket { key: "key-2".to_owned(), started_at: NOW, task };
        let mut job = a_job(Limits::default());
        assert_eq!(Ticket::of(&job), Ok(None));
        job.ticket = Some(ticket.text());
        assert_eq!(ticket.spent(NOW + TimeDelta::seconds(7)), Duration::from_secs(7));
        assert_eq!(Ticket::of(&job), Ok(Some(ticket)));
        job.ticket = Some("{".to_owned());
        assert_eq!(Ticket::of(&job).unwrap_err().class(), ErrorClass::Internal);
    }

    #[test]
    fn a_parked_job_comes_back_after_the_wait_or_when_its_time_is_up() {
        let job = a_job(Limits::default());
        let parked = |began: i64, wait| {
            let started_at = NOW + TimeDelta::seconds(began);
            let ticket = Ticket { key: String::new(), started_at, task: None };
            let now = NOW + TimeDelta::seconds(50);
            let end = ticket.parked("t".to_owned(), Duration::from_secs(wait), &job, now);
            let End::Parked { run_at, .. } = end else { panic!("{end:?}") };
            (run_at - NOW).num_seconds()
        };
        assert_eq!(parked(0, 5), 55);
        assert_eq!(parked(0, 15), 60);
        assert_eq!(parked(-60, 5), 50);
    }
}
