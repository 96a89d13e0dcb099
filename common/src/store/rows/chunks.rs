//! Groups of chunks: how they are stored, which may follow, and what is read of them.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use sqlx::FromRow;
use uuid::Uuid;

use super::{Reader, StoreError};
use crate::{
    error::{ErrorClass, JobError},
    id::{InstanceId, JobId},
    job::{Job, JobStatus, Json, Outcome},
    store::Claim,
    stream::ChunkGroup,
};

/// Groups that one answer holds at most: a window over a long stream reads no further.
pub(crate) const MAX_GROUPS_READ: i64 = 1000;

/// The chunks of a group for their column: a JSON array, each element as it came.
pub(crate) fn chunks_text(chunks: &[Json]) -> String {
    let bytes: usize = chunks.iter().map(|chunk| chunk.as_str().len() + 1).sum();
    let mut text = String::with_capacity(bytes + 1);
    for chunk in chunks {
        text.push(if text.is_empty() { '[' } else { ',' });
        text.push_str(chunk.as_str());
    }
    text.push(']');
    text
}

/// How many chunks a group holds, for its column; `None` for a group that cannot be stored, which
/// is one without any.
pub(crate) fn n_chunks(group: &ChunkGroup) -> Option<i32> {
    i32::try_from(group.chunks.len()).ok().filter(|n| *n > 0)
}

/// The place of a chunk for its column; no stream comes near the bound.
pub(crate) fn index_of(index: u64) -> i64 {
    i64::try_from(index).unwrap_or(i64::MAX)
}

/// Where the search for a job's twin ends.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TwinBounds {
    /// Below the ids of all jobs made since the moment.
    pub(crate) low: Uuid,
    /// The account's latest jobs that are looked at: a twin behind more of them is not found.
    pub(crate) limit: i64,
}

impl TwinBounds {
    pub(crate) fn of(since: DateTime<Utc>) -> Self {
        // The first 48 bits of an id are the milliseconds of its making.
        let millis = u64::try_from(since.timestamp_millis()).unwrap_or(0);
        Self { low: Uuid::from_u128(u128::from(millis) << 80), limit: 10_000 }
    }
}

/// A row of `job_chunks` without its job and attempt.
#[derive(Debug, FromRow)]
pub(crate) struct ChunkRow {
    pub(crate) first: i64,
    pub(crate) n: i32,
    pub(crate) chunks: String,
}

/// What rows hold of an attempt from the chunk with index `from` on; the first is cut there.
pub(crate) fn chunk_groups(
    job_id: JobId,
    attempt: u32,
    from: u64,
    rows: Vec<ChunkRow>,
) -> Result<Vec<ChunkGroup>, StoreError> {
    let read = Reader("job_chunks");
    let mut groups = Vec::with_capacity(rows.len());
    for row in rows {
        let first: u64 = read.count("first", row.first)?;
        let mut chunks: Vec<Json> = read.document("chunks", &row.chunks)?;
        if usize::try_from(row.n).ok() != Some(chunks.len()) {
            return Err(read.corrupt("n", "it is not the number of chunks"));
        }
        let skipped = usize::try_from(from.saturating_sub(first)).unwrap_or(usize::MAX);
        chunks.drain(..skipped.min(chunks.len()));
        if !chunks.is_empty() {
            groups.push(ChunkGroup { job_id, attempt, first: first.max(from), chunks });
        }
    }
    Ok(groups)
}

/// Cuts what is to be appended into rounds that hold each job once, in the order of jobs: a group
/// follows what the rounds before it stored. The numbers are places in `groups`.
pub(crate) fn rounds(groups: &[(InstanceId, ChunkGroup)]) -> Vec<Vec<usize>> {
    let mut rounds: Vec<Vec<usize>> = Vec::new();
    let mut seen: HashMap<JobId, usize> = HashMap::new();
    for (index, (_, group)) in groups.iter().enumerate() {
        let round = seen.entry(group.job_id).or_default();
        if rounds.len() == *round {
            rounds.push(Vec::new());
        }
        rounds[*round].push(index);
        *round += 1;
    }
    for round in &mut rounds {
        round.sort_by_key(|index| groups[*index].1.job_id);
    }
    rounds
}

