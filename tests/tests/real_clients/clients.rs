//! The foreign clients as child processes: a job goes in as one line of JSON, reports come back the same way.

use std::collections::HashMap;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

/// The scripts give up after 60 s by themselves and then say why.
const DEADLINE: Duration = Duration::from_secs(90);

/// A client in a language of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Client {
    /// `@solana/web3.js` 1.x with `@solana/spl-token`.
    Web3,
    /// `@solana/kit`.
    Kit,
    /// `solana` and `solders` of the Python package index.
    SolanaPy,
}

impl Client {
    pub(crate) const ALL: [Self; 3] = [Self::Web3, Self::Kit, Self::SolanaPy];

    /// Starts the client's script with `job`.
    pub(crate) async fn start(self, job: &Value) -> Result<Running> {
        let installed = installed().await?;
        let part = |name| installed.get(name).with_context(|| format!("setup-clients.sh does not say {name}"));
        let (program, script, path) = match self {
            Self::Web3 => ("NODE", "web3.cjs", "NODE_PATH"),
            Self::Kit => ("NODE", "kit.cjs", "NODE_PATH"),
            Self::SolanaPy => ("PYTHON", "solana_py.py", "PYTHONPATH"),
        };
        let mut command = Command::new(part(program)?);
        if self == Self::SolanaPy {
            // Packages of the person who runs this don't count.
            command.args(["-s", "-B"]);
        }
        command.arg(root().join("tests/clients").join(script)).env(path, part(path)?);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().with_context(|| format!("{self:?} does not start"))?;
        let mut input = child.stdin.take().expect("is piped");
        input.write_all(format!("{job}\n").as_bytes()).await?;
        let output = BufReader::new(child.stdout.take().expect("is piped")).lines();
        Ok(Running { client: self, child, output })
    }
}

/// A client at work. Dropping it ends it.
pub(crate) struct Running {
    client: Client,
    child: Child,
    output: Lines<BufReader<ChildStdout>>,
}

impl Running {
    /// Waits until the client listens to what is to come.
    pub(crate) async fn ready(&mut self) -> Result<()> {
        let report = self.report().await?;
        ensure!(report["ready"] == true, "{:?} says {report}", self.client);
        Ok(())
    }

    /// Waits for the client's result.
    pub(crate) async fn done(mut self) -> Result<Value> {
        let mut report = self.report().await?;
        let Some(done) = report.get_mut("done") else { bail!("{:?} says {report}", self.client) };
        let done = done.take();
        let status = tokio::time::timeout(DEADLINE, self.child.wait()).await.context("the client does not end")??;
        ensure!(status.success(), "{:?} ends with {status}", self.client);
        Ok(done)
    }

    async fn report(&mut self) -> Result<Value> {
        let next = tokio::time::timeout(DEADLINE, self.output.next_line()).await;
        match next.with_context(|| format!("{:?} says nothing", self.client))?? {
            Some(line) => Ok(serde_json::from_str(&line)?),
            None => {
                let mut complaint = String::new();
                self.child.stderr.take().expect("is piped").read_to_string(&mut complaint).await?;
                bail!("{:?} ended without a result:\n{complaint}", self.client)
            }
        }
    }
}

/// Starts all clients with the same job and waits until each of them listens.
pub(crate) async fn start_all(job: &Value) -> Result<Vec<Running>> {
    let mut running = Vec::new();
    for client in Client::ALL {
        running.push(client.start(job).await?);
    }
    for client in &mut running {
        client.ready().await?;
    }
    Ok(running)
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Where the clients are; an error with the remedy if they are not.
async fn installed() -> Result<HashMap<String, String>> {
    let said = Command::new(root().join("scripts/setup-clients.sh")).arg("--where").output().await?;
    ensure!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr).trim());
    let lines = String::from_utf8(said.stdout)?;
    Ok(lines.lines().filter_map(|line| line.split_once('=')).map(|(name, value)| (name.into(), value.into())).collect())
}
