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
mod credentials;
mod defer;
mod deliveries;
mod instances;
mod jobs;
mod lent;
mod lists;
mod machine;
mod models;
mod outlines;
mod retention;
mod schedule;
mod serving;
mod streams;
mod submit;
mod twins;

use self::{
    builders::{
        JobBuilder, a_job, a_secret, account, acme, an_error, at, deferred_with, failed, retry_at,
        some_usage, succeeded,
    },
    deliveries::an_attempt,
};
use std::{any::Any, ops::Deref};

pub use self::{
    accounts::*, builders::plain_job, credentials::*, defer::*, deliveries::*, instances::*,
    jobs::*, lent::*, lists::*, machine::*, models::*, outlines::*, retention::*, schedule::*,
    serving::*, streams::*, submit::*, twins::*,
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
            a_deferred_job_is_as_it_was_before_its_claim
            a_deferral_between_attempts_costs_no_retry
            a_deferred_job_can_be_cancelled_or_expire
            a_claim_that_was_deferred_writes_nothing_more
            a_deferral_holds_only_with_its_claim
            a_ticket_is_shown_until_its_attempt_has_failed
            a_ticket_ends_with_its_job
            an_attempt_that_was_parked_shows_its_whole_time
            an_attempt_without_a_task_of_its_own_began_with_its_claim
            a_job_with_a_ticket_has_started_and_does_not_expire
            a_job_is_lent_as_it_is_stored
            who_is_lost_or_unknown_is_lent_nothing
            a_key_is_lent_for_once
            what_was_lent_is_no_loan_once_it_is_given_back
            what_was_lent_is_rescued_with_its_instance
            a_loan_nobody_runs_is_a_stray
            revoked_names_what_is_no_longer_held
            a_queued_job_is_cancelled_at_once
            a_running_job_is_cancelled_and_names_who_runs_it
            what_has_ended_is_not_cancelled
            another_accounts_job_is_not_there
            many_are_found_each_in_its_place
            a_final_status_of_a_job_with_a_callback_makes_a_delivery
            a_job_without_a_callback_owes_none
            times_keep_their_microseconds
            an_empty_usage_stays_empty
            due_jobs_are_taken_once_and_only_when_due
            overdue_jobs_are_found_lane_by_lane
            a_job_is_overdue_from_when_it_was_last_ready
            a_queued_job_expires_at_its_deadline
            a_job_that_has_started_no_longer_expires
            lanes_count_what_is_unfinished
            the_jobs_of_a_lost_instance_run_elsewhere
            a_rescued_job_that_waits_goes_on_waiting
            a_rescue_is_done_in_steps_and_by_one_of_many
            a_lost_instance_rescues_nothing
            a_job_that_lost_too_many_processes_fails
            a_claim_that_nobody_holds_is_found
            a_claim_says_since_when_its_job_was_ready
            a_failure_between_losses_does_not_count_as_one
            a_job_cancelled_before_the_rescue_stays_cancelled
            chunks_are_stored_in_their_order
            a_group_must_follow_what_is_stored
            a_group_stored_twice_is_there_once
            chunks_are_stored_only_under_a_claim_that_holds
            each_attempt_has_chunks_of_its_own
            chunks_survive_byte_for_byte
            a_huge_chunk_survives_beside_small_ones
            reading_begins_at_any_chunk_and_ends_with_enough
            a_stream_of_many_groups_is_read_in_parts
            nothing_is_stored_after_the_end_of_an_attempt
            a_group_written_again_while_it_is_written_is_there_once
            of_two_groups_for_one_place_one_is_stored
            an_outline_tells_each_phase_of_a_job
            an_outline_is_of_an_account
            a_lost_job_whose_stream_had_begun_fails
            only_the_lost_attempts_own_chunks_fail_its_job
            a_stream_that_had_begun_is_not_given_back
            the_latest_unfinished_twin_is_found
            a_twin_is_equal_in_every_member
            a_twin_behind_many_other_jobs_is_not_looked_for
            retention_removes_all_that_belongs_to_a_job
            retention_waits_for_deliveries
            retention_takes_the_oldest_first_and_no_more_than_it_may
            an_old_key_is_forgotten_while_its_job_goes_on
            lists_are_paged_both_ways_in_both_orders
            lists_are_filtered
            a_listed_job_is_whole
            a_heartbeat_keeps_an_instance_alive
            silence_beyond_the_grace_loses_an_instance_for_good
            the_grace_counts_from_the_last_heartbeat
            a_retired_instance_is_lost
            an_owner_retires_all_others
            an_instance_is_forgotten_once_it_holds_nothing
            a_lost_instance_can_do_nothing
            a_store_knows_itself
            a_closed_store_is_unavailable
            a_delivery_is_claimed_with_all_its_callback_needs
            a_delivery_is_signed_with_active_secrets_alone
            a_delivered_callback_is_over
            a_failed_attempt_is_repeated_when_it_is_due
            deliveries_go_oldest_first_with_a_cap_per_host
            racing_instances_claim_each_delivery_once
            a_delivery_of_a_lost_instance_is_due_again
            a_redelivery_begins_anew_and_goes_on_counting
            the_oldest_due_delivery_tells_the_lag
            deliveries_belong_to_an_account
            a_model_comes_back_as_it_was_added
            a_second_model_of_a_name_conflicts_or_updates
            a_model_added_from_many_sides_is_added_once
            models_are_listed_filtered_and_counted
            another_accounts_model_is_not_there
            a_model_server_is_found_by_id_and_alias
            an_alias_is_unique_within_its_account
            an_alias_added_from_many_sides_is_added_once
            a_model_is_replaced_unless_it_has_changed_meanwhile
            a_model_that_is_being_deployed_stays_as_it_is
            a_model_takes_a_free_name_or_swaps_it
            names_swapped_from_many_sides_stay_whole
            a_deleted_model_is_gone_and_its_name_free
            a_model_that_a_server_runs_is_not_deleted
            a_deletion_and_a_switch_never_leave_a_server_without_its_model
            a_deletion_and_an_addition_never_leave_a_server_without_its_model
            a_switched_server_runs_the_new_model_and_knows_the_old
            rollbacks_go_back_switch_by_switch
            a_history_has_an_end
            a_deleted_server_is_gone_and_its_alias_free
            what_live_workers_see_of_a_model_is_known
            what_was_seen_long_ago_is_forgotten
            an_account_is_made_once
            a_key_comes_back_as_it_was_added
            a_key_is_added_once
            a_key_needs_its_accounts
            keys_are_listed_for_all_whose_account_they_open
            a_revoked_key_stays_revoked
            a_rotated_secret_signs_until_its_end
            a_credential_comes_back_as_it_was_put
            a_credential_put_again_has_the_next_version
            a_credential_keeps_its_vendor
            a_vendor_has_one_default_in_an_account
            credentials_are_listed_page_by_page
            a_deleted_credential_is_gone
            another_account_sees_no_credential
            a_credential_put_from_many_sides_is_one
            a_credential_is_sealed_anew_unless_it_changed
            random_moves_keep_to_the_state_machine
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
            include_str!("credentials.rs"),
            include_str!("defer.rs"),
            include_str!("deliveries.rs"),
            include_str!("instances.rs"),
            include_str!("jobs.rs"),
            include_str!("lent.rs"),
            include_str!("lists.rs"),
            include_str!("machine.rs"),
            include_str!("models.rs"),
            include_str!("outlines.rs"),
            include_str!("retention.rs"),
            include_str!("schedule.rs"),
            include_str!("serving.rs"),
            include_str!("streams.rs"),
            include_str!("submit.rs"),
            include_str!("twins.rs"),
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
