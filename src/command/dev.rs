//! `inferq dev`: the whole platform in one process.

use std::{
    fs::{self, File, TryLockError},
    io::Write,
    net::SocketAddr,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use clap::Args;
use inferq_common::config::{Config, SecretsConfig};
use secrecy::{ExposeSecret, SecretString};

use crate::{
    exit::{Failure, code},
    output,
    platform::{self, Platform, Roles},
};

/// Where `dev` leaves its first key, inside the data folder; readable by its owner alone.
pub const KEY_FILE: &str = "api-key";

/// Where `dev` keeps jobs and results, inside the data folder.
pub const DATABASE_FILE: &str = "inferq.db";

/// Where `dev` leaves the master key that it makes, inside the data folder; readable by its owner
/// alone.
pub const MASTER_KEY_FILE: &str = "master-key";

/// As for `auth.bootstrap_key`.
const SHORTEST_KEY: usize = 16;

#[derive(Debug, Args)]
pub struct DevArgs {
    /// Where to listen
    #[arg(long, value_name = "ADDR:PORT")]
    listen: Option<SocketAddr>,
    /// Where jobs, results and the first API key are kept
    #[arg(long, value_name = "DIR", default_value = ".inferq")]
    data_dir: PathBuf,
}

pub async fn run(args: DevArgs, file: Option<&Path>) -> Result<(), Failure> {
    let mut config = embedded_config(file, &args.data_dir)?;
    if let Some(listen) = args.listen {
        config.api.listen = listen;
    }
    // Receivers under development run on the same machine.
    config.callbacks.allow_networks.extend(platform::loopback());
    make_data_dir(&args.data_dir)?;
    let _lock = lock(&args.data_dir)?;
    config.secrets = secrets(&config, &args.data_dir);
    if config.secrets.key_file.as_deref() == Some(&*args.data_dir.join(MASTER_KEY_FILE)) {
        make_master_key(&args.data_dir)?;
    }

    let platform = Platform::start(config, Roles::DEV).await?;
    let key = first_key(&platform, &args.data_dir).await?;
    greet(&platform, &args.data_dir, &key)?;
    platform.run().await
}

/// The configuration of `dev`: always its own SQLite file and the in-process broker, whatever
/// `DATABASE_URL` says; that may be another project's.
pub fn embedded_config(file: Option<&Path>, data_dir: &Path) -> Result<Config, Failure> {
    let database = format!("sqlite://{}", data_dir.join(DATABASE_FILE).display());
    Ok(Config::load_with(file, &[("database.url", &database), ("broker.url", "memory:")])?)
}

fn make_data_dir(data_dir: &Path) -> Result<(), Failure> {
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(data_dir);
    made.map_err(|error| unusable(data_dir, &error))
}

fn unusable(data_dir: &Path, error: &std::io::Error) -> Failure {
    Failure::new(
        code::SYSTEM,
        format!(
            "cannot use {} as data folder: {error}; choose another with --data-dir",
            data_dir.display()
        ),
    )
}

/// One `dev` a data folder: the file is locked for as long as the process lives.
fn lock(data_dir: &Path) -> Result<File, Failure> {
    let path = data_dir.join("lock");
    let file = File::options().create(true).truncate(false).write(true).open(&path);
    let file = file.map_err(|error| unusable(data_dir, &error))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(Failure::new(
            code::UNAVAILABLE,
            format!(
                "another `inferq dev` uses {}: stop it, or choose another folder with --data-dir",
                data_dir.display()
            ),
        )),
        Err(TryLockError::Error(error)) => Err(unusable(data_dir, &error)),
    }
}

/// The key in the data folder; makes it at the first start.
async fn first_key(platform: &Platform, data_dir: &Path) -> Result<SecretString, Failure> {
    let path = data_dir.join(KEY_FILE);
    let key = match fs::read_to_string(&path) {
        Ok(text) => SecretString::from(text.trim().to_owned()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let key = inferq_common::account::generate_key(&mut rand::rng());
            keep_key(&path, &key).map_err(|error| unusable(data_dir, &error))?;
            key
        }
        Err(error) => return Err(unusable(data_dir, &error)),
    };
    // Whoever sends no more than an empty header must not be let in.
    if key.expose_secret().len() < SHORTEST_KEY {
        return Err(Failure::new(
            code::CONFIG,
            format!("{} holds no API key: delete it, and the next start makes one", path.display()),
        ));
    }
    platform.ensure_key(&key, "dev").await?;
    Ok(key)
}

/// The configured secrets; where no master key is among them, that of the data folder.
pub fn secrets(config: &Config, data_dir: &Path) -> SecretsConfig {
    let mut secrets = config.secrets.clone();
    if secrets.master_key.is_none() && secrets.key_file.is_none() {
        secrets.key_file = Some(data_dir.join(MASTER_KEY_FILE));
    }
    secrets
}

/// Makes the master key of the data folder at the first start.
fn make_master_key(data_dir: &Path) -> Result<(), Failure> {
    let path = data_dir.join(MASTER_KEY_FILE);
    let there = path.try_exists().map_err(|error| unusable(data_dir, &error))?;
    if !there {
        let key = inferq_common::credential::generate_master_key(&mut rand::rng());
        keep_key(&path, &key).map_err(|error| unusable(data_dir, &error))?;
    }
    Ok(())
}

/// Writes the key whole or not at all. Only one process is here: it holds the folder's lock.
fn keep_key(path: &Path, key: &SecretString) -> std::io::Result<()> {
    let unfinished = path.with_extension("new");
    match fs::remove_file(&unfinished) {
        // One that was there would keep its own mode.
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = File::options().create_new(true).write(true).mode(0o600).open(&unfinished)?;
    writeln!(file, "{}", key.expose_secret())?;
    file.sync_all()?;
    fs::rename(&unfinished, path)?;
    // The name too must last: what a lost master key has sealed is lost.
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}

fn greet(platform: &Platform, data_dir: &Path, key: &SecretString) -> Result<(), Failure> {
    let url = format!("http://{}", platform.address());
    let key = key.expose_secret();
    output::line(format_args!(
        "inferq is ready at {url}\n\
         \n\
         API key:     {key}\n\
         Data folder: {}\n\
         Callbacks may reach this machine (loopback); `inferq api` and `worker` do not allow that by themselves.\n\
         \n\
         Try it:\n\
         \n\
         curl -s {url}/v5/inference -H 'x-api-key: {key}' -H 'content-type: application/json' \\\n  \
         -d '{{\"model\":\"model_zoo/echo\",\"args\":{{\"hello\":\"world\"}}}}'\n",
        data_dir.display()
    ))
}
