//! The method of a probe, and the image that it uses.

pub(super) mod dispatch;
pub(super) mod image_reference;
pub(super) mod method_memory;
pub(super) mod present_image;
pub(super) mod search;
