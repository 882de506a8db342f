//! The bodies of the fuzz targets `checkpoint` and `pod_resources`: properties of the parsers for the kubelet's data.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use super::pod_resources::PodResources;
use super::protobuf::{fields, text};
use super::{grpc, pod_resources};
use crate::fuzzing::assert_clean;
use crate::fuzzing::common::in_time;
use crate::host::kubelet;

/// Maximum size of a response.
const MAX_ANSWER: u32 = 64 * 1024;

/// Fuzz target `checkpoint`. `data` is the checkpoint of the device manager.
pub fn checkpoint(data: &[u8]) {
    let Ok(read) = in_time(|| kubelet::parse(data)) else { return };
    // A truncated checkpoint, without its last brace, must not be read as a shorter checkpoint.
    let end = data.trim_ascii_end().len() - 1;
    assert!(kubelet::parse(&data[..end]).is_err(), "a truncated checkpoint was read");
    assert_devices(read.into(), data.len());
}

fn assert_devices(devices: PodResources, input: usize) {
    let facts = in_time(|| kubelet::facts("checkpoint", devices, Vec::new()));
    for allocation in &facts.allocations {
        assert!(
            allocation.devices.is_sorted_by(|one, next| one < next),
            "the devices are not sorted and distinct: {allocation:?}"
        );
    }
    assert_clean(&facts, input);
}

/// Fuzz target `pod_resources`. `data` contains the HTTP/2 frames of the kubelet's socket. If the first byte is 255,
/// the rest is one message.
pub fn pod_resources(data: &[u8]) {
    let message = match data.split_first() {
        Some((255, message)) => message.to_vec(),
        _ => match answer(data) {
            Some(message) => message,
            None => return,
        },
    };
    for number in [0, 1, 2, u64::MAX] {
        let found = fields(&message, number).map(|fields| fields.iter().map(|field| field.len()).sum::<usize>());
        assert!(found.is_none_or(|bytes| bytes <= message.len()), "a field has more bytes than the message");
        assert_eq!(found.is_some(), text(&message, number).is_some());
    }
    let held = in_time(|| pod_resources::pods(&message, &BTreeMap::new()));
    let registered = in_time(|| pod_resources::devices(&message, 1));
    if let Some(held) = held {
        assert_devices(PodResources { held, registered: registered.unwrap_or_default() }, message.len());
    }
}

/// Returns the message in the bytes that a server sends before it closes the connection.
fn answer(sent: &[u8]) -> Option<Vec<u8>> {
    let (mut server, client) = UnixStream::pair().expect("two sockets");
    // Bytes that do not fit into the buffer of the socket are dropped.
    server.set_nonblocking(true).expect("a socket");
    let _ = server.write_all(sent);
    server.shutdown(Shutdown::Write).expect("a socket");
    let answer =
        in_time(|| grpc::call_on(client, "/v1.PodResourcesLister/List", MAX_ANSWER, Duration::from_millis(500)));
    let message = answer.ok()?;
    assert!(message.len() <= sent.len().min(MAX_ANSWER as usize), "the message has more bytes than were sent");
    Some(message)
}
