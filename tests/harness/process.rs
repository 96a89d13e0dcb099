//! One process of inferq, which can be killed and started again.

use std::{
    collections::BTreeMap,
    fs::File,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Mutex,
    time::Duration,
};

use super::{PATIENCE, eventually};

pub struct Process {
    pub name: String,
    pub listen: SocketAddr,
    args: Vec<String>,
    settings: BTreeMap<String, String>,
    log: PathBuf,
    child: Mutex<Option<Child>>,
}

impl Process {
    pub fn start(
        name: &str,
        args: &[&str],
        listen: SocketAddr,
        settings: &BTreeMap<String, String>,
        folder: &Path,
    ) -> Self {
        let process = Self {
            name: name.to_owned(),
            listen,
            args: args.iter().map(|&arg| arg.to_owned()).collect(),
            settings: settings.clone(),
            log: folder.join(format!("{name}.log")),
            child: Mutex::new(None),
        };
        process.start_again();
        process
    }

    /// Starts it with the arguments it had.
    pub fn start_again(&self) {
        let log = File::options().create(true).append(true).open(&self.log).unwrap();
        let child = command(&self.settings)
            .args(&self.args)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let before = self.child.lock().unwrap().replace(child);
        assert!(before.is_none(), "{} is running already", self.name);
    }

    pub async fn is_ready(&self) {
        let what = format!("{} to be ready", self.name);
        let url = format!("http://{}/readyz", self.listen);
        // One for all questions: to make a client takes longer than to start the process.
        let http = reqwest::Client::builder().build().unwrap();
        eventually(&what, async || {
            self.is_still_running();
            let response = http.get(&url).send().await.ok()?;
            let body: serde_json::Value = response.json().await.ok()?;
            (body["status"] == "ok").then_some(())
        })
        .await;
    }

    fn is_still_running(&self) {
        let mut child = self.child.lock().unwrap();
        let ended = child.as_mut().and_then(|child| child.try_wait().unwrap());
        assert!(ended.is_none(), "{} ended: {}", self.name, self.log_tail());
    }

    pub fn is_running(&self) -> bool {
        self.child.lock().unwrap().is_some()
    }

    /// SIGKILL: it gets no chance to tidy up.
    pub fn kill(&self) {
        let mut child = self.child.lock().unwrap().take().expect("it is running");
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// SIGTERM, then waits for it to end by itself.
    pub async fn stop(&self) -> std::process::ExitStatus {
        let mut child = self.child.lock().unwrap().take().expect("it is running");
        let pid = child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        let begun = std::time::Instant::now();
        loop {
            if let Some(status) = child.try_wait().unwrap() {
                return status;
            }
            if begun.elapsed() > PATIENCE {
                child.kill().unwrap();
                panic!("{} did not stop: {}", self.name, self.log_tail());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub fn log_tail(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- the end of {}'s log\n{}", self.name, self.log_tail());
        }
        if let Some(mut child) =
            self.child.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take()
        {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// How the variables begin that the binary reads, its own and those of other tools.
const CONVENTIONAL: &[&str] = &[
    "INFERQ",
    "DATABASE_URL",
    "AMQP_URL",
    "OPENAI_",
    "ANTHROPIC_",
    "COHERE_",
    "CO_API_",
    "GOOGLE_",
    "GEMINI_",
    "AZURE_",
    "AWS_",
    "XAI_",
    "FIREWORKS_",
    "LAUNCH_",
    "LLM_ENGINE_",
];

/// The binary, with these settings and none of the surroundings'.
pub fn command(settings: &BTreeMap<String, String>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_inferq"));
    for (name, _) in std::env::vars_os() {
        let name_text = name.to_string_lossy();
        if CONVENTIONAL.iter().any(|prefix| name_text.starts_with(prefix)) {
            command.env_remove(name);
        }
    }
    command.envs(settings);
    command
}

/// A loopback address that nobody listens at.
pub fn free_address() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], inferq_common::testing::free_port()))
}
