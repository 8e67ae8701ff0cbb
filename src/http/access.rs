//! Access control: which requests may see which data.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use constant_time_eq::constant_time_eq;
use hyper::header::{AUTHORIZATION, HOST, HeaderValue};
use hyper::{Request, StatusCode, Version};
use sha2::{Digest, Sha256};

use super::response::Failure;
use crate::config::{Hosts, Token};

/// The access rules.
#[derive(Debug)]
pub(super) struct Access {
    /// Whether the endpoint is bound to loopback, so only this machine can connect.
    is_loopback: bool,
    hosts: Hosts,
    token: Option<Token>,
}

impl Access {
    pub(super) fn new(address: SocketAddr, hosts: Hosts, token: Option<Token>) -> Self {
        Self { is_loopback: address.ip().is_loopback(), hosts, token }
    }

    /// Refuses a request with an unknown host name, because a malicious web page can make its own name
    /// resolve to this address in a browser (DNS rebinding).
    pub(super) fn check_host<B>(&self, request: &Request<B>) -> Result<(), Failure> {
        let authority = request.uri().authority().map(|authority| authority.as_str().as_bytes());
        let mut fields = request.headers().get_all(HOST).iter();
        let field = fields.next().map(HeaderValue::as_bytes);
        let is_single = fields.next().is_none();
        let host = match authority.or(field) {
            // A client that sends no Host field is not a browser.
            None if request.version() < Version::HTTP_11 => return Ok(()),
            None => {
                return Err(Failure::new(
                    StatusCode::BAD_REQUEST,
                    "the request has no Host header field, which HTTP/1.1 requires",
                ));
            }
            Some(host) => str::from_utf8(host).ok().filter(|_| is_single).and_then(name_of),
        };
        let is_known = host.is_some_and(|host| {
            is_address(host) || host.eq_ignore_ascii_case("localhost") || self.hosts.contains(host)
        });
        if is_known {
            return Ok(());
        }
        Err(Failure::new(
            StatusCode::MISDIRECTED_REQUEST,
            "the host name of this request is not allowed. Use an IP address or localhost, or add the name to HTTP_HOSTS.",
        ))
    }

    /// Refuses an unauthorized request for clients' addresses.
    pub(super) fn check_admin<B>(&self, request: &Request<B>) -> Result<(), Denial> {
        if self.is_loopback {
            return Ok(());
        }
        let token = self.token.as_ref().ok_or(Denial::NotConfigured)?;
        let shown = request.headers().get(AUTHORIZATION).map(HeaderValue::as_bytes);
        let shown = shown.and_then(|value| {
            let (scheme, token) = value.split_at_checked("Bearer ".len())?;
            scheme.eq_ignore_ascii_case(b"Bearer ").then_some(token)
        });
        match shown {
            None => Err(Denial::NoToken),
            Some(shown) if matches(shown, token) => Ok(()),
            Some(_) => Err(Denial::WrongToken),
        }
    }
}

/// Compares a presented token with `ADMIN_TOKEN`, in a time that reveals neither its length nor its content.
fn matches(shown: &[u8], token: &Token) -> bool {
    constant_time_eq(&Sha256::digest(shown), &Sha256::digest(token.reveal()))
}

/// Why a request is denied the clients' addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Denial {
    /// The endpoint is open to other machines, and `ADMIN_TOKEN` is not set.
    NotConfigured,
    NoToken,
    /// The request shows another token, possibly to guess the right one.
    WrongToken,
}

impl From<Denial> for Failure {
    fn from(denial: Denial) -> Self {
        match denial {
            Denial::NotConfigured => Self::new(
                StatusCode::FORBIDDEN,
                "client addresses are shown only if HTTP_ADDR is a loopback address or ADMIN_TOKEN is set. Set one of the two.",
            ),
            Denial::NoToken => Self::new(
                StatusCode::UNAUTHORIZED,
                "the token is missing. Send the value of ADMIN_TOKEN as `Authorization: Bearer TOKEN`.",
            ),
            Denial::WrongToken => Self::new(
                StatusCode::UNAUTHORIZED,
                "the token is wrong. Send the value of ADMIN_TOKEN as `Authorization: Bearer TOKEN`.",
            ),
        }
    }
}

/// The name in `name:port` or `name`.
fn name_of(authority: &str) -> Option<&str> {
    let is_port = |port: &str| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    match authority.rsplit_once(':') {
        Some((name, port)) if !port.ends_with(']') => is_port(port).then_some(name),
        _ => Some(authority),
    }
}

