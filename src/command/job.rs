//! `inferq job`: submit, look at, wait for and cancel jobs over HTTP.

use std::{io::Read, path::PathBuf, time::Duration};

use clap::{Args, Subcommand};
use reqwest::Method;
use serde::Serialize;
use serde_json::value::RawValue;
use tokio::time::Instant;
use url::form_urlencoded;

use crate::{
    client::{Answer, Client, Object, Page, ServerArgs, segment},
    exit::{Failure, code},
    output::{self, Progress},
};

#[derive(Debug, Args)]
pub struct JobArgs {
    #[command(flatten)]
    server: ServerArgs,
    #[command(subcommand)]
    command: JobCommand,
}

#[derive(Debug, Subcommand)]
enum JobCommand {
    /// Submit a job and show it, or with --wait its result
    Submit(Box<SubmitArgs>),
    /// Show a job with its result
    Get {
        /// The job's id
        id: String,
    },
    /// List jobs, newest first
    List(ListArgs),
    /// Cancel a job that has not ended
    Cancel {
        /// The job's id
        id: String,
    },
    /// Wait until a job ends and show its result; exit code 1 unless it succeeded
    Watch {
        /// The job's id
        id: String,
    },
}

#[derive(Debug, Args)]
struct SubmitArgs {
    /// vendor/name, such as openai/gpt-5 or model_zoo/echo
    model: String,
    /// Arguments for the model, a JSON object
    #[arg(long, default_value = "{}", conflicts_with = "args_file")]
    args: String,
    /// Read the arguments from a file, or with `-` from standard input
    #[arg(long)]
    args_file: Option<PathBuf>,
    /// Wait for the job to end; exit code 1 unless it succeeded
    #[arg(long)]
    wait: bool,
    /// Bounds one attempt, in seconds (1 to 86400)
    #[arg(long)]
    timeout_seconds: Option<u32>,
    /// Attempts after the first (0 to 10)
    #[arg(long)]
    num_retries: Option<u32>,
    /// high, normal or low
    #[arg(long)]
    priority: Option<String>,
    /// Where to send the signed callback
    #[arg(long)]
    callback_url: Option<String>,
    /// Your own JSON object, kept with the job
    #[arg(long)]
    metadata: Option<String>,
    /// Not before this moment (RFC 3339)
    #[arg(long)]
    run_at: Option<String>,
    /// Not started after this moment (RFC 3339)
    #[arg(long)]
    expires_at: Option<String>,
    /// A name for this submit: a repeat with the same name answers with the first job
    #[arg(long)]
    idempotency_key: Option<String>,
}

#[derive(Debug, Args)]
struct ListArgs {
    /// queued, running, succeeded, failed, cancelled or expired
    #[arg(long)]
    status: Option<String>,
    /// The vendor's own name of the model
    #[arg(long)]
    model: Option<String>,
    /// Its vendor, such as openai
    #[arg(long)]
    vendor: Option<String>,
    /// At most this many (1 to 1000)
    #[arg(long, default_value_t = 20)]
    limit: u32,
    /// Jobs after this one in the list
    #[arg(long)]
    starting_after: Option<String>,
}

pub async fn run(args: JobArgs) -> Result<(), Failure> {
    let client = Client::new(&args.server)?;
    let json = args.server.json;
    match args.command {
        JobCommand::Submit(submit) => {
            let job = submit_job(&client, &submit).await?;
            if submit.wait {
                let id = job.document.word("id");
                return ended(&watch(&client, &id).await?, json);
            }
            show(&job, json)
        }
        JobCommand::Get { id } => show(&get(&client, &id, 0).await?, json),
        JobCommand::List(list) => list_jobs(&client, &list, json).await,
        JobCommand::Cancel { id } => {
            let request =
                client.request(Method::POST, &format!("/v5/jobs/{}/cancel", segment(&id)));
            show(&client.send(request).await?, json)
        }
        JobCommand::Watch { id } => ended(&watch(&client, &id).await?, json),
    }
}

/// The body of a submit. Absent members are the server's to default.
#[derive(Serialize)]
struct Body<'a> {
    model: &'a str,
    /// As it was written: a `Value` would respell its numbers.
    args: &'a RawValue,
    inference_configuration: Configuration,
    #[serde(skip_serializing_if = "Option::is_none")]
    priority: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    callback_url: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    run_at: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<&'a str>,
}

#[derive(Serialize)]
struct Configuration {
    #[serde(skip_serializing_if = "Option::is_none")]
    timeout_seconds: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    num_retries: Option<u32>,
}

