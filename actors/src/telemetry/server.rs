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

/// What strangers may use up.
#[derive(Clone, Copy, Debug)]
struct Limits {
    /// Connections at one time; further ones wait in the system's queue.
    connections: usize,
    /// How long one may last, until the last byte of the answer.
    timeout: Duration,
}

const LIMITS: Limits = Limits { connections: 16, timeout: Duration::from_secs(10) };
/// Bytes of a request's head.
const HEAD_BYTES_MAX: usize = 8192;
/// How long to wait after a connection could not be taken, for instance since there are too many files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Serves for as long as the runtime lives.
pub(super) async fn serve(listener: TcpListener, sources: Sources) {
    let answer = move |request: Request<Body>| {
        let sources = sources.clone();
        async move { answer(&request, &sources).await }
    };
    serve_within(LIMITS, listener, answer).await;
}

async fn serve_within<A, F>(limits: Limits, listener: TcpListener, answer: A)
where
    A: Fn(Request<Body>) -> F + Clone + Send + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(actor = "telemetry", %error, "the metrics can't be served");
            return;
        }
    };
    let permits = Arc::new(Semaphore::new(limits.connections));
    // Closed never: it is ours.
    while let Ok(permit) = Arc::clone(&permits).acquire_owned().await {
        match listener.accept().await {
            Ok((stream, from)) => {
                let answer = answer.clone();
                drop(tokio::spawn(async move {
                    connection(stream, from, limits.timeout, answer).await;
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

async fn connection<A, F>(stream: TcpStream, from: SocketAddr, timeout: Duration, answer: A)
where
    A: Fn(Request<Body>) -> F,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    let answer = service_fn(move |request| {
        let answered = answer(request);
        async move { Ok::<_, Infallible>(answered.await) }
    });
    let served =
        Http::new().http1_only(true).http1_keep_alive(false).max_buf_size(HEAD_BYTES_MAX).serve_connection(stream, answer);
    match tokio::time::timeout(timeout, served).await {
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests may unwrap")]

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    async fn ask(address: SocketAddr, request: &[u8]) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(request).await.unwrap();
        let mut answer = Vec::new();
        // Who refuses a request may close the connection before all of it has come.
        let _closed = stream.read_to_end(&mut answer).await;
        String::from_utf8(answer).unwrap()
    }

    #[tokio::test]
    async fn who_says_nothing_or_too_much_keeps_nobody_out() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let limits = Limits { connections: 2, timeout: Duration::from_millis(300) };
        let server = tokio::spawn(serve_within(limits, listener, |_| async { said(StatusCode::OK, "here\n") }));
        let mut silent = Vec::new();
        for _ in 0..3 {
            silent.push(TcpStream::connect(address).await.unwrap());
        }
        let answer = ask(address, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("here\n"), "{answer}");
        for mut stream in silent {
            assert_eq!(stream.read(&mut [0; 16]).await.unwrap_or(0), 0, "a silent connection is closed");
        }
        let long = [b"GET /".as_slice(), &[b'a'; 2 * HEAD_BYTES_MAX], b" HTTP/1.1\r\n\r\n"].concat();
        let answer = ask(address, &long).await;
        assert!(!answer.contains("200 OK"), "{answer}");
        assert!(!ask(address, b"what?\r\n\r\n").await.contains("200 OK"));
        assert!(!server.is_finished());
        server.abort();
    }
}
