//! `inferq model`: registered models over HTTP.

use clap::{Args, Subcommand};
use reqwest::Method;
use serde::Serialize;
use serde_json::value::RawValue;

use crate::{
    client::{Answer, Client, Object, Page, ServerArgs, segment},
    exit::{Failure, code},
    output,
};

#[derive(Debug, Args)]
pub struct ModelArgs {
    #[command(flatten)]
    server: ServerArgs,
    #[command(subcommand)]
    command: ModelCommand,
}

#[derive(Debug, Subcommand)]
enum ModelCommand {
    /// List registered models (a hosted vendor's models need no registration)
    List {
        /// At most this many (1 to 1000)
        #[arg(long, default_value_t = 100)]
        limit: u32,
    },
    /// Show a model
    Get {
        /// Its id, or the vendor/name it is registered as
        id: String,
    },
    /// Change a model
    Update {
        /// Its id, or the vendor/name it is registered as
        id: String,
        /// Its new name
        #[arg(long, conflicts_with_all = ["configuration", "metadata"])]
        name: Option<String>,
        /// Where another model has the name, exchange names with it
        #[arg(long, requires = "name")]
        swap: bool,
        /// The part of its vendor_configuration to change, as JSON
        #[arg(long, value_name = "JSON", value_parser = json_object)]
        configuration: Option<Box<RawValue>>,
        /// Its new model_metadata, as JSON
        #[arg(long, value_name = "JSON", value_parser = json_object)]
        metadata: Option<Box<RawValue>>,
    },
    /// Delete a model
    Delete {
        /// Its id, or the vendor/name it is registered as
        id: String,
    },
}

/// A JSON object as it is spelt.
fn json_object(text: &str) -> Result<Box<RawValue>, String> {
    let raw: Box<RawValue> = serde_json::from_str(text).map_err(|error| error.to_string())?;
    if raw.get().starts_with('{') { Ok(raw) } else { Err("must be a JSON object".to_owned()) }
}

/// The body of a change; members that are absent are not sent.
#[derive(Debug, Serialize)]
struct Change {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    on_conflict: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    vendor_configuration: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    model_metadata: Option<Box<RawValue>>,
}

const COLUMNS: [&str; 7] =
    ["id", "name", "model_vendor", "model_type", "status", "model_availability", "created_at"];

pub async fn run(args: ModelArgs) -> Result<(), Failure> {
    let client = Client::new(&args.server)?;
    match args.command {
        ModelCommand::List { limit } => {
            let request = client.request(Method::GET, &format!("/v5/models?limit={limit}"));
            let page = client.send::<Page>(request).await?;
            if args.server.json {
                return output::line(page.text);
            }
            let row = |model: &Object| COLUMNS.iter().map(|column| model.word(column)).collect();
            let rows = page.document.items.iter().map(row).collect();
            output::table(&COLUMNS, rows, "no registered models")
        }
        ModelCommand::Get { id } => {
            let request = client.request(Method::GET, &format!("/v5/models/{}", segment(&id)));
            show(client.send(request).await?, args.server.json)
        }
        ModelCommand::Update { id, name, swap, configuration, metadata } => {
            let change = Change {
                name,
                on_conflict: swap.then_some("swap"),
                vendor_configuration: configuration,
                model_metadata: metadata,
            };
            let body = serde_json::to_string(&change)
                .map_err(|error| Failure::new(code::INTERNAL, error.to_string()))?;
            let request = client
                .request(Method::PATCH, &format!("/v5/models/{}", segment(&id)))
                .header("content-type", "application/json")
                .body(body);
            show(client.send(request).await?, args.server.json)
        }
        ModelCommand::Delete { id } => {
            let request = client.request(Method::DELETE, &format!("/v5/models/{}", segment(&id)));
            let deleted = client.send::<Object>(request).await?;
            if args.server.json {
                return output::line(deleted.text);
            }
            output::line(format_args!("deleted {}", deleted.document.word("id")))
        }
    }
}

fn show(model: Answer<Object>, json: bool) -> Result<(), Failure> {
    if json {
        return output::line(model.text);
    }
    for column in COLUMNS {
        output::line(format_args!("{column:<18} {}", model.document.word(column)))?;
    }
    Ok(())
}
