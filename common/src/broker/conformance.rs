//! What every broker must do. [`broker_conformance!`](crate::broker_conformance) makes each case
//! below a test of one broker.

#![expect(
    clippy::missing_panics_doc,
    clippy::unwrap_used,
    reason = "these are tests, called from where the tests of a broker lie"
)]

use std::{collections::HashSet, sync::Arc, time::Duration};

use chrono::DateTime;
use futures::{FutureExt as _, StreamExt as _, stream::FuturesUnordered};
use tokio::time::timeout;
use uuid::Uuid;

use super::{
    Broker, BrokerError, BrokerHealth, Deliveries, Delivery, Event, Inbox, LaneDepth, Message,
    Times,
};
use crate::{
    id::{InstanceId, JobId},
    job::{JobResult, JobStatus, Json, Lane, Priority},
    usage::Usage,
    vendor::Vendor,
};

/// Makes each conformance case a `#[tokio::test]`; the expression is a future of a fresh, empty
/// `Arc<impl Broker>` for each.
#[macro_export]
macro_rules! broker_conformance {
    ($open:expr) => {
        $crate::broker_conformance! { @each $open;
            a_message_is_delivered_and_acked_once,
            a_nacked_message_comes_again,
            a_dropped_delivery_comes_again,
            what_a_dropped_consumer_held_goes_to_another,
            a_delivery_outlives_its_consumer,
            prefetch_bounds_what_a_consumer_holds,
            two_consumers_share_a_lane,
            lanes_are_isolated,
            a_lane_keeps_its_order,
            a_message_arrives_as_it_was_sent,
            a_thousand_outstanding_publishes_arrive_as_one_set,
            next_can_be_cancelled,
            try_next_takes_only_what_is_at_hand,
            an_inbox_receives_what_is_sent_to_it,
            events_sent_at_once_all_arrive,
            an_event_to_a_missing_inbox_is_lost,
            what_is_handed_over_lies_in_the_inbox_or_is_refused,
            a_large_event_arrives_byte_for_byte,
            depth_counts_what_is_ready,
            close_ends_everything,
        }
    };
    (@each $open:expr; $($case:ident),+ $(,)?) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $case() {
            $crate::broker::conformance::$case($open.await).await;
        }
    )+};
}

/// Longer than any broker takes, shorter than anyone's patience.
const PATIENCE: Duration = Duration::from_secs(20);

/// How long nothing must happen before we believe that nothing will.
const QUIET: Duration = Duration::from_millis(300);

const LANE: Lane = Lane { vendor: Vendor::OpenAi, priority: Priority::Normal };

/// A message about job number `n`.
pub fn message(n: u64) -> Message {
    let job_id = JobId::from_uuid(Uuid::from_u64_pair(0x0190_0000_0000_7000, n));
    Message { job_id, attempt: 0, reply_to: None, trace: None, ahead: false }
}

fn instance(n: u64) -> InstanceId {
    InstanceId::from_uuid(Uuid::from_u64_pair(0x0191_0000_0000_7000, n))
}

/// The next delivery, which must come soon.
pub async fn take(deliveries: &mut Box<dyn Deliveries>) -> Box<dyn Delivery> {
    timeout(PATIENCE, deliveries.next())
        .await
        .expect("a delivery in time")
        .expect("the broker is open")
}

async fn nothing_comes(deliveries: &mut Box<dyn Deliveries>) {
    let came = timeout(QUIET, deliveries.next()).await;
    if let Ok(Some(delivery)) = came {
        panic!("an unexpected delivery of {:?}", delivery.message());
    }
}

async fn event(inbox: &mut Box<dyn Inbox>) -> Event {
    timeout(PATIENCE, inbox.next()).await.expect("an event in time").expect("the broker is open")
}

async fn publish(broker: &impl Broker, numbers: impl IntoIterator<Item = u64>) {
    for n in numbers {
        broker.publish(LANE, &message(n)).await.expect("published");
    }
}

