//! Settings of the HTTP endpoint: its address, its allowed host names and its access token.

use std::fmt::{self, Display};

use super::NONE;

/// The minimum length of a token. Sixteen random letters and digits cannot be guessed.
const LEAST_TOKEN: usize = 16;

/// The host names, in lower case, that the `Host` header of a request can carry in addition to IP addresses
/// and `localhost`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hosts(Vec<String>);

impl Hosts {
    /// Whether `host`, a name without a port, is allowed.
    #[must_use]
    pub fn contains(&self, host: &str) -> bool {
        self.0.iter().any(|known| known.eq_ignore_ascii_case(host))
    }
}

impl Display for Hosts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() { f.write_str(NONE) } else { f.write_str(&self.0.join(",")) }
    }
}

/// The operator's access token, `ADMIN_TOKEN`.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// Exposes the secret.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token")
    }
}

pub(super) fn hosts(text: &str) -> Result<Hosts, Option<String>> {
    if text.eq_ignore_ascii_case(NONE) {
        return Ok(Hosts::default());
    }
    let names = text.split(',').map(str::trim).filter(|name| !name.is_empty());
    let is_name = |name: &str| name.chars().all(|c| c.is_ascii_alphanumeric() || "-._".contains(c));
    let mut hosts = Vec::new();
    for name in names {
        if !is_name(name) {
            return Err(Some(format!(
                "\"{}\" is not a host name: write only letters, digits, hyphens, dots and underscores",
                name.escape_debug()
            )));
        }
        hosts.push(name.to_ascii_lowercase());
    }
    Ok(Hosts(hosts))
}

pub(super) fn token(text: &str) -> Result<Token, Option<String>> {
    let is_showable = text.chars().all(|c| c.is_ascii_graphic());
    if text.len() < LEAST_TOKEN || !is_showable { Err(None) } else { Ok(Token(text.to_owned())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_that_is_short_or_not_header_safe_is_rejected() {
        let valid = token("0123456789abcdef").unwrap();
        assert_eq!(format!("{valid:?}"), "Token");
        for wrong in ["0123456789abcde", "0123456789 abcdef", "0123456789abcdéf"] {
            assert!(token(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn hosts_match_regardless_of_case() {
        let hosts = hosts("Status.Example.com, gateway").unwrap();
        assert!(hosts.contains("status.example.COM") && hosts.contains("gateway"));
        assert!(!hosts.contains("example.com") && !hosts.contains(""));
        assert_eq!(hosts.to_string(), "status.example.com,gateway");
        assert!(super::hosts("gateway:80").is_err() && super::hosts("http://a").is_err());
    }
}
