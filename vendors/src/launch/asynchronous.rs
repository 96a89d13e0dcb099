//! Starts an asynchronous task and asks for it until it has ended.

use std::time::Duration;

use http::Method;
use inferq_common::{error::ErrorClass, job::Route};
use serde::{Deserialize, Serialize};
use serde_json::from_str;
use tokio::time::sleep;

use super::{Launch, convert, wire::Started};
use crate::{
    Call, Progress, Reply, Share,
    error::VendorError,
    json,
    remote::{Dialect as _, Mode, Parsed, Remote, http::Answer},
};

/// The pause before the first question; each further one is half as long again.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// Questions in a row that may fail while the task goes on.
const MAX_FAILED_QUESTIONS: u32 = 5;
/// Launch's ids are UUIDs; other gateways may have longer ones.
const MAX_ID_BYTES: usize = 512;

/// A task under way.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Ticket {
    task_id: String,
    n_asked: u32,
    /// Of the last questions, how many failed in a row.
    n_failed: u32,
}

/// Runs one task and waits here for its end. The caller bounds the whole.
pub(super) async fn run(remote: &Remote<Launch>, call: &Call) -> Result<Reply, VendorError> {
    let mut last = None;
    loop {
        match advance(remote, call, last.as_deref()).await? {
            Progress::Done(reply) => return Ok(reply),
            Progress::Pending { ticket, wait } => {
                sleep(wait).await;
                last = Some(ticket);
            }
        }
    }
}

/// Starts a task, or asks once for one that was started. The caller bounds the whole, which also
/// ends the wait for a task the gateway has forgotten.
pub(super) async fn advance(
    remote: &Remote<Launch>,
    call: &Call,
    ticket: Option<&str>,
) -> Result<Progress, VendorError> {
    let Some(ticket) = ticket else {
        let task_id = start(remote, call).await?;
        return Ok(Ticket { task_id, n_asked: 0, n_failed: 0 }.pending(None));
    };
    let mut ticket: Ticket = from_str(ticket).map_err(|_| {
        VendorError::new(ErrorClass::Internal, "the ticket of a Launch task cannot be read")
    })?;
    ticket.n_asked = ticket.n_asked.saturating_add(1);
    match ask(remote, &ticket.task_id, &call.memory).await {
        Ok(None) => {
            ticket.n_failed = 0;
            Ok(ticket.pending(None))
        }
        Ok(Some(Parsed { response, usage, .. })) => {
            let vendor_request_id = Some(ticket.task_id);
            Ok(Progress::Done(Reply { response, usage, vendor_request_id }))
        }
        Err(Asked::Task(error)) => Err(with_id(error, ticket.task_id)),
        Err(Asked::Question(error)) => {
            ticket.n_failed = ticket.n_failed.saturating_add(1);
            if !error.class().is_transient() || ticket.n_failed > MAX_FAILED_QUESTIONS {
                return Err(with_id(error, ticket.task_id));
            }
            Ok(ticket.pending(error.retry_after))
        }
    }
}

impl Ticket {
    /// To be asked for after the wait the gateway wants, or one that is longer each time.
    fn pending(&self, wanted: Option<Duration>) -> Progress {
        let grown = FIRST_PAUSE.mul_f64(1.5_f64.powf(self.n_asked.min(10).into()));
        let wait = wanted.unwrap_or(grown).clamp(FIRST_PAUSE, LONGEST_PAUSE);
        let ticket = serde_json::to_string(self).expect("texts and numbers are JSON");
        Progress::Pending { ticket, wait }
    }
}

async fn start(remote: &Remote<Launch>, call: &Call) -> Result<String, VendorError> {
    let request = remote.dialect().request(call, Route::AsyncTask, Mode::Whole)?;
    let Answer { headers, body, .. } = remote.send(request).await?;
    let read = async {
        let text = json::text(&headers, body.whole(&call.memory).await?)?;
        match from_str(&text) {
            Ok(Started { task_id }) if task_id.len() <= MAX_ID_BYTES => Ok(task_id),
            _ => Err(json::unusable(&headers, &text, "it names no task")),
        }
    };
    read.await.map_err(|error| remote.labels(&headers).add_to(error))
}

/// What went wrong with a question.
enum Asked {
    /// The task itself has failed.
    Task(VendorError),
    /// The question was not answered.
    Question(VendorError),
}

async fn ask(
    remote: &Remote<Launch>,
    task_id: &str,
    memory: &Share,
) -> Result<Option<Parsed>, Asked> {
    let launch = remote.dialect();
    let url = launch.url(&["v1", "async-tasks", task_id]);
    let request = launch.plain(Method::GET, url, Mode::Whole, String::new());
    let Answer { headers, body, .. } = remote.send(request).await.map_err(Asked::Question)?;
    let labelled = |error| remote.labels(&headers).add_to(error);
    let question = |error| Asked::Question(labelled(error));
    let text =
        json::text(&headers, body.whole(memory).await.map_err(question)?).map_err(question)?;
    let task = convert::read(&headers, &text).map_err(question)?;
    convert::result(&headers, &task).map_err(|error| Asked::Task(labelled(error)))
}

fn with_id(mut error: VendorError, task_id: String) -> VendorError {
    error.error.vendor_request_id.get_or_insert(task_id);
    error
}
