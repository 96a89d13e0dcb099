//! What is known of one model with one credential, and who waits for it.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use chrono::{DateTime, TimeDelta, Utc};
use inferq_common::job::Priority;
use tokio::sync::Notify;

use super::{
    aimd::{Aimd, Room, Round},
    circuit::{Circuit, Epoch},
    pace::Pace,
};
use crate::attempt::SHORT_WAIT;

#[derive(Debug)]
pub(super) struct Lane {
    pub(super) aimd: Aimd,
    /// Opens when this model alone is refused.
    pub(super) circuit: Circuit,
    pub(super) pace: Pace,
    /// Jobs that wait in this process, first come first served, each with its bell.
    pub(super) line: VecDeque<(u64, Arc<Notify>)>,
    pub(super) used_at: DateTime<Utc>,
}

/// What a call that started must give back.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tokens {
    pub(super) round: Round,
    pub(super) credential: Epoch,
    pub(super) model: Epoch,
}

impl Lane {
    pub(super) fn new(concurrency: usize, now: DateTime<Utc>) -> Self {
        Self {
            aimd: Aimd::new(concurrency),
            circuit: Circuit::default(),
            pace: Pace::default(),
            line: VecDeque::new(),
            used_at: now,
        }
    }

    pub(super) fn is_idle(&self) -> bool {
        self.aimd.in_flight() == 0 && self.line.is_empty()
    }

    /// Rings for the first of those who wait: it looks whether its turn has come. It rings again as
    /// it leaves, so nobody is forgotten.
    pub(super) fn call_next(&self) {
        if let Some((_, bell)) = self.line.front() {
            bell.notify_one();
        }
    }

    /// About how long one more would wait in the line; nothing where the rate is not known.
    pub(super) fn expected_wait(&self, room: Room, now: DateTime<Utc>) -> TimeDelta {
        let closed = match room {
            Room::ClosedFor(left) => left,
            Room::Yes | Room::Full => Duration::ZERO,
        };
        let per_sec = self.pace.per_sec(now);
        let ahead = u32::try_from(self.line.len() + 1).unwrap_or(u32::MAX);
        let in_line = if per_sec > 0.0 { f64::from(ahead) / per_sec } else { 0.0 };
        let in_line = Duration::try_from_secs_f64(in_line).unwrap_or(Duration::MAX);
        TimeDelta::from_std(closed.saturating_add(in_line)).unwrap_or(TimeDelta::MAX)
    }

    /// When a job that is not to wait here should come back.
    pub(super) fn slot(
        &mut self,
        priority: Priority,
        now: DateTime<Utc>,
        jitter: f64,
    ) -> DateTime<Utc> {
        let opens_in = self.aimd.closed_for(now).and_then(|left| TimeDelta::from_std(left).ok());
        let earliest = now + opens_in.unwrap_or_default().max(SHORT_WAIT);
        let index = Priority::ALL.iter().position(|&one| one == priority).unwrap_or_default();
        self.pace.slot(index, earliest, now, self.aimd.limit(), jitter)
    }
}
