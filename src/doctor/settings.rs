//! Checks whether the settings are the intended ones.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt;

use super::diagnosis::Diagnosis;
use super::words::list;
use crate::catalogue::machine;
use crate::config::{Config, ENV_FILE, Loaded, Misspelt};
use crate::machine::Machine;

const CHECK: &str = "settings";

/// The variables that affect the other checks.
const DECISIVE: [&str; 5] = ["HOST", "PORT", "WORKER_POOL_SIZE", "MAX_CLIENTS", "HTTP_ADDR"];

/// The environment of the running daemon.
#[derive(Debug)]
pub(super) struct Theirs {
    pid: u32,
    variables: Vec<(OsString, OsString)>,
    /// Whether an env file can add variables.
    may_have_env_file: bool,
}

impl Theirs {
    pub(super) fn of(machine: &Machine, pid: u32) -> Option<Self> {
        let environment = fs::read(machine.path(&format!("proc/{pid}/environ"))).ok()?;
        let variables = environment.split(|byte| *byte == 0).filter_map(|variable| {
            let equals = variable.iter().position(|byte| *byte == b'=')?;
            let part = |bytes| OsStr::from_bytes(bytes).to_owned();
            Some((part(&variable[..equals]), part(&variable[equals + 1..])))
        });
        let variables: Vec<_> = variables.collect();
        let default = machine.path(&format!("proc/{pid}/cwd/{}", ENV_FILE.default));
        let may_have_env_file =
            variables.iter().any(|(name, _)| name == ENV_FILE.name) || default.is_file();
        Some(Self { pid, variables, may_have_env_file })
    }

    /// The value of a variable, if it is valid UTF-8.
    pub(super) fn value(&self, name: &str) -> Option<&str> {
        self.variables.iter().find(|(other, _)| other == name)?.1.to_str()
    }

    /// The daemon's settings, parsed from its [`DECISIVE`] variables alone.
    fn config(&self) -> Option<Config> {
        let decisive = |name: &OsString| DECISIVE.iter().any(|it| name == it);
        let variables = self.variables.iter().filter(|(name, _)| decisive(name)).cloned();
        Config::from_vars(variables).ok().map(|(config, _)| config)
    }

    /// Whether the environment alone determines the value of a variable.
    fn determines(&self, name: &str) -> bool {
        self.value(name).is_some() || !self.may_have_env_file
    }
}

/// Checks the variables of this process against those of the running daemon.
pub(super) fn check(loaded: &Loaded, theirs: Option<&Theirs>) -> Diagnosis {
    let Loaded { config, misspelt, file } = loaded;
    if !misspelt.is_empty() {
        let told = misspelt
            .iter()
            .map(|Misspelt { name, meant }| format!("{} ({meant}?)", name.escape_debug()));
        let variables = list(&told.collect::<Vec<_>>());
        let problem = machine::SETTING_MISSPELT.with(&[("variables", &variables)]);
        return Diagnosis::finding(CHECK, problem);
    }
    if let Some(theirs) = theirs
        && let differing @ [_, ..] = &differing(theirs, config)[..]
    {
        return Diagnosis::unknown(
            CHECK,
            format!(
                "the running wakeupd (pid {}) has {}, unlike the doctor: run the doctor with the daemon's environment, or the other results can be wrong for this daemon",
                theirs.pid,
                list(differing)
            ),
        );
    }
    let changed = config.values().into_iter().filter(|(setting, value)| setting.default != value);
    let set: Vec<_> = changed.map(|(setting, value)| format!("{}={value}", setting.name)).collect();
    let from =
        file.as_ref().map(|file| format!(" (env file: {})", file.display())).unwrap_or_default();
    match &set[..] {
        [] => Diagnosis::ok(CHECK, format!("all settings have their defaults{from}")),
        set => Diagnosis::ok(
            CHECK,
            format!("{}; the others have their defaults{from}", set.join(", ")),
        ),
    }
}

