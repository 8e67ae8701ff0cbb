//! Whether the settings are those that were meant.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;

use super::Given;
use super::diagnosis::Diagnosis;
use super::words::list;
use crate::config::{Config, Misspelt, VARIABLES};
use crate::machine::Machine;

const CHECK: &str = "settings";

/// The variables on which what is checked depends.
const DECISIVE: [&str; 5] = ["HOST", "PORT", "WORKER_POOL_SIZE", "MAX_CLIENTS", "HTTP_ADDR"];

/// Looks at the variables of this process, and at those of the daemon that is running.
pub(super) fn check(machine: &Machine, daemon: Option<u32>, given: &Given) -> Diagnosis {
    let theirs = daemon.and_then(|pid| Some((pid, config_of(machine, pid)?)));
    judge(given, theirs.as_ref().map(|(pid, theirs)| (*pid, theirs)))
}

/// The settings of a process, if one may see them.
fn config_of(machine: &Machine, pid: u32) -> Option<Config> {
    let environment = fs::read(machine.path(&format!("proc/{pid}/environ"))).ok()?;
    let variables = environment.split(|byte| *byte == 0).filter_map(|variable| {
        let equals = variable.iter().position(|byte| *byte == b'=')?;
        let name = str::from_utf8(&variable[..equals]).ok()?;
        // The others are not looked at, nor is the file that one of them may name.
        let value = || OsStr::from_bytes(&variable[equals + 1..]).to_owned();
        DECISIVE.contains(&name).then(|| (name.into(), value()))
    });
    Config::from_vars(variables).ok().map(|(config, _)| config)
}

fn judge(given: &Given, theirs: Option<(u32, &Config)>) -> Diagnosis {
    let Given { config, misspelt, file } = *given;
    if !misspelt.is_empty() {
        let told: Vec<_> = misspelt.iter().map(Misspelt::to_string).collect();
        return Diagnosis::finding(
            CHECK,
            told.join("; "),
            "what it was to set has its default",
            "# correct the name, or remove the variable",
        );
    }
    let others: Vec<_> = theirs
        .into_iter()
        .flat_map(|(_, theirs)| theirs.values().into_iter().zip(config.values()))
        .filter(|((name, theirs), (_, ours))| DECISIVE.contains(name) && theirs != ours)
        .map(|((name, theirs), _)| format!("{name}={theirs}"))
        .collect();
    if let (Some((pid, _)), [_, ..]) = (theirs, &others[..]) {
        return Diagnosis::unknown(
            CHECK,
            format!(
                "the running wakeupd (pid {pid}) has {}: give this its environment, or what follows may not be true of it",
                list(&others)
            ),
        );
    }
    let set: Vec<_> = VARIABLES
        .iter()
        .zip(config.values())
        .filter(|(variable, (_, value))| variable.default != value)
        .map(|(variable, (_, value))| format!("{}={value}", variable.name))
        .collect();
    let from = file.map(|file| format!(" (env file: {})", file.display())).unwrap_or_default();
    match &set[..] {
        [] => Diagnosis::ok(CHECK, format!("the defaults{from}")),
        set => Diagnosis::ok(CHECK, format!("{}, and the defaults{from}", set.join(", "))),
    }
}

#[cfg(test)]
mod tests {
    use super::super::diagnosis::Outcome;
    use super::*;
    use crate::machine::fake::Fake;

    fn checked(variables: &[(&str, &str)], environ: &str) -> (Outcome, String) {
        let fake = Fake::new(&[("proc/7/environ", environ)]);
        let variables = variables.iter().map(|(name, value)| (name.into(), value.into()));
        let (config, misspelt) = Config::from_vars(variables).unwrap();
        let given = Given { config: &config, misspelt: &misspelt, file: None };
        let diagnosis = check(&fake.0, Some(7), &given);
        (diagnosis.result, diagnosis.seen)
    }

    #[test]
    fn the_settings_are_told_and_held_against_the_daemons() {
        let ours = [("PORT", "7000"), ("LOG_LEVEL", "DEBUG")];
        for (variables, environ, outcome, seen) in [
            (&[][..], "", Outcome::Ok, "the defaults"),
            (&[], "HOST=\0PORT=x\0", Outcome::Ok, "the defaults"),
            (&[], "HOST=\0DENY_FILE=/nowhere\0", Outcome::Ok, "the defaults"),
            (&[], "A=B=C\0MAX_CLIENTS=200000\0LOG_LEVEL=DEBUG\0junk", Outcome::Ok, "the defaults"),
            (&ours, "PORT=7000\0", Outcome::Ok, "PORT=7000, LOG_LEVEL=DEBUG, and the defaults"),
            (
                &ours,
                "PORT=7000\0HOST=::\0MAX_CLIENTS=9",
                Outcome::Unknown,
                "the running wakeupd (pid 7) has HOST=:: and MAX_CLIENTS=9: give this its environment, or what follows may not be true of it",
            ),
            (
                &[("LOGLEVEL", "DEBUG")],
                "",
                Outcome::Finding,
                "unknown variable LOGLEVEL: did you mean LOG_LEVEL?",
            ),
        ] {
            assert_eq!(checked(variables, environ), (outcome, seen.to_owned()));
        }
    }

    #[test]
    fn the_decisive_variables_exist() {
        for name in DECISIVE {
            assert!(VARIABLES.iter().any(|variable| variable.name == name), "{name}");
        }
    }
}
