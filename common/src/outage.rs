//! What a loop does while the thing it needs is away: say so once, and wait longer and longer.

use std::{error::Error, fmt::Write as _, time::Duration};

use rand::Rng as _;
use tracing::{info, warn};

/// The pause after the first failure.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// Long enough to spare what is coming back, short enough that its return is noticed soon.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Failures in a row of one step that is tried again until it succeeds.
#[derive(Debug)]
pub struct Outage {
    step: &'static str,
    failures: u32,
}

impl Outage {
    /// `step` names in the log what cannot be done, such as `heartbeat`.
    pub const fn of(step: &'static str) -> Self {
        Self { step, failures: 0 }
    }

    /// Counts a failure, logs the first of a row, and answers how long to wait before the next try.
    pub fn failed(&mut self, error: &(dyn Error + 'static)) -> Duration {
        if self.failures == 0 {
            warn!(step = self.step, error = chain(error), "step fails and will be tried again");
        }
        self.failures = self.failures.saturating_add(1);
        pause_after(self.failures)
    }

    /// Ends the row, and says so if there was one.
    pub fn succeeded(&mut self) {
        if self.failures > 0 {
            info!(step = self.step, failures = self.failures, "step works again");
            self.failures = 0;
        }
    }
}

/// How long to wait after this many failures in a row: 100 ms, doubled with each up to 5 s, of which
/// at random up to a half is taken off.
pub fn pause_after(failures: u32) -> Duration {
    let doublings = failures.saturating_sub(1).min(6);
    let bound = FIRST_PAUSE.saturating_mul(1 << doublings).min(LONGEST_PAUSE);
    bound.mul_f64(rand::rng().random_range(0.5..=1.0))
}

/// An error and its sources in one line.
pub fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        write!(text, ": {error}").expect("a String takes all text");
        source = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_five_seconds_and_start_anew() {
        let mut outage = Outage::of("test");
        let error = std::io::Error::other("away");
        let pauses: Vec<_> = (0..12).map(|_| outage.failed(&error)).collect();
        assert!(pauses[0] <= FIRST_PAUSE && pauses[0] >= FIRST_PAUSE / 2);
        assert!(pauses[11] <= LONGEST_PAUSE && pauses[11] >= LONGEST_PAUSE / 2);
        outage.succeeded();
        assert!(outage.failed(&error) <= FIRST_PAUSE);
    }

    #[test]
    fn a_chain_names_each_source() {
        let error = crate::store::StoreError::Unavailable("connection refused".into());
        assert_eq!(chain(&error), "the store is unavailable: connection refused");
    }
}
