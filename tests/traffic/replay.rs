//! Replays recordings through a whole platform: submit, worker, adapter, result or chunks.

use std::{collections::BTreeMap, fmt::Debug, time::Duration};

use chrono::{DateTime, Utc};
use futures::TryStreamExt as _;
use inferq_common::{
    clock::{Clock as _, SystemClock},
    config::{Config, VendorConfig},
    error::{ErrorClass, JobError},
    id::JobId,
    members::each_member,
    usage::Usage,
    vendor::Vendor,
};
use inferq_vendors::{Adapter, Call, Registry, Share};
use reqwest::Method;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json, value::RawValue};

use super::{
    Body, Expected, Failure, KEY, Plan, Recording, Target, bedrock,
    server::{Pieces, Request, Server},
};
use crate::harness::{Mode, PATIENCE, Platform, eventually, sse::Events};

/// The longest wait before a second attempt where the vendor names none: that of an overloaded vendor,
/// or what is left of the pause that its model takes.
const LONGEST_OWN_WAIT: Duration = Duration::from_secs(60);

/// Where whole answers say what was asked for: one of these is in each of them.
const ANSWERS: &[&str] = &[
    "/choices/0/message/role",
    "/choices/0/text",
    "/output/0/type",
    "/content/0/type",
    "/candidates/0/content/parts/0",
    "/steps/0/type",
    "/message/content/0/type",
    "/message/tool_calls/0/function",
    "/output/message/content/0",
    "/generations/0/text",
];

/// Replays recordings that need the same settings, one after the other; answers for each whether it
/// passed.
pub async fn group(
    vendor: Vendor,
    group: &[(Recording, Plan)],
) -> Vec<(String, Result<(), String>)> {
    let mut stage = None;
    let mut results = Vec::new();
    for (recording, plan) in group {
        let mut result = bedrock::check_frames(recording);
        for pieces in [Pieces::AsRecorded, Pieces::Bytes] {
            if result.is_err() {
                break;
            }
            let own = match stage.take() {
                Some(stage) => stage,
                None => Stage::start(vendor, plan).await,
            };
            own.server.replay(recording, pieces);
            result = own.replay(recording, plan, pieces).await;
            result = result.map_err(|fault| format!("{pieces:?}: {fault}"));
            let is_clean = result.is_ok() && !holds_back(plan);
            stage = is_clean.then_some(own);
        }
        results.push((recording.name.clone(), result));
    }
    results
}

/// Whether a failure may hold its model or its key back: what follows starts afresh.
fn holds_back(plan: &Plan) -> bool {
    use ErrorClass::{Blocked, ContextLength, InvalidRequest};
    let Err(failure) = &plan.answer else { return false };
    !matches!(failure.class, Blocked | ContextLength | InvalidRequest)
}

/// A platform whose vendor is a server that replays.
struct Stage {
    vendor: Vendor,
    server: Server,
    platform: Platform,
    /// Adapters with the settings that the platform has.
    registry: Registry,
}

/// What came of a call or stream.
#[derive(Debug)]
struct Outcome {
    answer: Result<Vec<String>, JobError>,
    usage: Usage,
    request_id: Option<String>,
    /// What is stored of a stream.
    whole: Option<String>,
    /// Whether another attempt follows, and the wait the vendor asked for; `None`: not to be seen.
    retry: Option<Retry>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Retry {
    Never,
    /// After a wait of our own choice.
    Soon,
    After(Duration),
}

impl Stage {
    async fn start(vendor: Vendor, plan: &Plan) -> Self {
        let server = Server::start().await;
        let mut settings = plan.settings.clone();
        let base_url = format!("http://{}{}", server.address, plan.prefix);
        settings.insert("base_url".to_owned(), base_url.clone());
        let mut variables = BTreeMap::new();
        let mut config = Config::load(None).expect("good defaults");
        config.vendors.clear();
        for &other in Vendor::ALL {
            // None has to be ready for TLS, which would take a while.
            variables.insert(variable(other, "base_url"), base_url.clone());
            let base_url = Some(base_url.parse().expect("an address"));
            config.vendors.insert(other, VendorConfig { base_url, ..VendorConfig::default() });
        }
        let mut members = json!({});
        for (key, value) in &settings {
            variables.insert(variable(vendor, key), value.clone());
            let member = key.split('.').fold(&mut members, |place, part| &mut place[part]);
            *member = value.as_str().into();
        }
        let own = serde_json::from_value(members).expect("good settings");
        config.vendors.insert(vendor, own);
        let registry = Registry::new(&config).expect("good settings");
        let variables: Vec<_> =
            variables.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let platform = Platform::start_with(Mode::Embedded, &variables).await;
        Self { vendor, server, platform, registry }
    }

