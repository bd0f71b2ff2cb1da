//! What a local chain is started with, and what is refused.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::ops::Range;
use std::path::PathBuf;

use crate::error::LocalnetError;

/// Shortest real slot: the engine needs a few milliseconds for a block, and its thread sleeps in whole ones.
const REAL_SLOT_MS_MIN: u64 = 5;
/// Longest real slot: above this, blockhashes outlive any client's patience.
const REAL_SLOT_MS_MAX: u64 = 60_000;
/// Free ports are taken in no order; most have a free one after them.
const PAIR_ATTEMPTS_MAX: usize = 16;
/// Where a free port is looked for: below what Linux and IANA give to outgoing connections, of which one could take the port
/// between our choice and the engine's listening, as the engine binds by number.
const QUIET_PORTS: Range<u16> = 20_000..32_000;

/// A program to place before the chain starts.
#[derive(Clone, Debug)]
pub struct Program {
    /// Its address.
    pub id: [u8; 32],
    /// Its ELF, of any size.
    pub elf: Vec<u8>,
}

/// Funds to give before the chain starts.
#[derive(Clone, Copy, Debug)]
pub struct Airdrop {
    /// Who gets them.
    pub address: [u8; 32],
    /// How much.
    pub lamports: u64,
}

/// How to run a local chain.
#[derive(Clone, Debug)]
pub struct LocalnetConfig {
    /// The IP address to listen on.
    pub bind_host: String,
    /// Port of the JSON-RPC server; 0 takes a free one.
    pub rpc_port: u16,
    /// Port of the WebSocket server; 0 takes the one after the JSON-RPC server's, as validators do, or else a free one.
    pub ws_port: u16,
    /// How much a slot advances the chain's clock, in milliseconds.
    pub slot_time_ms: u64,
    /// Chain seconds per real second: slots come every `slot_time_ms / chain_speed` real milliseconds.
    pub chain_speed: f64,
    /// SQLite file that outlives the process; without it the chain lives in memory.
    pub ledger: Option<PathBuf>,
    /// Programs to place. A program that the ledger already holds is replaced.
    pub programs: Vec<Program>,
    /// Funds to give. Given anew at every start, also with a ledger.
    pub airdrops: Vec<Airdrop>,
}

impl Default for LocalnetConfig {
    fn default() -> Self {
        Self {
            bind_host: Ipv4Addr::LOCALHOST.to_string(),
            rpc_port: 0,
            ws_port: 0,
            slot_time_ms: 400,
            chain_speed: 1.0,
            ledger: None,
            programs: Vec::new(),
            airdrops: Vec::new(),
        }
    }
}

impl LocalnetConfig {
    pub(crate) fn host(&self) -> Result<IpAddr, LocalnetError> {
        self.bind_host.trim().parse().map_err(|_not_an_address| LocalnetError::BindHost { host: self.bind_host.clone() })
    }

    /// Real milliseconds between two slots.
    pub(crate) fn real_slot_ms(&self) -> Result<u64, LocalnetError> {
        let refused = || LocalnetError::SlotTime {
            slot_time_ms: self.slot_time_ms,
            chain_speed: self.chain_speed,
            min_ms: REAL_SLOT_MS_MIN,
            max_ms: REAL_SLOT_MS_MAX,
        };
        if self.slot_time_ms == 0
            || self.slot_time_ms > 1_000_000_000
            || !self.chain_speed.is_finite()
            || self.chain_speed <= 0.0
        {
            return Err(refused());
        }
        // Both are far below 2^53, and a cast from f64 saturates.
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "bounded above"
        )]
        let real = (self.slot_time_ms as f64 / self.chain_speed).round() as u64;
        if (REAL_SLOT_MS_MIN..=REAL_SLOT_MS_MAX).contains(&real) { Ok(real) } else { Err(refused()) }
    }

    /// The listeners to use: of the given ports where they can be bound, of free ones for 0. Where both are free to choose,
    /// or only the websocket's is, that becomes the one after the JSON-RPC server's if it can: clients that are told one
    /// address only look there.
    pub(crate) fn listeners(&self, host: IpAddr) -> Result<(TcpListener, TcpListener), LocalnetError> {
        let bind = |port| if port == 0 { free_listener(host) } else { listener_at(host, port) };
        if self.ws_port != 0 {
            return Ok((bind(self.rpc_port)?, bind(self.ws_port)?));
        }
        for _ in 0..PAIR_ATTEMPTS_MAX {
            let rpc = bind(self.rpc_port)?;
            if let Some(next) = port_of(&rpc)?.checked_add(1)
                && let Ok(ws) = bind(next)
            {
                return Ok((rpc, ws));
            }
        }
        Ok((bind(self.rpc_port)?, bind(0)?))
    }
}

