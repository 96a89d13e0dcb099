//! What becomes of jobs whose vendor has several keys; under paused time.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use futures::StreamExt as _;
use inferq_common::{
    error::ErrorClass,
    id::JobId,
    job::{Job, JobResult, JobStatus},
    telemetry::install_metrics,
    usage::Usage,
};
use inferq_vendors::{Adapter, Call, Chunks, Reply, VendorError};
use tokio::time::{Instant, sleep, timeout};

use crate::platform::{Platform, eventually};

/// A key that takes its time and may be refused.
#[derive(Debug, Default)]
struct OneKey {
    course: Mutex<(Duration, Option<ErrorClass>)>,
    n_calls: AtomicU32,
}

impl OneKey {
    fn new(pause: Duration, refusal: Option<ErrorClass>) -> Arc<Self> {
        Arc::new(Self { course: Mutex::new((pause, refusal)), n_calls: AtomicU32::new(0) })
    }

    fn set(&self, pause: Duration, refusal: Option<ErrorClass>) {
        *self.course.lock().unwrap() = (pause, refusal);
    }

    fn n_calls(&self) -> u32 {
        self.n_calls.load(Ordering::SeqCst)
    }
}

#[async_trait]
impl Adapter for OneKey {
    async fn call(&self, call: &Call) -> Result<Reply, VendorError> {
        self.n_calls.fetch_add(1, Ordering::SeqCst);
        let (pause, refusal) = *self.course.lock().unwrap();
        sleep(pause).await;
        let Some(class) = refusal else {
            let (response, usage) = (call.args.clone(), Usage::default());
            return Ok(Reply { response, usage, vendor_request_id: None });
        };
        let mut error = VendorError::new(class, "no");
        error.error.vendor_status = Some(if class == ErrorClass::Auth { 401 } else { 402 });
        Err(error)
    }

    async fn stream(&self, call: &Call) -> Result<Chunks, VendorError> {
        self.call(call).await.map(|_| futures::stream::empty().boxed())
    }
}

async fn platform(keys: &[&Arc<OneKey>]) -> Platform {
    Platform::start_still_with_keys(keys.iter().map(|&key| Arc::clone(key) as Arc<_>).collect())
        .await
}

async fn ends(platform: &Platform, id: JobId) -> (Job, JobResult) {
    let ended = eventually(async || {
        let (job, result) = platform.find(id).await;
        job.status.is_final().then_some((job, result))
    });
    timeout(Duration::from_secs(300), ended).await.expect("it ends in time")
}

const AT_ONCE: Duration = Duration::ZERO;

#[tokio::test]
async fn all_keys_together_have_the_time_of_one_attempt() {
    let refused = OneKey::new(Duration::from_secs(2), Some(ErrorClass::Auth));
    let slow = OneKey::new(Duration::from_secs(1000), None);
    let platform = platform(&[&refused, &slow]).await;
    let worker = platform.worker().await;
    let began = Instant::now();
    let edit = |job: &mut Job| {
        (job.limits.timeout, job.limits.num_retries) = (Duration::from_secs(3), 0);
    };
    let id = platform.submit("m", edit).await;
    let (job, result) = ends(&platform, id).await;
    assert_eq!((job.status, job.attempt), (JobStatus::Failed, 1));
    let error = result.error.unwrap();
    assert_eq!(error.class, ErrorClass::Timeout);
    assert_eq!(error.message, "no answer from openai within 3 s");
    assert!(began.elapsed() < Duration::from_millis(3500), "{:?}", began.elapsed());
    assert_eq!((refused.n_calls(), slow.n_calls()), (1, 1));
    worker.stop().await;
}

#[tokio::test]
async fn while_one_key_is_being_tried_again_the_next_one_serves() {
    let one = OneKey::new(AT_ONCE, Some(ErrorClass::Auth));
    let two = OneKey::new(AT_ONCE, None);
    let platform = platform(&[&one, &two]).await;
    let worker = platform.worker().await;
    let id = platform.submit("m", |_| {}).await;
    assert_eq!(ends(&platform, id).await.0.status, JobStatus::Succeeded);
    assert_eq!((one.n_calls(), two.n_calls()), (1, 1));

    sleep(Duration::from_secs(31)).await;
    one.set(Duration::from_secs(10), None);
    let probe = platform.submit("m", |_| {}).await;
    while one.n_calls() < 2 {
        sleep(Duration::from_millis(5)).await;
    }
    let began = Instant::now();
    let id = platform.submit("m", |_| {}).await;
    assert_eq!(ends(&platform, id).await.0.status, JobStatus::Succeeded);
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    assert_eq!((one.n_calls(), two.n_calls()), (2, 2));
    assert_eq!(ends(&platform, probe).await.0.status, JobStatus::Succeeded);
    worker.stop().await;
}

#[tokio::test]
async fn while_the_only_key_is_being_tried_again_jobs_wait() {
    let one = OneKey::new(AT_ONCE, Some(ErrorClass::Auth));
    let platform = platform(&[&one]).await;
    let worker = platform.worker().await;
    let id = platform.submit("m", |_| {}).await;
    assert_eq!(ends(&platform, id).await.0.status, JobStatus::Failed);
    sleep(Duration::from_secs(31)).await;
    one.set(Duration::from_secs(1), None);
    let probe = platform.submit("m", |_| {}).await;
    let waits = platform.submit("m", |_| {}).await;
    for id in [probe, waits] {
        let (job, _) = ends(&platform, id).await;
        assert_eq!((job.status, job.attempt), (JobStatus::Succeeded, 1));
    }
    assert_eq!(one.n_calls(), 3);
    worker.stop().await;
}

#[tokio::test]
async fn only_an_attempt_that_fails_uncalled_is_counted_as_such() {
    let metrics = install_metrics();
    let class = Some(ErrorClass::QuotaExhausted);
    let (one, two) = (OneKey::new(AT_ONCE, class), OneKey::new(AT_ONCE, None));
    let platform = platform(&[&one, &two]).await;
    let worker = platform.worker().await;
    // No other test here exhausts a quota.
    let name = "inferq_gate_refused_total{vendor=\"openai\",class=\"quota_exhausted\"}";
    for _ in 0..3 {
        let id = platform.submit("m", |_| {}).await;
        assert_eq!(ends(&platform, id).await.0.status, JobStatus::Succeeded);
    }
    assert_eq!((one.n_calls(), two.n_calls()), (1, 3));
    assert!(!metrics.render().contains(name), "{}", metrics.render());

    two.set(AT_ONCE, class);
    // The second key has just worked, so that it is believed to be exhausted after three times.
    for _ in 0..5 {
        let id = platform.submit("m", |_| {}).await;
        assert_eq!(ends(&platform, id).await.0.status, JobStatus::Failed);
    }
    assert_eq!((one.n_calls(), two.n_calls()), (1, 6));
    assert!(metrics.render().contains(&format!("{name} 2")), "{}", metrics.render());
    worker.stop().await;
}
