use super::{
    Fixture, a_job, acme, at, builders::JobBuilder, deferred_with, failed, retry_at, succeeded,
};
use crate::{
    id::{InstanceId, JobId},
    job::{Json, Outcome},
    store::Claim,
    stream::ChunkGroup,
};

/// More than any case stores.
const ALL: usize = usize::MAX;

pub(super) fn streaming() -> JobBuilder {
    a_job().with(|job| job.stream = true)
}

/// Chunks of the claimed attempt, the first of which has this index.
pub(super) fn group(claim: &Claim, first: u64, texts: &[&str]) -> (InstanceId, ChunkGroup) {
    let chunks = texts.iter().map(|text| Json::parse(*text).unwrap()).collect();
    let group = ChunkGroup { job_id: claim.job.id, attempt: claim.attempt(), first, chunks };
    (claim.instance, group)
}

impl Fixture {
    pub(super) async fn append_one(&self, claim: &Claim, first: u64, texts: &[&str]) -> bool {
        self.append_chunks(&[group(claim, first, texts)]).await.unwrap() == [true]
    }

    /// All chunks of an attempt, from the one with index `from` on; they must leave no gap.
    pub(super) async fn chunks_from(&self, id: JobId, attempt: u32, from: u64) -> Vec<String> {
        let mut chunks = Vec::new();
        for group in self.read_chunks(id, attempt, from, ALL).await.unwrap() {
            assert_eq!((group.job_id, group.attempt), (id, attempt));
            assert_eq!(group.first, from + chunks.len() as u64);
            chunks.extend(group.chunks.iter().map(|chunk| chunk.as_str().to_owned()));
        }
        chunks
    }

    async fn chunks(&self, claim: &Claim) -> Vec<String> {
        self.chunks_from(claim.job.id, claim.attempt(), 0).await
    }

    /// Attempts with chunks, and how many.
    async fn counts(&self, id: JobId) -> Vec<(u32, u64)> {
        self.outline(id, &acme()).await.unwrap().unwrap().chunks
    }
}

pub async fn chunks_are_stored_in_their_order(fixture: Fixture) {
    let instance = fixture.instance().await;
    let one = fixture.running(streaming(), instance).await;
    let two = fixture.running(streaming(), instance).await;
    assert!(fixture.append_chunks(&[]).await.unwrap().is_empty());
    // Several of one job in one call, between those of another.
    let batch = [
        group(&two, 0, &["20", "21"]),
        group(&one, 0, &["10"]),
        group(&two, 2, &["22"]),
        group(&one, 1, &["11", "12"]),
        group(&two, 3, &["23"]),
    ];
    assert_eq!(fixture.append_chunks(&batch).await.unwrap(), [true; 5]);
    assert!(fixture.append_one(&one, 3, &["13"]).await);
    assert_eq!(fixture.chunks(&one).await, ["10", "11", "12", "13"]);
    assert_eq!(fixture.chunks(&two).await, ["20", "21", "22", "23"]);
    assert_eq!(fixture.counts(one.job.id).await, [(1, 4)]);
    assert!(fixture.read_chunks(one.job.id, 2, 0, ALL).await.unwrap().is_empty());
    assert!(fixture.read_chunks(JobId::new(at(0)), 1, 0, ALL).await.unwrap().is_empty());
}

pub async fn a_group_must_follow_what_is_stored(fixture: Fixture) {
    let instance = fixture.instance().await;
    let claim = fixture.running(streaming(), instance).await;
    let other = fixture.running(streaming(), instance).await;
    assert!(!fixture.append_one(&claim, 1, &["1"]).await, "the first is number zero");
    assert!(fixture.append_one(&claim, 0, &["0", "1"]).await);
    let batch = [
        group(&claim, 1, &["1"]),
        group(&other, 0, &["0"]),
        group(&claim, 3, &["3"]),
        group(&claim, 2, &[]),
        group(&claim, u64::MAX, &["9"]),
        group(&claim, 2, &["2"]),
        group(&claim, 4, &["4"]),
        group(&claim, 3, &["3"]),
    ];
    let held = fixture.append_chunks(&batch).await.unwrap();
    assert_eq!(held, [false, true, false, false, false, true, false, true]);
    assert_eq!(fixture.chunks(&claim).await, ["0", "1", "2", "3"]);
    assert_eq!(fixture.chunks(&other).await, ["0"]);
}

