//! A fake vendor for tests: the name of the model picks the outcome.

mod streams;
mod tasks;

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use futures::{StreamExt as _, stream};
use inferq_common::{error::ErrorClass, id::JobId, job::Json, usage::Usage};
use tokio::sync::watch;

use self::streams::Course;
use crate::{Adapter, Call, Chunk, Chunks, Progress, Reply, error::VendorError};

/// Answers by the name of the model and remembers every call.
///
/// | model | outcome |
/// | --- | --- |
/// | `ok` | [`Scripted::RESPONSE`] and its usage |
/// | `echo` | the args |
/// | `fails_once`, `fails_twice` | transient for the first calls of a job, then as `ok` |
/// | `transient`, `rate_limited`, `overloaded`, `quota`, `auth`, `not_found`, `invalid`, `context_length`, `blocked`, `protocol`, `too_large` | an error of that class, always |
/// | `rate_limited_for_1s` | rate limited once with a hint of 1 s, then as `ok` |
/// | `rate_limited_for_1h` | rate limited with a hint of 1 h, always |
/// | `at_most_N` | rate limited while more than N of its calls run, else as `ok` after 100 ms |
/// | `pauses` | its first call of all is rate limited with a hint of 5 s, then as `ok` |
/// | `locked` | an error of class `auth` until [`Scripted::unlock`], then as `ok` |
/// | `held` | waits until [`Scripted::release`], then as `ok` |
/// | `hangs` | never answers |
/// | `panics` | panics |
///
/// Streamed, each of these gives its answer as a single chunk. These come in parts, of which number N
/// is [`Scripted::chunk`]; not streamed, they answer as `ok`:
///
/// | model | stream |
/// | --- | --- |
/// | `stream_N`, `stream_N_every_MS` | N chunks, a pause of so many milliseconds before each |
/// | `stream_held` | 2 chunks and, after [`Scripted::release`], 2 more |
/// | `stream_then_fails` | 2 chunks, then a transient error |
/// | `stream_then_cut` | 2 chunks, then nothing more and no end |
/// | `stream_then_hangs` | 2 chunks, then silence |
/// | `stream_then_panics` | 2 chunks, then a panic |
///
/// These are tasks that run elsewhere, to be asked for every 3 s; called, they answer as `ok`:
///
/// | model | task |
/// | --- | --- |
/// | `task_N` | has ended at the question number N, then as `ok` |
/// | `task_held` | its first question is answered after [`Scripted::release`], then as `ok` |
/// | `task_fails` | has failed at the first question |
/// | `task_locked` | cannot be started (class `auth`) until [`Scripted::unlock`]; then as `task_1` |
///
/// The number of a task, counted from 1 for each job, is in the id of its request: `task-1`.
///
/// Any other name is answered `not_found`.
#[derive(Debug)]
pub struct Scripted {
    calls: Mutex<BTreeMap<JobId, u32>>,
    /// By model: calls inside now, and calls there were.
    models: Models,
    locked: AtomicBool,
    /// How many calls are inside now.
    running: watch::Sender<usize>,
    released: watch::Sender<bool>,
}

type Models = Arc<Mutex<BTreeMap<String, (usize, u32)>>>;

impl Default for Scripted {
    fn default() -> Self {
        Self {
            calls: Mutex::default(),
            models: Models::default(),
            locked: AtomicBool::new(true),
            running: watch::Sender::new(0),
            released: watch::Sender::new(false),
        }
    }
}

impl Scripted {
    /// What a call that succeeds answers.
    pub const RESPONSE: &'static str = r#"{"choices":[{"text":"ok"}]}"#;

    /// How often this job was called.
    pub fn calls(&self, job: JobId) -> u32 {
        self.all_calls().get(&job).copied().unwrap_or(0)
    }

    /// How often each job was called.
    pub fn all_calls(&self) -> BTreeMap<JobId, u32> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How many calls run now. One whose future was dropped does not run.
    pub fn running(&self) -> usize {
        *self.running.borrow()
    }

    /// Waits until exactly `n` calls run.
    pub async fn runs(&self, n: usize) {
        let mut running = self.running.subscribe();
        // The sender lives as long as `self`.
        let _ = running.wait_for(|&running| running == n).await;
    }

    /// Lets the calls of `held` answer, those of the future too.
    pub fn release(&self) {
        self.released.send_replace(true);
    }

    /// How often `model` was called.
    pub fn calls_of_model(&self, model: &str) -> u32 {
        lock(&self.models).get(model).map_or(0, |&(_, n_calls)| n_calls)
    }

