//! The body of the fuzz target `nccl`: properties of the parser for NCCL status answers of a pod.

use syringe_core::facts::nccl::NcclStatus;

use super::answer::{Answer, from_json};
use super::{MAX_OUTPUT, compared, fit};
use crate::fuzzing::common::{assert_clean, in_time};

/// Fuzz target `nccl`. `data` contains two answers, separated by a line `--`.
pub fn nccl(data: &[u8]) {
    let at = data.windows(4).position(|part| part == b"\n--\n");
    let (before, after) = at.map_or((data, None), |at| (&data[..at], Some(&data[at + 4..])));
    let read = |bytes: &[u8]| -> Option<Answer> { from_json(bytes).ok() };
    let Some(first) = in_time(|| read(before)) else { return };
    let status = in_time(|| compared::compare("pod", first, after.and_then(read)));
    let listed = status.communicators.len() as u64;
    let output = fit(status);
    assert!(output.len() <= MAX_OUTPUT, "{} bytes", output.len());
    let read: NcclStatus = serde_json::from_slice(&output).expect("the parent can read the output");
    assert_clean(&read);
    assert!(read.communicators_omitted >= listed - read.communicators.len() as u64, "communicators are lost");
}
