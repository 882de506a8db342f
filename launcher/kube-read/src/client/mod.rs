//! Modules of the client of the API server: contexts, connection, credentials, proxy, transport, retries, lists,
//! protobuf, errors, request log, clock.

pub mod api_error;
pub mod api_log;
pub mod api_status;
pub mod connection;
pub mod contexts;
pub mod credentials;
mod fresh_pool;
pub mod lists;
pub mod pagination;
pub mod protobuf_list;
pub mod protobuf_status;
pub mod proxy;
pub mod retry;
pub mod retry_after_header;
pub mod server_clock;
pub mod transport;
