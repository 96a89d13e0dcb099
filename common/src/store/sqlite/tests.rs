use std::{os::unix::fs::PermissionsExt as _, sync::Arc, time::Duration};

use chrono::{DateTime, TimeDelta};
use sqlx::AssertSqlSafe;
use tempfile::TempDir;

use super::{
    SqliteStore, credentials, defer, deliveries, instances, jobs, run, streams, submit, sweep,
    writer::{Durability, Tx},
};
use crate::{
    clock::ManualClock,
    config::DatabaseConfig,
    id::InstanceId,
    store::{
        AccountStore as _, InstanceStore as _, JobStore as _, NewInstance, Store as _, StoreError,
        Submitted,
        conformance::{Fixture, plain_job},
    },
};

fn config(folder: &TempDir) -> DatabaseConfig {
    let file = folder.path().join("new").join("inferq.db");
    DatabaseConfig {
        url: format!("sqlite://{}", file.display()).into(),
        max_connections: 4,
        acquire_timeout_ms: 5000,
        max_group: 256,
    }
}

async fn open() -> (SqliteStore, TempDir) {
    let folder = TempDir::new().unwrap();
    let store = SqliteStore::open(&config(&folder)).unwrap();
    store.migrate().await.unwrap();
    (store, folder)
}

async fn fixture() -> Fixture {
    let (store, folder) = open().await;
    Fixture::new(Arc::new(store), folder)
}

crate::store_conformance!(fixture().await);

fn account() -> crate::id::AccountId {
    "acme".parse().unwrap()
}

/// After the moment that plain jobs are made at.
fn now() -> DateTime<chrono::Utc> {
    DateTime::from_timestamp(4_000_000_000, 0).unwrap()
}

async fn register(store: &SqliteStore) -> InstanceId {
    let id = InstanceId::new(DateTime::UNIX_EPOCH);
    store.register(&NewInstance { id, role: "dev", host: "host-1".into() }).await.unwrap();
    id
}

/// Runs a statement behind the store's back.
async fn meddle(store: &SqliteStore, statement: &'static str) {
    let done = sqlx::query(statement).execute(&store.seldom).await.unwrap();
    assert!(statement.starts_with("PRAGMA") || done.rows_affected() > 0, "{statement}");
}

#[tokio::test]
async fn heartbeats_go_by_the_stores_clock() {
    let folder = TempDir::new().unwrap();
    let clock = Arc::new(ManualClock::at(DateTime::UNIX_EPOCH));
    let store = SqliteStore::open_with_clock(&config(&folder), clock.clone()).unwrap();
    store.migrate().await.unwrap();
    let (silent, beating) = (register(&store).await, register(&store).await);
    let grace = Duration::from_secs(3);
    clock.advance(TimeDelta::seconds(3));
    assert!(store.judge(grace).await.unwrap().is_empty(), "not older than the grace");
    assert!(store.heartbeat(beating).await.unwrap());
    clock.advance(TimeDelta::microseconds(1));
    assert_eq!(store.judge(grace).await.unwrap(), [silent]);
    assert_eq!(store.forget_instances(grace).await.unwrap(), 0);
    clock.advance(TimeDelta::seconds(3) + TimeDelta::microseconds(1));
    assert_eq!(store.forget_instances(grace).await.unwrap(), 1);
}

#[tokio::test]
async fn a_file_without_tables_asks_for_a_migration() {
    let folder = TempDir::new().unwrap();
    let store = SqliteStore::open(&config(&folder)).unwrap();
    assert!(matches!(store.check_migrated().await, Err(StoreError::NotMigrated(_))));
    let id = InstanceId::new(DateTime::UNIX_EPOCH);
    assert!(matches!(store.heartbeat(id).await, Err(StoreError::NotMigrated(_))));
    assert!(matches!(store.count_lanes().await, Err(StoreError::NotMigrated(_))));
    store.migrate().await.unwrap();
    store.check_migrated().await.unwrap();
}

#[tokio::test]
async fn an_unfinished_or_changed_migration_is_noticed_and_a_newer_one_is_not_minded() {
    let (store, _folder) = open().await;
    meddle(
        &store,
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
         VALUES (99991231235959, 'of a later release', TRUE, x'00', 0)",
    )
    .await;
    store.check_migrated().await.unwrap();
    store.migrate().await.unwrap();
    meddle(
        &store,
        "UPDATE _sqlx_migrations SET checksum = x'00' WHERE description = 'create jobs'",
    )
    .await;
    assert!(matches!(store.check_migrated().await, Err(StoreError::NotMigrated(_))));
    assert!(matches!(store.migrate().await, Err(StoreError::NotMigrated(_))));
    meddle(&store, "DELETE FROM _sqlx_migrations WHERE description = 'create models'").await;
    assert!(matches!(store.check_migrated().await, Err(StoreError::NotMigrated(_))));
}

