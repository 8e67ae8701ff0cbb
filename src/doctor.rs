//! `wakeupd doctor`: checks the machine for the usual causes of failure and suggests remedies.
//!
//! Each check has a thin part that reads the machine's state and a pure part that judges it.

mod addresses;
mod buffers;
mod clocks;
mod conntrack;
mod diagnosis;
mod files;
mod gateway;
mod limits;
mod port;
mod reverse_path;
mod running;
mod settings;
mod sockets;
mod user;
mod words;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::process::ExitCode;

use crate::catalogue::machine;
use crate::cli::options::DoctorOptions;
use crate::config::{Config, Loaded};
use crate::machine::Machine;
use crate::{logging, output};
use addresses::Host;
use conntrack::Served;
use diagnosis::{Diagnosis, Outcome, Report};
use files::Paths;
use limits::Subject;
use port::Port;
use settings::Theirs;
use sockets::{Holder, Protocol};
use user::User;

/// Runs all checks for a daemon with these settings. The exit code is 1 if there is a finding, else 0.
#[must_use]
pub fn run(options: &DoctorOptions, loaded: &Loaded) -> ExitCode {
    let diagnoses = examine(&Machine::new("/"), loaded);
    let is_finding = |diagnosis: &Diagnosis| diagnosis.result == Outcome::Finding;
    let code = ExitCode::from(u8::from(diagnoses.iter().any(is_finding)));
    output::end("wakeupd doctor", code, show(options, &diagnoses))
}

fn examine(machine: &Machine, loaded: &Loaded) -> Vec<Diagnosis> {
    let config = &loaded.config;
    let host = Host::resolve(&config.host, config.port);
    let bind = host.as_ref().map_or(Ok(()), Host::bind);
    // A name that does not resolve may stand for any address.
    let any = SocketAddr::from(([0, 0, 0, 0], config.port));
    let bound = host.as_ref().map_or(any, |host| host.bound);
    let locals = addresses::locals();

    let port = Port { check: "port", variable: "PORT", protocol: Protocol::Udp, address: bound };
    let holder = sockets::holder(machine, Protocol::Udp, bound);
    let daemon = port::daemon(&holder);
    let subject = Subject { daemon };
    let ask = |path: &str| running::ask(config, path);
    let status = match &holder {
        Ok(Holder::Nobody) if config.port != 0 => {
            Err(format!("no process holds {port}, so no wakeupd runs here with these settings"))
        }
        _ => running::status(&ask, bound),
    };
    let told = status.as_ref().ok();
    let [receive_buffer, send_buffer] =
        buffers::check(machine, daemon, told.map(|status| &status.buffers));
    let served = Served {
        port: config.port,
        most: config.max_clients.into(),
        now: told.map(|status| status.clients.total() as u64),
    };
    let theirs = daemon.and_then(|pid| Theirs::of(machine, pid));
    let paths = Paths::new(config, theirs.as_ref());
    let user = user::of_service(machine, daemon, paths.snapshot_folder().as_deref());
    vec![
        settings::check(loaded, theirs.as_ref()),
        udp_port(machine, port, &holder, bind.is_ok().then_some(user)),
        http_port(machine, config, daemon, user),
        files::check_snapshot(machine, &paths, user),
        files::check_deny_file(&paths, user),
        running::judge(&status),
        gateway::check(&ask, &status),
        addresses::judge(&config.host, &host, &bind, &locals),
        reverse_path::check(machine, host.as_ref().ok().map(|host| host.bound.ip()), &locals),
        conntrack::check(machine, served),
        receive_buffer,
        send_buffer,
        limits::check_files(machine, subject, config),
        limits::check_memory(machine, subject, config, bound.is_ipv6()),
        clocks::check_source(machine),
        clocks::check_timers(machine, daemon),
        clocks::check_wall(machine),
    ]
}

/// Checks the daemon's UDP port. If `user` is given, also tries to bind the port if it is free.
fn udp_port(
    machine: &Machine,
    port: Port,
    holder: &io::Result<Holder>,
    user: Option<User>,
) -> Diagnosis {
    user.and_then(|user| port::attempt(port, holder, user, machine))
        .unwrap_or_else(|| port::judge(port, holder, |process| process.is_wakeupd))
}

fn http_port(machine: &Machine, config: &Config, daemon: Option<u32>, user: User) -> Diagnosis {
    let check = "HTTP port";
    let Some(address) = config.http_addr else {
        return Diagnosis::ok(check, "HTTP_ADDR is none, so the daemon has no HTTP endpoint");
    };
    let mut of_any_port = address;
    of_any_port.set_port(0);
    if let Err(error) = TcpListener::bind(of_any_port) {
        let problem =
            machine::HTTP_ADDRESS_UNAVAILABLE.with(&[("ip", &address.ip()), ("error", &error)]);
        return Diagnosis::finding(check, problem);
    }
    let port = Port { check, variable: "HTTP_ADDR", protocol: Protocol::Tcp, address };
    let holder = sockets::holder(machine, Protocol::Tcp, address);
    // A wakeupd on another UDP port is another daemon, so its HTTP port counts as taken.
    let is_it = |pid| config.port == 0 || daemon == Some(pid);
    port::attempt(port, &holder, user, machine).unwrap_or_else(|| {
        port::judge(port, &holder, |process| process.is_wakeupd && is_it(process.pid))
    })
}

fn show(options: &DoctorOptions, diagnoses: &[Diagnosis]) -> io::Result<()> {
    if options.json {
        return output::print(format_args!("{}\n", output::json(&diagnoses, true)?));
    }
    output::print(Report { diagnoses, is_coloured: logging::may_colour(&io::stdout()) })
}

#[cfg(test)]
mod tests;
