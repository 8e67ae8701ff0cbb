//! Parses and prints the values of settings, each by its type.

use std::fmt::Display;
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::Deref;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use super::error::Mistake;
use super::setting::{Setting, Values};
use super::{DenyFile, HIDDEN, Hosts, LogFormat, LogLevel, NONE, Token, http, snapshot};
use crate::engine::guard::{Mode, Nat64Prefixes, Networks};
use crate::net;

/// Why a text is not a valid value: the specific error, if the text alone does not make it obvious.
pub(super) type Invalid = Option<String>;

/// A type of setting.
pub(super) trait Value: Sized {
    /// Whether the value is free text, which the log quotes and escapes.
    const IS_FREE_TEXT: bool = false;

    /// Parses a text that is not empty.
    fn parse(text: &str, values: Values) -> Result<Self, Invalid>;

    /// Formats the value such that [`Self::parse`] reads it back, unless it is secret.
    fn show(&self) -> String;

    /// The value as a field of a log line. `None` omits the field.
    fn log(&self) -> Option<Box<dyn tracing::Value>> {
        let text = self.show();
        Some(if Self::IS_FREE_TEXT {
            Box::new(text)
        } else {
            Box::new(tracing::field::display(text))
        })
    }
}

/// Parses the values of all settings and collects the mistakes.
#[derive(Debug, Default)]
pub(super) struct Reader {
    pub(super) mistakes: Vec<Mistake>,
}

impl Reader {
    /// Parses a value. If it is invalid, records the mistake and returns the default.
    pub(super) fn read<T: Value>(&mut self, setting: &'static Setting, text: Option<String>) -> T {
        let default = || T::parse(setting.default, setting.values).expect("the default is valid");
        let Some(text) = text else { return default() };
        T::parse(&text, setting.values).unwrap_or_else(|detail| {
            self.mistakes.push(Mistake::new(setting, text, detail));
            default()
        })
    }
}

/// The value of `HOST`: an IP address, or a name that is not resolved yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostName(String);

impl Deref for HostName {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl Value for HostName {
    const IS_FREE_TEXT: bool = true;

    fn parse(text: &str, _: Values) -> Result<Self, Invalid> {
        if is_odd_number(text) {
            return Err(Some(
                "write an IPv4 address as four decimal numbers without leading zeros, because systems read other forms differently"
                    .to_owned(),
            ));
        }
        let is_plausible = |c: char| c.is_alphanumeric() || "-._:%".contains(c);
        // An IPv6 address has at least two colons, so a single one precedes a port.
        let has_port = text.matches(':').count() == 1;
        let is_host = text.chars().all(is_plausible) && !has_port;
        if is_host { Ok(Self(text.to_owned())) } else { Err(None) }
    }

    fn show(&self) -> String {
        self.0.clone()
    }
}

/// Whether a resolver would read `text` as an IPv4 address in hexadecimal, in octal or with fewer than four
/// numbers.
fn is_odd_number(text: &str) -> bool {
    let last = text.trim_end_matches('.').rsplit('.').next().unwrap_or_default();
    let hexadecimal = last.strip_prefix("0x").or_else(|| last.strip_prefix("0X"));
    let is_number = match hexadecimal {
        Some(digits) => digits.bytes().all(|c| c.is_ascii_hexdigit()),
        None => !last.is_empty() && last.bytes().all(|c| c.is_ascii_digit()),
    };
    is_number && text.parse::<Ipv4Addr>().is_err()
}

/// Parses a number in the range of the setting.
fn number(text: &str, values: Values) -> Result<u64, Invalid> {
    let Values::Number { least, most, .. } = values else {
        unreachable!("a numeric setting has a range");
    };
    text.parse().ok().filter(|number| (least..=most).contains(number)).ok_or(None)
}

macro_rules! number_values {
    ($($type:ty),+) => {$(
        impl Value for $type {
            fn parse(text: &str, values: Values) -> Result<Self, Invalid> {
                number(text, values)?.try_into().map_err(|_| None)
            }

            fn show(&self) -> String {
                self.to_string()
            }

            fn log(&self) -> Option<Box<dyn tracing::Value>> {
                Some(Box::new(*self))
            }
        }
    )+};
}

number_values!(u16, u32, usize);

impl Value for Duration {
    fn parse(text: &str, values: Values) -> Result<Self, Invalid> {
        number(text, values).map(Self::from_secs)
    }

    fn show(&self) -> String {
        self.as_secs().to_string()
    }

    fn log(&self) -> Option<Box<dyn tracing::Value>> {
        Some(Box::new(self.as_secs()))
    }
}

/// Parses `none` as `None`, and any other text as a value.
impl<T: Value> Value for Option<T> {
    fn parse(text: &str, values: Values) -> Result<Self, Invalid> {
        if text.eq_ignore_ascii_case(NONE) { Ok(None) } else { T::parse(text, values).map(Some) }
    }

    fn show(&self) -> String {
        self.as_ref().map_or_else(|| NONE.to_owned(), T::show)
    }

    fn log(&self) -> Option<Box<dyn tracing::Value>> {
        self.as_ref().and_then(T::log)
    }
}

impl Value for DenyFile {
    const IS_FREE_TEXT: bool = true;

    fn parse(text: &str, _: Values) -> Result<Self, Invalid> {
        Self::find(text.into()).map_err(|error| Some(error.to_string()))
    }

    fn show(&self) -> String {
        self.path()
    }
}

/// The path of the snapshot.
impl Value for PathBuf {
    const IS_FREE_TEXT: bool = true;

    fn parse(text: &str, _: Values) -> Result<Self, Invalid> {
        snapshot::path(text)
    }

    fn show(&self) -> String {
        self.display().to_string()
    }
}

impl Value for SocketAddr {
    fn parse(text: &str, _: Values) -> Result<Self, Invalid> {
        text.parse().map(net::canonical).map_err(|_| None)
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

impl Value for Hosts {
    fn parse(text: &str, _: Values) -> Result<Self, Invalid> {
        http::hosts(text)
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

impl Value for Token {
    fn parse(text: &str, _: Values) -> Result<Self, Invalid> {
        http::token(text)
    }

    fn show(&self) -> String {
        HIDDEN.to_owned()
    }
}

/// Parses a list, which can be empty. The error describes the invalid entry.
fn list<T>(text: &str) -> Result<T, Invalid>
where
    T: Default + FromStr<Err: Display>,
{
    if text.eq_ignore_ascii_case(NONE) {
        return Ok(T::default());
    }
    text.parse().map_err(|error: T::Err| Some(error.to_string()))
}

macro_rules! list_values {
    ($($type:ty),+) => {$(
        impl Value for $type {
            fn parse(text: &str, _: Values) -> Result<Self, Invalid> {
                list(text)
            }

            fn show(&self) -> String {
                let text = self.to_string();
                if text.is_empty() { NONE.to_owned() } else { text }
            }
        }
    )+};
}

list_values!(Networks, Nat64Prefixes);

macro_rules! word_values {
    ($($type:ty),+) => {$(
        impl Value for $type {
            fn parse(text: &str, _: Values) -> Result<Self, Invalid> {
                text.parse().map_err(|_| None)
            }

            fn show(&self) -> String {
                self.to_string()
            }
        }
    )+};
}

word_values!(Mode, LogLevel, LogFormat);
