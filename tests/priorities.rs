//! High goes before low, and low still goes.

#![expect(clippy::unwrap_used, reason = "stories unwrap freely")]

mod harness;

use std::time::Duration;

use harness::{Mode, Platform, chat};
use serde_json::json;

stories!(on_an_idle_platform_every_priority_runs, on_a_busy_one_high_goes_first_and_low_still_runs);

async fn on_an_idle_platform_every_priority_runs(mode: Mode) {
    let platform = Platform::start(mode).await;
    for priority in ["high", "normal", "low"] {
        let mut body = chat(priority, &json!({}));
        body["priority"] = priority.into();
        let id = platform.submit(&body).await;
        assert_eq!(platform.ends(&id).await["status"], "succeeded");
    }
}

/// How many calls the vendor has not answered.
fn in_hand(platform: &Platform) -> usize {
    let names = platform.vendor.order();
    let calls = names.iter().flat_map(|name| platform.vendor.calls(name));
    calls.filter(|call| call.answered.is_none()).count()
}

async fn on_a_busy_one_high_goes_first_and_low_still_runs(mode: Mode) {
    // One job at a time and process; blockers keep all of them busy while the lanes fill.
    let platform = Platform::start_with(mode, &[("INFERQ__WORKER__CONCURRENCY", "1")]).await;
    let n_processes = platform.workers.len().max(1);
    let mut ids = Vec::new();
    // A busy process may hold a second blocker ready, so each is waited for before the next.
    while in_hand(&platform) < n_processes {
        let blocker = format!("blocker-{}", ids.len());
        ids.push(platform.submit(&chat(&blocker, &json!({"delay_ms": 8000}))).await);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let mut bodies = Vec::new();
    for priority in ["low", "high"] {
        for number in 0..40 {
            let mut body = chat(&format!("{priority}-{number}"), &json!({"delay_ms": 5}));
            body["priority"] = priority.into();
            bodies.push(body);
        }
    }
    // All at once: on a slow machine too they are there before the blockers end.
    let submits = bodies.iter().map(|body| platform.submit(body));
    ids.extend(futures::future::join_all(submits).await);
    for id in &ids {
        assert_eq!(platform.ends(id).await["status"], "succeeded");
    }
    let order = platform.vendor.order();
    let rest: Vec<_> = order.iter().filter(|name| !name.starts_with("blocker")).collect();
    assert_eq!(rest.len(), 80);
    // The last few may lie ready in a process that a blocker still keeps busy.
    let mut highs = rest.iter().enumerate().filter(|(_, name)| name.starts_with("high"));
    let (late_high, _) = highs.nth(35).unwrap();
    let low_before = rest[..late_high].iter().filter(|name| name.starts_with("low")).count();
    // Sixteen high ones for each low one, so two or three of forty; more only by chance of timing.
    assert!((1..=8).contains(&low_before), "{low_before} low jobs ran before the 36th high one");
}
