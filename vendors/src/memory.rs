//! The memory that answers may take, all those of a worker together.
//!
//! Each answer is bounded by itself; a hundred large ones at once would still be more than a machine
//! has. So what is large waits its turn: nothing more is read from its socket meanwhile.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicBool, Ordering},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// An answer takes so much without asking; nearly all are smaller.
const FREE_BYTES: usize = 256 << 10;
/// Beyond that it asks for so much at a time, where it has not told its size.
const STEP_BYTES: usize = 256 << 10;
/// What one permit stands for.
const PERMIT_BYTES: usize = 1 << 10;

/// Bounds what large answers take together. Clones share the bound.
///
/// **Invariant:** one of them may always go on. Each holds what it has while it waits for more, and
/// all could wait for each other; so one at a time may go beyond the bound, up to its own.
#[derive(Debug, Clone)]
pub struct AnswerMemory(Arc<Bound>);

#[derive(Debug)]
struct Bound {
    permits: Arc<Semaphore>,
    n_permits: u32,
    beyond: Arc<Semaphore>,
}

impl AnswerMemory {
    /// A bound of so many bytes, in whole KiB.
    pub fn new(max_bytes: usize) -> Self {
        let n_permits = permits(max_bytes).max(1);
        let permits = Arc::new(Semaphore::new(n_permits as usize));
        Self(Arc::new(Bound { permits, n_permits, beyond: Arc::new(Semaphore::new(1)) }))
    }

    /// A share for one attempt, of nothing at first.
    pub fn share(&self) -> Share {
        let bound = Arc::clone(&self.0);
        Share(Some(Arc::new(Own {
            bound,
            taken: Mutex::default(),
            waited: AtomicBool::new(false),
        })))
    }
}

/// What the answers of one attempt may take; given back with its last clone. The default has no bound.
#[derive(Debug, Clone, Default)]
pub struct Share(Option<Arc<Own>>);

#[derive(Debug)]
struct Own {
    bound: Arc<Bound>,
    taken: Mutex<Taken>,
    waited: AtomicBool,
}

#[derive(Debug, Default)]
struct Taken {
    /// Beyond [`FREE_BYTES`].
    n_bytes: usize,
    permits: Option<OwnedSemaphorePermit>,
    /// The leave to go beyond the bound.
    beyond: Option<OwnedSemaphorePermit>,
}

impl Share {
    /// Waits until an answer may take so many bytes.
    ///
    /// **Cancel safe.**
    pub async fn grow_to(&self, n_bytes: usize) {
        let Some(own) = &self.0 else { return };
        let wanted = n_bytes.saturating_sub(FREE_BYTES);
        let has = {
            let taken = own.taken();
            if taken.beyond.is_some() || wanted <= taken.n_bytes {
                return;
            }
            taken.n_bytes
        };
        let wanted = wanted.max(has.saturating_add(STEP_BYTES));
        let more = permits(wanted - has).min(own.bound.n_permits);
        let at_once = Arc::clone(&own.bound.permits).try_acquire_many_owned(more);
        if let Ok(permits) = at_once {
            return own.taken().add(wanted, permits);
        }
        own.waited.store(true, Ordering::Relaxed);
        // Neither is ever closed.
        tokio::select! {
            biased;
            Ok(permits) = Arc::clone(&own.bound.permits).acquire_many_owned(more) => {
                own.taken().add(wanted, permits);
            }
            Ok(leave) = Arc::clone(&own.bound.beyond).acquire_owned() => {
                own.taken().beyond = Some(leave);
            }
            else => {}
        }
    }

    /// Whether the bound was used up when an answer asked: it waited for others, or went beyond.
    pub fn has_waited(&self) -> bool {
        self.0.as_ref().is_some_and(|own| own.waited.load(Ordering::Relaxed))
    }
}

impl Own {
    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Taken {
    fn add(&mut self, n_bytes: usize, permits: OwnedSemaphorePermit) {
        self.n_bytes = n_bytes;
        match &mut self.permits {
            Some(held) => held.merge(permits),
            none => *none = Some(permits),
        }
    }
}

fn permits(n_bytes: usize) -> u32 {
    u32::try_from(n_bytes.div_ceil(PERMIT_BYTES)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    const MIB: usize = 1 << 20;

    fn is_granted(share: &Share, n_bytes: usize) -> bool {
        share.grow_to(n_bytes).now_or_never().is_some()
    }

    /// A bound that two have used up, and a third that has gone beyond it.
    fn exhausted() -> (AnswerMemory, [Share; 3]) {
        let memory = AnswerMemory::new(2 * (MIB - FREE_BYTES));
        let shares = [(); 3].map(|()| memory.share());
        assert!(shares.iter().all(|share| is_granted(share, MIB)));
        (memory, shares)
    }

    #[test]
    fn small_answers_need_no_leave() {
        let (memory, _held) = exhausted();
        let another = memory.share();
        assert!(is_granted(&another, FREE_BYTES));
        assert!(!is_granted(&another, FREE_BYTES + 1));
        assert!(another.has_waited());
    }

    #[test]
    fn one_at_a_time_goes_beyond_the_bound_as_far_as_it_needs() {
        let (memory, [first, second, beyond]) = exhausted();
        assert!(!first.has_waited() && !second.has_waited() && beyond.has_waited());
        assert!(is_granted(&beyond, 1000 * MIB));
        assert!(!is_granted(&first, 3 * MIB) && !is_granted(&second, 3 * MIB));
        assert!(!is_granted(&memory.share(), MIB));
        drop(beyond);
        assert!(is_granted(&first, 1000 * MIB), "it is the next");
        assert!(!is_granted(&second, 3 * MIB));
    }

    #[test]
    fn what_is_given_back_goes_to_others() {
        let (memory, [first, second, beyond]) = exhausted();
        let clone = first.clone();
        drop(first);
        let waits = memory.share();
        assert!(!is_granted(&waits, MIB), "a clone still holds it");
        drop(clone);
        assert!(is_granted(&waits, MIB));
        drop((second, waits, beyond));
        let big = memory.share();
        assert!(is_granted(&big, 2 * MIB + FREE_BYTES) && !big.has_waited());
    }

    #[tokio::test]
    async fn who_waits_goes_on_when_others_have_ended() {
        let (memory, [first, second, beyond]) = exhausted();
        let waiting = memory.share();
        let mut grow = Box::pin(waiting.grow_to(2 * MIB));
        assert!(grow.as_mut().now_or_never().is_none());
        drop((first, second));
        grow.await;
        drop(beyond);
        assert!(!memory.0.permits.is_closed() && memory.0.beyond.available_permits() == 1);
    }

    #[test]
    fn an_answer_larger_than_the_bound_takes_all_of_it() {
        let memory = AnswerMemory::new(MIB);
        let share = memory.share();
        assert!(is_granted(&share, 64 * MIB));
        assert!(!share.has_waited());
        assert!(is_granted(&memory.share(), MIB), "one may go beyond");
        assert!(is_granted(&Share::default(), usize::MAX), "it has no bound");
    }
}
