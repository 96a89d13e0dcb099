//! A vendor whose model name picks what happens.

use std::{
    future::pending,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use inferq_common::{error::ErrorClass, id::JobId, usage::Usage};
use inferq_vendors::{Adapter, Call, Chunks, Reply, VendorError};
use tokio::{sync::watch, time::Instant};

/// Answers with the arguments, unless the model is called
///
/// - `fails_N`: the first N attempts of a job fail;
/// - `slow_down`: the first attempt is asked to wait for 1.2 s;
/// - `hangs`: never answers;
/// - `waits`: answers once the gate is open;
/// - `large`: the same, with what takes 64 MiB of the worker's memory;
/// - `panics`: panics.
#[derive(Debug)]
pub(crate) struct TestVendor {
    calls: Mutex<Vec<(JobId, u32, Instant)>>,
    /// Calls that have begun and have neither ended nor been dropped.
    open: watch::Sender<usize>,
    gate: watch::Sender<bool>,
}

impl TestVendor {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            calls: Mutex::default(),
            open: watch::Sender::new(0),
            gate: watch::Sender::new(false),
        })
    }

    pub(crate) fn open_gate(&self) {
        self.gate.send_replace(true);
    }

    /// When each attempt of `job` was made.
    pub(crate) fn calls_of(&self, job: JobId) -> Vec<(u32, Instant)> {
        let calls = self.calls.lock().unwrap();
        calls.iter().filter(|call| call.0 == job).map(|call| (call.1, call.2)).collect()
    }

    /// The jobs in the order of their calls.
    pub(crate) fn order(&self) -> Vec<JobId> {
        self.calls.lock().unwrap().iter().map(|call| call.0).collect()
    }

    /// Waits until exactly `n` calls are open.
    #[track_caller]
    pub(crate) fn has_open(&self, n: usize) -> impl Future<Output = ()> + use<> {
        let mut open = self.open.subscribe();
        async move {
            let reached = open.wait_for(|open| *open == n);
            tokio::time::timeout(Duration::from_secs(10), reached)
                .await
                .expect("the number of open calls is reached in time")
                .unwrap();
        }
    }
}

struct Open<'a>(&'a TestVendor);

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.open.send_modify(|open| *open -= 1);
    }
}

#[async_trait]
impl Adapter for TestVendor {
    async fn call(&self, call: &Call) -> Result<Reply, VendorError> {
        self.calls.lock().unwrap().push((call.job_id, call.attempt, Instant::now()));
        self.open.send_modify(|open| *open += 1);
        let _open = Open(self);
        match call.model.as_str() {
            "hangs" => pending().await,
            "waits" => {
                self.gate.subscribe().wait_for(|open| *open).await.unwrap();
            }
            "large" => {
                self.gate.subscribe().wait_for(|open| *open).await.unwrap();
                call.memory.grow_to(64 << 20).await;
            }
            "panics" => panic!("this adapter panics for a test"),
            "slow_down" if call.attempt == 1 => {
                let mut error = VendorError::new(ErrorClass::RateLimited, "slow down");
                error.retry_after = Some(Duration::from_millis(1200));
                return Err(error);
            }
            model => {
                let fails = model.strip_prefix("fails_").map_or(0, |n| n.parse().unwrap());
                if call.attempt <= fails {
                    return Err(VendorError::new(ErrorClass::Transient, "not now"));
                }
            }
        }
        let (response, usage) = (call.args.clone(), Usage::default());
        Ok(Reply { response, usage, vendor_request_id: None })
    }

    async fn stream(&self, _: &Call) -> Result<Chunks, VendorError> {
        Err(VendorError::new(ErrorClass::Internal, "no streams in these tests"))
    }
}
