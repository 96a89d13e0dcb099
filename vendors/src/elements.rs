//! Decodes a JSON list that arrives piece by piece, element by element.
//!
//! Google streams this way where no server-sent events are asked for: `[{…}`, then `,\r\n{…}`, at
//! last `]`. Source: <https://cloud.google.com/apis/design/standard_methods> and recorded answers.
//! One leniency: a single document, or several one after the other without a list around them,
//! count as elements too; that is how errors and gateways answer.

use std::collections::VecDeque;

use inferq_common::error::ErrorClass;

use crate::{
    error::VendorError,
    framing::{Decode, Frame},
};

/// Takes bytes in whatever pieces they come and finds the elements in them.
///
/// It looks at brackets, commas and quotes alone: whether an element is good JSON its reader finds
/// out.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is one fact about what has come")]
pub struct Decoder {
    /// Bounds `element`.
    max_element_bytes: usize,
    /// The element that has not ended yet, without the white space in front of it.
    element: Vec<u8>,
    /// The brackets that are open inside of the element.
    depth: usize,
    /// Inside of a text.
    in_text: bool,
    /// The last byte of the text was a backslash.
    is_escaped: bool,
    /// The bracket of the list itself has come.
    is_open: bool,
    /// The list has ended; what follows is white space.
    is_closed: bool,
}

impl Decoder {
    /// A decoder that holds at most `max_element_bytes` of an unfinished element.
    pub fn new(max_element_bytes: usize) -> Self {
        Self {
            max_element_bytes,
            element: Vec::new(),
            depth: 0,
            in_text: false,
            is_escaped: false,
            is_open: false,
            is_closed: false,
        }
    }

    /// Takes one byte; whether it belongs to an element, and whether it ends one.
    fn step(&mut self, byte: u8) -> Step {
        if self.in_text {
            match byte {
                _ if self.is_escaped => self.is_escaped = false,
                b'\\' => self.is_escaped = true,
                b'"' => self.in_text = false,
                _ => {}
            }
            return Step::Take;
        }
        match byte {
            b'[' if self.depth == 0 && !self.is_open && self.element.is_empty() => {
                self.is_open = true;
                Step::Skip
            }
            b'"' => {
                self.in_text = true;
                Step::Take
            }
            b'{' | b'[' => {
                self.depth += 1;
                Step::Take
            }
            b'}' | b']' if self.depth > 0 => {
                self.depth -= 1;
                if self.depth == 0 { Step::TakeAndEnd } else { Step::Take }
            }
            b']' => {
                self.is_closed = true;
                Step::End
            }
            b',' if self.depth == 0 => Step::End,
            b' ' | b'\t' | b'\r' | b'\n' if self.element.is_empty() => Step::Skip,
            _ => Step::Take,
        }
    }

    fn end_element(&mut self, frames: &mut VecDeque<Frame>) {
        let element = std::mem::take(&mut self.element);
        if !element.trim_ascii().is_empty() {
            frames.push_back(Frame { headers: Vec::new(), data: element.into() });
        }
    }
}

enum Step {
    Skip,
    Take,
    TakeAndEnd,
    End,
}

impl Decode for Decoder {
    fn push(&mut self, bytes: &[u8], frames: &mut VecDeque<Frame>) -> Result<(), VendorError> {
        for &byte in bytes {
            if self.is_closed {
                break;
            }
            let step = self.step(byte);
            if matches!(step, Step::Take | Step::TakeAndEnd) {
                if self.element.len() >= self.max_element_bytes {
                    let max = self.max_element_bytes;
                    let message = format!("an element of the stream is larger than {max} bytes");
                    return Err(VendorError::new(ErrorClass::ResponseTooLarge, message));
                }
                self.element.push(byte);
            }
            if matches!(step, Step::End | Step::TakeAndEnd) {
                self.end_element(frames);
            }
        }
        Ok(())
    }

