//! `comparable_gpus`: the number of GPUs that CUDA should count. `started`: a sentence about a successful start of
//! CUDA.

use crate::evidence;
use crate::input::node::{Gpu, Node};

/// Returns the number of GPUs that NVML lists, or the reason why CUDA may count a different number without a fault.
pub(crate) fn comparable_gpus(node: &Node<'_>) -> Result<u32, &'static str> {
    let has_mig =
        |gpu: &Gpu| node.mig_of(gpu).and_then(|mig| mig.mode.as_ref()).is_some_and(|mode| mode.current || mode.pending);
    let has_mode = |gpu: &Gpu| {
        node.inventory_of(gpu).and_then(|one| one.compute_mode.as_deref()).is_some_and(|mode| mode != "default")
    };
    if node.gpus.iter().any(has_mig) {
        return Err("with MIG, CUDA offers the MIG devices of one GPU at most");
    }
    if node.gpus.iter().any(has_mode) {
        return Err("a GPU has another compute mode than the default");
    }
    if node.inventory().is_none() || !node.shows_gpus_of_node() || node.listed().any(|gpu| !node.is_readable(gpu)) {
        return Err("not all GPUs of the node were read");
    }
    u32::try_from(node.listed().count()).map_err(|_| "there are too many")
}

/// Returns the result of a start of CUDA without an error, as a sentence.
pub(crate) fn started(node: &Node<'_>) -> Option<String> {
    let cuda = node.host()?.cuda.as_ref()?;
    let devices = cuda.devices.filter(|_| cuda.problem.is_none() && cuda.open_call.is_none())?;
    let time = cuda.duration_ms.map(|time| format!(" in {time} ms")).unwrap_or_default();
    let compared = comparable_gpus(node).err().map(|why| format!(" (not compared: {why})")).unwrap_or_default();
    Some(format!(
        "CUDA starts in a new process{time} and offers {}{compared}.",
        evidence::count(devices as usize, "device")
    ))
}
