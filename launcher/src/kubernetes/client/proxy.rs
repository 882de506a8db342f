//! The proxy on the way to an API server, as kubectl chooses it: the kubeconfig's own, else the environment's.
//!
//! kube takes `HTTPS_PROXY` for every server, and holds `NO_PROXY` against the proxy's name in place of the server's.

use std::net::IpAddr;

use http::Uri;
use syringe_core::text::clean;

use crate::error::Failure;

/// The proxy of the environment for `server`, if it is to be used there.
pub(crate) fn of_environment(server: &Uri, variable: impl Fn(&str) -> Option<String>) -> Option<String> {
    let named = |upper: &str| {
        let either = variable(upper).filter(|value| !value.is_empty());
        either.or_else(|| variable(&upper.to_ascii_lowercase()).filter(|value| !value.is_empty()))
    };
    let proxy = named(if server.scheme_str() == Some("http") { "HTTP_PROXY" } else { "HTTPS_PROXY" })?;
    let host = server.host()?.trim_matches(['[', ']']).to_ascii_lowercase();
    let address = host.parse::<IpAddr>().ok();
    let is_here = host == "localhost" || address.is_some_and(|address| address.is_loopback());
    let exempt = |list: String| list.split(',').any(|entry| matches(entry.trim(), &host, address, server.port_u16()));
    if is_here || named("NO_PROXY").is_some_and(exempt) {
        return None;
    }
    // As everywhere else, a proxy without a scheme is a plain one.
    Some(if proxy.contains("://") { proxy } else { format!("http://{proxy}") })
}

/// A proxy's address.
pub(crate) fn parse(proxy: &str) -> Result<Uri, Failure> {
    let uri: Option<Uri> = proxy.parse().ok();
    uri.filter(|uri| matches!(uri.scheme_str(), Some("http" | "https" | "socks5"))).ok_or_else(|| {
        // Not the whole text: there may be a password in it.
        let place = clean(proxy.rsplit('@').next().unwrap_or_default(), 80);
        let next = "Name one as http://HOST:PORT, https://HOST:PORT or socks5://HOST:PORT (proxy-url in the kubeconfig, \
                    HTTPS_PROXY), or exempt the API server with NO_PROXY.";
        Failure::new(format!("Using the proxy {place}"), "it is no address of a proxy that is understood", next)
    })
}

/// A proxy's address without what is secret in it.
pub(crate) fn shown(proxy: &Uri) -> String {
    let place = proxy.authority().map(|authority| authority.as_str().rsplit('@').next().unwrap_or_default());
    format!("{}://{}", proxy.scheme_str().unwrap_or("http"), place.unwrap_or_default())
}

/// Whether an entry of `NO_PROXY` speaks of the host: `*`, a name and what is below it, an address, or a range of them.
fn matches(entry: &str, host: &str, address: Option<IpAddr>, port: Option<u16>) -> bool {
    if let Some((network, length)) = entry.split_once('/') {
        return address.is_some_and(|address| is_within(address, network, length));
    }
    let entry = entry.to_ascii_lowercase();
    let (name, wanted) = match entry.rsplit_once(':') {
        Some((name, number)) if !name.contains(':') && number.parse::<u16>().is_ok() => (name, number.parse().ok()),
        _ => (entry.as_str(), None),
    };
    if wanted.is_some() && wanted != port {
        return false;
    }
    let name = name.trim_start_matches("*.").trim_start_matches('.');
    !name.is_empty() && (name == "*" || host == name || host.ends_with(&format!(".{name}")))
}

fn is_within(address: IpAddr, network: &str, length: &str) -> bool {
    let (Ok(network), Ok(length)) = (network.parse::<IpAddr>(), length.parse::<u32>()) else { return false };
    let bits = |address: IpAddr| match address {
        IpAddr::V4(address) => (u128::from(address.to_bits()), 32_u32),
        IpAddr::V6(address) => (address.to_bits(), 128),
    };
    let ((one, width), (other, same_width)) = (bits(address), bits(network));
    let Some(rest) = width.checked_sub(length) else { return false };
    width == same_width && (one ^ other).checked_shr(rest).unwrap_or(0) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(server: &str, variables: &[(&str, &str)]) -> Option<String> {
        let value = |name: &str| variables.iter().find(|(own, _)| *own == name).map(|(_, value)| (*value).to_owned());
        of_environment(&server.parse().expect("an address"), value)
    }

    #[test]
    fn the_environment_s_proxy_is_for_servers_that_no_proxy_does_not_name() {
        let with = |server: &str, exempt: &str| chosen(server, &[("https_proxy", "proxy:3128"), ("NO_PROXY", exempt)]);
        let server = "https://api.prod.example:6443";
        for other in ["", "prod", "example.org", "10.0.0.0/8", "api.prod.example:443", "proxy"] {
            assert_eq!(with(server, other).as_deref(), Some("http://proxy:3128"), "{other}");
        }
        for own in ["*", "a, .example", "prod.example", "*.prod.example", "API.prod.example", "example:6443"] {
            assert_eq!(with(server, own), None, "{own}");
        }
        assert_eq!(with("https://10.1.2.3", "10.0.0.0/8"), None);
        assert!(with("https://11.1.2.3", "10.0.0.0/8").is_some() && with("https://11.1.2.3", "10.0.0.0/80").is_some());
        assert_eq!(with("https://[fd00::7]:6443", "fd00::/8"), None);
    }

    #[test]
    fn a_server_on_this_machine_and_one_of_another_scheme_take_none() {
        for server in ["https://127.0.0.1:6443", "https://localhost", "https://[::1]:1", "http://api.example"] {
            assert_eq!(chosen(server, &[("HTTPS_PROXY", "http://proxy:3128")]), None, "{server}");
        }
        assert!(chosen("http://api.example", &[("HTTP_PROXY", "http://proxy:3128")]).is_some());
    }

    #[test]
    fn what_is_shown_of_a_proxy_is_no_password() {
        assert_eq!(shown(&"http://user:secret@proxy:3128".parse().expect("an address")), "http://proxy:3128");
    }
}
