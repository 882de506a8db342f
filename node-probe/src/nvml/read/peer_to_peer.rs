//! `PeerToPeer`: reads the peer-to-peer capabilities of pairs of GPUs.

use syringe_core::facts::topology::MissingP2p;

use super::enum_names;
use crate::nvml::answer::Pairs;
use crate::nvml::errors::{Kind, NvmlError};

/// Peer-to-peer capabilities that matter to programs (`nvmlGpuP2PCapsIndex_t`).
const CAPABILITIES: &[(u32, &str)] = &[(0, "read"), (1, "write"), (3, "atomics")];

/// Peer-to-peer capabilities of the pairs of one GPU.
#[derive(Default)]
pub(in crate::nvml) struct PeerToPeer {
    /// Number of pairs that were read.
    pub(in crate::nvml) answered: u32,
    /// Capabilities that some pairs lack.
    pub(in crate::nvml) lacking: Vec<MissingP2p>,
    /// Whether NVML does not support the call. In that case the call is not repeated.
    pub(in crate::nvml) absent: bool,
    /// The first error of a pair.
    pub(in crate::nvml) failed: Option<NvmlError>,
}

impl PeerToPeer {
    /// Reads each capability of one pair.
    pub(in crate::nvml) fn read_pair(&mut self, gpus: [u32; 2], status: impl Fn(u32) -> Result<u32, NvmlError>) {
        for (capability, name) in CAPABILITIES {
            if self.absent {
                return;
            }
            match status(*capability).map(enum_names::p2p_status) {
                Ok("ok") => {}
                Ok(status) => self.add_lack(name, status, gpus),
                Err(error) => return self.note_error(error),
            }
        }
        self.answered += 1;
    }

    fn add_lack(&mut self, capability: &str, status: &str, pair: [u32; 2]) {
        let same = |lack: &&mut MissingP2p| lack.capability == capability && lack.status == status;
        match self.lacking.iter_mut().find(same) {
            Some(lack) => lack.pairs.push(pair),
            None => {
                self.lacking.push(MissingP2p {
                    capability: capability.into(),
                    status: status.into(),
                    pairs: vec![pair],
                });
            }
        }
    }

    fn note_error(&mut self, error: NvmlError) {
        match error.kind() {
            Kind::Absent => self.absent = true,
            // One of the two GPUs was lost. Other sections report the loss.
            Kind::Gone => {}
            Kind::Failed => {
                self.failed.get_or_insert(error);
            }
        }
    }

    /// Adds the pairs of another GPU.
    pub(in crate::nvml) fn add(&mut self, pairs: Pairs) {
        let Pairs { words: _, answered, lacking, absent } = pairs;
        self.answered = self.answered.saturating_add(answered);
        self.absent |= absent;
        for MissingP2p { capability, status, pairs } in lacking {
            pairs.into_iter().for_each(|pair| self.add_lack(&capability, &status, pair));
        }
    }

    /// Returns the capabilities that are common to all pairs that were read.
    pub(in crate::nvml) fn common_to_all_pairs(&self) -> Vec<String> {
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
        peers.read_pair([0, 1], |_| Ok(0));
        peers.read_pair([0, 2], |capability| Ok(if capability == 3 { 5 } else { 0 }));
        assert_eq!(peers.common_to_all_pairs(), ["read", "write"]);
        assert_eq!(peers.lacking.len(), 1);
        assert_eq!(
            (peers.lacking[0].pairs.as_slice(), peers.lacking[0].status.as_str()),
            (&[[0, 2]][..], "not_supported")
        );
    }

    #[test]
    fn nothing_is_everywhere_where_nobody_answered() {
        assert!(PeerToPeer::default().common_to_all_pairs().is_empty());
        let mut peers = PeerToPeer::default();
        peers.read_pair([0, 1], |_| Err(NvmlError::MissingFunction));
        peers.read_pair([0, 2], |_| Ok(0));
        assert!(peers.common_to_all_pairs().is_empty() && peers.lacking.is_empty());
    }

    #[test]
    fn a_gpu_that_fails_does_not_hide_the_other_pairs() {
        let mut peers = PeerToPeer::default();
        peers.read_pair([0, 1], |_| Err(NvmlError::Code(16)));
        peers.read_pair([0, 2], |_| Ok(0));
        assert_eq!(peers.common_to_all_pairs().len(), 3);
        assert_eq!(peers.failed, Some(NvmlError::Code(16)));
    }
}
