//! RabbitMQ for tests: a private server on free ports, and a virtual host for each test.

#![expect(clippy::missing_panics_doc, reason = "a test server that fails fails its test")]

use std::{
    fmt::Write as _,
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use tempfile::TempDir;
use testcontainers::{
    ContainerAsync, GenericImage, ImageExt as _,
    core::{ExecCommand, IntoContainerPort as _},
    runners::AsyncRunner as _,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::OnceCell,
    time::{sleep, timeout},
};
use url::Url;

use crate::testing::free_port;

/// Names a server that runs already, such as `amqp://guest:guest@127.0.0.1:5672`.
pub const AMQP_URL: &str = "INFERQ_TEST_AMQP_URL";

/// Its management API, such as `http://guest:guest@127.0.0.1:15672`.
pub const MANAGEMENT_URL: &str = "INFERQ_TEST_RABBITMQ_MANAGEMENT_URL";

/// A start on a busy machine takes 10 s and more; a first pull of the image, minutes.
const START_WITHIN: Duration = Duration::from_mins(5);

/// A stop that takes longer becomes a kill.
const STOP_WITHIN: Duration = Duration::from_secs(30);

/// Runs the server and its port mapper, and ends both when this process says `stop` or is gone. In
/// the latter case what the server has stored goes too.
///
/// `$1` is the server, `$2` its folder. The port mapper runs in the foreground here: started by the
/// server itself it would become a daemon and stay.
const WATCHED: &str = r#"
exec 3<&0 </dev/null
epmd & mapper=$!
"$1" & server=$!
(
  read -r order <&3
  kill -TERM $server
  tries=0
  while kill -0 $server && [ $tries -lt 200 ]; do sleep 0.1; tries=$((tries + 1)); done
  kill -KILL $server $mapper
  [ "$order" = stop ] || rm -rf "$2"
) 2>/dev/null & watch=$!
exec 3<&-
wait $server
code=$?
kill $mapper
# It may still have to clear up; a server that ended by itself leaves it waiting.
[ $code = 0 ] && wait $watch
exit $code
"#;

/// Where servers of distributions and of the generic package lie; the wrapper that Debian puts into
/// the path insists on a system user.
const PROGRAMS: &[&str] = &["/usr/lib/rabbitmq/bin", "/opt/homebrew/sbin", "/usr/local/sbin"];

/// A private RabbitMQ. Dropped, it ends.
pub struct Server {
    ports: Ports,
    kind: Kind,
}

#[derive(Clone, Copy)]
struct Ports {
    amqp: u16,
    management: u16,
}

enum Kind {
    Program(Program),
    Container(Box<Container>),
}

impl Server {
    /// A container where a Docker engine answers, else the installed program.
    ///
    /// # Panics
    /// If neither is there, or the server does not start: there is no test without it.
    pub async fn start() -> Self {
        let ports = Ports { amqp: free_port(), management: free_port() };
        let kind = if docker_answers().await {
            Kind::Container(Box::new(Container::start(ports).await))
        } else {
            Kind::Program(Program::start(ports))
        };
        let mut server = Self { ports, kind };
        server.wait_until_ready().await;
        server
    }

    /// `amqp://guest:guest@127.0.0.1:PORT`: the default virtual host.
    pub fn url(&self) -> String {
        format!("amqp://guest:guest@127.0.0.1:{}", self.ports.amqp)
    }

    /// The management API, with user and password.
    pub fn management_url(&self) -> String {
        format!("http://guest:guest@127.0.0.1:{}", self.ports.management)
    }

    /// Stops it and starts it again, with what it had stored.
    pub async fn restart(&mut self) {
        self.stop().await;
        self.start_again().await;
    }

    /// Stops it in order.
    pub async fn stop(&mut self) {
        match &mut self.kind {
            Kind::Program(program) => program.stop().await,
            Kind::Container(container) => {
                let seconds = i32::try_from(STOP_WITHIN.as_secs()).ok();
                let stopped = container.container.stop_with_timeout(seconds).await;
                stopped.expect("the container stops");
            }
        }
    }

    /// Starts it on the same ports, with what it had stored.
    pub async fn start_again(&mut self) {
        match &mut self.kind {
            Kind::Program(program) => program.spawn(),
            Kind::Container(container) => {
                container.container.start().await.expect("the container starts");
            }
        }
        self.wait_until_ready().await;
    }

    /// Runs `rabbitmqctl` against it and answers what it wrote.
    pub async fn ctl(&self, arguments: &[&str]) -> String {
        match &self.kind {
            Kind::Program(program) => program.ctl(arguments).await,
            Kind::Container(container) => container.ctl(arguments).await,
        }
    }

    /// The URL of a fresh, empty virtual host on it.
    pub async fn virtual_host(&self) -> String {
        new_virtual_host(&self.url(), &self.management_url()).await
    }

    async fn wait_until_ready(&mut self) {
        let management = self.management_url();
        let ready = async {
            loop {
                if let Kind::Program(program) = &mut self.kind {
                    program.check_running();
                }
                let amqp = TcpStream::connect(("127.0.0.1", self.ports.amqp)).await;
                if amqp.is_ok() && http(&management, "GET", "/api/vhosts").await.is_ok() {
                    break;
                }
                sleep(Duration::from_millis(100)).await;
            }
        };
        let in_time = timeout(START_WITHIN, ready).await;
        assert!(in_time.is_ok(), "RabbitMQ did not start within {START_WITHIN:?}");
    }
}

/// The URL of a fresh, empty virtual host: on the server that the environment names, else on one
/// that this process shares and that ends with it.
///
/// # Panics
/// If no RabbitMQ can be had.
pub async fn virtual_host() -> String {
    static SHARED: OnceCell<(String, String)> = OnceCell::const_new();
    let named = (environment(AMQP_URL), environment(MANAGEMENT_URL));
    if let (Some(amqp), Some(management)) = named {
        return new_virtual_host(&amqp, &management).await;
    }
    let (amqp, management) = SHARED.get_or_init(start_shared).await;
    new_virtual_host(amqp, management).await
}

/// Starts a server on a thread of its own: it outlives the runtime of the test that needed it first.
async fn start_shared() -> (String, String) {
    let (sender, started) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(async move {
            let server = Server::start().await;
            // The test may have been given up.
            let _ = sender.send((server.url(), server.management_url()));
            std::future::pending::<()>().await;
        });
    });
    started.await.expect("RabbitMQ starts; its thread has told above why it did not")
}

