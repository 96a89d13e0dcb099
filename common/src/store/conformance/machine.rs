use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use rand::{Rng as _, SeedableRng as _, rngs::StdRng, seq::IndexedRandom as _};

use super::{Fixture, a_job, acme, at, failed, retry_at, streams::group, succeeded};
use crate::{
    id::{InstanceId, JobId},
    job::{AttemptOutcome, Job, JobStatus, Outcome},
    store::Claim,
};

/// A store under random moves, and what was seen of each job.
struct Machine {
    fixture: Fixture,
    rng: StdRng,
    instances: Vec<InstanceId>,
    claims: Vec<Claim>,
    seen: HashMap<JobId, Job>,
    /// How many chunks each attempt was told to hold.
    streamed: BTreeMap<(JobId, u32), u64>,
    seconds: i64,
}

/// Random moves of several instances never lead a job where the state machine does not.
pub async fn random_moves_keep_to_the_state_machine(fixture: Fixture) {
    let mut machine = Machine {
        fixture,
        rng: StdRng::seed_from_u64(20_261_120),
        instances: Vec::new(),
        claims: Vec::new(),
        seen: HashMap::new(),
        streamed: BTreeMap::new(),
        seconds: 0,
    };
    for _ in 0..2 {
        let instance = machine.fixture.instance().await;
        machine.instances.push(instance);
    }
    for _ in 0..400 {
        machine.seconds += machine.rng.random_range(0..3);
        machine.step().await;
        machine.check().await;
    }
    machine.count().await;
}

impl Machine {
    async fn step(&mut self) {
        let now = at(self.seconds);
        let instance = *self.instances.choose(&mut self.rng).unwrap();
        match self.rng.random_range(0..14) {
            0..=2 => self.submit(instance).await,
            3..=5 => self.claim(instance).await,
            6..=8 => self.finish().await,
            9 => {
                if let Some(id) = self.any_job() {
                    self.fixture.cancel(id, &acme(), now).await.unwrap();
                }
            }
            10 => {
                self.fixture.expire(now, 2).await.unwrap();
                self.fixture.take_due(instance, now, 2).await.unwrap();
            }
            11..=12 => self.append().await,
            _ => {
                self.fixture.retire(instance).await.unwrap();
                self.instances.retain(|alive| *alive != instance);
                let anew = self.fixture.instance().await;
                self.instances.push(anew);
                self.fixture.rescue(anew, now, 5).await.unwrap();
            }
        }
    }

    fn any_job(&mut self) -> Option<JobId> {
        let mut ids: Vec<JobId> = self.seen.keys().copied().collect();
        ids.sort_unstable();
        ids.choose(&mut self.rng).copied()
    }

    async fn submit(&mut self, instance: InstanceId) {
        let (seconds, run_in, expires_in) =
            (self.seconds, self.rng.random_range(0..4), self.rng.random_range(0..8));
        let job = a_job().made_at(seconds).with(|job| {
            job.run_at = (run_in > 1).then(|| at(seconds + run_in));
            job.expires_at = (expires_in > 3).then(|| at(seconds + expires_in));
            job.stream = expires_in % 2 == 0;
        });
        let job = if run_in == 0 { job.calling_back("https://example.com") } else { job };
        let job = self.fixture.add(job, instance).await;
        self.seen.insert(job.id, job);
    }

    async fn claim(&mut self, instance: InstanceId) {
        let ids: Vec<JobId> = (0..3).filter_map(|_| self.any_job()).collect();
        let claims = self.fixture.claim(&ids, instance, at(self.seconds)).await.unwrap();
        self.claims.extend(claims);
    }

    /// Ends any claim there ever was, so that most no longer hold.
    async fn finish(&mut self) {
        let mut batch = Vec::new();
        for _ in 0..2 {
            let Some(claim) = self.claims.choose(&mut self.rng).cloned() else { return };
            let outcome = match self.rng.random_range(0..5) {
                0 => succeeded(),
                1 => failed(),
                2 => retry_at(at(self.seconds + 1)),
                3 => Outcome::Deferred { run_at: at(self.seconds + 1), ticket: None },
                _ => Outcome::HandedBack,
            };
            batch.push((claim, outcome));
        }
        self.fixture.finish(&batch, at(self.seconds)).await.unwrap();
    }

