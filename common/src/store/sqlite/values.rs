//! Values on their way into statements. A list goes in as one JSON text, taken apart by `json_each`;
//! ids stand in it as 32 hex digits for `unhex`, instants as microseconds. Where its elements are
//! arrays themselves, `jsonb_each` spares writing each one out and parsing it again.

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

/// A JSON array.
pub(super) fn array<T: Serialize>(items: impl IntoIterator<Item = T>) -> String {
    let mut bytes = Vec::with_capacity(1024);
    serde_json::Serializer::new(&mut bytes)
        .collect_seq(items)
        .expect("strings and numbers are always JSON");
    String::from_utf8(bytes).expect("serde_json writes UTF-8")
}

/// A JSON array of ids.
pub(super) fn ids(ids: impl IntoIterator<Item = Uuid>) -> String {
    array(ids.into_iter().map(Hex))
}
