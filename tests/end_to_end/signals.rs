//! Signals other than SIGTERM, and signals during the start.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;

use crate::support::daemon::{
    Client, Daemon, PATIENCE, PROGRAM, SERVING, field, send_signal, wait_until, wakeupd,
};
use crate::support::needs::{Need, OWN_MOUNT};
use crate::support::network::Host;
use crate::support::network::NEEDS;

#[test]
fn signals_that_other_daemons_use_as_commands_are_ignored() {
    let daemon = Daemon::start(&[]);
    let client = Client::of(&daemon);
    client.heartbeat(&[]);
    client.ping();
    for signal in [
        Signal::SIGUSR1,
        Signal::SIGUSR2,
        Signal::SIGALRM,
        Signal::SIGVTALRM,
        Signal::SIGPROF,
        Signal::SIGIO,
        Signal::SIGPIPE,
        Signal::SIGPWR,
        Signal::SIGSTKFLT,
        Signal::SIGWINCH,
        Signal::SIGCHLD,
        Signal::SIGURG,
        Signal::SIGCONT,
        Signal::SIGTTOU,
        Signal::SIGXFSZ,
    ] {
        daemon.signal(signal);
    }
    // The real-time signals have no names.
    for number in 34..=64 {
        let mut kill = Command::new("kill");
        assert!(
            kill.args([format!("-{number}"), daemon.pid().to_string()]).status().unwrap().success()
        );
    }
    client.forget_pings();
    client.pings(2);
    daemon.stop();
}

#[test]
fn a_log_whose_reader_is_gone_does_not_end_the_daemon() {
    let mut command = wakeupd(&SERVING);
    let mut child = command.env("LOG_LEVEL", "NOTSET").stderr(Stdio::piped()).spawn().unwrap();
    let mut stderr = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    let listening = stderr.find(|line| line.contains("listening")).unwrap();
    drop(stderr);
    let server = field(&listening, "address").parse().unwrap();
    let client = Client::new(UdpSocket::bind("127.0.0.1:0").unwrap(), server);
    client.heartbeat(&[]);
    client.pings(2);
    send_signal(&child, Signal::SIGTERM);
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

/// A file for a single test.
fn file(name: &str, text: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::write(&path, text).unwrap();
    path
}

/// The process that `parent` waits for.
fn child_of(parent: &Child) -> Pid {
    let path = format!("/proc/{0}/task/{0}/children", parent.id());
    let children = fs::read_to_string(path).unwrap();
    Pid::from_raw(children.trim().parse().unwrap())
}

#[test]
fn pid_1_stops_at_once_while_it_waits_for_the_name_server() {
    require!(NEEDS, OWN_MOUNT);
    let host = Host::new();
    let name_server = host.within(|| UdpSocket::bind("127.0.0.1:53").unwrap());
    name_server.set_read_timeout(Some(PATIENCE)).unwrap();
    let resolver = file("resolv.conf", "nameserver 127.0.0.1\noptions timeout:20\n");
    for (signal, name) in [(Signal::SIGTERM, "early"), (Signal::SIGINT, "interrupted")] {
        let script =
            format!("mount --bind {} /etc/resolv.conf && exec {PROGRAM}", resolver.display());
        let mut command = host.command("unshare");
        command.args(["--mount", "--pid", "--fork", "--kill-child", "sh", "-c", &script]);
        command
            .envs([("HOST", name), ("HTTP_ADDR", ""), ("ENV_FILE", "none")])
            .stderr(Stdio::piped());
        let child = command.spawn().unwrap();
        wait_for_query(&name_server, name);
        signal::kill(child_of(&child), signal).unwrap();
        let ended = child.wait_with_output().unwrap();
        let log = String::from_utf8(ended.stderr).unwrap();
        assert_eq!(ended.status.code(), Some(0), "{log}");
        let stopping = format!("stopping during startup signal=\"{signal}\"");
        assert!(log.contains(&stopping), "{log}");
    }
    let _ = fs::remove_file(resolver);
}

/// Waits for a query for the address of `name`.
fn wait_for_query(name_server: &UdpSocket, name: &str) {
    let mut query = [0; 512];
    loop {
        let length = name_server.recv(&mut query).expect("the daemon queries the name server");
        if query[..length].windows(name.len()).any(|word| word == name.as_bytes()) {
            return;
        }
    }
}

/// A daemon on a terminal of its own.
struct AtATerminal {
    terminal: Child,
    log: PathBuf,
    server: SocketAddr,
}

impl AtATerminal {
    /// Runs `shell` on a new terminal, with the program as `$0` and the log as descriptor 2.
    fn start(name: &str, shell: &str) -> Self {
        let log = file(name, "");
        let (log_path, shell) = (log.display(), shell.replace("$0", PROGRAM));
        // The tests themselves may run under nohup.
        let command = format!("exec 2>{log_path}; exec env --default-signal=HUP sh -c '{shell}'");
        let mut script = Command::new("script");
        script.args(["--quiet", "--command", &command, "/dev/null"]);
        script
            .env("SHELL", "/bin/sh")
            .env("ENV_FILE", "none")
            .envs(SERVING)
            .stdin(Stdio::piped())
            .stdout(Stdio::null());
        let mut at = Self {
            terminal: script.spawn().unwrap(),
            log,
            server: SocketAddr::from(([0, 0, 0, 0], 0)),
        };
        let listening = at.wait_for_line("listening");
        at.server = field(&listening, "address").parse().unwrap();
        at
    }

    fn lines(&self) -> Vec<String> {
        fs::read_to_string(&self.log).unwrap().lines().map(str::to_owned).collect()
    }

    fn wait_for_line(&self, text: &str) -> String {
        let found = || self.lines().into_iter().find(|line| line.contains(text));
        wait_until(text, || found().is_some());
        found().unwrap()
    }

    fn close(&mut self) {
        self.terminal.kill().unwrap();
        self.terminal.wait().unwrap();
    }

    /// The daemon's pid, found by its program and its log.
    fn daemon(&self) -> Option<Pid> {
        let of_folder = |folder: &Path| {
            let is_it = fs::read_link(folder.join("exe"))
                .is_ok_and(|exe| exe == Path::new(PROGRAM))
                && fs::read_link(folder.join("fd/2")).is_ok_and(|log| log == self.log);
            is_it.then(|| folder.file_name()?.to_str()?.parse().ok()).flatten()
        };
        let mut processes = fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap().path());
        processes.find_map(|folder| of_folder(&folder)).map(Pid::from_raw)
    }
}

