//! The writes of a job's life and the look at it, each grouped with its neighbours.

use std::{collections::HashMap, sync::Arc};

use chrono::{DateTime, Utc};

use super::{
    Claim, FoundJob, SharedStore, Submitted,
    group::{GroupCommit, GroupError},
};
use crate::{
    clock::Clock,
    id::{AccountId, InstanceId, JobId},
    instance::CurrentInstance,
    job::{NewJob, Outcome},
    stream::ChunkGroup,
};

/// A read brings whole results into memory, so fewer share one than share a write.
const MAX_FIND_GROUP: usize = 64;

/// Submit, claim, finish and find of one process; clones share the groups.
#[derive(Debug, Clone)]
pub struct JobPath {
    submit: GroupCommit<NewJob, Submitted>,
    claim: GroupCommit<JobId, Option<Claim>>,
    lent: GroupCommit<JobId, Option<Claim>>,
    finish: GroupCommit<(Claim, Outcome), Option<DateTime<Utc>>>,
    append: GroupCommit<(InstanceId, ChunkGroup), bool>,
    find: GroupCommit<(JobId, AccountId), Option<FoundJob>>,
}

impl JobPath {
    /// Starts the groups. `max_group` bounds each transaction, in jobs.
    pub fn start(
        store: SharedStore,
        clock: Arc<dyn Clock>,
        instance: CurrentInstance,
        max_group: usize,
    ) -> Self {
        let submit = {
            let (store, instance) = (Arc::clone(&store), instance.clone());
            GroupCommit::start("submit", max_group, move |jobs: Arc<[NewJob]>| {
                let (store, instance) = (Arc::clone(&store), instance.clone());
                async move { store.submit(&jobs, instance.id()).await }
            })
        };
        let claim = {
            let (store, clock) = (Arc::clone(&store), Arc::clone(&clock));
            let instance = instance.clone();
            GroupCommit::start("claim", max_group, move |ids: Arc<[JobId]>| {
                let (store, clock) = (Arc::clone(&store), Arc::clone(&clock));
                let instance = instance.clone();
                async move {
                    let claims = store.claim(&ids, instance.id(), clock.now()).await?;
                    Ok(in_order_of(&ids, claims))
                }
            })
        };
        let lent = {
            let store = Arc::clone(&store);
            GroupCommit::start("lent", MAX_FIND_GROUP, move |ids: Arc<[JobId]>| {
                let (store, instance) = (Arc::clone(&store), instance.clone());
                async move { Ok(in_order_of(&ids, store.lent(&ids, instance.id()).await?)) }
            })
        };
        let find = {
            let store = Arc::clone(&store);
            GroupCommit::start("find", MAX_FIND_GROUP, move |ids: Arc<[(JobId, AccountId)]>| {
                let store = Arc::clone(&store);
                async move { store.find_jobs(&ids).await }
            })
        };
        let append = {
            let store = Arc::clone(&store);
            GroupCommit::start(
                "append",
                max_group,
                move |groups: Arc<[(InstanceId, ChunkGroup)]>| {
                    let store = Arc::clone(&store);
                    async move { store.append_chunks(&groups).await }
                },
            )
        };
        let finish =
            GroupCommit::start("finish", max_group, move |ends: Arc<[(Claim, Outcome)]>| {
                let (store, clock) = (Arc::clone(&store), Arc::clone(&clock));
                async move {
                    let now = clock.now();
                    let held = store.finish(&ends, now).await?;
                    Ok(held.into_iter().map(|held| held.then_some(now)).collect())
                }
            });
        Self { submit, claim, lent, finish, append, find }
    }

    /// Stores a job; this process answers for its publication.
    pub async fn submit(&self, job: NewJob) -> Result<Submitted, GroupError> {
        self.submit.add(job).await
    }

    /// Whether a job submitted now is stored at once, as far as this process can tell.
    pub fn submits_promptly(&self) -> bool {
        self.submit.is_prompt()
    }

    /// Claims a job for this process. `None`: it is gone, final, not due or held by someone else,
    /// or this process counts as lost.
    pub async fn claim(&self, id: JobId) -> Result<Option<Claim>, GroupError> {
        self.claim.add(id).await
    }

    /// The claim of a job that was lent to this process as it was stored. `None`: it holds no more.
    pub async fn lent(&self, id: JobId) -> Result<Option<Claim>, GroupError> {
        self.lent.add(id).await
    }

    /// Stores part of a stream of an attempt that `instance` has claimed. `false`: the claim no longer
    /// held, nothing was written.
    pub async fn append(
        &self,
        instance: InstanceId,
        group: ChunkGroup,
    ) -> Result<bool, GroupError> {
        self.append.add((instance, group)).await
    }

    /// Ends an attempt. `false`: the claim no longer held, nothing was written.
    pub async fn finish(&self, claim: Claim, outcome: Outcome) -> Result<bool, GroupError> {
        Ok(self.finish_at(claim, outcome).await?.is_some())
    }

    /// As [`Self::finish`]; answers when the attempt ended, as the store has it.
    pub async fn finish_at(
        &self,
        claim: Claim,
        outcome: Outcome,
    ) -> Result<Option<DateTime<Utc>>, GroupError> {
        self.finish.add((claim, outcome)).await
    }

