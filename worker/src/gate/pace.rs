//! How fast a model's jobs go through, and so when those that must wait should come back.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

use crate::weighted::N_LANES;

/// Answers are counted in spans of this; the rate is that of the present one and the one before.
const SPAN: TimeDelta = TimeDelta::seconds(10);
/// What one answer counts for in the mean of how long they take.
const SHARE: f64 = 0.1;
/// Jobs come back this much faster than the model has last served them, so that a lane that
/// recovers has something to serve. What comes too early is put off again, which is cheap.
const EAGERNESS: f64 = 2.0;
/// At least this many come back each second, however slow the model was.
const MIN_PER_SEC: f64 = 1.0;
/// Where the rate is not known, jobs are put off for no longer than this: by then it is.
const MAX_UNKNOWN: TimeDelta = TimeDelta::seconds(4);
/// No job is put off for longer at a time: the lane may have recovered long before.
pub(super) const MAX_DEFERRAL: TimeDelta = TimeDelta::minutes(10);

/// The recent rate of one model's answers, and the moments given to jobs that were put off.
#[derive(Debug, Default)]
pub(super) struct Pace {
    began_at: Option<DateTime<Utc>>,
    n_now: u32,
    n_before: u32,
    /// How long an answer takes, of late.
    mean_secs: Option<f64>,
    /// For each priority the next moment that is free. They do not wait for each other: urgent jobs
    /// must not come back behind all others.
    next: [Option<DateTime<Utc>>; N_LANES],
}

impl Pace {
    /// Counts an answer that took so long.
    pub(super) fn served(&mut self, took: TimeDelta, now: DateTime<Utc>) {
        let secs = took.to_std().unwrap_or_default().as_secs_f64().max(0.001);
        self.mean_secs = Some(self.mean_secs.map_or(secs, |mean| mean + (secs - mean) * SHARE));
        let since = self.began_at.map_or(TimeDelta::MAX, |began_at| now - began_at);
        if since >= SPAN || since < TimeDelta::zero() {
            let follows = since >= SPAN && since < SPAN * 2;
            self.n_before = if follows { self.n_now } else { 0 };
            self.n_now = 0;
            let began_at = self.began_at.filter(|_| follows);
            self.began_at = Some(began_at.map_or(now, |began_at| began_at + SPAN));
        }
        self.n_now = self.n_now.saturating_add(1);
    }

    /// Answers per second; 0 where there was none of late.
    pub(super) fn per_sec(&self, now: DateTime<Utc>) -> f64 {
        let Some(began_at) = self.began_at else { return 0.0 };
        let since = now - began_at;
        if since >= SPAN * 3 || since < TimeDelta::zero() {
            return 0.0;
        }
        let span = since + if self.n_before > 0 { SPAN } else { TimeDelta::zero() };
        let span = span.max(TimeDelta::seconds(1)).to_std().unwrap_or_default();
        f64::from(self.n_now + self.n_before) / span.as_secs_f64()
    }

