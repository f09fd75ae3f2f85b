//! Which address does what, and what every request goes through: the key, the size of the body, no panic.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::Router;
use axum::body::{Body, Bytes, HttpBody, to_bytes};
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, HeaderName, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use futures_util::FutureExt as _;

use crate::api::{ModelCard, Models};
use crate::error::{ApiError, json};
use crate::prepare::{self, Kind, Prepared};
use crate::server::App;
use crate::{answer, page, plan, stream};

/// The description of what clients send.
const OPENAPI: &str = include_str!("openapi.json");

fn json_text(text: &'static str) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], text).into_response()
}

pub(crate) fn router(app: Arc<App>) -> Router {
    let open = Router::new()
        .route("/health", get(health))
        .route("/metrics", get(metrics))
        .route("/openapi.json", get(|| async { json_text(OPENAPI) }));
    let keyed = Router::new()
        .route("/v1/moac/plan", get(plan_of))
        .route("/v1/models", get(models))
        .route("/v1/models/{*id}", get(model))
        .route("/v1/completions", post(completions))
        .route("/v1/chat/completions", post(chat))
        .layer(middleware::from_fn_with_state(app.clone(), key));
    open.merge(page::router())
        .merge(keyed)
        .fallback(|| async {
            ApiError::invalid("there is nothing at this address", None)
                .status(StatusCode::NOT_FOUND, "not_found")
        })
        .method_not_allowed_fallback(|| async {
            let error = ApiError::invalid("this address does not take this method", None);
            error.status(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed")
        })
        .layer(middleware::from_fn_with_state(app.clone(), guard))
        .with_state(app)
}

/// A defect ends one request with an error, and nothing else. Every reply is counted.
async fn guard(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let response = match AssertUnwindSafe(next.run(request)).catch_unwind().await {
        Ok(response) => response,
        Err(_) => ApiError::server("an internal error").into_response(),
    };
    app.metrics.reply(response.status());
    response
}

/// The prefix of a key.
const SCHEME: &[u8] = b"Bearer ";

async fn key(State(app): State<Arc<App>>, headers: HeaderMap, request: Request, next: Next) -> Response {
    let Some(expected) = &app.options.api_key else { return next.run(request).await };
    let given = headers.get(header::AUTHORIZATION).and_then(|value| {
        let (scheme, key) = value.as_bytes().split_at_checked(SCHEME.len())?;
        scheme.eq_ignore_ascii_case(SCHEME).then_some(key)
    });
    if given.is_some_and(|given| same(given, expected.as_bytes())) {
        return next.run(request).await;
    }
    let error =
        ApiError::invalid("the API key is missing or wrong: it goes into `Authorization: Bearer KEY`", None);
    error.status(StatusCode::UNAUTHORIZED, "invalid_api_key").into_response()
}

/// Whether two keys are the same, in a time that depends on the length of the given one only.
fn same(given: &[u8], expected: &[u8]) -> bool {
    let mut differ = u8::from(given.len() != expected.len());
    for (at, byte) in given.iter().enumerate() {
        differ |= byte ^ expected[at % expected.len().max(1)];
    }
    std::hint::black_box(differ) == 0
}

async fn health(State(app): State<Arc<App>>) -> Response {
    match app.served.engine.stopped() {
        None => "ok\n".into_response(),
        Some(error) => ApiError::from(error).into_response(),
    }
}

async fn metrics(State(app): State<Arc<App>>) -> Response {
    let kind = (header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8");
    ([kind], app.metrics.text(&app.served)).into_response()
}

fn card(app: &App) -> ModelCard {
    ModelCard {
        id: app.served.name.clone(),
        object: "model",
        created: app.started,
        owned_by: "moac",
        max_model_len: app.served.engine.limits().buckets.last().map_or(0, |bucket| bucket.length),
    }
}

async fn models(State(app): State<Arc<App>>) -> Response {
    json(&Models { object: "list", data: vec![card(&app)] }).into_response()
}

async fn model(State(app): State<Arc<App>>, Path(id): Path<String>) -> Result<Response, ApiError> {
    if id == app.served.name {
        return Ok(json(&card(&app)).into_response());
    }
    let error = ApiError::invalid(format!("the model `{id}` does not exist"), Some("model"));
    Err(error.status(StatusCode::NOT_FOUND, "model_not_found"))
}

async fn plan_of(State(app): State<Arc<App>>) -> Response {
    json(&plan::reply(&app.served)).into_response()
}

async fn body(app: &App, body: Body) -> Result<Bytes, ApiError> {
    let limit = app.options.body_bytes;
    let too_large = || {
        let error = ApiError::invalid(format!("the body is cut short or has more than {limit} bytes"), None);
        error.status(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large")
    };
    // What it says of itself, before any of it is read.
    if HttpBody::size_hint(&body).lower() > limit as u64 {
        return Err(too_large());
    }
    match tokio::time::timeout(app.options.time, to_bytes(body, limit)).await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(_)) => Err(too_large()),
        Err(_) => {
            let error = ApiError::invalid("the body takes too long to arrive", None);
            Err(error.status(StatusCode::REQUEST_TIMEOUT, "timeout"))
        }
    }
}

/// The number of a reply, for its name.
fn number() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// Reads a body on a thread that may take its time: to tokenise a long prompt does.
async fn prepared(
    app: &Arc<App>,
    raw: Body,
    how: fn(&App, &[u8]) -> Result<Prepared, ApiError>,
) -> Result<Prepared, ApiError> {
    let (bytes, inner) = (body(app, raw).await?, app.clone());
    let work = tokio::task::spawn_blocking(move || how(&inner, &bytes));
    work.await.unwrap_or_else(|_| Err(ApiError::server("an internal error")))
}

/// The header that says which context length a request got, and so which spans and bytes.
const CONTEXT: HeaderName = HeaderName::from_static("moac-context");

async fn completions(State(app): State<Arc<App>>, raw: Body) -> Result<Response, ApiError> {
    respond(app, raw, prepare::completion).await
}

async fn chat(State(app): State<Arc<App>>, raw: Body) -> Result<Response, ApiError> {
    respond(app, raw, prepare::chat).await
}

async fn respond(
    app: Arc<App>,
    raw: Body,
    how: fn(&App, &[u8]) -> Result<Prepared, ApiError>,
) -> Result<Response, ApiError> {
    let prepared = prepared(&app, raw, how).await?;
    let contexts = prepared.requests.iter().map(|request| app.served.engine.context(request));
    let context = contexts.collect::<Result<Vec<_>, _>>()?.into_iter().max();
    let mut response = match prepared.kind {
        _ if prepared.stream => stream::respond(app, prepared, number())?,
        Kind::Completion => json(&answer::completion(&app, &prepared, number()).await?).into_response(),
        Kind::Chat => json(&answer::chat(&app, &prepared, number()).await?).into_response(),
    };
    response.headers_mut().extend(context.map(|tokens| (CONTEXT, tokens.into())));
    Ok(response)
}
