use std::sync::{
    Mutex,
    atomic::{AtomicUsize, Ordering},
};

use futures::future::{join_all, poll_immediate};
use tokio::sync::Semaphore;

use super::*;

/// Doubles numbers, group by group, each group waiting for a permit of `gate`.
struct Doubler {
    group: GroupCommit<u32, u32>,
    gate: Arc<Semaphore>,
    groups: Arc<Mutex<Vec<Vec<u32>>>>,
}

fn doubler(permits: usize, max_group: usize) -> Doubler {
    let gate = Arc::new(Semaphore::new(permits));
    let groups = Arc::new(Mutex::new(Vec::new()));
    let (inner_gate, inner_groups) = (Arc::clone(&gate), Arc::clone(&groups));
    let group = GroupCommit::start("test", max_group, move |items: Arc<[u32]>| {
        inner_groups.lock().unwrap().push(items.to_vec());
        let gate = Arc::clone(&inner_gate);
        async move {
            gate.acquire().await.unwrap().forget();
            Ok(items.iter().map(|item| item * 2).collect())
        }
    });
    Doubler { group, gate, groups }
}

impl Doubler {
    /// Waits until `n` groups have begun.
    async fn begun(&self, n: usize) {
        while self.groups.lock().unwrap().len() < n {
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test]
async fn each_caller_gets_its_own_output_in_the_order_of_adding() {
    let doubler = doubler(Semaphore::MAX_PERMITS, 7);
    let outputs = join_all((0..100).map(|n| doubler.group.add(n))).await;
    let outputs: Vec<u32> = outputs.into_iter().map(Result::unwrap).collect();
    assert_eq!(outputs, (0..100).map(|n| n * 2).collect::<Vec<_>>());
    let groups = doubler.groups.lock().unwrap();
    assert_eq!(groups.concat(), (0..100).collect::<Vec<_>>());
    assert!(groups.iter().all(|group| group.len() <= 7));
}

#[tokio::test]
async fn the_next_group_forms_while_one_runs() {
    let doubler = doubler(0, 100);
    let mut first = Box::pin(doubler.group.add(0));
    assert!(poll_immediate(&mut first).await.is_none());
    doubler.begun(1).await;
    let mut rest = Box::pin(join_all((1..=50).map(|n| doubler.group.add(n))));
    assert!(poll_immediate(&mut rest).await.is_none());
    doubler.gate.add_permits(2);
    first.await.unwrap();
    rest.await;
    let sizes: Vec<_> = doubler.groups.lock().unwrap().iter().map(Vec::len).collect();
    assert_eq!(sizes, [1, 50]);
}

#[tokio::test(start_paused = true)]
async fn an_idle_system_adds_no_delay() {
    let doubler = doubler(Semaphore::MAX_PERMITS, 100);
    let before = tokio::time::Instant::now();
    for n in 0..20 {
        doubler.group.add(n).await.unwrap();
    }
    // Under paused time any timer at all would have moved the clock.
    assert_eq!(before.elapsed(), std::time::Duration::ZERO);
    assert_eq!(doubler.groups.lock().unwrap().len(), 20);
}

#[tokio::test]
async fn it_is_prompt_while_nothing_runs_and_the_last_group_succeeded() {
    let group = GroupCommit::start("test", 2, |items: Arc<[u32]>| async move {
        if items.contains(&3) {
            return Err(StoreError::Unavailable("down".into()));
        }
        Ok(items.to_vec())
    });
    assert!(!group.is_prompt(), "nothing is known of the store yet");
    group.add(1).await.unwrap();
    assert!(group.is_prompt());
    group.add(3).await.unwrap_err();
    assert!(!group.is_prompt());
    group.add(4).await.unwrap();
    assert!(group.is_prompt());

    let doubler = doubler(1, 100);
    doubler.group.add(0).await.unwrap();
    let mut running = Box::pin(doubler.group.add(1));
    assert!(poll_immediate(&mut running).await.is_none());
    assert!(!doubler.group.is_prompt(), "one waits");
    doubler.begun(2).await;
    assert!(!doubler.group.is_prompt(), "one runs");
    doubler.gate.add_permits(1);
    running.await.unwrap();
    assert!(doubler.group.is_prompt());
}

#[tokio::test]
async fn an_error_reaches_just_the_callers_of_its_group() {
    let group = GroupCommit::start("test", 2, |items: Arc<[u32]>| async move {
        if items.contains(&3) {
            return Err(StoreError::Unavailable("down".into()));
        }
        Ok(items.to_vec())
    });
    // Polled in order, so the groups are (0, 1), (2, 3), (4, 5).
    let outputs = join_all((0..6).map(|n| group.add(n))).await;
    let failed: Vec<_> = outputs.iter().map(Result::is_err).collect();
    assert_eq!(failed, [false, false, true, true, false, false]);
    assert!(matches!(
        outputs[2].as_ref().unwrap_err(),
        GroupError::Store(error) if matches!(**error, StoreError::Unavailable(_))
    ));
}

#[tokio::test]
async fn an_item_that_the_store_refuses_fails_alone() {
    let group = GroupCommit::start("test", 10, |items: Arc<[u32]>| async move {
        match items.iter().find(|item| **item % 4 == 3) {
            Some(3) => Err(StoreError::Other("refused".into())),
            Some(_) => panic!("a bad item"),
            None => Ok(items.to_vec()),
        }
    });
    let outputs = join_all((0..9).map(|n| group.add(n))).await;
    for (n, output) in (0..9).zip(outputs) {
        match output {
            Ok(output) => assert_eq!((output, n % 4 == 3), (n, false)),
            Err(error) => assert!(n % 4 == 3, "{n}: {error}"),
        }
    }
}

#[tokio::test]
async fn one_by_one_ends_where_the_store_goes_away() {
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    let group = GroupCommit::start("test", 10, move |items: Arc<[u32]>| {
        let call = counted.fetch_add(1, Ordering::Relaxed);
        async move {
            match call {
                0 => Err(StoreError::Other("refused".into())),
                1 => Ok(items.to_vec()),
                _ => Err(StoreError::Unavailable("down".into())),
            }
        }
    });
    let outputs = join_all((0..5).map(|n| group.add(n))).await;
    let failed: Vec<_> = outputs.iter().map(Result::is_err).collect();
    assert_eq!(failed, [false, true, true, true, true]);
    assert_eq!(calls.load(Ordering::Relaxed), 3, "the rest did not wait for an error each");
}

#[tokio::test]
async fn a_caller_that_goes_away_disturbs_no_one() {
    let doubler = doubler(0, 100);
    let mut in_group = Box::pin(doubler.group.add(0));
    assert!(poll_immediate(&mut in_group).await.is_none());
    doubler.begun(1).await;
    let mut waiting = Box::pin(doubler.group.add(1));
    let mut staying = Box::pin(doubler.group.add(2));
    assert!(poll_immediate(&mut waiting).await.is_none());
    assert!(poll_immediate(&mut staying).await.is_none());
    drop(in_group);
    drop(waiting);
    doubler.gate.add_permits(2);
    assert_eq!(staying.await.unwrap(), 4);
    // The one that ran ran; the one that only waited was taken back.
    assert_eq!(*doubler.groups.lock().unwrap(), [vec![0], vec![2]]);
}

#[tokio::test]
async fn closing_finishes_what_was_added_and_refuses_the_rest() {
    let doubler = doubler(0, 2);
    let mut added = Box::pin(join_all((0..5).map(|n| doubler.group.add(n))));
    assert!(poll_immediate(&mut added).await.is_none());
    let mut closing = Box::pin(doubler.group.close());
    assert!(poll_immediate(&mut closing).await.is_none());
    doubler.gate.add_permits(3);
    closing.await;
    let outputs: Vec<_> = added.await.into_iter().map(Result::unwrap).collect();
    assert_eq!(outputs, [0, 2, 4, 6, 8]);
    assert!(matches!(doubler.group.add(9).await, Err(GroupError::Closed)));
    doubler.group.close().await;
}

#[tokio::test]
async fn a_full_queue_says_so_at_once() {
    let doubler = doubler(0, 1);
    let mut running = Box::pin(doubler.group.add(0));
    assert!(poll_immediate(&mut running).await.is_none());
    doubler.begun(1).await;
    let n_waiting = u32::try_from(QUEUE_ITEMS).unwrap();
    let mut waiting = Box::pin(join_all((0..n_waiting).map(|n| doubler.group.add(n))));
    assert!(poll_immediate(&mut waiting).await.is_none());
    assert!(matches!(doubler.group.add(1).await, Err(GroupError::Full)));
    doubler.gate.add_permits(QUEUE_ITEMS + 1);
    assert!(waiting.await.into_iter().all(|output| output.is_ok()));
    doubler.group.add(1).now_or_never();
}

#[tokio::test]
async fn a_wrong_number_of_outputs_is_an_error_for_the_group() {
    let group =
        GroupCommit::start("test", 10, |items: Arc<[u32]>| async move { Ok(items[1..].to_vec()) });
    let error = group.add(1).await.unwrap_err();
    assert!(matches!(error, GroupError::Store(error) if matches!(*error, StoreError::Other(_))));
}

#[tokio::test]
async fn a_panic_ends_one_group_and_not_the_next() {
    let calls = AtomicUsize::new(0);
    let group = GroupCommit::start("test", 10, move |items: Arc<[u32]>| {
        // The first call panics at once, the second while it runs.
        let call = calls.fetch_add(1, Ordering::Relaxed);
        assert!(call != 0, "first");
        async move {
            assert!(call != 1, "second");
            Ok(items.to_vec())
        }
    });
    assert!(matches!(group.add(1).await, Err(GroupError::Store(_))));
    assert!(matches!(group.add(2).await, Err(GroupError::Store(_))));
    assert_eq!(group.add(3).await.unwrap(), 3);
    group.close().await;
}
