use std::{sync::OnceLock, time::Duration};

use chrono::{DateTime, Utc};
use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, histogram};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

use super::metric;
use crate::job::{Job, JobStatus};

/// Upper bounds for what is measured in seconds: from half a millisecond (an embedded round trip)
/// to an hour (a long job).
const SECONDS: &[f64] = &[
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
    60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0,
];

/// Upper bounds for counts of things done together.
const SIZES: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0];

/// How often [`keep_up`] folds new measurements into the histograms.
const KEEP_UP_EVERY: Duration = Duration::from_secs(5);

/// Makes this process count and measure; the handle renders the Prometheus text.
///
/// Every call answers the same handle. Where another recorder is installed already (a test's), the
/// handle renders nothing.
///
/// # Panics
/// Never: the bounds of the histograms are constants.
pub fn install_metrics() -> PrometheusHandle {
    static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();
    HANDLE
        .get_or_init(|| {
            let recorder = recorder().build_recorder();
            let handle = recorder.handle();
            if metrics::set_global_recorder(recorder).is_ok() {
                describe_metrics();
            }
            handle
        })
        .clone()
}

/// Counts a job that has ended, and how long it took from its submission.
pub fn count_ended(job: &Job, status: JobStatus, finished_at: DateTime<Utc>) {
    let labels = [("vendor", job.vendor.as_str()), ("status", status.as_str())];
    let took = (finished_at - job.created_at).to_std().unwrap_or_default();
    counter!(metric::JOBS_FINISHED, &labels).increment(1);
    histogram!(metric::JOB_DURATION, &labels).record(took.as_secs_f64());
}

fn recorder() -> PrometheusBuilder {
    PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), SECONDS)
        .and_then(|builder| {
            builder.set_buckets_for_metric(Matcher::Full(metric::GROUP_SIZE.to_owned()), SIZES)
        })
        .expect("there are buckets")
}

/// Folds measurements into the histograms for ever, so that a process nobody scrapes does not keep
/// each one.
///
/// **Cancel safe:** stop it by dropping it.
pub async fn keep_up(handle: PrometheusHandle) {
    loop {
        tokio::time::sleep(KEEP_UP_EVERY).await;
        handle.run_upkeep();
    }
}

/// Gives every metric its unit and help text.
pub fn describe_metrics() {
    describe_counter!(metric::JOBS_SUBMITTED, "Jobs accepted, by vendor and priority.");
    let lent = "Jobs given to a worker with room as they were stored, past their lane, by vendor.";
    describe_counter!(metric::JOBS_LENT, lent);
    let returned = "Jobs so given that came back to their lane, not begun, by vendor.";
    describe_counter!(metric::LOANS_RETURNED, returned);
    describe_counter!(metric::JOBS_FINISHED, "Jobs ended, by vendor and final status.");
    describe_gauge!(metric::QUEUE_DEPTH, "Queued jobs in the store, by lane.");
    describe_gauge!(metric::ATTEMPTS_RUNNING, "Attempts this process is running, by vendor.");
    let wait = "From ready to run to claimed, by vendor.";
    describe_histogram!(metric::QUEUE_WAIT, Unit::Seconds, wait);
    let attempt = "One attempt, by vendor and outcome.";
    describe_histogram!(metric::ATTEMPT_DURATION, Unit::Seconds, attempt);
    let first = "From the call to the first chunk of its stream, by vendor.";
    describe_histogram!(metric::FIRST_CHUNK, Unit::Seconds, first);
    describe_counter!(metric::STREAM_CHUNKS, "Chunks of streams received, by vendor.");
    let dropped = "Chunks not sent to who waits because the broker did not keep up, by vendor.";
    describe_counter!(metric::LIVE_CHUNKS_DROPPED, dropped);
    let job = "From submit to the final status, by vendor and status.";
    describe_histogram!(metric::JOB_DURATION, Unit::Seconds, job);
    describe_counter!(metric::RETRIES, "Attempts that will be repeated, by error class.");
    let deferred = "Jobs put back uncalled because their model is held back, by vendor.";
    describe_counter!(metric::GATE_DEFERRED, deferred);
    let refused =
        "Attempts failed uncalled because their credential is refused, by vendor and class.";
    describe_counter!(metric::GATE_REFUSED, refused);
    let limited = "Calls answered with a request to slow down, by vendor.";
    describe_counter!(metric::RATE_LIMITED, limited);
    let held_up = "Large answers that found the memory for answers used up.";
    describe_counter!(metric::ANSWERS_HELD_UP, held_up);
    describe_counter!(metric::CALLBACK_ATTEMPTS, "POSTs of callbacks, by outcome.");
    describe_gauge!(metric::CALLBACK_LAG, Unit::Seconds, "Age of the oldest due callback.");
    describe_counter!(metric::SWEEPER_REPAIRS, "What the sweeper put right, by kind.");
    describe_histogram!(metric::GROUP_SIZE, Unit::Count, "Jobs in one group commit, by kind.");
    let request = "HTTP requests, by route, method and status.";
    describe_histogram!(metric::HTTP_DURATION, Unit::Seconds, request);
    describe_gauge!(metric::PUBLISH_BACKLOG, "Publishes waiting for the broker.");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn installing_twice_answers_the_same_metrics() {
        let first = install_metrics();
        metrics::counter!(metric::RETRIES, "class" => "timeout").increment(1);
        let text = install_metrics().render();
        assert!(text.contains("inferq_retries_total{class=\"timeout\"} 1"), "{text}");
        assert!(first.render().contains("inferq_retries_total{class=\"timeout\"} 1"));
    }

    #[test]
    fn durations_and_sizes_are_histograms_with_sensible_bounds() {
        let recorder = recorder().build_recorder();
        let handle = recorder.handle();
        metrics::with_local_recorder(&recorder, || {
            describe_metrics();
            metrics::histogram!(metric::QUEUE_WAIT, "vendor" => "openai").record(0.02);
            metrics::histogram!(metric::GROUP_SIZE, "kind" => "submit").record(3.0);
        });
        let text = handle.render();
        for line in [
            "# TYPE inferq_queue_wait_seconds histogram",
            "# HELP inferq_queue_wait_seconds From ready to run to claimed, by vendor.",
            "inferq_queue_wait_seconds_bucket{vendor=\"openai\",le=\"0.01\"} 0",
            "inferq_queue_wait_seconds_bucket{vendor=\"openai\",le=\"0.025\"} 1",
            "inferq_queue_wait_seconds_bucket{vendor=\"openai\",le=\"3600\"} 1",
            "inferq_group_commit_size_bucket{kind=\"submit\",le=\"2\"} 0",
            "inferq_group_commit_size_bucket{kind=\"submit\",le=\"4\"} 1",
            "inferq_group_commit_size_bucket{kind=\"submit\",le=\"1024\"} 1",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
    }
}
