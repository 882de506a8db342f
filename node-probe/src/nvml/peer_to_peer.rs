//! What pairs of GPUs can do with each other's memory.

use syringe_core::facts::topology::P2pLack;

use super::errors::{Kind, NvmlError};
use super::labels;

/// Peer-to-peer capabilities that matter to programs (`nvmlGpuP2PCapsIndex_t`).
const CAPABILITIES: &[(u32, &str)] = &[(0, "read"), (1, "write"), (3, "atomics")];

/// What pairs of GPUs can do with each other.
#[derive(Default)]
pub(super) struct PeerToPeer {
    /// Pairs that were asked and answered.
    answered: u32,
    /// What some pairs lack.
    pub(super) lacking: Vec<P2pLack>,
    /// NVML does not offer the question at all: it is not asked again.
    pub(super) absent: bool,
    /// Why some pair could not be asked; the first reason.
    pub(super) failed: Option<NvmlError>,
}

impl PeerToPeer {
    /// Asks for each capability of one pair.
    pub(super) fn ask(&mut self, gpus: [u32; 2], status: impl Fn(u32) -> Result<u32, NvmlError>) {
        for (capability, name) in CAPABILITIES {
            if self.absent {
                return;
            }
            match status(*capability).map(labels::p2p_status) {
                Ok("ok") => {}
                Ok(status) => self.lack(name, status, gpus),
                Err(error) => return self.note(error),
            }
        }
        self.answered += 1;
    }

    fn lack(&mut self, capability: &str, status: &str, pair: [u32; 2]) {
        let same = |lack: &&mut P2pLack| lack.capability == capability && lack.status == status;
        match self.lacking.iter_mut().find(same) {
            Some(lack) => lack.pairs.push(pair),
            None => {
                self.lacking.push(P2pLack { capability: capability.into(), status: status.into(), pairs: vec![pair] });
            }
        }
    }

    fn note(&mut self, error: NvmlError) {
        match error.kind() {
            Kind::Absent => self.absent = true,
            // One of the two was just lost: every other section says so.
            Kind::Gone => {}
            Kind::Failed => {
                self.failed.get_or_insert(error);
            }
        }
    }

    /// The capabilities that no pair lacks, of the pairs that answered.
    pub(super) fn everywhere(&self) -> Vec<String> {
        let lacks = |name: &str| self.lacking.iter().any(|lack| lack.capability == name);
        let everywhere = |name: &&str| self.answered > 0 && !lacks(name);
        CAPABILITIES.iter().map(|(_, name)| *name).filter(everywhere).map(str::to_owned).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::{NvmlError, PeerToPeer};

    #[test]
    fn a_capability_that_one_pair_lacks_is_not_everywhere() {
        let mut peers = PeerToPeer::default();
        peers.ask([0, 1], |_| Ok(0));
        peers.ask([0, 2], |capability| Ok(if capability == 3 { 5 } else { 0 }));
        assert_eq!(peers.everywhere(), ["read", "write"]);
        assert_eq!(peers.lacking.len(), 1);
        assert_eq!(
            (peers.lacking[0].pairs.as_slice(), peers.lacking[0].status.as_str()),
            (&[[0, 2]][..], "not_supported")
        );
    }

    #[test]
    fn nothing_is_everywhere_where_nobody_answered() {
        assert!(PeerToPeer::default().everywhere().is_empty());
        let mut peers = PeerToPeer::default();
        peers.ask([0, 1], |_| Err(NvmlError::MissingFunction));
        peers.ask([0, 2], |_| Ok(0));
        assert!(peers.everywhere().is_empty() && peers.lacking.is_empty());
    }

    #[test]
    fn a_gpu_that_fails_does_not_hide_the_other_pairs() {
        let mut peers = PeerToPeer::default();
        peers.ask([0, 1], |_| Err(NvmlError::Code(16)));
        peers.ask([0, 2], |_| Ok(0));
        assert_eq!(peers.everywhere().len(), 3);
        assert_eq!(peers.failed, Some(NvmlError::Code(16)));
    }
}