/// Waits until the lane's depth is what the test expects; a broker may count a little late.
async fn depth_becomes(broker: &impl Broker, expected: LaneDepth) {
    let mut seen = None;
    let reached = async {
        while seen != Some(expected) {
            tokio::time::sleep(Duration::from_millis(20)).await;
            seen = Some(broker.depth(LANE).await.expect("a depth"));
        }
    };
    let in_time = timeout(PATIENCE, reached).await;
    assert!(in_time.is_ok(), "the depth stays at {seen:?}, expected {expected:?}");
}

pub async fn a_message_is_delivered_and_acked_once(broker: Arc<impl Broker>) {
    let mut deliveries = broker.consume(LANE, 10).await.unwrap();
    publish(&*broker, [1]).await;
    let delivery = take(&mut deliveries).await;
    assert_eq!(delivery.message(), &message(1));
    delivery.ack().await;
    nothing_comes(&mut deliveries).await;

    drop(deliveries);
    let mut again = broker.consume(LANE, 10).await.unwrap();
    nothing_comes(&mut again).await;
    assert_eq!(broker.health(), BrokerHealth::Up);
}

pub async fn a_nacked_message_comes_again(broker: Arc<impl Broker>) {
    let mut deliveries = broker.consume(LANE, 1).await.unwrap();
    publish(&*broker, [1]).await;
    take(&mut deliveries).await.nack().await;
    let again = take(&mut deliveries).await;
    assert_eq!(again.message(), &message(1));
    again.ack().await;
    nothing_comes(&mut deliveries).await;
}

pub async fn a_dropped_delivery_comes_again(broker: Arc<impl Broker>) {
    let mut deliveries = broker.consume(LANE, 1).await.unwrap();
    publish(&*broker, [1]).await;
    drop(take(&mut deliveries).await);
    let again = take(&mut deliveries).await;
    assert_eq!(again.message(), &message(1));
    again.ack().await;
}

pub async fn what_a_dropped_consumer_held_goes_to_another(broker: Arc<impl Broker>) {
    let mut first = broker.consume(LANE, 10).await.unwrap();
    publish(&*broker, 0..10).await;
    let held = take(&mut first).await;
    drop(first);
    drop(held);

    let mut second = broker.consume(LANE, 10).await.unwrap();
    let mut seen = HashSet::new();
    for _ in 0..10 {
        let delivery = take(&mut second).await;
        seen.insert(delivery.message().job_id);
        delivery.ack().await;
    }
    assert_eq!(seen, (0..10).map(|n| message(n).job_id).collect());
    nothing_comes(&mut second).await;
}

pub async fn a_delivery_outlives_its_consumer(broker: Arc<impl Broker>) {
    let mut first = broker.consume(LANE, 10).await.unwrap();
    publish(&*broker, 0..3).await;
    let held = take(&mut first).await;
    assert_eq!(held.message(), &message(0));
    drop(first);

    // What was buffered behind it goes to others while it is still held.
    let mut second = broker.consume(LANE, 10).await.unwrap();
    for n in 1..3 {
        let delivery = take(&mut second).await;
        assert_eq!(delivery.message(), &message(n));
        delivery.ack().await;
    }
    held.ack().await;
    nothing_comes(&mut second).await;
}

pub async fn prefetch_bounds_what_a_consumer_holds(broker: Arc<impl Broker>) {
    let mut deliveries = broker.consume(LANE, 3).await.unwrap();
    publish(&*broker, 0..5).await;
    let mut held = Vec::new();
    for _ in 0..3 {
        held.push(take(&mut deliveries).await);
    }
    nothing_comes(&mut deliveries).await;
    depth_becomes(&*broker, LaneDepth { ready: 2, consumers: 1 }).await;

    held.remove(0).ack().await;
    let fourth = take(&mut deliveries).await;
    assert_eq!(fourth.message(), &message(3));
    nothing_comes(&mut deliveries).await;
}