pub async fn a_group_stored_twice_is_there_once(fixture: Fixture) {
    let instance = fixture.instance().await;
    let claim = fixture.running(streaming(), instance).await;
    let (first, second) = (group(&claim, 0, &["0", "1"]), group(&claim, 2, &["2"]));
    for _ in 0..3 {
        let held = fixture.append_chunks(std::slice::from_ref(&first)).await.unwrap();
        assert_eq!(held, [true], "the answer to it was lost");
    }
    let batch = [second.clone(), second.clone()];
    assert_eq!(fixture.append_chunks(&batch).await.unwrap(), [true, true]);
    assert_eq!(fixture.append_chunks(&[first]).await.unwrap(), [false], "not the last one");
    assert!(!fixture.append_one(&claim, 2, &["2", "3"]).await, "another one");
    assert_eq!(fixture.chunks(&claim).await, ["0", "1", "2"]);
    assert!(fixture.finish_one(&claim, succeeded(), at(2)).await);
    assert_eq!(fixture.append_chunks(&[second]).await.unwrap(), [false], "the claim is gone");
}

pub async fn chunks_are_stored_only_under_a_claim_that_holds(fixture: Fixture) {
    let (instance, lost) = (fixture.instance().await, fixture.instance().await);
    let good = fixture.running(streaming(), instance).await;
    let mut refused = Vec::new();
    for outcome in [succeeded(), failed(), retry_at(at(9)), Outcome::HandedBack] {
        let claim = fixture.running(streaming(), instance).await;
        assert!(fixture.finish_one(&claim, outcome, at(2)).await);
        refused.push(claim);
    }
    let deferred = fixture.running(streaming(), instance).await;
    assert!(fixture.finish_one(&deferred, deferred_with(9, None), at(2)).await);
    let cancelled = fixture.running(streaming(), instance).await;
    fixture.cancel(cancelled.job.id, &acme(), at(2)).await.unwrap();
    let of_lost = fixture.running(streaming(), lost).await;
    fixture.retire(lost).await.unwrap();
    let mut stolen = fixture.running(streaming(), instance).await;
    stolen.instance = fixture.instance().await;
    let mut early = fixture.running(streaming(), instance).await;
    early.job.attempt = 2;
    let mut unknown = good.clone();
    unknown.job.id = JobId::new(at(0));
    refused.extend([deferred, cancelled, of_lost, stolen, early, unknown]);
    let mut batch: Vec<_> = refused.iter().map(|claim| group(claim, 0, &["0"])).collect();
    batch.insert(3, group(&good, 0, &["0"]));
    let held = fixture.append_chunks(&batch).await.unwrap();
    let expected: Vec<bool> = (0..batch.len()).map(|index| index == 3).collect();
    assert_eq!(held, expected);
    assert_eq!(fixture.chunks(&good).await, ["0"]);
    for claim in refused {
        assert!(fixture.chunks(&claim).await.is_empty(), "{claim:?}");
    }
}

pub async fn each_attempt_has_chunks_of_its_own(fixture: Fixture) {
    let instance = fixture.instance().await;
    let first = fixture.running(streaming(), instance).await;
    let id = first.job.id;
    assert!(fixture.append_one(&first, 0, &["10", "11"]).await);
    assert!(fixture.finish_one(&first, retry_at(at(3)), at(2)).await);
    let second = fixture.claim_one(id, instance, at(3)).await.unwrap();
    assert!(!fixture.append_one(&first, 2, &["12"]).await, "its attempt is over");
    assert!(!fixture.append_one(&second, 2, &["22"]).await, "it begins anew");
    assert!(fixture.append_one(&second, 0, &["20"]).await);
    assert_eq!(fixture.counts(id).await, [(1, 2), (2, 1)]);
    assert_eq!(fixture.chunks(&first).await, ["10", "11"]);
    assert_eq!(fixture.chunks(&second).await, ["20"]);
}

