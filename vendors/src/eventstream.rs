//! Decodes AWS's binary event stream; pure.
//!
//! Source: <https://docs.aws.amazon.com/AmazonS3/latest/API/RESTSelectObjectAppendix.html>; a
//! message has a length, the length of its headers, a checksum of the two, headers, a payload and a
//! checksum of it all.

use std::collections::VecDeque;

use aws_smithy_eventstream::frame::read_message_from;
use aws_smithy_types::event_stream::{HeaderValue, Message};
use bytes::{Buf as _, BytesMut};
use inferq_common::error::ErrorClass;

use crate::{
    error::VendorError,
    framing::{Decode, Frame},
};

/// Two lengths and their checksum.
const PRELUDE_BYTES: usize = 12;
/// A message without headers and payload: the prelude and the checksum at the end.
const MIN_MESSAGE_BYTES: usize = PRELUDE_BYTES + 4;
/// AWS's own bound.
const MAX_MESSAGE_BYTES: usize = 16 << 20;

/// Finds the messages in bytes that come in whatever pieces.
#[derive(Debug)]
pub struct Decoder {
    /// What has come of the next message.
    pending: BytesMut,
    max_message_bytes: usize,
}

impl Decoder {
    /// A decoder that holds at most `max_message_bytes` of an unfinished message, never more than
    /// 16 MiB.
    pub fn new(max_message_bytes: usize) -> Self {
        let max_message_bytes = max_message_bytes.min(MAX_MESSAGE_BYTES);
        Self { pending: BytesMut::new(), max_message_bytes }
    }

    /// The length of the message that has begun, once enough of it is there to tell.
    fn length(&self) -> Result<Option<usize>, VendorError> {
        let Some(prelude) = self.pending.get(..PRELUDE_BYTES) else { return Ok(None) };
        let mut words = prelude;
        let (length, _, checksum) = (words.get_u32(), words.get_u32(), words.get_u32());
        if crc32fast::hash(&prelude[..8]) != checksum {
            return Err(broken("the checksum of a message's length is wrong"));
        }
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        if length < MIN_MESSAGE_BYTES {
            return Err(broken("a message is shorter than any can be"));
        }
        if length > self.max_message_bytes {
            let message = format!(
                "a message of the vendor's stream is larger than {} bytes",
                self.max_message_bytes
            );
            return Err(VendorError::new(ErrorClass::ResponseTooLarge, message));
        }
        Ok(Some(length))
    }
}

impl Decode for Decoder {
    fn push(&mut self, bytes: &[u8], frames: &mut VecDeque<Frame>) -> Result<(), VendorError> {
        self.pending.extend_from_slice(bytes);
        while let Some(length) = self.length()? {
            if self.pending.len() < length {
                return Ok(());
            }
            let message = read_message_from(self.pending.split_to(length).freeze())
                .map_err(|error| broken(&error.to_string()))?;
            frames.push_back(frame(&message));
        }
        Ok(())
    }

    fn finish(&mut self, _: &mut VecDeque<Frame>) -> Result<(), VendorError> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let message = "the vendor's stream ended in the middle of a message";
        Err(VendorError::new(ErrorClass::Transient, message))
    }
}

fn broken(how: &str) -> VendorError {
    let message = format!("the vendor's event stream arrived broken: {how}");
    VendorError::new(ErrorClass::Transient, message)
}

/// The message with those of its headers that are text.
fn frame(message: &Message) -> Frame {
    let headers = message.headers().iter().filter_map(|header| match header.value() {
        HeaderValue::String(value) => {
            Some((header.name().as_str().to_owned(), value.as_str().to_owned()))
        }
        _ => None,
    });
    Frame { headers: headers.collect(), data: message.payload().clone() }
}

#[cfg(test)]
mod tests {
    use aws_smithy_eventstream::frame::write_message_to;
    use aws_smithy_types::event_stream::Header;
    use proptest::prelude::*;

    use super::*;
    use crate::framing::splits;

    fn encoded(headers: &[(&str, &str)], payload: &[u8]) -> Vec<u8> {
        let mut message =
            Message::new(payload.to_vec()).add_header(Header::new("n", HeaderValue::Int32(7)));
        for (name, value) in headers {
            let value = HeaderValue::String((*value).to_owned().into());
            message = message.add_header(Header::new((*name).to_owned(), value));
        }
        let mut bytes = Vec::new();
        write_message_to(&message, &mut bytes).unwrap();
        bytes
    }

