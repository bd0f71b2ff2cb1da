//! Why a benchmark stops.

use std::path::PathBuf;

use psyche_gpu::GpuError;
use psyche_gpu::init::InitError;

/// What can go wrong in a benchmark. Each completes "failed to …".
#[derive(Debug, thiserror::Error)]
pub(crate) enum BenchError {
    #[error("read the arguments: {0}")]
    Arguments(String),
    #[error("find {what}: run by way of gpu/bench/bench.sh or gpu/bench/device.sh, which set {variable}")]
    Environment { what: &'static str, variable: &'static str },
    #[error("make the model's weights")]
    Init(#[source] InitError),
    #[error("train")]
    Gpu(#[from] GpuError),
    #[error("start {name}")]
    Start {
        name: String,
        #[source]
        source: std::io::Error,
    },
    #[error("hear from {name}: {problem}")]
    Contestant { name: String, problem: String },
    #[error("compare {name} with {peer}: {problem}")]
    Disagreement { name: String, peer: String, problem: String },
    #[error("read or write {}", path.display())]
    Io {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("talk to the other side of the pipe")]
    Pipe(#[source] std::io::Error),
    #[error("put values into JSON")]
    Json(#[from] serde_json::Error),
}

impl BenchError {
    /// The error with its causes, on one line.
    pub(crate) fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            text.push_str(": ");
            text.push_str(&error.to_string());
            cause = error.source();
        }
        text
    }
}
