//! Tasks that run elsewhere and are asked for.

use std::{sync::atomic::Ordering, time::Duration};

use inferq_common::{error::ErrorClass, job::Json};

use super::{Inside, Running, Scripted, failure, reply};
use crate::{Call, Progress, Reply, VendorError};

/// Between two questions.
const WAIT: Duration = Duration::from_secs(3);

pub(super) fn is_task(model: &str) -> bool {
    let name = model.strip_prefix("task_");
    name.is_some_and(|name| {
        matches!(name, "held" | "fails" | "locked") || name.parse::<u32>().is_ok()
    })
}

/// The ticket is `TASK:QUESTIONS`, both numbers.
pub(super) async fn advance(
    scripted: &Scripted,
    call: &Call,
    ticket: Option<&str>,
) -> Result<Progress, VendorError> {
    let Some(ticket) = ticket else {
        if call.model == "task_locked" && scripted.locked.load(Ordering::SeqCst) {
            return Err(failure(ErrorClass::Auth, None));
        }
        let task = scripted.count(call.job_id);
        return Ok(Progress::Pending { ticket: format!("{task}:0"), wait: WAIT });
    };
    let _running = Running::one_more(&scripted.running);
    let _inside = Inside::enter(&scripted.models, &call.model);
    let (task, n_asked) = ticket.split_once(':').expect("it is a ticket of this vendor's");
    let n_asked = 1 + n_asked.parse::<u32>().expect("it is a ticket of this vendor's");
    let n_needed = match call.model.as_str() {
        "task_fails" => return Err(failure(ErrorClass::Transient, None)),
        "task_held" => {
            // The sender lives as long as the vendor.
            let _ = scripted.released.subscribe().wait_for(|&released| released).await;
            1
        }
        model => model["task_".len()..].parse().unwrap_or(1),
    };
    if n_asked < n_needed {
        return Ok(Progress::Pending { ticket: format!("{task}:{n_asked}"), wait: WAIT });
    }
    let response = Json::parse(Scripted::RESPONSE).expect("the constant is JSON");
    let vendor_request_id = Some(format!("task-{task}"));
    Ok(Progress::Done(Reply { usage: Scripted::usage(), vendor_request_id, ..reply(response) }))
}
