//! The body of the fuzz target `object_list`: properties of the decoder of object lists for any input.
//!
//! The tests of the crate run the body on the committed inputs.

use std::fmt::Debug;

use super::*;

/// Fuzz target `object_list`. `data`: the number of pieces, their sizes, then the bytes that a server or proxy sends.
/// The result must not depend on the pieces, and a truncated list must be an error.
pub fn object_list(data: &[u8]) {
    let Some((count, rest)) = data.split_first() else { return };
    let (sizes, bytes) = rest.split_at(usize::from(*count % 16).min(rest.len()));
    assert_properties::<node::Node>(sizes, bytes);
    assert_properties::<pod::Pod>(sizes, bytes);
    let nodes = decode_node_list(bytes).unwrap_or_default();
    let pods = decode_pod_list(bytes).unwrap_or_default();
    assert!(nodes.len().max(pods.len()) <= bytes.len(), "there are more objects than bytes");
}

fn assert_properties<T: Message + Default + PartialEq + Debug>(sizes: &[u8], bytes: &[u8]) {
    let whole = decode::<T>(bytes);
    assert_eq!(whole, decode_pieces(sizes, bytes), "the result depends on the pieces");
    if whole.is_ok() {
        for cut in [0, bytes.len() / 3, bytes.len() - 1] {
            assert!(
                may_end_at(bytes, cut) || decode::<T>(&bytes[..cut]).is_err(),
                "a list truncated at {cut} was read"
            );
        }
    }
}

fn decode_pieces<T: Message + Default>(sizes: &[u8], bytes: &[u8]) -> Result<Vec<T>, ListError> {
    let (mut reader, mut items, mut rest) = (ListReader::default(), Vec::new(), bytes);
    for size in sizes.iter().map(|size| usize::from(*size).max(1)).chain(std::iter::repeat(usize::MAX)) {
        if rest.is_empty() {
            break;
        }
        let (piece, left) = rest.split_at(size.min(rest.len()));
        reader.read(piece, &mut |item| items.push(item))?;
        rest = left;
    }
    reader.finish()?;
    Ok(items)
}

/// Returns whether the content of the list ends at or before `cut`. The rest of the envelope is not needed.
fn may_end_at(bytes: &[u8], cut: usize) -> bool {
    let mut envelope = &bytes[crate::client::protobuf_list::MAGIC.len().min(bytes.len())..];
    let total = envelope.len();
    while let Ok((tag, kind)) = prost::encoding::decode_key(&mut envelope) {
        let content = tag == 2 && kind == prost::encoding::WireType::LengthDelimited;
        let context = prost::encoding::DecodeContext::default();
        if prost::encoding::skip_field(kind, tag, &mut envelope, context).is_err() {
            return false;
        }
        if content {
            return bytes.len() - total + (total - envelope.len()) <= cut;
        }
    }
    false
}

#[cfg(test)]
#[path = "../committed_inputs.rs"]
mod committed_inputs;

#[cfg(test)]
mod tests {
    #[test]
    fn lists_of_the_corpus_keep_the_properties() {
        super::committed_inputs::run("object_list", super::object_list);
    }
}