#[tokio::test]
async fn what_cannot_be_read_is_named() {
    let (store, _folder) = open().await;
    let instance = register(&store).await;
    let new = plain_job();
    let (id, account) = (new.job.id, new.job.account.clone());
    store.submit(&[new], instance).await.unwrap();
    let cases: [(&str, &str, &str); 6] = [
        ("UPDATE jobs SET vendor = 'acme'", "UPDATE jobs SET vendor = 'openai'", "jobs.vendor"),
        ("UPDATE jobs SET metadata = '{'", "UPDATE jobs SET metadata = NULL", "jobs.metadata"),
        ("UPDATE jobs SET retry_of = x'00'", "UPDATE jobs SET retry_of = NULL", "jobs.retry_of"),
        ("UPDATE jobs SET num_retries = -1", "UPDATE jobs SET num_retries = 1", "jobs.num_retries"),
        (
            "UPDATE jobs SET run_at = 9223372036854775807",
            "UPDATE jobs SET run_at = NULL",
            "jobs.run_at",
        ),
        ("UPDATE job_inputs SET args = '{'", "UPDATE job_inputs SET args = '1'", "job_inputs.args"),
    ];
    for (breaking, mending, column) in cases {
        meddle(&store, breaking).await;
        let found = store.find_job(id, &account).await.map(drop);
        let args = store.find_args(id, &account).await.map(drop);
        let error = found.and(args).unwrap_err();
        assert!(matches!(error, StoreError::Corrupt { .. }), "{error:?}");
        assert_eq!(error.to_string(), format!("cannot read {column}"));
        meddle(&store, mending).await;
    }
}

#[tokio::test]
async fn a_job_that_cannot_be_read_stands_in_nobodys_way() {
    let (store, _folder) = open().await;
    let (dies, lives) = (register(&store).await, register(&store).await);
    let [good, bad, empty] = [plain_job(), plain_job(), plain_job()];
    let ids = [good.job.id, bad.job.id, empty.job.id];
    store.submit(&[bad, good, empty], dies).await.unwrap();
    let break_args = "UPDATE job_inputs SET args = '{' WHERE job_id = ?1";
    sqlx::query(break_args).bind(ids[1].as_uuid()).execute(&store.seldom).await.unwrap();
    let remove_args = "DELETE FROM job_inputs WHERE job_id = ?1";
    sqlx::query(remove_args).bind(ids[2].as_uuid()).execute(&store.seldom).await.unwrap();
    let now = now();
    let claimed = |claims: Vec<crate::store::Claim>| {
        claims.into_iter().map(|claim| claim.job.id).collect::<Vec<_>>()
    };
    assert_eq!(claimed(store.claim(&ids, dies, now).await.unwrap()), [ids[0]]);

    let break_job = "UPDATE jobs SET vendor = 'acme' WHERE job_id = ?1";
    sqlx::query(break_job).bind(ids[1].as_uuid()).execute(&store.seldom).await.unwrap();
    store.retire(dies).await.unwrap();
    let rescued = store.rescue(lives, now, 10).await.unwrap();
    assert_eq!(rescued.requeued, 2, "all but the one that cannot be read");
    assert_eq!(claimed(store.claim(&ids, lives, now).await.unwrap()), [ids[0]]);
}

#[tokio::test]
async fn two_processes_share_the_file() {
    let (store, folder) = open().await;
    let other = SqliteStore::open(&config(&folder)).unwrap();
    other.check_migrated().await.unwrap();
    let instance = register(&store).await;
    let submit = async |store: &SqliteStore| {
        for _ in 0..20 {
            let answers = store.submit(&[plain_job(), plain_job()], instance).await.unwrap();
            assert_eq!(answers, [Submitted::Added, Submitted::Added]);
        }
    };
    futures::join!(submit(&store), submit(&other));
    let counts = other.count_lanes().await.unwrap();
    assert_eq!(counts[0].queued, 80);
}

#[tokio::test]
async fn a_writer_that_does_not_let_go_makes_the_store_unavailable() {
    let (store, folder) = open().await;
    let instance = register(&store).await;
    let patience = DatabaseConfig { acquire_timeout_ms: 50, ..config(&folder) };
    let hasty = SqliteStore::open(&patience).unwrap();
    let writing = store.write().await.unwrap();
    let refused = hasty.submit(&[plain_job()], instance).await;
    assert!(matches!(refused, Err(StoreError::Unavailable(_))), "{refused:?}");
    // Reading goes on meanwhile.
    assert_eq!(hasty.count_lanes().await.unwrap(), []);
    drop(writing);
    assert_eq!(store.submit(&[plain_job()], instance).await.unwrap(), [Submitted::Added]);
}