async fn new_virtual_host(amqp: &str, management: &str) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let process = std::process::id();
    let name = format!("inferq-{process}-{}", COUNT.fetch_add(1, Ordering::Relaxed));
    let path = format!("/api/vhosts/{name}");
    // Another run may have left one of this name behind.
    let _ = http(management, "DELETE", &path).await;
    let made = http(management, "PUT", &path).await;
    assert!(made.is_ok(), "the virtual host {name} could not be made: {made:?}");
    let mut url = Url::parse(amqp).expect("the AMQP URL of the test server is a URL");
    let user = if url.username().is_empty() { "guest" } else { url.username() };
    let path = format!("/api/permissions/{name}/{user}");
    let permitted = http(management, "PUT", &path).await;
    assert!(permitted.is_ok(), "no permissions on {name}: {permitted:?}");
    url.set_path(&format!("/{name}"));
    url.into()
}

/// One call of the management API; its answers are of no interest here.
async fn http(base: &str, method: &str, path: &str) -> io::Result<()> {
    let base = Url::parse(base).map_err(io::Error::other)?;
    let login = format!("{}:{}", base.username(), base.password().unwrap_or_default());
    let host = base.host_str().unwrap_or("127.0.0.1");
    let port = base.port_or_known_default().unwrap_or(15672);
    let body = r#"{"configure":".*","write":".*","read":".*"}"#;
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: {host}\r\nauthorization: Basic {}\r\n\
         content-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        BASE64_STANDARD.encode(login),
        body.len()
    );
    let mut socket = TcpStream::connect((host, port)).await?;
    socket.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer).await?;
    let status = String::from_utf8_lossy(&answer).lines().next().unwrap_or_default().to_owned();
    if status.split(' ').nth(1).is_some_and(|code| code.starts_with('2')) {
        Ok(())
    } else {
        Err(io::Error::other(format!("{method} {path}: {status}")))
    }
}