    /// A moment for a job of the priority at `index` to come back, not before `earliest`. Moments
    /// are spaced by the rate that was, or by the one that `limit` calls at once come to where that
    /// is higher. `jitter` is any number from 0 to 1.
    pub(super) fn slot(
        &mut self,
        index: usize,
        earliest: DateTime<Utc>,
        now: DateTime<Utc>,
        limit: f64,
        jitter: f64,
    ) -> DateTime<Utc> {
        let (mean_secs, horizon) = match self.mean_secs {
            Some(mean_secs) => (mean_secs, MAX_DEFERRAL),
            // As if calls were short, until one has ended.
            None => (0.25, (earliest - now + MAX_UNKNOWN).min(MAX_DEFERRAL)),
        };
        let per_sec = (EAGERNESS * self.per_sec(now)).max(limit / mean_secs);
        let spacing = Duration::from_secs_f64(per_sec.max(MIN_PER_SEC).recip());
        let spacing = TimeDelta::from_std(spacing).unwrap_or_default();
        let next = &mut self.next[index];
        // A moment further away than any that is given was noted before the clock was turned back.
        let free = next.filter(|&next| next <= now + MAX_DEFERRAL + TimeDelta::seconds(1));
        let slot = free.map_or(earliest, |free| free.max(earliest));
        if slot <= now + horizon {
            *next = Some(slot + spacing);
            return slot;
        }
        // More are waiting than can be told apart: anywhere in the later half.
        *next = free;
        let half = (horizon / 2).to_std().unwrap_or_default();
        let late = TimeDelta::from_std(half.mul_f64(1.0 + jitter.clamp(0.0, 1.0)));
        (now + late.unwrap_or(horizon)).max(earliest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: i64) -> DateTime<Utc> {
        DateTime::UNIX_EPOCH + TimeDelta::milliseconds(millis)
    }

    /// Twenty answers a second from `from` to `to` (milliseconds).
    fn steady(pace: &mut Pace, from: i64, to: i64) {
        for now in (from..to).step_by(50) {
            pace.served(TimeDelta::milliseconds(100), at(now));
        }
    }

    #[test]
    fn the_rate_is_that_of_the_last_seconds() {
        let mut pace = Pace::default();
        assert!(pace.per_sec(at(0)) < 1e-9);
        for (from, to) in [(0, 2000), (2000, 9000), (9000, 14_000), (14_000, 60_000)] {
            steady(&mut pace, from, to);
            let rate = pace.per_sec(at(to));
            assert!((18.0..=22.0).contains(&rate), "{rate} at {to}");
        }
        let late = pace.per_sec(at(70_000));
        assert!(late > 1.0 && late < 15.0, "{late}");
        assert!(pace.per_sec(at(100_000)) < 1e-9);
    }

    #[test]
    fn jobs_come_back_one_after_another_and_a_little_faster_than_they_went() {
        let mut pace = Pace::default();
        steady(&mut pace, 0, 20_000);
        let now = at(20_000);
        let slots: Vec<_> = (0..400).map(|_| pace.slot(1, at(22_000), now, 2.0, 0.5)).collect();
        assert_eq!(slots[0], at(22_000));
        assert!(slots.windows(2).all(|pair| pair[0] < pair[1]));
        let took = (slots[399] - slots[0]).as_seconds_f64();
        assert!((9.0..=11.0).contains(&took), "400 at 40 a second took {took} s");
        // Urgent ones do not stand behind them.
        assert_eq!(pace.slot(0, at(22_000), now, 2.0, 0.5), at(22_000));
        // Moments that passed unused are gone.
        assert_eq!(pace.slot(1, at(90_000), at(88_000), 1.0, 0.5), at(90_000));
    }

    #[test]
    fn no_job_is_put_off_for_longer_than_ten_minutes() {
        let mut pace = Pace::default();
        let now = at(0);
        let unknown: Vec<_> = (0..1000_i32)
            .map(|n| pace.slot(1, at(2000), now, 8.0, f64::from(n % 9) / 8.0))
            .collect();
        assert!(unknown.iter().all(|slot| (at(2000)..=at(6000)).contains(slot)));
        assert!(unknown[..80].windows(2).all(|pair| pair[0] < pair[1]));
        let mut pace = Pace::default();
        pace.served(TimeDelta::seconds(5), at(-100));
        let slots: Vec<_> = (0..5000_i32)
            .map(|n| pace.slot(1, at(2000), now, 1.0, f64::from(n % 100) / 100.0))
            .collect();
        assert!(slots.iter().all(|&slot| slot <= now + MAX_DEFERRAL));
        let late = &slots[2000..];
        assert!(late.iter().all(|&slot| slot >= now + MAX_DEFERRAL / 2));
        let in_one_second = late.iter().filter(|slot| slot.timestamp() == 450).count();
        assert!(in_one_second < 60, "{in_one_second}");
        // The clock was turned back by an hour: what was noted is forgotten.
        assert_eq!(pace.slot(1, at(-3_598_000), at(-3_600_000), 1.0, 0.5), at(-3_598_000));
    }
}
