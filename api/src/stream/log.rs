//! The numbered events of a job's life, computed from what the store has of it.
//!
//! 1 is the job queued. Then come, for each attempt, that it runs, its chunks, and that it is over;
//! last the job's final status. Nothing of it is stored, and no number ever changes: what is over does
//! not change, and only the last attempt grows. A claim that was taken back unused leaves no trace,
//! but may have been seen as running, under the number that follows; so the final status of a job that
//! was ever put off leaves out one number.

use inferq_common::{job::Attempt, stream::Outline};

/// One event, or chunks of one attempt with consecutive numbers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Span<'a> {
    /// Of the first of them.
    pub(crate) number: u64,
    pub(crate) what: What<'a>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum What<'a> {
    Queued,
    /// The attempt with this number.
    Running(u32),
    /// `count` chunks from the one with index `first` on.
    Chunks {
        attempt: u32,
        first: u64,
        count: u64,
    },
    Over(&'a Attempt),
    /// The final status.
    Ended,
}

/// The first event after the one numbered `seen`, with those that follow it as long as they are
/// chunks of the same attempt; `None`: there is none yet. `seen` is 0 for one who saw nothing.
pub(crate) fn next_after(outline: &Outline, seen: u64) -> Option<Span<'_>> {
    spans(outline).into_iter().find_map(|span| span.after(seen))
}

/// All there is, in order.
fn spans(outline: &Outline) -> Vec<Span<'_>> {
    let Outline { job, attempts, chunks, .. } = outline;
    let begun = [
        job.attempt,
        attempts.last().map_or(0, |over| over.number),
        chunks.last().map_or(0, |(attempt, _)| *attempt),
    ];
    let begun = begun.into_iter().max().unwrap_or(0);
    let mut list = List::default();
    list.push(What::Queued, 1);
    for attempt in 1..=begun {
        list.push(What::Running(attempt), 1);
        let stored = chunks.iter().find(|(its, _)| *its == attempt);
        if let Some(&(_, count)) = stored.filter(|(_, count)| *count > 0) {
            list.push(What::Chunks { attempt, first: 0, count }, count);
        }
        if let Some(over) = attempts.iter().find(|over| over.number == attempt) {
            list.push(What::Over(over), 1);
        }
    }
    if job.status.is_final() {
        list.last += u64::from(job.deferred);
        list.push(What::Ended, 1);
    }
    list.spans
}

#[derive(Default)]
struct List<'a> {
    spans: Vec<Span<'a>>,
    /// The number given last.
    last: u64,
}

impl<'a> List<'a> {
    fn push(&mut self, what: What<'a>, count: u64) {
        self.spans.push(Span { number: self.last + 1, what });
        self.last += count;
    }
}

