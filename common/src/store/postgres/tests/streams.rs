//! Appends beside what ends their attempts: who comes second waits and sees what the first did.

use sqlx::{Postgres, Transaction};

use super::*;
use crate::stream::ChunkGroup;

async fn a_streaming_claim(store: &PostgresStore, worker: InstanceId) -> Claim {
    let mut new = a_job();
    new.job.stream = true;
    let id = new.job.id;
    store.submit(&[new], worker).await.unwrap();
    store.claim(&[id], worker, now()).await.unwrap().remove(0)
}

fn a_group(claim: &Claim) -> (InstanceId, ChunkGroup) {
    let chunks = vec![Json::parse("1").unwrap()];
    let group = ChunkGroup { job_id: claim.job.id, attempt: claim.attempt(), first: 0, chunks };
    (claim.instance, group)
}

/// Commits once another statement waits for a lock.
async fn commit_when_waited_for(store: &PostgresStore, transaction: Transaction<'_, Postgres>) {
    let waiting = "SELECT count(*) FROM pg_stat_activity
                   WHERE datname = current_database() AND wait_event_type = 'Lock'";
    let waited_for = async {
        while sqlx::query_scalar::<_, i64>(waiting).fetch_one(&store.pool).await.unwrap() == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), waited_for).await.expect("someone waits");
    transaction.commit().await.unwrap();
}

#[tokio::test]
async fn an_append_waits_for_the_end_of_its_attempt() {
    let store = fresh_store().await;
    let worker = an_instance(&store).await;
    let claim = a_streaming_claim(&store, worker).await;
    let mut ending = store.pool.begin().await.unwrap();
    sqlx::query("UPDATE jobs SET status = 'queued'").execute(&mut *ending).await.unwrap();
    let groups = [a_group(&claim)];
    let (held, ()) =
        tokio::join!(store.append_chunks(&groups), commit_when_waited_for(&store, ending));
    assert_eq!(held.unwrap(), [false]);
    assert!(store.read_chunks(claim.job.id, 1, 0, 1000).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_hand_back_waits_for_an_append() {
    let store = fresh_store().await;
    let worker = an_instance(&store).await;
    let claim = a_streaming_claim(&store, worker).await;
    let mut appending = store.pool.begin().await.unwrap();
    let append = sqlx::query(statements::APPEND)
        .bind(vec![claim.job.id.as_uuid()])
        .bind(vec![worker.as_uuid()])
        .bind(vec![1])
        .bind(vec![0_i64])
        .bind(vec![1])
        .bind(vec!["[1]"]);
    append.execute(&mut *appending).await.unwrap();
    let outcomes = [(claim.clone(), Outcome::HandedBack)];
    let (held, ()) =
        tokio::join!(store.finish(&outcomes, now()), commit_when_waited_for(&store, appending));
    assert_eq!(held.unwrap(), [true]);
    let outline = store.outline(claim.job.id, &claim.job.account).await.unwrap().unwrap();
    assert_eq!((outline.job.status, outline.chunks), (JobStatus::Failed, vec![(1, 1)]));
}

#[tokio::test]
async fn an_append_that_waited_for_its_like_stores_nothing_twice() {
    let store = fresh_store().await;
    let worker = an_instance(&store).await;
    let claim = a_streaming_claim(&store, worker).await;
    let mut appending = store.pool.begin().await.unwrap();
    let append = sqlx::query(statements::APPEND)
        .bind(vec![claim.job.id.as_uuid()])
        .bind(vec![worker.as_uuid()])
        .bind(vec![1])
        .bind(vec![0_i64])
        .bind(vec![2])
        .bind(vec!["[1,1]"]);
    append.execute(&mut *appending).await.unwrap();
    let mut next = a_group(&claim);
    next.1.first = 1;
    // They would leave a gap of the first one's and their own making.
    let groups = [a_group(&claim), next];
    let (held, ()) =
        tokio::join!(store.append_chunks(&groups), commit_when_waited_for(&store, appending));
    assert_eq!(held.unwrap(), [false, false]);
    let stored = store.read_chunks(claim.job.id, 1, 0, 1000).await.unwrap();
    assert_eq!((stored.len(), stored[0].chunks.len()), (1, 2));
}
