#![expect(clippy::unwrap_used, reason = "helpers of tests may")]

mod streams;

use std::{collections::BTreeMap, net::TcpListener, str::FromStr as _};

use chrono::{DateTime, TimeDelta, Utc};
use secrecy::SecretString;
use tokio::io::AsyncReadExt as _;

use super::{streams as statements, *};
use crate::{
    error::{ErrorClass, JobError},
    id::{InstanceId, JobId},
    job::{IdempotencyKey, JobStatus, Json, NewJob, Outcome},
    store::{
        Claim, InstanceStore as _, JobStore as _, NewInstance, Submitted,
        conformance::{Fixture, plain_job},
    },
    testing::postgres::{Server, fresh_database},
    usage::Usage,
};

fn config(url: &str) -> DatabaseConfig {
    DatabaseConfig {
        url: SecretString::from(url),
        max_connections: 4,
        acquire_timeout_ms: 5000,
        max_group: 256,
    }
}

async fn fixture() -> Fixture {
    Fixture::new(Arc::new(fresh_store().await), ())
}

crate::store_conformance!(fixture().await);

async fn fresh_store() -> PostgresStore {
    let store = PostgresStore::connect(&config(&fresh_database().await)).unwrap();
    store.migrate().await.unwrap();
    store
}

fn now() -> DateTime<Utc> {
    DateTime::from_str("2026-11-20T12:00:00Z").unwrap()
}

async fn an_instance(store: &PostgresStore) -> InstanceId {
    let id = InstanceId::new(now());
    store.register(&NewInstance { id, role: "worker", host: "test".into() }).await.unwrap();
    id
}

