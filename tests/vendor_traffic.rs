//! Real exchanges with the vendors are replayed through the whole platform, where a folder of them
//! is at hand: `INFERQ_VENDOR_TRAFFIC=folder cargo test --test vendor_traffic -- --nocapture`.

#![expect(clippy::unwrap_used, reason = "stories unwrap freely")]

mod harness;
mod traffic;

use std::{collections::BTreeMap, fs, path::Path};

use futures::{StreamExt as _, stream};
use inferq_common::vendor::Vendor;

use self::traffic::{Plan, Recording, replay};

/// Groups that are replayed at once; each has a platform of its own.
const GROUPS_AT_ONCE: usize = 4;

/// What is told of one fault; whole answers may stand in it.
const MAX_FAULT_CHARS: usize = 2000;

#[derive(Debug, Default)]
struct Tally {
    n_passed: usize,
    n_failed: usize,
    /// Why recordings are not applicable, and how many each.
    others: BTreeMap<&'static str, usize>,
}

impl Tally {
    fn is_empty(&self) -> bool {
        self.n_passed + self.n_failed == 0 && self.others.is_empty()
    }
}

#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::disallowed_methods, reason = "the folder is no setting of the product")]
#[expect(clippy::print_stdout, reason = "a table for whoever runs it")]
async fn real_exchanges_go_through_the_whole_platform() {
    let Ok(folder) = std::env::var("INFERQ_VENDOR_TRAFFIC") else {
        println!("INFERQ_VENDOR_TRAFFIC names no folder of recordings: nothing to replay");
        return;
    };
    let (groups, mut tallies) = groups(Path::new(&folder));
    assert!(!groups.is_empty(), "no recordings in {folder}");
    let replays =
        groups.iter().map(async |(vendor, group)| (*vendor, replay::group(*vendor, group).await));
    let results: Vec<_> = stream::iter(replays).buffer_unordered(GROUPS_AT_ONCE).collect().await;
    let mut faults = Vec::new();
    for (vendor, results) in results {
        let tally = tallies.entry(vendor).or_default();
        for (name, result) in results {
            match result {
                Ok(()) => tally.n_passed += 1,
                Err(fault) => {
                    tally.n_failed += 1;
                    let fault: String = fault.chars().take(MAX_FAULT_CHARS).collect();
                    faults.push(format!("{name}: {fault}"));
                }
            }
        }
    }
    println!("{:<13} passed  failed  not applicable", "vendor");
    for (vendor, tally) in &tallies {
        let n_others: usize = tally.others.values().sum();
        println!("{vendor:<13} {:>6}  {:>6}  {n_others:>14}", tally.n_passed, tally.n_failed);
        for (reason, n) in &tally.others {
            println!("{:<13} {n:>30}  {reason}", "");
        }
        if tally.is_empty() {
            println!("{:<13} {:>30}  no recordings: its own tests follow its documents", "", "");
        }
    }
    faults.sort();
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
    for (vendor, tally) in tallies.iter().filter(|(_, tally)| !tally.is_empty()) {
        assert!(tally.n_passed > 0, "no recording of {vendor} is a call");
    }
}

type Groups = Vec<(Vendor, Vec<(Recording, Plan)>)>;

/// The recordings by the settings they need, and what is not applicable.
fn groups(folder: &Path) -> (Groups, BTreeMap<Vendor, Tally>) {
    let mut tallies: BTreeMap<_, Tally> =
        Vendor::ALL.iter().map(|&vendor| (vendor, Tally::default())).collect();
    let mut groups = BTreeMap::<_, Vec<_>>::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if !path.is_dir() {
            continue;
        }
        let vendor: Vendor = path.file_name().unwrap().to_str().unwrap().parse().unwrap();
        for recording in Recording::of_vendor(&path) {
            let tally = tallies.entry(vendor).or_default();
            match traffic::plan(vendor, &recording) {
                Ok(plan) => {
                    let needs = (vendor, plan.settings.clone(), plan.prefix.clone());
                    groups.entry(needs).or_default().push((recording, plan));
                }
                Err(reason) => *tally.others.entry(reason).or_default() += 1,
            }
        }
    }
    // The largest first, so that none is left over for the end.
    let mut groups: Groups =
        groups.into_iter().map(|((vendor, ..), group)| (vendor, group)).collect();
    groups.sort_by_key(|(_, group)| std::cmp::Reverse(group.len()));
    (groups, tallies)
}
