//! `inferq credential`: the credentials of an account, over HTTP.

use std::{io::Read as _, path::PathBuf};

use clap::{Args, Subcommand};
use reqwest::Method;
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Map, Value};

use crate::{
    client::{Answer, Client, Object, Page, ServerArgs, segment},
    exit::{Failure, code},
    output,
};

#[derive(Debug, Args)]
pub struct CredentialArgs {
    #[command(flatten)]
    server: ServerArgs,
    #[command(subcommand)]
    command: CredentialCommand,
}

#[derive(Debug, Subcommand)]
enum CredentialCommand {
    /// Store a credential, or replace the one of this name; reads the API key from standard input
    Put(PutArgs),
    /// List credentials; their secret values are never shown
    List {
        /// Only those for this vendor
        #[arg(long)]
        vendor: Option<String>,
        /// At most this many (1 to 1000)
        #[arg(long, default_value_t = 100)]
        limit: u32,
    },
    /// Show which members of a credential are set
    Get {
        /// Its name
        name: String,
    },
    /// Delete a credential
    Delete {
        /// Its name
        name: String,
    },
}

#[derive(Debug, Args)]
struct PutArgs {
    /// Its name: 1 to 63 of a-z, 0-9, '_' and '-'
    name: String,
    /// Whose it is, such as openai
    #[arg(long)]
    vendor: String,
    /// Use it for calls of this vendor whose model names no credential
    #[arg(long)]
    default: bool,
    /// Read the API key from a file instead; of several lines each is a key, tried in their order
    #[arg(long, value_name = "FILE", conflicts_with = "members_file")]
    api_key_file: Option<PathBuf>,
    /// Read all members from a file with a JSON object, or with `-` from standard input
    #[arg(long, value_name = "FILE")]
    members_file: Option<PathBuf>,
}

const COLUMNS: [&str; 6] = ["name", "vendor", "default", "members", "version", "updated_at"];

pub async fn run(args: CredentialArgs) -> Result<(), Failure> {
    let client = Client::new(&args.server)?;
    let json = args.server.json;
    match args.command {
        CredentialCommand::Put(put) => {
            let request = client
                .request(Method::PUT, &path(&put.name))
                .header("content-type", "application/json")
                .body(body(&put)?);
            show(&client.send(request).await?, json)
        }
        CredentialCommand::List { vendor, limit } => {
            let vendor = vendor.map(|vendor| format!("&vendor={}", segment(&vendor)));
            let query = format!("limit={limit}{}", vendor.unwrap_or_default());
            let request = client.request(Method::GET, &format!("/v5/credentials?{query}"));
            let page = client.send::<Page>(request).await?;
            if json {
                return output::line(page.text);
            }
            let row = |one: &Object| COLUMNS.iter().map(|column| cell(one, column)).collect();
            let rows = page.document.items.iter().map(row).collect();
            output::table(&COLUMNS, rows, "no credentials")
        }
        CredentialCommand::Get { name } => {
            show(&client.send(client.request(Method::GET, &path(&name))).await?, json)
        }
        CredentialCommand::Delete { name } => {
            let request = client.request(Method::DELETE, &path(&name));
            let deleted = client.send::<Object>(request).await?;
            if json {
                return output::line(deleted.text);
            }
            output::line(format_args!("deleted {name}"))
        }
    }
}

fn path(name: &str) -> String {
    format!("/v5/credentials/{}", segment(name))
}

fn show(credential: &Answer<Object>, json: bool) -> Result<(), Failure> {
    if json {
        return output::line(&credential.text);
    }
    for column in COLUMNS {
        output::line(format_args!("{column:<12} {}", cell(&credential.document, column)))?;
    }
    Ok(())
}

