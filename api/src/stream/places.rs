//! Places for open streams. All accounts share them, and none may take them all.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard},
};

use inferq_common::id::AccountId;

use crate::error::ApiError;

/// Streams that may be open at once: each may hold up to half a megabyte of chunks, and one that
/// follows a job asks the store twice a second.
pub(crate) const MAX_STREAMS: usize = 1024;

/// The places of this process.
#[derive(Debug)]
pub(crate) struct Places {
    max_per_account: usize,
    taken: Arc<Mutex<Taken>>,
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    /// Accounts without any are not in it.
    by_account: HashMap<AccountId, usize>,
}

/// One place, free again once this is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    account: AccountId,
    taken: Arc<Mutex<Taken>>,
}

impl Places {
    pub(crate) fn new(max_per_account: usize) -> Self {
        Self { max_per_account, taken: Arc::default() }
    }

    /// # Errors
    /// `Unavailable` where as many streams are open as may be, of the account or in all.
    pub(crate) fn take(&self, account: &AccountId) -> Result<Place, ApiError> {
        let mut taken = lock(&self.taken);
        if taken.all >= MAX_STREAMS {
            return Err(ApiError::unavailable("too many event streams are open"));
        }
        let its = taken.by_account.get(account).copied().unwrap_or_default();
        if its >= self.max_per_account {
            return Err(ApiError::unavailable("too many event streams of this account are open"));
        }
        taken.all += 1;
        taken.by_account.insert(account.clone(), its + 1);
        Ok(Place { account: account.clone(), taken: Arc::clone(&self.taken) })
    }

    #[cfg(test)]
    pub(crate) fn n_taken(&self) -> usize {
        lock(&self.taken).all
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = lock(&self.taken);
        taken.all -= 1;
        if let Some(its) = taken.by_account.get_mut(&self.account) {
            *its -= 1;
            if *its == 0 {
                taken.by_account.remove(&self.account);
            }
        }
    }
}

fn lock(taken: &Mutex<Taken>) -> MutexGuard<'_, Taken> {
    taken.lock().expect("no one panics while counting")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(name: &str) -> AccountId {
        name.parse().unwrap()
    }

    #[track_caller]
    fn refused(places: &Places, name: &str) -> &'static str {
        match places.take(&account(name)) {
            Err(ApiError::Unavailable { detail, .. }) => detail,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_account_takes_no_more_than_its_part() {
        let places = Places::new(2);
        let first = places.take(&account("a")).unwrap();
        let _second = places.take(&account("a")).unwrap();
        assert_eq!(refused(&places, "a"), "too many event streams of this account are open");
        let other = places.take(&account("b")).unwrap();
        drop(other);
        assert!(!lock(&places.taken).by_account.contains_key(&account("b")), "nothing is left");
        drop(first);
        let _third = places.take(&account("a")).unwrap();
        assert_eq!(places.n_taken(), 2);
    }

    #[test]
    fn all_accounts_together_take_no_more_than_there_are() {
        let places = Places::new(MAX_STREAMS - 1);
        let take = |name| places.take(&account(name)).unwrap();
        let mut taken: Vec<Place> = (1..MAX_STREAMS).map(|_| take("a")).collect();
        taken.push(take("b"));
        assert_eq!(refused(&places, "c"), "too many event streams are open");
        taken.pop();
        taken.push(take("c"));
    }
}
