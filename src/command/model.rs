//! `inferq model`: look at registered models over HTTP.

use clap::{Args, Subcommand};
use reqwest::Method;
use serde_json::Value;

use crate::{
    client::{Client, ServerArgs, word},
    exit::Failure,
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
    Get { id: String },
}

const COLUMNS: [&str; 6] = ["id", "name", "model_vendor", "model_type", "status", "created_at"];

pub async fn run(args: ModelArgs) -> Result<(), Failure> {
    let client = Client::new(&args.server)?;
    match args.command {
        ModelCommand::List { limit } => {
            let request = client.request(Method::GET, &format!("/v5/models?limit={limit}"));
            let page = client.send(request).await?;
            if args.server.json {
                return output::json(&page);
            }
            let items = page["items"].as_array().map(Vec::as_slice).unwrap_or_default();
            let row = |model: &Value| COLUMNS.iter().map(|column| word(&model[*column])).collect();
            output::table(&COLUMNS, items.iter().map(row).collect(), "no registered models")
        }
        ModelCommand::Get { id } => {
            let request = client.request(Method::GET, &format!("/v5/models/{id}"));
            let model = client.send(request).await?;
            if args.server.json {
                return output::json(&model);
            }
            for column in COLUMNS {
                output::line(format_args!("{column:<14} {}", word(&model[column])))?;
            }
            Ok(())
        }
    }
}
