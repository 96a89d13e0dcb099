use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use futures::future::join_all;
use secrecy::ExposeSecret as _;
use tokio::sync::Semaphore;

use super::*;

fn noon() -> DateTime<Utc> {
    "2026-11-20T12:00:00Z".parse().unwrap()
}

/// An endpoint that hands out `token-number-N` for an hour, counts, and answers when it may.
#[derive(Clone)]
struct Endpoint {
    n_fetches: Arc<AtomicUsize>,
    gate: Arc<Semaphore>,
    is_down: Arc<AtomicUsize>,
}

impl Endpoint {
    fn open() -> Self {
        let gate = Arc::new(Semaphore::new(Semaphore::MAX_PERMITS));
        Self { n_fetches: Arc::default(), gate, is_down: Arc::default() }
    }

    fn shut() -> Self {
        Self { gate: Arc::new(Semaphore::new(0)), ..Self::open() }
    }

    fn cache(&self) -> TokenCache<Fetch> {
        let endpoint = self.clone();
        TokenCache::new(Box::new(move |now| {
            let endpoint = endpoint.clone();
            Box::pin(async move { endpoint.fetch(now).await })
        }))
    }

    async fn fetch(&self, now: DateTime<Utc>) -> Result<Fetched, VendorError> {
        let number = self.n_fetches.fetch_add(1, Ordering::SeqCst) + 1;
        self.gate.acquire().await.unwrap().forget();
        if self.is_down.load(Ordering::SeqCst) > 0 {
            return Err(VendorError::new(ErrorClass::Transient, "down"));
        }
        Ok((format!("token-number-{number}").into(), now + TimeDelta::hours(1)))
    }

    fn is_down(&self, is_down: bool) {
        self.is_down.store(is_down.into(), Ordering::SeqCst);
    }

    fn n_fetches(&self) -> usize {
        self.n_fetches.load(Ordering::SeqCst)
    }
}

async fn text(cache: &TokenCache<Fetch>, now: DateTime<Utc>) -> Result<String, VendorError> {
    cache.get(now).await.map(|secret| secret.expose_secret().to_owned())
}

#[tokio::test]
async fn one_fetch_serves_a_hundred_who_ask_at_once() {
    let endpoint = Endpoint::shut();
    let cache = endpoint.cache();
    let all = join_all((0..100).map(|_| text(&cache, noon())));
    let open = async {
        tokio::task::yield_now().await;
        endpoint.gate.add_permits(100);
    };
    let (tokens, ()) = tokio::join!(all, open);
    assert!(tokens.iter().all(|token| token.as_deref() == Ok("token-number-1")));
    assert_eq!(endpoint.n_fetches(), 1);
}

#[tokio::test]
async fn one_failure_is_the_answer_to_all_who_waited_and_the_next_asks_again() {
    let endpoint = Endpoint::shut();
    endpoint.is_down(true);
    let cache = endpoint.cache();
    let all = join_all((0..100).map(|_| text(&cache, noon())));
    let (tokens, ()) = tokio::join!(all, async { endpoint.gate.add_permits(100) });
    assert!(tokens.iter().all(|token| token.as_ref().unwrap_err().to_string() == "down"));
    assert_eq!(endpoint.n_fetches(), 1);
    endpoint.is_down(false);
    assert_eq!(text(&cache, noon()).await.unwrap(), "token-number-2");
}

#[tokio::test]
async fn a_token_is_kept_until_minutes_before_its_end() {
    let endpoint = Endpoint::open();
    let cache = endpoint.cache();
    for (minute, token) in [(0, 1), (54, 1), (55, 2), (109, 2), (200, 3)] {
        let at = noon() + TimeDelta::minutes(minute);
        assert_eq!(text(&cache, at).await.unwrap(), format!("token-number-{token}"), "{minute}");
    }
}

