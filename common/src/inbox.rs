//! The one inbox of a process: what others send it, handed to the part it is for.

use std::{ops::ControlFlow, sync::Arc};

use tokio::time::sleep;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::debug;

use crate::{
    broker::{BrokerError, Event, Inbox, SharedBroker},
    id::{InstanceId, JobId},
    instance::CurrentInstance,
    outage::Outage,
    shutdown::Shutdown,
    telemetry::field,
};

/// Takes an [`Event::Finished`] or [`Event::Chunks`] for a caller that waits in this process.
pub type OnJobEvent = Arc<dyn Fn(Event) + Send + Sync>;
/// Stops an attempt that runs in this process.
pub type OnCancel = Arc<dyn Fn(JobId, u32) + Send + Sync>;

/// Takes an [`Event::Lent`] for the worker of this process.
pub type OnLent = Arc<dyn Fn(Event) + Send + Sync>;

/// Who takes the events. A handler is called in the order of arrival, and must neither block nor
/// panic. One for a part this process does not have ignores what it is given.
#[derive(Clone)]
pub struct Handlers {
    pub job_event: OnJobEvent,
    pub cancel: OnCancel,
    pub lent: OnLent,
}

impl Default for Handlers {
    fn default() -> Self {
        Self { job_event: Arc::new(|_| {}), cancel: Arc::new(|_, _| {}), lent: Arc::new(|_| {}) }
    }
}

/// Keeps the inbox of the current instance open and passes on what arrives, nothing stored between.
#[derive(Debug)]
pub struct InboxHub {
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl InboxHub {
    /// Opens the inbox as soon as the broker can, and again under each new id of the process.
    ///
    /// It ends with [`Self::close`], at the hard stop or with the broker, not at the soft stop:
    /// callers in flight still wait for their events.
    pub fn start(
        broker: SharedBroker,
        instance: CurrentInstance,
        handlers: Handlers,
        shutdown: Shutdown,
    ) -> Self {
        let Shutdown { hard, .. } = shutdown;
        let stop = hard.child_token();
        let tasks = TaskTracker::new();
        let hub = Hub { broker, instance, handlers };
        let stopped = stop.clone();
        tasks.spawn(async move {
            stopped.run_until_cancelled(hub.run()).await;
        });
        tasks.close();
        Self { stop, tasks }
    }

    /// Closes the inbox; what arrives later is lost.
    pub async fn close(&self) {
        self.stop.cancel();
        self.tasks.wait().await;
    }
}

struct Hub {
    broker: SharedBroker,
    instance: CurrentInstance,
    handlers: Handlers,
}

impl Hub {
    async fn run(&self) {
        let mut outage = Outage::of("open the inbox");
        loop {
            let id = self.instance.id();
            match self.broker.inbox(id).await {
                Ok(inbox) => {
                    outage.succeeded();
                    debug!({ field::INSTANCE_ID } = %id, "inbox is open");
                    if self.pass_on(inbox, id).await.is_break() {
                        return;
                    }
                }
                Err(BrokerError::Closed) => return,
                Err(error) => sleep(outage.failed(&error)).await,
            }
        }
    }

    /// Until the broker is closed (`Break`) or the process has another id (`Continue`).
    async fn pass_on(&self, mut inbox: Box<dyn Inbox>, id: InstanceId) -> ControlFlow<()> {
        loop {
            tokio::select! {
                event = inbox.next() => match event {
                    Some(Event::Cancel { job_id, attempt }) => {
                        (self.handlers.cancel)(job_id, attempt);
                    }
                    Some(event @ Event::Lent { .. }) => (self.handlers.lent)(event),
                    Some(event @ (Event::Finished { .. } | Event::Chunks(_))) => {
                        (self.handlers.job_event)(event);
                    }
                    None => return ControlFlow::Break(()),
                },
                () = self.instance.replaced(id) => return ControlFlow::Continue(()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use chrono::{DateTime, TimeDelta, Utc};
    use tokio::{sync::mpsc, time::timeout};

    use super::*;
    use crate::{broker::memory::MemoryBroker, job::JobStatus, vendor::Vendor};

    fn finished(job_id: JobId) -> Event {
        Event::Finished {
            job_id,
            status: JobStatus::Succeeded,
            attempt: 1,
            result: None,
            times: None,
            chunks: 0,
            room: None,
        }
    }

    /// Sends until it arrives: what is sent before the inbox is open is lost.
    async fn arrives(
        broker: &SharedBroker,
        to: InstanceId,
        event: &Event,
        seen: &mut mpsc::UnboundedReceiver<Event>,
    ) -> Event {
        let sent = async {
            loop {
                broker.send(to, event).await.unwrap();
                if let Ok(Some(event)) = timeout(Duration::from_millis(20), seen.recv()).await {
                    return event;
                }
            }
        };
        timeout(Duration::from_secs(10), sent).await.expect("it arrives in time")
    }

    #[tokio::test]
    async fn each_event_reaches_its_handler_also_under_a_new_id() {
        let at = DateTime::<Utc>::UNIX_EPOCH;
        let broker: SharedBroker = Arc::new(MemoryBroker::new());
        let instance = CurrentInstance::new(InstanceId::new(at));
        let (for_finished, mut seen) = mpsc::unbounded_channel();
        let (for_cancel, mut cancels) = mpsc::unbounded_channel();
        let (for_lent, mut loans) = mpsc::unbounded_channel();
        let handlers = Handlers {
            job_event: Arc::new(move |event| for_finished.send(event).unwrap()),
            cancel: Arc::new(move |job_id, attempt| {
                for_cancel.send(Event::Cancel { job_id, attempt }).unwrap();
            }),
            lent: Arc::new(move |event| for_lent.send(event).unwrap()),
        };
        let hub = InboxHub::start(Arc::clone(&broker), instance.clone(), handlers, Shutdown::new());

        let job_id = JobId::new(at);
        let (end, cancel) = (finished(job_id), Event::Cancel { job_id, attempt: 2 });
        assert_eq!(arrives(&broker, instance.id(), &end, &mut seen).await, end);
        assert_eq!(arrives(&broker, instance.id(), &cancel, &mut cancels).await, cancel);
        let lent = Event::Lent { job_id, vendor: Vendor::OpenAi, trace: None, claim: None };
        assert_eq!(arrives(&broker, instance.id(), &lent, &mut loans).await, lent);

        let new = InstanceId::new(at + TimeDelta::seconds(1));
        instance.replace(new);
        assert_eq!(arrives(&broker, new, &end, &mut seen).await, end);
        hub.close().await;
    }
}