    async fn replay(
        &self,
        recording: &Recording,
        plan: &Plan,
        pieces: Pieces,
    ) -> Result<(), String> {
        let is_retried = pieces == Pieces::Bytes && plan.answer.is_err();
        let outcome = self.call(plan, u8::from(is_retried)).await?;
        check_requests(&self.server.requests(), plan, outcome.retry)?;
        check_outcome(&outcome, recording, plan)?;
        if let Some(whole) = &outcome.whole {
            self.check_assembled(recording, plan, whole, &outcome.usage).await?;
        }
        match &plan.answer {
            Err(expected) => self.check_wait(plan, expected).await,
            Ok(_) => Ok(()),
        }
    }

    /// The wait that the adapter reads out of a failure, to the millisecond: a job's own wait hides
    /// that there was none.
    async fn check_wait(&self, plan: &Plan, expected: &Failure) -> Result<(), String> {
        let (adapter, call) = (self.adapter(plan), call(plan));
        let failure = if plan.streams {
            let read = async { adapter.stream(&call).await?.try_for_each(async |_| Ok(())).await };
            tokio::time::timeout(PATIENCE, read).await.expect("the stream takes too long").err()
        } else {
            adapter.call(&call).await.err()
        };
        match failure {
            None => Err("the adapter alone did not fail".to_owned()),
            Some(error) => same("wait", &error.retry_after, &expected.wait),
        }
    }

    /// What is stored of a stream is a whole answer: it says something, and the adapter reads it
    /// as one that tells the same usage.
    async fn check_assembled(
        &self,
        recording: &Recording,
        plan: &Plan,
        whole: &str,
        usage: &Usage,
    ) -> Result<(), String> {
        let (adapter, call) = (self.adapter(plan), call(plan));
        let document: Value = serde_json::from_str(whole).map_err(|it| it.to_string())?;
        let says = |at: &&str| document.pointer(at).is_some_and(|it| !it.is_null());
        if !ANSWERS.iter().any(says) {
            return Err(format!("assembled: {whole} says nothing"));
        }
        self.server.answer(whole);
        let reply = adapter.call(&call).await.map_err(|error| format!("assembled: {error:?}"))?;
        same("assembled", &reply.response.as_str(), &whole)?;
        // Of a whole InvokeModel the headers tell the usage, as the last chunk's metrics do; only some
        // models tell it in the body too, and then in more detail.
        if recording.request.url.path().ends_with("invoke-with-response-stream") {
            let counts = |usage: &Usage| (usage.input_tokens, usage.output_tokens);
            if reply.usage.is_empty() {
                return Ok(());
            }
            return same("assembled usage", &counts(&reply.usage), &counts(usage));
        }
        same("assembled usage", &reply.usage, usage)
    }

    fn adapter(&self, plan: &Plan) -> &dyn Adapter {
        let candidates = self.registry.candidates(self.vendor, &plan.model);
        candidates.expect("every vendor has an adapter")[0].adapter.as_ref()
    }

