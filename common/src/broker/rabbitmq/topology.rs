//! The names of exchanges and queues, and how each is declared. Nothing else declares any.

use lapin::{
    Channel, ErrorKind, ExchangeKind,
    options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions},
    types::{AMQPValue, FieldTable, ShortString},
};

use crate::{broker::LaneDepth, id::InstanceId, job::Lane};

/// Exchange and queue of messages that no worker could read or that came back too often.
pub(super) const DEAD: &str = "inferq.dead";

/// Deliveries of one message before it is set aside; each worker that stops with it in hand costs
/// one. Default of RabbitMQ 4, and the sweeper's net finds the job all the same.
const DELIVERY_LIMIT: i32 = 20;

/// Messages kept for an operator to look at; the oldest go first.
const MAX_DEAD: i32 = 100_000;

/// Events waiting in one inbox; the oldest go first, as everything in an inbox may be lost.
const MAX_EVENTS: i32 = 100_000;
const MAX_EVENT_BYTES: i32 = 256 * 1024 * 1024;

/// An inbox that nobody reads goes away after this many milliseconds.
const INBOX_EXPIRES_MS: i32 = 60_000;

const DURABLE: QueueDeclareOptions = QueueDeclareOptions {
    passive: false,
    durable: true,
    exclusive: false,
    auto_delete: false,
    nowait: false,
};

/// The queue of a lane.
pub(super) fn lane_queue(lane: Lane) -> ShortString {
    format!("inferq.{lane}").into()
}

/// The queue of an instance's events.
pub(super) fn inbox_queue(instance: InstanceId) -> ShortString {
    format!("inferq.instance.{instance}").into()
}

/// Declares where dead letters go.
pub(super) async fn declare_dead(channel: &Channel) -> lapin::Result<()> {
    let options = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
    channel
        .exchange_declare(DEAD.into(), ExchangeKind::Fanout, options, FieldTable::default())
        .await?;
    let arguments = table([
        ("x-queue-type", AMQPValue::LongString("quorum".into())),
        ("x-max-length", AMQPValue::LongInt(MAX_DEAD)),
    ]);
    channel.queue_declare(DEAD.into(), DURABLE, arguments).await?;
    channel
        .queue_bind(
            DEAD.into(),
            DEAD.into(),
            ShortString::default(),
            QueueBindOptions::default(),
            FieldTable::default(),
        )
        .await
}

/// Declares the queue of a lane; does nothing where it exists.
pub(super) async fn declare_lane(channel: &Channel, lane: Lane) -> lapin::Result<()> {
    let arguments = table([
        ("x-queue-type", AMQPValue::LongString("quorum".into())),
        ("x-delivery-limit", AMQPValue::LongInt(DELIVERY_LIMIT)),
        ("x-dead-letter-exchange", AMQPValue::LongString(DEAD.into())),
    ]);
    channel.queue_declare(lane_queue(lane), DURABLE, arguments).await?;
    Ok(())
}

/// Declares an inbox. It belongs to the connection and goes with it.
pub(super) async fn declare_inbox(channel: &Channel, instance: InstanceId) -> lapin::Result<()> {
    let options =
        QueueDeclareOptions { durable: false, exclusive: true, auto_delete: true, ..DURABLE };
    let arguments = table([
        ("x-max-length", AMQPValue::LongInt(MAX_EVENTS)),
        ("x-max-length-bytes", AMQPValue::LongInt(MAX_EVENT_BYTES)),
        ("x-expires", AMQPValue::LongInt(INBOX_EXPIRES_MS)),
    ]);
    channel.queue_declare(inbox_queue(instance), options, arguments).await?;
    Ok(())
}

/// What lies in a lane. `None` if it has no queue; the server then closes the channel.
pub(super) async fn lane_depth(channel: &Channel, lane: Lane) -> lapin::Result<Option<LaneDepth>> {
    let options = QueueDeclareOptions { passive: true, ..DURABLE };
    match channel.queue_declare(lane_queue(lane), options, FieldTable::default()).await {
        Ok(queue) => Ok(Some(LaneDepth {
            ready: u64::from(queue.message_count()),
            consumers: u64::from(queue.consumer_count()),
        })),
        Err(error) if is_not_found(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// AMQP 0-9-1 reply code `not-found`.
fn is_not_found(error: &lapin::Error) -> bool {
    matches!(error.kind(), ErrorKind::ProtocolError(error) if error.get_id() == 404)
}

fn table<const N: usize>(entries: [(&str, AMQPValue); N]) -> FieldTable {
    let mut table = FieldTable::default();
    for (key, value) in entries {
        table.insert(key.into(), value);
    }
    table
}