#[expect(clippy::disallowed_methods, reason = "tests are told of their servers this way")]
fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

async fn docker_answers() -> bool {
    let mut asking = tokio::process::Command::new("docker");
    asking.arg("info").stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    let answered = timeout(Duration::from_secs(10), asking.status()).await;
    matches!(answered, Ok(Ok(status)) if status.success())
}

/// The server as an installed program, with all it writes in a temporary folder.
struct Program {
    folder: TempDir,
    programs: PathBuf,
    environment: Vec<(&'static str, String)>,
    running: Option<Child>,
}

impl Program {
    fn start(ports: Ports) -> Self {
        let programs = programs().unwrap_or_else(|| {
            panic!(
                "these tests need RabbitMQ: install rabbitmq-server, start Docker, or name a \
                 server in {AMQP_URL} and {MANAGEMENT_URL}"
            )
        });
        let folder = tempfile::Builder::new().prefix("inferq-rabbitmq-").tempdir();
        let folder = folder.expect("a temporary folder");
        let environment = settings(folder.path(), ports);
        let mut program = Self { folder, programs, environment, running: None };
        program.spawn();
        program
    }

    fn spawn(&mut self) {
        use std::os::unix::process::CommandExt as _;
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.log());
        let log = log.expect("a log in the temporary folder");
        let child = Command::new("sh")
            .args(["-c", WATCHED, "sh"])
            .arg(self.programs.join("rabbitmq-server"))
            .arg(self.folder.path())
            .envs(self.environment.iter().map(|(key, value)| (key, value)))
            .stdin(Stdio::piped())
            .stdout(log.try_clone().expect("a second handle of the log"))
            .stderr(log)
            // Not of our group: an interrupt at the terminal is ours to handle.
            .process_group(0)
            .spawn();
        self.running = Some(child.expect("sh starts"));
    }

    fn log(&self) -> PathBuf {
        self.folder.path().join("console.log")
    }

    fn check_running(&mut self) {
        let Some(running) = &mut self.running else { return };
        if let Ok(Some(status)) = running.try_wait() {
            let log = std::fs::read_to_string(self.log()).unwrap_or_default();
            panic!("RabbitMQ ended while starting ({status}):\n{log}");
        }
    }

    async fn stop(&mut self) {
        let Some(mut running) = self.running.take() else { return };
        if let Some(mut order) = running.stdin.take() {
            order.write_all(b"stop\n").expect("the script waits for its order");
        }
        let ended = tokio::task::spawn_blocking(move || running.wait());
        timeout(STOP_WITHIN, ended)
            .await
            .expect("RabbitMQ stops")
            .expect("no panic")
            .expect("ends");
    }

    async fn ctl(&self, arguments: &[&str]) -> String {
        let mut command = Command::new(self.programs.join("rabbitmqctl"));
        command.args(arguments).envs(self.environment.iter().map(|(key, value)| (key, value)));
        let ran = tokio::task::spawn_blocking(move || command.output()).await;
        let Output { status, stdout, stderr } = ran.expect("no panic").expect("rabbitmqctl runs");
        let mut text = String::from_utf8_lossy(&stdout).into_owned();
        let _ = write!(text, "{}", String::from_utf8_lossy(&stderr));
        assert!(status.success(), "rabbitmqctl {arguments:?}: {text}");
        text
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if let Some(mut running) = self.running.take() {
            drop(running.stdin.take());
            // The folder goes next, so the server must be gone.
            let _ = running.wait();
        }
    }
}

fn programs() -> Option<PathBuf> {
    let path = environment("PATH").unwrap_or_default();
    let known = PROGRAMS.iter().map(PathBuf::from);
    known.chain(std::env::split_paths(&path)).find(|folder| folder.join("rabbitmq-server").exists())
}

