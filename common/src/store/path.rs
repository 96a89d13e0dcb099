//! The three writes of a job's life, each grouped with its neighbours.

use std::{collections::HashMap, sync::Arc};

use super::{
    Claim, SharedStore, Submitted,
    group::{GroupCommit, GroupError},
};
use crate::{
    clock::Clock,
    id::JobId,
    instance::CurrentInstance,
    job::{NewJob, Outcome},
};

/// Submit, claim and finish of one process; clones share the groups.
#[derive(Debug, Clone)]
pub struct JobPath {
    submit: GroupCommit<NewJob, Submitted>,
    claim: GroupCommit<JobId, Option<Claim>>,
    finish: GroupCommit<(Claim, Outcome), bool>,
}

impl JobPath {
    /// Starts the three groups. `max_group` bounds each transaction, in jobs.
    pub fn start(
        store: SharedStore,
        clock: Arc<dyn Clock>,
        instance: CurrentInstance,
        max_group: usize,
    ) -> Self {
        let submit = {
            let (store, instance) = (Arc::clone(&store), instance.clone());
            GroupCommit::start("submit", max_group, move |jobs: Vec<NewJob>| {
                let (store, instance) = (Arc::clone(&store), instance.clone());
                async move { store.submit(&jobs, instance.id()).await }
            })
        };
        let claim = {
            let (store, clock) = (Arc::clone(&store), Arc::clone(&clock));
            GroupCommit::start("claim", max_group, move |ids: Vec<JobId>| {
                let (store, clock) = (Arc::clone(&store), Arc::clone(&clock));
                let instance = instance.clone();
                async move {
                    let claims = store.claim(&ids, instance.id(), clock.now()).await?;
                    let mut by_id: HashMap<_, _> =
                        claims.into_iter().map(|claim| (claim.job.id, claim)).collect();
                    // Of two callers for one job the first has it.
                    Ok(ids.iter().map(|id| by_id.remove(id)).collect())
                }
            })
        };
        let finish = GroupCommit::start("finish", max_group, move |ends: Vec<(Claim, Outcome)>| {
            let (store, clock) = (Arc::clone(&store), Arc::clone(&clock));
            async move { store.finish(&ends, clock.now()).await }
        });
        Self { submit, claim, finish }
    }

    /// Stores a job; this process answers for its publication.
    pub async fn submit(&self, job: NewJob) -> Result<Submitted, GroupError> {
        self.submit.add(job).await
    }

    /// Claims a job for this process. `None`: it is gone, final, not due or held by someone else,
    /// or this process counts as lost.
    pub async fn claim(&self, id: JobId) -> Result<Option<Claim>, GroupError> {
        self.claim.add(id).await
    }

    /// Ends an attempt. `false`: the claim no longer held, nothing was written.
    pub async fn finish(&self, claim: Claim, outcome: Outcome) -> Result<bool, GroupError> {
        self.finish.add((claim, outcome)).await
    }

    /// Finishes what was asked for and takes no more.
    pub async fn close(&self) {
        // In the order of a job's life, so that what one lets through the next still takes.
        self.submit.close().await;
        self.claim.close().await;
        self.finish.close().await;
    }
}
