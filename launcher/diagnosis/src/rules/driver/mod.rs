//! Rules about the driver: not loaded, wrong version, its setup, its log.

pub(crate) mod driver_log;
pub(crate) mod driver_not_loaded;
pub(crate) mod driver_setup;
pub(crate) mod driver_unusable;
pub(crate) mod persistence;
