//! `Authenticator`: accepts only requests with the token of this cluster, and rejects requests from web pages.
//!
//! The server listens on loopback, which every user and every browser of the machine can reach. The token prevents
//! access by other users. The checks of `Host` and `Origin` prevent access by a web page that knows the port, for
//! example by DNS rebinding.

use std::fmt::Write;
use std::net::SocketAddr;

use http::{HeaderMap, header};

use crate::api_error::ApiError;

/// Number of random bytes in a token. RFC 6750 requires at least 128 bits.
const TOKEN_BYTES: usize = 32;

/// The rules for requests to one server.
#[derive(Debug)]
pub(crate) struct Authenticator {
    token: String,
    hosts: [String; 2],
}

impl Authenticator {
    /// Returns rules with a new token, for a server at `address`.
    ///
    /// # Errors
    /// Fails if the system has no random numbers.
    pub(crate) fn new(address: SocketAddr) -> std::io::Result<Self> {
        let mut bytes = [0; TOKEN_BYTES];
        getrandom::fill(&mut bytes).map_err(std::io::Error::other)?;
        let mut token = String::with_capacity(2 * TOKEN_BYTES);
        for byte in bytes {
            // Writing to a string does not fail.
            let _ = write!(token, "{byte:02x}");
        }
        Ok(Self { token, hosts: [address.to_string(), format!("localhost:{}", address.port())] })
    }

    pub(crate) fn token(&self) -> &str {
        &self.token
    }

    /// Checks the headers of a request.
    pub(crate) fn check(&self, headers: &HeaderMap) -> Result<(), ApiError> {
        if !self.is_own_host(headers) {
            return Err(ApiError::AccessDenied("the Host header is not the address of this server"));
        }
        // Browsers send this header, but API clients do not.
        if headers.contains_key(header::ORIGIN) {
            return Err(ApiError::AccessDenied("requests with an Origin header are not served"));
        }
        if self.has_token(headers) { Ok(()) } else { Err(ApiError::Unauthorized) }
    }

    fn is_own_host(&self, headers: &HeaderMap) -> bool {
        let mut hosts = headers.get_all(header::HOST).iter();
        let (Some(host), None) = (hosts.next(), hosts.next()) else { return false };
        self.hosts.iter().any(|own| host.as_bytes().eq_ignore_ascii_case(own.as_bytes()))
    }

    fn has_token(&self, headers: &HeaderMap) -> bool {
        let value = headers.get(header::AUTHORIZATION).map(|value| value.as_bytes()).unwrap_or_default();
        value.split_at_checked("Bearer ".len()).is_some_and(|(scheme, token)| {
            scheme.eq_ignore_ascii_case(b"Bearer ") && is_equal(token, self.token.as_bytes())
        })
    }
}

/// Compares two texts in a time that does not depend on the position of the first difference.
fn is_equal(left: &[u8], right: &[u8]) -> bool {
    left.len() == right.len() && left.iter().zip(right).fold(0, |all, (left, right)| all | (left ^ right)) == 0
}
