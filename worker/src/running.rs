//! The attempts that run in this process, so that one can be stopped from outside.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard},
};

use inferq_common::{
    id::{InstanceId, JobId},
    store::Claim,
};
use inferq_vendors::Share;
use tokio_util::sync::CancellationToken;

/// Every attempt in hand. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Running(Arc<Mutex<Attempts>>);

#[derive(Debug, Default)]
struct Attempts {
    entries: HashMap<(JobId, u32), Entry>,
    /// How many are at it, for each job that is being claimed, run or given back.
    taken_up: HashMap<JobId, usize>,
    next_serial: u64,
}

#[derive(Debug)]
struct Entry {
    instance: InstanceId,
    revoked: CancellationToken,
    /// Told apart from a later entry: the number of an attempt that was put off is given again.
    serial: u64,
}

impl Running {
    /// Stops an attempt: its call is dropped, which closes the vendor's socket, and nothing is
    /// written about it. One that does not run here is ignored.
    pub fn cancel(&self, job_id: JobId, attempt: u32) {
        if let Some(entry) = self.attempts().entries.get(&(job_id, attempt)) {
            entry.revoked.cancel();
        }
    }

    /// How many attempts are in hand.
    pub fn count(&self) -> usize {
        self.attempts().entries.len()
    }

    /// Stops all attempts whose instance `is_current` denies.
    pub(crate) fn cancel_unless(&self, is_current: impl Fn(InstanceId) -> bool) {
        for entry in self.attempts().entries.values() {
            if !is_current(entry.instance) {
                entry.revoked.cancel();
            }
        }
    }

    /// Stops the very claim that was told of, and not a later one of the same number.
    pub(crate) fn cancel_claim(&self, claim: InHand) {
        let key = (claim.job_id, claim.attempt);
        let attempts = self.attempts();
        if let Some(entry) = attempts.entries.get(&key).filter(|it| it.serial == claim.serial) {
            entry.revoked.cancel();
        }
    }

    /// What is in hand under `instance`.
    pub(crate) fn held_by(&self, instance: InstanceId) -> Vec<InHand> {
        let attempts = self.attempts();
        let held = attempts.entries.iter().filter(|(_, entry)| entry.instance == instance);
        held.map(|(&(job_id, attempt), entry)| InHand { job_id, attempt, serial: entry.serial })
            .collect()
    }

    /// Notes that someone here claims a job, runs it or gives it back, until the answer is dropped.
    pub(crate) fn take_up(&self, job_id: JobId) -> TakenUp {
        let mut attempts = self.attempts();
        let others = attempts.taken_up.entry(job_id).or_default();
        let alone = *others == 0;
        *others += 1;
        TakenUp { running: self.clone(), job_id, alone }
    }

    /// Notes that a claim is being run, until the answer is dropped; its vendor's answer may take `memory`.
    pub(crate) fn hold(&self, claim: &Claim, memory: Share) -> Held {
        self.keep((claim.job.id, claim.attempt()), claim.instance, memory)
    }

    fn keep(&self, key: (JobId, u32), instance: InstanceId, memory: Share) -> Held {
        let revoked = CancellationToken::new();
        let mut attempts = self.attempts();
        let serial = attempts.next_serial;
        attempts.next_serial += 1;
        let entry = Entry { instance, revoked: revoked.clone(), serial };
        attempts.entries.insert(key, entry);
        Held { running: self.clone(), key, serial, revoked, memory }
    }

    fn attempts(&self) -> MutexGuard<'_, Attempts> {
        self.0.lock().expect("no one panics while holding the attempts")
    }
}

/// A job that someone here is at.
#[derive(Debug)]
pub(crate) struct TakenUp {
    running: Running,
    job_id: JobId,
    /// Whether nobody else was. Who finds a job that was claimed before leaves it to the first; a claim
    /// of one's own is the store's to give.
    pub(crate) alone: bool,
}

impl Drop for TakenUp {
    fn drop(&mut self) {
        let mut attempts = self.running.attempts();
        if let Some(others) = attempts.taken_up.get_mut(&self.job_id) {
            *others -= 1;
            if *others == 0 {
                attempts.taken_up.remove(&self.job_id);
            }
        }
    }
}

/// A claim as it was in hand when it was looked for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct InHand {
    pub(crate) job_id: JobId,
    attempt: u32,
    serial: u64,
}

impl InHand {
    /// As the store is asked about it.
    pub(crate) const fn key(&self) -> (JobId, u32) {
        (self.job_id, self.attempt)
    }
}

/// An attempt in hand.
#[derive(Debug)]
pub(crate) struct Held {
    running: Running,
    key: (JobId, u32),
    serial: u64,
    /// Cancelled when the store has given the attempt another end.
    pub(crate) revoked: CancellationToken,
    /// Kept until the answer is stored.
    pub(crate) memory: Share,
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut attempts = self.running.attempts();
        if attempts.entries.get(&self.key).is_some_and(|entry| entry.serial == self.serial) {
            attempts.entries.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;

    use super::*;

    #[test]
    fn a_job_is_taken_up_by_one_alone_until_all_have_left_it() {
        let now = DateTime::UNIX_EPOCH;
        let (running, job) = (Running::default(), JobId::new(now));
        let first = running.take_up(job);
        let second = running.take_up(job);
        assert!(first.alone && !second.alone && running.take_up(JobId::new(now)).alone);
        drop(first);
        assert!(!running.take_up(job).alone);
        drop(second);
        assert!(running.take_up(job).alone);
    }

    #[test]
    fn a_claim_that_was_revoked_does_not_stop_a_later_one_of_the_same_number() {
        let now = DateTime::UNIX_EPOCH;
        let (running, instance) = (Running::default(), InstanceId::new(now));
        let key = (JobId::new(now), 1);
        let first = running.keep(key, instance, Share::default());
        let seen = running.held_by(instance);
        assert_eq!(seen.iter().map(InHand::key).collect::<Vec<_>>(), [key]);
        drop(first);
        let second = running.keep(key, instance, Share::default());
        running.cancel_claim(seen[0]);
        assert!(!second.revoked.is_cancelled());
        running.cancel_claim(running.held_by(instance)[0]);
        assert!(second.revoked.is_cancelled());
    }
}