/// Lists the daemon's [`DECISIVE`] settings that differ from `ours`.
fn differing(theirs: &Theirs, ours: &Config) -> Vec<String> {
    let Some(config) = theirs.config() else { return Vec::new() };
    let pairs = config.values().into_iter().zip(ours.values());
    let differing = pairs.filter(|((setting, value), (_, ours))| {
        DECISIVE.contains(&setting.name) && theirs.determines(setting.name) && value != ours
    });
    differing.map(|((setting, value), _)| format!("{}={value}", setting.name)).collect()
}

#[cfg(test)]
mod tests {
    use super::super::diagnosis::Outcome;
    use super::*;
    use crate::config::SETTINGS;
    use crate::machine::fake::Fake;

    const DEFAULTS: &str = "all settings have their defaults";

    fn checked(variables: &[(&str, &str)], environ: &str) -> (Outcome, String) {
        checked_beside(variables, &[("proc/7/environ", environ)])
    }

    fn checked_beside(variables: &[(&str, &str)], files: &[(&str, &str)]) -> (Outcome, String) {
        let fake = Fake::new(files);
        let variables = variables.iter().map(|(name, value)| (name.into(), value.into()));
        let (config, misspelt) = Config::from_vars(variables).unwrap();
        let loaded = Loaded { config, misspelt, file: None };
        let diagnosis = check(&loaded, Theirs::of(&fake.0, 7).as_ref());
        (diagnosis.result, diagnosis.seen)
    }

    #[test]
    fn settings_are_listed_and_compared_with_the_running_daemon() {
        let ours = [("PORT", "7000"), ("LOG_LEVEL", "DEBUG")];
        for (variables, environ, outcome, seen) in [
            (&[][..], "", Outcome::Ok, DEFAULTS),
            (&[], "HOST=\0PORT=x\0", Outcome::Ok, DEFAULTS),
            (&[], "HOST=\0DENY_FILE=/nowhere\0", Outcome::Ok, DEFAULTS),
            (&[], "A=B=C\0MAX_CLIENTS=200000\0LOG_LEVEL=DEBUG\0junk", Outcome::Ok, DEFAULTS),
            (
                &ours,
                "PORT=7000\0",
                Outcome::Ok,
                "PORT=7000, LOG_LEVEL=DEBUG; the others have their defaults",
            ),
            (
                &ours,
                "PORT=7000\0HOST=::\0MAX_CLIENTS=9",
                Outcome::Unknown,
                "the running wakeupd (pid 7) has HOST=:: and MAX_CLIENTS=9, unlike the doctor: run the doctor with the daemon's environment, or the other results can be wrong for this daemon",
            ),
            (
                &[("LOGLEVEL", "DEBUG")],
                "",
                Outcome::Finding,
                "The environment has unknown variables that look like settings: LOGLEVEL (LOG_LEVEL?).",
            ),
        ] {
            assert_eq!(checked(variables, environ), (outcome, seen.to_owned()));
        }
    }

    #[test]
    fn settings_from_an_env_file_are_not_compared() {
        let ours = [("PORT", "7000")];
        let (outcome, seen) = checked(&ours, "A=B\0");
        assert!(outcome == Outcome::Unknown && seen.contains("has PORT=7561"), "{seen}");
        for files in [
            &[("proc/7/environ", "A=B\0"), ("proc/7/cwd/.env", "PORT=7000\n")][..],
            &[("proc/7/environ", "ENV_FILE=/etc/wakeupd.env\0")],
        ] {
            assert_eq!(checked_beside(&ours, files).0, Outcome::Ok);
        }
        let files = [("proc/7/environ", "PORT=7001\0"), ("proc/7/cwd/.env", "")];
        assert_eq!(checked_beside(&ours, &files).0, Outcome::Unknown);
    }

    #[test]
    fn the_decisive_variables_are_settings() {
        for name in DECISIVE {
            assert!(SETTINGS.iter().any(|setting| setting.name == name), "{name}");
        }
    }
}
