//! Processes are killed at any moment: nothing accepted is lost, nothing ends twice.

#![expect(clippy::unwrap_used, reason = "stories unwrap freely")]

mod harness;

use std::collections::BTreeMap;

use harness::{Mode, Platform, chat, eventually, receiver::Receiver};
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn dev_killed_amid_a_hundred_jobs_finishes_each_once() {
    let platform = Platform::start(Mode::Embedded).await;
    let receiver = Receiver::start().await;
    let mut jobs = BTreeMap::new();
    for number in 0..100 {
        let name = format!("job-{number}");
        let mut body = chat(&name, &json!({"delay_ms": 40 * (number % 10)}));
        body["callback_url"] = receiver.url(&format!("ok/{name}")).into();
        jobs.insert(name, platform.submit(&body).await);
        if number == 60 {
            platform.fronts[0].kill();
            platform.fronts[0].start_again();
            platform.fronts[0].is_ready().await;
        }
    }
    assert_all_ended_once(&platform, 100, &jobs, &receiver).await;
}

#[cfg(feature = "servers")]
mod distributed {
    use std::time::{Duration, Instant};

    use inferq_common::testing::{postgres, rabbitmq};
    use serde_json::Value;
    use sqlx::{Connection as _, PgConnection};

    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn a_killed_worker_s_job_is_rescued_within_four_seconds() {
        let platform = Platform::start(Mode::Distributed).await;
        let id = platform.submit(&chat("long", &json!({"delay_ms": 1500}))).await;
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
        assert!(took < Duration::from_secs(4), "the rescue took {took:?}");
        let job = platform.ends(&id).await;
        assert_eq!((&job["status"], &job["attempt"]), (&json!("succeeded"), &json!(2)));
        let attempts = platform.attempts(&id).await;
        assert_eq!(attempts[0]["outcome"], "lost");
        assert_eq!(attempts[1]["outcome"], "succeeded");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_worker_killed_under_load_loses_nothing() {
        let platform = Platform::start(Mode::Distributed).await;
        let receiver = Receiver::start().await;
        let jobs = submit_while(&platform, &receiver, 200, async || {
            tokio::time::sleep(Duration::from_millis(500)).await;
            platform.workers[0].kill();
        })
        .await;
        assert_eq!(jobs.len(), 200, "the apis take jobs whatever becomes of workers");
        assert_all_ended_once(&platform, 200, &jobs, &receiver).await;
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
        assert_all_ended_once(&platform, 20, &jobs, &receiver).await;
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
        assert_all_ended_once(&platform, 21, &jobs, &receiver).await;
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
        assert_all_ended_once(&platform, 300, &jobs, &receiver).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn postgres_restarted_under_load_loses_nothing() {
        let postgres = postgres::Server::start().await;
        let platform = platform_on(&postgres.url(), &rabbitmq::virtual_host().await).await;
        let receiver = Receiver::start().await;
        let jobs = submit_while(&platform, &receiver, 300, async || {
            tokio::time::sleep(Duration::from_millis(300)).await;
            postgres.restart().await;
        })
        .await;
        assert!(jobs.len() > 50, "only {} jobs were accepted", jobs.len());
        assert_all_ended_once(&platform, 300, &jobs, &receiver).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_job_that_is_stored_late_does_not_miss_its_message() {
        let database = postgres::fresh_database().await;
        let platform = platform_on(&database, &rabbitmq::virtual_host().await).await;
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
    ///
    /// A submit that got no 202 is not repeated, so each name stands for at most one accepted job.
    async fn submit_while(
        platform: &Platform,
        receiver: &Receiver,
        n_jobs: usize,
        trouble: impl AsyncFnOnce(),
    ) -> BTreeMap<String, String> {
        let submits = async {
            let mut accepted = BTreeMap::new();
            for number in 0..n_jobs {
                let name = format!("job-{number}");
                let mut body = chat(&name, &json!({"delay_ms": 20}));
                body["callback_url"] = receiver.url(&format!("ok/{name}")).into();
                let answer = platform.try_submit(&body).await;
                let Ok(answer) = answer else { continue };
                match answer.status().as_u16() {
                    202 => {
                        let job: Value = answer.json().await.unwrap();
                        accepted.insert(name, job["id"].as_str().unwrap().to_owned());
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
) {
    let mut repeated = 0;
    for (name, id) in jobs {
        let job = platform.ends(id).await;
        assert_eq!(job["status"], "succeeded", "{name}: {job}");
        let content = &job["response"]["choices"][0]["message"]["content"];
        assert_eq!(*content, json!(format!("hello {name}")), "the result is the job's own");
        let attempts = platform.attempts(id).await;
        let won = attempts.iter().filter(|attempt| attempt["outcome"] == "succeeded").count();
        assert_eq!(won, 1, "{name}: one attempt gave the result: {attempts:?}");
        let n_calls = platform.vendor.calls(name).len();
        let n_attempts = attempts.len();
        assert!((1..=n_attempts).contains(&n_calls), "{name}: {n_calls} calls, {attempts:?}");
        repeated += n_attempts - 1;
        let path = format!("ok/{name}");
        eventually(&path, async || receiver.posts(&path).first().cloned()).await;
        let ids: std::collections::BTreeSet<_> =
            receiver.posts(&path).iter().map(|post| post.headers["webhook-id"].clone()).collect();
        assert_eq!(ids.len(), 1, "{name}: one delivery, repeated at most");
    }
    // What was stored without its 202 having come through has ended as well.
    platform.has_settled().await;
    let page = platform.get("/v5/jobs?limit=1000").await;
    let n_stored = page["items"].as_array().unwrap().len();
    assert!((jobs.len()..=n_submitted).contains(&n_stored), "{n_stored} of {n_submitted} stored");
    let n_called = platform.vendor.counts().len();
    assert!((jobs.len()..=n_stored).contains(&n_called), "{n_called} of {n_stored} were called");
    // What ran twice was in flight at a kill: never more than all workers hold at once.
    assert!(repeated <= 2 * 128, "{repeated} attempts were repeated");
}