    /// A job of the account, with its result once it has ended.
    pub async fn find(
        &self,
        id: JobId,
        account: &AccountId,
    ) -> Result<Option<FoundJob>, GroupError> {
        self.find.add((id, account.clone())).await
    }

    /// Finishes what was asked for and takes no more.
    pub async fn close(&self) {
        // In the order of a job's life, so that what one lets through the next still takes.
        self.submit.close().await;
        self.claim.close().await;
        self.lent.close().await;
        self.append.close().await;
        self.finish.close().await;
        self.find.close().await;
    }
}

/// Of two callers for one job the first has it.
fn in_order_of(ids: &[JobId], claims: Vec<Claim>) -> Vec<Option<Claim>> {
    let mut by_id: HashMap<_, _> = claims.into_iter().map(|claim| (claim.job.id, claim)).collect();
    ids.iter().map(|id| by_id.remove(id)).collect()
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;
    use tempfile::TempDir;

    use super::*;
    use crate::{
        clock::ManualClock,
        config::DatabaseConfig,
        id::InstanceId,
        job::{JobStatus, Json},
        store::{NewInstance, conformance::plain_job, sqlite::SqliteStore},
        usage::Usage,
    };

    struct Process {
        path: JobPath,
        store: SharedStore,
        instance: CurrentInstance,
        clock: Arc<ManualClock>,
        _folder: TempDir,
    }

    fn start() -> DateTime<Utc> {
        // After the moment that plain jobs are made at.
        DateTime::from_timestamp(1_900_000_000, 0).unwrap()
    }

    async fn process() -> Process {
        let folder = TempDir::new().unwrap();
        let config = DatabaseConfig {
            url: format!("sqlite://{}/inferq.db", folder.path().display()).into(),
            max_connections: 4,
            acquire_timeout_ms: 5000,
            max_group: 256,
        };
        let store: SharedStore = Arc::new(SqliteStore::open(&config).unwrap());
        store.migrate().await.unwrap();
        let instance = CurrentInstance::new(register(&store).await);
        let clock = Arc::new(ManualClock::at(start()));
        let path = JobPath::start(Arc::clone(&store), clock.clone(), instance.clone(), 100);
        Process { path, store, instance, clock, _folder: folder }
    }

    async fn register(store: &SharedStore) -> InstanceId {
        let id = InstanceId::new(start());
        store.register(&NewInstance { id, role: "dev", host: "host-1".into() }).await.unwrap();
        id
    }

    fn succeeded() -> Outcome {
        Outcome::Succeeded {
            response: Json::parse("1").unwrap(),
            usage: Usage::default(),
            vendor_request_id: None,
        }
    }

    #[tokio::test]
    async fn many_jobs_walk_the_path_at_once() {
        let process = process().await;
        let walk = async || {
            let new = plain_job();
            let (id, account) = (new.job.id, new.job.account.clone());
            assert_eq!(process.path.submit(new).await.unwrap(), Submitted::Added);
            let claim = process.path.claim(id).await.unwrap().unwrap();
            assert_eq!(claim.job.id, id);
            assert_eq!(claim.job.started_at, Some(start()));
            assert!(process.path.finish(claim.clone(), succeeded()).await.unwrap());
            assert!(!process.path.finish(claim, succeeded()).await.unwrap());
            let (job, _) = process.store.find_job(id, &account).await.unwrap().unwrap();
            assert_eq!(job.status, JobStatus::Succeeded);
        };
        futures::future::join_all((0..300).map(|_| walk())).await;
    }

    #[tokio::test]
    async fn of_two_callers_for_one_job_one_has_it() {
        let process = process().await;
        let new = plain_job();
        let id = new.job.id;
        process.path.submit(new).await.unwrap();
        let (one, two) = futures::join!(process.path.claim(id), process.path.claim(id));
        assert!(one.unwrap().is_some() != two.unwrap().is_some());
    }

    #[tokio::test]
    async fn a_process_that_registered_anew_claims_under_its_new_id() {
        let process = process().await;
        let new = plain_job();
        let id = new.job.id;
        process.path.submit(new).await.unwrap();
        process.store.retire(process.instance.id()).await.unwrap();
        assert!(process.path.claim(id).await.unwrap().is_none());
        let anew = register(&process.store).await;
        process.instance.replace(anew);
        process.clock.advance(TimeDelta::seconds(1));
        let claim = process.path.claim(id).await.unwrap().unwrap();
        assert_eq!(claim.instance, anew);
        assert_eq!(claim.job.started_at, Some(start() + TimeDelta::seconds(1)));
    }

    #[tokio::test]
    async fn a_closed_path_takes_nothing_and_a_closed_store_is_an_error() {
        let process = process().await;
        process.store.close().await;
        let refused = process.path.submit(plain_job()).await;
        assert!(matches!(refused, Err(GroupError::Store(_))), "{refused:?}");
        process.path.close().await;
        let refused = process.path.submit(plain_job()).await;
        assert!(matches!(refused, Err(GroupError::Closed)), "{refused:?}");
    }
}