impl Drop for AtATerminal {
    fn drop(&mut self) {
        if let Some(daemon) = self.daemon() {
            let _ = signal::kill(daemon, Signal::SIGKILL);
        }
        let _ = self.terminal.kill();
        let _ = self.terminal.wait();
        let _ = fs::remove_file(&self.log);
    }
}

#[test]
fn closing_the_terminal_stops_a_foreground_run() {
    require!([Need::Program("script")]);
    // As a child of the terminal's shell, and as the terminal's own process.
    for (number, shell) in ["$0; true", "exec $0"].into_iter().enumerate() {
        let mut at = AtATerminal::start(&format!("terminal-{number}"), shell);
        // While the terminal is open, SIGHUP triggers a reload.
        signal::kill(at.daemon().unwrap(), Signal::SIGHUP).unwrap();
        at.wait_for_line("DENY_FILE is not set");
        at.close();
        at.wait_for_line("stopping signal=\"SIGHUP\"");
        at.wait_for_line("stopped");
    }
}

#[test]
fn closing_the_terminal_stops_no_detached_daemon() {
    require!([Need::Program("script"), Need::Program("nohup"), Need::Program("setsid")]);
    for (number, shell) in ["exec nohup $0 >/dev/null", "setsid --wait $0"].into_iter().enumerate()
    {
        let mut at = AtATerminal::start(&format!("detached-{number}"), shell);
        let daemon = at.daemon().unwrap();
        at.close();
        signal::kill(daemon, Signal::SIGHUP).unwrap();
        if number == 1 {
            at.wait_for_line("DENY_FILE is not set");
        }
        let client = Client::new(UdpSocket::bind("127.0.0.1:0").unwrap(), at.server);
        client.heartbeat(&[]);
        client.pings(2);
        signal::kill(daemon, Signal::SIGTERM).unwrap();
        at.wait_for_line("stopped");
        let lines = at.lines();
        assert!(!lines.iter().any(|line| line.contains("SIGHUP\"")), "{lines:?}");
    }
}
