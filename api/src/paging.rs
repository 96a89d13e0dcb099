//! Pages of lists, in the envelope and with the cursors of the v5 API.

use std::str::FromStr;

use inferq_common::store::PageRequest;
use serde::Serialize;
use serde_json::{json, value::RawValue};

use crate::extract::{Fault, Members, Problems, read};

const DEFAULT_LIMIT: u32 = 100;
const MAX_LIMIT: u32 = 1000;

/// A page of a list, or all of it.
#[derive(Debug, Serialize)]
pub struct List<T> {
    /// Always `list`.
    object: &'static str,
    items: Vec<T>,
    /// How many were asked for; absent in a list that has no pages.
    #[serde(skip_serializing_if = "Option::is_none")]
    limit: Option<u32>,
    has_more: bool,
}

impl<T> List<T> {
    pub fn page(items: Vec<T>, limit: u32, has_more: bool) -> Self {
        Self { object: "list", items, limit: Some(limit), has_more }
    }

    pub fn whole(items: Vec<T>) -> Self {
        Self { object: "list", items, limit: None, has_more: false }
    }
}

/// Reads `limit`, `starting_after`, `ending_before` and `sort_order` of a query.
pub fn read<Id: FromStr>(query: &Members<'_>, problems: &mut Problems) -> PageRequest<Id> {
    let limit = query.optional("limit", problems, read::whole(1..=MAX_LIMIT.into()));
    let after = query.optional("starting_after", problems, cursor);
    let before = query.optional("ending_before", problems, cursor);
    let ascending = query.optional("sort_order", problems, ascending).unwrap_or(false);
    let limit = limit.and_then(|limit| u32::try_from(limit).ok()).unwrap_or(DEFAULT_LIMIT);
    PageRequest { after, before, limit, ascending }
}

fn cursor<Id: FromStr>(raw: &RawValue) -> Result<Id, Fault> {
    read::string(raw)?.parse().map_err(|_| {
        Fault::new("uuid_parsing", "Input should be a valid UUID, the id of an entry of this list")
            .with_ctx(json!({ "error": "the id of an entry of this list" }))
    })
}

fn ascending(raw: &RawValue) -> Result<bool, Fault> {
    match read::string(raw)?.as_str() {
        "asc" => Ok(true),
        "desc" => Ok(false),
        _ => Err(Fault::new("enum", "Input should be 'asc' or 'desc'")
            .with_ctx(json!({ "expected": "'asc' or 'desc'" }))),
    }
}
