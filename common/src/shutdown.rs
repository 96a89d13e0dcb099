//! The two stop signals, the same in every process.

use tokio_util::sync::CancellationToken;

/// Soft: take no new work, finish what is in hand. Hard: drop everything.
///
/// `soft` is a child of `hard`, so a hard stop is a soft one too.
#[derive(Debug, Clone)]
pub struct Shutdown {
    pub soft: CancellationToken,
    pub hard: CancellationToken,
}

impl Shutdown {
    pub fn new() -> Self {
        let hard = CancellationToken::new();
        Self { soft: hard.child_token(), hard }
    }
}

impl Default for Shutdown {
    fn default() -> Self {
        Self::new()
    }
}