pub async fn two_consumers_share_a_lane(broker: Arc<impl Broker>) {
    let mut one = broker.consume(LANE, 5).await.unwrap();
    let mut two = broker.consume(LANE, 5).await.unwrap();
    publish(&*broker, 0..10).await;
    let mut seen = HashSet::new();
    let mut held = Vec::new();
    for _ in 0..5 {
        for consumer in [&mut one, &mut two] {
            let delivery = take(consumer).await;
            assert!(seen.insert(delivery.message().job_id), "delivered to both");
            held.push(delivery);
        }
    }
    for delivery in held {
        delivery.ack().await;
    }
    depth_becomes(&*broker, LaneDepth { ready: 0, consumers: 2 }).await;
}

pub async fn lanes_are_isolated(broker: Arc<impl Broker>) {
    let other = Lane { vendor: Vendor::ModelZoo, priority: Priority::Normal };
    let urgent = Lane { vendor: Vendor::OpenAi, priority: Priority::High };
    let mut deliveries = broker.consume(LANE, 10).await.unwrap();
    broker.publish(other, &message(1)).await.unwrap();
    broker.publish(urgent, &message(2)).await.unwrap();
    nothing_comes(&mut deliveries).await;
    for (lane, n) in [(other, 1), (urgent, 2)] {
        let mut deliveries = broker.consume(lane, 10).await.unwrap();
        let delivery = take(&mut deliveries).await;
        assert_eq!(delivery.message(), &message(n));
        delivery.ack().await;
    }
}

pub async fn a_lane_keeps_its_order(broker: Arc<impl Broker>) {
    publish(&*broker, 0..100).await;
    let mut deliveries = broker.consume(LANE, 10).await.unwrap();
    for n in 0..100 {
        let delivery = take(&mut deliveries).await;
        assert_eq!(delivery.message(), &message(n));
        delivery.ack().await;
    }
}

pub async fn a_message_arrives_as_it_was_sent(broker: Arc<impl Broker>) {
    let full = Message {
        attempt: 7,
        reply_to: Some(instance(1)),
        trace: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned()),
        ahead: true,
        ..message(1)
    };
    let mut deliveries = broker.consume(LANE, 10).await.unwrap();
    broker.publish(LANE, &full).await.unwrap();
    let delivery = take(&mut deliveries).await;
    assert_eq!(delivery.message(), &full);
    delivery.ack().await;
}

pub async fn a_thousand_outstanding_publishes_arrive_as_one_set(broker: Arc<impl Broker>) {
    let mut deliveries = broker.consume(LANE, 256).await.unwrap();
    let messages: Vec<_> = (0..1000).map(message).collect();
    let publishes: FuturesUnordered<_> =
        messages.iter().map(|message| broker.publish(LANE, message)).collect();
    let receives = async {
        let mut seen = HashSet::new();
        for _ in 0..1000 {
            let delivery = take(&mut deliveries).await;
            assert!(seen.insert(delivery.message().job_id), "delivered twice");
            delivery.ack().await;
        }
        seen
    };
    let confirmed = publishes.map(|published| published.expect("confirmed")).count();
    let (confirmed, seen) = tokio::join!(confirmed, receives);
    assert_eq!(confirmed, 1000);
    assert_eq!(seen, messages.iter().map(|message| message.job_id).collect());
    nothing_comes(&mut deliveries).await;
}

pub async fn next_can_be_cancelled(broker: Arc<impl Broker>) {
    let mut deliveries = broker.consume(LANE, 4).await.unwrap();
    let publishing = Arc::clone(&broker);
    let publishes = async { publish(&*publishing, 0..200).await };
    let receives = async {
        let mut seen = HashSet::new();
        let give_up = tokio::time::Instant::now() + PATIENCE;
        while seen.len() < 200 {
            assert!(tokio::time::Instant::now() < give_up, "{} of 200 arrived", seen.len());
            // Polled a few times and dropped, as a `select!` would.
            let cancelled = timeout(Duration::from_micros(50), deliveries.next()).await;
            let Ok(Some(delivery)) = cancelled else { continue };
            assert!(seen.insert(delivery.message().job_id));
            delivery.ack().await;
        }
    };
    tokio::join!(publishes, receives);
}