#[tokio::test]
async fn a_short_life_is_used_but_for_its_last_fifth() {
    let n_fetches = AtomicUsize::new(0);
    let cache = TokenCache::new(|now| {
        n_fetches.fetch_add(1, Ordering::SeqCst);
        async move { Ok(("short".into(), now + TimeDelta::seconds(100))) }
    });
    for (second, expected) in [(0, 1), (79, 1), (80, 2)] {
        cache.get(noon() + TimeDelta::seconds(second)).await.unwrap();
        assert_eq!(n_fetches.load(Ordering::SeqCst), expected, "{second}");
    }
}

#[tokio::test]
async fn the_old_token_serves_while_the_endpoint_is_down() {
    let endpoint = Endpoint::open();
    let cache = endpoint.cache();
    text(&cache, noon()).await.unwrap();
    endpoint.is_down(true);
    for (second, n_fetches) in [(55 * 60, 2), (55 * 60 + 14, 2), (55 * 60 + 15, 3)] {
        let at = noon() + TimeDelta::seconds(second);
        assert_eq!(text(&cache, at).await.unwrap(), "token-number-1");
        assert_eq!(endpoint.n_fetches(), n_fetches, "{second}");
    }
    let error = text(&cache, noon() + TimeDelta::hours(1)).await.unwrap_err();
    assert_eq!(error.to_string(), "down");
}

#[tokio::test]
async fn a_refused_token_is_replaced_once_however_many_were_refused_with_it() {
    let endpoint = Endpoint::open();
    let cache = endpoint.cache();
    assert_eq!(text(&cache, noon()).await.unwrap(), "token-number-1");
    for _ in 0..100 {
        cache.forget();
        assert_eq!(text(&cache, noon()).await.unwrap(), "token-number-2");
    }
    cache.forget();
    let later = noon() + TimeDelta::seconds(30);
    assert_eq!(text(&cache, later).await.unwrap(), "token-number-3");
}

#[tokio::test]
async fn a_refused_token_does_not_serve_while_the_endpoint_is_down() {
    let endpoint = Endpoint::open();
    let cache = endpoint.cache();
    text(&cache, noon()).await.unwrap();
    endpoint.is_down(true);
    cache.forget();
    assert!(text(&cache, noon()).await.is_err());
}

#[tokio::test]
async fn who_goes_away_does_not_take_the_fetch_with_them() {
    let endpoint = Endpoint::shut();
    let cache = endpoint.cache();
    let mut first = Box::pin(text(&cache, noon()));
    assert!(futures::poll!(&mut first).is_pending());
    let mut second = Box::pin(text(&cache, noon()));
    assert!(futures::poll!(&mut second).is_pending());
    drop(first);
    endpoint.gate.add_permits(1);
    assert_eq!(second.await.unwrap(), "token-number-1");
    assert_eq!(endpoint.n_fetches(), 1);
}

#[tokio::test]
async fn a_fetch_nobody_waits_for_is_dropped() {
    let endpoint = Endpoint::shut();
    let cache = endpoint.cache();
    let mut only = Box::pin(text(&cache, noon()));
    assert!(futures::poll!(&mut only).is_pending());
    drop(only);
    endpoint.gate.add_permits(1);
    assert_eq!(text(&cache, noon()).await.unwrap(), "token-number-2");
}

#[tokio::test(start_paused = true)]
async fn a_fetch_that_hangs_is_given_up() {
    let cache = Endpoint::shut().cache();
    let error = text(&cache, noon()).await.unwrap_err();
    assert_eq!(error.class(), ErrorClass::Transient);
    assert_eq!(error.to_string(), "no token was handed out within 20s");
}

#[tokio::test]
async fn neither_the_token_nor_the_one_before_is_shown() {
    let cache = Endpoint::open().cache();
    text(&cache, noon()).await.unwrap();
    cache.forget();
    text(&cache, noon()).await.unwrap();
    let mut words = "no token-number-1, no token-number-2".to_owned();
    cache.redact(&mut words);
    assert_eq!(words, "no ***, no ***");
    assert_eq!(format!("{cache:?}"), "TokenCache { .. }");
}
