//! How many attempts of one vendor run here at once, and how many more could.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use crate::lent::Lent;

/// The places of one vendor's attempts in this process.
#[derive(Debug)]
pub(crate) struct Places {
    total: usize,
    permits: Arc<Semaphore>,
    /// Those in which an attempt is.
    busy: Arc<AtomicUsize>,
    /// Where the consumer of the vendor finds what was lent.
    pub(crate) lent: mpsc::Sender<Lent>,
}

impl Places {
    /// `total` of them, and what was lent, for their consumer.
    pub(crate) fn new(total: usize) -> (Self, mpsc::Receiver<Lent>) {
        let (lent, receiver) = mpsc::channel(total.max(1));
        let permits = Arc::new(Semaphore::new(total));
        (Self { total, permits, busy: Arc::default(), lent }, receiver)
    }

    /// Waits until one is free.
    pub(crate) async fn free(&self) -> FreePlace {
        let permit = Arc::clone(&self.permits).acquire_owned().await;
        FreePlace {
            permit: permit.expect("the semaphore is never closed"),
            busy: Arc::clone(&self.busy),
        }
    }

    /// How many attempts an api may have begin here, told as one of them ends: half of the places are
    /// kept for what comes through the lanes.
    pub(crate) fn to_lend(&self) -> usize {
        let others = self.busy.load(Ordering::Relaxed).saturating_sub(1);
        self.total.saturating_sub(others + self.total / 2)
    }
}

/// A place in which nothing runs yet.
pub(crate) struct FreePlace {
    permit: OwnedSemaphorePermit,
    busy: Arc<AtomicUsize>,
}

impl FreePlace {
    pub(crate) fn take(self) -> BusyPlace {
        self.busy.fetch_add(1, Ordering::Relaxed);
        BusyPlace { _permit: self.permit, busy: self.busy }
    }
}

/// A place in which an attempt is, until it is dropped.
pub(crate) struct BusyPlace {
    _permit: OwnedSemaphorePermit,
    busy: Arc<AtomicUsize>,
}

impl Drop for BusyPlace {
    fn drop(&mut self) {
        self.busy.fetch_sub(1, Ordering::Relaxed);
    }
}
