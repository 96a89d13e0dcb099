//! The floor: nothing but the steps that a durable queue cannot leave out.
//!
//! Insert, publish with confirm, deliver, call, write the result, ack. No authentication, validation,
//! retries, metrics or rescue. It speaks just enough of inferq's HTTP for the load generator.

use std::{
    collections::HashMap,
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex},
};

use anyhow::Context as _;
use axum::{
    Router,
    body::Bytes,
    extract::{Path, State},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use clap::Args;
use futures::StreamExt as _;
use http::Method;
use lapin::{
    BasicProperties, Connection, ConnectionProperties,
    options::{
        BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions,
        QueueDeclareOptions,
    },
    types::{AMQPValue, FieldTable},
};
use serde::Deserialize;
use serde_json::value::RawValue;
use sqlx::{
    PgPool, SqlitePool,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous},
};
use tokio::{
    sync::{Semaphore, mpsc, watch},
    task::JoinSet,
};
use uuid::Uuid;

use crate::{group::Group, http_client::HttpClient};

#[derive(Debug, Args)]
pub struct FloorArgs {
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Address of the vendor, such as <http://127.0.0.1:9001/v1>
    #[arg(long)]
    vendor: String,
    /// postgres:// with --amqp, for the brokered floor
    #[arg(long, requires = "amqp")]
    postgres: Option<String>,
    #[arg(long)]
    amqp: Option<String>,
    /// A new SQLite file, for the embedded floor
    #[arg(long, conflicts_with = "postgres")]
    sqlite: Option<PathBuf>,
}

/// Calls at once.
const CONCURRENCY: usize = 128;

type Row = (Uuid, String);

#[derive(Clone)]
struct Floor {
    insert: Group<Row, ()>,
    finish: Group<Row, ()>,
    wake: Wake,
    /// Those who wait for a result, and results that wait to be fetched.
    results: Arc<Mutex<HashMap<Uuid, watch::Sender<Option<Bytes>>>>>,
    inputs: Arc<Mutex<HashMap<Uuid, Bytes>>>,
    vendor: HttpClient,
}

#[derive(Clone)]
enum Wake {
    Amqp(lapin::Channel),
    Memory(mpsc::Sender<Uuid>),
}

#[derive(Deserialize)]
struct Inference<'a> {
    #[serde(borrow)]
    args: &'a RawValue,
}

pub async fn run(args: FloorArgs) -> anyhow::Result<()> {
    let mut tasks = JoinSet::new();
    let vendor = HttpClient::new(&args.vendor, None);
    let permits = Arc::new(Semaphore::new(CONCURRENCY));
    let floor = match (&args.postgres, &args.amqp, &args.sqlite) {
        (Some(postgres), Some(amqp), None) => {
            let (insert, finish) = postgres_groups(postgres, &mut tasks).await?;
            let (channel, consumer) = amqp_queue(amqp).await?;
            let floor = Floor::new(insert, finish, Wake::Amqp(channel), vendor);
            tasks.spawn(consume_amqp(floor.clone(), consumer, permits));
            floor
        }
        (None, None, Some(sqlite)) => {
            let (insert, finish) = sqlite_groups(sqlite, &mut tasks).await?;
            let (sender, receiver) = mpsc::channel(100_000);
            let floor = Floor::new(insert, finish, Wake::Memory(sender), vendor);
            tasks.spawn(consume_memory(floor.clone(), receiver, permits));
            floor
        }
        _ => anyhow::bail!("give --postgres and --amqp, or --sqlite"),
    };
    let listener = tokio::net::TcpListener::bind(args.listen).await?;
    crate::report::print(&format!("listening on {}", listener.local_addr()?));
    let router = Router::new()
        .route("/readyz", get(async || "ok"))
        .route("/v5/inference", post(submit))
        .route("/v5/jobs/{id}", get(fetch))
        .with_state(floor);
    axum::serve(crate::report::nodelay(listener), router).await?;
    Ok(())
}

