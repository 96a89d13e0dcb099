//! Processes are killed at any moment: nothing accepted is lost, nothing ends twice.

#![expect(clippy::unwrap_used, reason = "stories unwrap freely")]

mod harness;

use std::{collections::BTreeMap, time::Instant};

use harness::{Mode, Platform, chat, eventually, receiver::Receiver};
use serde_json::{Value, json};

/// What may have run more than once.
#[derive(Debug, Clone, Copy)]
enum Repeats {
    /// Nothing: nobody who runs jobs has died.
    None,
    /// Nothing was called twice; but what was lent to a worker may have come back before it began, which
    /// counts as an attempt.
    Loans,
    /// What was in flight when a process was killed, or the store.
    InFlightAt(Instant),
}

#[tokio::test(flavor = "multi_thread")]
async fn dev_killed_amid_a_hundred_jobs_finishes_each_once() {
    let platform = Platform::start(Mode::Embedded).await;
    let receiver = Receiver::start().await;
    let (mut jobs, mut killed) = (BTreeMap::new(), Instant::now());
    for number in 0..100 {
        let name = format!("job-{number}");
        let mut body = chat(&name, &json!({"delay_ms": 40 * (number % 10)}));
        body["callback_url"] = receiver.url(&format!("ok/{name}")).into();
        jobs.insert(name, platform.submit(&body).await);
        if number == 60 {
            platform.fronts[0].kill();
            killed = Instant::now();
            platform.fronts[0].start_again();
            platform.fronts[0].is_ready().await;
        }
    }
    let repeats = Repeats::InFlightAt(killed);
    assert_all_ended_once(&platform, 100, &jobs, &receiver, repeats).await;
}

#[cfg(feature = "servers")]
mod distributed {
    use std::{cell::OnceCell, time::Duration};

