//! Callers of this process that wait for the end of a job.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard},
};

use inferq_common::{
    broker::Event,
    id::JobId,
    job::{JobResult, JobStatus},
};
use tokio::sync::oneshot;

/// What a waiting caller is told.
#[derive(Debug, Clone, PartialEq)]
pub struct Ended {
    pub status: JobStatus,
    /// `None`: too large for an event; it is in the store.
    pub result: Option<JobResult>,
}

/// Who waits for which job. Clones share the registry.
#[derive(Debug, Clone, Default)]
pub struct Waiters(Arc<Mutex<Registry>>);

#[derive(Debug, Default)]
struct Registry {
    next: u64,
    by_job: HashMap<JobId, Vec<Entry>>,
}

#[derive(Debug)]
struct Entry {
    number: u64,
    wake: oneshot::Sender<Ended>,
}

/// One waiting caller. Dropped, it is forgotten; the job goes on.
#[derive(Debug)]
pub struct Waiter {
    job: JobId,
    number: u64,
    woken: oneshot::Receiver<Ended>,
    waiters: Waiters,
}

impl Waiters {
    pub fn new() -> Self {
        Self::default()
    }

    /// Registers a caller. Done before the job can end, no end is missed.
    pub fn register(&self, job: JobId) -> Waiter {
        let (wake, woken) = oneshot::channel();
        let mut registry = self.lock();
        let number = registry.next;
        registry.next += 1;
        registry.by_job.entry(job).or_default().push(Entry { number, wake });
        drop(registry);
        Waiter { job, number, woken, waiters: self.clone() }
    }

    /// Wakes all who wait for the job of an [`Event::Finished`]; other events mean nothing here.
    pub fn finished(&self, event: Event) {
        let Event::Finished { job_id, status, result, .. } = event else { return };
        let Some(entries) = self.lock().by_job.remove(&job_id) else { return };
        let ended = Ended { status, result };
        for entry in entries {
            // One who left in this moment needs no answer.
            drop(entry.wake.send(ended.clone()));
        }
    }

    /// How many callers wait.
    pub fn len(&self) -> usize {
        self.lock().by_job.values().map(Vec::len).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.lock().by_job.is_empty()
    }

    fn forget(&self, job: JobId, number: u64) {
        let mut registry = self.lock();
        let Some(entries) = registry.by_job.get_mut(&job) else { return };
        entries.retain(|entry| entry.number != number);
        if entries.is_empty() {
            registry.by_job.remove(&job);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Registry> {
        self.0.lock().expect("no one panics while holding the registry")
    }
}

impl Waiter {
    /// Waits for the event; once it has come, for ever.
    ///
    /// **Cancel safe:** the event is kept until a call returns it.
    pub async fn ended(&mut self) -> Ended {
        if !self.woken.is_terminated()
            && let Ok(ended) = (&mut self.woken).await
        {
            return ended;
        }
        std::future::pending().await
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        self.waiters.forget(self.job, self.number);
    }
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;

    use super::*;

    fn finished(job_id: JobId) -> Event {
        Event::Finished { job_id, status: JobStatus::Succeeded, attempt: 1, result: None }
    }

    #[tokio::test]
    async fn an_event_wakes_all_who_wait_for_its_job_and_nobody_else() {
        let waiters = Waiters::new();
        let (job, other) = (JobId::new(DateTime::UNIX_EPOCH), JobId::new(DateTime::UNIX_EPOCH));
        let mut first = waiters.register(job);
        let mut second = waiters.register(job);
        let _third = waiters.register(other);
        waiters.finished(finished(job));
        assert_eq!(first.ended().await.status, JobStatus::Succeeded);
        assert_eq!(second.ended().await.status, JobStatus::Succeeded);
        assert_eq!(waiters.len(), 1);
        waiters.finished(Event::Cancel { job_id: other, attempt: 1 });
        assert_eq!(waiters.len(), 1);
    }

    #[tokio::test]
    async fn a_caller_who_leaves_is_forgotten_at_once() {
        let waiters = Waiters::new();
        let job = JobId::new(DateTime::UNIX_EPOCH);
        let leaves = waiters.register(job);
        let stays = waiters.register(job);
        drop(leaves);
        assert_eq!(waiters.len(), 1);
        drop(stays);
        assert!(waiters.is_empty());
    }
}