    fn finish(&mut self, frames: &mut VecDeque<Frame>) -> Result<(), VendorError> {
        if self.depth > 0 || self.in_text {
            let message = "the vendor's stream ended in the middle of its JSON";
            return Err(VendorError::new(ErrorClass::Transient, message));
        }
        self.end_element(frames);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::framing::splits;

    /// The elements of a stream that comes in these pieces, and the error it ended in.
    fn decode<'a>(
        pieces: impl IntoIterator<Item = &'a [u8]>,
        max: usize,
    ) -> (Vec<String>, Option<ErrorClass>) {
        let mut decoder = Decoder::new(max);
        let mut frames = VecDeque::new();
        let mut error = None;
        for piece in pieces {
            error = decoder.push(piece, &mut frames).err();
            assert!(decoder.element.len() <= max);
            if error.is_some() {
                break;
            }
        }
        if error.is_none() {
            error = decoder.finish(&mut frames).err();
        }
        let texts = frames.iter().map(|frame| String::from_utf8_lossy(&frame.data).into_owned());
        (texts.collect(), error.map(|error| error.class()))
    }

    #[track_caller]
    fn assert_elements(stream: &str, expected: &[&str]) {
        let expected = expected.iter().map(|&text| text.to_owned()).collect();
        assert_eq!(decode([stream.as_bytes()], 1 << 20), (expected, None), "{stream}");
    }

    #[test]
    fn each_element_is_a_frame_as_it_is_spelt() {
        assert_elements(
            "[{\"a\": 1\n}\n,\r\n{\"b\":[1,{}]}\n]\n",
            &["{\"a\": 1\n}", "{\"b\":[1,{}]}"],
        );
        assert_elements("[1, \"a,b\",[2],null]", &["1", "\"a,b\"", "[2]", "null"]);
        assert_elements("[]", &[]);
        assert_elements("", &[]);
    }

    #[test]
    fn brackets_quotes_and_commas_in_texts_end_nothing() {
        assert_elements(
            r#"[{"a":"}],\"\\"},{"b":"\\\"]"}]"#,
            &[r#"{"a":"}],\"\\"}"#, r#"{"b":"\\\"]"}"#],
        );
    }

    #[test]
    fn documents_without_a_list_around_them_count() {
        assert_elements(r#" {"error":{}} "#, &[r#"{"error":{}}"#]);
        assert_elements("{\"a\":1}\n{\"a\":2}\n", &[r#"{"a":1}"#, r#"{"a":2}"#]);
        assert_elements("not JSON", &["not JSON"]);
    }

    #[test]
    fn an_element_is_there_before_the_comma_after_it() {
        let mut decoder = Decoder::new(100);
        let mut frames = VecDeque::new();
        decoder.push(b"[{\"a\":1}", &mut frames).unwrap();
        assert_eq!(frames.len(), 1);
    }

    #[test]
    fn an_end_in_the_middle_is_noticed() {
        for stream in [r#"[{"a":1},{"b""#, r#"[{"a":1},""#, r#"[{"a":1},{"b":[]"#] {
            let (texts, class) = decode([stream.as_bytes()], 100);
            assert_eq!((texts.len(), class), (1, Some(ErrorClass::Transient)), "{stream}");
        }
    }

    #[test]
    fn an_element_without_end_is_refused_and_not_held() {
        let (texts, class) = decode([br#"[{"a":1},{"b":"12345678901234567890"#.as_slice()], 12);
        assert_eq!((texts.len(), class), (1, Some(ErrorClass::ResponseTooLarge)));
    }

    const LOOKED_AT: &[&[u8]] = &[b"[", b"]", b"{", b"}", b",\r\n", b"\"", b"\\", br#"{"a":"}"}"#];

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

        #[test]
        fn the_elements_of_a_list_come_back(texts in proptest::collection::vec(".{0,12}", 0..6)) {
            let texts: Vec<String> =
                texts.iter().map(|text| serde_json::json!({ "t": text }).to_string()).collect();
            let stream = format!("[{}\n]", texts.join(",\r\n"));
            prop_assert_eq!(decode([stream.as_bytes()], 1 << 16), (texts, None));
        }
    }
}
