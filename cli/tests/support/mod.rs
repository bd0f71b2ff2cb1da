//! What the tests of the binary share.

#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, reason = "each test file uses its part; tests may unwrap")]

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};

/// The binary, without any variable of this machine that it reads.
pub(crate) fn command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_psyche-solana-client"));
    for (name, _) in std::env::vars_os() {
        let keep = ["PATH", "HOME", "LD_LIBRARY_PATH", "OMP_WAIT_POLICY", "TMPDIR"];
        if !keep.iter().any(|kept| name == *kept) {
            command.env_remove(&name);
        }
    }
    command
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A local chain in a process of its own, on free ports; gone when dropped.
pub(crate) struct LocalChain {
    child: Child,
    rpc: String,
    ws: String,
}

impl LocalChain {
    pub(crate) fn start() -> Self {
        Self::start_with(&[])
    }

    pub(crate) fn start_with(options: &[&str]) -> Self {
        let mut child = command()
            .args(["localnet", "--rpc-port", "0", "--ws-port", "0", "--chain-speed", "8"])
            .args(options)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut value = |name: &str| {
            let line = lines.next().expect("the chain says where it is").unwrap();
            line.strip_prefix(name).unwrap_or_else(|| panic!("{line}")).to_owned()
        };
        let (rpc, ws) = (value("RPC="), value("WS_RPC="));
        Self { child, rpc, ws }
    }

    /// What a node's environment says of it.
    pub(crate) fn variables(&self) -> [(&'static str, &str); 2] {
        [("RPC", &self.rpc), ("WS_RPC", &self.ws)]
    }
}

impl Drop for LocalChain {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}
