//! What the tests of the binary share.

#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, reason = "each test file uses its part; tests may unwrap")]

pub(crate) mod picture;
pub(crate) mod terminal;
pub(crate) mod training;

use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};

use psyche_chain::{EndpointPair, Rpc, RpcConfig, Wallet};
use psyche_messages::Address;
use serde_json::{Value, json};

/// A run of five steps that one client can train.
pub(crate) const RUN_TOML: &str = include_str!("../run.toml");

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
        let mut command = command();
        Self::served(command.args(["localnet", "--chain-speed", "8"]).args(options))
    }

    /// One more endpoint of the same chain.
    pub(crate) fn endpoint(&self) -> Self {
        let port = |url: &str| url.rsplit_once(':').unwrap().1.to_owned();
        let ports = ["--chain-rpc-port".to_owned(), port(&self.rpc), "--chain-ws-port".to_owned(), port(&self.ws)];
        Self::served(command().arg("localnet-endpoint").args(ports))
    }

    fn served(command: &mut Command) -> Self {
        let mut child = command.args(["--rpc-port", "0", "--ws-port", "0"]).stdout(Stdio::piped()).spawn().unwrap();
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
pub(crate) fn ask(rpc: &str, method: &str, params: &Value) -> String {
    let host = rpc.strip_prefix("http://").unwrap();
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).to_string();
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

/// A server that knows only that it is of another network.
pub(crate) fn other_network() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().take(1_000).flatten() {
            std::thread::spawn(move || answer_as_other_network(stream));
        }
    });
    format!("http://{address}")
}

/// Answers each request on a connection with a genesis hash, whatever it asks.
fn answer_as_other_network(stream: TcpStream) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut stream = stream;
    loop {
        let mut length = 0;
        loop {
            let mut line = String::new();
            if !matches!(reader.read_line(&mut line), Ok(1..)) {
                return;
            }
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
            if line.trim().is_empty() {
                break;
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).unwrap();
        let asked: Value = serde_json::from_slice(&body).unwrap();
        let answer = json!({"jsonrpc": "2.0", "id": asked["id"], "result": "5eykt4UsFv8P8NJdTREpY1vzqKqZKvdpKuc147dw2N9d"});
        let answer = answer.to_string();
        let head = format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n", answer.len());
        if stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(answer.as_bytes())).is_err() {
            return;
        }
    }
}

/// A folder in which commands are run.
pub(crate) struct Folder(tempfile::TempDir);

impl Folder {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, content: &str, mode: u32) {
        std::fs::write(self.path(name), content).unwrap();
        std::fs::set_permissions(self.path(name), std::fs::Permissions::from_mode(mode)).unwrap();
    }

    /// Runs a command line.
    pub(crate) fn run(&self, line: &str) -> Output {
        command().current_dir(self.0.path()).args(line.split_whitespace()).output().unwrap()
    }
}

/// A chain and a folder, in which commands are run as a person would.
pub(crate) struct Scene {
    pub(crate) chain: LocalChain,
    folder: Folder,
}

impl Scene {
    /// Nothing but a chain.
    pub(crate) fn empty() -> Self {
        Self { chain: LocalChain::start(), folder: Folder::new() }
    }

    /// With a configured run `run`, its owner, who has funds, and a wallet "poor" that has none.
    pub(crate) fn with_run(run: &str) -> Self {
        let scene = Self::empty();
        scene.wallet("owner", "20");
        scene.good("wallet new --out poor.json");
        std::fs::write(scene.path("run.toml"), RUN_TOML).unwrap();
        scene.good(&format!("create-run --run-id {run} --wallet-private-key-path owner.json"));
        scene.good(&format!("update-config --run-id {run} --config-path run.toml --wallet-private-key-path owner.json"));
        scene
    }

    /// Makes a wallet with `sol` SOL.
    pub(crate) fn wallet(&self, name: &str, sol: &str) -> Address {
        let address = self.good(&format!("wallet new --out {name}.json"));
        self.good(&format!("wallet airdrop --sol {sol} --wallet-private-key-path {name}.json"));
        address.trim().parse().unwrap()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path(name)
    }

    pub(crate) fn address(&self, name: &str) -> Address {
        Wallet::from_file(&self.path(&format!("{name}.json"))).unwrap().address()
    }

    /// Runs a command line in the folder, with the chain as its provider.
    pub(crate) fn run(&self, line: &str) -> Output {
        self.run_with(line, &[])
    }

    pub(crate) fn run_with(&self, line: &str, variables: &[(&str, &str)]) -> Output {
        let mut command = command();
        command.current_dir(self.path("")).args(line.split_whitespace());
        command.envs(self.chain.variables()).envs(variables.iter().copied()).output().unwrap()
    }

    /// What a command that must succeed prints.
    pub(crate) fn good(&self, line: &str) -> String {
        let output = self.run(line);
        assert!(output.status.success(), "{line}: {}", text(&output.stderr));
        text(&output.stdout)
    }

    pub(crate) fn write(&self, name: &str, content: &str, mode: u32) {
        self.folder.write(name, content, mode);
    }

    pub(crate) fn rpc(&self) -> Rpc {
        Rpc::new(RpcConfig::new(vec![EndpointPair::parse(self.chain.rpc(), "").unwrap()])).unwrap()
    }

    /// Writes an account as no transaction could.
    pub(crate) fn set_account(&self, address: Address, owner: Address, data: &[u8]) {
        let hex: String = data.iter().map(|byte| format!("{byte:02x}")).collect();
        let account = json!({"lamports": 1_000_000_000_u64, "owner": owner.to_string(), "executable": false, "data": hex});
        let answer = ask(self.chain.rpc(), "surfnet_setAccount", &json!([address.to_string(), account]));
        assert!(answer.contains("\"result\""), "{answer}");
    }
}
