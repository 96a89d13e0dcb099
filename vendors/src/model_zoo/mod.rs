//! The models of this deployment: a catalogue of servers that speak OpenAI's format (vLLM, llama.cpp,
//! Ollama, TGI), named in the configuration, and `echo`, which inferq brings along.

mod echo;

use std::sync::Arc;

use async_trait::async_trait;
use inferq_common::{clock::Clock, config::VendorConfig, error::ErrorClass, usage::Usage};

use self::echo::Echo;
use crate::{
    Adapter, Assemble, Call, Chunks, Collected, Reply,
    assemble::Known,
    error::{VendorError, shorten},
    openai,
    remote::http::Clients,
};

/// Runs the built-in models in this process and passes all others on to the server of the catalogue,
/// if there is one for them all.
///
/// `echo` answers with its `args`. Where `args` is an object, members steer it, for
/// demonstrations: `delay_ms` waits first (0 to 24 h), `fail_times` lets that many attempts fail,
/// with `status` (400 to 599; default 503) and, if given, `retry_after` (seconds). Streamed, it gives
/// the text of its `args` in as many parts as `chunks` says (1 to 100000; default 4),
/// `chunk_delay_ms` apart; a failing attempt fails after `fail_after` of them (default 0).
#[derive(Debug, Default)]
pub struct ModelZoo {
    server: Option<Arc<dyn Adapter>>,
    /// The names in the catalogue, for the message to who asks for another.
    names: Vec<String>,
}

/// The adapter for models without an entry of their own.
///
/// # Errors
/// A sentence for an operator: which setting is at fault, or that TLS cannot be set up.
pub fn adapter(
    config: &VendorConfig,
    clients: &Clients,
    clock: Arc<dyn Clock>,
) -> Result<ModelZoo, String> {
    let server = match config.base_url {
        Some(_) => Some(Arc::new(entry(config, clients, clock)?) as Arc<dyn Adapter>),
        None => None,
    };
    Ok(ModelZoo { server, names: config.models.keys().cloned().collect() })
}

/// The adapter for one entry of the catalogue.
///
/// # Errors
/// As [`adapter`].
pub fn entry(
    config: &VendorConfig,
    clients: &Clients,
    clock: Arc<dyn Clock>,
) -> Result<impl Adapter + use<>, String> {
    if config.base_url.is_none() {
        return Err("base_url: must name the model's server, such as http://gpu-1:8000/v1".into());
    }
    openai::compatible(&openai::MODEL_ZOO, config, clients, clock)
}

impl ModelZoo {
    /// Who serves a model that is not built in.
    fn server(&self, model: &str) -> Result<&Arc<dyn Adapter>, VendorError> {
        self.server.as_ref().ok_or_else(|| {
            let own = ["echo"].into_iter().chain(self.names.iter().map(String::as_str));
            let own = shorten(&own.collect::<Vec<_>>().join(", "), 300);
            let model = shorten(model, 100);
            let message = format!(
                "model_zoo has no model '{model}'; it has: {own} (an entry under \
                 vendors.model_zoo.models adds one)"
            );
            VendorError::new(ErrorClass::NotFound, message)
        })
    }
}

#[async_trait]
impl Adapter for ModelZoo {
    async fn call(&self, call: &Call) -> Result<Reply, VendorError> {
        if call.model != "echo" {
            return self.server(&call.model)?.call(call).await;
        }
        let echo = Echo::of(&call.args)?;
        tokio::time::sleep(echo.delay).await;
        echo.failure(call.attempt)?;
        let response = call.args.clone();
        Ok(Reply { response, usage: Usage::default(), vendor_request_id: None })
    }

    async fn stream(&self, call: &Call) -> Result<Chunks, VendorError> {
        if call.model != "echo" {
            return self.server(&call.model)?.stream(call).await;
        }
        let echo = Echo::of(&call.args)?;
        tokio::time::sleep(echo.delay).await;
        echo.stream(&call.args, call.attempt)
    }

