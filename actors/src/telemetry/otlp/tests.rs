#![allow(clippy::unwrap_used, clippy::panic, reason = "tests may unwrap")]

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::super::sheet::Metric;
use super::*;

static UP: Metric = Metric { name: "up", kind: Kind::Gauge, labels: &["of"], help: "is up" };
static ALL: Metric = Metric { name: "all_total", kind: Kind::Counter, labels: &[], help: "all" };
static LONG: Metric = Metric { name: "long_seconds", kind: Kind::Histogram, labels: &[], help: "how long" };

fn config(variables: &[(&str, &str)]) -> Option<OtlpConfig> {
    let variables: BTreeMap<_, _> = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    OtlpConfig::read(&variables).unwrap()
}

fn sheet() -> Sheet {
    let mut sheet = Sheet::default();
    sheet.put_for(&UP, ["a"], 1.0);
    sheet.put_for(&UP, ["b"], f64::NAN);
    sheet.put(&ALL, 7.0);
    let mut durations = Durations::default();
    durations.add(Duration::from_secs(3));
    durations.add(Duration::from_secs(3000));
    sheet.put_durations(&LONG, &durations);
    sheet
}

#[test]
fn nothing_is_pushed_unless_an_endpoint_is_named() {
    let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318/");
    assert!(config(&[]).is_none() && config(&[("OTEL_SERVICE_NAME", "x")]).is_none());
    assert!(config(&[endpoint, ("OTEL_SDK_DISABLED", "true")]).is_none());
    assert_eq!(config(&[endpoint]).unwrap().url.as_str(), "http://collector:4318/v1/metrics");
    let whole = ("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "https://other/in/KEY");
    let config = config(&[endpoint, whole, ("OTEL_EXPORTER_OTLP_HEADERS", "api-key=SECRET%20one, b=2")]).unwrap();
    assert_eq!((config.url.as_str(), config.headers["api-key"].as_bytes()), ("https://other/in/KEY", &b"SECRET one"[..]));
    let shown = format!("{config:?}");
    assert!(!shown.contains("KEY") && !shown.contains("SECRET"), "{shown}");
}

#[test]
fn every_unusable_setting_is_named_and_no_value_shown() {
    let variables = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "SECRET"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "SECRET"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "SECRET"),
        ("OTEL_METRIC_EXPORT_INTERVAL", "0"),
        ("OTEL_RESOURCE_ATTRIBUTES", "a=%zz"),
    ];
    let read = OtlpConfig::read(&variables.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect());
    let Err(violations) = read else { panic!("they were accepted") };
    assert_eq!(violations.len(), variables.len(), "{violations:?}");
    assert!(!format!("{violations:?}").contains("SECRET"));
}

#[test]
fn samples_become_data_points() {
    let config = config(&[
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318"),
        ("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment=test"),
        ("OTEL_SERVICE_NAME", "node-1"),
    ]);
    let body = body(&sheet(), &config.unwrap(), 5, 9);
    let resource = &body["resourceMetrics"][0];
    assert_eq!(resource["resource"]["attributes"][1], attribute("service.name", "node-1"));
    let metrics = resource["scopeMetrics"][0]["metrics"].as_array().unwrap();
    assert_eq!(metrics.len(), 3);
    let points = metrics[0]["gauge"]["dataPoints"].as_array().unwrap();
    assert_eq!((points.len(), &points[0]["asDouble"], &points[0]["timeUnixNano"]), (1, &json!(1.0), &json!("9")));
    assert_eq!(points[0]["attributes"][0], attribute("of", "a"));
    assert_eq!((&metrics[1]["sum"]["isMonotonic"], &metrics[1]["sum"]["aggregationTemporality"]), (&json!(true), &json!(2)));
    let histogram = &metrics[2]["histogram"]["dataPoints"][0];
    let buckets = histogram["bucketCounts"].as_array().unwrap();
    assert_eq!(buckets.len(), histogram["explicitBounds"].as_array().unwrap().len() + 1);
    assert_eq!((&histogram["count"], &buckets[3], buckets.last().unwrap()), (&json!("2"), &json!("1"), &json!("1")));
}

#[tokio::test]
async fn metrics_reach_a_collector_with_the_headers_that_it_wants_and_a_refusal_shows_no_key() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}/KEY", listener.local_addr().unwrap());
    let collector = tokio::spawn(async move {
        let mut requests = Vec::new();
        for status in ["200 OK", "401 Unauthorized"] {
            let (mut stream, _) = listener.accept().await.unwrap();
            let (mut request, mut piece) = (Vec::new(), [0; 4096]);
            while !request.ends_with(b"}]}]}") {
                let read = stream.read(&mut piece).await.unwrap();
                assert!(read > 0, "the request ended early");
                request.extend_from_slice(&piece[..read]);
            }
            let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
            stream.write_all(answer.as_bytes()).await.unwrap();
            requests.push(String::from_utf8(request).unwrap());
        }
        requests
    });
    let config =
        config(&[("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint), ("OTEL_EXPORTER_OTLP_HEADERS", "api-key=SECRET")]).unwrap();
    let (client, body) = (reqwest::Client::new(), body(&sheet(), &config, 1, 2));
    push(&client, &config, &body).await.unwrap();
    let refused = push(&client, &config, &body).await.unwrap_err();
    assert!(refused.contains("401") && !refused.contains("KEY") && !refused.contains("SECRET"), "{refused}");
    let requests = collector.await.unwrap();
    assert!(requests[0].starts_with("POST /KEY/v1/metrics HTTP/1.1\r\n"), "{}", requests[0]);
    assert!(requests[0].contains("api-key: SECRET\r\n") && requests[0].contains("content-type: application/json\r\n"));
    let gone = push(&client, &config, &body).await.unwrap_err();
    assert!(!gone.contains("KEY"), "{gone}");
}
