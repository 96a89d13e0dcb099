//! `inferq model`: look at registered models over HTTP.

use clap::{Args, Subcommand};
use reqwest::Method;

use crate::{
    client::{Client, Object, Page, ServerArgs, segment},
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
    Get {
        /// Its id, or the vendor/name it is registered as
        id: String,
    },
}

const COLUMNS: [&str; 6] = ["id", "name", "model_vendor", "model_type", "status", "created_at"];

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
            let model = client.send::<Object>(request).await?;
            if args.server.json {
                return output::line(model.text);
            }
            for column in COLUMNS {
                output::line(format_args!("{column:<14} {}", model.document.word(column)))?;
            }
            Ok(())
        }
    }
}