    use inferq_common::testing::{postgres, rabbitmq};
    use sqlx::{Connection as _, PgConnection};

    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    #[expect(clippy::print_stdout, reason = "docs/benchmarks.md has the figure")]
    async fn a_killed_worker_s_job_is_rescued_within_four_seconds() {
        let platform = Platform::start(Mode::Distributed).await;
        let receiver = Receiver::start().await;
        let mut body = chat("long", &json!({"delay_ms": 1500}));
        body["callback_url"] = receiver.url("ok/long").into();
        let id = platform.submit(&body).await;
        eventually("the job to run", async || platform.vendor.calls("long").first().cloned()).await;
        // Which worker has it is not to be seen from outside: both go, one comes back.
        platform.workers[0].kill();
        platform.workers[1].kill();
        let killed = Instant::now();
        platform.workers[1].start_again();
        let again = eventually("the job to run again", async || {
            platform.vendor.calls("long").get(1).cloned()
        })
        .await;
        let took = again.began - killed;
        println!("the rescue took {took:.1?}");
        assert!(took < Duration::from_secs(4), "the rescue took {took:?}");
        let job = platform.ends(&id).await;
        assert_eq!((&job["status"], &job["attempt"]), (&json!("succeeded"), &json!(2)));
        let attempts = platform.attempts(&id).await;
        assert_eq!(attempts[0]["outcome"], "lost");
        assert_eq!(attempts[1]["outcome"], "succeeded");
        let jobs = BTreeMap::from([("long".to_owned(), id)]);
        let repeats = Repeats::InFlightAt(killed);
        assert_all_ended_once(&platform, 1, &jobs, &receiver, repeats).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_worker_killed_under_load_loses_nothing() {
        let platform = Platform::start(Mode::Distributed).await;
        let receiver = Receiver::start().await;
        let killed = OnceCell::new();
        let jobs = submit_while(&platform, &receiver, 200, async || {
            tokio::time::sleep(Duration::from_millis(500)).await;
            platform.workers[0].kill();
            killed.set(Instant::now()).unwrap();
        })
        .await;
        assert_eq!(jobs.len(), 200, "the apis take jobs whatever becomes of workers");
        let repeats = Repeats::InFlightAt(*killed.get().unwrap());
        assert_all_ended_once(&platform, 200, &jobs, &receiver, repeats).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn an_api_killed_under_load_loses_nothing() {
        let platform = Platform::start(Mode::Distributed).await;
        let receiver = Receiver::start().await;
        let jobs = submit_while(&platform, &receiver, 200, async || {
            tokio::time::sleep(Duration::from_millis(500)).await;
            platform.fronts[0].kill();
        })
        .await;
        assert!(jobs.len() >= 198, "the other api took only {} jobs", jobs.len());
        assert_all_ended_once(&platform, 200, &jobs, &receiver, Repeats::None).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_worker_killed_with_loans_loses_nothing_and_holds_up_no_later_call() {
        let platform = Platform::start(Mode::Distributed).await;
        let receiver = Receiver::start().await;
        let killed = OnceCell::new();
        let jobs = call_while(&platform, &receiver, 200, async || {
            tokio::time::sleep(Duration::from_secs(1)).await;
            platform.workers[0].kill();
            killed.set(Instant::now()).unwrap();
        })
        .await;
        assert_eq!(jobs.len(), 200, "the apis take calls whatever becomes of workers");
        let repeats = Repeats::InFlightAt(*killed.get().unwrap());
        assert_all_ended_once(&platform, 200, &jobs, &receiver, repeats).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn an_api_killed_with_loans_loses_nothing() {
        let platform = Platform::start(Mode::Distributed).await;
        let receiver = Receiver::start().await;
        let jobs = call_while(&platform, &receiver, 200, async || {
            tokio::time::sleep(Duration::from_secs(1)).await;
            platform.fronts[0].kill();
        })
        .await;
        assert!(jobs.len() >= 198, "the other api took only {} jobs", jobs.len());
        assert_all_ended_once(&platform, 200, &jobs, &receiver, Repeats::Loans).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn loans_nobody_could_tell_of_are_found_by_their_workers() {
        let mut rabbitmq = rabbitmq::Server::start().await;
        let platform = platform_on(&postgres::fresh_database().await, &rabbitmq.url()).await;
        let receiver = Receiver::start().await;
        let before = call_while(&platform, &receiver, 20, async || ()).await;
        rabbitmq.stop().await;
        // The workers have room, and neither they nor the apis live to see the broker again.
        let bodies: Vec<Value> =
            (0..8).map(|number| chat(&format!("lent-{number}"), &json!({}))).collect();
        let calls = bodies.iter().map(|body| platform.try_infer(body, "wait=1"));
        let mut jobs = before;
        for (number, answer) in futures::future::join_all(calls).await.into_iter().enumerate() {
            let answer = answer.unwrap();
            assert_eq!(answer.status(), 202, "nobody can be told");
            let id = answer.headers()["x-job-id"].to_str().unwrap().to_owned();
            jobs.insert(format!("lent-{number}"), id);
        }
        platform.fronts[0].kill();
        platform.fronts[1].kill();
        rabbitmq.start_again().await;
        platform.fronts[1].start_again();
        platform.fronts[1].is_ready().await;
        for (name, id) in &jobs {
            let job = platform.ends(id).await;
            assert_eq!(job["status"], "succeeded", "{name}: {job}");
            assert_eq!(platform.vendor.calls(name).len(), 1, "{name}");
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn an_api_killed_before_it_published_loses_nothing() {
        let mut rabbitmq = rabbitmq::Server::start().await;
        let platform = platform_on(&postgres::fresh_database().await, &rabbitmq.url()).await;
        let receiver = Receiver::start().await;
        rabbitmq.stop().await;
        let jobs = submit_while(&platform, &receiver, 20, async || ()).await;
        assert_eq!(jobs.len(), 20, "jobs are accepted while the broker is down");
        platform.fronts[0].kill();
        platform.fronts[1].kill();
        rabbitmq.start_again().await;
        platform.fronts[1].start_again();
        platform.fronts[1].is_ready().await;
        assert_all_ended_once(&platform, 20, &jobs, &receiver, Repeats::None).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn started_without_rabbitmq_jobs_are_accepted_and_run_when_it_comes() {
        let mut rabbitmq = rabbitmq::Server::start().await;
        let platform = platform_on(&postgres::fresh_database().await, &rabbitmq.url()).await;
        rabbitmq.stop().await;
        let processes = || platform.fronts.iter().chain(&platform.workers);
        for process in processes() {
            process.kill();
            process.start_again();
        }
        for process in processes() {
            let url = format!("http://{}/readyz", process.listen);
            let body = eventually("an answer without the broker", async || {
                let response = platform.http.get(&url).send().await.ok()?;
                assert_eq!(response.status(), 200, "without the broker it is ready all the same");
                response.json::<Value>().await.ok()
            })
            .await;
            assert_eq!(body["status"], "degraded", "{}: {body}", process.name);
            assert_eq!(body["checks"]["broker"]["status"], "failed", "{body}");
            assert_eq!(body["checks"]["store"]["status"], "ok", "{body}");
        }
        let receiver = Receiver::start().await;
        let waits = chat("waits", &json!({}));
        let waits = platform.infer(&waits);
        let comes = async {
            let jobs = submit_while(&platform, &receiver, 20, async || ()).await;
            assert_eq!(jobs.len(), 20, "jobs are accepted without the broker");
            for id in jobs.values() {
                assert_eq!(platform.job(id).await["status"], "queued", "nothing can run yet");
            }
            rabbitmq.start_again().await;
            jobs
        };
        let (answer, jobs) = tokio::join!(waits, comes);
        assert_eq!(answer.status(), 200, "who waited got the result");
        assert_all_ended_once(&platform, 21, &jobs, &receiver, Repeats::None).await;
        for process in processes() {
            process.is_ready().await;
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn rabbitmq_restarted_under_load_loses_nothing() {
        let mut rabbitmq = rabbitmq::Server::start().await;
        let platform = platform_on(&postgres::fresh_database().await, &rabbitmq.url()).await;
        let receiver = Receiver::start().await;
        let jobs = submit_while(&platform, &receiver, 300, async || {
            tokio::time::sleep(Duration::from_millis(300)).await;
            rabbitmq.restart().await;
        })
        .await;
        assert_eq!(jobs.len(), 300, "jobs are accepted while the broker is down");
        assert_all_ended_once(&platform, 300, &jobs, &receiver, Repeats::None).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn rabbitmq_restarted_amid_calls_that_wait_loses_nothing() {
        let mut rabbitmq = rabbitmq::Server::start().await;
        let platform = platform_on(&postgres::fresh_database().await, &rabbitmq.url()).await;
        let receiver = Receiver::start().await;
        let jobs = call_while(&platform, &receiver, 200, async || {
            tokio::time::sleep(Duration::from_secs(1)).await;
            rabbitmq.restart().await;
        })
        .await;
        assert_eq!(jobs.len(), 200, "calls are accepted while the broker is down");
        assert_all_ended_once(&platform, 200, &jobs, &receiver, Repeats::Loans).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn postgres_restarted_under_load_loses_nothing() {
        let postgres = postgres::Server::start().await;
        let platform = platform_on(&postgres.url(), &rabbitmq::virtual_host().await).await;
        let receiver = Receiver::start().await;
        let back = OnceCell::new();
        let jobs = submit_while(&platform, &receiver, 300, async || {
            tokio::time::sleep(Duration::from_millis(300)).await;
            postgres.restart().await;
            back.set(Instant::now()).unwrap();
        })
        .await;
        assert!(jobs.len() > 50, "only {} jobs were accepted", jobs.len());
        let repeats = Repeats::InFlightAt(*back.get().unwrap());
        assert_all_ended_once(&platform, 300, &jobs, &receiver, repeats).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_job_that_is_stored_late_does_not_miss_its_message() {
        let database = postgres::fresh_database().await;
        let settings = BTreeMap::from([
            ("INFERQ__DATABASE__URL".to_owned(), database.clone()),
            ("INFERQ__BROKER__URL".to_owned(), rabbitmq::virtual_host().await),
            ("INFERQ__WORKER__LEND_PLACES".to_owned(), "false".to_owned()),
        ]);
        let platform = Platform::start_on(Mode::Distributed, settings).await;
        // A message goes ahead where the job before was stored at once: at each api.
        for number in 0..2 {
            let answer = platform.infer(&chat(&format!("prompt-{number}"), &json!({}))).await;
            assert_eq!(answer.status(), 200);
        }
        let mut connection = PgConnection::connect(&database).await.unwrap();
        let mut lock = connection.begin().await.unwrap();
        sqlx::query("LOCK TABLE jobs IN SHARE MODE").execute(&mut *lock).await.unwrap();
        let began = Instant::now();
        let late = chat("late", &json!({}));
        let unlock = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            lock.rollback().await.unwrap();
        };
        let (answer, ()) = tokio::join!(platform.infer(&late), unlock);
        assert_eq!(answer.status(), 200);
        let took = began.elapsed();
        assert!(took < Duration::from_secs(8), "only the sweep found its job: {took:?}");
        assert_eq!(platform.vendor.calls("late").len(), 1);
    }

    async fn platform_on(database: &str, broker: &str) -> Platform {
        let settings = BTreeMap::from([
            ("INFERQ__DATABASE__URL".to_owned(), database.to_owned()),
            ("INFERQ__BROKER__URL".to_owned(), broker.to_owned()),
        ]);
        Platform::start_on(Mode::Distributed, settings).await
    }

    /// Submits jobs one after the other while `trouble` happens; answers those that were accepted.
    async fn submit_while(
        platform: &Platform,
        receiver: &Receiver,
        n_jobs: usize,
        trouble: impl AsyncFnOnce(),
    ) -> BTreeMap<String, String> {
        post_while(platform, receiver, "respond-async", n_jobs, trouble).await
    }

    /// The same with calls that wait, and so are lent to workers as they are stored.
    async fn call_while(
        platform: &Platform,
        receiver: &Receiver,
        n_jobs: usize,
        trouble: impl AsyncFnOnce(),
    ) -> BTreeMap<String, String> {
        let jobs = post_while(platform, receiver, "wait=5", n_jobs, trouble).await;
        let mut n_lent = 0.0;
        for process in &platform.fronts {
            let url = format!("http://{}/metrics", process.listen);
            let Ok(answer) = platform.http.get(url).send().await else { continue };
            let text = answer.text().await.unwrap();
            let lent = text.lines().find(|line| line.starts_with("inferq_jobs_lent_total{"));
            n_lent += lent.map_or(0.0, |line| line.rsplit_once(' ').unwrap().1.parse().unwrap());
        }
        assert!(n_lent > 10.0, "only {n_lent} jobs were lent");
        jobs
    }

    /// A post that got neither 200 nor 202 is not repeated, so each name stands for at most one accepted
    /// job.
    async fn post_while(
        platform: &Platform,
        receiver: &Receiver,
        prefer: &str,
        n_jobs: usize,
        trouble: impl AsyncFnOnce(),
    ) -> BTreeMap<String, String> {
        let submits = async {
            let mut accepted = BTreeMap::new();
            for number in 0..n_jobs {
                let name = format!("job-{number}");
                let mut body = chat(&name, &json!({"delay_ms": 20}));
                body["callback_url"] = receiver.url(&format!("ok/{name}")).into();
                let answer = platform.try_infer(&body, prefer).await;
                let Ok(answer) = answer else { continue };
                match answer.status().as_u16() {
                    200 | 202 => {
                        let id = answer.headers()["x-job-id"].to_str().unwrap().to_owned();
                        accepted.insert(name, id);
                    }
                    503 => {
                        assert!(answer.headers().contains_key("retry-after"));
                        tokio::time::sleep(Duration::from_millis(50)).await;
                    }
                    other => panic!("a submit got {other}: {}", answer.text().await.unwrap()),
                }
            }
            accepted
        };
        tokio::join!(submits, trouble()).0
    }
}

/// Counts submitted, accepted, ended, vendor calls per job and callbacks per job, and holds them
/// together.
async fn assert_all_ended_once(
    platform: &Platform,
    n_submitted: usize,
    jobs: &BTreeMap<String, String>,
    receiver: &Receiver,
    repeats: Repeats,
) {
    for (name, id) in jobs {
        let job = platform.ends(id).await;
        assert_eq!(job["status"], "succeeded", "{name}: {job}");
        let content = &job["response"]["choices"][0]["message"]["content"];
        assert_eq!(*content, json!(format!("hello {name}")), "the result is the job's own");
        let attempts = platform.attempts(id).await;
        let won = attempts.iter().filter(|attempt| attempt["outcome"] == "succeeded").count();
        assert_eq!(won, 1, "{name}: one attempt gave the result: {attempts:?}");
        assert_called_as_often_as_allowed(platform, name, attempts.len(), repeats);
        assert_called_back_once(platform, receiver, name, id).await;
    }
    // What was stored without its 202 having come through has ended as well.
    platform.has_settled().await;
    let page = platform.get("/v5/jobs?limit=1000").await;
    let n_stored = page["items"].as_array().unwrap().len();
    assert!((jobs.len()..=n_submitted).contains(&n_stored), "{n_stored} of {n_submitted} stored");
    let n_called = platform.vendor.counts().len();
    assert!((jobs.len()..=n_stored).contains(&n_called), "{n_called} of {n_stored} were called");
}

fn assert_called_as_often_as_allowed(
    platform: &Platform,
    name: &str,
    n_attempts: usize,
    repeats: Repeats,
) {
    let calls = platform.vendor.calls(name);
    assert!((1..=n_attempts).contains(&calls.len()), "{name}: {calls:?}, {n_attempts} attempts");
    match repeats {
        Repeats::None => assert_eq!(n_attempts, 1, "{name}: {calls:?}"),
        Repeats::Loans => assert_eq!(calls.len(), 1, "{name}: {n_attempts} attempts"),
        Repeats::InFlightAt(killed) => {
            assert!(n_attempts <= 2, "{name}: one process was killed once, {n_attempts} attempts");
            for lost in &calls[..calls.len() - 1] {
                assert!(lost.began <= killed, "{name} was called again without need: {calls:?}");
            }
        }
    }
}

/// One delivery, with no more posts than attempts it began.
async fn assert_called_back_once(platform: &Platform, receiver: &Receiver, name: &str, id: &str) {
    let deliveries: Vec<Value> = eventually(&format!("the callback of {name}"), async || {
        let page = platform.get(&format!("/v5/jobs/{id}/deliveries")).await;
        let items = page["items"].as_array()?.clone();
        items.iter().all(|item| item["status"] == "delivered").then_some(items)
    })
    .await;
    assert_eq!(deliveries.len(), 1, "{name}: {deliveries:?}");
    let posts = receiver.posts(&format!("ok/{name}"));
    let id = deliveries[0]["id"].as_str().unwrap();
    assert!(posts.iter().all(|post| post.headers["webhook-id"] == id), "{name}: {posts:?}");
    let n_begun = usize::try_from(deliveries[0]["attempt"].as_u64().unwrap()).unwrap();
    assert!((1..=n_begun).contains(&posts.len()), "{name}: {} posts of {n_begun}", posts.len());
}
