//! `from_environment`: the proxy for an API server, chosen as kubectl does. `parse`, `shown`: the address of a proxy.
//!
//! kube does this differently: it uses `HTTPS_PROXY` for every server, and compares `NO_PROXY` with the proxy instead
//! of the server.

use std::net::IpAddr;

use http::Uri;
use hyper_util::client::proxy::matcher::Matcher;
use syringe_core::text::clean;

use crate::Failure;

/// Returns the proxy from the environment for `server`, if one applies to this server.
pub fn from_environment(server: &Uri, variable: impl Fn(&str) -> Option<String>) -> Option<String> {
    let named = |upper: &str| {
        let either = variable(upper).filter(|value| !value.is_empty());
        either.or_else(|| variable(&upper.to_ascii_lowercase()).filter(|value| !value.is_empty()))
    };
    let proxy = named(if server.scheme_str() == Some("http") { "HTTP_PROXY" } else { "HTTPS_PROXY" })?;
    let host = server.host()?.trim_matches(['[', ']']);
    let is_loopback = host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    if host.eq_ignore_ascii_case("localhost")
        || is_loopback
        || named("NO_PROXY").is_some_and(|list| exempts(&list, server))
    {
        return None;
    }
    // A proxy without a scheme is an HTTP proxy.
    Some(if proxy.contains("://") { proxy } else { format!("http://{proxy}") })
}

/// Parses the address of a proxy.
pub fn parse(proxy: &str) -> Result<Uri, Failure> {
    let uri: Option<Uri> = proxy.parse().ok();
    uri.filter(|uri| matches!(uri.scheme_str(), Some("http" | "https" | "socks5"))).ok_or_else(|| {
        // The message quotes only the part of the address without user and password.
        let place = clean(proxy.rsplit('@').next().unwrap_or_default(), 80);
        let next = "Use http://HOST:PORT, https://HOST:PORT or socks5://HOST:PORT (proxy-url in the kubeconfig, \
                    HTTPS_PROXY), or exempt the API server with NO_PROXY.";
        Failure::new(format!("Using the proxy {place}"), "the address is not a supported proxy address", next)
    })
}

/// Returns the address of a proxy without user and password.
pub fn shown(proxy: &Uri) -> String {
    let place = proxy.authority().map(|authority| authority.as_str().rsplit('@').next().unwrap_or_default());
    format!("{}://{}", proxy.scheme_str().unwrap_or("http"), place.unwrap_or_default())
}

/// Returns whether `NO_PROXY` contains the server. hyper-util's matcher works like curl. kubectl also supports ports
/// and `*.example`.
fn exempts(list: &str, server: &Uri) -> bool {
    let port = server.port_u16().or(if server.scheme_str() == Some("http") { Some(80) } else { Some(443) });
    let entry_for_port = |entry: &str| -> Option<String> {
        let entry = entry.trim();
        let (name, wanted) = match entry.rsplit_once(':') {
            Some((name, number)) if !name.contains(':') => (name, Some(number.parse::<u16>().ok()?)),
            _ => (entry, None),
        };
        (wanted.is_none() || wanted == port).then(|| name.trim_start_matches("*.").to_owned())
    };
    let entries: Vec<String> = list.split(',').filter_map(entry_for_port).collect();
    // The matcher requires a proxy address. The address is not used: only the result for `NO_PROXY` is needed.
    Matcher::builder().all("http://proxy").no(entries.join(",")).build().intercept(server).is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(server: &str, variables: &[(&str, &str)]) -> Option<String> {
        let value = |name: &str| variables.iter().find(|(own, _)| *own == name).map(|(_, value)| (*value).to_owned());
        from_environment(&server.parse().expect("an address"), value)
    }

    #[test]
    fn the_proxy_of_the_environment_is_used_unless_no_proxy_names_the_server() {
        let with = |server: &str, exempt: &str| chosen(server, &[("https_proxy", "proxy:3128"), ("NO_PROXY", exempt)]);
        let server = "https://api.prod.example:6443";
        for other in ["", "prod", "example.org", "d.example", "*:443", "10.0.0.0/8", "api.prod.example:443", "proxy"] {
            assert_eq!(with(server, other).as_deref(), Some("http://proxy:3128"), "{other}");
        }
        let exempt =
            ["*", "a, .example", "prod.example", "*.prod.example", "API.prod.example", "example:6443", "x:1,*:6443"];
        for own in exempt {
            assert_eq!(with(server, own), None, "{own}");
        }
        assert_eq!(with("https://10.1.2.3", "10.0.0.0/8"), None);
        assert!(with("https://11.1.2.3", "10.0.0.0/8").is_some() && with("https://11.1.2.3", "10.0.0.0/80").is_some());
        assert_eq!(with("https://[fd00::7]:6443", "fd00::/8"), None);
    }

    #[test]
    fn a_loopback_server_or_another_scheme_uses_no_proxy() {
        for server in ["https://127.0.0.1:6443", "https://localhost", "https://[::1]:1", "http://api.example"] {
            assert_eq!(chosen(server, &[("HTTPS_PROXY", "http://proxy:3128")]), None, "{server}");
        }
        assert!(chosen("http://api.example", &[("HTTP_PROXY", "http://proxy:3128")]).is_some());
    }

    #[test]
    fn the_shown_address_of_a_proxy_has_no_password() {
        assert_eq!(shown(&"http://user:secret@proxy:3128".parse().expect("an address")), "http://proxy:3128");
    }
}
