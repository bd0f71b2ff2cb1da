//! The network between the nodes: this machine's loopback, or hosts on the bridge of the chaos rig.

#[path = "../../../cli/examples/chaos/bridge/mod.rs"]
mod bridge;
#[expect(dead_code, reason = "the chaos rig also enters hosts itself")]
#[path = "../../../cli/examples/chaos/hosts.rs"]
mod hosts;
#[path = "../../../cli/examples/chaos/seeded.rs"]
mod seeded;
#[path = "../../../cli/examples/chaos/wire.rs"]
mod wire;

use std::process::Command;

use anyhow::{Result, bail};
use bridge::{Bridge, Shape};
use hosts::Host;
use wire::Wire;

/// 50 Mbit/s, 80 ms there and back, one frame in a hundred lost: what the chaos rig has, too.
const SHAPE: Shape = Shape { delay_ns: 40_000_000, loss_per_million: 10_000, rate_bits: 50_000_000 };

/// Where nodes run.
pub(crate) enum Rig {
    Loopback,
    Shaped { hosts: Vec<Host>, wire: Option<Wire> },
}

impl Rig {
    /// Room for `nodes` nodes, on hosts of their own where `shaped`; `seed` decides which frames are lost.
    pub(crate) fn new(shaped: bool, nodes: usize, seed: u64) -> Result<Self> {
        if !shaped {
            return Ok(Self::Loopback);
        }
        if let Some(reason) = hosts::missing() {
            bail!("the shaped network can't be had here: {reason}");
        }
        let hosts: Vec<_> =
            (0..nodes).map(|port| Host::new(u8::try_from(port)?, Some(SHAPE.rate_bits))).collect::<Result<_>>()?;
        let taps = hosts.iter().map(|host| host.tap.try_clone()).collect::<Result<_, _>>()?;
        let wire = Wire::start(taps, Bridge::new(&vec![false; nodes], SHAPE, seed))?;
        Ok(Self::Shaped { hosts, wire: Some(wire) })
    }

    /// The address of node `number`.
    pub(crate) fn ip(&self, number: usize) -> String {
        match self {
            Self::Loopback => "127.0.0.1".to_owned(),
            Self::Shaped { hosts, .. } => hosts[number].ip.to_string(),
        }
    }

    /// Lets `command` run where node `number` lives.
    pub(crate) fn bind(&self, number: usize, command: &mut Command) {
        if let Self::Shaped { hosts, .. } = self {
            hosts[number].bind(command);
        }
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        if let Self::Shaped { wire, .. } = self {
            // That the bridge died was seen by whoever waited for frames.
            drop(wire.take().map(Wire::end));
        }
    }
}
