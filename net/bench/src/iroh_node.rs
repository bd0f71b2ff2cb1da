//! A node of iroh-blobs with its store on disk, without relays and lookups: everybody asks the author, whose address is known.

use std::net::SocketAddr;

use anyhow::{Context as _, Result};
use iroh::endpoint::{Connection, presets};
use iroh::protocol::Router;
use iroh::{Endpoint, EndpointAddr, EndpointId};
use iroh_blobs::BlobsProtocol;
use iroh_blobs::store::fs::FsStore;
use tempfile::TempDir;

pub(crate) struct IrohNode {
    router: Router,
    store: FsStore,
    author: Option<EndpointAddr>,
    connection: Option<Connection>,
    _dir: TempDir,
}

impl IrohNode {
    pub(crate) async fn start(ip: &str, author: Option<&str>) -> Result<(Self, String)> {
        let dir = TempDir::new()?;
        let store = FsStore::load(dir.path()).await?;
        let listen: SocketAddr = format!("{ip}:0").parse()?;
        let endpoint = Endpoint::builder(presets::Minimal).clear_ip_transports().bind_addr(listen)?.bind().await?;
        let bound = endpoint.bound_sockets().into_iter().next().context("no socket")?;
        let address = format!("{}@{bound}", endpoint.id());
        let router = Router::builder(endpoint).accept(iroh_blobs::ALPN, BlobsProtocol::new(&store, None)).spawn();
        let author = author.map(parse).transpose()?;
        Ok((Self { router, store, author, connection: None, _dir: dir }, address))
    }

    pub(crate) async fn meet(&mut self) -> Result<()> {
        if let Some(author) = &self.author {
            self.connection = Some(self.router.endpoint().connect(author.clone(), iroh_blobs::ALPN).await?);
        }
        Ok(())
    }

    pub(crate) async fn put(&self, bytes: Vec<u8>) -> Result<String> {
        Ok(self.store.blobs().add_bytes(bytes).await?.hash.to_string())
    }

    pub(crate) async fn get(&self, name: &str) -> Result<()> {
        let hash: iroh_blobs::Hash = name.parse()?;
        let connection = self.connection.clone().context("not connected")?;
        self.store.remote().fetch(connection, hash).await?;
        Ok(())
    }
}

fn parse(address: &str) -> Result<EndpointAddr> {
    let (id, socket) = address.split_once('@').context("an address without a socket")?;
    let id: EndpointId = id.parse()?;
    Ok(EndpointAddr::new(id).with_ip_addr(socket.parse()?))
}
