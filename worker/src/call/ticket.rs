//! Tickets as calls make them, read them and hand them on.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use inferq_common::{clock::to_micros, error::ErrorClass, job::Job, ticket::Ticket};
use inferq_vendors::{Candidate, Candidates, VendorError};

use super::End;

/// That of a job; `None`: nothing is under way.
///
/// # Errors
/// `Internal`: it cannot be read.
pub(super) fn of(job: &Job) -> Result<Option<Ticket>, VendorError> {
    let read = |ticket: &String| {
        ticket
            .parse()
            .map_err(|_| VendorError::new(ErrorClass::Internal, "the job's ticket cannot be read"))
    };
    job.ticket.as_ref().map(read).transpose()
}

/// For a call that begins now, after the attempt has spent so much of its time.
pub(super) fn start(candidate: &Candidate, spent: Duration, now: DateTime<Utc>) -> Ticket {
    let spent = TimeDelta::from_std(spent).unwrap_or_default();
    let started_at = to_micros(now - spent);
    Ticket { key: candidate.credential.as_ref().to_owned(), started_at, task: None }
}

/// The key that the task was started with; another one where that is gone.
pub(super) fn candidate<'a>(ticket: &Ticket, candidates: &'a Candidates) -> Option<&'a Candidate> {
    let same = candidates.iter().find(|candidate| *candidate.credential == *ticket.key);
    same.or(candidates.first())
}

/// The job comes back after the wait, or when its time is up.
pub(super) fn parked(
    ticket: Ticket,
    task: String,
    wait: Duration,
    job: &Job,
    now: DateTime<Utc>,
) -> End {
    let after = |from: DateTime<Utc>, time: Duration| {
        TimeDelta::from_std(time).ok().and_then(|time| from.checked_add_signed(time))
    };
    let ends = [after(ticket.started_at, job.limits.timeout), job.deadline(), after(now, wait)];
    let run_at = ends.into_iter().flatten().min().unwrap_or(now).max(now);
    let ticket = Ticket { task: Some(task), ..ticket };
    End::Parked { run_at: to_micros(run_at), ticket: ticket.to_string() }
}

#[cfg(test)]
mod tests {
    use inferq_common::job::Limits;

    use super::*;
    use crate::attempt::tests::{NOW, a_job};

    #[test]
    fn a_ticket_that_cannot_be_read_is_an_error_of_ours() {
        let mut job = a_job(Limits::default());
        assert_eq!(of(&job), Ok(None));
        job.ticket = Some("{".to_owned());
        assert_eq!(of(&job).unwrap_err().class(), ErrorClass::Internal);
    }

    #[test]
    fn a_parked_job_comes_back_after_the_wait_or_when_its_time_is_up() {
        let job = a_job(Limits::default());
        let comes_back = |began: i64, wait| {
            let started_at = NOW + TimeDelta::seconds(began);
            let ticket = Ticket { key: String::new(), started_at, task: None };
            let now = NOW + TimeDelta::seconds(50);
            let end = parked(ticket, "t".to_owned(), Duration::from_secs(wait), &job, now);
            let End::Parked { run_at, .. } = end else { panic!("{end:?}") };
            (run_at - NOW).num_seconds()
        };
        assert_eq!(comes_back(0, 5), 55);
        assert_eq!(comes_back(0, 15), 60);
        assert_eq!(comes_back(-60, 5), 50);
    }
}
