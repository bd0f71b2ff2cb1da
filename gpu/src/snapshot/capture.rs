//! A copy of what all ranks own, at one moment: what is written while the ranks go on.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::GpuError;
use crate::codec::{Selection, Threads};
use crate::config::LlamaConfig;
use crate::digest;
use crate::layout::{NodeLayout, Piece};
use crate::optimizer::Optimizer;
use crate::worker::Rank;

use super::manifest::Settings;

/// What one rank owns.
#[derive(Default)]
pub(crate) struct Owned {
    pub(crate) master: Vec<f32>,
    pub(crate) momentum: Vec<f32>,
    pub(crate) sent: Option<Vec<Selection>>,
}

/// The node's state at one moment, out of the ranks' reach: four bytes per parameter of weights and four of momentum.
pub struct Captured {
    pub(crate) layout: Arc<NodeLayout>,
    pub(crate) config: LlamaConfig,
    pub(crate) settings: Settings,
    /// By rank.
    pub(crate) owned: Vec<Arc<Owned>>,
    /// By parameter, who holds which of its elements: rank and piece, in the order of the elements.
    holders: Vec<Vec<(usize, usize)>>,
    /// How long the ranks were kept from their work.
    pub(crate) took: Duration,
}

impl Rank {
    /// Copies the node's state, to be written while the ranks go on. Collective; rank 0 gets it.
    ///
    /// # Errors
    /// A broken mesh.
    pub fn capture(&mut self) -> Result<Option<Captured>, GpuError> {
        self.capture_with(true)
    }

    /// The weights, and the optimiser's state if asked for.
    pub(crate) fn capture_with(&mut self, optimizer_state: bool) -> Result<Option<Captured>, GpuError> {
        let began = Instant::now();
        let config = self.config().with_dtype("float32");
        let (mesh, layout, optimizer) = self.state();
        let own = Owned::of(optimizer, optimizer_state).inspect_err(|error| mesh.fail(&error.to_string()))?;
        let own = Arc::new(own);
        let owned = mesh
            .exchange(&own, |all| (mesh.rank() == 0).then(|| all.iter().map(|&owned| Arc::clone(owned)).collect::<Vec<_>>()))?;
        let (layout, settings) = (Arc::clone(layout), optimizer.settings());
        Ok(owned.map(|owned| Captured::new(layout, config, settings, owned, began)))
    }
}

impl Owned {
    /// Copies what a rank owns to the host's memory.
    fn of(optimizer: &Optimizer, optimizer_state: bool) -> Result<Self, GpuError> {
        let master = optimizer.master().to_host()?.into_owned();
        if !optimizer_state {
            return Ok(Self { master, momentum: Vec::new(), sent: None });
        }
        Ok(Self { master, momentum: optimizer.momentum().to_host()?.into_owned(), sent: optimizer.sent()? })
    }
}

impl Captured {
    fn new(layout: Arc<NodeLayout>, config: LlamaConfig, settings: Settings, owned: Vec<Arc<Owned>>, began: Instant) -> Self {
        let mut holders = vec![Vec::new(); layout.codec.parameters().len()];
        // Pieces ascend with the rank, so that appending keeps the order of the elements.
        for rank in 0..owned.len() {
            for (at, piece) in layout.pieces(rank).iter().enumerate() {
                holders[piece.part.parameter()].push((rank, at));
            }
        }
        Self { layout, config, settings, owned, holders, took: began.elapsed() }
    }

    /// Ranks that the state is from.
    pub(crate) fn ranks(&self) -> usize {
        self.owned.len()
    }

    /// Whether a result was sent that is still in the momentum.
    pub(crate) fn has_sent(&self) -> bool {
        self.owned.iter().all(|owned| owned.sent.is_some())
    }

    /// Who holds the elements of `parameter`, in their order.
    pub(crate) fn holders(&self, parameter: usize) -> impl Iterator<Item = (&Owned, usize, &Piece)> {
        self.holders[parameter].iter().map(|&(rank, at)| (&*self.owned[rank], at, &self.layout.pieces(rank)[at]))
    }

    /// The digest of the weights, with a thread for each rank.
    pub(crate) fn digest(&self) -> Result<[u8; 32], GpuError> {
        let codec = &self.layout.codec;
        let of_rank = |rank: usize| {
            let pieces = self.layout.pieces(rank).iter();
            let blocks = pieces.map(|piece| {
                let rows = &self.owned[rank].master[piece.at.clone()];
                Ok((piece.part.clone(), digest::block_digests(codec, &piece.part, rows, Threads::ONE)?))
            });
            blocks.collect::<Result<Vec<_>, GpuError>>()
        };
        let of_rank = &of_rank;
        let mut all = Vec::new();
        std::thread::scope(|scope| {
            let ranks: Vec<_> = (0..self.ranks()).map(|rank| scope.spawn(move || of_rank(rank))).collect();
            for rank in ranks {
                match rank.join() {
                    Ok(blocks) => all.extend(blocks?),
                    Err(panic) => std::panic::resume_unwind(panic),
                }
            }
            Ok::<_, GpuError>(())
        })?;
        Ok(digest::combine(&digest::parameter_digests(codec, &all)?))
    }
}
