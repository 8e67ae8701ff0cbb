//! The properties of a setting.

use std::fmt::{self, Display};

use super::SETTINGS;

/// A setting of the daemon: an environment variable.
#[derive(Debug)]
pub struct Setting {
    /// The name of the variable, in upper case.
    pub name: &'static str,
    /// The description in `--help`, the manual page, the README and `.env.example`. Code is in backticks.
    pub about: &'static str,
    /// The value if the variable is unset or empty.
    pub default: &'static str,
    /// The valid values.
    pub values: Values,
    /// The heading under which documents list the setting.
    pub group: Group,
    /// Where the value is shown.
    pub secrecy: Secrecy,
}

/// The valid values of a setting, as text: the end of the sentence "It must be …".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Values {
    /// A whole number.
    Number {
        /// The unit in the plural. Empty if the number has no unit.
        unit: &'static str,
        /// The smallest number.
        least: u64,
        /// The largest number.
        most: u64,
    },
    /// Any other kind of value.
    Text(&'static str),
}

/// The groups of settings, in display order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// The socket, the clients' expiration and the workers.
    Basics,
    /// The guard: its mode, its caps on clients, and its networks.
    Guard,
    /// Snapshots.
    Restart,
    /// The HTTP endpoint.
    Http,
    /// The log and the env file.
    Logging,
}

/// Where the value of a setting is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Secrecy {
    /// Everywhere, also in `/status`.
    Public,
    /// Only to the operator, in the log and by `--print-config`, because it can contain networks or paths.
    Operator,
    /// Nowhere.
    Secret,
}

impl Setting {
    /// The setting with this name, if there is one.
    #[must_use]
    pub fn named(name: &str) -> Option<&'static Self> {
        SETTINGS.into_iter().find(|setting| setting.name == name)
    }

    /// The default as prose. Lines break at spaces, so the entries of a list get some between them.
    #[must_use]
    pub fn prose_default(&self) -> String {
        self.default.replace(',', ", ")
    }

    /// The description as plain text, without backticks.
    #[must_use]
    pub fn plain_about(&self) -> String {
        self.about.replace('`', "")
    }
}

impl Display for Values {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number { unit: "", least, most } => {
                write!(f, "a whole number from {least} to {most}")
            }
            Self::Number { unit, least, most } => {
                write!(f, "a whole number of {unit} from {least} to {most}")
            }
            Self::Text(text) => f.write_str(text),
        }
    }
}

impl Group {
    /// All groups, in display order.
    pub const ALL: [Self; 5] =
        [Self::Basics, Self::Guard, Self::Restart, Self::Http, Self::Logging];

    /// The heading of the group.
    #[must_use]
    pub const fn heading(self) -> &'static str {
        match self {
            Self::Basics => "Basics",
            Self::Guard => "Limits and guard",
            Self::Restart => "Restart (snapshots)",
            Self::Http => "HTTP endpoint",
            Self::Logging => "Logging and env file",
        }
    }
}