/// Whether this outcome gives an attempt back that may have passed part of a stream on.
///
/// Most outcomes do not, and need not look for chunks.
pub(crate) fn gives_stream_back(claim: &Claim, outcome: &Outcome) -> bool {
    let given_back = matches!(outcome, Outcome::HandedBack | Outcome::Deferred { .. });
    claim.job.stream && given_back
}

/// Whether the loss of its process may end a job because part of its stream was passed on.
pub(crate) fn loses_stream(job: &Job) -> bool {
    job.stream && job.status == JobStatus::Running
}

/// The error of a job whose process went away after it had passed part of a stream on.
pub(crate) fn stream_lost(id: JobId) -> JobError {
    let message = format!(
        "the process that ran the job went away after part of its stream had been passed on, \
         which is not repeated by itself: POST /v5/jobs/{id}/retry runs the job again"
    );
    JobError::new(ErrorClass::Lost, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(text: &str) -> Json {
        Json::parse(text).unwrap()
    }

    fn row(first: i64, texts: &[&str]) -> ChunkRow {
        let chunks: Vec<Json> = texts.iter().map(|text| json(text)).collect();
        ChunkRow { first, n: i32::try_from(texts.len()).unwrap(), chunks: chunks_text(&chunks) }
    }

    #[test]
    fn chunks_survive_their_column() {
        let texts = ["{\n \"a\" : 1.50\r\n}", "\"]\\u0000,[\"", "[[],\n[]]", "1e400", "null"];
        let groups = chunk_groups(JobId::new(DateTime::UNIX_EPOCH), 1, 0, vec![row(0, &texts)]);
        let groups = groups.unwrap();
        let back: Vec<&str> = groups[0].chunks.iter().map(Json::as_str).collect();
        assert_eq!(back, texts);
    }

    #[test]
    fn the_first_group_is_cut() {
        let id = JobId::new(DateTime::UNIX_EPOCH);
        let read = |from| {
            let rows = vec![row(2, &["2", "3", "4"]), row(5, &["5"])];
            let groups = chunk_groups(id, 1, from, rows).unwrap();
            groups.iter().map(|group| (group.first, group.chunks.len())).collect::<Vec<_>>()
        };
        assert_eq!(read(2), [(2, 3), (5, 1)]);
        assert_eq!(read(4), [(4, 1), (5, 1)]);
        assert_eq!(read(5), [(5, 1)]);
        assert_eq!(read(6), []);
        assert_eq!(read(u64::MAX), []);
    }

    #[test]
    fn an_id_made_since_a_moment_is_above_its_bound() {
        let since = DateTime::from_timestamp_micros(1_800_000_000_678_901).unwrap();
        let low = TwinBounds::of(since).low;
        assert!(JobId::new(since).as_uuid() > low);
        let before = since - chrono::TimeDelta::milliseconds(1);
        assert!(JobId::new(before).as_uuid() < low);
        assert_eq!(TwinBounds::of(DateTime::<Utc>::MIN_UTC).low, Uuid::nil());
    }

    #[test]
    fn a_wrong_number_of_chunks_is_named() {
        let id = JobId::new(DateTime::UNIX_EPOCH);
        let rows = vec![ChunkRow { n: 2, ..row(0, &["1"]) }];
        let error = chunk_groups(id, 1, 0, rows).unwrap_err();
        assert_eq!(error.to_string(), "cannot read job_chunks.n");
    }

    #[test]
    fn a_round_holds_each_job_once_in_the_order_of_jobs() {
        let now = DateTime::UNIX_EPOCH;
        let instance = InstanceId::new(now);
        let mut ids = [JobId::new(now), JobId::new(now)];
        ids.sort_unstable();
        let group = |job: usize| {
            let (job_id, chunks) = (ids[job], vec![json("1")]);
            (instance, ChunkGroup { job_id, attempt: 1, first: 0, chunks })
        };
        let groups = [group(1), group(1), group(0), group(1)];
        assert_eq!(rounds(&groups), [vec![2, 0], vec![1], vec![3]]);
        assert!(rounds(&[]).is_empty());
    }
}
