//! The way to the API server: connections, credentials, proxies, retries, pages.

pub(crate) mod connect;
mod credentials;
pub(crate) mod pages;
mod proxy;
pub(crate) mod retry;
mod transport;