fn a_job() -> NewJob {
    let mut new = plain_job();
    (new.job.id, new.job.created_at) = (JobId::new(now()), now());
    NewJob { args: Json::parse(r#"{"n":1.50}"#).unwrap(), ..new }
}

fn a_keyed_job(key: &str) -> NewJob {
    let key = IdempotencyKey { key: key.into(), fingerprint: [7; 32] };
    NewJob { idempotency: Some(key), ..a_job() }
}

fn a_success() -> Outcome {
    Outcome::Succeeded {
        response: Json::parse(r#"{"ok":true}"#).unwrap(),
        usage: Usage::default(),
        vendor_request_id: None,
    }
}

fn ids_of(jobs: &[NewJob]) -> Vec<JobId> {
    jobs.iter().map(|new| new.job.id).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn many_processes_may_migrate_at_once() {
    let url = fresh_database().await;
    let stores: Vec<_> = (0..4).map(|_| PostgresStore::connect(&config(&url)).unwrap()).collect();
    let error = stores[0].check_migrated().await.unwrap_err();
    assert!(matches!(error, StoreError::NotMigrated(_)), "{error:?}");
    futures::future::try_join_all(stores.iter().map(Store::migrate)).await.unwrap();
    stores[0].check_migrated().await.unwrap();
    sqlx::query("UPDATE _sqlx_migrations SET checksum = 'x' WHERE version % 10 = 1")
        .execute(&stores[0].pool)
        .await
        .unwrap();
    let error = stores[0].check_migrated().await.unwrap_err();
    assert!(matches!(error, StoreError::NotMigrated(_)), "{error:?}");
}

#[tokio::test]
async fn statements_without_tables_say_that_migrations_are_missing() {
    let store = PostgresStore::connect(&config(&fresh_database().await)).unwrap();
    store.ping().await.unwrap();
    let error = store.heartbeat(InstanceId::new(now())).await.unwrap_err();
    assert!(matches!(error, StoreError::NotMigrated(_)), "{error:?}");
}

#[tokio::test]
async fn the_twins_have_the_same_tables_and_columns() {
    let store = fresh_store().await;
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}", folder.path().join("twin.db").display());
    let twin = crate::store::sqlite::SqliteStore::open(&config(&url)).unwrap();
    twin.migrate().await.unwrap();
    let file = sqlx::SqlitePool::connect(&url).await.unwrap();
    let sqlite: Vec<(String, String, bool)> = sqlx::query_as(
        "SELECT t.name, c.name, c.\"notnull\" <> 0
         FROM sqlite_master AS t, pragma_table_info(t.name) AS c
         WHERE t.type = 'table' AND t.name NOT LIKE 'sqlite_%' AND t.name NOT LIKE '_sqlx_%'
         ORDER BY t.name, c.cid",
    )
    .fetch_all(&file)
    .await
    .unwrap();
    let postgres: Vec<(String, String, bool)> = sqlx::query_as(
        "SELECT table_name::text, column_name::text, is_nullable = 'NO'
         FROM information_schema.columns
         WHERE table_schema = 'public' AND table_name NOT LIKE '\\_sqlx\\_%'
         ORDER BY table_name::text COLLATE \"C\", ordinal_position",
    )
    .fetch_all(&store.pool)
    .await
    .unwrap();
    assert_eq!(tables(postgres), tables(sqlite));
    let sqlite: Vec<String> = sqlx::query_scalar(
        "SELECT name FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL ORDER BY name",
    )
    .fetch_all(&file)
    .await
    .unwrap();
    let postgres: Vec<String> = sqlx::query_scalar(
        "SELECT indexname::text FROM pg_indexes
         WHERE schemaname = 'public' AND indexname !~ '_(pkey|key)$'
         ORDER BY indexname::text COLLATE \"C\"",
    )
    .fetch_all(&store.pool)
    .await
    .unwrap();
    assert_eq!(postgres, sqlite);
}

fn tables(columns: Vec<(String, String, bool)>) -> BTreeMap<String, Vec<(String, bool)>> {
    let mut tables: BTreeMap<String, Vec<(String, bool)>> = BTreeMap::new();
    for (table, column, required) in columns {
        tables.entry(table).or_default().push((column, required));
    }
    assert!(tables.len() > 10, "the tables were found");
    tables
}

#[tokio::test]
async fn a_store_can_be_made_before_its_server_and_says_at_once_that_there_is_none() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let store = PostgresStore::connect(&config(&format!("postgres://a:secret@127.0.0.1:{port}/a")))
        .unwrap();
    let started = tokio::time::Instant::now();
    let error = store.ping().await.unwrap_err();
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
    let StoreError::Unavailable(source) = &error else { panic!("{error:?}") };
    let expected = format!("no Postgres at 127.0.0.1:{port}");
    assert!(source.to_string().contains(&expected), "{source}");
    assert!(!format!("{store:?} {error:?}").contains("secret"));
}

#[tokio::test]
async fn a_server_that_accepts_and_never_answers_is_unavailable() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let url = format!("postgres://a@127.0.0.1:{port}/a?sslmode=disable");
    let store = PostgresStore::connect(&DatabaseConfig { acquire_timeout_ms: 300, ..config(&url) })
        .unwrap();
    let answer = tokio::time::timeout(Duration::from_secs(5), store.ping()).await.unwrap();
    assert!(matches!(answer, Err(StoreError::Unavailable(_))), "{answer:?}");
}

#[tokio::test]
async fn a_server_that_hangs_up_on_a_new_connection_is_unavailable() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut server = tokio::task::JoinSet::new();
    server.spawn(async move {
        loop {
            let (mut socket, _) = listener.accept().await.unwrap();
            // The question whether it speaks TLS; what is not read would make a reset of the end.
            let _ = socket.read_exact(&mut [0; 8]).await;
        }
    });
    let store = PostgresStore::connect(&config(&format!("postgres://a@127.0.0.1:{port}/a")));
    let store = store.unwrap();
    for error in [store.ping().await.unwrap_err(), store.migrate().await.unwrap_err()] {
        assert!(matches!(error, StoreError::Unavailable(_)), "{error:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_crash_of_the_server_the_store_goes_on_with_what_was_committed() {
    let server = Server::start().await;
    let store = PostgresStore::connect(&config(&server.url())).unwrap();
    store.migrate().await.unwrap();
    let worker = an_instance(&store).await;
    let before = [a_job()];
    assert_eq!(store.submit(&before, worker).await.unwrap(), [Submitted::Added]);
    server.stop().await;
    for _ in 0..3 {
        let error = store.submit(&[a_job()], worker).await.unwrap_err();
        assert!(matches!(error, StoreError::Unavailable(_)), "{error:?}");
    }
    server.start_again().await;
    // At most the connections of before the crash are found broken; none is needed to be.
    let claims = store.claim(&ids_of(&before), worker, now()).await.unwrap();
    assert_eq!(claims.len(), 1);
    assert!(store.heartbeat(worker).await.unwrap());
    // A server that started just now has heard from nobody yet.
    assert!(store.judge(Duration::from_hours(1)).await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn one_key_submitted_by_many_at_once_makes_one_job() {
    let store = fresh_store().await;
    let publisher = InstanceId::new(now());
    let groups: Vec<Vec<NewJob>> =
        (0..8).map(|_| (0..5).map(|n| a_keyed_job(&format!("key-{n}"))).collect()).collect();
    // Backwards in every other group: whoever locks in the order given would deadlock.
    let groups: Vec<Vec<NewJob>> = groups
        .into_iter()
        .enumerate()
        .map(|(n, group)| if n % 2 == 0 { group } else { group.into_iter().rev().collect() })
        .collect();
    let answers =
        futures::future::try_join_all(groups.iter().map(|group| store.submit(group, publisher)))
            .await
            .unwrap();
    let mut added: BTreeMap<&str, JobId> = BTreeMap::new();
    for (new, answer) in groups.iter().flatten().zip(answers.iter().flatten()) {
        if *answer == Submitted::Added {
            let key = new.idempotency.as_ref().unwrap().key.as_str();
            assert_eq!(added.insert(key, new.job.id), None, "{key} was won twice");
        }
    }
    assert_eq!(added.len(), 5);
    for (new, answer) in groups.iter().flatten().zip(answers.iter().flatten()) {
        if let Submitted::Repeated(job) = answer {
            assert_eq!(job.id, added[new.idempotency.as_ref().unwrap().key.as_str()]);
        } else {
            assert_eq!(*answer, Submitted::Added);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn claims_and_finishes_at_once_from_many_workers_give_each_job_one_result() {
    let store = fresh_store().await;
    let jobs: Vec<NewJob> = (0..200).map(|_| a_job()).collect();
    let publisher = an_instance(&store).await;
    store.submit(&jobs, publisher).await.unwrap();
    let ids = ids_of(&jobs);
    let mut reversed = ids.clone();
    reversed.reverse();
    let workers = [an_instance(&store).await, an_instance(&store).await];
    let (one, other) = tokio::join!(
        store.claim(&ids, workers[0], now()),
        store.claim(&reversed, workers[1], now()),
    );
    let mut claims: Vec<Claim> = one.unwrap();
    claims.extend(other.unwrap());
    // What one skipped as locked the other has, or it is still queued.
    claims.extend(store.claim(&ids, workers[0], now()).await.unwrap());
    assert_eq!(claims.len(), 200);
    let forwards: Vec<_> = claims.iter().map(|claim| (claim.clone(), a_success())).collect();
    let error = JobError::new(ErrorClass::Protocol, "nonsense");
    let failed = || Outcome::Failed { error: error.clone(), usage: Usage::default() };
    let backwards: Vec<_> = claims.iter().rev().map(|claim| (claim.clone(), failed())).collect();
    let (one, other) =
        tokio::join!(store.finish(&forwards, now()), store.finish(&backwards, now()));
    let counted = one.unwrap().iter().chain(&other.unwrap()).filter(|held| **held).count();
    assert_eq!(counted, 200);
    for claim in &claims {
        assert_eq!(store.list_attempts(claim.job.id).await.unwrap().len(), 1);
    }
}

#[tokio::test]
async fn a_group_too_large_for_one_statement_is_still_one_transaction() {
    let store = fresh_store().await;
    let worker = an_instance(&store).await;
    let text = format!("\"{}\"", "x".repeat(7 << 20));
    let args = Json::parse(text).unwrap();
    let mut jobs: Vec<NewJob> = (0..5).map(|_| NewJob { args: args.clone(), ..a_job() }).collect();
    // The last cannot be stored, as its id is taken: none is.
    let taken = a_job();
    store.submit(std::slice::from_ref(&taken), worker).await.unwrap();
    jobs.push(NewJob { args: args.clone(), ..taken });
    assert!(store.submit(&jobs, worker).await.is_err());
    assert!(store.claim(&ids_of(&jobs[..5]), worker, now()).await.unwrap().is_empty());
    jobs.pop();
    store.submit(&jobs, worker).await.unwrap();
    let claims = store.claim(&ids_of(&jobs), worker, now()).await.unwrap();
    assert!(claims.iter().all(|claim| claim.args == args));
    let outcomes: Vec<_> = claims
        .into_iter()
        .map(|claim| {
            let usage = Usage::default();
            (claim, Outcome::Succeeded { response: args.clone(), usage, vendor_request_id: None })
        })
        .collect();
    assert_eq!(store.finish(&outcomes, now()).await.unwrap(), [true; 5]);
}

#[tokio::test]
async fn a_vendors_nul_does_not_undo_the_group() {
    let store = fresh_store().await;
    let worker = an_instance(&store).await;
    let jobs = [a_job()];
    store.submit(&jobs, worker).await.unwrap();
    let claim = store.claim(&ids_of(&jobs), worker, now()).await.unwrap().remove(0);
    let mut error = JobError::new(ErrorClass::Protocol, "a\0b");
    error.vendor_request_id = Some("r\0q".into());
    let outcome = Outcome::Failed { error, usage: Usage::default() };
    assert_eq!(store.finish(&[(claim, outcome)], now()).await.unwrap(), [true]);
    let attempts = store.list_attempts(jobs[0].job.id).await.unwrap();
    assert_eq!(attempts[0].vendor_request_id.as_deref(), Some("rq"));
    assert_eq!(attempts[0].error.as_ref().unwrap().message, "a\0b");
}

#[tokio::test]
async fn a_dropped_call_leaves_no_connection_in_disorder() {
    let store = fresh_store().await;
    let worker = an_instance(&store).await;
    for _ in 0..20 {
        let call = store.heartbeat(worker);
        tokio::time::timeout(Duration::from_micros(300), call).await.ok();
    }
    for _ in 0..20 {
        assert!(store.heartbeat(worker).await.unwrap());
    }
}

#[tokio::test]
async fn statements_that_follow_each_other_share_a_connection() {
    let store = fresh_store().await;
    let worker = an_instance(&store).await;
    let process = async || -> i32 {
        store
            .run(|lent| {
                let query = sqlx::query_scalar("SELECT pg_backend_pid()");
                Box::pin(query.fetch_one(lent.connection()))
            })
            .await
            .unwrap()
    };
    let first = process().await;
    for _ in 0..5 {
        assert!(store.heartbeat(worker).await.unwrap());
        assert_eq!(process().await, first);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_kept_at_hand_holds_up_nobody() {
    let store = fresh_store().await;
    let worker = an_instance(&store).await;
    // Ten times as many as there are connections.
    for _ in 0..5 {
        let calls = (0..40).map(|_| store.heartbeat(worker));
        let renewed = futures::future::try_join_all(calls);
        let renewed = tokio::time::timeout(Duration::from_secs(20), renewed).await.unwrap();
        assert_eq!(renewed.unwrap(), [true; 40]);
    }
    tokio::time::timeout(Duration::from_secs(5), store.close()).await.expect("it closes");
    assert!(store.ping().await.is_err());
}

/// A plan made while the tables are small is kept; it must be one for large tables.
#[tokio::test]
async fn statements_look_rows_up_even_when_planned_on_small_tables() {
    let store = fresh_store().await;
    let worker = an_instance(&store).await;
    for n_more in [0, 4, 30] {
        let jobs: Vec<NewJob> = (0..n_more).map(|_| a_job()).collect();
        store.submit(&jobs, worker).await.unwrap();
        let claims = store.claim(&ids_of(&jobs[..n_more / 2]), worker, now()).await.unwrap();
        let outcomes: Vec<_> = claims.into_iter().map(|claim| (claim, a_success())).collect();
        store.finish(&outcomes[..n_more / 4], now()).await.unwrap();
        let mut connection = store.pool.acquire().await.unwrap();
        if n_more > 0 {
            sqlx::raw_sql("VACUUM ANALYZE").execute(&mut *connection).await.unwrap();
        }
        for statement in STATEMENTS {
            let plan = explain(&mut connection, statement).await;
            assert_looks_up(&plan);
        }
    }
}

/// All that go by ids, or take a part of what is unfinished.
const STATEMENTS: &[&str] = &[
    submit::SUBMIT,
    submit::SUBMIT_LENDING,
    submit::SUBMIT_UNKEYED,
    submit::REPEATED,
    claims::CLAIM,
    claims::LENT,
    claims::STRAYS,
    finish::FINISH,
    finish::FINISH_QUIETLY,
    defer::DEFER,
    jobs::FIND,
    jobs::REVOKED,
    jobs::LOCK_ONE,
    statements::APPEND,
    statements::REPEATED_GROUPS,
    statements::LOCK,
    statements::BEGUN,
    statements::READ,
    statements::OUTLINE,
    statements::FIND_TWIN,
    sweep::EXPIRE,
    sweep::TAKE_DUE,
    sweep::OVERDUE,
    sweep::REMOVE,
    sweep::REMOVE_KEYS,
    instances::ORPHANS,
    instances::ADOPT,
    instances::FREE_DELIVERIES,
    credentials::FIND,
    credentials::FIND_DEFAULT,
    credentials::CLEAR_DEFAULT,
    credentials::ALL,
    credentials::RESEAL,
    credentials::DELETE,
    deliveries::CLAIM,
    deliveries::JOBS,
    deliveries::FINISH,
];

/// Each scan of a table that grows has a condition of its index; an index that is walked in its
/// order up to a limit needs none if it is partial.
fn assert_looks_up(plan: &[String]) {
    let text = plan.join("\n");
    for (line, next) in plan.iter().zip(plan.iter().skip(1)) {
        let small = line.contains(" on instances");
        let in_order = ["jobs_waiting", "jobs_expiring", "jobs_finished", "deliveries_host"]
            .iter()
            .any(|index| line.contains(index));
        let scans = line.contains("Index Scan") || line.contains("Index Only Scan");
        if scans && !small && !in_order {
            assert!(next.contains("Index Cond"), "{line}\n{text}");
        }
        assert!(small || !line.contains("Seq Scan"), "{text}");
    }
    assert!(text.contains("Scan"), "{text}");
}

/// The plan that is kept, as lines.
async fn explain(connection: &mut sqlx::PgConnection, statement: &str) -> Vec<String> {
    let n_parameters = (1..=30).rev().find(|n| statement.contains(&format!("${n}"))).unwrap();
    let nulls = vec!["NULL"; n_parameters].join(", ");
    let text = format!(
        "DEALLOCATE ALL; PREPARE shown AS {statement}; EXPLAIN (COSTS OFF) EXECUTE shown ({nulls})"
    );
    let rows = sqlx::raw_sql(sqlx::AssertSqlSafe(text)).fetch_all(connection).await;
    let rows = rows.unwrap_or_else(|error| panic!("{error}: {statement}"));
    rows.iter().map(|row| sqlx::Row::get::<String, _>(row, 0)).collect()
}

#[test]
fn a_large_group_is_cut_by_bytes() {
    let cut = |sizes: &[usize]| submit::chunks_by_bytes(sizes.iter().copied());
    assert!(cut(&[]).is_empty());
    assert_eq!(cut(&[1, 2, 3]), std::slice::from_ref(&(0..3)));
    assert_eq!(cut(&[16 << 20, 1]), [0..1, 1..2]);
    assert_eq!(cut(&[1, 20 << 20, 1, 1]), [0..1, 1..2, 2..4]);
}

#[tokio::test]
async fn a_late_expiry_and_a_removal_leave_nothing_behind() {
    let store = fresh_store().await;
    let worker = an_instance(&store).await;
    let mut keyed = a_keyed_job("k");
    keyed.job.expires_at = Some(now());
    keyed.job.callback_url = None;
    store.submit(&[keyed], worker).await.unwrap();
    assert_eq!(store.expire(now(), 10).await.unwrap().len(), 1);
    let later = now() + TimeDelta::hours(1);
    assert_eq!(store.remove_finished(later, 10).await.unwrap(), 1);
    for table in ["jobs", "job_inputs", "job_results", "attempts", "idempotency_keys"] {
        let query = format!("SELECT count(*) FROM {table}");
        let left: i64 =
            sqlx::query_scalar(sqlx::AssertSqlSafe(query)).fetch_one(&store.pool).await.unwrap();
        assert_eq!(left, 0, "{table}");
    }
}
