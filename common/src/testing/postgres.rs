//! Postgres for tests: a database to oneself, and a whole server that may be stopped and started.

use std::{
    os::unix::{fs::MetadataExt as _, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Stdio},
    time::Duration,
};

use rand::Rng as _;
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, postgres::PgConnectOptions};
use testcontainers::{
    ContainerAsync, GenericImage, ImageExt as _,
    core::{IntoContainerPort as _, WaitFor},
    runners::AsyncRunner as _,
};
use tokio::sync::OnceCell;
use url::Url;

use crate::{
    clock::{Clock as _, SystemClock},
    id::InstanceId,
    testing::free_port,
};

/// Names a Postgres whose user may create databases.
const URL_VARIABLE: &str = "INFERQ_TEST_POSTGRES_URL";

const NO_POSTGRES: &str =
    "no Postgres: set INFERQ_TEST_POSTGRES_URL, start Docker, or install the package `postgresql`";

/// Longest wait for a server to start, recovery after a crash included.
const START_TIMEOUT: Duration = Duration::from_mins(1);

type Settings = &'static [&'static str];

/// Settings that make tests fast. A committed transaction still survives the end of the server's
/// processes, `stop` included; without `fsync` it would not survive a power cut, which no test
/// brings about.
const QUICK: &[&str] =
    &["fsync=off", "full_page_writes=off", "shared_buffers=64MB", "max_connections=300"];

/// Settings of a server that keeps what it has committed, for measurements.
const DURABLE: &[&str] = &[
    "fsync=on",
    "full_page_writes=on",
    "shared_buffers=256MB",
    "max_wal_size=4GB",
    "max_connections=300",
];

/// The URL of a new, empty database. It goes with the server; on a server that the environment
/// names it stays behind.
///
/// # Panics
/// If there is no Postgres to be had.
pub async fn fresh_database() -> String {
    static SHARED: OnceCell<Server> = OnceCell::const_new();
    #[expect(
        clippy::disallowed_methods,
        reason = "tests are told where servers are, not configured"
    )]
    let named = std::env::var(URL_VARIABLE).ok().filter(|url| !url.is_empty());
    let base = match named {
        Some(url) => url,
        None => SHARED.get_or_init(Server::start).await.url(),
    };
    let mut url = Url::parse(&base).expect("the address of the test Postgres is a URL");
    let name = format!("inferq_{}", InstanceId::new(SystemClock.now()).as_uuid().simple());
    let options = PgConnectOptions::from_url(&url).expect("a postgres:// URL");
    let mut connection = options
        .connect()
        .await
        .unwrap_or_else(|error| panic!("cannot connect to the test Postgres: {error}"));
    sqlx::query(AssertSqlSafe(format!("CREATE DATABASE {name}")))
        .execute(&mut connection)
        .await
        .unwrap_or_else(|error| panic!("cannot create a test database: {error}"));
    connection.close().await.expect("the connection was good a moment ago");
    url.set_path(&name);
    url.into()
}

/// A private Postgres on a free loopback port. It ends with this value, or with this process.
pub struct Server {
    engine: Engine,
    port: u16,
    password: String,
    /// Ends the server when it is dropped, and when this process ends without dropping it.
    _guard: Guard,
}

enum Engine {
    Container(Box<ContainerAsync<GenericImage>>),
    Installed(Installed),
}

impl Server {
    /// Starts one: in a container where a Docker engine answers, else from installed programs.
    ///
    /// # Panics
    /// If there is neither.
    pub async fn start() -> Self {
        Self::start_with(QUICK).await
    }

    /// As [`Self::start`], one that flushes every commit to the disk as in production.
    ///
    /// # Panics
    /// If there is neither.
    pub async fn start_durable() -> Self {
        Self::start_with(DURABLE).await
    }

    async fn start_with(settings: Settings) -> Self {
        let mut failures = Vec::new();
        // Another process may take the free port before the server does.
        for _ in 0..3 {
            let port = free_port();
            let password = format!("{:032x}", rand::rng().random::<u128>());
            let started = match Self::start_container(port, &password, settings).await {
                Ok(server) => Ok(server),
                Err(no_container) => match Self::start_installed(port, &password, settings).await {
                    Ok(server) => Ok(server),
                    Err(no_program) => Err(format!("{no_container}; {no_program}")),
                },
            };
            match started {
                Ok(server) => {
                    server.answers().await;
                    return server;
                }
                Err(failure) => failures.push(failure),
            }
        }
        panic!("{NO_POSTGRES} ({})", failures.join("; "));
    }

