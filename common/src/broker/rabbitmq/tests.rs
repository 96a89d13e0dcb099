use std::{collections::HashSet, sync::Arc, time::Duration};

use futures::{StreamExt as _, stream::FuturesUnordered};
use lapin::{
    BasicProperties, Connection, ConnectionProperties,
    options::{BasicGetOptions, BasicPublishOptions, QueueDeleteOptions},
    types::FieldTable,
};
use tokio::time::{Instant, sleep, timeout};

use super::*;
use crate::{
    broker::conformance::{message, take},
    job::Priority,
    testing::rabbitmq::{Server, virtual_host},
    vendor::Vendor,
};

crate::broker_conformance!(async { Arc::new(broker(&virtual_host().await)) });

const LANE: Lane = Lane { vendor: Vendor::OpenAi, priority: Priority::Normal };

/// Long enough for a server to come back on a busy machine.
const PATIENCE: Duration = Duration::from_secs(90);

fn broker(url: &str) -> RabbitBroker {
    broker_with(url, 5000, 512)
}

fn broker_with(url: &str, publish_timeout_ms: u64, max_outstanding: usize) -> RabbitBroker {
    RabbitBroker::start(&BrokerConfig {
        url: url.into(),
        publish_timeout_ms,
        connect_timeout_ms: 5000,
        max_outstanding,
    })
}

/// A plain connection, to do what inferq never would.
async fn plain(url: &str) -> lapin::Channel {
    let connection = Connection::connect(url, ConnectionProperties::default()).await.unwrap();
    connection.create_channel().await.unwrap()
}

async fn reach(what: &str, mut state: impl AsyncFnMut() -> bool) {
    let reached = async {
        while !state().await {
            sleep(Duration::from_millis(50)).await;
        }
    };
    assert!(timeout(PATIENCE, reached).await.is_ok(), "never reached: {what}");
}

async fn publish_until_taken(broker: &RabbitBroker, n: u64) {
    reach("a confirmed publish", async || broker.publish(LANE, &message(n)).await.is_ok()).await;
}

