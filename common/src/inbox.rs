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

/// Takes a [`Event::Finished`] for a caller that waits in this process.
pub type OnFinished = Arc<dyn Fn(Event) + Send + Sync>;
/// Stops an attempt that runs in this process.
pub type OnCancel = Arc<dyn Fn(JobId, u32) + Send + Sync>;

/// Who takes the events. A handler is called in the order of arrival, and must neither block nor
/// panic. One for a part this process does not have ignores what it is given.
#[derive(Clone)]
pub struct Handlers {
    pub finished: OnFinished,
    pub cancel: OnCancel,
}

impl Default for Handlers {
    fn default() -> Self {
        Self { finished: Arc::new(|_| {}), cancel: Arc::new(|_, _| {}) }
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
                    Some(finished @ Event::Finished { .. }) => (self.handlers.finished)(finished),
                    None => return ControlFlow::Break(()),
                },
                () = self.instance.replaced(id) => return ControlFlow::Continue(()),
            }
        }
    }
}
