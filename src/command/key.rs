//! `inferq key`: API keys and callback secrets, straight in the store.

use std::path::{Path, PathBuf};

use chrono::TimeDelta;
use clap::{Args, Subcommand};
use inferq_common::{
    account::{self, ApiKey, KeyHash},
    callback,
    clock::{Clock, SystemClock},
    config::Config,
    credential::MasterKeys,
    id::{AccountId, ApiKeyId},
    store::SharedStore,
    view::rfc3339,
};
use secrecy::ExposeSecret;
use serde_json::json;

use crate::{
    exit::{Failure, code},
    output, platform,
};

/// How long a replaced callback secret still signs.
const OLD_SECRET_HOURS: i64 = 24;

#[derive(Debug, Args)]
pub struct KeyArgs {
    /// Manage the keys of `inferq dev` with this data folder, instead of the configured store
    #[arg(long, global = true)]
    data_dir: Option<PathBuf>,
    /// Print JSON
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: KeyCommand,
}

#[derive(Debug, Subcommand)]
enum KeyCommand {
    /// Make a key and print it: it is shown this once
    Create {
        /// Account the key acts for, made if it does not exist; default: auth.default_account
        #[arg(long)]
        account: Option<AccountId>,
        /// Further accounts the key may select with x-selected-account-id
        #[arg(long)]
        also: Vec<AccountId>,
        /// A name for people
        #[arg(long, default_value = "key")]
        name: String,
    },
    /// List keys; the keys themselves are not stored
    List {
        /// Only those that act for this account
        #[arg(long)]
        account: Option<AccountId>,
    },
    /// Revoke a key by its id; requests with it get 401 within a second
    Revoke {
        /// The key's id, from `inferq key list`
        id: ApiKeyId,
    },
    /// Seal all stored credentials with the present master key, so that older ones can go
    Reseal,
    /// Manage the secrets that sign callbacks
    WebhookSecret {
        #[command(subcommand)]
        command: SecretCommand,
    },
}

#[derive(Debug, Subcommand)]
enum SecretCommand {
    /// Print the active secrets, newest first
    Show {
        /// Whose; default: auth.default_account
        #[arg(long)]
        account: Option<AccountId>,
    },
    /// Make a new secret and print it; the old one signs for 24 h more
    Rotate {
        /// Whose; default: auth.default_account
        #[arg(long)]
        account: Option<AccountId>,
    },
}

pub async fn run(args: KeyArgs, file: Option<&Path>) -> Result<(), Failure> {
    let config = match &args.data_dir {
        Some(data_dir) => {
            if !data_dir.join(super::dev::DATABASE_FILE).exists() {
                return Err(no_store(data_dir));
            }
            super::dev::embedded_config(file, data_dir)?
        }
        None => Config::load(file)?,
    };
    // Before the store: a key that cannot be read needs no connection.
    let master_keys = match (&args.command, &args.data_dir) {
        (KeyCommand::Reseal, Some(data_dir)) => {
            super::dev::secrets(&config, data_dir).master_keys()?
        }
        (KeyCommand::Reseal, None) => config.secrets.master_keys()?,
        _ => MasterKeys::default(),
    };
    let store = platform::open_store(&config).await?;
    let default = config.auth.default_account.clone();
    match args.command {
        KeyCommand::Create { account, also, name } => {
            create(&store, account.unwrap_or(default), also, name, args.json).await
        }
        KeyCommand::List { account } => list(&store, account.as_ref(), args.json).await,
        KeyCommand::Revoke { id } => {
            if store
                .revoke_key(id, SystemClock.now())
                .await
                .map_err(|error| platform::store_failure(&error))?
            {
                if args.json {
                    return output::json(&json!({"id": id, "revoked": true}));
                }
                return output::line(format_args!("revoked {id}"));
            }
            Err(Failure::new(code::NOT_FOUND, format!("there is no key {id}")))
        }
        KeyCommand::Reseal => super::reseal::run(&store, &master_keys, args.json).await,
        KeyCommand::WebhookSecret { command: SecretCommand::Show { account } } => {
            show_secrets(&store, &account.unwrap_or(default), args.json).await
        }
        KeyCommand::WebhookSecret { command: SecretCommand::Rotate { account } } => {
            rotate_secret(&store, &account.unwrap_or(default), args.json).await
        }
    }
}

