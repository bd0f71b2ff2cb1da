//! A node inside of a web service, which keeps what is a service's own: its runtime, its port, its signals, its logs.
//!
//! The environment configures the node as it does `train`; `LISTEN` is the service's address. `cargo run --example embed`,
//! then:
//! ```text
//! curl -s 127.0.0.1:3000/health             curl -s 127.0.0.1:3000/training/status
//! curl -N 127.0.0.1:3000/training/events    curl -s -X POST 127.0.0.1:3000/training/stop
//! ```

use std::convert::Infallible;
use std::error::Error;
use std::io::Write as _;
use std::net::TcpListener;
use std::sync::Arc;

use axum::Router;
use axum::body::StreamBody;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use futures::StreamExt as _;
use psyche_actors::telemetry::MetricsBind;
use psyche_actors::{Heard, Node, NodeBuilder, Outcome};
use serde::Serialize;
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};

type Shared = State<Arc<Node>>;

/// Runs the service until the node has ended.
///
/// # Errors
/// What keeps service or node from starting, or ended the node.
#[tokio::main]
pub(crate) async fn main() -> Result<(), Box<dyn Error>> {
    let listen = std::env::var("LISTEN").unwrap_or_else(|_unset| "127.0.0.1:3000".to_owned());
    let listener = TcpListener::bind(listen)?;
    let address = listener.local_addr()?;
    // Before the node is up, so that no wish to stop is lost.
    let mut terminate = signal(SignalKind::terminate())?;
    // Metrics are one of the service's own routes, and peers are served by the service's own threads.
    let builder = NodeBuilder::from_env().telemetry(MetricsBind::Off).runtime(tokio::runtime::Handle::current());
    let node = Arc::new(builder.log_name("embedded").start().await?);
    writeln!(std::io::stdout(), "{} trains {}: http://{address}", node.address(), node.run_id())?;
    let server = hyper::Server::from_tcp(listener)?.serve(routes(Arc::clone(&node)).into_make_service());
    let ended = async {
        tokio::select! {
            _outcome = node.wait() => {}
            _signal = terminate.recv() => drop(node.stop("SIGTERM").await),
        }
    };
    // Streams of events end with the node, so nothing keeps the server from ending after it.
    server.with_graceful_shutdown(ended).await?;
    match node.wait().await {
        Outcome::Failed(error) => Err(error.into()),
        Outcome::Finished { reason } | Outcome::Stopped { reason } => Ok(writeln!(std::io::stdout(), "ended: {reason}")?),
    }
}

fn routes(node: Arc<Node>) -> Router {
    Router::new()
        .route("/health", get(health))
        .route("/metrics", get(metrics))
        .route("/training/status", get(status))
        .route("/training/events", get(events))
        .route("/training/stop", post(stop))
        .with_state(node)
}

async fn health(State(node): Shared) -> Response {
    let health = node.health().await;
    let is_well = health.live && health.readiness.ready;
    object(if is_well { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, &health)
}

async fn metrics(State(node): Shared) -> Response {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], node.metrics().text()).into_response()
}

async fn status(State(node): Shared) -> Response {
    object(StatusCode::OK, &node.status())
}

/// Server-sent events: one for each of the node's, and `missed` for a reader that was too slow.
async fn events(State(node): Shared) -> Response {
    let told = node.events().into_stream().map(|heard| {
        Ok::<_, Infallible>(match heard {
            Heard::Event(event) => format!("data: {}\n\n", json!(event)),
            Heard::Missed(count) => format!("event: missed\ndata: {count}\n\n"),
            _ => String::new(),
        })
    });
    ([(header::CONTENT_TYPE, "text/event-stream"), (header::CACHE_CONTROL, "no-store")], StreamBody::new(told)).into_response()
}

/// Answers once the node has stopped.
async fn stop(State(node): Shared) -> Response {
    match node.stop("asked to over HTTP").await {
        Outcome::Failed(error) => {
            object(StatusCode::INTERNAL_SERVER_ERROR, &json!({"failed": psyche_actors::chain_of(&*error)}))
        }
        Outcome::Finished { reason } => object(StatusCode::OK, &json!({"finished": reason})),
        Outcome::Stopped { reason } => object(StatusCode::OK, &json!({"stopped": reason})),
    }
}

fn object(code: StatusCode, value: &impl Serialize) -> Response {
    match serde_json::to_string(value) {
        Ok(text) => (code, [(header::CONTENT_TYPE, "application/json")], text + "\n").into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}
