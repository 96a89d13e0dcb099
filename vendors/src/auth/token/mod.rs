//! Keeps a token that runs out: fetched once for all who wait, and anew before it ends.

use std::{
    fmt,
    future::Future,
    mem,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use chrono::{DateTime, TimeDelta, Utc};
use futures::{
    FutureExt as _,
    future::{BoxFuture, Shared, WeakShared},
};
use inferq_common::error::ErrorClass;
use secrecy::SecretString;
use tokio::time::timeout;

use super::redact;
use crate::error::VendorError;

/// A token lives for about an hour; five minutes before its end are enough for a slow endpoint and
/// for clocks that differ.
const MARGIN: TimeDelta = TimeDelta::minutes(5);
/// Bounds one fetch. Endpoints that hand out tokens answer within a second.
const FETCH_TIMEOUT: Duration = Duration::from_secs(20);
/// After a failed refresh the old token, while it lasts, serves for so long before the next one.
const PAUSE: TimeDelta = TimeDelta::seconds(15);
/// At most one token in so long is fetched because the one before was refused: what is refused for
/// want of a permission stays refused, and a hundred calls may be refused at once.
const BETWEEN_REFUSALS: TimeDelta = TimeDelta::seconds(30);

/// A token and the moment it ends.
pub type Fetched = (SecretString, DateTime<Utc>);

/// A boxed closure that fetches a token, for caches that stand in a struct.
pub type Fetch =
    Box<dyn Fn(DateTime<Utc>) -> BoxFuture<'static, Result<Fetched, VendorError>> + Send + Sync>;

/// One fetch under way; whoever waits drives it.
type Flight = BoxFuture<'static, Result<SecretString, VendorError>>;

/// Keeps the token that `F` fetches.
///
/// `F` takes the present instant, for a token whose life is told as a duration. It needs no timeout
/// of its own: a fetch is given up after 20 s.
pub struct TokenCache<F> {
    fetch: F,
    margin: TimeDelta,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    kept: Option<Kept>,
    /// The token before, which the vendor may still repeat in its words.
    last: Option<SecretString>,
    /// Weak: a fetch that nobody waits for any more is dropped, and its socket closed.
    flight: Option<WeakShared<Flight>>,
    is_refused: bool,
    /// When a token was last fetched because of a refusal.
    forced_at: Option<DateTime<Utc>>,
}

struct Kept {
    secret: SecretString,
    refresh_at: DateTime<Utc>,
    expires_at: DateTime<Utc>,
}

impl<F> fmt::Debug for TokenCache<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenCache").finish_non_exhaustive()
    }
}

impl<F> TokenCache<F> {
    /// Empty; the first token is fetched when it is asked for.
    pub fn new(fetch: F) -> Self {
        Self { fetch, margin: MARGIN, state: Arc::default() }
    }

    /// Fetches the next token so long before the end of the present one, five minutes by default;
    /// of a token that lives shortly, in the last fifth of its life.
    #[must_use]
    pub fn with_margin(self, margin: TimeDelta) -> Self {
        Self { margin, ..self }
    }

    /// Takes note that the token was refused: the next [`TokenCache::get`] fetches another one,
    /// unless one was fetched for this reason within the last 30 s.
    pub fn forget(&self) {
        self.lock().is_refused = true;
    }

    /// Takes the tokens out of words that are shown.
    pub fn redact(&self, words: &mut String) {
        let state = self.lock();
        for secret in state.kept.iter().map(|kept| &kept.secret).chain(&state.last) {
            redact(words, secret);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics while the tokens are looked at")
    }
}

impl<F, Fut> TokenCache<F>
where
    F: Fn(DateTime<Utc>) -> Fut,
    Fut: Future<Output = Result<Fetched, VendorError>> + Send + 'static,
{
    /// A token that is good for now. However many ask at once, one fetch serves them all.
    ///
    /// **Cancel safe:** the fetch goes on while anyone else waits for it.
    ///
    /// # Errors
    /// What the fetch answered, to all who waited for it; `Transient` if it took longer than 20 s.
    /// While the old token still lasts, it is the answer instead of an error.
    pub async fn get(&self, now: DateTime<Utc>) -> Result<SecretString, VendorError> {
        let flight = {
            let mut state = self.lock();
            state.drop_refused(now);
            match &state.kept {
                Some(kept) if now < kept.refresh_at => return Ok(kept.secret.clone()),
                _ => self.join(&mut state, now),
            }
        };
        flight.await
    }

    /// The fetch under way, or a new one.
    fn join(&self, state: &mut State, now: DateTime<Utc>) -> Shared<Flight> {
        if let Some(flight) = state.flight.as_ref().and_then(WeakShared::upgrade) {
            return flight;
        }
        let (fetch, margin) = ((self.fetch)(now), self.margin);
        let shared = Arc::clone(&self.state);
        let flight = async move {
            let fetched = timeout(FETCH_TIMEOUT, fetch).await.unwrap_or_else(|_| {
                let message = format!("no token was handed out within {FETCH_TIMEOUT:?}");
                Err(VendorError::new(ErrorClass::Transient, message))
            });
            let mut state = shared.lock().expect("nothing panics while the tokens are looked at");
            state.flight = None;
            match fetched {
                Ok(fetched) => Ok(state.keep(fetched, margin, now)),
                Err(error) => state.old(now).ok_or(error),
            }
        };
        let flight = flight.boxed().shared();
        state.flight = flight.downgrade();
        flight
    }
}

impl State {
    fn drop_refused(&mut self, now: DateTime<Utc>) {
        let is_refused = mem::take(&mut self.is_refused);
        let is_too_soon = self.forced_at.is_some_and(|at| now - at < BETWEEN_REFUSALS);
        if is_refused && !is_too_soon {
            self.forced_at = Some(now);
            self.last = self.kept.take().map(|kept| kept.secret).or(self.last.take());
        }
    }

    fn keep(
        &mut self,
        (secret, expires_at): Fetched,
        margin: TimeDelta,
        now: DateTime<Utc>,
    ) -> SecretString {
        let margin = margin.min((expires_at - now) / 5);
        let kept = Kept { secret: secret.clone(), refresh_at: expires_at - margin, expires_at };
        self.last = self.kept.replace(kept).map(|kept| kept.secret).or(self.last.take());
        secret
    }

    /// The old token while it lasts, to be refreshed after a pause.
    fn old(&mut self, now: DateTime<Utc>) -> Option<SecretString> {
        let kept = self.kept.as_mut().filter(|kept| now < kept.expires_at)?;
        kept.refresh_at = (now + PAUSE).min(kept.expires_at);
        Some(kept.secret.clone())
    }
}

#[cfg(test)]
mod tests;
