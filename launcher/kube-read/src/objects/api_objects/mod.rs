//! Modules with the types for nodes and pods as the API server sends them, in protobuf or in JSON.
//! Only the fields that an answer needs are read. The rest, about 90% of an object, is skipped.
//!
//! The field numbers are those of `generated.proto` of k8s.io/api and k8s.io/apimachinery. Go writes empty strings in
//! protobuf and omits them in JSON, so an empty value means that the field is absent.

pub mod meta;
pub mod node;
pub mod pod;
pub mod pod_requests;
pub mod pod_status;
