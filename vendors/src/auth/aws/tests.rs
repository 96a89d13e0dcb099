use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use futures::future::join_all;
use tokio::sync::Semaphore;

use super::*;

fn noon() -> DateTime<Utc> {
    "2026-11-20T12:00:00Z".parse().unwrap()
}

/// A place that hands out keys for an hour, numbered; or, without permits left, waits.
#[derive(Clone)]
struct Place {
    n_fetches: Arc<AtomicUsize>,
    gate: Arc<Semaphore>,
    /// Every fetch answers the same keys.
    never_changes: bool,
    fails_with: Option<ErrorClass>,
}

impl Place {
    fn open() -> Self {
        let gate = Arc::new(Semaphore::new(Semaphore::MAX_PERMITS));
        Self { n_fetches: Arc::default(), gate, never_changes: false, fails_with: None }
    }

    fn keyring(&self) -> Keyring {
        let place = self.clone();
        Keyring::found(Box::new(move |now| {
            let place = place.clone();
            Box::pin(async move {
                let number = place.n_fetches.fetch_add(1, Ordering::SeqCst) + 1;
                place.gate.acquire().await.unwrap().forget();
                if let Some(class) = place.fails_with {
                    return Err(VendorError::new(class, "no keys"));
                }
                let number = if place.never_changes { 0 } else { number };
                let keys = Keys {
                    access_key_id: format!("ASIA{number}"),
                    secret_access_key: format!("secret-number-{number}").into(),
                    session_token: Some(format!("token-number-{number}").into()),
                };
                Ok((keys.joined(), now + TimeDelta::hours(1)))
            })
        }))
    }

    fn n_fetches(&self) -> usize {
        self.n_fetches.load(Ordering::SeqCst)
    }
}

async fn id(keyring: &Keyring, now: DateTime<Utc>) -> Result<String, ErrorClass> {
    let keys = keyring.keys(now).await.map_err(|error| error.class())?;
    Ok(keys.access_key_id)
}

#[tokio::test]
async fn a_hundred_who_wait_cost_one_fetch() {
    let place = Place { gate: Arc::new(Semaphore::new(0)), ..Place::open() };
    let keyring = place.keyring();
    let all = join_all((0..100).map(|_| id(&keyring, noon())));
    let open = async {
        tokio::task::yield_now().await;
        place.gate.add_permits(100);
    };
    let (ids, ()) = tokio::join!(all, open);
    assert!(ids.iter().all(|id| id.as_deref() == Ok("ASIA1")));
    assert_eq!(place.n_fetches(), 1);
}

#[tokio::test]
async fn keys_are_replaced_before_they_end() {
    let keyring = Place::open().keyring();
    for (minute, expected) in [(0, "ASIA1"), (54, "ASIA1"), (56, "ASIA2"), (110, "ASIA2")] {
        let at = noon() + TimeDelta::minutes(minute);
        assert_eq!(id(&keyring, at).await.as_deref(), Ok(expected), "{minute}");
    }
}

#[tokio::test]
async fn keys_that_are_refused_are_replaced_once_for_all_who_were_refused() {
    let place = Place::open();
    let keyring = place.keyring();
    assert_eq!(id(&keyring, noon()).await.as_deref(), Ok("ASIA1"));
    for _ in 0..100 {
        assert!(keyring.replace("ASIA1", noon()).await);
    }
    assert_eq!(id(&keyring, noon()).await.as_deref(), Ok("ASIA2"));
    assert_eq!(place.n_fetches(), 2);
    // The new ones are refused as well: there are no others so soon.
    assert!(!keyring.replace("ASIA2", noon()).await);
}

#[tokio::test]
async fn the_same_keys_again_are_no_reason_to_try_again() {
    let place = Place { never_changes: true, ..Place::open() };
    let keyring = place.keyring();
    id(&keyring, noon()).await.unwrap();
    assert!(!keyring.replace("ASIA0", noon()).await);
    assert_eq!(place.n_fetches(), 2);
    let keys = keyring.keys(noon()).await.unwrap();
    assert!(!Keyring::Fixed(keys).replace("ASIA0", noon()).await);
}

#[tokio::test]
async fn where_there_are_no_keys_the_places_are_left_alone_for_a_while() {
    let place = Place { fails_with: Some(ErrorClass::Auth), ..Place::open() };
    let keyring = place.keyring();
    for (second, n_fetches) in [(0, 1), (29, 1), (30, 2)] {
        let at = noon() + TimeDelta::seconds(second);
        assert_eq!(id(&keyring, at).await, Err(ErrorClass::Auth));
        assert_eq!(place.n_fetches(), n_fetches, "{second}");
    }
    let place = Place { fails_with: Some(ErrorClass::Transient), ..Place::open() };
    let keyring = place.keyring();
    for n_fetches in 1..3 {
        assert_eq!(id(&keyring, noon()).await, Err(ErrorClass::Transient));
        assert_eq!(place.n_fetches(), n_fetches);
    }
}

#[tokio::test]
async fn neither_the_keys_nor_those_before_are_shown() {
    let keyring = Place::open().keyring();
    id(&keyring, noon()).await.unwrap();
    assert!(keyring.replace("ASIA1", noon()).await);
    let mut words = "secret-number-1 token-number-1 secret-number-2 token-number-2".to_owned();
    keyring.redact(&mut words);
    assert_eq!(words, "*** *** *** ***");
    let shown = format!("{keyring:?} {:?}", keyring.keys(noon()).await.unwrap());
    assert!(!shown.contains("number"), "{shown}");
}

#[test]
fn half_a_pair_of_settings_is_refused() {
    let of = |id: Option<&str>, secret: Option<&str>, token: Option<&str>| {
        let set = |text: Option<&str>| text.map(SecretString::from);
        Keys::of(&VendorConfig {
            access_key_id: set(id),
            secret_access_key: set(secret),
            session_token: set(token),
            ..VendorConfig::default()
        })
    };
    assert!(of(None, None, None).unwrap().is_none());
    assert!(of(Some(""), Some(" "), None).unwrap().is_none());
    let keys = of(Some("AKID"), Some("s"), Some("t")).unwrap().unwrap();
    assert_eq!(Keys::parted(&keys.joined()).unwrap().access_key_id, "AKID");
    for (half, named) in [
        (of(Some("AKID"), None, None), "secret_access_key: "),
        (of(None, Some("s"), None), "access_key_id: "),
        (of(None, None, Some("t")), "access_key_id: "),
    ] {
        assert!(half.unwrap_err().starts_with(named));
    }
}
