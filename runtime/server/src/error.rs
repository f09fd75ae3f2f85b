//! Errors, as clients and operators see them.

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use moac_model::{EngineError, ModelError, Refused};

/// The server could not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: String,
        /// The reason.
        source: std::io::Error,
    },
    /// The server's threads could not be started, or the listener failed.
    #[error("the server failed: {0}")]
    Io(#[from] std::io::Error),
}

/// An error in the shape that clients of the protocol know.
#[derive(Clone, Debug)]
pub(crate) struct ApiError {
    pub(crate) status: StatusCode,
    kind: &'static str,
    message: String,
    param: Option<String>,
    code: Option<&'static str>,
}

impl ApiError {
    /// The request is wrong, in the field `param` if it is one field.
    pub(crate) fn invalid(message: impl Into<String>, param: Option<&str>) -> Self {
        Self {
            status: StatusCode::BAD_REQUEST,
            kind: "invalid_request_error",
            message: message.into(),
            param: param.map(str::to_owned),
            code: None,
        }
    }

    pub(crate) fn status(self, status: StatusCode, code: &'static str) -> Self {
        Self { status, code: Some(code), ..self }
    }

    /// Nothing that the client can mend.
    pub(crate) fn server(message: impl Into<String>) -> Self {
        let invalid = Self::invalid(message, None);
        Self { status: StatusCode::INTERNAL_SERVER_ERROR, kind: "server_error", ..invalid }
    }

    pub(crate) fn body(&self) -> serde_json::Value {
        let Self { kind, message, param, code, .. } = self;
        serde_json::json!({"error": {"message": message, "type": kind, "param": param, "code": code}})
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = (self.status, json(&self.body())).into_response();
        if self.status == StatusCode::TOO_MANY_REQUESTS {
            response.headers_mut().insert(header::RETRY_AFTER, header::HeaderValue::from_static("1"));
        }
        response
    }
}

/// A reply's body, and what it is.
pub(crate) fn json(reply: &impl serde::Serialize) -> ([(header::HeaderName, &'static str); 1], String) {
    // Nothing in a reply is without a form in JSON.
    ([(header::CONTENT_TYPE, "application/json")], serde_json::to_string(reply).unwrap_or_default())
}

impl From<ModelError> for ApiError {
    fn from(error: ModelError) -> Self {
        let param = match &error {
            ModelError::Argument { what, .. } => field(what),
            _ => None,
        };
        Self::invalid(error.to_string(), param)
    }
}

/// The protocol's name of the setting that the engine calls `what`.
fn field(what: &str) -> Option<&'static str> {
    Some(match what {
        "the temperature" => "temperature",
        "top-k" => "top_k",
        "top-p" => "top_p",
        "min-p" => "min_p",
        "the repetition penalty" => "repetition_penalty",
        "the number of answers" => "n",
        "a token" | "the number of tokens" => "prompt",
        "the number of likeliest tokens" => "logprobs",
        "a stop string" => "stop",
        _ => return None,
    })
}

impl From<Refused> for ApiError {
    fn from(refused: Refused) -> Self {
        let message = refused.to_string();
        match refused {
            Refused::Argument(error) => (*error).into(),
            Refused::Context { .. } | Refused::PromptTooLong { .. } => Self::invalid(message, Some("prompt"))
                .status(StatusCode::BAD_REQUEST, "context_length_exceeded"),
            Refused::QueueFull { .. } => {
                let error = Self::invalid(message, None).status(StatusCode::TOO_MANY_REQUESTS, "queue_full");
                Self { kind: "rate_limit_error", ..error }
            }
            Refused::Stopped(error) => error.into(),
            // More than there is memory for: fewer answers or a shorter context would do.
            _ => Self::invalid(message, Some("n")),
        }
    }
}

impl From<EngineError> for ApiError {
    fn from(error: EngineError) -> Self {
        let of = Self::server(error.to_string());
        match error {
            EngineError::ShutDown | EngineError::Runner(_) => {
                of.status(StatusCode::SERVICE_UNAVAILABLE, "engine_stopped")
            }
            _ => of,
        }
    }
}
