//! When a serving process stops, and in which order.

use inferq_common::shutdown::Shutdown;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    task::JoinSet,
};
use tracing::{error, info, warn};

use crate::exit::{Failure, code};

/// Waits for a signal, or for a part that ends by itself, then stops the parts in their order.
pub async fn until_told(
    fronts: &mut JoinSet<std::io::Result<()>>,
    backs: &mut JoinSet<()>,
    api_stop: &Shutdown,
    worker_stop: &Shutdown,
) -> Result<(), Failure> {
    let mut signals = Signals::new()?;
    let mut result = Ok(());
    tokio::select! {
        () = signals.next() => info!("stopping; a second signal stops at once"),
        Some(ended) = fronts.join_next() => result = Err(part_ended(&ended)),
        Some(ended) = backs.join_next() => result = Err(part_ended(&ended)),
    }
    let in_order = async {
        api_stop.soft.cancel();
        while fronts.join_next().await.is_some() {}
        worker_stop.soft.cancel();
        while backs.join_next().await.is_some() {}
    };
    let hard = async {
        signals.next().await;
        warn!("stopping at once");
        api_stop.hard.cancel();
        worker_stop.hard.cancel();
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = in_order => {}
        () = hard => {}
    }
    result
}

fn part_ended(ended: &dyn std::fmt::Debug) -> Failure {
    error!(?ended, "a part of this process ended by itself");
    Failure::new(code::INTERNAL, "a part of this process ended by itself; its log says more")
}

/// SIGINT and SIGTERM.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn new() -> Result<Self, Failure> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
