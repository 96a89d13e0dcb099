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
/// Of many callers that miss the same key at once, one asks the store and all get its answer. What
/// is too old is dropped as others are asked for, at most once in a lifetime.
#[derive(Debug)]
pub struct Cache<K, V> {
    lifetime: Duration,
    capacity: usize,
    entries: Mutex<Entries<K, V>>,
}

#[derive(Debug)]
struct Entries<K, V> {
    map: HashMap<K, Arc<Entry<V>>>,
    swept_at: Instant,
}

#[derive(Debug)]
struct Entry<V> {
    /// Taken before the store is asked, so that no value looks younger than it is.
    made_at: Instant,
    value: OnceCell<V>,
}

impl<K: Eq + Hash, V: Clone> Cache<K, V> {
    pub fn new(lifetime: Duration, capacity: usize) -> Self {
        let entries = Entries { map: HashMap::new(), swept_at: Instant::now() };
        Self { lifetime, capacity, entries: Mutex::new(entries) }
    }

    /// The value of `key`, loaded if it is not at hand. A failure is not kept.
    pub async fn get<E>(&self, key: K, load: impl Future<Output = Result<V, E>>) -> Result<V, E> {
        let entry = self.entry(key);
        entry.value.get_or_try_init(|| load).await.cloned()
    }

    /// Forgets everything: what was just written must be seen.
    pub fn clear(&self) {
        self.lock().map.clear();
    }

    /// Forgets the value of a key, if there is one and it is such a one.
    pub fn forget_if(&self, key: &K, such: impl FnOnce(&V) -> bool) {
        let mut entries = self.lock();
        if entries.map.get(key).and_then(|entry| entry.value.get()).is_some_and(such) {
            entries.map.remove(key);
        }
    }

    fn entry(&self, key: K) -> Arc<Entry<V>> {
        let now = Instant::now();
        let fresh = |entry: &Entry<V>| now.duration_since(entry.made_at) < self.lifetime;
        let mut entries = self.lock();
        if let Some(entry) = entries.map.get(&key).filter(|entry| fresh(entry)) {
            return Arc::clone(entry);
        }
        if now.duration_since(entries.swept_at) >= self.lifetime
            || entries.map.len() >= self.capacity
        {
            entries.map.retain(|_, entry| fresh(entry));
            entries.swept_at = now;
        }
        if entries.map.len() >= self.capacity {
            entries.map.clear();
        }
        let entry = Arc::new(Entry { made_at: now, value: OnceCell::new() });
        entries.map.insert(key, Arc::clone(&entry));
        entry
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Entries<K, V>> {
        self.entries.lock().expect("no one panics while holding the entries")
    }
}

#[cfg(test)]
mod tests {
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
        assert_eq!(cache.get(0, async { Err::<u32, _>("down") }).await, Err("down"));
        assert_eq!(cache.get(0, async { Ok::<_, &str>(7) }).await, Ok(7));
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
    async fn a_value_is_forgotten_if_it_is_such_a_one() {
        let cache = Cache::new(Duration::from_secs(1), 10);
        cache.get("a", load(1)).await.unwrap();
        cache.forget_if(&"a", |value| *value == 2);
        assert_eq!(cache.get("a", load(3)).await, Ok(1));
        cache.forget_if(&"a", |value| *value == 1);
        assert_eq!(cache.get("a", load(3)).await, Ok(3));
        cache.forget_if(&"b", |_| true);
    }
}