fn down(broker: &RabbitBroker) -> Option<String> {
    match broker.health() {
        BrokerHealth::Up => None,
        BrokerHealth::Down(reason) => Some(reason),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_there_is_said_in_words_an_operator_can_use() {
    let broker = broker_with("amqp://someone:secret@127.0.0.1:1/", 500, 8);
    reach("a reason", async || down(&broker).is_some_and(|reason| !reason.contains("connecting")))
        .await;
    let reason = down(&broker).unwrap();
    assert!(reason.starts_with("no RabbitMQ at 127.0.0.1:1"), "{reason}");
    assert!(!reason.contains("secret") && !format!("{broker:?}").contains("secret"), "{reason}");

    let began = Instant::now();
    let published = broker.publish(LANE, &message(1)).await;
    assert!(matches!(published, Err(BrokerError::Unavailable(_))), "{published:?}");
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    let _deliveries = broker.consume(LANE, 1).await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(2), "consume waits in the background");
    broker.close(Duration::from_secs(1)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_and_a_wrong_virtual_host_are_told_apart() {
    let url = virtual_host().await;
    for (wrong, expected) in [
        (url.replacen("guest:guest", "guest:wrongword", 1), "refused the login"),
        (format!("{url}-missing"), "refused the virtual host"),
    ] {
        let broker = broker(&wrong);
        reach(expected, async || down(&broker).is_some_and(|reason| reason.contains(expected)))
            .await;
        assert!(!down(&broker).unwrap().contains("wrongword"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_url_that_cannot_be_used_is_down_at_once() {
    let broker = broker("amqp://u:secret@host?heartbeat=x");
    let reason = down(&broker).expect("it is down");
    assert!(reason.contains("broker.url") && !reason.contains("secret"), "{reason}");
    let published = broker.publish(LANE, &message(1)).await;
    assert!(matches!(published, Err(BrokerError::Unavailable(_))), "{published:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_never_speaks_is_given_up() {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let broker = RabbitBroker::start(&BrokerConfig {
        url: format!("amqp://{}", silent.local_addr().unwrap()).into(),
        publish_timeout_ms: 200,
        connect_timeout_ms: 200,
        max_outstanding: 8,
    });
    let (mut socket, _) = silent.accept().await.unwrap();
    // The socket is shut, so no thread is left behind that waits for it.
    let mut read = Vec::new();
    let ended = tokio::io::AsyncReadExt::read_to_end(&mut socket, &mut read);
    timeout(Duration::from_secs(10), ended).await.expect("the connection is given up").unwrap();
    reach("a reason", async || down(&broker).is_some_and(|why| why.contains("did not answer")))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_queue_is_declared_again() {
    tracing_subscriber::fmt().with_env_filter("inferq_common=trace,lapin::channels=trace").init();
    let url = virtual_host().await;
    let broker = broker(&url);
    broker.publish(LANE, &message(1)).await.unwrap();
    let mut deliveries = broker.consume(LANE, 10).await.unwrap();
    take(&mut deliveries).await.ack().await;

    let channel = plain(&url).await;
    let queue = topology::lane_queue(LANE);
    channel.queue_delete(queue, QueueDeleteOptions::default()).await.unwrap();
    // Many at once: whichever confirm carries what came back, none may be lost.
    let messages: Vec<_> = (10..110).map(message).collect();
    let publishes: FuturesUnordered<_> =
        messages.iter().map(|message| broker.publish(LANE, message)).collect();
    let published: Vec<_> = publishes.collect().await;
    assert!(published.iter().all(Result::is_ok), "{published:?}");

    let mut missing: HashSet<_> = messages.iter().map(|message| message.job_id).collect();
    while !missing.is_empty() {
        let delivery = take(&mut deliveries).await;
        missing.remove(&delivery.message().job_id);
        delivery.ack().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_came_back_is_found_though_other_lanes_are_busy() {
    let url = virtual_host().await;
    let broker = broker(&url);
    let other = Lane { vendor: Vendor::ModelZoo, priority: Priority::Normal };
    for lane in [LANE, other] {
        broker.publish(lane, &message(0)).await.unwrap();
    }
    let channel = plain(&url).await;
    let queue = topology::lane_queue(LANE);
    channel.queue_delete(queue, QueueDeleteOptions::default()).await.unwrap();

    let messages: Vec<_> = (1..=400).map(message).collect();
    let publishes: FuturesUnordered<_> = messages
        .iter()
        .enumerate()
        .map(|(n, message)| broker.publish(if n % 7 == 0 { LANE } else { other }, message))
        .collect();
    let published: Vec<_> = publishes.collect().await;
    assert!(published.iter().all(Result::is_ok), "{published:?}");
    for (lane, of_lane) in [(LANE, true), (other, false)] {
        let mut missing: HashSet<_> = messages
            .iter()
            .enumerate()
            .filter(|(n, _)| (n % 7 == 0) == of_lane)
            .map(|(_, message)| message.job_id)
            .collect();
        let mut deliveries = broker.consume(lane, 256).await.unwrap();
        while !missing.is_empty() {
            let delivery = take(&mut deliveries).await;
            missing.remove(&delivery.message().job_id);
            delivery.ack().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unreadable_message_becomes_a_dead_letter() {
    let url = virtual_host().await;
    let broker = broker(&url);
    let mut deliveries = broker.consume(LANE, 10).await.unwrap();
    let channel = plain(&url).await;
    let publish = channel.basic_publish(
        "".into(),
        topology::lane_queue(LANE),
        BasicPublishOptions::default(),
        b"not json",
        BasicProperties::default(),
    );
    let _ = publish.await.unwrap().await.unwrap();
    broker.publish(LANE, &message(1)).await.unwrap();
    let delivery = take(&mut deliveries).await;
    assert_eq!(delivery.message(), &message(1), "the lane goes on");
    delivery.ack().await;

    let mut dead = None;
    reach("a dead letter", async || {
        dead = channel.basic_get(topology::DEAD.into(), BasicGetOptions::default()).await.unwrap();
        dead.is_some()
    })
    .await;
    assert_eq!(dead.unwrap().delivery.data, b"not json");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_declared_otherwise_is_an_error_that_names_it() {
    let url = virtual_host().await;
    let channel = plain(&url).await;
    let queue = topology::lane_queue(LANE);
    channel.queue_declare(queue, Default::default(), FieldTable::default()).await.unwrap();
    let broker = broker(&url);
    let published = broker.publish(LANE, &message(1)).await;
    let Err(BrokerError::Unavailable(reason)) = published else { panic!("{published:?}") };
    assert!(reason.contains("inferq.openai.normal"), "{reason}");
    // Other lanes are not disturbed.
    let other = Lane { vendor: Vendor::ModelZoo, priority: Priority::Normal };
    broker.publish(other, &message(1)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn publishes_whose_callers_are_gone_do_not_pile_up() {
    let url = virtual_host().await;
    let broker = broker_with(&url, 5000, 4);
    broker.publish(LANE, &message(0)).await.unwrap();
    for n in 1..200 {
        // Dropped before the confirm is there.
        let given_up = timeout(Duration::from_micros(300), broker.publish(LANE, &message(n))).await;
        drop(given_up);
    }
    broker.publish(LANE, &message(200)).await.unwrap();
}

/// Everything here takes the server away or holds it up, so it has one of its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn confirmed_messages_survive_whatever_happens_to_the_server() {
    let mut server = Server::start().await;
    let broker = Arc::new(broker_with(&server.url(), 2000, 512));
    connections_closed_by_the_server_come_back(&server, &broker).await;
    a_blocked_connection_times_out_and_recovers(&server, &broker).await;
    a_channel_closed_for_a_late_ack_comes_back(&server).await;
    a_restart_under_load_loses_nothing_confirmed(&mut server, &broker).await;
    broker.close(Duration::from_secs(5)).await;
}

async fn connections_closed_by_the_server_come_back(server: &Server, broker: &RabbitBroker) {
    let instance = InstanceId::from_uuid(message(1).job_id.as_uuid());
    let mut deliveries = broker.consume(LANE, 10).await.unwrap();
    let mut inbox = broker.inbox(instance).await.unwrap();
    broker.publish(LANE, &message(1)).await.unwrap();
    let held = take(&mut deliveries).await;

    server.ctl(&["close_all_connections", "a test"]).await;
    publish_until_taken(broker, 2).await;
    // The held one comes again; its late ack does nothing.
    let mut missing = HashSet::from([message(1).job_id, message(2).job_id]);
    while !missing.is_empty() {
        let delivery = take(&mut deliveries).await;
        missing.remove(&delivery.message().job_id);
        delivery.ack().await;
    }
    held.ack().await;
    let event = Event::Cancel { job_id: message(1).job_id, attempt: 1 };
    reach("an event after the reconnect", async || {
        let _ = broker.send(instance, &event).await;
        timeout(Duration::from_millis(200), inbox.next()).await.is_ok()
    })
    .await;
    reach("health", async || down(broker).is_none()).await;
}

async fn a_blocked_connection_times_out_and_recovers(server: &Server, broker: &RabbitBroker) {
    server.ctl(&["set_vm_memory_high_watermark", "absolute", "1MB"]).await;
    let began = Instant::now();
    let first = broker.publish(LANE, &message(3)).await;
    assert!(matches!(first, Err(BrokerError::Unavailable(_))), "{first:?}");
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    reach("a reason", async || down(broker).is_some_and(|why| why.contains("blocked"))).await;
    // From now on nothing is even handed over.
    let second = broker.publish(LANE, &message(4)).await;
    let Err(BrokerError::Unavailable(reason)) = second else { panic!("{second:?}") };
    assert!(reason.contains("blocked"), "{reason}");

    server.ctl(&["set_vm_memory_high_watermark", "0.8"]).await;
    publish_until_taken(broker, 5).await;
    reach("health", async || down(broker).is_none()).await;
    let mut deliveries = broker.consume(LANE, 10).await.unwrap();
    loop {
        let delivery = take(&mut deliveries).await;
        let last = delivery.message() == &message(5);
        delivery.ack().await;
        if last {
            break;
        }
    }
}

/// The server closes a channel whose consumer holds a message too long, here after 1 s.
async fn a_channel_closed_for_a_late_ack_comes_back(server: &Server) {
    server.ctl(&["eval", "application:set_env(rabbit, consumer_timeout, 1000)."]).await;
    server.ctl(&["eval", "application:set_env(rabbit, channel_tick_interval, 1000)."]).await;
    let broker = broker(&server.url());
    let lane = Lane { vendor: Vendor::ModelZoo, priority: Priority::Low };
    let mut deliveries = broker.consume(lane, 10).await.unwrap();
    broker.publish(lane, &message(1)).await.unwrap();
    let late = take(&mut deliveries).await;
    // Blocks until the server has closed the channel and delivered the message anew.
    let again = timeout(PATIENCE, deliveries.next()).await.expect("it comes again").unwrap();
    assert_eq!(again.message(), &message(1));
    late.ack().await;
    again.ack().await;
    broker.publish(lane, &message(2)).await.unwrap();
    let next = take(&mut deliveries).await;
    assert_eq!(next.message(), &message(2));
    next.ack().await;
    server.ctl(&["eval", "application:set_env(rabbit, consumer_timeout, 1800000)."]).await;
}

async fn a_restart_under_load_loses_nothing_confirmed(
    server: &mut Server,
    broker: &Arc<RabbitBroker>,
) {
    let stop = CancellationToken::new();
    let load = tokio_util::task::AbortOnDropHandle::new(Handle::current().spawn({
        let (broker, stop) = (Arc::clone(broker), stop.clone());
        async move {
            let mut confirmed = HashSet::new();
            let mut refused = 0;
            let mut publishes = FuturesUnordered::new();
            for n in 1000.. {
                let broker = Arc::clone(&broker);
                publishes.push(async move { (n, broker.publish(LANE, &message(n)).await) });
                if publishes.len() >= 64 || stop.is_cancelled() {
                    while let Some((n, published)) = publishes.next().await {
                        match published {
                            Ok(()) => assert!(confirmed.insert(message(n).job_id)),
                            Err(BrokerError::Unavailable(_)) => refused += 1,
                            Err(other) => panic!("{other}"),
                        }
                        if !stop.is_cancelled() {
                            break;
                        }
                    }
                }
                if stop.is_cancelled() && publishes.is_empty() {
                    break;
                }
            }
            (confirmed, refused)
        }
    }));
    let mut deliveries = broker.consume(LANE, 256).await.unwrap();
    let mut seen = HashSet::new();
    for _ in 0..500 {
        let delivery = take(&mut deliveries).await;
        seen.insert(delivery.message().job_id);
        delivery.ack().await;
    }

    server.stop().await;
    reach("a reason", async || down(broker).is_some()).await;
    let began = Instant::now();
    let while_down = broker.publish(LANE, &message(1)).await;
    assert!(matches!(while_down, Err(BrokerError::Unavailable(_))), "{while_down:?}");
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    let depth = broker.depth(LANE).await;
    assert!(matches!(depth, Err(BrokerError::Unavailable(_))), "{depth:?}");
    server.start_again().await;

    publish_until_taken(broker, 2).await;
    let before = seen.len();
    while seen.len() < before + 500 {
        let delivery = timeout(PATIENCE, deliveries.next()).await.expect("it goes on").unwrap();
        seen.insert(delivery.message().job_id);
        delivery.ack().await;
    }
    stop.cancel();
    let (confirmed, refused) = load.await.unwrap();
    assert!(refused > 0, "the outage was felt");
    while !confirmed.is_subset(&seen) {
        let next = timeout(PATIENCE, deliveries.next()).await;
        let missing = confirmed.difference(&seen).count();
        let delivery = next.unwrap_or_else(|_| panic!("{missing} confirmed were lost")).unwrap();
        seen.insert(delivery.message().job_id);
        delivery.ack().await;
    }
}