    /// Submits the call as a client does, and reads what became of it.
    async fn call(&self, plan: &Plan, num_retries: u8) -> Result<Outcome, String> {
        let mut configuration = json!({"num_retries": num_retries});
        if let Some(route) = plan.route {
            configuration["route"] = route.as_str().into();
        }
        let model = format!("{}/{}", self.vendor, plan.model);
        // The text of the arguments as it is: a client's JSON library would write it anew.
        let body = format!(
            r#"{{"model":{},"args":{},"stream":{},"inference_configuration":{configuration}}}"#,
            json!(model),
            plan.args.as_str(),
            plan.streams
        );
        let request = self.platform.request(Method::POST, "/v5/inference");
        let request = request.header("prefer", "respond-async");
        let request = request.header("content-type", "application/json").body(body);
        let response = request.send().await.map_err(|error| error.to_string())?;
        let status = response.status();
        let text = response.text().await.map_err(|error| error.to_string())?;
        if status != 202 {
            return Err(format!("it was not accepted: {status} {text}"));
        }
        let accepted: Value = serde_json::from_str(&text).map_err(|error| error.to_string())?;
        let id = accepted["id"].as_str().ok_or("no id")?;
        let mut outcome = match num_retries {
            0 => self.ended(id).await,
            _ => self.failed_once(id).await,
        }?;
        if plan.streams && outcome.retry == Some(Retry::Never) && !self.chunks(id).await?.is_empty()
        {
            // Part of it was passed on: whatever the failure, it is not repeated.
            outcome.retry = None;
        }
        if plan.streams && plan.answer.is_ok() {
            let chunks = self.chunks(id).await?;
            outcome.whole = outcome.answer.ok().and_then(|mut answers| answers.pop());
            outcome.answer = Ok(chunks);
        }
        Ok(outcome)
    }

    /// The chunks of a job that has ended, as its events tell them.
    async fn chunks(&self, id: &str) -> Result<Vec<String>, String> {
        let request = self.platform.request(Method::GET, &format!("/v5/jobs/{id}/events"));
        let mut events = Events::of(request.send().await.map_err(|it| it.to_string())?).await;
        let chunks = events.rest().await.into_iter().filter(|event| event.name == "chunk");
        let texts = chunks.map(|event| {
            let told: ChunkEvent = serde_json::from_str(&event.data)?;
            Ok(told.chunk.get().to_owned())
        });
        texts.collect::<serde_json::Result<_>>().map_err(|error| error.to_string())
    }

    async fn ended(&self, id: &str) -> Result<Outcome, String> {
        let job: Job = self.get(&format!("/v5/jobs/{id}"), "wait=60").await?;
        let attempts = self.attempts(id).await?;
        same("number of attempts", &attempts.len(), &1)?;
        let [attempt] = attempts.try_into().map_err(|_| "one attempt")?;
        same("error of the attempt", &attempt.error, &job.error)?;
        same("usage of the attempt", &attempt.usage, &job.usage)?;
        let request_id = match &job.error {
            Some(error) => error.vendor_request_id.clone(),
            None => attempt.vendor_request_id,
        };
        let answer = match (job.status.as_str(), job.response, job.error) {
            ("succeeded", Some(response), None) => Ok(vec![response.get().to_owned()]),
            ("failed", None, Some(error)) => Err(error),
            (status, ..) => return Err(format!("the job is {status}")),
        };
        let usage = job.usage.unwrap_or_default();
        Ok(Outcome { answer, usage, request_id, whole: None, retry: None })
    }