/// A member for people: what is set in words, or why that cannot be told.
fn cell(credential: &Object, column: &str) -> String {
    if column != "members" {
        return credential.word(column);
    }
    let members: Option<Vec<Object>> =
        credential.raw("members").and_then(|text| serde_json::from_str(text).ok());
    let Some(members) = members else { return credential.word("problem") };
    let words = members.iter().map(|member| {
        let hints: Vec<String> = member
            .raw("hints")
            .and_then(|text| serde_json::from_str(text).ok())
            .unwrap_or_default();
        let more = match (member.word("value"), hints.join(" ")) {
            (value, _) if !value.is_empty() => format!("={value}"),
            (_, hints) if !hints.is_empty() => format!(" ({hints})"),
            _ => String::new(),
        };
        format!("{}{more}", member.word("name"))
    });
    words.collect::<Vec<_>>().join(", ")
}

/// The request's body. Secrets come from files and standard input alone: arguments are shown to all
/// users of the machine.
fn body(put: &PutArgs) -> Result<String, Failure> {
    let mut body = match &put.members_file {
        Some(file) => members(&read(Some(file).filter(|file| file.as_os_str() != "-"))?)?,
        None => keys(&read(put.api_key_file.as_ref())?)?,
    };
    body.insert("vendor".to_owned(), put.vendor.clone().into());
    if put.default {
        body.insert("default".to_owned(), true.into());
    }
    Ok(Value::from(body).to_string())
}

fn read(file: Option<&PathBuf>) -> Result<SecretString, Failure> {
    let mut text = String::new();
    match file {
        None => _ = std::io::stdin().read_to_string(&mut text)?,
        Some(path) => {
            text = std::fs::read_to_string(path).map_err(|error| {
                Failure::new(code::SYSTEM, format!("cannot read {}: {error}", path.display()))
            })?;
        }
    }
    Ok(text.into())
}

fn members(text: &SecretString) -> Result<Map<String, Value>, Failure> {
    // What serde says names a place and a kind, and could repeat a value.
    serde_json::from_str(text.expose_secret()).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        let message = format!("--members-file is no JSON object (line {line}, column {column})");
        Failure::new(code::INVALID, message)
    })
}

/// One line is a key, several are several keys.
fn keys(text: &SecretString) -> Result<Map<String, Value>, Failure> {
    let lines = text.expose_secret().lines().map(str::trim).filter(|line| !line.is_empty());
    let keys: Vec<Value> = lines.map(Value::from).collect();
    let (name, value) = match keys.as_slice() {
        [] => return Err(Failure::new(code::INVALID, "there is no API key to read")),
        [only] => ("api_key", only.clone()),
        _ => ("api_keys", keys.into()),
    };
    Ok(Map::from_iter([(name.to_owned(), value)]))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_line_is_a_key() {
        let keys = |text: &str| keys(&SecretString::from(text)).map(Value::from);
        assert_eq!(keys("sk-1\n").unwrap(), json!({ "api_key": "sk-1" }));
        assert_eq!(keys("\n a \r\n\nb").unwrap(), json!({ "api_keys": ["a", "b"] }));
        assert!(keys(" \n").is_err());
    }

    #[test]
    fn a_file_that_is_no_object_is_told_without_its_text() {
        for text in ["", "sk-1", "[]", "\"sk-1\"", "{\"api_key\": sk-1}"] {
            let failure = members(&SecretString::from(text)).unwrap_err();
            assert!(!failure.message.contains("sk-1"), "{}", failure.message);
        }
    }

    #[test]
    fn what_is_set_is_told_in_words() {
        let text = r#"{"members":[{"name":"api_key","count":1,"hints":["…wxyz"]},
            {"name":"session_token","count":1},{"name":"region","count":1,"value":"eu-1"}]}"#;
        let object: Object = serde_json::from_str(text).unwrap();
        assert_eq!(cell(&object, "members"), "api_key (…wxyz), session_token, region=eu-1");
        let object: Object = serde_json::from_str(r#"{"problem":"no key"}"#).unwrap();
        assert_eq!(cell(&object, "members"), "no key");
    }
}