pub async fn try_next_takes_only_what_is_at_hand(broker: Arc<impl Broker>) {
    let mut deliveries = broker.consume(LANE, 10).await.unwrap();
    assert!(deliveries.try_next().is_none());
    publish(&*broker, 0..3).await;
    depth_becomes(&*broker, LaneDepth { ready: 0, consumers: 1 }).await;
    take(&mut deliveries).await.ack().await;
    let mut taken = Vec::new();
    let all = async {
        while taken.len() < 2 {
            match deliveries.try_next() {
                Some(delivery) => taken.push(delivery),
                None => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
    };
    timeout(PATIENCE, all).await.expect("both are at hand");
    assert!(deliveries.try_next().is_none());
    // Asking in vain must not break the wait that follows.
    let waits = take(&mut deliveries);
    let (delivery, ()) = tokio::join!(waits, publish(&*broker, [3]));
    assert_eq!(delivery.message(), &message(3));
}

pub async fn an_inbox_receives_what_is_sent_to_it(broker: Arc<impl Broker>) {
    let mut one = broker.inbox(instance(1)).await.unwrap();
    let mut two = broker.inbox(instance(2)).await.unwrap();
    let cancel = Event::Cancel { job_id: message(1).job_id, attempt: 3 };
    let finished = Event::Finished {
        job_id: message(2).job_id,
        status: JobStatus::Succeeded,
        attempt: 1,
        result: Some(JobResult {
            response: Some(Json::parse(r#"{"n": 1.50}"#).unwrap()),
            error: None,
            usage: Usage { input_tokens: Some(3), ..Usage::default() },
        }),
        times: Some(Times { started_at: None, finished_at: DateTime::UNIX_EPOCH }),
        chunks: 0,
        room: None,
    };
    broker.send(instance(1), &cancel).await.unwrap();
    broker.send(instance(2), &finished).await.unwrap();
    assert_eq!(event(&mut one).await, cancel);
    assert_eq!(event(&mut two).await, finished);
    assert!(timeout(QUIET, one.next()).await.is_err(), "an event that was sent to another");
    broker.send(instance(1), &finished).await.unwrap();
    assert_eq!(event(&mut one).await, finished);
}

pub async fn events_sent_at_once_all_arrive(broker: Arc<impl Broker>) {
    let cancel = |n: u32| Event::Cancel { job_id: message(u64::from(n)).job_id, attempt: n };
    let to = |n: u32| instance(if n.is_multiple_of(3) { 1 } else { 2 });
    let mut one = broker.inbox(instance(1)).await.unwrap();
    let mut two = broker.inbox(instance(2)).await.unwrap();
    let sent = (0..200).map(|n| {
        let broker = &broker;
        async move { broker.send(to(n), &cancel(n)).await.unwrap() }
    });
    futures::future::join_all(sent).await;
    for (inbox, instance) in [(&mut one, instance(1)), (&mut two, instance(2))] {
        let expected: Vec<u32> = (0..200).filter(|n| to(*n) == instance).collect();
        let mut arrived = Vec::new();
        for _ in &expected {
            let Event::Cancel { attempt, .. } = event(inbox).await else { panic!("another event") };
            arrived.push(attempt);
        }
        // Whoever sends at the same moment has no claim to an order.
        arrived.sort_unstable();
        assert_eq!(arrived, expected);
    }
}

pub async fn an_event_to_a_missing_inbox_is_lost(broker: Arc<impl Broker>) {
    let lost = Event::Cancel { job_id: message(1).job_id, attempt: 1 };
    let kept = Event::Cancel { job_id: message(2).job_id, attempt: 1 };
    let mut inbox = broker.inbox(instance(1)).await.unwrap();
    broker.send(instance(9), &lost).await.unwrap();
    broker.send(instance(1), &kept).await.unwrap();
    assert_eq!(event(&mut inbox).await, kept);
}

pub async fn what_is_handed_over_lies_in_the_inbox_or_is_refused(broker: Arc<impl Broker>) {
    let trace = Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned());
    let lent = |trace| Event::Lent {
        job_id: message(1).job_id,
        vendor: Vendor::ModelZoo,
        trace,
        claim: Some(Json::parse(r#"{"big":123456789012345678901234567890, "n": 1.50}"#).unwrap()),
    };
    let refused = broker.hand(instance(1), &lent(None)).await;
    assert!(matches!(refused, Err(BrokerError::Refused(_))), "{refused:?}");
    let mut inbox = broker.inbox(instance(1)).await.unwrap();
    broker.hand(instance(1), &lent(trace.clone())).await.unwrap();
    assert_eq!(event(&mut inbox).await, lent(trace));
    drop(inbox);
    let gone = async {
        while broker.hand(instance(1), &lent(None)).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, gone).await.expect("an inbox that nobody reads goes away");
}

pub async fn a_large_event_arrives_byte_for_byte(broker: Arc<impl Broker>) {
    let text = format!(
        r#"{{ "big":123456789012345678901234567890,"z":1.50,"a":"\u00e9ß",  "fill":"{}" }}"#,
        "x".repeat(300 * 1024)
    );
    let sent = Event::Finished {
        job_id: message(1).job_id,
        status: JobStatus::Succeeded,
        attempt: 1,
        result: Some(JobResult {
            response: Some(Json::parse(text.clone()).unwrap()),
            ..JobResult::default()
        }),
        times: None,
        chunks: 0,
        room: None,
    };
    let mut inbox = broker.inbox(instance(1)).await.unwrap();
    broker.send(instance(1), &sent).await.unwrap();
    let Event::Finished { result: Some(result), .. } = event(&mut inbox).await else {
        panic!("not the event that was sent");
    };
    assert!(result.response.unwrap().as_str() == text, "the text has changed");
}

pub async fn depth_counts_what_is_ready(broker: Arc<impl Broker>) {
    let empty = LaneDepth { ready: 0, consumers: 0 };
    assert_eq!(broker.depth(LANE).await.unwrap(), empty, "a lane nobody has used");
    publish(&*broker, 0..3).await;
    depth_becomes(&*broker, LaneDepth { ready: 3, consumers: 0 }).await;
    let deliveries = broker.consume(LANE, 1).await.unwrap();
    depth_becomes(&*broker, LaneDepth { ready: 2, consumers: 1 }).await;
    drop(deliveries);
    depth_becomes(&*broker, LaneDepth { ready: 3, consumers: 0 }).await;
}

pub async fn close_ends_everything(broker: Arc<impl Broker>) {
    let mut deliveries = broker.consume(LANE, 1).await.unwrap();
    let mut inbox = broker.inbox(instance(1)).await.unwrap();
    publish(&*broker, 0..2).await;
    let held = take(&mut deliveries).await;
    {
        let waiting = async { tokio::join!(deliveries.next(), inbox.next()) };
        tokio::pin!(waiting);
        assert!(waiting.as_mut().now_or_never().is_none());
        broker.close(PATIENCE).await;
        let (delivery, event) = timeout(PATIENCE, waiting).await.expect("an end in time");
        assert!(delivery.is_none() && event.is_none());
    }
    assert!(deliveries.next().await.is_none());
    assert!(deliveries.try_next().is_none());
    assert!(inbox.next().await.is_none());
    held.ack().await;
    let refused = broker.publish(LANE, &message(3)).await;
    assert!(matches!(refused, Err(super::BrokerError::Closed)), "{refused:?}");
    assert!(matches!(broker.health(), BrokerHealth::Down(_)));
    broker.close(PATIENCE).await;
}