    fn assemble(&self, call: &Call) -> Box<dyn Assemble> {
        match &self.server {
            // Its parts together are its `args`.
            _ if call.model == "echo" => Box::new(Known(call.args.clone())),
            Some(server) => server.assemble(call),
            None => Box::new(Collected::default()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures::StreamExt as _;
    use inferq_common::{
        clock::{Clock as _, SystemClock},
        id::JobId,
        job::Json,
    };
    use tokio::time::Instant;

    use super::*;
    use crate::{Chunk, Share};

    fn call(model: &str, args: &str, attempt: u32) -> Call {
        let args = Json::parse(args).unwrap();
        Call {
            job_id: JobId::new(SystemClock.now()),
            attempt,
            model: model.to_owned(),
            args,
            route: None,
            timeout: Duration::from_secs(60),
            memory: Share::default(),
        }
    }

    async fn echo(args: &str, attempt: u32) -> Result<Reply, VendorError> {
        ModelZoo::default().call(&call("echo", args, attempt)).await
    }

    #[tokio::test]
    async fn echo_answers_with_its_args_as_they_are_spelt() {
        for args in [r#"{ "b":1.50, "b":12345678901234567890123 }"#, "[1]", "\"hi\"", "null", "{}"]
        {
            let reply = echo(args, 1).await.unwrap();
            assert_eq!(reply.response.as_str(), args);
            assert!(reply.usage.is_empty());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn echo_waits_as_long_as_it_is_told() {
        for (args, millis) in
            [(r#"{"delay_ms":1500}"#, 1500), (r#"{"delay_ms":86400000}"#, 86_400_000)]
        {
            let start = Instant::now();
            echo(args, 1).await.unwrap();
            let waited = start.elapsed();
            let due = Duration::from_millis(millis);
            assert!(waited >= due && waited <= due + Duration::from_millis(2), "{waited:?}");
        }
    }

    #[tokio::test]
    async fn echo_fails_as_often_as_it_is_told() {
        let args = r#"{"fail_times":2}"#;
        for attempt in [1, 2] {
            let error = echo(args, attempt).await.unwrap_err();
            assert_eq!(error.class(), ErrorClass::Overloaded);
            assert_eq!((error.error.vendor_status, error.retry_after), (Some(503), None));
        }
        assert_eq!(echo(args, 3).await.unwrap().response.as_str(), args);
    }

    #[tokio::test]
    async fn echo_fails_with_the_status_it_is_told() {
        for (status, class) in [
            (400, ErrorClass::InvalidRequest),
            (401, ErrorClass::Auth),
            (404, ErrorClass::NotFound),
            (408, ErrorClass::Transient),
            (429, ErrorClass::RateLimited),
            (500, ErrorClass::Transient),
            (599, ErrorClass::Transient),
        ] {
            let args = format!(r#"{{"fail_times":1,"status":{status},"retry_after":1.5}}"#);
            let error = echo(&args, 1).await.unwrap_err();
            assert_eq!(error.class(), class, "{status}");
            let hint = class.is_transient().then_some(Duration::from_millis(1500));
            assert_eq!(error.retry_after, hint, "{status}");
            assert!(error.to_string().contains(&status.to_string()), "{error}");
        }
    }

    #[tokio::test]
    async fn what_echo_cannot_follow_is_an_invalid_request() {
        for (args, word) in [
            (r#"{"delay_ms":-1}"#, "delay_ms"),
            (r#"{"delay_ms":86400001}"#, "delay_ms"),
            (r#"{"delay_ms":"5"}"#, "delay_ms"),
            (r#"{"delay_ms":1e999}"#, "delay_ms"),
            (r#"{"fail_times":1.5}"#, "fail_times"),
            (r#"{"fail_times":-1}"#, "fail_times"),
            (r#"{"status":200}"#, "status"),
            (r#"{"status":600}"#, "status"),
            (r#"{"retry_after":true}"#, "retry_after"),
            (r#"{"chunks":0}"#, "chunks"),
            (r#"{"chunks":100001}"#, "chunks"),
            (r#"{"chunk_delay_ms":-1}"#, "chunk_delay_ms"),
            (r#"{"fail_after":-1}"#, "fail_after"),
        ] {
            let error = echo(args, 1).await.unwrap_err();
            assert_eq!(error.class(), ErrorClass::InvalidRequest, "{args}");
            assert!(error.to_string().starts_with(word), "{error}");
        }
    }

    #[tokio::test]
    async fn an_unknown_model_says_what_there_is() {
        let error = ModelZoo::default().call(&call("llama", "{}", 1)).await.unwrap_err();
        assert_eq!(error.class(), ErrorClass::NotFound);
        let message = "model_zoo has no model 'llama'; it has: echo (an entry";
        assert!(error.to_string().starts_with(message), "{error}");
    }

    async fn streamed(args: &str, attempt: u32) -> Result<Vec<Chunk>, VendorError> {
        let zoo = ModelZoo::default();
        let call = call("echo", args, attempt);
        let stream = zoo.stream(&call).await?;
        let chunks: Vec<Result<Chunk, VendorError>> = stream.collect().await;
        assert_eq!(zoo.assemble(&call).finish().as_str(), args);
        chunks.into_iter().collect()
    }

    #[tokio::test]
    async fn a_stream_is_the_args_in_parts() {
        for (args, n_chunks) in [
            (r#"{"text":"é漢🦀é漢🦀é漢🦀"}"#, 4),
            ("1", 4),
            (r#"{"chunks":1}"#, 1),
            (r#"{"text":"é漢🦀","chunks":100}"#, 100),
        ] {
            let mut chunks = streamed(args, 1).await.unwrap();
            let end = Chunk::End { usage: Usage::default(), vendor_request_id: None };
            assert_eq!(chunks.pop(), Some(end));
            let mut text = String::new();
            for (index, chunk) in chunks.iter().enumerate() {
                let Chunk::Data(data) = chunk else { panic!("an end in the middle") };
                let part: serde_json::Value = serde_json::from_slice(data).unwrap();
                assert_eq!(part["index"], index);
                text.push_str(part["text"].as_str().unwrap());
            }
            assert_eq!((text.as_str(), chunks.len()), (args, n_chunks));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_pauses_and_fails_as_it_is_told() {
        let began = Instant::now();
        let args = r#"{"chunks":5,"delay_ms":1000,"chunk_delay_ms":100,"fail_times":1}"#;
        assert_eq!(streamed(args, 2).await.unwrap().len(), 6);
        let took = began.elapsed().as_millis();
        assert!((1400..1410).contains(&took), "{took}");
        assert_eq!(streamed(args, 1).await.unwrap_err().class(), ErrorClass::Overloaded);

        let args = r#"{"fail_times":1,"fail_after":2,"status":500}"#;
        let stream = ModelZoo::default().stream(&call("echo", args, 1)).await.unwrap();
        let chunks: Vec<_> = stream.collect().await;
        assert_eq!(chunks.len(), 3);
        assert_eq!(chunks[2].as_ref().unwrap_err().class(), ErrorClass::Transient);
        assert_eq!(streamed(args, 2).await.unwrap().len(), 5);
    }
}