    fn decode(pieces: &[&[u8]]) -> (Vec<Frame>, Result<(), VendorError>) {
        let (mut decoder, mut frames) = (Decoder::new(1 << 20), VecDeque::new());
        let pushed = pieces.iter().try_for_each(|piece| {
            decoder.push(piece, &mut frames)?;
            let unfinished = decoder.length().expect("it was good a moment ago");
            assert!(decoder.pending.len() < unfinished.unwrap_or(PRELUDE_BYTES));
            Ok(())
        });
        let ended = pushed.and_then(|()| decoder.finish(&mut frames));
        (frames.into(), ended)
    }

    #[test]
    fn a_message_has_its_text_headers_and_its_payload() {
        let bytes = encoded(&[(":event-type", "chunk"), (":message-type", "event")], b"{}");
        let (frames, ended) = decode(&[&bytes]);
        assert_eq!(ended, Ok(()));
        assert_eq!(frames.len(), 1);
        assert_eq!(frames[0].header(":event-type"), Some("chunk"));
        assert_eq!(frames[0].header("n"), None);
        assert_eq!(frames[0].data, "{}");
    }

    #[test]
    fn a_known_message_is_read_as_it_is_documented() {
        // An empty message: lengths 16 and 0, their checksum, the checksum of all.
        let bytes = [0, 0, 0, 16, 0, 0, 0, 0, 0x05, 0xc2, 0x48, 0xeb, 0x7d, 0x98, 0xc8, 0xff];
        let (frames, ended) = decode(&[&bytes]);
        assert_eq!((frames, ended), (vec![Frame::default()], Ok(())));
    }

    #[test]
    fn an_end_in_the_middle_of_a_message_is_transient() {
        let bytes = encoded(&[], b"abc");
        for length in 1..bytes.len() {
            let (frames, ended) = decode(&[&bytes[..length]]);
            assert_eq!(ended.unwrap_err().class(), ErrorClass::Transient, "{length}");
            assert!(frames.is_empty());
        }
        assert_eq!(decode(&[]), (vec![], Ok(())));
    }

    #[test]
    fn what_is_no_event_stream_is_noticed_at_once() {
        let (_, ended) = decode(&[br#"{"message":"Too many requests"}"#]);
        let error = ended.unwrap_err();
        assert_eq!(error.class(), ErrorClass::Transient);
        assert!(error.to_string().contains("arrived broken"), "{error}");
    }

    #[test]
    fn a_message_over_the_limit_is_refused_before_it_arrives() {
        let bytes = encoded(&[], &vec![0; 1 << 20]);
        let (_, ended) = decode(&[&bytes[..PRELUDE_BYTES]]);
        assert_eq!(ended.unwrap_err().class(), ErrorClass::ResponseTooLarge);
        assert_eq!(Decoder::new(usize::MAX).max_message_bytes, 16 << 20);
    }

    proptest! {
        #[test]
        fn however_the_bytes_are_split_the_messages_are_the_same(
            payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..5),
            cuts in splits::cuts(),
        ) {
            let bytes: Vec<u8> =
                payloads.iter().flat_map(|payload| encoded(&[("a", "b")], payload)).collect();
            let (frames, ended) = decode(&splits::pieces(&bytes, &cuts));
            prop_assert_eq!(ended, Ok(()));
            let found: Vec<_> = frames.iter().map(|frame| frame.data.to_vec()).collect();
            prop_assert_eq!(found, payloads);
        }

        #[test]
        fn a_changed_byte_is_noticed_and_nothing_wrong_passes(
            payload in prop::collection::vec(any::<u8>(), 0..40),
            at in any::<prop::sample::Index>(),
            change in 1..=255_u8,
        ) {
            let mut bytes = encoded(&[("a", "b")], &payload);
            let at = at.index(bytes.len());
            bytes[at] ^= change;
            let (frames, ended) = decode(&[&bytes]);
            prop_assert!(ended.is_err());
            prop_assert!(frames.is_empty());
        }

        #[test]
        fn no_bytes_make_it_panic_or_hold_more_than_it_may(
            bytes in prop::collection::vec(any::<u8>(), 0..200),
            length in 0..100_u32,
            header_length in any::<u32>(),
        ) {
            let mut framed = [length.to_be_bytes(), header_length.to_be_bytes()].concat();
            framed.extend(crc32fast::hash(&framed).to_be_bytes());
            framed.extend(&bytes);
            // A true checksum lets the headers be read, whatever they are.
            if let Some(end) = usize::try_from(length).unwrap().checked_sub(4)
                && (PRELUDE_BYTES..framed.len() - 4).contains(&end)
            {
                let checksum = crc32fast::hash(&framed[..end]);
                framed[end..end + 4].copy_from_slice(&checksum.to_be_bytes());
            }
            for bytes in [&framed, &bytes] {
                let each: Vec<_> = bytes.chunks(1).collect();
                prop_assert_eq!(decode(&each), decode(&[bytes]));
            }
        }
    }
}
