//! What a server's answer says beside its content.

use std::time::{Duration, SystemTime};

use solana_client::client_error::reqwest;

use super::transport;
use crate::endpoint::RpcUrl;

/// The time by the clock of the server at `url`, to the second, from the header Date of its answer; `None` if it does not
/// answer within `within`, or does not say. Whether it refuses the request does not matter.
pub async fn server_time(url: &RpcUrl, within: Duration) -> Option<SystemTime> {
    transport::choose_tls();
    let client = reqwest::Client::builder().timeout(within).build().ok()?;
    let request = client.post(url.expose()).header("content-type", "application/json");
    let answer = request.body(r#"{"jsonrpc":"2.0","id":1,"method":"getHealth"}"#).send().await.ok()?;
    httpdate::parse_http_date(answer.headers().get("date")?.to_str().ok()?.trim()).ok()
}
