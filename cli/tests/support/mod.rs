//! What the tests of the binary share.

#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, reason = "each test file uses its part; tests may unwrap")]

use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};

/// The binary, without any variable of this machine that it reads.
pub(crate) fn command() -> Command {
    isolated(env!("CARGO_BIN_EXE_psyche-solana-client"))
}

/// `program`, without any variable of this machine that the binary reads.
pub(crate) fn isolated(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
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

    /// Its RPC endpoint.
    pub(crate) fn rpc(&self) -> &str {
        &self.rpc
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

/// Asks a JSON-RPC server over a connection of its own, and returns its whole answer as text.
pub(crate) fn ask(rpc: &str, method: &str, params: &serde_json::Value) -> String {
    let host = rpc.strip_prefix("http://").unwrap();
    let body = serde_json::json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).to_string();
    let mut stream = TcpStream::connect(host).unwrap();
    let head = format!(
        "POST / HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(body.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// A server that takes connections and never says anything. It lives as long as the test.
pub(crate) fn silent_server() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let mut held = Vec::new();
        for stream in listener.incoming().take(1_000) {
            held.extend(stream);
        }
    });
    format!("http://{address}")
}
