//! How a caller wants to be answered, as its headers tell.

use std::time::Duration;

use http::HeaderMap;

use crate::extract::Prefer;

/// Announced by the vendor's SDKs: how long they wait for the next byte, in seconds.
const READ_TIMEOUT: &str = "x-stainless-read-timeout";

/// Counted by the vendor's SDKs: 0 for the first copy of a request, then 1, 2, …
const RETRY_COUNT: &str = "x-stainless-retry-count";

/// A shorter announced timeout is taken for this: nothing could be sent in time for it.
const MIN_READ_TIMEOUT: Duration = Duration::from_millis(200);

/// A longer one is taken for this: the longest that anything waits here is a day.
const MAX_READ_TIMEOUT: Duration = Duration::from_secs(48 * 60 * 60);

/// An answer begins this long before the caller would give up, or a quarter of its timeout if that
/// is shorter.
const MARGIN: Duration = Duration::from_secs(5);

/// A stream begins after this long without a chunk where no timeout is announced: clients and
/// proxies mostly give up after 60 s.
const DEFAULT_BEGIN: Duration = Duration::from_secs(50);

/// What keeps a begun answer alive comes this often.
const PING_EVERY: Duration = Duration::from_secs(15);

/// How a caller wants to be answered.
#[derive(Debug, Clone, Copy, Default)]
pub struct Terms {
    pub prefer: Prefer,
    /// Whether the request itself named a callback URL: then nobody waits unless `prefer` says so.
    pub callback: bool,
    /// How long the caller waits for the next byte, if it says so; 200 ms to 48 h.
    pub read_timeout: Option<Duration>,
    /// Whether the caller's library sends this request again by itself.
    pub sent_again: bool,
    /// Whether the job is cancelled when this caller leaves before it has its answer.
    pub cancel_on_disconnect: bool,
}

impl Terms {
    pub fn of(headers: &HeaderMap) -> Self {
        Self {
            prefer: Prefer::of(headers),
            read_timeout: text(headers, READ_TIMEOUT).and_then(read_timeout),
            sent_again: text(headers, RETRY_COUNT).is_some_and(counts_a_retry),
            ..Self::default()
        }
    }

    /// When and how often a synchronous caller must see a byte; `None`: it did not say.
    pub(crate) fn rhythm(self) -> Option<Rhythm> {
        self.read_timeout.map(Rhythm::of)
    }

    /// When and how often the reader of a stream must see a byte.
    pub(crate) fn stream_rhythm(self) -> Rhythm {
        self.rhythm().unwrap_or(Rhythm { begin: DEFAULT_BEGIN, every: PING_EVERY })
    }
}

/// When an answer that is not there yet must begin, and how often it must go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rhythm {
    /// After the request.
    pub(crate) begin: Duration,
    pub(crate) every: Duration,
}

impl Rhythm {
    fn of(read_timeout: Duration) -> Self {
        Self {
            begin: read_timeout.saturating_sub(MARGIN.min(read_timeout / 4)),
            every: PING_EVERY.min(read_timeout / 3),
        }
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok().map(str::trim)
}

/// Seconds, perhaps with a fraction; what cannot be a timeout is as good as none.
fn read_timeout(text: &str) -> Option<Duration> {
    let seconds: f64 = text.parse().ok().filter(|seconds: &f64| *seconds > 0.0)?;
    let most = MAX_READ_TIMEOUT.as_secs_f64();
    Some(Duration::from_secs_f64(seconds.min(most)).max(MIN_READ_TIMEOUT))
}

fn counts_a_retry(text: &str) -> bool {
    !text.is_empty()
        && text.bytes().all(|byte| byte.is_ascii_digit())
        && text.bytes().any(|byte| byte != b'0')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn terms(name: &'static str, value: &'static str) -> Terms {
        let mut headers = HeaderMap::new();
        headers.insert(name, value.parse().unwrap());
        Terms::of(&headers)
    }

    #[test]
    fn an_announced_timeout_is_seconds_within_reason() {
        let secs = |secs: f64| Some(Duration::from_secs_f64(secs));
        for (text, expected) in [
            ("60", secs(60.0)),
            (" 0.75 ", secs(0.75)),
            ("1e1", secs(10.0)),
            ("0.0001", secs(0.2)),
            ("1e300", Some(MAX_READ_TIMEOUT)),
            ("inf", Some(MAX_READ_TIMEOUT)),
            ("0", None),
            ("-1", None),
            ("NaN", None),
            ("soon", None),
            ("", None),
        ] {
            assert_eq!(terms(READ_TIMEOUT, text).read_timeout, expected, "{text}");
        }
    }

    #[test]
    fn an_answer_begins_well_before_the_caller_gives_up() {
        let rhythm = |secs| terms_of(secs).rhythm().unwrap();
        let terms = |begin, every| Rhythm {
            begin: Duration::from_millis(begin),
            every: Duration::from_millis(every),
        };
        assert_eq!(rhythm(60), terms(55_000, 15_000));
        assert_eq!(rhythm(600), terms(595_000, 15_000));
        assert_eq!(rhythm(12), terms(9_000, 4_000));
        assert_eq!(Terms::default().rhythm(), None);
        assert_eq!(Terms::default().stream_rhythm(), terms(50_000, 15_000));
    }

    fn terms_of(secs: u64) -> Terms {
        Terms { read_timeout: Some(Duration::from_secs(secs)), ..Terms::default() }
    }

    #[test]
    fn only_a_count_above_nought_is_a_repeat() {
        for (text, expected) in
            [("0", false), ("1", true), ("2", true), ("00", false), ("-1", false), ("x", false)]
        {
            assert_eq!(terms(RETRY_COUNT, text).sent_again, expected, "{text}");
        }
    }
}
