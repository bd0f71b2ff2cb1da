//! What is measured, as a list of samples, and Prometheus' text form of it.

use std::fmt::Write as _;
use std::time::Duration;

/// How a metric behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows, until the node starts anew.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Durations by bucket.
    Histogram,
}

impl Kind {
    const fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// A metric that nodes export.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metric {
    /// Its name, with its unit, as Prometheus' conventions want it.
    pub name: &'static str,
    /// How it behaves.
    pub kind: Kind,
    /// Names of its labels.
    pub labels: &'static [&'static str],
    /// What it tells, in one line.
    pub help: &'static str,
}

/// Upper bounds of the buckets of durations, in seconds: from the test networks' rounds to those of large models.
pub(super) const BUCKETS: [f64; 12] = [0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0];

/// How long things took.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Durations {
    /// How many fell into each bucket and none before it.
    pub(super) counts: [u64; BUCKETS.len()],
    /// How many there were, beyond the last bucket too.
    pub(super) count: u64,
    /// Seconds in all.
    pub(super) sum: f64,
}

impl Durations {
    /// Adds one.
    pub(super) fn add(&mut self, took: Duration) {
        let seconds = took.as_secs_f64();
        let bucket = BUCKETS.iter().position(|bound| seconds <= *bound);
        if let Some(count) = bucket.and_then(|bucket| self.counts.get_mut(bucket)) {
            *count += 1;
        }
        self.count += 1;
        self.sum += seconds;
    }
}

/// What a sample says.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Number(f64),
    Durations(Box<Durations>),
}

/// One time series at one moment.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Sample {
    pub(super) metric: &'static Metric,
    pub(super) labels: Vec<(&'static str, String)>,
    pub(super) value: Value,
}

/// All samples of one moment, those of a metric beside each other.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sheet {
    pub(super) samples: Vec<Sample>,
}

impl Sheet {
    /// Adds a number without labels.
    pub(super) fn put(&mut self, metric: &'static Metric, value: f64) {
        self.put_for(metric, [], value);
    }

    /// Adds a number, if it is known.
    pub(super) fn put_known(&mut self, metric: &'static Metric, value: Option<f64>) {
        if let Some(value) = value {
            self.put(metric, value);
        }
    }

    /// Adds a number with the values of the metric's labels, in their order.
    pub(super) fn put_for<const N: usize>(&mut self, metric: &'static Metric, labels: [&str; N], value: f64) {
        debug_assert_eq!(metric.labels.len(), N, "{}", metric.name);
        let labels = metric.labels.iter().copied().zip(labels.map(str::to_owned)).collect();
        self.samples.push(Sample { metric, labels, value: Value::Number(value) });
    }

    /// Adds durations.
    pub(super) fn put_durations(&mut self, metric: &'static Metric, durations: &Durations) {
        self.samples.push(Sample { metric, labels: Vec::new(), value: Value::Durations(Box::new(durations.clone())) });
    }

    /// Names of the metrics that have samples, each once.
    #[must_use]
    pub fn names(&self) -> Vec<&'static str> {
        let mut names: Vec<_> = self.samples.iter().map(|sample| sample.metric.name).collect();
        names.dedup();
        names
    }

    /// Prometheus' text form, version 0.0.4.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::with_capacity(128 * self.samples.len());
        let mut last = "";
        for sample in &self.samples {
            let Metric { name, kind, help, .. } = sample.metric;
            // Writing to a string can't fail.
            let _written =
                if *name == last { Ok(()) } else { writeln!(text, "# HELP {name} {help}\n# TYPE {name} {}", kind.name()) };
            last = name;
            match &sample.value {
                Value::Number(value) => line(&mut text, name, &sample.labels, None, *value),
                Value::Durations(durations) => histogram(&mut text, name, durations),
            }
        }
        text
    }
}

fn histogram(text: &mut String, name: &str, durations: &Durations) {
    #[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^53")]
    let number = |count: u64| count as f64;
    let bucket = format!("{name}_bucket");
    let mut below = 0;
    for (bound, count) in BUCKETS.iter().zip(durations.counts) {
        below += count;
        line(text, &bucket, &[], Some(&bound.to_string()), number(below));
    }
    line(text, &bucket, &[], Some("+Inf"), number(durations.count));
    line(text, &format!("{name}_sum"), &[], None, durations.sum);
    line(text, &format!("{name}_count"), &[], None, number(durations.count));
}

fn line(text: &mut String, name: &str, labels: &[(&'static str, String)], bound: Option<&str>, value: f64) {
    let labels = labels.iter().map(|(label, value)| (*label, value.as_str())).chain(bound.map(|bound| ("le", bound)));
    let labels: Vec<String> = labels.map(|(label, value)| format!("{label}=\"{}\"", escaped(value))).collect();
    // Writing to a string can't fail.
    let _written = match labels.as_slice() {
        [] => writeln!(text, "{name} {}", shown(value)),
        labels => writeln!(text, "{name}{{{}}} {}", labels.join(","), shown(value)),
    };
}

fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

fn shown(value: f64) -> String {
    if value == f64::INFINITY {
        "+Inf".to_owned()
    } else if value == f64::NEG_INFINITY {
        "-Inf".to_owned()
    } else {
        value.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    static PLAIN: Metric = Metric { name: "a_total", kind: Kind::Counter, labels: &[], help: "all of a" };
    static LABELLED: Metric = Metric { name: "b", kind: Kind::Gauge, labels: &["of", "by"], help: "b now" };
    static LONG: Metric = Metric { name: "c_seconds", kind: Kind::Histogram, labels: &[], help: "how long" };

    #[test]
    fn samples_become_prometheus_text() {
        let mut sheet = Sheet::default();
        sheet.put(&PLAIN, 3.0);
        sheet.put_for(&LABELLED, ["x\"y\\", "1\n2"], 0.5);
        sheet.put_for(&LABELLED, ["z", ""], f64::NAN);
        let text = sheet.text();
        let expected = "# HELP a_total all of a\n# TYPE a_total counter\na_total 3\n# HELP b b now\n# TYPE b gauge\n\
                        b{of=\"x\\\"y\\\\\",by=\"1\\n2\"} 0.5\nb{of=\"z\",by=\"\"} NaN\n";
        assert_eq!(text, expected);
        assert_eq!(sheet.names(), ["a_total", "b"]);
    }

    #[test]
    fn buckets_hold_all_that_is_shorter_and_the_last_one_everything() {
        let mut durations = Durations::default();
        for ms in [100, 500, 700, 4_000_000] {
            durations.add(Duration::from_millis(ms));
        }
        let mut sheet = Sheet::default();
        sheet.put_durations(&LONG, &durations);
        let text = sheet.text();
        for line in ["c_seconds_bucket{le=\"0.5\"} 2", "c_seconds_bucket{le=\"1\"} 3", "c_seconds_bucket{le=\"1800\"} 3"] {
            assert!(text.lines().any(|found| found == line), "{line} in {text}");
        }
        assert!(text.contains("c_seconds_bucket{le=\"+Inf\"} 4\nc_seconds_sum 4001.3\nc_seconds_count 4\n"), "{text}");
    }
}
