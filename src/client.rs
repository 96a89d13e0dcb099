//! The HTTP client behind `inferq job`, `inferq model` and `inferq credential`.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use clap::Args;
use reqwest::{Method, RequestBuilder, StatusCode};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, value::RawValue};
use url::{Url, form_urlencoded};

use crate::exit::{Failure, code};

/// Which server to speak to, and as whom.
#[derive(Debug, Args)]
pub struct ServerArgs {
    /// Address of the inferq server
    #[arg(
        long,
        global = true,
        env = "INFERQ_URL",
        default_value = "http://127.0.0.1:8080",
        value_parser = server_url
    )]
    url: String,
    /// API key; default: the key that `inferq dev` left in its data folder
    #[arg(long, global = true, env = "INFERQ_API_KEY", hide_env_values = true)]
    api_key: Option<SecretString>,
    /// Data folder of `inferq dev`, where its key lies
    #[arg(long, global = true, default_value = ".inferq")]
    data_dir: PathBuf,
    /// Act for this account
    #[arg(long, global = true, env = "INFERQ_ACCOUNT")]
    account: Option<String>,
    /// Print JSON
    #[arg(long, global = true)]
    pub json: bool,
}

/// The address of a server, without a slash at its end.
fn server_url(text: &str) -> Result<String, String> {
    match Url::parse(text) {
        Ok(url) if matches!(url.scheme(), "http" | "https") && url.has_host() => {
            Ok(text.trim_end_matches('/').to_owned())
        }
        _ => Err("must be an address such as http://127.0.0.1:8080".to_owned()),
    }
}

/// A server that answers with JSON.
#[derive(Debug)]
pub struct Client {
    http: reqwest::Client,
    base: String,
    key: SecretString,
    account: Option<String>,
}

impl Client {
    pub fn new(args: &ServerArgs) -> Result<Self, Failure> {
        let http = reqwest::Client::builder()
            .connect_timeout(Duration::from_secs(5))
            .tcp_nodelay(true)
            .build()
            .map_err(|error| Failure::new(code::INTERNAL, error.to_string()))?;
        let key = match &args.api_key {
            Some(key) => key.clone(),
            None => dev_key(&args.data_dir)?,
        };
        Ok(Self { http, base: args.url.clone(), key, account: args.account.clone() })
    }

    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self
            .http
            .request(method, format!("{}{path}", self.base))
            .header("x-api-key", self.key.expose_secret());
        match &self.account {
            Some(account) => request.header("x-selected-account-id", account),
            None => request,
        }
    }

    /// Sends a request and answers with its document. A refusal becomes a [`Failure`] with the
    /// server's own words.
    pub async fn send<T: DeserializeOwned>(
        &self,
        request: RequestBuilder,
    ) -> Result<Answer<T>, Failure> {
        let response = request.send().await.map_err(|error| self.unreachable(&error))?;
        let status = response.status();
        let body = response.bytes().await.map_err(|error| self.unreachable(&error))?;
        let foreign = |_| {
            Failure::new(
                code::UNAVAILABLE,
                format!("{} answered {status}, but not as inferq does: is it one?", self.base),
            )
        };
        if status.is_success() {
            let document = serde_json::from_slice(&body).map_err(foreign)?;
            return Ok(Answer { text: String::from_utf8_lossy(&body).into_owned(), document });
        }
        let body: Value = serde_json::from_slice(&body).map_err(foreign)?;
        let code = match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => code::NO_PERMISSION,
            StatusCode::NOT_FOUND => code::NOT_FOUND,
            status if status.is_client_error() => code::INVALID,
            _ => code::UNAVAILABLE,
        };
        Err(Failure::new(code, refusal(&body).unwrap_or_else(|| status.to_string())))
    }

    fn unreachable(&self, error: &reqwest::Error) -> Failure {
        let what = if error.is_connect() { "no inferq server" } else { "no answer" };
        Failure::new(
            code::UNAVAILABLE,
            format!("{what} at {}: start one with `inferq dev`, or name it with --url", self.base),
        )
    }
}

/// The server's words: `detail` is a text, or a list of what is wrong with each member.
fn refusal(body: &Value) -> Option<String> {
    let detail = body.get("detail")?;
    if let Some(text) = detail.as_str() {
        return Some(text.to_owned());
    }
    let each = detail.as_array()?.iter().map(|error| {
        let loc = error["loc"].as_array().map(Vec::as_slice).unwrap_or_default();
        let place: Vec<String> = loc.iter().map(word).collect();
        format!("{}: {}", place.join("."), word(&error["msg"]))
    });
    Some(each.collect::<Vec<_>>().join("\n"))
}

/// What the server said, and its text as it was spelt: a `Value` would respell big numbers.
#[derive(Debug)]
pub struct Answer<T> {
    pub text: String,
    pub document: T,
}

/// A JSON object whose members stay as they were spelt.
#[derive(Debug, Deserialize)]
pub struct Object(BTreeMap<String, Box<RawValue>>);

impl Object {
    /// A member as it was spelt; nothing if it is absent or `null`.
    pub fn raw(&self, member: &str) -> Option<&str> {
        self.0.get(member).map(|raw| raw.get()).filter(|&text| text != "null")
    }

    /// A member as a word of a table: texts without their quotes, `null` as nothing.
    pub fn word(&self, member: &str) -> String {
        let raw = self.raw(member).unwrap_or_default();
        serde_json::from_str(raw).unwrap_or_else(|_| raw.to_owned())
    }
}

/// One page of a list.
#[derive(Debug, Deserialize)]
pub struct Page {
    pub items: Vec<Object>,
    pub has_more: bool,
}

/// A path segment that holds any text.
pub fn segment(text: &str) -> String {
    form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>().replace('+', "%20")
}

/// A JSON value as a word: texts without their quotes, `null` as nothing.
fn word(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn dev_key(data_dir: &std::path::Path) -> Result<SecretString, Failure> {
    let path = data_dir.join(crate::command::dev::KEY_FILE);
    let text = std::fs::read_to_string(&path).map_err(|_| {
        Failure::new(
            code::NO_PERMISSION,
            format!(
                "no API key, and none in {}: give one with --api-key or INFERQ_API_KEY \
                 (`inferq key create` makes one)",
                path.display()
            ),
        )
    })?;
    Ok(SecretString::from(text.trim().to_owned()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_refusal_names_each_member() {
        let body = json!({"detail": [
            {"loc": ["body", "model"], "msg": "Field required", "type": "missing"},
            {"loc": ["body", 3], "msg": "JSON decode error", "type": "json_invalid"},
        ]});
        assert_eq!(
            refusal(&body).unwrap(),
            "body.model: Field required\nbody.3: JSON decode error"
        );
        assert_eq!(refusal(&json!({"detail": "Not Found"})).unwrap(), "Not Found");
        assert_eq!(refusal(&json!({})), None);
    }

    #[test]
    fn an_object_keeps_the_spelling_of_its_members() {
        let text = r#"{"id":"a\u00e9","n":12345678901234567890123,"z":1e999,"none":null}"#;
        let object: Object = serde_json::from_str(text).unwrap();
        let words = ["id", "n", "z", "none", "absent"].map(|member| object.word(member));
        assert_eq!(words, ["aé", "12345678901234567890123", "1e999", "", ""]);
        assert_eq!(object.raw("none"), None);
    }

    #[test]
    fn a_segment_cannot_leave_its_place() {
        assert_eq!(segment("openai/gpt 5?x#y"), "openai%2Fgpt%205%3Fx%23y");
    }
}