async fn submit(State(floor): State<Floor>, headers: HeaderMap, body: Bytes) -> Response {
    let Ok(inference) = serde_json::from_slice::<Inference<'_>>(&body) else {
        return StatusCode::UNPROCESSABLE_ENTITY.into_response();
    };
    let id = Uuid::now_v7();
    let args = inference.args.get().to_owned();
    floor.inputs.lock().expect("no panics").insert(id, Bytes::from(args.clone()));
    floor.results.lock().expect("no panics").insert(id, watch::Sender::new(None));
    floor.insert.add((id, args)).await;
    floor.wake.publish(id).await;
    if headers.contains_key("prefer") {
        let job = format!(r#"{{"id":"{id}","status":"queued","response":null}}"#);
        return (StatusCode::ACCEPTED, job).into_response();
    }
    match floor.result(id).await {
        Some(result) => result.into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

async fn fetch(State(floor): State<Floor>, Path(id): Path<Uuid>) -> Response {
    let Some(result) = floor.result(id).await else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let result = String::from_utf8_lossy(&result);
    format!(r#"{{"id":"{id}","status":"succeeded","response":{result}}}"#).into_response()
}

impl Floor {
    fn new(insert: Group<Row, ()>, finish: Group<Row, ()>, wake: Wake, vendor: HttpClient) -> Self {
        let (results, inputs) = (Arc::default(), Arc::default());
        Self { insert, finish, wake, results, inputs, vendor }
    }

    async fn result(&self, id: Uuid) -> Option<Bytes> {
        let mut receiver = self.results.lock().expect("no panics").get(&id)?.subscribe();
        let result = receiver.wait_for(Option::is_some).await.ok()?.clone();
        self.results.lock().expect("no panics").remove(&id);
        result
    }

    async fn attempt(&self, id: Uuid) {
        let Some(args) = self.inputs.lock().expect("no panics").remove(&id) else { return };
        let answer = self.vendor.send(Method::POST, "/chat/completions", None, args).await;
        let response = answer.expect("the mock vendor answers").into_body();
        let text = String::from_utf8_lossy(&response).into_owned();
        self.finish.add((id, text)).await;
        if let Some(result) = self.results.lock().expect("no panics").get(&id) {
            result.send_replace(Some(response));
        }
    }
}

impl Wake {
    async fn publish(&self, id: Uuid) {
        match self {
            Self::Memory(sender) => {
                let _ = sender.send(id).await;
            }
            Self::Amqp(channel) => {
                let persistent = BasicProperties::default().with_delivery_mode(2);
                let publish = channel.basic_publish(
                    "".into(),
                    "floor".into(),
                    BasicPublishOptions { mandatory: true, ..Default::default() },
                    id.as_bytes(),
                    persistent,
                );
                let confirm = publish.await.expect("RabbitMQ takes it");
                confirm.await.expect("RabbitMQ confirms it");
            }
        }
    }
}

async fn consume_memory(floor: Floor, mut ids: mpsc::Receiver<Uuid>, permits: Arc<Semaphore>) {
    let mut attempts = JoinSet::new();
    while let Some(id) = ids.recv().await {
        let permit = Arc::clone(&permits).acquire_owned().await.expect("never closed");
        let floor = floor.clone();
        attempts.spawn(async move {
            floor.attempt(id).await;
            drop(permit);
        });
        while attempts.try_join_next().is_some() {}
    }
}

async fn consume_amqp(floor: Floor, mut consumer: lapin::Consumer, permits: Arc<Semaphore>) {
    let mut attempts = JoinSet::new();
    while let Some(Ok(delivery)) = consumer.next().await {
        let permit = Arc::clone(&permits).acquire_owned().await.expect("never closed");
        let floor = floor.clone();
        attempts.spawn(async move {
            let id = Uuid::from_slice(&delivery.data).expect("the floor publishes ids");
            floor.attempt(id).await;
            delivery.ack(lapin::options::BasicAckOptions::default()).await.expect("it acks");
            drop(permit);
        });
        while attempts.try_join_next().is_some() {}
    }
}

async fn amqp_queue(url: &str) -> anyhow::Result<(lapin::Channel, lapin::Consumer)> {
    let properties = ConnectionProperties::default;
    let publishing = Connection::connect(url, properties()).await.context("no RabbitMQ")?;
    let consuming = Connection::connect(url, properties()).await.context("no RabbitMQ")?;
    let channel = publishing.create_channel().await?;
    channel.confirm_select(ConfirmSelectOptions::default()).await?;
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
    channel.queue_declare("floor".into(), QueueDeclareOptions::durable(), arguments).await?;
    let consume = consuming.create_channel().await?;
    consume.basic_qos(256, BasicQosOptions::default()).await?;
    let consumer = consume
        .basic_consume(
            "floor".into(),
            "floor".into(),
            BasicConsumeOptions::default(),
            FieldTable::default(),
        )
        .await?;
    // Both connections live as long as the process.
    std::mem::forget((publishing, consuming, consume));
    Ok((channel, consumer))
}

async fn postgres_groups(
    url: &str,
    tasks: &mut JoinSet<()>,
) -> anyhow::Result<(Group<Row, ()>, Group<Row, ()>)> {
    let pool = PgPool::connect(url).await.context("no Postgres")?;
    sqlx::query("CREATE TABLE floor (job_id UUID PRIMARY KEY, args JSON NOT NULL, result JSON) WITH (fillfactor = 60)")
        .execute(&pool)
        .await?;
    let inserts = pool.clone();
    let insert = Group::start(tasks, move |rows: Vec<Row>| {
        let pool = inserts.clone();
        async move {
            let n_rows = rows.len();
            let (ids, args): (Vec<_>, Vec<_>) = rows.into_iter().unzip();
            sqlx::query("INSERT INTO floor (job_id, args) SELECT id, args::json FROM unnest($1::uuid[], $2::text[]) AS new (id, args)")
                .bind(ids)
                .bind(args)
                .execute(&pool)
                .await?;
            Ok(vec![(); n_rows])
        }
    });
    let finish = Group::start(tasks, move |rows: Vec<Row>| {
        let pool = pool.clone();
        async move {
            let n_rows = rows.len();
            let (ids, results): (Vec<_>, Vec<_>) = rows.into_iter().unzip();
            sqlx::query("UPDATE floor SET result = new.result::json FROM unnest($1::uuid[], $2::text[]) AS new (id, result) WHERE job_id = new.id")
                .bind(ids)
                .bind(results)
                .execute(&pool)
                .await?;
            Ok(vec![(); n_rows])
        }
    });
    Ok((insert, finish))
}

async fn sqlite_groups(
    path: &std::path::Path,
    tasks: &mut JoinSet<()>,
) -> anyhow::Result<(Group<Row, ()>, Group<Row, ()>)> {
    let options = SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full);
    let pool = sqlx::pool::PoolOptions::new().max_connections(1).connect_with(options).await?;
    sqlx::query("CREATE TABLE floor (job_id BLOB PRIMARY KEY, args TEXT NOT NULL, result TEXT) WITHOUT ROWID")
        .execute(&pool)
        .await?;
    let group = |tasks: &mut JoinSet<()>, pool: SqlitePool, statement: &'static str| {
        Group::start(tasks, move |rows: Vec<Row>| {
            let pool = pool.clone();
            async move {
                let mut transaction = pool.begin().await?;
                let n_rows = rows.len();
                for (id, text) in rows {
                    sqlx::query(statement).bind(id).bind(text).execute(&mut *transaction).await?;
                }
                transaction.commit().await?;
                Ok(vec![(); n_rows])
            }
        })
    };
    let insert = group(tasks, pool.clone(), "INSERT INTO floor (job_id, args) VALUES (?1, ?2)");
    let finish = group(tasks, pool, "UPDATE floor SET result = ?2 WHERE job_id = ?1");
    Ok((insert, finish))
}
