//! Values on their way into statements: one JSON text per statement, taken apart by `json_each`.
//!
//! Raw JSON goes in as JSON *strings*, so that its text survives byte for byte. Ids go in as 32 hex
//! digits for `unhex`, instants as microseconds.

use chrono::{DateTime, Utc};
use serde::{Serialize, Serializer};
use uuid::Uuid;

/// An id as 32 hex digits.
#[derive(Debug, Clone, Copy)]
pub(super) struct Hex(pub(super) Uuid);

impl Serialize for Hex {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0.simple())
    }
}

/// Microseconds since 1970.
pub(super) fn micros(at: DateTime<Utc>) -> i64 {
    at.timestamp_micros()
}

/// For `#[serde(serialize_with)]`: [`micros`].
pub(super) fn as_micros<S: Serializer>(
    at: &DateTime<Utc>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.serialize_i64(micros(*at))
}

/// For `#[serde(serialize_with)]`: [`micros`] or `null`.
#[expect(clippy::ref_option, reason = "serde hands over a reference to the field")]
pub(super) fn as_optional_micros<S: Serializer>(
    at: &Option<DateTime<Utc>>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    at.map(micros).serialize(serializer)
}

/// Bytes as hex digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a string takes all that is written");
        text
    })
}

/// A JSON array.
pub(super) fn array<T: Serialize>(items: impl IntoIterator<Item = T>) -> String {
    text(|serializer| serializer.collect_seq(items))
}

/// A JSON array of ids.
pub(super) fn ids(ids: impl IntoIterator<Item = Uuid>) -> String {
    array(ids.into_iter().map(Hex))
}

/// A JSON object of texts. `json_each` hands out a text of an object as it is, where it would have
/// to write out and parse again the text within an array: that counts for payloads.
pub(super) fn texts<'a>(entries: impl IntoIterator<Item = (String, Option<&'a str>)>) -> String {
    text(|serializer| serializer.collect_map(entries))
}

fn text(
    write: impl FnOnce(&mut serde_json::Serializer<&mut Vec<u8>>) -> serde_json::Result<()>,
) -> String {
    let mut bytes = Vec::with_capacity(1024);
    let mut serializer = serde_json::Serializer::new(&mut bytes);
    write(&mut serializer).expect("strings and numbers are always JSON");
    String::from_utf8(bytes).expect("serde_json writes UTF-8")
}
