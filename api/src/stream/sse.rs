//! The framing of server-sent events.
//!
//! The vendor's SDKs break on an `id:` line followed by a comment, on a lone `retry:` and on an
//! unnamed `[DONE]`; the OpenAI SDK takes `event: done` with `[DONE]` for the end, which theirs skip.
//!
//! Source: <https://html.spec.whatwg.org/multipage/server-sent-events.html>.

use axum::{body::Body, response::Response};
use http::{HeaderName, HeaderValue, header};

/// The first bytes of a stream that has nothing to say yet.
pub(crate) const OK: &str = ": ok\n\n";

/// Keeps proxies and clients' read timeouts content.
pub(crate) const PING: &str = ": ping\n\n";

/// The last event of a stream that ended as it should.
pub(crate) const DONE: &str = "event: done\ndata: [DONE]\n\n";

/// Proxies that hold back what they pass on are asked not to.
const ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// Appends an event. `data` may have line ends of any kind.
pub(crate) fn push(text: &mut String, id: Option<u64>, name: Option<&str>, data: &str) {
    if let Some(id) = id {
        text.push_str("id: ");
        text.push_str(&id.to_string());
        text.push('\n');
    }
    if let Some(name) = name {
        text.push_str("event: ");
        text.push_str(name);
        text.push('\n');
    }
    push_data(text, &[data]);
}

/// Appends the data of an event, given in pieces, and the blank line that closes it.
pub(crate) fn push_data(text: &mut String, pieces: &[&str]) {
    text.push_str("data: ");
    for piece in pieces {
        let mut rest = *piece;
        // Each line of the data is a line of its own; the reader joins them again.
        while let Some(at) = rest.find(['\n', '\r']) {
            text.push_str(&rest[..at]);
            text.push_str("\ndata: ");
            let end = if rest[at..].starts_with("\r\n") { 2 } else { 1 };
            rest = &rest[at + end..];
        }
        text.push_str(rest);
    }
    text.push_str("\n\n");
}

/// A 200 whose body is a stream of events.
pub(crate) fn response(body: Body) -> Response {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers
        .insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream; charset=utf-8"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(ACCEL_BUFFERING, HeaderValue::from_static("no"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_its_lines_and_a_blank_one() {
        let mut text = String::new();
        push(&mut text, None, None, r#"{"a":1}"#);
        push(&mut text, Some(7), Some("chunk"), "");
        assert_eq!(text, "data: {\"a\":1}\n\nid: 7\nevent: chunk\ndata: \n\n");
    }

    #[test]
    fn every_kind_of_line_end_begins_a_new_line_of_data() {
        for data in ["a\nb", "a\r\nb", "a\rb"] {
            let mut text = String::new();
            push_data(&mut text, &["<", data, ">"]);
            assert_eq!(text, "data: <a\ndata: b>\n\n", "{data:?}");
        }
        let mut text = String::new();
        push_data(&mut text, &["\n\n\r"]);
        assert_eq!(text, "data: \ndata: \ndata: \ndata: \n\n");
    }

    #[test]
    fn other_separators_stay_within_the_line() {
        let mut text = String::new();
        push_data(&mut text, &["a\u{2028}b\u{85}c"]);
        assert_eq!(text, "data: a\u{2028}b\u{85}c\n\n");
    }
}
