//! What a Launch gateway or container says.

use inferq_common::job::Route;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::remote::Mode;

/// Where the address of Scale's hosted gateway begins.
pub(super) const BASE_URL: &str = "https://api.scale.com/v1/launch";

/// What to do where there is no key.
pub(super) const NO_KEY: &str = "set LAUNCH_API_KEY or vendors.launch.api_key, \
    or vendors.launch.base_url for a server of your own";

/// The segments of a gateway's path, after the base address.
pub(super) fn gateway_path(route: Route, mode: Mode) -> &'static [&'static str] {
    match (route, mode) {
        (Route::AsyncTask, _) => &["v1", "async-tasks"],
        (_, Mode::Whole) => &["v1", "sync-tasks"],
        (_, Mode::Stream) => &["v1", "streaming-tasks"],
    }
}

/// The routes that a container serves by default.
pub(super) fn container_path(mode: Mode) -> &'static [&'static str] {
    match mode {
        Mode::Whole => &["predict"],
        Mode::Stream => &["stream"],
    }
}

/// The id of a task that was started.
#[derive(Deserialize)]
pub(super) struct Started {
    pub task_id: String,
}

/// A task as the gateway tells it, finished or not.
#[derive(Deserialize)]
pub(super) struct Task<'a> {
    pub status: Status,
    #[serde(borrow, default)]
    pub result: Option<&'a RawValue>,
    #[serde(default)]
    pub traceback: Option<String>,
    /// The HTTP status of the container.
    #[serde(default)]
    pub status_code: Option<u16>,
}

#[derive(Deserialize, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub(super) enum Status {
    Success,
    Failure,
    /// `PENDING`, `STARTED`, and `UNDEFINED`, which also stands for ids the gateway has forgotten.
    #[serde(other)]
    Unfinished,
}

/// What stands under `result` of a task that succeeded.
#[derive(Deserialize)]
pub(super) struct Wrapped<'a> {
    #[serde(borrow)]
    pub result: &'a RawValue,
}
