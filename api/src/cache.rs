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
/// Of many callers that miss the same key at once, one asks the store and all get its answer.
#[derive(Debug)]
pub(crate) struct Cache<K, V> {
    lifetime: Duration,
    capacity: usize,
    entries: Mutex<HashMap<K, Arc<Entry<V>>>>,
}

#[derive(Debug)]
struct Entry<V> {
    /// Taken before the store is asked, so that no value looks younger than it is.
    made_at: Instant,
    value: OnceCell<V>,
}

impl<K: Eq + Hash, V: Clone> Cache<K, V> {
    pub(crate) fn new(lifetime: Duration, capacity: usize) -> Self {
        Self { lifetime, capacity, entries: Mutex::new(HashMap::new()) }
    }

    /// The value of `key`, loaded if it is not at hand. A failure is not kept.
    pub(crate) async fn get<E>(
        &self,
        key: K,
        load: impl Future<Output = Result<V, E>>,
    ) -> Result<V, E> {
        let entry = self.entry(key);
        entry.value.get_or_try_init(|| load).await.cloned()
    }

    /// Forgets everything: what was just written must be seen.
    pub(crate) fn clear(&self) {
        self.lock().clear();
    }

    fn entry(&self, key: K) -> Arc<Entry<V>> {
        let now = Instant::now();
        let fresh = |entry: &Entry<V>| now.duration_since(entry.made_at) < self.lifetime;
        let mut entries = self.lock();
        if let Some(entry) = entries.get(&key).filter(|entry| fresh(entry)) {
            return Arc::clone(entry);
        }
        if entries.len() >= self.capacity {
            entries.retain(|_, entry| fresh(entry));
        }
        if entries.len() >= self.capacity {
            entries.clear();
        }
        let entry = Arc::new(Entry { made_at: now, value: OnceCell::new() });
        entries.insert(key, Arc::clone(&entry));
        entry
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<K, Arc<Entry<V>>>> {
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
            assert!(cache.lock().len() <= 10);
        }
    }
}
