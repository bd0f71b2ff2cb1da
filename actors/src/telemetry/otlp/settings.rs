//! The standard `OTEL_*` variables, as far as they concern metrics.

use std::collections::BTreeMap;
use std::time::Duration;

use reqwest::Url;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};

use crate::config::Violation;

const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
const METRICS_ENDPOINT: &str = "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT";
const HEADERS: &str = "OTEL_EXPORTER_OTLP_HEADERS";
const PROTOCOL: &str = "OTEL_EXPORTER_OTLP_PROTOCOL";
const TIMEOUT: &str = "OTEL_EXPORTER_OTLP_TIMEOUT";
const INTERVAL: &str = "OTEL_METRIC_EXPORT_INTERVAL";
const SERVICE_NAME: &str = "OTEL_SERVICE_NAME";
const ATTRIBUTES: &str = "OTEL_RESOURCE_ATTRIBUTES";
const DISABLED: &str = "OTEL_SDK_DISABLED";

/// The attribute that names the node.
const SERVICE: &str = "service.name";

/// Milliseconds that a time may be set to: a day.
const MS_MAX: u64 = 86_400_000;
/// Headers and attributes that may be set, each.
const PAIRS_MAX: usize = 64;

/// Where metrics are pushed, and how. Never shows its headers or the URL's path: both may hold keys.
#[derive(Clone)]
pub struct OtlpConfig {
    pub(super) url: Url,
    pub(super) headers: HeaderMap,
    pub(super) timeout: Duration,
    pub(super) interval: Duration,
    /// Of the resource, with the service's name.
    pub(super) attributes: Vec<(String, String)>,
}

impl std::fmt::Debug for OtlpConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OtlpConfig")
            .field("host", &self.url.host_str())
            .field("timeout", &self.timeout)
            .field("interval", &self.interval)
            .field("service", &self.attributes.iter().find(|(key, _)| key == SERVICE).map(|(_, name)| name))
            .finish_non_exhaustive()
    }
}

impl OtlpConfig {
    /// What `variables` say; `None` where metrics are not to be pushed.
    ///
    /// # Errors
    /// Every violation.
    pub(crate) fn read(variables: &BTreeMap<String, String>) -> Result<Option<Self>, Vec<Violation>> {
        let text = |name: &str| {
            let value = variables.get(name).map(|value| value.trim().trim_matches(['"', '\'']).trim());
            value.filter(|value| !value.is_empty())
        };
        if text(DISABLED).is_some_and(|value| value.eq_ignore_ascii_case("true")) {
            return Ok(None);
        }
        let (variable, endpoint) = match (text(METRICS_ENDPOINT), text(ENDPOINT)) {
            (Some(whole), _) => (METRICS_ENDPOINT, whole.to_owned()),
            (None, Some(base)) => (ENDPOINT, format!("{}/v1/metrics", base.trim_end_matches('/'))),
            (None, None) => return Ok(None),
        };
        let mut violations = Vec::new();
        let mut refuse = |variable: &str, problem: &str| {
            violations.push(Violation { variable: variable.to_owned(), problem: problem.to_owned() });
        };
        let url = Url::parse(&endpoint).ok().filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
        if url.is_none() {
            refuse(variable, "is no URL; one such as http://localhost:4318 is accepted");
        }
        if text(PROTOCOL).is_some_and(|protocol| protocol != "http/json") {
            refuse(
                PROTOCOL,
                "names another protocol than the one that is spoken; set it to http/json, at the collector's HTTP port (4318)",
            );
        }
        let mut ms = |variable, default| match text(variable).map(str::parse::<u64>) {
            None => Duration::from_millis(default),
            Some(Ok(ms)) if (1..=MS_MAX).contains(&ms) => Duration::from_millis(ms),
            Some(_) => {
                refuse(variable, "cannot be read; a number of milliseconds from 1 to 86400000 is accepted");
                Duration::from_millis(default)
            }
        };
        let (timeout, interval) = (ms(TIMEOUT, 10_000), ms(INTERVAL, 60_000));
        let headers = text(HEADERS).map_or(Some(HeaderMap::new()), headers);
        if headers.is_none() {
            refuse(HEADERS, "cannot be read; name=value pairs, separated by commas, are accepted");
        }
        let attributes = text(ATTRIBUTES).map_or(Some(Vec::new()), pairs);
        if attributes.is_none() {
            refuse(ATTRIBUTES, "cannot be read; name=value pairs, separated by commas, are accepted");
        }
        match (url, headers, attributes) {
            (Some(url), Some(headers), Some(mut attributes)) if violations.is_empty() => {
                name_service(&mut attributes, text(SERVICE_NAME));
                Ok(Some(Self { url, headers, timeout, interval, attributes }))
            }
            _ => Err(violations),
        }
    }
}

/// The service's name: what its variable says, or an attribute, or this program's.
fn name_service(attributes: &mut Vec<(String, String)>, named: Option<&str>) {
    if let Some(name) = named {
        attributes.retain(|(key, _)| key != SERVICE);
        attributes.push((SERVICE.to_owned(), name.to_owned()));
    } else if attributes.iter().all(|(key, _)| key != SERVICE) {
        attributes.push((SERVICE.to_owned(), "psyche-solana-client".to_owned()));
    }
}

fn headers(text: &str) -> Option<HeaderMap> {
    let mut headers = HeaderMap::new();
    for (name, value) in pairs(text)? {
        let mut value = HeaderValue::from_str(&value).ok()?;
        value.set_sensitive(true);
        headers.insert(HeaderName::from_bytes(name.as_bytes()).ok()?, value);
    }
    Some(headers)
}

/// `a=1,b=2`, with what is special percent-encoded.
fn pairs(text: &str) -> Option<Vec<(String, String)>> {
    let entries: Vec<&str> = text.split(',').map(str::trim).filter(|entry| !entry.is_empty()).collect();
    if entries.len() > PAIRS_MAX {
        return None;
    }
    let pair = |entry: &str| {
        let (name, value) = entry.split_once('=')?;
        let name = name.trim();
        if name.is_empty() { None } else { Some((name.to_owned(), decoded(value.trim())?)) }
    };
    entries.into_iter().map(pair).collect()
}

fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let (digits, after) = rest.split_at_checked(2)?;
        let digits = std::str::from_utf8(digits).ok().filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()))?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        rest = after;
    }
    String::from_utf8(bytes).ok()
}
