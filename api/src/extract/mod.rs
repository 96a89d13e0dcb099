//! Reads requests: bodies, queries, paths and headers, each member by itself.
//!
//! A request's mistakes are collected in [`Problems`] and answered in one list, as FastAPI does.
//! The rules of [`read`] are pydantic's lax ones.

mod members;
mod path;
mod payload;
mod prefer;
pub mod read;

use std::borrow::Cow;

use serde_json::{Value, json};

pub(crate) use self::payload::SHARE_BYTES;
pub use self::{
    members::Members,
    path::Segment,
    payload::{Payload, Share},
    prefer::Prefer,
};
use crate::error::{ApiError, Loc, Problem};

/// What is wrong with one value; [`Members`] knows where it stands.
#[derive(Debug, Clone, PartialEq)]
pub struct Fault {
    pub kind: &'static str,
    pub msg: Cow<'static, str>,
    pub ctx: Option<Value>,
}

impl Fault {
    pub fn new(kind: &'static str, msg: impl Into<Cow<'static, str>>) -> Self {
        Self { kind, msg: msg.into(), ctx: None }
    }

    #[must_use]
    pub fn with_ctx(self, ctx: Value) -> Self {
        Self { ctx: Some(ctx), ..self }
    }

    /// A rule of ours that pydantic has no word for.
    pub fn value(reason: impl std::fmt::Display) -> Self {
        Self::new("value_error", format!("Value error, {reason}")).with_ctx(json!({ "error": {} }))
    }

    pub fn missing() -> Self {
        Self::new("missing", "Field required")
    }
}

/// What is wrong with a request, in the order of its fields.
#[derive(Debug, Default)]
pub struct Problems(Vec<Problem>);

impl Problems {
    pub fn push(&mut self, problem: Problem) {
        self.0.push(problem);
    }

    /// Adds a problem with the member at `loc`; `input` is what was given, if that is of use.
    pub fn add(
        &mut self,
        loc: Vec<Loc>,
        fault: Fault,
        input: Option<&serde_json::value::RawValue>,
    ) {
        self.0.push(fault.at(loc, input));
    }

    /// Takes a part of the request that could not be read at all; what was noted before comes first.
    ///
    /// # Errors
    /// If the part could not be read: its problems after those already noted.
    pub fn with<T>(&mut self, part: Result<T, ApiError>) -> Result<T, ApiError> {
        part.map_err(|error| match error {
            ApiError::Invalid(more) => {
                self.0.extend(more);
                ApiError::Invalid(std::mem::take(&mut self.0))
            }
            other => other,
        })
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// # Errors
    /// 422 with all problems, if there are any.
    pub fn check(self) -> Result<(), ApiError> {
        if self.0.is_empty() { Ok(()) } else { Err(ApiError::Invalid(self.0)) }
    }
}

/// Larger inputs are not sent back.
const MAX_ECHOED_BYTES: usize = 4096;

impl Fault {
    pub fn at(self, loc: Vec<Loc>, input: Option<&serde_json::value::RawValue>) -> Problem {
        let input = input
            .filter(|raw| raw.get().len() <= MAX_ECHOED_BYTES)
            .map(|raw| inferq_common::job::Json::from(raw.to_owned()));
        Problem { kind: self.kind, loc, msg: self.msg, input, ctx: self.ctx }
    }
}