    async fn start_container(
        port: u16,
        password: &str,
        settings: Settings,
    ) -> Result<Self, String> {
        let settings = settings.iter().flat_map(|&setting| ["-c", setting]);
        let container = GenericImage::new("postgres", "17")
            .with_wait_for(WaitFor::message_on_stdout("PostgreSQL init process complete"))
            .with_mapped_port(port, 5432.tcp())
            .with_env_var("POSTGRES_PASSWORD", password)
            // As the installed one is made. The hashes of SCRAM cost a debug build 50 ms each time.
            .with_env_var("POSTGRES_HOST_AUTH_METHOD", "password")
            .with_cmd(settings)
            .start()
            .await
            .map_err(|error| format!("Docker: {error}"))?;
        let mut guard = std::process::Command::new("sh");
        guard.args([
            "-c",
            "cat >/dev/null; docker rm -f -v \"$0\" >/dev/null 2>&1",
            container.id(),
        ]);
        Ok(Self {
            engine: Engine::Container(Box::new(container)),
            port,
            password: password.to_owned(),
            _guard: Guard::start(guard)?,
        })
    }

    async fn start_installed(
        port: u16,
        password: &str,
        settings: Settings,
    ) -> Result<Self, String> {
        let installed = Installed::create(port, password, settings).await?;
        let mut guard = std::process::Command::new("sh");
        guard.args([
            "-c",
            r#"cat >/dev/null; "$0/pg_ctl" stop -D "$1/data" -m immediate >/dev/null 2>&1; rm -rf "$1""#,
        ]);
        guard.arg(&installed.programs).arg(&installed.folder);
        if let Some((user, group)) = installed.run_as {
            guard.uid(user).gid(group);
        }
        let guard = Guard::start(guard)?;
        installed.start().await?;
        let password = password.to_owned();
        Ok(Self { engine: Engine::Installed(installed), port, password, _guard: guard })
    }

    /// `postgres://…` with a user who may do everything.
    pub fn url(&self) -> String {
        format!("postgres://postgres:{}@127.0.0.1:{}/postgres", self.password, self.port)
    }

    /// Stops the server as a crash would: connections break, running transactions are lost.
    ///
    /// # Panics
    /// If it does not stop, as when it has been stopped before.
    pub async fn stop(&self) {
        match &self.engine {
            Engine::Container(container) => {
                container.stop_with_timeout(Some(0)).await.expect("the container stops");
            }
            Engine::Installed(installed) => installed.stop().await.expect("the server stops"),
        }
    }

    /// Starts the server after `stop`, on the same port with the same data; answers once it serves.
    ///
    /// # Panics
    /// If it does not start.
    pub async fn start_again(&self) {
        match &self.engine {
            Engine::Container(container) => container.start().await.expect("the container starts"),
            Engine::Installed(installed) => installed.start().await.expect("the server starts"),
        }
        self.answers().await;
    }

    /// `stop`, then `start_again`.
    ///
    /// # Panics
    /// As these do.
    pub async fn restart(&self) {
        self.stop().await;
        self.start_again().await;
    }

    /// Waits until it takes connections.
    async fn answers(&self) {
        let options: PgConnectOptions = self.url().parse().expect("our own URL");
        let connect = async {
            loop {
                match options.connect().await {
                    Ok(connection) => return connection.close().await,
                    // Nothing tells when it starts to listen; asking is all there is.
                    Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
                }
            }
        };
        let connected = tokio::time::timeout(START_TIMEOUT, connect).await;
        connected.expect("the test Postgres takes connections in time").ok();
    }
}

/// A server from installed programs, in a temporary folder.
struct Installed {
    programs: PathBuf,
    folder: PathBuf,
    port: u16,
    settings: Settings,
    /// Postgres refuses to run as root; then this user and group run it.
    run_as: Option<(u32, u32)>,
}

impl Installed {
    async fn create(port: u16, password: &str, settings: Settings) -> Result<Self, String> {
        let programs = find_programs().ok_or("no installed Postgres")?;
        let run_as = unprivileged_user()?;
        let folder = tempfile::Builder::new()
            .prefix("inferq-postgres-")
            .tempdir()
            .map_err(|error| format!("temporary folder: {error}"))?;
        let password_file = folder.path().join("password");
        std::fs::write(&password_file, password).map_err(|error| error.to_string())?;
        if let Some((user, group)) = run_as {
            for path in [folder.path(), &password_file] {
                std::os::unix::fs::chown(path, Some(user), Some(group))
                    .map_err(|error| error.to_string())?;
            }
        }
        let mut installed =
            Self { programs, folder: folder.path().to_owned(), port, settings, run_as };
        let pwfile = format!("--pwfile={}", password_file.display());
        let arguments = ["--username=postgres", "--auth=password", "--encoding=UTF8"];
        installed
            .run("initdb", &[&arguments[..], &["--locale=C", "--no-sync", &pwfile]].concat())
            .await?;
        // From here on the guard removes it.
        installed.folder = folder.keep();
        Ok(installed)
    }

