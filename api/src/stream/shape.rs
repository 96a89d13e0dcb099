//! How the parts of a stream look, by the API that was asked.

use http::StatusCode;
use inferq_common::{
    error::JobError,
    id::JobId,
    job::{Json, Operation},
};
use serde_json::{Value, json};

use super::sse;
use crate::{answer::status_of, error::ApiError};

/// Why a caller whose answer has begun does not get the rest of it.
#[derive(Debug)]
pub(crate) struct Failure {
    /// What the answer's status would have been.
    pub(crate) status: StatusCode,
    pub(crate) message: String,
    /// Of the job, if that is what failed.
    pub(crate) error: Option<JobError>,
}

impl Failure {
    pub(crate) fn of_job(error: JobError) -> Self {
        Self { status: status_of(error.class), message: error.message.clone(), error: Some(error) }
    }

    pub(crate) fn of(error: &ApiError) -> Self {
        let (status, message) = error.summary();
        Self { status, message, error: None }
    }

    /// `error` of v5: the job's error with the status it stands for.
    pub(crate) fn error_v5(&self) -> Value {
        let mut error = match &self.error {
            Some(error) => serde_json::to_value(error).expect("an error is always JSON"),
            None => json!({ "message": self.message }),
        };
        error["status_code"] = self.status.as_u16().into();
        error
    }

    /// The v4 API's document of a failure.
    pub(crate) fn document_v4(&self, id: JobId) -> Value {
        let error = match &self.error {
            Some(error) => serde_json::to_value(error).expect("an error is always JSON"),
            None => json!({ "message": self.message }),
        };
        json!({
            "status": "FAILURE",
            "status_code": self.status.as_u16(),
            "error_message": self.message,
            "result": null,
            "error": error,
            "job_id": id,
        })
    }
}

/// The form of one API's stream.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    /// Appends the event of one chunk.
    pub(crate) chunk: fn(&mut String, &Json),
    /// Appends what tells that the stream broke off; nothing follows it.
    pub(crate) failure: fn(&mut String, JobId, &Failure),
    /// What follows the last chunk of a stream that ended as it should.
    pub(crate) done: &'static str,
}

impl Shape {
    /// The seed's `GenericInferenceResponseChunk`.
    pub(crate) const INFERENCE: Self =
        Self { chunk: inferred, failure: inference_failed, done: sse::DONE };

    /// The model's own chunks.
    pub(crate) const EXECUTE: Self =
        Self { chunk: executed, failure: execution_failed, done: sse::DONE };

    pub(crate) const fn of(operation: Operation) -> Self {
        match operation {
            Operation::Inference => Self::INFERENCE,
            Operation::Execute => Self::EXECUTE,
        }
    }
}

fn inferred(text: &mut String, chunk: &Json) {
    const HEAD: &str = r#"{"object":"generic_inference.chunk","response":"#;
    sse::push_data(text, &[HEAD, chunk.as_str(), "}"]);
}

/// Unnamed: clients of v5 skip events that have a name.
fn inference_failed(text: &mut String, id: JobId, failure: &Failure) {
    let chunk = json!({
        "object": "generic_inference.chunk",
        "response": null,
        "error": failure.error_v5(),
        "job_id": id,
    });
    sse::push(text, None, None, &chunk.to_string());
}

fn executed(text: &mut String, chunk: &Json) {
    sse::push(text, None, None, chunk.as_str());
}

/// Clients of v4 raise an error of an event of this name.
fn execution_failed(text: &mut String, id: JobId, failure: &Failure) {
    sse::push(text, None, Some("error"), &failure.document_v4(id).to_string());
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;
    use inferq_common::error::ErrorClass;

    use super::*;

    fn text(write: impl FnOnce(&mut String)) -> String {
        let mut text = String::new();
        write(&mut text);
        text
    }

    #[test]
    fn chunks_keep_their_spelling() {
        let chunk = Json::parse("{\"b\" : 1.50,\n\"a\":1e2}").unwrap();
        assert_eq!(
            text(|text| inferred(text, &chunk)),
            "data: {\"object\":\"generic_inference.chunk\",\"response\":{\"b\" : 1.50,\n\
             data: \"a\":1e2}}\n\n"
        );
        assert_eq!(
            text(|text| executed(text, &chunk)),
            "data: {\"b\" : 1.50,\ndata: \"a\":1e2}\n\n"
        );
    }

    #[test]
    fn a_failure_names_its_status_and_the_job() {
        let id = JobId::new(DateTime::UNIX_EPOCH);
        let failure = Failure::of_job(JobError::new(ErrorClass::Transient, "cut"));
        let v5 = text(|text| inference_failed(text, id, &failure));
        let v5: Value = serde_json::from_str(v5.strip_prefix("data: ").unwrap()).unwrap();
        assert_eq!(
            v5,
            json!({
                "object": "generic_inference.chunk", "response": null, "job_id": id,
                "error": { "class": "transient", "message": "cut", "status_code": 502 },
            })
        );
        let v4 = text(|text| execution_failed(text, id, &failure));
        let v4: Value =
            serde_json::from_str(v4.strip_prefix("event: error\ndata: ").unwrap()).unwrap();
        assert_eq!((&v4["status_code"], &v4["error_message"]), (&json!(502), &json!("cut")));
    }
}