impl Span<'_> {
    /// What of it comes after the event numbered `seen`.
    fn after(self, seen: u64) -> Option<Self> {
        match self.what {
            What::Chunks { attempt, first, count } => {
                let skipped = seen.saturating_add(1).saturating_sub(self.number);
                let rest = count.checked_sub(skipped).filter(|rest| *rest > 0)?;
                let what = What::Chunks { attempt, first: first + skipped, count: rest };
                Some(Self { number: self.number + skipped, what })
            }
            _ => Some(self).filter(|span| span.number > seen),
        }
    }
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;
    use inferq_common::{
        job::{AttemptOutcome, JobStatus},
        store::conformance::plain_job,
        usage::Usage,
    };
    use proptest::prelude::*;

    use super::*;

    fn queued() -> Outline {
        let job = plain_job().job;
        Outline { job, result: None, attempts: Vec::new(), chunks: Vec::new() }
    }

    /// One step in a job's life, as the store takes it.
    #[derive(Debug, Clone, Copy)]
    enum Step {
        Claim,
        Chunks(u8),
        PutOff,
        Retry,
        Lose,
        Finish,
        Cancel,
    }

    /// Whether the store allows the step, and what it makes of the job.
    fn take(life: &mut Outline, step: Step) {
        let running = life.job.status == JobStatus::Running;
        let number = life.job.attempt;
        let streamed = life.chunks.last().is_some_and(|(attempt, _)| *attempt == number);
        match step {
            Step::Claim if life.job.status == JobStatus::Queued => {
                life.job.status = JobStatus::Running;
                life.job.attempt += 1;
            }
            Step::Chunks(count) if running && count > 0 => match life.chunks.last_mut() {
                Some((attempt, stored)) if *attempt == number => *stored += u64::from(count),
                _ => life.chunks.push((number, count.into())),
            },
            Step::PutOff if running && !streamed => {
                life.job.status = JobStatus::Queued;
                life.job.attempt -= 1;
                life.job.deferred = true;
            }
            Step::Retry | Step::Lose if running => {
                over(life);
                life.job.status = JobStatus::Queued;
            }
            Step::Finish if running => {
                over(life);
                life.job.status = JobStatus::Succeeded;
            }
            Step::Cancel if !life.job.status.is_final() => {
                if running {
                    over(life);
                }
                life.job.status = JobStatus::Cancelled;
            }
            _ => {}
        }
    }

    fn over(life: &mut Outline) {
        life.attempts.push(Attempt {
            job_id: life.job.id,
            number: life.job.attempt,
            outcome: AttemptOutcome::Failed,
            instance: None,
            started_at: DateTime::UNIX_EPOCH,
            finished_at: DateTime::UNIX_EPOCH,
            error: None,
            usage: Usage::default(),
            vendor_request_id: None,
        });
    }

    /// One event in words, with its number.
    type Told = (u64, String);

    /// What a follower is told of a job as it is, chunk by chunk, at most `limit` events.
    fn follow(life: &Outline, seen: &mut u64, limit: usize) -> Vec<Told> {
        let mut told = Vec::new();
        while told.len() < limit
            && let Some(span) = next_after(life, *seen)
        {
            let word = match span.what {
                What::Chunks { attempt, first, .. } => format!("chunk {attempt}.{first}"),
                What::Over(attempt) => format!("over {}", attempt.number),
                other => format!("{other:?}"),
            };
            *seen = span.number;
            told.push((span.number, word));
        }
        told
    }

    fn steps() -> impl Strategy<Value = Vec<(Step, usize)>> {
        let step = prop_oneof![
            4 => Just(Step::Claim),
            4 => (0_u8..4).prop_map(Step::Chunks),
            1 => Just(Step::PutOff),
            1 => Just(Step::Retry),
            1 => Just(Step::Lose),
            1 => Just(Step::Finish),
            1 => Just(Step::Cancel),
        ];
        // After each step a follower reads so many events, and breaks off.
        prop::collection::vec((step, 0_usize..6), 0..40)
    }

    proptest! {
        #[test]
        fn a_follower_who_breaks_off_at_any_moment_misses_nothing_and_sees_nothing_twice(
            steps in steps()
        ) {
            let mut life = queued();
            let (mut seen, mut told) = (0, Vec::new());
            for (step, n_read) in steps {
                take(&mut life, step);
                told.extend(follow(&life, &mut seen, n_read));
            }
            take(&mut life, Step::Cancel);
            told.extend(follow(&life, &mut seen, usize::MAX));
            let all = follow(&life, &mut 0, usize::MAX);
            prop_assert!(told.is_sorted_by_key(|(number, _)| *number), "{told:?}");
            // Who looked at the right moment saw the claim that was taken back.
            told.retain(|event| all.contains(event) || !event.1.starts_with("Running"));
            prop_assert_eq!(told, all);
        }

        #[test]
        fn numbers_have_no_gap_unless_the_job_was_put_off(steps in steps()) {
            let mut life = queued();
            for (step, _) in steps {
                take(&mut life, step);
            }
            let all = follow(&life, &mut 0, usize::MAX);
            let numbers: Vec<u64> = all.iter().map(|(number, _)| *number).collect();
            let left_out = life.job.deferred && life.job.status.is_final();
            let last = numbers.len() as u64 + u64::from(left_out);
            prop_assert_eq!(numbers.last().copied(), Some(last));
        }
    }

    #[test]
    fn the_numbers_of_a_life_are_these() {
        let mut life = queued();
        for step in [Step::Claim, Step::Retry, Step::Claim, Step::Chunks(3), Step::Finish] {
            take(&mut life, step);
        }
        let all = follow(&life, &mut 0, usize::MAX);
        let expected = [
            "Queued",
            "Running(1)",
            "over 1",
            "Running(2)",
            "chunk 2.0",
            "chunk 2.1",
            "chunk 2.2",
            "over 2",
            "Ended",
        ];
        let words: Vec<&str> = all.iter().map(|(_, word)| word.as_str()).collect();
        assert_eq!(words, expected);
        let span = next_after(&life, 5).unwrap();
        assert_eq!((span.number, span.what), (6, What::Chunks { attempt: 2, first: 1, count: 2 }));
        assert!(next_after(&life, 9).is_none());
        assert!(next_after(&life, u64::MAX - 1).is_none());
    }
}
