//! Decodes server-sent events as they arrive.
//!
//! Source: <https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream>.
//! One leniency: an event at the end of the stream counts without the blank line after it, since
//! some servers close right after their terminator.

use bytes::Bytes;

/// One event: what stood under `data:`, its lines joined by a line feed. The bytes are the
/// sender's, not checked to be UTF-8. The name under `event:`, `id:` and `retry:` are dropped:
/// vendors repeat in the data what matters.
pub type Event = Bytes;

/// An event is larger than the decoder may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an event of the stream is larger than {0} bytes")]
pub struct EventTooLarge(pub usize);

/// Takes bytes in whatever pieces they come and finds the events in them.
#[derive(Debug)]
pub struct Decoder {
    /// Bounds `line` and `data` together.
    max_event_bytes: usize,
    /// The line that has not ended yet.
    line: Vec<u8>,
    /// The data of the event that has not ended yet, a line feed after each of its lines.
    data: Vec<u8>,
    /// The last byte was a carriage return: a line feed now belongs to it.
    after_cr: bool,
    /// No line has ended yet, so a byte order mark may stand in front.
    first_line: bool,
}

const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";

impl Decoder {
    /// A decoder that holds at most `max_event_bytes` of an unfinished event.
    pub fn new(max_event_bytes: usize) -> Self {
        Self {
            max_event_bytes,
            line: Vec::new(),
            data: Vec::new(),
            after_cr: false,
            first_line: true,
        }
    }

    /// Takes the next bytes and adds the events that end in them to `events`.
    ///
    /// # Errors
    /// `EventTooLarge`; the events before the large one are in `events`. The decoder must not be
    /// used any further then.
    pub fn push(
        &mut self,
        mut bytes: &[u8],
        events: &mut impl Extend<Event>,
    ) -> Result<(), EventTooLarge> {
        while let Some(&first) = bytes.first() {
            if std::mem::take(&mut self.after_cr) && first == b'\n' {
                bytes = &bytes[1..];
                continue;
            }
            let end = bytes.iter().position(|byte| matches!(byte, b'\n' | b'\r'));
            let (part, rest) = bytes.split_at(end.unwrap_or(bytes.len()));
            self.grow(part)?;
            let Some((&terminator, rest)) = rest.split_first() else { break };
            self.after_cr = terminator == b'\r';
            events.extend(self.end_line());
            bytes = rest;
        }
        Ok(())
    }

    /// The event that the stream ended in, if there was one. Nothing may be pushed after it.
    pub fn finish(&mut self) -> Option<Event> {
        let last = self.end_line();
        last.or_else(|| self.end_event())
    }

    fn grow(&mut self, part: &[u8]) -> Result<(), EventTooLarge> {
        if self.line.len() + self.data.len() + part.len() > self.max_event_bytes {
            return Err(EventTooLarge(self.max_event_bytes));
        }
        self.line.extend_from_slice(part);
        Ok(())
    }

    /// Acts on the line that has just ended; a blank one ends the event.
    fn end_line(&mut self) -> Option<Event> {
        let mut line = self.line.as_slice();
        if std::mem::take(&mut self.first_line) {
            line = line.strip_prefix(BYTE_ORDER_MARK).unwrap_or(line);
        }
        if line.is_empty() {
            self.line.clear();
            return self.end_event();
        }
        let colon = line.iter().position(|&byte| byte == b':');
        let (name, value) = line.split_at(colon.unwrap_or(line.len()));
        if name == b"data" {
            let value = value.strip_prefix(b":").unwrap_or(value);
            self.data.extend_from_slice(value.strip_prefix(b" ").unwrap_or(value));
            self.data.push(b'\n');
        }
        self.line.clear();
        None
    }

    fn end_event(&mut self) -> Option<Event> {
        let mut data = std::mem::take(&mut self.data);
        data.pop()?; // The line feed after the last line; without one there was no data.
        Some(data.into())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::framing::splits;

    /// The events of a stream that comes in these pieces, and whether one was too large.
    fn decode<'a>(
        pieces: impl IntoIterator<Item = &'a [u8]>,
        max: usize,
    ) -> (Vec<Event>, Option<EventTooLarge>) {
        let mut decoder = Decoder::new(max);
        let mut events = Vec::new();
        for piece in pieces {
            if let Err(error) = decoder.push(piece, &mut events) {
                return (events, Some(error));
            }
            assert!(decoder.line.len() + decoder.data.len() <= max + 1);
        }
        events.extend(decoder.finish());
        (events, None)
    }

    #[track_caller]
    fn assert_events(stream: &str, expected: &[&str]) {
        let (events, error) = decode([stream.as_bytes()], 1 << 20);
        assert_eq!(
            (events, error),
            (expected.iter().map(|&e| e.to_owned().into()).collect(), None)
        );
    }

    #[test]
    fn events_end_at_a_blank_line_of_any_kind() {
        assert_events(
            "data: a\n\ndata: b\r\n\r\ndata: c\r\rdata: d\n\r\ndata: e\r\n\n",
            &["a", "b", "c", "d", "e"],
        );
    }

    #[test]
    fn several_data_lines_are_one_event() {
        assert_events("data: {\ndata:  1\ndata\ndata:}\n\n", &["{\n 1\n\n}"]);
        assert_events("data: a\r\ndata: b\r\n\r\ndata: c\rdata: d\r\r", &["a\nb", "c\nd"]);
    }

    #[test]
    fn one_space_after_the_colon_is_not_data() {
        assert_events("data:a\n\ndata: a\n\ndata:  a\n\n", &["a", "a", " a"]);
    }

    #[test]
    fn comments_and_other_fields_are_passed_over() {
        assert_events(
            ": keep-alive\n\nevent: ping\nid: 7\nretry: 5\n\nevent: x\ndata: a\n: b\n\n",
            &["a"],
        );
        assert_events("datax: no\ndat: no\nDATA: no\n:data: no\n\n", &[]);
    }

    #[test]
    fn empty_data_is_an_event_and_no_data_is_none() {
        assert_events("data\n\ndata:\n\n\n\n", &["", ""]);
    }

    #[test]
    fn a_byte_order_mark_stands_only_in_front() {
        assert_events("\u{feff}data: a\n\n\u{feff}data: b\n\n", &["a"]);
    }

    #[test]
    fn the_last_event_needs_no_blank_line() {
        assert_events("data: a\n\ndata: [DONE]\n", &["a", "[DONE]"]);
        assert_events("data: a\n\ndata: [DONE]", &["a", "[DONE]"]);
    }

    #[test]
    fn an_event_without_end_is_refused_and_not_held() {
        let error = Some(EventTooLarge(10));
        assert_eq!(
            decode([b"data: a\n\ndata: 12345678".as_slice()], 10),
            (vec!["a".into()], error)
        );
        assert_eq!(decode([b"data: 1\ndata: 2\ndata: 3\ndata: 4\n".as_slice()], 10).1, error);
        assert_eq!(decode([b": a comment without end".as_slice()], 10).1, error);
    }

    const LOOKED_AT: &[&[u8]] =
        &[b"\n", b"\r", b"\r\n", b"data: ", b"data", b"event: x", b":", BYTE_ORDER_MARK];

    proptest! {
        #[test]
        fn how_the_bytes_are_split_changes_nothing(
            stream in splits::stream(LOOKED_AT),
            cuts in splits::cuts(),
            max in 0_usize..60,
        ) {
            let whole = decode([stream.as_slice()], max);
            prop_assert_eq!(&decode(splits::pieces(&stream, &cuts), max), &whole);
            prop_assert_eq!(&decode(stream.chunks(1), max), &whole);
        }
    }
}
