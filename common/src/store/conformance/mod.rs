//! The suite every store passes.
//!
//! A case is `async fn a_sentence(fixture: Fixture)`. [`store_conformance!`](crate::store_conformance)
//! stamps all of them out as tests of one store; each gets an empty, migrated store of its own.
//! A store method without a case does not exist.
//!
//! Times are made up, except that heartbeats go by the store's clock, which a case cannot move:
//! such cases judge with no grace at all, or with more than any test lasts.
#![expect(
    clippy::unwrap_used,
    clippy::missing_panics_doc,
    reason = "these are tests that several crates run"
)]

mod accounts;
mod builders;
mod deliveries;
mod instances;
mod jobs;
mod lists;
mod machine;
mod models;
mod retention;
mod schedule;
mod submit;

use self::builders::*;
use std::{any::Any, ops::Deref};

pub use self::{
    accounts::*, deliveries::*, instances::*, jobs::*, lists::*, machine::*, models::*,
    retention::*, schedule::*, submit::*,
};
use super::{SharedStore, Store};

/// An empty, migrated store, and whatever must live as long as it does.
pub struct Fixture {
    store: SharedStore,
    _keep: Box<dyn Any + Send>,
}

impl Fixture {
    /// `keep` is dropped with the fixture: a folder, a database.
    pub fn new(store: SharedStore, keep: impl Any + Send) -> Self {
        Self { store, _keep: Box::new(keep) }
    }

    /// The store as tasks share it.
    pub fn shared(&self) -> SharedStore {
        SharedStore::clone(&self.store)
    }
}

impl Deref for Fixture {
    type Target = dyn Store;

    fn deref(&self) -> &Self::Target {
        &*self.store
    }
}

/// Makes a test of every case; the argument is an expression that makes a [`Fixture`] and may
/// await.
///
/// ```ignore
/// inferq_common::store_conformance!(fixture().await);
/// ```
#[macro_export]
macro_rules! store_conformance {
    ($fixture:expr) => {
        $crate::store_conformance_cases! { stamp $fixture }
    };
}

/// Every case, once.
#[doc(hidden)]
#[macro_export]
macro_rules! store_conformance_cases {
    (stamp $fixture:expr) => {
        $crate::store_conformance_cases! { @cases stamp ($fixture) }
    };
    (names) => {
        $crate::store_conformance_cases! { @cases names () }
    };
    (@cases $then:ident $with:tt) => {
        $crate::store_conformance_cases! { @$then $with
            a_job_comes_back_as_it_was_submitted
            json_survives_byte_for_byte
            a_payload_of_five_megabytes_survives
            an_empty_batch_is_no_work
            a_large_batch_is_stored_whole
            the_same_key_and_body_answer_the_first_job
            the_same_key_with_another_body_is_refused
            a_key_twice_in_a_batch_makes_one_job
            keys_of_two_accounts_do_not_meet
            a_key_submitted_from_many_sides_makes_one_job
            a_claim_counts_an_attempt_and_says_so
            a_claim_takes_only_what_is_queued_and_due
            a_job_can_be_claimed_the_moment_it_is_due
            an_id_twice_in_a_claim_is_one_claim
            racing_instances_claim_each_job_once
            a_lost_or_unknown_instance_claims_nothing
            success_is_written_whole
            failure_is_written_whole
            a_claim_is_finished_once
            a_claim_twice_in_a_batch_is_finished_once
            a_batch_of_outcomes_is_treated_one_by_one
            a_lost_instance_cannot_finish_a_job
            an_old_attempt_cannot_finish_a_job
            a_retry_waits_and_is_claimed_again
            a_job_handed_back_can_run_elsewhere_at_once
            revoked_names_what_is_no_longer_held
            a_queued_job_is_cancelled_at_once
            a_running_job_is_cancelled_and_names_who_runs_it
            what_has_ended_is_not_cancelled
            another_accounts_job_is_not_there
            a_final_status_of_a_job_with_a_callback_makes_a_delivery
            a_job_without_a_callback_owes_none
            times_keep_their_microseconds
            an_empty_usage_stays_empty
        }
    };
    (@stamp ($fixture:expr) $($case:ident)+) => {$(
        #[tokio::test]
        async fn $case() {
            $crate::store::conformance::$case($fixture).await;
        }
    )+};
    (@names () $($case:ident)+) => {
        [$(stringify!($case)),+]
    };
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    /// The list in the macro cannot fall behind the files.
    #[test]
    fn every_case_is_listed() {
        let files = [
            include_str!("accounts.rs"),
            include_str!("deliveries.rs"),
            include_str!("instances.rs"),
            include_str!("jobs.rs"),
            include_str!("lists.rs"),
            include_str!("machine.rs"),
            include_str!("models.rs"),
            include_str!("retention.rs"),
            include_str!("schedule.rs"),
            include_str!("submit.rs"),
        ];
        let written: BTreeSet<&str> = files
            .iter()
            .flat_map(|file| file.lines())
            .filter_map(|line| line.strip_prefix("pub async fn ")?.split('(').next())
            .collect();
        let listed: BTreeSet<&str> = store_conformance_cases!(names).into_iter().collect();
        assert_eq!(written, listed);
    }
}