/// Whether `host` is an IP address in URL form.
fn is_address(host: &str) -> bool {
    match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(ip) => ip.parse::<Ipv6Addr>().is_ok(),
        None => matches!(host.parse(), Ok(IpAddr::V4(_))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access(address: &str, token: Option<&str>) -> Access {
        let vars = [
            ("HTTP_ADDR", address),
            ("HTTP_HOSTS", "status.example"),
            ("ADMIN_TOKEN", token.unwrap_or("")),
        ];
        let vars = vars.map(|(name, value)| (name.into(), value.into()));
        let (config, _) = crate::config::Config::from_vars(vars).unwrap();
        Access::new(config.http_addr.unwrap(), config.http_hosts, config.admin_token)
    }

    #[test]
    fn only_the_exact_token_matches() {
        let token = access("0.0.0.0:80", Some("0123456789abcdef")).token.unwrap();
        assert!(matches(b"0123456789abcdef", &token));
        for other in ["", "0123456789abcde", "0123456789abcdef0", "0123456789abcdeF"] {
            assert!(!matches(other.as_bytes(), &token), "{other}");
        }
    }

    fn status(result: Result<(), Failure>) -> u16 {
        result.err().map_or(200, |failure| failure.status.as_u16())
    }

    #[test]
    fn requests_for_an_unknown_host_are_rejected() {
        let access = access("127.0.0.1:80", None);
        for (host, expected) in [
            ("127.0.0.1:7561", 200),
            ("192.0.2.1", 200),
            ("[::1]:7561", 200),
            ("[2001:db8::1]", 200),
            ("localhost", 200),
            ("LocalHost:80", 200),
            ("STATUS.example:443", 200),
            ("evil.example", 421),
            ("status.example.evil.example", 421),
            ("localhost.evil.example:7561", 421),
            ("127.0.0.1.evil.example", 421),
            ("localhost:", 421),
            ("localhost:80:80", 421),
            ("::1", 421),
            ("[127.0.0.1]", 421),
            ("[::1]evil.example", 421),
            ("", 421),
        ] {
            let request = Request::get("/").header(HOST, host).body(()).unwrap();
            assert_eq!(status(access.check_host(&request)), expected, "{host}");
        }
    }

    #[test]
    fn only_http_1_0_requests_may_omit_the_host() {
        let access = access("127.0.0.1:80", None);
        let request = Request::get("/").body(()).unwrap();
        assert_eq!(status(access.check_host(&request)), 400);
        let request = Request::get("/").version(Version::HTTP_10).body(()).unwrap();
        assert_eq!(status(access.check_host(&request)), 200);
        let two = Request::get("/").header(HOST, "localhost").header(HOST, "evil.example");
        assert_eq!(status(access.check_host(&two.body(()).unwrap())), 421);
        let absolute = Request::get("http://evil.example/").header(HOST, "localhost");
        assert_eq!(status(access.check_host(&absolute.body(()).unwrap())), 421);
    }

    #[test]
    fn an_endpoint_beyond_loopback_requires_the_token_for_addresses() {
        let secret = "correct-horse-battery";
        for (address, token, shown, expected) in [
            ("127.0.0.1:80", None, None, 200),
            ("[::1]:80", Some(secret), None, 200),
            ("0.0.0.0:80", None, None, 403),
            ("192.0.2.1:80", None, Some("Bearer correct-horse-battery"), 403),
            ("0.0.0.0:80", Some(secret), None, 401),
            ("0.0.0.0:80", Some(secret), Some("Bearer correct-horse"), 401),
            ("0.0.0.0:80", Some(secret), Some("Basic correct-horse-battery"), 401),
            ("0.0.0.0:80", Some(secret), Some("Bearer"), 401),
            ("0.0.0.0:80", Some(secret), Some("Bearer correct-horse-battery"), 200),
            ("[::]:80", Some(secret), Some("bearer correct-horse-battery"), 200),
        ] {
            let mut request = Request::get("/clients");
            if let Some(shown) = shown {
                request = request.header(AUTHORIZATION, shown);
            }
            let result = access(address, token).check_admin(&request.body(()).unwrap());
            assert_eq!(
                status(result.map_err(Into::into)),
                expected,
                "{address} {token:?} {shown:?}"
            );
        }
    }
}
