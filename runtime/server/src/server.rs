//! The server: what it serves, its limits, and how it starts and ends.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use moac_model::{ChatTemplate, Engine, Tokenizer};
use moac_runtime::plan::Plan;
use tokio::net::TcpListener;

use crate::error::ServeError;
use crate::listener;
use crate::metrics::Metrics;
use crate::routes;

/// The model and its limits.
#[derive(Debug)]
pub struct Served {
    /// The name that clients call the model by.
    pub name: String,
    /// The plan that it runs under.
    pub plan: Plan,
    /// Computes the answers.
    pub engine: Engine,
    /// Text to tokens and back.
    pub tokenizer: Arc<Tokenizer>,
    /// Conversations to prompts, if the model has a template.
    pub template: Option<ChatTemplate>,
    /// The tokens that end an answer.
    pub stop_tokens: Vec<u32>,
    /// Bytes that a token takes in a cache of all tokens.
    pub dense_bytes: u64,
}

/// The server's limits.
#[derive(Clone, Debug)]
pub struct Options {
    /// The key that clients must send, if one is set.
    pub api_key: Option<String>,
    /// Bytes of a request's body.
    pub body_bytes: usize,
    /// Connections at once; more wait to be accepted.
    pub connections: usize,
    /// Prompts of one request.
    pub prompts: usize,
    /// How long a request may take, from its arrival to the last token.
    pub time: Duration,
    /// How long a client may take to send its headers, and to read on.
    pub stall: Duration,
    /// The most tokens of a chat's answer where the client does not say.
    pub chat_tokens: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            api_key: None,
            body_bytes: 8 << 20,
            connections: 1024,
            prompts: 128,
            time: Duration::from_mins(10),
            stall: Duration::from_secs(30),
            chat_tokens: 1024,
        }
    }
}

/// The state that all requests share.
#[derive(Debug)]
pub(crate) struct App {
    pub(crate) served: Served,
    pub(crate) options: Options,
    pub(crate) metrics: Arc<Metrics>,
    /// Seconds since 1970.
    pub(crate) started: u64,
}

/// A server that listens and does not answer yet.
#[derive(Debug)]
pub struct Server {
    app: Arc<App>,
    listener: TcpListener,
}

impl Server {
    /// Listens on `address`, such as `127.0.0.1:8000`.
    ///
    /// # Errors
    /// [`ServeError::Listen`].
    pub async fn bind(address: &str, served: Served, options: Options) -> Result<Self, ServeError> {
        let listener = TcpListener::bind(address).await;
        let listener =
            listener.map_err(|source| ServeError::Listen { address: address.to_owned(), source })?;
        let app = App { served, options, metrics: Arc::default(), started: now() };
        Ok(Self { app: Arc::new(app), listener })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// [`ServeError::Io`].
    pub fn address(&self) -> Result<SocketAddr, ServeError> {
        Ok(self.listener.local_addr()?)
    }

    /// Answers requests until `stop`, then finishes those that run.
    pub async fn run(self, stop: impl Future<Output = ()> + Send) {
        let Options { connections, stall, .. } = self.app.options;
        listener::run(self.listener, routes::router(self.app), connections, stall, stop).await;
    }
}

/// Serves on `address` until the process is interrupted or told to terminate; requests that run then are finished, for as long
/// as a request may take. `listening` is told where.
///
/// # Errors
/// [`ServeError`].
pub fn serve(
    address: &str,
    served: Served,
    options: Options,
    listening: impl FnOnce(SocketAddr),
) -> Result<(), ServeError> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let grace = options.time;
        let server = Server::bind(address, served, options).await?;
        let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
        let (told, mut stopping) = tokio::sync::watch::channel(false);
        let stop = async move {
            tokio::select! {
                // Where signals cannot be heard, nothing but the end of the process stops the server.
                interrupted = tokio::signal::ctrl_c() => if interrupted.is_err() { std::future::pending::<()>().await },
                _ = terminate.recv() => {}
            }
            told.send_replace(true);
        };
        // A client that never reads must not keep the process alive.
        let too_long = async move {
            let _ = stopping.wait_for(|&stopping| stopping).await;
            tokio::time::sleep(grace).await;
        };
        listening(server.address()?);
        tokio::select! {
            () = server.run(stop) => {}
            () = too_long => {}
        }
        Ok(())
    })
}

/// Seconds since 1970.
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs())
}