    /// Appends to any claim there ever was, mostly where its attempt's chunks end.
    async fn append(&mut self) {
        let mut batch = Vec::new();
        for _ in 0..3 {
            let Some(claim) = self.claims.choose(&mut self.rng).cloned() else { return };
            if !claim.job.stream {
                continue;
            }
            let n_stored = self.streamed.get(&(claim.job.id, claim.attempt())).copied();
            let first = n_stored.unwrap_or(0) + u64::from(self.rng.random_range(0..5) == 0);
            batch.push(group(&claim, first, &["1", "2"]));
        }
        let held = self.fixture.append_chunks(&batch).await.unwrap();
        for ((_, group), held) in batch.iter().zip(held) {
            if held {
                // Or a repetition of another group of this batch.
                self.streamed.insert((group.job_id, group.attempt), group.end());
            }
        }
    }

    async fn check(&mut self) {
        for (id, before) in &mut self.seen {
            let (job, result) = self.fixture.find_job(*id, &acme()).await.unwrap().unwrap();
            assert_eq!(result.is_some(), job.status.is_final(), "{job:?}");
            assert_eq!(job.finished_at.is_some(), job.status.is_final(), "{job:?}");
            assert!(job.run_at.is_none() || job.status == JobStatus::Queued, "{job:?}");
            if before.status.is_final() {
                assert_eq!(job, *before, "it changed after its end");
            }
            let allowed = job.status == before.status || before.status.can_become(job.status);
            assert!(allowed, "{} became {}", before.status, job.status);
            // A deferral takes back the attempt that its claim had counted.
            let taken_back = u32::from(before.status == JobStatus::Running);
            assert!(job.attempt >= before.attempt - taken_back);
            assert!(job.lost_attempts >= before.lost_attempts);
            let was_called = job.attempt > 0;
            assert_eq!(job.started_at.is_some(), was_called, "{job:?}");
            assert_eq!(job.attempt_started_at.is_some(), was_called, "{job:?}");
            *before = job;
        }
    }

    /// Every attempt is written down exactly once, and every final status made one delivery.
    async fn count(&self) {
        assert!(self.fixture.judge(Duration::from_hours(1)).await.unwrap().is_empty());
        let mut statuses: HashMap<JobStatus, u32> = HashMap::new();
        for (id, job) in &self.seen {
            *statuses.entry(job.status).or_default() += 1;
            let attempts = self.fixture.list_attempts(*id).await.unwrap();
            let running = u32::from(job.status == JobStatus::Running);
            let numbers: Vec<u32> = attempts.iter().map(|attempt| attempt.number).collect();
            assert_eq!(numbers, (1..=job.attempt - running).collect::<Vec<_>>());
            let lost = attempts.iter().filter(|a| a.outcome == AttemptOutcome::Lost).count();
            assert_eq!(lost, job.lost_attempts as usize);
            let outline = self.fixture.outline(*id, &acme()).await.unwrap().unwrap();
            let streamed = self.streamed.range((*id, 0)..=(*id, u32::MAX));
            assert_eq!(
                outline.chunks,
                streamed.map(|((_, attempt), n)| (*attempt, *n)).collect::<Vec<_>>()
            );
            let has_chunks =
                |number: u32| outline.chunks.iter().any(|(attempt, _)| *attempt == number);
            for attempt in attempts.iter().filter(|a| a.outcome == AttemptOutcome::Lost) {
                if has_chunks(attempt.number) {
                    let end = (job.status, job.attempt);
                    assert_eq!(end, (JobStatus::Failed, attempt.number), "not repeated");
                }
            }
            let owed = job.status.is_final() && job.callback_url.is_some();
            let deliveries = self.fixture.list_deliveries(*id).await.unwrap();
            assert_eq!(deliveries.len(), usize::from(owed));
        }
        // The moves were worth the name: they reached every status.
        for status in JobStatus::ALL {
            assert!(statuses.contains_key(status), "{statuses:?}");
        }
    }
}