#[tokio::test]
async fn a_full_disk_is_unavailable_and_nothing_is_half_done() {
    let (store, _folder) = open().await;
    let instance = register(&store).await;
    let small = |tx: &Tx<'_>| tx.optional("jobs", "PRAGMA max_page_count = 100", [], |_| Ok(()));
    store.writer.write(Durability::Disk, small).await.unwrap();
    let batch: Vec<_> = (0..1000).map(|_| plain_job()).collect();
    let refused = store.submit(&batch, instance).await;
    assert!(matches!(refused, Err(StoreError::Unavailable(_))), "{refused:?}");
    assert_eq!(store.count_lanes().await.unwrap(), []);
    assert_eq!(store.submit(&batch[..1], instance).await.unwrap(), [Submitted::Added]);
}

/// As SQLite does when the disk is full or fails.
#[tokio::test]
async fn a_transaction_that_sqlite_rolled_back_by_itself_leaves_the_store_usable() {
    let (store, _folder) = open().await;
    let instance = register(&store).await;
    let mut tx = store.write().await.unwrap();
    sqlx::query("ROLLBACK").execute(&mut *tx).await.unwrap();
    super::commit(tx).await.unwrap_err();
    let mut tx = store.write().await.unwrap();
    sqlx::query("ROLLBACK").execute(&mut *tx).await.unwrap();
    drop(tx);
    store.ensure_account(&account(), &"whsec_1".to_owned().into(), now()).await.unwrap();

    let rolled_back = |tx: &Tx<'_>| tx.execute("jobs", "ROLLBACK", []);
    store.writer.write(Durability::Disk, rolled_back).await.unwrap_err();
    assert_eq!(store.submit(&[plain_job()], instance).await.unwrap(), [Submitted::Added]);
}

#[tokio::test]
async fn a_write_that_panics_is_undone_and_hurts_no_other() {
    let (store, _folder) = open().await;
    let instance = register(&store).await;
    let panics = move |tx: &Tx<'_>| -> Result<(), StoreError> {
        tx.execute("jobs", "DELETE FROM instances", [])?;
        panic!("a bad write");
    };
    let failed = store.writer.write(Durability::Disk, panics).await;
    assert!(matches!(failed, Err(StoreError::Other(_))), "{failed:?}");
    assert!(store.heartbeat(instance).await.unwrap());
}

#[tokio::test]
async fn a_connection_left_in_a_transaction_is_opened_anew() {
    let (store, _folder) = open().await;
    let instance = register(&store).await;
    // The commit ends the second of two, so that the first would stay.
    let nested = |tx: &Tx<'_>| {
        tx.execute("jobs", "COMMIT", [])?;
        tx.execute("jobs", "BEGIN", [])?;
        tx.execute("jobs", "DELETE FROM nothing", [])
    };
    store.writer.write(Durability::Disk, nested).await.unwrap_err();
    assert_eq!(store.submit(&[plain_job()], instance).await.unwrap(), [Submitted::Added]);
}

/// A claim leaves the commits after it as durable as they were before.
#[tokio::test]
async fn only_what_asks_for_it_does_without_the_disk() {
    let (store, _folder) = open().await;
    let instance = register(&store).await;
    let synchronous = async |durability| -> i64 {
        let ask = |tx: &Tx<'_>| tx.optional("jobs", "PRAGMA synchronous", [], |row| row.get(0));
        store.writer.write(durability, ask).await.unwrap().unwrap()
    };
    assert_eq!(synchronous(Durability::Disk).await, 2, "FULL");
    let new = plain_job();
    let id = new.job.id;
    store.submit(&[new], instance).await.unwrap();
    assert_eq!(store.claim(&[id], instance, now()).await.unwrap().len(), 1);
    assert_eq!(synchronous(Durability::System).await, 1, "NORMAL");
    assert_eq!(synchronous(Durability::Disk).await, 2, "FULL");
}

#[tokio::test]
async fn a_move_that_is_dropped_half_way_is_undone() {
    let (store, _folder) = open().await;
    let instance = register(&store).await;
    // However far it came, the next move finds the writer free and either all of it or nothing.
    for polls in 0..40 {
        let batch = [plain_job(), plain_job()];
        let mut submit = store.submit(&batch, instance);
        for _ in 0..polls {
            if futures::poll!(&mut submit).is_ready() {
                break;
            }
            tokio::time::sleep(Duration::from_micros(50)).await;
        }
        drop(submit);
        assert_eq!(store.submit(&[plain_job()], instance).await.unwrap(), [Submitted::Added]);
        let mut stored = 0;
        for new in &batch {
            let found = store.find_job(new.job.id, &new.job.account).await.unwrap();
            let args = store.find_args(new.job.id, &new.job.account).await.unwrap();
            assert_eq!(found.is_some(), args.is_some());
            stored += usize::from(found.is_some());
        }
        assert!([0, 2].contains(&stored));
    }
}

