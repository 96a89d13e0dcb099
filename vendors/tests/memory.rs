//! Large answers at once: together they take no more than they may.

mod support;

use std::time::Duration;

use inferq_vendors::{Adapter as _, AnswerMemory, Call, Share};
use tokio::{task::JoinSet, time::sleep};

use self::support::{Server, call, soon};

const CHAT: &str = r#"{"messages":[]}"#;

/// A chat's answer of some two MiB, with or without word of its length.
fn large_answer(announced: bool) -> String {
    let words = "x".repeat(2 << 20);
    let body = format!(
        r#"{{"choices":[{{"index":0,"message":{{"content":"{words}"}},"finish_reason":"stop"}}]}}"#
    );
    let length = if announced {
        format!("content-length: {}", body.len())
    } else {
        "connection: close".to_owned()
    };
    format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n{length}\r\n\r\n{body}")
}

async fn waits(share: &Share) {
    while !share.has_waited() {
        sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test]
async fn a_large_answer_waits_until_another_is_needed_no_more() {
    for announced in [true, false] {
        let server = Server::answering(large_answer(announced)).await;
        let memory = AnswerMemory::new(2 << 20);
        let [first, second, third] = [(); 3].map(|()| memory.share());
        let answer = async |share: &Share| {
            let call = Call { memory: share.clone(), ..call(CHAT) };
            server.adapter(|_| {}).call(&call).await
        };
        soon(answer(&first)).await.unwrap();
        assert!(!first.has_waited(), "there was room");
        soon(answer(&second)).await.unwrap();
        assert!(second.has_waited(), "it went beyond, as one may");
        let waiting = answer(&third);
        tokio::pin!(waiting);
        tokio::select! {
            answered = &mut waiting => panic!("it did not wait: {answered:?}"),
            () = soon(waits(&third)) => {}
        }
        // However often it is asked: nothing has been given back.
        for _ in 0..100 {
            assert!(futures::poll!(&mut waiting).is_pending());
        }
        drop(second);
        soon(waiting).await.unwrap();
        assert_eq!(server.requests().len(), 3, "who waits does not ask again");
    }
}

#[tokio::test]
async fn small_answers_pass_those_that_wait() {
    let body = r#"{"choices":[{"index":0,"message":{"content":"hi"},"finish_reason":"stop"}]}"#;
    let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close";
    let small = Server::answering(format!("{head}\r\n\r\n{body}")).await;
    let large = Server::answering(large_answer(true)).await;
    let memory = AnswerMemory::new(1 << 20);
    let held = [(); 2].map(|()| memory.share());
    for share in &held {
        let call = Call { memory: share.clone(), ..call(CHAT) };
        soon(large.adapter(|_| {}).call(&call)).await.unwrap();
    }
    let waiting = memory.share();
    let (adapter, waits_for) = (large.adapter(|_| {}), waiting.clone());
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let call = Call { memory: waits_for, ..call(CHAT) };
        adapter.call(&call).await
    });
    soon(waits(&waiting)).await;
    let quick = Call { memory: memory.share(), ..call(CHAT) };
    soon(small.adapter(|_| {}).call(&quick)).await.unwrap();
    assert!(!quick.memory.has_waited());
    drop(held);
    soon(tasks.join_next()).await.unwrap().unwrap().unwrap();
}
