//! Where workers have room, as each told with the last job that ended there.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use inferq_common::{
    broker::{Event, Room},
    id::InstanceId,
    vendor::Vendor,
};
use tokio::time::Instant;

/// After this a worker has changed too much to be believed.
const GOOD_FOR: Duration = Duration::from_secs(30);

/// Workers remembered for each vendor.
const MAX_WORKERS: usize = 1024;

/// Places at workers that jobs may be lent to. Clones share it.
///
/// What it says may be wrong by now: the store lends nothing to who is lost, and a worker gives back
/// what it cannot begin.
#[derive(Debug, Clone, Default)]
pub struct Rooms(Arc<Mutex<HashMap<Vendor, Vec<Told>>>>);

#[derive(Debug)]
struct Told {
    instance: InstanceId,
    places: u32,
    at: Instant,
}

impl Rooms {
    /// Notes what a worker tells with the end of a job.
    pub fn note(&self, event: &Event) {
        let Event::Finished { room: Some(room), .. } = event else { return };
        let Room { instance, vendor, places } = *room;
        let mut rooms = self.lock();
        let workers = rooms.entry(vendor).or_default();
        workers.retain(|told| told.instance != instance && told.at.elapsed() < GOOD_FOR);
        if places > 0 && workers.len() < MAX_WORKERS {
            workers.push(Told { instance, places, at: Instant::now() });
        }
    }

    /// Takes a place at the worker that has most of them.
    pub(crate) fn take(&self, vendor: Vendor) -> Option<InstanceId> {
        let mut rooms = self.lock();
        let workers = rooms.get_mut(&vendor)?;
        workers.retain(|told| told.at.elapsed() < GOOD_FOR);
        let most = workers.iter_mut().max_by_key(|told| told.places)?;
        let instance = most.instance;
        most.places -= 1;
        if most.places == 0 {
            workers.retain(|told| told.instance != instance);
        }
        Some(instance)
    }

    /// Forgets a worker that is gone.
    pub(crate) fn forget(&self, instance: InstanceId) {
        for workers in self.lock().values_mut() {
            workers.retain(|told| told.instance != instance);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Vendor, Vec<Told>>> {
        self.0.lock().expect("no one panics while holding the rooms")
    }
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;
    use inferq_common::{id::JobId, job::JobStatus};

    use super::*;

    fn told(instance: InstanceId, places: u32) -> Event {
        Event::Finished {
            job_id: JobId::new(DateTime::UNIX_EPOCH),
            status: JobStatus::Succeeded,
            attempt: 1,
            result: None,
            times: None,
            chunks: 0,
            room: Some(Room { instance, vendor: Vendor::OpenAi, places }),
        }
    }

    fn workers() -> [InstanceId; 2] {
        [(); 2].map(|()| InstanceId::new(DateTime::UNIX_EPOCH))
    }

    #[tokio::test(start_paused = true)]
    async fn places_are_taken_where_most_are_until_none_is_left() {
        let (rooms, [one, two]) = (Rooms::default(), workers());
        assert_eq!(rooms.take(Vendor::OpenAi), None);
        rooms.note(&told(one, 1));
        rooms.note(&told(two, 3));
        assert_eq!(rooms.take(Vendor::Cohere), None);
        let mut taken = [(); 4].map(|()| rooms.take(Vendor::OpenAi).unwrap());
        assert_eq!(taken[..2], [two, two]);
        taken.sort();
        let mut expected = [one, two, two, two];
        expected.sort();
        assert_eq!(taken, expected);
        assert_eq!(rooms.take(Vendor::OpenAi), None);
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_word_of_a_worker_counts_and_not_for_long() {
        let (rooms, [one, two]) = (Rooms::default(), workers());
        rooms.note(&told(one, 5));
        rooms.note(&told(one, 1));
        assert_eq!(rooms.take(Vendor::OpenAi), Some(one));
        assert_eq!(rooms.take(Vendor::OpenAi), None);

        rooms.note(&told(one, 5));
        rooms.note(&told(two, 1));
        rooms.forget(one);
        assert_eq!(rooms.take(Vendor::OpenAi), Some(two));
        assert_eq!(rooms.take(Vendor::OpenAi), None);

        rooms.note(&told(one, 5));
        tokio::time::advance(GOOD_FOR).await;
        assert_eq!(rooms.take(Vendor::OpenAi), None);
    }
}
