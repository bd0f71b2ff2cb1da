//! The node's HTTP server: `/livez`, `/readyz`, `/metrics`, `/status`. It only reads, shows nothing secret, and serves few
//! connections, each for a bounded time.

use std::convert::Infallible;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use hyper::header::{CACHE_CONTROL, CONTENT_TYPE};
use hyper::server::conn::Http;
use hyper::service::service_fn;
use hyper::{Body, Method, Request, Response, StatusCode};
use serde::Serialize;
use serde_json::json;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

use super::gather::Sources;

/// Connections at one time; further ones wait in the system's queue.
const CONNECTIONS_MAX: usize = 16;
/// How long one may last, from its first byte to the last one of the answer.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of a request's head.
const HEAD_BYTES_MAX: usize = 8192;
/// How long to wait after a connection could not be taken, for instance since there are too many files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Serves for as long as the runtime lives.
pub(super) async fn serve(listener: TcpListener, sources: Sources) {
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(actor = "telemetry", %error, "the metrics can't be served");
            return;
        }
    };
    let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    // Closed never: it is ours.
    while let Ok(permit) = Arc::clone(&permits).acquire_owned().await {
        match listener.accept().await {
            Ok((stream, from)) => {
                let sources = sources.clone();
                drop(tokio::spawn(async move {
                    connection(stream, from, sources).await;
                    drop(permit);
                }));
            }
            Err(error) => {
                tracing::debug!(actor = "telemetry", %error, "a connection could not be taken");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn connection(stream: TcpStream, from: SocketAddr, sources: Sources) {
    let answer = service_fn(move |request| {
        let sources = sources.clone();
        async move { Ok::<_, Infallible>(answer(&request, &sources).await) }
    });
    let served =
        Http::new().http1_only(true).http1_keep_alive(false).max_buf_size(HEAD_BYTES_MAX).serve_connection(stream, answer);
    match tokio::time::timeout(CONNECTION_TIMEOUT, served).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(actor = "telemetry", %from, %error, "a connection broke"),
        Err(_) => tracing::debug!(actor = "telemetry", %from, "a connection took too long"),
    }
}

async fn answer(request: &Request<Body>, sources: &Sources) -> Response<Body> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return said(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD are answered\n");
    }
    match request.uri().path() {
        "/livez" => match sources.live().await {
            Ok(()) => object(StatusCode::OK, &json!({"live": true})),
            Err(problem) => object(StatusCode::SERVICE_UNAVAILABLE, &json!({"live": false, "problem": problem})),
        },
        "/readyz" => {
            let readiness = sources.readiness();
            let code = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
            object(code, &readiness)
        }
        "/metrics" => whole(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", sources.sheet().text()),
        "/status" => object(StatusCode::OK, &sources.report()),
        "/" => said(StatusCode::OK, "/livez /readyz /metrics /status\n"),
        _ => said(StatusCode::NOT_FOUND, "there are /livez, /readyz, /metrics and /status\n"),
    }
}

fn said(code: StatusCode, text: &str) -> Response<Body> {
    whole(code, "text/plain; charset=utf-8", text.to_owned())
}

fn object(code: StatusCode, value: &impl Serialize) -> Response<Body> {
    match serde_json::to_string(value) {
        Ok(text) => whole(code, "application/json", text + "\n"),
        Err(error) => said(StatusCode::INTERNAL_SERVER_ERROR, &format!("the answer can't be written: {error}\n")),
    }
}

fn whole(code: StatusCode, kind: &'static str, text: String) -> Response<Body> {
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = code;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, hyper::header::HeaderValue::from_static("no-store"));
    response
}