/// Everything private: names, ports, folders, cookie. See <https://www.rabbitmq.com/docs/configure>.
fn settings(folder: &Path, ports: Ports) -> Vec<(&'static str, String)> {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let n = COUNT.fetch_add(1, Ordering::Relaxed);
    let Ports { amqp, management } = ports;
    let config = format!(
        "listeners.tcp.1 = 127.0.0.1:{amqp}\n\
         management.tcp.ip = 127.0.0.1\n\
         management.tcp.port = {management}\n\
         management_agent.disable_metrics_collector = true\n\
         raft.wal_max_size_bytes = 16000000\n\
         log.file.level = warning\n\
         log.console = false\n"
    );
    let write = |name: &str, text: &str| {
        let path = folder.join(name);
        std::fs::write(&path, text).expect("a file in the temporary folder");
        path.display().to_string()
    };
    let within = |name: &str| folder.join(name).display().to_string();
    vec![
        ("HOME", folder.display().to_string()),
        ("RABBITMQ_NODENAME", format!("inferq-test-{}-{n}@localhost", std::process::id())),
        ("RABBITMQ_CONFIG_FILE", write("rabbitmq.conf", &config)),
        ("RABBITMQ_ENABLED_PLUGINS_FILE", write("enabled_plugins", "[rabbitmq_management].\n")),
        ("RABBITMQ_CONF_ENV_FILE", write("rabbitmq-env.conf", "")),
        ("RABBITMQ_ADVANCED_CONFIG_FILE", write("advanced.config", "[].\n")),
        ("RABBITMQ_MNESIA_BASE", within("data")),
        ("RABBITMQ_LOG_BASE", within("log")),
        ("RABBITMQ_GENERATED_CONFIG_DIR", within("config")),
        ("RABBITMQ_SCHEMA_DIR", within("schema")),
        ("RABBITMQ_PID_FILE", within("pid")),
        ("RABBITMQ_DIST_PORT", free_port().to_string()),
        ("ERL_EPMD_PORT", free_port().to_string()),
        ("ERL_EPMD_ADDRESS", "127.0.0.1".to_owned()),
        // Makes the script become the server instead of its parent, so that a signal reaches it.
        ("RUNNING_UNDER_SYSTEMD", "true".to_owned()),
    ]
}

/// The server as a container.
struct Container {
    container: ContainerAsync<GenericImage>,
    /// Removes the container when this process is gone; its own drop cannot when it is killed.
    watch: Child,
}

impl Container {
    async fn start(ports: Ports) -> Self {
        use std::os::unix::process::CommandExt as _;
        let container = GenericImage::new("rabbitmq", "4-management")
            // Fixed ports, or a restart would move them.
            .with_mapped_port(ports.amqp, 5672.tcp())
            .with_mapped_port(ports.management, 15672.tcp())
            .with_startup_timeout(START_WITHIN)
            .start()
            .await
            .expect("the container rabbitmq:4-management starts");
        let watch = Command::new("sh")
            .args(["-c", "read -r _; docker rm -f -v \"$1\"", "sh", container.id()])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // Not of our group: an interrupt at the terminal must not end it.
            .process_group(0)
            .spawn()
            .expect("sh starts");
        Self { container, watch }
    }

    async fn ctl(&self, arguments: &[&str]) -> String {
        let command = ["rabbitmqctl"].iter().chain(arguments).copied();
        let mut ran = self.container.exec(ExecCommand::new(command)).await.expect("exec");
        let stdout = ran.stdout_to_vec().await.expect("the output of rabbitmqctl");
        let stderr = ran.stderr_to_vec().await.expect("the output of rabbitmqctl");
        let mut text = String::from_utf8_lossy(&stdout).into_owned();
        let _ = write!(text, "{}", String::from_utf8_lossy(&stderr));
        let code = ran.exit_code().await.expect("an exit code");
        assert_eq!(code, Some(0), "rabbitmqctl {arguments:?}: {text}");
        text
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        drop(self.watch.stdin.take());
        let _ = self.watch.wait();
    }
}