    /// What was decided after the first attempt of a job that may have a second one.
    async fn failed_once(&self, id: &str) -> Result<Outcome, String> {
        let attempts = eventually("an attempt to end", async || {
            let attempts = self.attempts(id).await.ok()?;
            (!attempts.is_empty()).then_some(attempts)
        })
        .await;
        // Read after the attempts: a job that has ended by now had as many as it was to have.
        let job: Job = self.get(&format!("/v5/jobs/{id}"), "wait=0").await?;
        let first = attempts.into_iter().next().ok_or("no attempt")?;
        let waits = job.run_at.filter(|_| job.status == "queued" && job.attempt == 1);
        let waits = waits.map(|run_at| run_at - first.finished_at);
        let retry = match (job.status.as_str(), waits) {
            ("failed", _) if job.attempt == 1 => Retry::Never,
            ("queued", Some(wait)) => Retry::After(wait.to_std().unwrap_or_default()),
            ("queued" | "running" | "failed", _) => Retry::Soon,
            (status, _) => return Err(format!("the job is {status}")),
        };
        let error = first.error.ok_or("the first attempt did not fail")?;
        let request_id = error.vendor_request_id.clone();
        let usage = first.usage.unwrap_or_default();
        Ok(Outcome { answer: Err(error), usage, request_id, whole: None, retry: Some(retry) })
    }

    async fn attempts(&self, id: &str) -> Result<Vec<Attempt>, String> {
        let page: Page = self.get(&format!("/v5/jobs/{id}/attempts"), "wait=0").await?;
        Ok(page.items)
    }

