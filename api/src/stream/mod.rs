//! Answers that come in parts.
//!
//! A caller that asked for a stream reads its job's chunks as they arrive: [`answer`] decides what it
//! gets, [`reader`] finds the chunks, [`feed`] hears the broker's events. Who follows a job, from any
//! process, is sent the events of its [`log`] by a [`follower`], and only what the store has. Each of
//! them has one of the [`places`].

pub(crate) mod answer;
mod body;
pub(crate) mod feed;
pub(crate) mod follower;
mod log;
pub(crate) mod places;
pub(crate) mod reader;
pub(crate) mod shape;
pub(crate) mod sse;
#[cfg(test)]
mod tests;
