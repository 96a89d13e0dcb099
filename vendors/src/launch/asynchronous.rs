//! Starts an asynchronous task and asks for it until it has ended.

use std::time::Duration;

use http::Method;
use inferq_common::job::Route;
use serde_json::from_str;
use tokio::time::sleep;

use super::{Launch, convert, wire::Started};
use crate::{
    Call, Reply,
    error::VendorError,
    json,
    remote::{Dialect as _, Mode, Parsed, Remote, http::Answer},
};

/// The pause after the first question; each further one is half as long again.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// Questions in a row that may fail while the task goes on.
const MAX_FAILED_QUESTIONS: u32 = 5;

/// Runs one task. It holds no connection between two questions; the caller bounds the whole, which
/// also ends the wait for a task the gateway has forgotten.
pub(super) async fn run(remote: &Remote<Launch>, call: &Call) -> Result<Reply, VendorError> {
    let launch = remote.dialect();
    let request = launch.request(call, Route::AsyncTask, Mode::Whole)?;
    let Answer { headers, body, .. } = remote.send(request).await?;
    let text = json::text(&headers, body.whole().await?)?;
    let Ok(Started { task_id }) = from_str(&text) else {
        return Err(json::unusable(&headers, &text, "it names no task"));
    };
    let mut pause = FIRST_PAUSE;
    let mut n_failed = 0;
    loop {
        sleep(pause).await;
        pause = pause.mul_f64(1.5).min(LONGEST_PAUSE);
        match ask(remote, &task_id).await {
            Ok(None) => n_failed = 0,
            Ok(Some(Parsed { response, usage, .. })) => {
                return Ok(Reply { response, usage, vendor_request_id: Some(task_id) });
            }
            Err(Asked::Task(error)) => return Err(with_id(error, task_id)),
            Err(Asked::Question(error)) => {
                n_failed += 1;
                if !error.class().is_transient() || n_failed > MAX_FAILED_QUESTIONS {
                    return Err(with_id(error, task_id));
                }
                if let Some(wait) = error.retry_after {
                    pause = wait.clamp(FIRST_PAUSE, LONGEST_PAUSE);
                }
            }
        }
    }
}

/// What went wrong with a question.
enum Asked {
    /// The task itself has failed.
    Task(VendorError),
    /// The question was not answered.
    Question(VendorError),
}

async fn ask(remote: &Remote<Launch>, task_id: &str) -> Result<Option<Parsed>, Asked> {
    let launch = remote.dialect();
    let url = launch.url(&["v1", "async-tasks", task_id]);
    let request = launch.plain(Method::GET, url, Mode::Whole, String::new());
    let asked = async {
        let Answer { headers, body, .. } = remote.send(request).await?;
        let text = json::text(&headers, body.whole().await?)?;
        Ok((headers, text))
    };
    let (headers, text) = asked.await.map_err(Asked::Question)?;
    let task = convert::read(&headers, &text).map_err(Asked::Question)?;
    convert::result(&headers, &task).map_err(Asked::Task)
}

fn with_id(mut error: VendorError, task_id: String) -> VendorError {
    error.error.vendor_request_id.get_or_insert(task_id);
    error
}