async fn create(
    store: &SharedStore,
    account: AccountId,
    also: Vec<AccountId>,
    name: String,
    json: bool,
) -> Result<(), Failure> {
    let now = SystemClock.now();
    for account in std::iter::once(&account).chain(&also) {
        let secret = callback::generate_secret(&mut rand::rng());
        store
            .ensure_account(account, &secret, now)
            .await
            .map_err(|error| platform::store_failure(&error))?;
    }
    let key = account::generate_key(&mut rand::rng());
    let record = ApiKey {
        id: ApiKeyId::new(now),
        account,
        other_accounts: also,
        name,
        prefix: account::key_prefix(&key),
        hash: KeyHash::of(&key),
        created_at: now,
        revoked_at: None,
    };
    store.add_key(&record).await.map_err(|error| platform::store_failure(&error))?;
    if json {
        let key = key.expose_secret();
        return output::json(&json!({"id": record.id, "account_id": record.account, "key": key}));
    }
    output::line(key.expose_secret())
}

async fn list(store: &SharedStore, account: Option<&AccountId>, json: bool) -> Result<(), Failure> {
    let keys = store.list_keys(account).await.map_err(|error| platform::store_failure(&error))?;
    if json {
        let items: Vec<_> = keys.iter().map(key_json).collect();
        return output::json(&items.into());
    }
    let row = |key: &ApiKey| {
        let state =
            key.revoked_at.map_or("active".to_owned(), |at| format!("revoked {}", rfc3339(at)));
        let accounts = std::iter::once(&key.account).chain(&key.other_accounts);
        let accounts: Vec<_> = accounts.map(ToString::to_string).collect();
        vec![
            key.id.to_string(),
            format!("{}…", key.prefix),
            key.name.clone(),
            accounts.join(", "),
            rfc3339(key.created_at),
            state,
        ]
    };
    let header = ["id", "key", "name", "accounts", "created_at", "state"];
    output::table(
        &header,
        keys.iter().map(row).collect(),
        "no keys: make one with `inferq key create`",
    )
}

fn key_json(key: &ApiKey) -> serde_json::Value {
    json!({
        "id": key.id,
        "prefix": key.prefix,
        "name": key.name,
        "account_id": key.account,
        "other_account_ids": key.other_accounts,
        "created_at": rfc3339(key.created_at),
        "revoked_at": key.revoked_at.map(rfc3339),
    })
}

async fn show_secrets(store: &SharedStore, account: &AccountId, json: bool) -> Result<(), Failure> {
    let secrets = store
        .list_webhook_secrets(account, SystemClock.now())
        .await
        .map_err(|error| platform::store_failure(&error))?;
    if secrets.is_empty() {
        return Err(no_account(account));
    }
    if json {
        let each = secrets.iter().map(|secret| {
            json!({
                "secret": secret.secret.expose_secret(),
                "created_at": rfc3339(secret.created_at),
                "expires_at": secret.expires_at.map(rfc3339),
            })
        });
        return output::json(&each.collect());
    }
    for secret in secrets {
        output::line(secret.secret.expose_secret())?;
    }
    Ok(())
}

async fn rotate_secret(
    store: &SharedStore,
    account: &AccountId,
    json: bool,
) -> Result<(), Failure> {
    let now = SystemClock.now();
    let new = callback::generate_secret(&mut rand::rng());
    let old_expires_at = now + TimeDelta::hours(OLD_SECRET_HOURS);
    let known = store
        .rotate_webhook_secret(account, &new, now, old_expires_at)
        .await
        .map_err(|error| platform::store_failure(&error))?;
    if !known {
        return Err(no_account(account));
    }
    if json {
        let old_expires_at = rfc3339(old_expires_at);
        let new = new.expose_secret();
        return output::json(&json!({"secret": new, "old_secrets_expire_at": old_expires_at}));
    }
    output::line(new.expose_secret())
}

/// Looking at a folder must not make it a data folder.
fn no_store(data_dir: &Path) -> Failure {
    Failure::new(
        code::NOT_FOUND,
        format!(
            "{} is no data folder of inferq: `inferq dev --data-dir {0}` makes it one",
            data_dir.display()
        ),
    )
}

fn no_account(account: &AccountId) -> Failure {
    Failure::new(
        code::NOT_FOUND,
        format!(
            "there is no account '{account}': `inferq key create --account {account}` makes it"
        ),
    )
}