pub async fn chunks_survive_byte_for_byte(fixture: Fixture) {
    let instance = fixture.instance().await;
    let claim = fixture.running(streaming(), instance).await;
    let texts = [
        "{\n\t\"b\" : 1.50,\r\n \"a\":123456789012345678901234567890 }",
        "\"später, 日本, 🦀, \\u0000 \\ud800 ],[\\\"\"",
        "[[],\n[{}],{\"a\":1,\"a\":2}]",
        "-0.0",
        "1E400",
        "null",
        "\"\"",
    ];
    assert!(fixture.append_one(&claim, 0, &texts[..3]).await);
    assert!(fixture.append_one(&claim, 3, &texts[3..]).await);
    assert_eq!(fixture.chunks(&claim).await, texts);
    // Deeper than a parser that recurses would go.
    let deep = format!("{}{}", "[".repeat(50_000), "]".repeat(50_000));
    assert!(fixture.append_one(&claim, 7, &[&deep]).await);
    assert_eq!(fixture.chunks_from(claim.job.id, 1, 7).await, [deep]);
}

pub async fn a_huge_chunk_survives_beside_small_ones(fixture: Fixture) {
    let instance = fixture.instance().await;
    let (one, two) = (
        fixture.running(streaming(), instance).await,
        fixture.running(streaming(), instance).await,
    );
    let huge = format!("\"{}\"", "é\\n".repeat(3 << 20));
    let batch = [
        group(&one, 0, &["0", &huge, "2"]),
        group(&two, 0, &[&huge]),
        group(&one, 3, &["3"]),
        group(&two, 2, &["9"]),
    ];
    assert_eq!(fixture.append_chunks(&batch).await.unwrap(), [true, true, true, false]);
    assert_eq!(fixture.chunks(&one).await, ["0", &huge, "2", "3"]);
    assert_eq!(fixture.chunks(&two).await, [huge]);
}

pub async fn reading_begins_at_any_chunk_and_ends_with_enough(fixture: Fixture) {
    let instance = fixture.instance().await;
    let claim = fixture.running(streaming(), instance).await;
    let id = claim.job.id;
    assert!(fixture.append_one(&claim, 0, &["0", "1", "2"]).await);
    assert!(fixture.append_one(&claim, 3, &["3"]).await);
    assert!(fixture.append_one(&claim, 4, &["4", "5"]).await);
    let all = ["0", "1", "2", "3", "4", "5"];
    for from in 0..8 {
        let found = fixture.chunks_from(id, 1, from as u64).await;
        assert_eq!(found, all[from.min(6)..], "from {from}");
    }
    assert!(fixture.read_chunks(id, 1, u64::MAX, ALL).await.unwrap().is_empty());
    let sizes = async |from, max_bytes| {
        let groups = fixture.read_chunks(id, 1, from, max_bytes).await.unwrap();
        groups.iter().map(|group| (group.first, group.chunks.len())).collect::<Vec<_>>()
    };
    assert_eq!(sizes(1, 0).await, [(1, 2)], "one group at least");
    assert_eq!(sizes(0, 1).await, [(0, 3)]);
    assert_eq!(sizes(0, 8).await, [(0, 3), (3, 1)]);
    assert_eq!(sizes(5, 0).await, [(5, 1)]);
    // Page by page, nothing is left out and nothing comes twice.
    let mut seen = Vec::new();
    while let groups = fixture.read_chunks(id, 1, seen.len() as u64, 1).await.unwrap()
        && !groups.is_empty()
    {
        let chunks = groups.iter().flat_map(|group| &group.chunks);
        seen.extend(chunks.map(|chunk| chunk.as_str().to_owned()));
    }
    assert_eq!(seen, all);
}