    async fn get<T: DeserializeOwned>(&self, path: &str, prefer: &str) -> Result<T, String> {
        let request = self.platform.request(Method::GET, path).header("prefer", prefer);
        let response = request.send().await.map_err(|error| error.to_string())?;
        let text = response.text().await.map_err(|error| error.to_string())?;
        serde_json::from_str(&text).map_err(|error| format!("{path}: {error} in {text}"))
    }
}

fn variable(vendor: Vendor, key: &str) -> String {
    format!("INFERQ__VENDORS__{vendor}__{}", key.replace('.', "__")).to_uppercase()
}

fn call(plan: &Plan) -> Call {
    Call {
        job_id: JobId::new(SystemClock.now()),
        attempt: 1,
        model: plan.model.clone(),
        args: plan.args.clone(),
        route: plan.route,
        timeout: PATIENCE,
        memory: Share::default(),
    }
}

/// The members of a job's document that are looked at.
#[derive(Debug, Deserialize)]
struct Job {
    status: String,
    attempt: u32,
    run_at: Option<DateTime<Utc>>,
    response: Option<Box<RawValue>>,
    error: Option<JobError>,
    usage: Option<Usage>,
}

#[derive(Debug, Deserialize)]
struct ChunkEvent {
    chunk: Box<RawValue>,
}

#[derive(Debug, Deserialize)]
struct Page {
    items: Vec<Attempt>,
}

#[derive(Debug, Deserialize)]
struct Attempt {
    finished_at: DateTime<Utc>,
    error: Option<JobError>,
    usage: Option<Usage>,
    vendor_request_id: Option<String>,
}

/// One request went out, as recorded; a second one only where a second attempt may have begun.
fn check_requests(requests: &[Request], plan: &Plan, retry: Option<Retry>) -> Result<(), String> {
    let most = match retry {
        Some(Retry::Soon) => 2,
        Some(Retry::After(wait)) if wait < Duration::from_secs(3) => 2,
        _ => 1,
    };
    let n_requests = requests.len();
    if !(1..=most).contains(&n_requests) {
        return Err(format!("{n_requests} requests went out"));
    }
    requests.iter().try_for_each(|request| {
        check_request(request, &plan.request)?;
        check_spelling(&request.body, plan.args.as_str())
    })
}

/// Members that are the adapter's to write, or to write into.
const OWN: &[&str] =
    &["model", "modelId", "stream", "stream_options", "anthropic_version", "requests"];

/// Every other member went out as it was spelt, in its order.
fn check_spelling(body: &str, args: &str) -> Result<(), String> {
    let members = |object: &str| {
        let mut members = Vec::new();
        each_member(object, |member| {
            if !OWN.contains(&member.key.as_ref()) {
                members.push((member.raw_key.to_owned(), member.value.to_owned()));
            }
        })
        .map_err(|error| error.to_string())?;
        Ok::<_, String>(members)
    };
    same("members", &members(body)?, &members(args)?)
}

fn check_request(request: &Request, expected: &Expected) -> Result<(), String> {
    let found = request.line.strip_prefix("POST ").and_then(|it| it.strip_suffix(" HTTP/1.1"));
    let found = found.ok_or_else(|| format!("the request is {}", request.line))?;
    match &expected.target {
        Target::Is(target) => same("target", &found, &target.as_str())?,
        Target::Path(path) => {
            let bare = found.split_once('?').map_or(found, |(bare, _)| bare);
            same("path", &bare, &path.as_str())?;
        }
        Target::Unknown => {}
    }
    same("content type", &request.header("content-type"), &Some("application/json"))?;
    for (name, pattern) in &expected.headers {
        let found = request.header(name);
        let fits = match (found, pattern) {
            (Some(found), Some(pattern)) => matches(found, pattern),
            (found, pattern) => found.is_none() && pattern.is_none(),
        };
        if !fits {
            return Err(format!("header {name}: {found:?} is not {pattern:?}"));
        }
    }
    match &expected.body {
        Body::Json(expected) => {
            let body: Value = serde_json::from_str(&request.body).map_err(|it| it.to_string())?;
            same("body", &body, expected)
        }
        Body::Text(expected) => same("body", &request.body, expected),
        Body::Unknown => Ok(()),
    }
}

fn check_outcome(outcome: &Outcome, recording: &Recording, plan: &Plan) -> Result<(), String> {
    match (&plan.answer, &outcome.answer) {
        (Ok(expected), Ok(texts)) => {
            same("request id", &outcome.request_id, &plan.request_id)?;
            same("answer", texts, &expected.texts)?;
            same("usage", &outcome.usage, &expected.usage)
        }
        (Err(expected), Err(error)) => {
            same("class", &error.class, &expected.class)?;
            same("request id", &outcome.request_id, &plan.request_id)?;
            let status = recording.response.status;
            same("status", &error.vendor_status, &Some(status).filter(|status| *status >= 400))?;
            if expected.code.is_some() {
                same("code", &error.vendor_code, &expected.code)?;
            }
            if !error.message.contains(&expected.said) {
                return Err(format!("message: {} does not say {}", error.message, expected.said));
            }
            if error.message.contains(KEY) {
                return Err(format!("the message tells the key: {}", error.message));
            }
            outcome.retry.map_or(Ok(()), |retry| check_retry(retry, expected))
        }
        (Err(expected), Ok(_)) => Err(format!("it did not fail: {:?}", expected.class)),
        (Ok(_), Err(error)) => Err(format!("it failed: {error:?}")),
    }
}

fn check_retry(retry: Retry, expected: &Failure) -> Result<(), String> {
    let fits = match (retry, expected.wait) {
        (Retry::Never, _) => !expected.class.is_transient(),
        _ if !expected.class.is_transient() => false,
        // It is stored a moment after the attempt has failed.
        (Retry::After(own), Some(wait)) => own.abs_diff(wait) <= Duration::from_secs(2),
        (Retry::After(own), None) => own <= LONGEST_OWN_WAIT,
        // What the vendor asks for is never less than a second.
        (Retry::Soon, wait) => wait.is_none_or(|wait| wait <= Duration::from_secs(2)),
    };
    if fits { Ok(()) } else { Err(format!("retry: {retry:?} for {expected:?}")) }
}

/// Whether `text` is as `pattern` says; a `*` in it stands for anything.
fn matches(text: &str, pattern: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = text.strip_prefix(parts.next().unwrap_or_default()) else { return false };
    if !pattern.contains('*') {
        return rest.is_empty();
    }
    for part in parts {
        match rest.split_once(part) {
            Some((_, after)) => rest = after,
            None => return false,
        }
    }
    rest.is_empty() || pattern.ends_with('*')
}

fn same<T: PartialEq + Debug + ?Sized>(what: &str, found: &T, expected: &T) -> Result<(), String> {
    if found == expected { Ok(()) } else { Err(format!("{what}: {found:?} is not {expected:?}")) }
}