/// A listener at a port that nobody uses, and that no outgoing connection gets.
pub(crate) fn free_listener(host: IpAddr) -> Result<TcpListener, LocalnetError> {
    for _ in 0..PAIR_ATTEMPTS_MAX {
        let offset = RandomState::new().build_hasher().finish() % u64::from(QUIET_PORTS.end - QUIET_PORTS.start);
        let port = QUIET_PORTS.start.saturating_add(u16::try_from(offset).unwrap_or_default());
        if let Ok(listener) = listener_at(host, port) {
            return Ok(listener);
        }
    }
    listener_at(host, 0)
}

fn listener_at(host: IpAddr, port: u16) -> Result<TcpListener, LocalnetError> {
    TcpListener::bind((host, port)).map_err(|source| LocalnetError::Bind { host, port, source })
}

/// The port that a listener got.
pub(crate) fn port_of(listener: &TcpListener) -> Result<u16, LocalnetError> {
    let unknown = |error: std::io::Error| LocalnetError::Engine { reason: error.to_string() };
    Ok(listener.local_addr().map_err(unknown)?.port())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests may unwrap")]

    use super::*;

    fn at(slot_time_ms: u64, chain_speed: f64) -> Result<u64, LocalnetError> {
        LocalnetConfig { slot_time_ms, chain_speed, ..Default::default() }.real_slot_ms()
    }

    #[test]
    fn a_faster_clock_means_shorter_real_slots() {
        assert_eq!(at(400, 1.0).unwrap(), 400);
        assert_eq!(at(400, 10.0).unwrap(), 40);
        assert_eq!(at(400, 0.5).unwrap(), 800);
    }

    #[test]
    fn slots_that_the_engine_cannot_tick_are_refused() {
        for (slot, speed) in [(0, 1.0), (400, 0.0), (400, -1.0), (400, f64::NAN), (400, f64::INFINITY), (400, 1e9), (400, 1e-9)]
        {
            assert!(matches!(at(slot, speed), Err(LocalnetError::SlotTime { .. })), "{slot} {speed}");
        }
    }

    #[test]
    fn a_bind_host_must_be_an_ip_address() {
        let config = LocalnetConfig { bind_host: "chain.example".into(), ..Default::default() };
        assert!(matches!(config.host(), Err(LocalnetError::BindHost { .. })));
    }

    #[test]
    fn a_taken_port_is_named() {
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = taken.local_addr().unwrap().port();
        let config = LocalnetConfig { rpc_port: port, ..Default::default() };
        let refused = config.listeners(Ipv4Addr::LOCALHOST.into()).unwrap_err();
        assert!(matches!(refused, LocalnetError::Bind { port: p, .. } if p == port));
    }

    #[test]
    fn the_websocket_s_port_follows_the_other_unless_it_is_given_or_taken() {
        let ports = |rpc_port, ws_port| {
            let config = LocalnetConfig { rpc_port, ws_port, ..Default::default() };
            let (rpc, ws) = config.listeners(Ipv4Addr::LOCALHOST.into()).unwrap();
            (port_of(&rpc).unwrap(), port_of(&ws).unwrap())
        };
        let (rpc, ws) = ports(0, 0);
        assert_eq!(ws, rpc + 1);
        assert!(QUIET_PORTS.contains(&rpc), "{rpc}: an outgoing connection could take it");
        let free = port_of(&TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap()).unwrap();
        assert_eq!(ports(0, free).1, free);
        let _taken = TcpListener::bind((Ipv4Addr::LOCALHOST, ws)).unwrap();
        let (same, other) = ports(rpc, 0);
        assert!(same == rpc && other != ws);
    }
}