    /// The calls of `locked` succeed from now on.
    pub fn unlock(&self) {
        self.locked.store(false, Ordering::SeqCst);
    }

    /// Chunk number `n` of a stream, counted from 0.
    pub fn chunk(n: u64) -> String {
        format!(r#"{{"n":{n}}}"#)
    }

    /// What a call that succeeds consumes.
    pub fn usage() -> Usage {
        Usage { input_tokens: Some(3), output_tokens: Some(1), ..Usage::default() }
    }

    fn count(&self, job: JobId) -> u32 {
        let mut calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        let n_calls = calls.entry(job).or_default();
        *n_calls += 1;
        *n_calls
    }

    async fn outcome(&self, call: &Call) -> Result<Reply, VendorError> {
        let n_calls = self.count(call.job_id);
        let _running = Running::one_more(&self.running);
        let inside = Inside::enter(&self.models, &call.model);
        match call.model.as_str() {
            "echo" => return Ok(reply(call.args.clone())),
            "fails_once" if n_calls <= 1 => return Err(failure(ErrorClass::Transient, None)),
            "fails_twice" if n_calls <= 2 => return Err(failure(ErrorClass::Transient, None)),
            "rate_limited_for_1s" if n_calls <= 1 => {
                return Err(failure(ErrorClass::RateLimited, Some(Duration::from_secs(1))));
            }
            "rate_limited_for_1h" => {
                return Err(failure(ErrorClass::RateLimited, Some(Duration::from_hours(1))));
            }
            "pauses" if inside.n_calls == 1 => {
                return Err(failure(ErrorClass::RateLimited, Some(Duration::from_secs(5))));
            }
            "locked" if self.locked.load(Ordering::SeqCst) => {
                return Err(failure(ErrorClass::Auth, None));
            }
            model if model.starts_with("at_most_") => {
                if model[8..].parse().is_ok_and(|most: usize| inside.n_running > most) {
                    return Err(failure(ErrorClass::RateLimited, None));
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            "ok" | "fails_once" | "fails_twice" | "rate_limited_for_1s" | "pauses" | "locked" => {}
            "held" => {
                // The sender lives as long as `self`.
                let _ = self.released.subscribe().wait_for(|&released| released).await;
            }
            "hangs" => std::future::pending().await,
            "panics" => panic!("the model 'panics' was called"),
            model if Course::of(model).is_some() || tasks::is_task(model) => {}
            model => return Err(failure(class(model), None)),
        }
        let response = Json::parse(Self::RESPONSE).expect("the constant is JSON");
        Ok(Reply { usage: Self::usage(), ..reply(response) })
    }
}

#[async_trait]
impl Adapter for Scripted {
    async fn call(&self, call: &Call) -> Result<Reply, VendorError> {
        self.outcome(call).await
    }

    async fn advance(&self, call: &Call, ticket: Option<&str>) -> Result<Progress, VendorError> {
        if tasks::is_task(&call.model) {
            return tasks::advance(self, call, ticket).await;
        }
        self.outcome(call).await.map(Progress::Done)
    }

    async fn stream(&self, call: &Call) -> Result<Chunks, VendorError> {
        if let Some(course) = Course::of(&call.model) {
            self.count(call.job_id);
            let running = Running::one_more(&self.running);
            let inside = Inside::enter(&self.models, &call.model);
            return Ok(course.run(self.released.subscribe(), (running, inside)));
        }
        let reply = self.outcome(call).await?;
        let data = Chunk::Data(reply.response.as_str().to_owned().into());
        let end = Chunk::End { usage: reply.usage, vendor_request_id: reply.vendor_request_id };
        Ok(stream::iter([Ok(data), Ok(end)]).boxed())
    }
}

/// Counts a call as running until it is dropped.
struct Running(watch::Sender<usize>);

impl Running {
    fn one_more(running: &watch::Sender<usize>) -> Self {
        running.send_modify(|running| *running += 1);
        Self(running.clone())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.send_modify(|running| *running -= 1);
    }
}

/// Counts a call as inside its model until it is dropped.
struct Inside {
    models: Models,
    model: String,
    /// This one included.
    n_running: usize,
    n_calls: u32,
}

impl Inside {
    fn enter(models: &Models, model: &str) -> Self {
        let mut counts = lock(models);
        let entry = counts.entry(model.to_owned()).or_default();
        *entry = (entry.0 + 1, entry.1 + 1);
        let (n_running, n_calls) = *entry;
        Self { models: Arc::clone(models), model: model.to_owned(), n_running, n_calls }
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        if let Some(entry) = lock(&self.models).get_mut(&self.model) {
            entry.0 -= 1;
        }
    }
}

fn lock(models: &Models) -> MutexGuard<'_, BTreeMap<String, (usize, u32)>> {
    models.lock().unwrap_or_else(PoisonError::into_inner)
}

fn reply(response: Json) -> Reply {
    Reply { response, usage: Usage::default(), vendor_request_id: Some("req_scripted".to_owned()) }
}

fn class(model: &str) -> ErrorClass {
    match model {
        "transient" => ErrorClass::Transient,
        "rate_limited" => ErrorClass::RateLimited,
        "overloaded" => ErrorClass::Overloaded,
        "quota" => ErrorClass::QuotaExhausted,
        "auth" => ErrorClass::Auth,
        "invalid" => ErrorClass::InvalidRequest,
        "context_length" => ErrorClass::ContextLength,
        "blocked" => ErrorClass::Blocked,
        "protocol" => ErrorClass::Protocol,
        "too_large" => ErrorClass::ResponseTooLarge,
        _ => ErrorClass::NotFound,
    }
}

fn failure(class: ErrorClass, retry_after: Option<Duration>) -> VendorError {
    let mut error = VendorError::new(class, format!("scripted: {class}"));
    // The vendor has seen the key.
    error.error.vendor_status = (class == ErrorClass::Auth).then_some(401);
    VendorError { retry_after, ..error }
}

#[cfg(test)]
mod tests {
    use inferq_common::clock::{Clock as _, SystemClock};

    use super::*;
    use crate::Share;

    fn call(model: &str) -> Call {
        Call {
            job_id: JobId::new(SystemClock.now()),
            attempt: 1,
            model: model.to_owned(),
            args: Json::parse("{}").unwrap(),
            route: None,
            timeout: Duration::from_secs(60),
            memory: Share::default(),
        }
    }

    #[tokio::test]
    async fn calls_are_counted_for_each_job() {
        let scripted = Scripted::default();
        let call = call("fails_twice");
        for _ in 0..2 {
            assert_eq!(scripted.call(&call).await.unwrap_err().class(), ErrorClass::Transient);
        }
        let reply = scripted.call(&call).await.unwrap();
        assert_eq!(reply.response.as_str(), Scripted::RESPONSE);
        assert_eq!(scripted.calls(call.job_id), 3);
        assert_eq!(scripted.calls(JobId::new(SystemClock.now())), 0);
    }

    #[tokio::test]
    async fn a_held_call_runs_until_it_is_released_or_dropped() {
        let scripted = Scripted::default();
        let (held, hanging) = (call("held"), call("hangs"));
        tokio::select! {
            () = async { scripted.runs(2).await } => {}
            _ = scripted.call(&held) => panic!("held answered"),
            _ = scripted.call(&hanging) => panic!("hangs answered"),
        }
        assert_eq!(scripted.running(), 0);
        scripted.release();
        scripted.call(&held).await.unwrap();
    }
    #[tokio::test]
    async fn a_stream_goes_as_its_name_tells() {
        let scripted = Scripted::default();
        let data = |n| Chunk::Data(Scripted::chunk(n).into());
        let all: Vec<_> = scripted.stream(&call("stream_3")).await.unwrap().collect().await;
        let chunks: Vec<_> = all.into_iter().map(Result::unwrap).collect();
        assert_eq!(chunks[..3], [data(0), data(1), data(2)]);
        assert!(matches!(&chunks[3..], [Chunk::End { usage, .. }] if *usage == Scripted::usage()));

        let all: Vec<_> =
            scripted.stream(&call("stream_then_fails")).await.unwrap().collect().await;
        assert_eq!(all.len(), 3);
        assert_eq!(all[2].as_ref().unwrap_err().class(), ErrorClass::Transient);
        let all: Vec<_> = scripted.stream(&call("stream_then_cut")).await.unwrap().collect().await;
        assert_eq!(all, [Ok(data(0)), Ok(data(1))]);

        let mut held = scripted.stream(&call("stream_held")).await.unwrap();
        assert_eq!(scripted.running(), 1);
        assert_eq!(held.next().await.unwrap().unwrap(), data(0));
        assert_eq!(held.next().await.unwrap().unwrap(), data(1));
        assert!(futures::future::poll_immediate(held.next()).await.is_none());
        scripted.release();
        assert_eq!(held.next().await.unwrap().unwrap(), data(2));
        drop(held);
        assert_eq!(scripted.running(), 0);
    }
}
