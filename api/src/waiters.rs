//! Callers of this process that wait for the end of a job.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard},
};

use inferq_common::{
    broker::{Event, Times},
    id::{AccountId, JobId},
    job::{Job, JobResult, JobStatus},
    store::FoundJob,
};
use tokio::sync::oneshot;

use crate::stream::feed::{Ear, Feed};

/// Jobs made here whose end is awaited are remembered up to this many, the latest ones.
const MAX_PLACED: usize = 4096;

/// A job with more metadata (bytes) is not remembered.
const MAX_PLACED_METADATA: usize = 1024;

/// What a waiting caller is told.
#[derive(Debug, Clone, PartialEq)]
pub struct Ended {
    pub status: JobStatus,
    pub attempt: u32,
    /// `None`: not in the event; they are in the store.
    pub times: Option<Times>,
    /// `None`: too large for an event; it is in the store.
    pub result: Option<JobResult>,
    /// How many chunks the last attempt streamed.
    pub chunks: u64,
}

impl Ended {
    /// The job as the store has it now, made of what was read of it before; `None`: the event does
    /// not say enough.
    pub(crate) fn complete(self, before: &Job) -> Option<FoundJob> {
        let Self { status, attempt, times, result, .. } = self;
        let (Times { started_at, finished_at }, result) = (times?, result?);
        let job = Job {
            status,
            attempt,
            started_at,
            finished_at: Some(finished_at),
            run_at: None,
            ..before.clone()
        };
        Some((job, Some(result)))
    }
}

/// Who waits for which job. Clones share the registry.
#[derive(Debug, Clone, Default)]
pub struct Waiters(Arc<Mutex<Registry>>);

#[derive(Debug, Default)]
struct Registry {
    next: u64,
    by_job: HashMap<JobId, Vec<Entry>>,
    /// Who reads a job's chunks as they come.
    ears: HashMap<JobId, Vec<(u64, Arc<Ear>)>>,
    /// Made here, with an event to come: as they were made.
    placed: HashMap<JobId, Box<Job>>,
    /// The latest of them in their order, those included that have ended since.
    placed_order: VecDeque<JobId>,
}

impl Registry {
    fn register(&mut self, job: JobId) -> (u64, oneshot::Receiver<Ended>) {
        let (wake, woken) = oneshot::channel();
        let number = self.next;
        self.next += 1;
        self.by_job.entry(job).or_default().push(Entry { number, wake });
        (number, woken)
    }
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
        let (number, woken) = self.lock().register(job);
        Waiter { job, number, woken, waiters: self.clone() }
    }

    /// Registers the reader of a job's chunks, of which up to `max_bytes` wait for it. Done before
    /// the job can run, nothing is missed.
    pub(crate) fn listen(&self, job: JobId, max_bytes: usize) -> Feed {
        let ear = Arc::new(Ear::new(max_bytes));
        let mut registry = self.lock();
        let number = registry.next;
        registry.next += 1;
        registry.ears.entry(job).or_default().push((number, Arc::clone(&ear)));
        drop(registry);
        Feed::new(job, number, ear, self.clone())
    }

    /// Remembers a job made here whose event will come here, so that who comes to wait for its end
    /// need not ask the store what it is. Called before anyone can run it.
    pub(crate) fn placed(&self, job: &Job) {
        if job.metadata.as_ref().is_some_and(|text| text.as_str().len() > MAX_PLACED_METADATA) {
            return;
        }
        let mut registry = self.lock();
        registry.placed.insert(job.id, Box::new(job.clone()));
        registry.placed_order.push_back(job.id);
        if registry.placed_order.len() > MAX_PLACED
            && let Some(oldest) = registry.placed_order.pop_front()
        {
            registry.placed.remove(&oldest);
        }
    }

    /// As [`Self::register`], with the job as it was made if it is remembered: then its event has
    /// not come yet.
    pub(crate) fn register_placed(&self, id: JobId, account: &AccountId) -> (Waiter, Option<Job>) {
        let mut registry = self.lock();
        let placed = registry.placed.get(&id).filter(|job| job.account == *account);
        let placed = placed.map(|job| Job::clone(job));
        let (number, woken) = registry.register(id);
        drop(registry);
        (Waiter { job: id, number, woken, waiters: self.clone() }, placed)
    }

    /// Passes an event of a job on to all who wait for its end or read its chunks here.
    pub fn take(&self, event: Event) {
        match event {
            Event::Finished { job_id, status, attempt, result, times, chunks, room: _ } => {
                self.end(job_id, &Ended { status, attempt, times, result, chunks });
            }
            Event::Chunks(group) => {
                for ear in self.ears(group.job_id) {
                    ear.chunks(&group);
                }
            }
            Event::Cancel { .. } | Event::Lent { .. } => {}
        }
    }

    fn end(&self, job_id: JobId, ended: &Ended) {
        for ear in self.ears(job_id) {
            ear.ended(ended.clone());
        }
        let mut registry = self.lock();
        registry.placed.remove(&job_id);
        let Some(entries) = registry.by_job.remove(&job_id) else { return };
        drop(registry);
        for entry in entries {
            // One who left in this moment needs no answer.
            drop(entry.wake.send(ended.clone()));
        }
    }

    fn ears(&self, job: JobId) -> Vec<Arc<Ear>> {
        let registry = self.lock();
        let ears = registry.ears.get(&job);
        ears.map(|ears| ears.iter().map(|(_, ear)| Arc::clone(ear)).collect()).unwrap_or_default()
    }

    /// How many callers wait, readers of streams included.
    pub fn len(&self) -> usize {
        let registry = self.lock();
        registry.by_job.values().map(Vec::len).sum::<usize>()
            + registry.ears.values().map(Vec::len).sum::<usize>()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(crate) fn close_ear(&self, job: JobId, number: u64) {
        let mut registry = self.lock();
        let Some(ears) = registry.ears.get_mut(&job) else { return };
        ears.retain(|(its, _)| *its != number);
        if ears.is_empty() {
            registry.ears.remove(&job);
        }
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
        Event::Finished {
            job_id,
            status: JobStatus::Succeeded,
            attempt: 1,
            result: None,
            times: None,
            chunks: 0,
            room: None,
        }
    }

    #[tokio::test]
    async fn an_event_wakes_all_who_wait_for_its_job_and_nobody_else() {
        let waiters = Waiters::new();
        let (job, other) = (JobId::new(DateTime::UNIX_EPOCH), JobId::new(DateTime::UNIX_EPOCH));
        let mut first = waiters.register(job);
        let mut second = waiters.register(job);
        let _third = waiters.register(other);
        waiters.take(finished(job));
        assert_eq!(first.ended().await.status, JobStatus::Succeeded);
        assert_eq!(second.ended().await.status, JobStatus::Succeeded);
        assert_eq!(waiters.len(), 1);
        waiters.take(Event::Cancel { job_id: other, attempt: 1 });
        assert_eq!(waiters.len(), 1);
    }

    #[test]
    fn only_the_latest_jobs_are_remembered() {
        let waiters = Waiters::new();
        let jobs: Vec<Job> =
            (0..=MAX_PLACED).map(|_| inferq_common::store::conformance::plain_job().job).collect();
        for job in &jobs {
            waiters.placed(job);
        }
        let remembered = |job: &Job| waiters.register_placed(job.id, &job.account).1.is_some();
        assert!(!remembered(&jobs[0]));
        assert!(remembered(&jobs[1]) && remembered(&jobs[MAX_PLACED]));
        waiters.take(finished(jobs[1].id));
        assert!(!remembered(&jobs[1]));
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
