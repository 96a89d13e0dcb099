//! A small cache of what the store answered a moment ago.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{sync::OnceCell, time::Instant};

/// Values that may be as old as `lifetime` and not older; at most `capacity` of them.
///
/// Of many callers that miss the same key at once, one asks the store and all get its answer, be it a
/// failure: where the store hangs, they wait for it once, not one after the other. What is too old is
/// dropped as others are asked for, at most once in a lifetime.
#[derive(Debug)]
pub struct Cache<K, V, E> {
    lifetime: Duration,
    capacity: usize,
    entries: Mutex<Entries<K, V, E>>,
}

#[derive(Debug)]
struct Entries<K, V, E> {
    map: HashMap<K, Arc<Entry<V, E>>>,
    swept_at: Instant,
}

#[derive(Debug)]
struct Entry<V, E> {
    /// Taken before the store is asked, so that no value looks younger than it is.
    made_at: Instant,
    loaded: OnceCell<Result<V, Arc<E>>>,
}

impl<V, E> Entry<V, E> {
    /// Whether one who asks now may have what it holds or comes to hold.
    fn serves(&self, now: Instant, lifetime: Duration) -> bool {
        now.duration_since(self.made_at) < lifetime && !matches!(self.loaded.get(), Some(Err(_)))
    }
}

impl<K: Eq + Hash, V: Clone, E> Cache<K, V, E> {
    pub fn new(lifetime: Duration, capacity: usize) -> Self {
        let entries = Entries { map: HashMap::new(), swept_at: Instant::now() };
        Self { lifetime, capacity, entries: Mutex::new(entries) }
    }

    /// The value of `key`, loaded if it is not at hand.
    ///
    /// **Cancel safe:** another caller who waits for the same goes on with its own `load`.
    ///
    /// # Errors
    /// That of the load, to all who waited for it. It is not kept: who comes later loads anew.
    pub async fn get(&self, key: K, load: impl Future<Output = Result<V, E>>) -> Result<V, Arc<E>> {
        let entry = self.entry(key);
        entry.loaded.get_or_init(|| async { load.await.map_err(Arc::new) }).await.clone()
    }

    /// Forgets everything: what was just written must be seen.
    pub fn clear(&self) {
        self.lock().map.clear();
    }

    fn entry(&self, key: K) -> Arc<Entry<V, E>> {
        let now = Instant::now();
        let serves = |entry: &Entry<V, E>| entry.serves(now, self.lifetime);
        let mut entries = self.lock();
        if let Some(entry) = entries.map.get(&key).filter(|entry| serves(entry)) {
            return Arc::clone(entry);
        }
        if now.duration_since(entries.swept_at) >= self.lifetime
            || entries.map.len() >= self.capacity
        {
            entries.map.retain(|_, entry| serves(entry));
            entries.swept_at = now;
        }
        if entries.map.len() >= self.capacity {
            entries.map.clear();
        }
        let entry = Arc::new(Entry { made_at: now, loaded: OnceCell::new() });
        entries.map.insert(key, Arc::clone(&entry));
        entry
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Entries<K, V, E>> {
        self.entries.lock().expect("no one panics while holding the entries")
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use futures::future::join_all;
    use tokio::time::{sleep, timeout};

    use super::*;

    fn load(value: u32) -> std::future::Ready<Result<u32, ()>> {
        std::future::ready(Ok(value))
    }

    #[tokio::test(start_paused = true)]
    async fn a_value_is_kept_for_its_lifetime_only() {
        let cache = Cache::new(Duration::from_secs(1), 10);
        assert_eq!(cache.get("a", load(1)).await, Ok(1));
        tokio::time::advance(Duration::from_millis(999)).await;
        assert_eq!(cache.get("a", load(2)).await, Ok(1));
        tokio::time::advance(Duration::from_millis(1)).await;
        assert_eq!(cache.get("a", load(3)).await, Ok(3));
        cache.clear();
        assert_eq!(cache.get("a", load(4)).await, Ok(4));
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_is_not_kept_and_the_number_of_entries_is_bounded() {
        let cache = Cache::new(Duration::from_secs(1), 10);
        let down = async { Err(()) };
        assert_eq!(cache.get(0, down).await, Err(Arc::new(())));
        assert_eq!(cache.get(0, load(7)).await, Ok(7));
        for key in 0..1000u32 {
            cache.get(key, load(key)).await.unwrap();
            assert!(cache.lock().map.len() <= 10);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_too_old_is_not_kept_in_memory() {
        let cache = Cache::new(Duration::from_secs(1), 10);
        cache.get("a", load(1)).await.unwrap();
        tokio::time::advance(Duration::from_secs(1)).await;
        cache.get("b", load(2)).await.unwrap();
        assert_eq!(cache.lock().map.len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_for_a_store_that_hangs_waits_once() {
        let cache = Cache::new(Duration::from_secs(1), 10);
        let n_loads = AtomicU32::new(0);
        let ask = || {
            cache.get("a", async {
                n_loads.fetch_add(1, Ordering::Relaxed);
                sleep(Duration::from_secs(5)).await;
                Err::<u32, _>("hangs")
            })
        };
        let began = Instant::now();
        for answer in join_all((0..50).map(|_| ask())).await {
            assert_eq!(answer, Err(Arc::new("hangs")));
        }
        assert_eq!(began.elapsed(), Duration::from_secs(5));
        assert_eq!(n_loads.load(Ordering::Relaxed), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn who_comes_later_does_not_wait_for_an_old_question() {
        let cache = Cache::new(Duration::from_secs(1), 10);
        let hangs = cache.get("a", async {
            sleep(Duration::from_millis(1500)).await;
            Err::<u32, ()>(())
        });
        let later = async {
            sleep(Duration::from_secs(1)).await;
            cache.get("a", load(2)).await
        };
        assert_eq!(tokio::join!(hangs, later), (Err(Arc::new(())), Ok(2)));
        assert_eq!(cache.get("a", load(3)).await, Ok(2), "the old failure leaves it alone");
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_goes_on_with_what_another_one_has_left() {
        let cache = Cache::new(Duration::from_secs(1), 10);
        let hangs = cache.get("a", std::future::pending());
        let leaves = timeout(Duration::from_millis(100), hangs);
        let waits = cache.get("a", load(2));
        let (left, answer) = tokio::join!(leaves, waits);
        assert!(left.is_err());
        assert_eq!(answer, Ok(2));
    }
}