async fn submit_job(client: &Client, submit: &SubmitArgs) -> Result<Answer<Object>, Failure> {
    let metadata = submit.metadata.as_deref().map(|text| document("--metadata", text));
    let body = Body {
        model: &submit.model,
        args: &arguments(submit)?,
        inference_configuration: Configuration {
            timeout_seconds: submit.timeout_seconds,
            num_retries: submit.num_retries,
        },
        priority: submit.priority.as_deref(),
        callback_url: submit.callback_url.as_deref(),
        metadata: metadata.transpose()?,
        run_at: submit.run_at.as_deref(),
        expires_at: submit.expires_at.as_deref(),
    };
    let body = serde_json::to_string(&body)
        .map_err(|error| Failure::new(code::INTERNAL, error.to_string()))?;
    let mut request = client
        .request(Method::POST, "/v5/inference")
        .header("content-type", "application/json")
        .header("prefer", "respond-async")
        .body(body);
    if let Some(key) = &submit.idempotency_key {
        request = request.header("idempotency-key", key);
    }
    client.send(request).await
}

/// A JSON document from the command line.
fn document(what: &str, text: &str) -> Result<Box<RawValue>, Failure> {
    serde_json::from_str(text.trim())
        .map_err(|error| Failure::new(code::INVALID, format!("{what} is not JSON: {error}")))
}

fn arguments(submit: &SubmitArgs) -> Result<Box<RawValue>, Failure> {
    let text = match &submit.args_file {
        None => submit.args.clone(),
        Some(path) if path.as_os_str() == "-" => {
            let mut text = String::new();
            std::io::stdin().read_to_string(&mut text)?;
            text
        }
        Some(path) => std::fs::read_to_string(path).map_err(|error| {
            Failure::new(code::SYSTEM, format!("cannot read {}: {error}", path.display()))
        })?,
    };
    document("--args", &text)
}

async fn get(client: &Client, id: &str, wait_secs: u32) -> Result<Answer<Object>, Failure> {
    let mut request = client.request(Method::GET, &format!("/v5/jobs/{}", segment(id)));
    if wait_secs > 0 {
        request = request.header("prefer", format!("wait={wait_secs}"));
    }
    client.send(request).await
}

/// Waits until the job ends, through restarts of the server of up to a minute.
async fn watch(client: &Client, id: &str) -> Result<Answer<Object>, Failure> {
    let mut progress = Progress::new();
    let begun = Instant::now();
    let mut last_answer = Instant::now();
    loop {
        match get(client, id, 2).await {
            Ok(job) => {
                last_answer = Instant::now();
                let status = job.document.word("status");
                if !matches!(status.as_str(), "queued" | "running") {
                    return Ok(job);
                }
                let seconds = begun.elapsed().as_secs();
                let attempt = job.document.word("attempt");
                progress.show(&format!("{status}, attempt {attempt}, {seconds} s"));
            }
            Err(failure) => {
                if failure.code != code::UNAVAILABLE || last_answer.elapsed().as_secs() > 60 {
                    return Err(failure);
                }
                progress.show("no answer, trying again");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }
}

async fn list_jobs(client: &Client, list: &ListArgs, json: bool) -> Result<(), Failure> {
    let mut query = vec![("limit", list.limit.to_string())];
    for (name, value) in [
        ("status", &list.status),
        ("model", &list.model),
        ("model_vendor", &list.vendor),
        ("starting_after", &list.starting_after),
    ] {
        if let Some(value) = value {
            query.push((name, value.clone()));
        }
    }
    let query = form_urlencoded::Serializer::new(String::new()).extend_pairs(query).finish();
    let request = client.request(Method::GET, &format!("/v5/jobs?{query}"));
    let page = client.send::<Page>(request).await?;
    if json {
        return output::line(page.text);
    }
    let Page { items, has_more } = page.document;
    let columns = ["id", "status", "model", "priority", "attempt", "created_at"];
    let row = |job: &Object| columns.iter().map(|column| job.word(column)).collect();
    output::table(&columns, items.iter().map(row).collect(), "no jobs")?;
    if has_more {
        let last = items.last().map(|job| job.word("id")).unwrap_or_default();
        output::line(format_args!("more: --starting-after {last}"))?;
    }
    Ok(())
}

fn show(job: &Answer<Object>, json: bool) -> Result<(), Failure> {
    if json {
        return output::line(&job.text);
    }
    let job = &job.document;
    let members =
        ["id", "status", "model", "priority", "attempt", "created_at", "started_at", "finished_at"];
    for member in members {
        let word = job.word(member);
        if !word.is_empty() {
            output::line(format_args!("{member:<12} {word}"))?;
        }
    }
    if let Some(Ok(error)) = job.raw("error").map(serde_json::from_str::<Object>) {
        let (class, message) = (error.word("class"), error.word("message"));
        output::line(format_args!("{:<12} {class}: {message}", "error"))?;
    }
    if let Some(response) = job.raw("response") {
        output::line(format_args!("{:<12} {response}", "response"))?;
    }
    Ok(())
}

/// Shows a job that was waited for; its failure is the command's.
fn ended(job: &Answer<Object>, json: bool) -> Result<(), Failure> {
    show(job, json)?;
    if job.document.word("status") == "succeeded" {
        return Ok(());
    }
    Err(Failure::new(code::JOB_NOT_SUCCEEDED, String::new()))
}