    async fn start(&self) -> Result<(), String> {
        use std::fmt::Write as _;
        let mut options =
            format!("-p {} -c listen_addresses=127.0.0.1 -c unix_socket_directories=", self.port);
        for setting in self.settings {
            write!(options, " -c {setting}").expect("a String takes all");
        }
        let log = self.folder.join("log").display().to_string();
        self.run("pg_ctl", &["start", "--wait", "--silent", "-l", &log, "-o", &options]).await
    }

    async fn stop(&self) -> Result<(), String> {
        self.run("pg_ctl", &["stop", "--wait", "--silent", "-m", "immediate"]).await
    }

    async fn run(&self, program: &str, arguments: &[&str]) -> Result<(), String> {
        let mut command = tokio::process::Command::new(self.programs.join(program));
        command.args(arguments).arg("-D").arg(self.folder.join("data"));
        command.current_dir(&self.folder).stdin(Stdio::null()).kill_on_drop(true);
        if let Some((user, group)) = self.run_as {
            command.uid(user).gid(group);
        }
        let output = tokio::time::timeout(START_TIMEOUT, command.output())
            .await
            .map_err(|_| format!("{program} did not end in time"))?
            .map_err(|error| format!("{program}: {error}"))?;
        if output.status.success() {
            return Ok(());
        }
        let log = std::fs::read_to_string(self.folder.join("log")).unwrap_or_default();
        Err(format!("{program}: {} {}", String::from_utf8_lossy(&output.stderr).trim(), log.trim()))
    }
}

/// The newest installed Postgres: Debian's folders, else the folders of `PATH`.
fn find_programs() -> Option<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut folders: Vec<PathBuf> = versions.map(|version| version.path()).collect();
    folders.sort_by_key(|folder| {
        folder.file_name().and_then(|name| name.to_str()?.parse::<u32>().ok())
    });
    let packaged = folders.into_iter().rev().map(|folder| folder.join("bin"));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path: Vec<PathBuf> = std::env::split_paths(&path).collect();
    packaged.chain(on_path).find(|folder| is_file(folder, "initdb") && is_file(folder, "pg_ctl"))
}

fn is_file(folder: &Path, name: &str) -> bool {
    folder.join(name).is_file()
}

/// User and group `postgres` if this process is root, else none.
fn unprivileged_user() -> Result<Option<(u32, u32)>, String> {
    let own = tempfile::tempfile().and_then(|file| file.metadata());
    if own.map_err(|error| error.to_string())?.uid() != 0 {
        return Ok(None);
    }
    let id = |flag: &str| -> Option<u32> {
        let output = std::process::Command::new("id").args([flag, "postgres"]).output().ok()?;
        String::from_utf8(output.stdout).ok()?.trim().parse().ok()
    };
    let found = id("-u").zip(id("-g"));
    found
        .map(Some)
        .ok_or_else(|| "Postgres does not run as root and there is no user postgres".into())
}

/// A process that cleans up once its standard input ends: when it is dropped, or when this process
/// ends in whatever way.
struct Guard {
    process: Child,
    input: Option<ChildStdin>,
}

impl Guard {
    fn start(mut command: std::process::Command) -> Result<Self, String> {
        // A group of its own: an interrupt from the terminal must not reach it.
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
        let mut process = command.spawn().map_err(|error| format!("guard: {error}"))?;
        let input = process.stdin.take();
        Ok(Self { process, input })
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.input.take();
        self.process.wait().ok();
    }
}

#[cfg(all(test, feature = "servers"))]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_was_committed_survives_a_crash_and_a_restart() {
        let server = Server::start().await;
        let options: PgConnectOptions = server.url().parse().unwrap();
        let mut connection = options.connect().await.unwrap();
        sqlx::raw_sql("CREATE TABLE t (n INT); INSERT INTO t VALUES (7)")
            .execute(&mut connection)
            .await
            .unwrap();
        server.stop().await;
        assert!(options.connect().await.is_err());
        assert!(connection.ping().await.is_err());
        server.start_again().await;
        let mut connection = options.connect().await.unwrap();
        let n: i32 =
            sqlx::query_scalar("SELECT n FROM t").fetch_one(&mut connection).await.unwrap();
        assert_eq!(n, 7);
    }

    #[tokio::test]
    async fn a_dropped_server_is_gone() {
        let server = Server::start().await;
        let options: PgConnectOptions = server.url().parse().unwrap();
        drop(server);
        assert!(options.connect().await.is_err());
    }

    #[tokio::test]
    async fn each_test_has_a_database_to_itself() {
        let (one, other) = tokio::join!(fresh_database(), fresh_database());
        assert_ne!(one, other);
    }
}
