//! Modules that choose the method and the image of a probe, remember methods that do not work, and run the probe.

pub(super) mod dispatch;
pub(super) mod method_memory;
pub(super) mod present_image;
pub(super) mod search;
