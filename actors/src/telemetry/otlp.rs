//! Pushes the metrics to an OpenTelemetry collector, as the standard `OTEL_*` variables say: OTLP over HTTP, as JSON.
//!
//! Sums are cumulative, so a push that fails loses nothing: the next one says everything again.

mod settings;
#[cfg(test)]
mod tests;

use std::time::{SystemTime, UNIX_EPOCH};

use reqwest::header::{CONTENT_TYPE, HeaderMap};
use serde_json::{Value as Json, json};
use tokio::time::MissedTickBehavior;

pub use settings::OtlpConfig;

use super::gather::Sources;
use super::sheet::{BUCKETS, Durations, Kind, Sample, Sheet, Value};
use crate::{CLIENT_VERSION, chain_of};

/// Pushes for as long as the runtime lives.
pub(super) async fn follow(config: OtlpConfig, sources: Sources) {
    // Headers may hold keys, which no redirection is to carry elsewhere.
    let built = reqwest::Client::builder().timeout(config.timeout).redirect(reqwest::redirect::Policy::none()).build();
    let client = match built {
        Ok(client) => client,
        Err(error) => {
            tracing::error!(actor = "telemetry", error = %chain_of(&error), "metrics can't be pushed");
            return;
        }
    };
    let start = unix_nanos();
    let mut ticks = tokio::time::interval(config.interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut fails = false;
    loop {
        ticks.tick().await;
        let body = body(&sources.sheet(), &config, start, unix_nanos());
        match push(&client, &config, &body).await {
            Ok(()) => {
                if std::mem::take(&mut fails) {
                    tracing::info!(actor = "telemetry", "the collector takes metrics again");
                }
            }
            // Told once, not at every push.
            Err(problem) => {
                if !std::mem::replace(&mut fails, true) {
                    tracing::warn!(actor = "telemetry", problem, "the collector takes no metrics");
                }
            }
        }
    }
}

async fn push(client: &reqwest::Client, config: &OtlpConfig, body: &Json) -> Result<(), String> {
    let mut headers: HeaderMap = config.headers.clone();
    headers.insert(CONTENT_TYPE, reqwest::header::HeaderValue::from_static("application/json"));
    let sent = client.post(config.url.clone()).headers(headers).body(body.to_string()).send().await;
    // The URL may hold a key.
    let answer = sent.map_err(|error| chain_of(&error.without_url()))?;
    if answer.status().is_success() { Ok(()) } else { Err(format!("it answers with {}", answer.status())) }
}

fn unix_nanos() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}

/// An `ExportMetricsServiceRequest` in OTLP's JSON form, in which whole numbers of 64 bits are texts.
fn body(sheet: &Sheet, config: &OtlpConfig, start: u64, now: u64) -> Json {
    let mut metrics: Vec<Json> = Vec::new();
    for of_metric in sheet.samples.chunk_by(|one, next| one.metric.name == next.metric.name) {
        let Some(first) = of_metric.first() else { continue };
        let points: Vec<Json> = of_metric.iter().filter_map(|sample| point(sample, start, now)).collect();
        if points.is_empty() {
            continue;
        }
        let (name, help) = (first.metric.name, first.metric.help);
        metrics.push(match first.metric.kind {
            Kind::Gauge => json!({"name": name, "description": help, "gauge": {"dataPoints": points}}),
            Kind::Counter => {
                let sum = json!({"aggregationTemporality": CUMULATIVE, "isMonotonic": true, "dataPoints": points});
                json!({"name": name, "description": help, "sum": sum})
            }
            Kind::Histogram => {
                let histogram = json!({"aggregationTemporality": CUMULATIVE, "dataPoints": points});
                json!({"name": name, "description": help, "unit": "s", "histogram": histogram})
            }
        });
    }
    let attributes: Vec<Json> = config.attributes.iter().map(|(key, value)| attribute(key, value)).collect();
    let scope = json!({"name": env!("CARGO_PKG_NAME"), "version": CLIENT_VERSION});
    json!({"resourceMetrics": [{
        "resource": {"attributes": attributes},
        "scopeMetrics": [{"scope": scope, "metrics": metrics}],
    }]})
}

/// `AGGREGATION_TEMPORALITY_CUMULATIVE`.
const CUMULATIVE: u8 = 2;

fn attribute(key: &str, value: &str) -> Json {
    json!({"key": key, "value": {"stringValue": value}})
}

/// A data point; `None` for what JSON can't say.
fn point(sample: &Sample, start: u64, now: u64) -> Option<Json> {
    let attributes: Vec<Json> = sample.labels.iter().map(|(key, value)| attribute(key, value)).collect();
    let (start, now) = (start.to_string(), now.to_string());
    match &sample.value {
        Value::Number(value) if value.is_finite() => {
            Some(json!({"attributes": attributes, "startTimeUnixNano": start, "timeUnixNano": now, "asDouble": value}))
        }
        Value::Number(_) => None,
        Value::Durations(durations) => {
            let Durations { counts, count, sum } = &**durations;
            let beyond = count - counts.iter().sum::<u64>();
            let buckets: Vec<String> = counts.iter().chain([&beyond]).map(u64::to_string).collect();
            Some(json!({
                "attributes": attributes, "startTimeUnixNano": start, "timeUnixNano": now,
                "count": count.to_string(), "sum": sum, "bucketCounts": buckets, "explicitBounds": BUCKETS,
            }))
        }
    }
}
