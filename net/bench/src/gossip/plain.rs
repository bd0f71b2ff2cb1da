//! Nodes that have nothing but libp2p's gossipsub with its default configuration, over QUIC.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use futures::StreamExt as _;
use libp2p::gossipsub::{self, IdentTopic, MessageAuthenticity};
use libp2p::swarm::SwarmEvent;
use libp2p::{Multiaddr, Swarm, SwarmBuilder};
use tokio::sync::{mpsc, watch};

use super::Log;

/// Commands that may wait.
const COMMANDS_MAX: usize = 256;

enum Command {
    Dial(Multiaddr),
    Say(Vec<u8>),
}

/// A node; it ends when this is dropped.
pub(crate) struct Plain {
    commands: mpsc::Sender<Command>,
    peers: watch::Receiver<usize>,
    address: Multiaddr,
}

/// `count` nodes, each connected to all others.
pub(crate) async fn start(count: u8, log: &Log) -> Result<Vec<Plain>> {
    let mut nodes: Vec<Plain> = Vec::new();
    for _ in 0..count {
        let node = Plain::start(log.clone()).await?;
        for other in &nodes {
            node.commands.send(Command::Dial(other.address.clone())).await?;
        }
        nodes.push(node);
    }
    for node in &mut nodes {
        drop(node.peers.wait_for(|peers| *peers >= usize::from(count) - 1).await?);
    }
    Ok(nodes)
}

impl Plain {
    async fn start(log: Log) -> Result<Self> {
        let mut swarm = SwarmBuilder::with_new_identity()
            .with_tokio()
            .with_quic()
            .with_behaviour(|key| {
                let authenticity = MessageAuthenticity::Signed(key.clone());
                Ok(gossipsub::Behaviour::<gossipsub::IdentityTransform>::new(authenticity, gossipsub::Config::default())?)
            })?
            .with_swarm_config(|config| config.with_idle_connection_timeout(Duration::from_secs(3600)))
            .build();
        let topic = IdentTopic::new("bench");
        ensure!(swarm.behaviour_mut().subscribe(&topic)?, "already subscribed");
        let _listener = swarm.listen_on("/ip4/127.0.0.1/udp/0/quic-v1".parse()?)?;
        let address = loop {
            if let SwarmEvent::NewListenAddr { address, .. } = swarm.next().await.context("the swarm has ended")? {
                break address;
            }
        };
        let (commands, receiver) = mpsc::channel(COMMANDS_MAX);
        let (sender, peers) = watch::channel(0);
        drop(tokio::spawn(drive(swarm, topic, receiver, sender, log)));
        Ok(Self { commands, peers, address })
    }

    pub(crate) async fn say(&self, number: u32, bytes: usize) -> Result<()> {
        let mut message = vec![0; bytes];
        message[..4].copy_from_slice(&number.to_le_bytes());
        Ok(self.commands.send(Command::Say(message)).await?)
    }
}

async fn drive(
    mut swarm: Swarm<gossipsub::Behaviour>,
    topic: IdentTopic,
    mut commands: mpsc::Receiver<Command>,
    peers: watch::Sender<usize>,
    log: Log,
) {
    loop {
        tokio::select! {
            command = commands.recv() => match command {
                Some(Command::Dial(address)) => {
                    if let Err(error) = swarm.dial(address) {
                        eprintln!("a node can't dial: {error}");
                    }
                }
                Some(Command::Say(message)) => {
                    if let Err(error) = swarm.behaviour_mut().publish(topic.hash(), message) {
                        eprintln!("a node can't publish: {error}");
                    }
                }
                None => return,
            },
            event = swarm.select_next_some() => match event {
                SwarmEvent::Behaviour(gossipsub::Event::Message { message, .. }) => {
                    if let Some(number) = message.data.first_chunk() {
                        log.hear(u32::from_le_bytes(*number));
                    }
                }
                SwarmEvent::ConnectionEstablished { .. } | SwarmEvent::ConnectionClosed { .. } => {
                    let _before = peers.send_replace(swarm.network_info().num_peers());
                }
                _ => {}
            },
        }
    }
}
