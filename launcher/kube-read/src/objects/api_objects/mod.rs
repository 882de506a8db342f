//! Nodes and pods as the API server sends them, in protobuf or in JSON, with the fields that an answer needs. The rest, nine
//! tenths of an object, is skipped while reading.
//!
//! The field numbers are those of `generated.proto` of k8s.io/api and k8s.io/apimachinery. Go writes empty strings in protobuf
//! and omits them in JSON: an empty value means that the field is absent.

pub mod meta;
pub mod node;
pub mod pod;
pub mod pod_requests;
pub mod pod_status;
