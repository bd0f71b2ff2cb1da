//! Nodes as processes of their own, so that each has its own processor time and can live on its own host. They are driven by
//! lines: `meet` waits until everybody is connected, `put LEN SALT` stores a blob of noise and answers its name, `get NAME LEN`
//! fetches it, `cpu` answers the seconds of processor time so far, `sent` the bytes of blobs that went out; `fill LEN` makes a
//! vector, `average STEP` the mean of everybody's, of which `first` tells the first element.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use clap::{Args, ValueEnum};
use tempfile::TempDir;

use crate::iroh_node::IrohNode;
use crate::our_node::OurNode;
use crate::rig::Rig;

/// Whose node it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// Ours, by QUIC.
    Quic,
    /// Ours, by TCP.
    Tcp,
    /// iroh-blobs.
    Iroh,
}

impl Kind {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Quic => "ours, QUIC",
            Self::Tcp => "ours, TCP",
            Self::Iroh => "iroh-blobs",
        }
    }
}

/// How a node is started.
#[derive(Args)]
pub(crate) struct NodeOptions {
    kind: Kind,
    /// Which of the nodes it is; 0 is the author.
    number: u8,
    /// How many there are.
    nodes: u8,
    /// The address to listen on.
    ip: String,
    /// How to reach the author, as it said itself.
    author: Option<String>,
}

/// What a node does when it is told to.
enum Node {
    Ours(OurNode),
    Iroh(IrohNode),
}

impl Node {
    async fn start(options: &NodeOptions) -> Result<(Self, String)> {
        let NodeOptions { kind, number, nodes, ip, author } = options;
        let author = author.as_deref();
        let transport = if *kind == Kind::Tcp { format!("/ip4/{ip}/tcp/0") } else { format!("/ip4/{ip}/udp/0/quic-v1") };
        Ok(match kind {
            Kind::Quic | Kind::Tcp => {
                let (node, address) = OurNode::start(*number, *nodes, transport, author).await?;
                (Self::Ours(node), address)
            }
            Kind::Iroh => {
                let (node, address) = IrohNode::start(ip, author).await?;
                (Self::Iroh(node), address)
            }
        })
    }

    async fn obey(&mut self, line: &str) -> Result<String> {
        let words: Vec<_> = line.split_whitespace().collect();
        match (words.as_slice(), self) {
            (["cpu"], _) => Ok(cpu_s().to_string()),
            (["meet"], Self::Ours(node)) => node.meet().await.map(|()| "met".to_owned()),
            (["meet"], Self::Iroh(node)) => node.meet().await.map(|()| "met".to_owned()),
            (["put", len, salt], Self::Ours(node)) => node.put(noise(len.parse()?, salt)).await,
            (["put", len, salt], Self::Iroh(node)) => node.put(noise(len.parse()?, salt)).await,
            (["get", name, len], Self::Ours(node)) => node.get(name, len.parse()?).await.map(|()| "got".to_owned()),
            (["get", name, _], Self::Iroh(node)) => node.get(name).await.map(|()| "got".to_owned()),
            (["fill", len], Self::Ours(node)) => {
                node.fill(len.parse()?);
                Ok("filled".to_owned())
            }
            (["average", step], Self::Ours(node)) => node.average(step.parse()?).await.map(|()| "averaged".to_owned()),
            (["first"], Self::Ours(node)) => Ok(node.first()?.to_string()),
            (["sent"], Self::Ours(node)) => Ok(node.sent_bytes().to_string()),
            // One that serves only those who ask it sends everything to everybody.
            (["sent"], Self::Iroh(_)) => Ok("unknown".to_owned()),
            _ => bail!("unknown line: {line}"),
        }
    }
}

/// Bytes that nothing compresses and no two salts share.
pub(crate) fn noise(len: usize, salt: &str) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(salt.as_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

/// Processor time of this process so far, in seconds.
pub(crate) fn cpu_s() -> f64 {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: getrusage fills the structure that it is given; all zeros are a valid one.
    let usage = unsafe {
        libc::getrusage(libc::RUSAGE_SELF, usage.as_mut_ptr());
        usage.assume_init()
    };
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    seconds(usage.ru_utime) + seconds(usage.ru_stime)
}

/// Runs a node until its input ends.
pub(crate) fn node(options: &NodeOptions) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let (mut node, address) = Node::start(options).await?;
        say(&address)?;
        let mut lines = tokio::io::AsyncBufReadExt::lines(tokio::io::BufReader::new(tokio::io::stdin()));
        while let Some(line) = lines.next_line().await? {
            say(&node.obey(&line).await?)?;
        }
        Ok::<_, anyhow::Error>(())
    })?;
    // What its tasks still do matters to nobody.
    runtime.shutdown_background();
    Ok(())
}

fn say(line: &str) -> Result<()> {
    let mut output = std::io::stdout().lock();
    writeln!(output, "{line}")?;
    Ok(output.flush()?)
}

/// A node that runs. Dropping it ends it.
pub(crate) struct Process {
    name: String,
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    /// How others reach it.
    pub(crate) address: String,
    /// Where it keeps its files: a node that is ended removes nothing.
    _dir: TempDir,
}

impl Process {
    /// Starts node `number` of `nodes` on `rig`.
    pub(crate) fn start(rig: &Rig, kind: Kind, number: usize, nodes: usize, author: Option<&str>) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        let name = kind.to_possible_value().context("a kind without a name")?.get_name().to_owned();
        command.args(["node", &name]);
        Self::spawn(rig, name, command, number, nodes, author)
    }

    /// Starts `command`, which understands the same arguments and lines, as a node.
    pub(crate) fn spawn(
        rig: &Rig,
        name: String,
        mut command: Command,
        number: usize,
        nodes: usize,
        author: Option<&str>,
    ) -> Result<Self> {
        command.args([&number.to_string(), &nodes.to_string(), &rig.ip(number)]).args(author);
        rig.bind(number, &mut command);
        let dir = TempDir::new()?;
        command.env("TMPDIR", dir.path());
        // A group of its own, so that what a node starts ends with it.
        command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().context("failed to start a node")?;
        let input = child.stdin.take().context("a node without input")?;
        let output = BufReader::new(child.stdout.take().context("a node without output")?);
        let mut process = Self { name: format!("{name} {number}"), child, input, output, address: String::new(), _dir: dir };
        process.address = process.answer()?;
        Ok(process)
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Tells it to do something.
    pub(crate) fn tell(&mut self, line: &str) -> Result<()> {
        writeln!(self.input, "{line}")?;
        Ok(self.input.flush()?)
    }

    /// Waits for what it says.
    pub(crate) fn answer(&mut self) -> Result<String> {
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        ensure!(line.ends_with('\n'), "node {} has ended", self.name);
        Ok(line.trim_end().to_owned())
    }

    pub(crate) fn ask(&mut self, line: &str) -> Result<String> {
        self.tell(line)?;
        self.answer()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Ok(group) = libc::pid_t::try_from(self.child.id()) {
            // SAFETY: plain numbers. The child leads its group and was not waited for, so the number is nobody else's.
            let _ended_by_itself = unsafe { libc::kill(-group, libc::SIGKILL) };
        }
        drop(self.child.wait());
    }
}
