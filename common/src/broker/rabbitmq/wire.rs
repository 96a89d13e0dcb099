//! Messages and events as they lie in RabbitMQ: small JSON, so that an operator can read them.
//! Unknown members are ignored, so that a newer inferq may add some.

use lapin::{
    BasicProperties,
    types::{AMQPValue, FieldTable},
};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::{
    broker::{Event, Message},
    id::{InstanceId, JobId},
};

/// W3C trace context, where other tools look for it.
const TRACE_HEADER: &str = "traceparent";

const PERSISTENT: u8 = 2;
const TRANSIENT: u8 = 1;

#[derive(Serialize, Deserialize)]
struct Body {
    job_id: JobId,
    #[serde(default)]
    attempt: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reply_to: Option<InstanceId>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    ahead: bool,
}

/// A message on its way out.
#[derive(Clone)]
pub(super) struct Encoded {
    pub(super) body: Vec<u8>,
    pub(super) properties: BasicProperties,
}

pub(super) fn encode(message: &Message) -> serde_json::Result<Encoded> {
    let Message { job_id, attempt, reply_to, ref trace, ahead } = *message;
    let body = Body { job_id, attempt, reply_to, ahead };
    let mut properties = BasicProperties::default()
        .with_delivery_mode(PERSISTENT)
        .with_content_type("application/json".into());
    if let Some(trace) = trace {
        let mut headers = FieldTable::default();
        headers.insert(TRACE_HEADER.into(), AMQPValue::LongString(trace.as_str().into()));
        properties = properties.with_headers(headers);
    }
    Ok(Encoded { body: serde_json::to_vec(&body)?, properties })
}

pub(super) fn decode(body: &[u8], properties: &BasicProperties) -> serde_json::Result<Message> {
    let Body { job_id, attempt, reply_to, ahead } = serde_json::from_slice(body)?;
    let headers = properties.headers().as_ref().map(FieldTable::inner);
    let trace = match headers.and_then(|headers| headers.get(TRACE_HEADER)) {
        Some(AMQPValue::LongString(trace)) => Some(trace.to_string()),
        _ => None,
    };
    Ok(Message { job_id, attempt, reply_to, trace, ahead })
}

/// An event that is to be confirmed.
pub(super) fn encode_event(event: &Event) -> serde_json::Result<Encoded> {
    Ok(Encoded { body: serde_json::to_vec(event)?, properties: event_properties() })
}

pub(super) fn event_properties() -> BasicProperties {
    BasicProperties::default()
        .with_delivery_mode(TRANSIENT)
        .with_content_type("application/json".into())
}

/// The events of one message: one by itself, several as an array. An event that cannot be read does
/// not hide its neighbours.
pub(super) fn decode_events(body: &[u8]) -> Vec<serde_json::Result<Event>> {
    if body.first() != Some(&b'[') {
        return vec![serde_json::from_slice(body)];
    }
    match serde_json::from_slice::<Vec<&RawValue>>(body) {
        Ok(events) => events.iter().map(|event| serde_json::from_str(event.get())).collect(),
        Err(error) => vec![Err(error)],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::conformance::message;

    #[test]
    fn a_message_of_a_newer_inferq_is_understood() {
        let job_id = message(1).job_id;
        let body = format!(r#"{{"job_id":"{job_id}","attempt":2,"colour":["blue"]}}"#);
        let decoded = decode(body.as_bytes(), &BasicProperties::default()).unwrap();
        assert_eq!(decoded, Message { attempt: 2, ..message(1) });
    }

    #[test]
    fn a_plain_message_is_small_and_holds_ids_only() {
        let encoded = encode(&message(1)).unwrap();
        let text = String::from_utf8(encoded.body).unwrap();
        assert_eq!(text, format!(r#"{{"job_id":"{}","attempt":0}}"#, message(1).job_id));
    }

    #[test]
    fn events_come_alone_or_together() {
        let job_id = message(1).job_id;
        let event = Event::Cancel { job_id, attempt: 2 };
        let text = serde_json::to_string(&event).unwrap();
        let read = |body: &str| -> Vec<Option<Event>> {
            decode_events(body.as_bytes()).into_iter().map(Result::ok).collect()
        };
        assert_eq!(read(&text), [Some(event.clone())]);
        let several = format!(r#"[{text},{{"newer":{{}}}},{text}]"#);
        assert_eq!(read(&several), [Some(event.clone()), None, Some(event)]);
        assert_eq!(read("["), [None]);
    }

    #[test]
    fn garbage_is_an_error() {
        for body in ["", "null", "{}", r#"{"job_id":"x"}"#, "\u{0}"] {
            assert!(decode(body.as_bytes(), &BasicProperties::default()).is_err(), "{body:?}");
        }
    }
}