#[tokio::test]
async fn commits_are_durable_and_readers_cannot_write() {
    let (store, _folder) = open().await;
    let pragmas = "SELECT CAST(synchronous AS TEXT), journal_mode
                   FROM pragma_synchronous, pragma_journal_mode";
    let seldom: (String, String) = sqlx::query_as(pragmas).fetch_one(&store.seldom).await.unwrap();
    let ask = move |tx: &Tx<'_>| {
        tx.optional("jobs", pragmas, [], |row| {
            Ok::<(String, String), _>((row.get(0)?, row.get(1)?))
        })
    };
    let writer = store.writer.write(Durability::Disk, ask).await.unwrap().unwrap();
    for (synchronous, journal) in [seldom, writer] {
        assert_eq!((synchronous.as_str(), journal.as_str()), ("2", "wal"), "FULL");
    }
    assert!(sqlx::query("DELETE FROM jobs").execute(&store.readers).await.is_err());
}

#[tokio::test]
async fn only_the_owner_reads_what_is_stored() {
    let (store, folder) = open().await;
    register(&store).await;
    let mut n_files = 0;
    for file in std::fs::read_dir(folder.path().join("new")).unwrap() {
        let file = file.unwrap();
        let mode = file.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{}", file.path().display());
        n_files += 1;
    }
    assert_eq!(n_files, 3, "the database, its log and the log's index");
}

#[tokio::test]
async fn an_address_that_names_no_usable_file_is_refused() {
    let folder = TempDir::new().unwrap();
    let at = |url: String| DatabaseConfig { url: url.into(), ..config(&folder) };
    for url in ["sqlite::memory:", "sqlite://:memory:"] {
        assert!(matches!(SqliteStore::open(&at(url.into())), Err(StoreError::Other(_))), "{url}");
    }
    let file = folder.path().join("file");
    std::fs::write(&file, "not a database, but long enough to look like one".repeat(100)).unwrap();
    let below = at(format!("sqlite://{}/inferq.db", file.display()));
    assert!(matches!(SqliteStore::open(&below), Err(StoreError::Unavailable(_))));
    let store = SqliteStore::open(&at(format!("sqlite://{}", file.display()))).unwrap();
    assert!(matches!(store.migrate().await, Err(StoreError::Other(_))));
    let store = SqliteStore::open(&at(format!("sqlite://{}", folder.path().display()))).unwrap();
    assert!(matches!(store.ping().await, Err(StoreError::Unavailable(_))));
}

/// No statement of the hot path or the sweep reads a table from end to end.
#[tokio::test]
async fn every_statement_goes_by_an_index() {
    let (store, _folder) = open().await;
    let statements = [
        credentials::FIND,
        credentials::FIND_DEFAULT,
        credentials::ALL,
        credentials::LIST_DOWN,
        deliveries::CLAIM,
        deliveries::DUE,
        instances::FORGET,
        instances::FREE_DELIVERIES,
        instances::RESCUE_QUEUED,
        instances::RUNNING_OF_LOST,
        jobs::COUNT_LANES,
        jobs::LIST_DOWN,
        run::CLAIM,
        run::END,
        defer::DEFER,
        run::REVOKED,
        run::LENT,
        run::STRAYS,
        streams::COUNT_CHUNKS,
        streams::FIND_TWIN,
        streams::LAST_GROUP,
        streams::READ_CHUNKS,
        submit::KNOWN_KEY,
        submit::LIVING,
        sweep::ENDED_BEFORE,
        sweep::EXPIRE,
        sweep::OVERDUE,
        sweep::TAKE_DUE,
    ];
    for statement in statements {
        let explain = AssertSqlSafe(format!("EXPLAIN QUERY PLAN {statement}"));
        let mut plan = sqlx::query_as::<_, (i64, i64, i64, String)>(explain);
        for _ in (1..).take_while(|n| statement.contains(&format!("?{n}"))) {
            plan = plan.bind("[]");
        }
        for (.., step) in plan.fetch_all(&store.readers).await.unwrap() {
            // The values that were bound are a virtual table; some tables are small by nature;
            // unfinished jobs are counted from their index, and their counts are few.
            let small = [
                "instances",
                "hosts",
                "jobs USING COVERING INDEX jobs_unfinished",
                "(subquery",
                // The attempts of one job, a page of its groups, the latest jobs of an account.
                "CONSTANT ROW",
                "numbers",
                "page",
                "recent",
            ];
            let fine = step.contains(" VIRTUAL TABLE ")
                || step
                    .strip_prefix("SCAN ")
                    .is_none_or(|what| small.iter().any(|name| what.starts_with(name)));
            assert!(fine, "{step} in {statement}");
        }
    }
}