pub async fn a_stream_of_many_groups_is_read_in_parts(fixture: Fixture) {
    let instance = fixture.instance().await;
    let claim = fixture.running(streaming(), instance).await;
    let batch: Vec<_> = (0..1100).map(|n| group(&claim, n, &["1"])).collect();
    assert!(fixture.append_chunks(&batch).await.unwrap().into_iter().all(|held| held));
    let part = fixture.read_chunks(claim.job.id, 1, 50, ALL).await.unwrap();
    let end = part.last().unwrap().end();
    assert!(end < 1100, "{end}");
    assert_eq!(fixture.chunks_from(claim.job.id, 1, end).await.len() as u64, 1100 - end);
    assert_eq!(fixture.counts(claim.job.id).await, [(1, 1100)]);
}

/// Whatever ends an attempt while it is appended to: what was answered before it is all there is.
pub async fn nothing_is_stored_after_the_end_of_an_attempt(fixture: Fixture) {
    let sweeper = fixture.instance().await;
    for round in 0..24 {
        let instance = fixture.instance().await;
        let claim = fixture.running(streaming(), instance).await;
        let id = claim.job.id;
        let append = async {
            let mut n_stored = 0;
            while fixture.append_one(&claim, n_stored, &["1"]).await {
                n_stored += 1;
            }
            n_stored
        };
        let end = async {
            for _ in 0..round / 6 {
                tokio::task::yield_now().await;
            }
            match round % 4 {
                0 => assert!(fixture.finish_one(&claim, succeeded(), at(2)).await),
                1 => drop(fixture.cancel(id, &acme(), at(2)).await.unwrap()),
                2 => assert!(fixture.finish_one(&claim, Outcome::HandedBack, at(2)).await),
                _ => {
                    fixture.retire(instance).await.unwrap();
                    // A rescue leaves out what is locked at that moment.
                    while fixture.outline(id, &acme()).await.unwrap().unwrap().attempts.is_empty() {
                        fixture.rescue(sweeper, at(2), 10).await.unwrap();
                    }
                }
            }
            fixture.outline(id, &acme()).await.unwrap().unwrap()
        };
        let (n_stored, outline) = futures::join!(append, end);
        let expected = if n_stored == 0 { Vec::new() } else { vec![(1, n_stored)] };
        assert_eq!(outline.chunks, expected, "as it ended in round {round}");
        assert_eq!(fixture.outline(id, &acme()).await.unwrap().unwrap(), outline);
        if round % 4 >= 2 {
            assert_eq!(outline.job.status.is_final(), n_stored > 0, "round {round}");
        }
    }
}

pub async fn a_group_written_again_while_it_is_written_is_there_once(fixture: Fixture) {
    let instance = fixture.instance().await;
    let (one, two) = (
        fixture.running(streaming(), instance).await,
        fixture.running(streaming(), instance).await,
    );
    for n in 0..20 {
        let batch = [group(&one, n, &["1"]), group(&two, n, &["1"])];
        let mut again = batch.clone();
        again.reverse();
        let (first, second) =
            futures::join!(fixture.append_chunks(&batch), fixture.append_chunks(&again));
        assert_eq!((first.unwrap(), second.unwrap()), (vec![true; 2], vec![true; 2]));
    }
    assert_eq!(fixture.chunks(&one).await.len(), 20);
    assert_eq!(fixture.chunks(&two).await.len(), 20);
}

pub async fn of_two_groups_for_one_place_one_is_stored(fixture: Fixture) {
    let instance = fixture.instance().await;
    for _ in 0..10 {
        let claim = fixture.running(streaming(), instance).await;
        let short = [group(&claim, 0, &["1"])];
        let long = [group(&claim, 0, &["2", "2"]), group(&claim, 2, &["2"])];
        let (short, long) =
            futures::join!(fixture.append_chunks(&short), fixture.append_chunks(&long));
        let (short, long) = (short.unwrap(), long.unwrap());
        assert_eq!((long[0], long[1]), (!short[0], !short[0]));
        let expected: &[&str] = if short[0] { &["1"] } else { &["2", "2", "2"] };
        assert_eq!(fixture.chunks(&claim).await, expected);
    }
}
