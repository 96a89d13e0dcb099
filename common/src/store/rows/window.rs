//! Pages of lists.

use uuid::Uuid;

use super::all;
use crate::store::{Page, PageRequest, StoreError};

/// A page as a range of ids: `low < id < high`, read from one end.
///
/// Both bounds are always there, so that one static statement per direction does for all pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Window {
    pub(crate) low: Uuid,
    pub(crate) high: Uuid,
    /// Read from the high end.
    pub(crate) descending: bool,
    /// One more row than the page holds, to learn whether there is more.
    pub(crate) fetch: i64,
    limit: usize,
    /// The rows come in the opposite of the list's order.
    reversed: bool,
}

impl Window {
    pub(crate) fn of<Id: Copy>(page: &PageRequest<Id>, uuid: impl Fn(Id) -> Uuid) -> Self {
        let limit = page.limit.clamp(1, 1000);
        // What stands before an entry is read from that entry outwards, then turned round.
        let reversed = page.after.is_none() && page.before.is_some();
        let edge = page.after.or(page.before).map(uuid);
        let descending = page.ascending == reversed;
        let (low, high) = match edge {
            Some(edge) if descending => (Uuid::nil(), edge),
            Some(edge) => (edge, Uuid::max()),
            None => (Uuid::nil(), Uuid::max()),
        };
        let fetch = i64::from(limit) + 1;
        Self { low, high, descending, fetch, limit: limit as usize, reversed }
    }

    pub(crate) fn page<R, D>(self, mut rows: Vec<R>) -> Result<Page<D>, StoreError>
    where
        D: TryFrom<R, Error = StoreError>,
    {
        let has_more = rows.len() > self.limit;
        rows.truncate(self.limit);
        if self.reversed {
            rows.reverse();
        }
        Ok(Page { items: all(rows)?, has_more })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_reads_away_from_its_edge() {
        let id = Uuid::from_u128(7);
        let page = |after, before, ascending| {
            Window::of(&PageRequest { after, before, limit: 2, ascending }, |id| id)
        };
        let newest = page(None, None, false);
        assert!(newest.descending && !newest.reversed);
        let older = page(Some(id), None, false);
        assert_eq!((older.low, older.high, older.descending), (Uuid::nil(), id, true));
        let newer = page(None, Some(id), false);
        assert_eq!((newer.low, newer.high, newer.descending), (id, Uuid::max(), false));
        assert!(newer.reversed);
        let next = page(Some(id), None, true);
        assert_eq!((next.low, next.high, next.descending), (id, Uuid::max(), false));
        let previous = page(None, Some(id), true);
        assert_eq!((previous.low, previous.high, previous.descending), (Uuid::nil(), id, true));
        assert!(previous.reversed);
    }
}
