//! A daemon that belongs to a single test, and a client of it.

use std::io::{self, BufRead, BufReader, ErrorKind};
use std::net::{SocketAddr, UdpSocket};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{self, Signal};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
#[cfg(target_os = "linux")]
use nix::time::{clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;

/// The timeout for any event that must happen, far longer than it ever takes.
pub const PATIENCE: Duration = Duration::from_secs(30);

pub const PROGRAM: &str = env!("CARGO_BIN_EXE_wakeupd");

/// Settings that let daemons run side by side: an ephemeral port, and no HTTP endpoint.
pub const SERVING: [(&str, &str); 3] = [("HOST", "127.0.0.1"), ("PORT", "0"), ("HTTP_ADDR", "")];

pub const PING: &[u8] = b"ua";

/// The program with only these variables in its environment. It ignores an environment file in the folder.
pub fn wakeupd(variables: &[(&str, &str)]) -> Command {
    let mut command = Command::new(PROGRAM);
    command.env_clear().env("ENV_FILE", "none").envs(variables.iter().copied());
    command
}

/// A command that runs the daemon after a mount that only the daemon sees. Its arguments are those of mount(8).
pub fn with_mount(arguments: &str) -> Command {
    let mut command = Command::new("unshare");
    let script = format!("mount {arguments} && exec '{PROGRAM}'");
    command.args(["--mount", "sh", "-c", &script]);
    command
}

/// Runs the program to completion and returns its status and output.
pub fn output(command: &mut Command) -> (ExitStatus, String, String) {
    let Output { status, stdout, stderr } = command.stdin(Stdio::null()).output().unwrap();
    (status, String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

#[derive(Debug, Default)]
struct Log {
    lines: Mutex<Vec<String>>,
    grown: Condvar,
}

/// A running daemon, killed on drop.
#[derive(Debug)]
pub struct Daemon {
    child: Child,
    pid: Pid,
    log: Arc<Log>,
    pub address: SocketAddr,
}

impl Daemon {
    /// Starts the program on an ephemeral port.
    pub fn start(variables: &[(&str, &str)]) -> Self {
        let mut command = wakeupd(&SERVING);
        command.env("LOG_LEVEL", "DEBUG").envs(variables.iter().copied());
        Self::start_command(&mut command)
    }

    /// Starts the program with a command that execs it or waits for it.
    pub fn start_command(command: &mut Command) -> Self {
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let log = Arc::new(Log::default());
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let writer = Arc::clone(&log);
        thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                writer.lines.lock().unwrap().push(line);
                writer.grown.notify_all();
            }
        });
        let pid = pid_of(&child);
        let address = SocketAddr::from(([0, 0, 0, 0], 0));
        let mut daemon = Self { child, pid, log, address };
        let listening = daemon.wait_for_line("listening");
        daemon.address = field(&listening, "address").parse().unwrap();
        daemon
    }

    /// The address of its HTTP endpoint.
    pub fn http(&self) -> SocketAddr {
        field(&self.wait_for_line("listening for HTTP"), "address").parse().unwrap()
    }

    /// Switches to the child process, if the command waits for the daemon instead of becoming it.
    pub fn descend(&mut self) {
        let children = format!("/proc/{0}/task/{0}/children", self.pid);
        let children = std::fs::read_to_string(children).unwrap();
        self.pid = Pid::from_raw(children.trim().parse().unwrap());
    }

    pub fn signal(&self, signal: Signal) {
        signal::kill(self.pid, signal).unwrap();
    }

    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// The id of the thread with this name.
    #[cfg(target_os = "linux")]
    pub fn thread(&self, name: &str) -> Pid {
        let threads = std::fs::read_dir(format!("/proc/{}/task", self.pid)).unwrap();
        let mut threads = threads.map(|thread| thread.unwrap());
        let named = threads.find(|thread| {
            std::fs::read_to_string(thread.path().join("comm")).unwrap().trim_end() == name
        });
        let id = named.unwrap_or_else(|| panic!("no thread {name}")).file_name();
        Pid::from_raw(id.to_str().unwrap().parse().unwrap())
    }

    /// Its resident memory.
    #[cfg(target_os = "linux")]
    pub fn resident_kilobytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid)).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    /// Its CPU time.
    #[cfg(target_os = "linux")]
    pub fn cpu_time(&self) -> Duration {
        clock_getcpuclockid(self.pid).and_then(clock_gettime).unwrap().into()
    }

    /// Stops all threads of the process, until SIGCONT.
    pub fn freeze(&self) {
        self.signal(Signal::SIGSTOP);
        let stopped = waitpid(self.pid, Some(WaitPidFlag::WUNTRACED)).unwrap();
        assert_eq!(stopped, WaitStatus::Stopped(self.pid, Signal::SIGSTOP));
    }

    /// Waits for the process to exit.
    pub fn wait(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            thread::sleep(Duration::from_millis(5));
        }
        panic!("the daemon did not exit; it logged {:#?}", self.lines());
    }

    /// Stops the daemon with SIGTERM and returns its log.
    pub fn stop(mut self) -> Vec<String> {
        self.signal(Signal::SIGTERM);
        let status = self.wait();
        assert_eq!((status.code(), status.signal()), (Some(0), None));
        self.wait_for_line("stopped");
        self.lines()
    }

    /// The log so far.
    pub fn lines(&self) -> Vec<String> {
        self.log.lines.lock().unwrap().clone()
    }

    /// Waits for a line of the log that contains `text`.
    pub fn wait_for_line(&self, text: &str) -> String {
        self.wait_for_lines(text, 1).pop().unwrap()
    }

    /// Waits until `count` lines of the log contain `text`.
    pub fn wait_for_lines(&self, text: &str, count: usize) -> Vec<String> {
        let found = |lines: &Vec<String>| -> Vec<String> {
            lines.iter().filter(|line| line.contains(text)).take(count).cloned().collect()
        };
        let lines = self.log.lines.lock().unwrap();
        let (lines, timeout) = self
            .log
            .grown
            .wait_timeout_while(lines, PATIENCE, |lines| found(lines).len() < count)
            .unwrap();
        assert!(!timeout.timed_out(), "expected {count} lines with {text:?} in {lines:#?}");
        found(&lines)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = signal::kill(self.pid, Signal::SIGKILL);
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Polls until `is_so` returns true.
pub fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "timed out waiting until {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// Sends a signal to a process that the test started itself.
pub fn send_signal(child: &Child, signal: Signal) {
    signal::kill(pid_of(child), signal).unwrap();
}

fn pid_of(child: &Child) -> Pid {
    Pid::from_raw(child.id().try_into().unwrap())
}

/// The number of lines that contain `text`.
pub fn count(lines: &[String], text: &str) -> usize {
    lines.iter().filter(|line| line.contains(text)).count()
}

/// The summary among the lines that a daemon logged.
pub fn summary(lines: &[String]) -> &str {
    lines.iter().find(|line| line.contains("summary")).expect("a stopped daemon logs a summary")
}

/// The value of `name=value` in a line of the log.
pub fn field<'a>(line: &'a str, name: &str) -> &'a str {
    line.split_ascii_whitespace()
        .find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
        .unwrap_or_else(|| panic!("no {name} in {line:?}"))
}

/// A phone.
#[derive(Debug)]
pub struct Client {
    socket: UdpSocket,
    server: SocketAddr,
}

impl Client {
    /// A client of `daemon`, at the same address and an ephemeral port.
    pub fn of(daemon: &Daemon) -> Self {
        Self::new(UdpSocket::bind((daemon.address.ip(), 0)).unwrap(), daemon.address)
    }

    pub fn new(socket: UdpSocket, server: SocketAddr) -> Self {
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { socket, server }
    }

    pub fn address(&self) -> SocketAddr {
        self.socket.local_addr().unwrap()
    }

    pub fn heartbeat(&self, payload: &[u8]) {
        self.socket.send_to(payload, self.server).unwrap();
    }

    /// Waits for a ping, and checks that it comes from the address that the heartbeats go to.
    pub fn ping(&self) {
        assert_eq!(self.ping_from(), self.server);
    }

    /// Waits for `count` pings.
    pub fn pings(&self, count: usize) {
        for _ in 0..count {
            self.ping();
        }
    }

    /// Waits for a ping and returns its source.
    pub fn ping_from(&self) -> SocketAddr {
        let mut buffer = [0; 64];
        let (length, source) = self.receive(&mut buffer).expect("a ping arrives");
        assert_eq!(&buffer[..length], PING);
        source
    }

    fn receive(&self, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        loop {
            match self.socket.recv_from(buffer) {
                // The kernel does not restart an interrupted receive on a socket with a timeout.
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                received => return received,
            }
        }
    }

    /// Whether a ping waits in the socket.
    #[cfg(target_os = "linux")]
    pub fn has_ping(&self) -> bool {
        self.socket.set_nonblocking(true).unwrap();
        let is_there = self.socket.peek(&mut [0; 64]).is_ok();
        self.socket.set_nonblocking(false).unwrap();
        is_there
    }

    /// Discards the pings that have arrived so far.
    pub fn forget_pings(&self) {
        self.socket.set_nonblocking(true).unwrap();
        while self.socket.recv(&mut [0; 64]).is_ok() {}
        self.socket.set_nonblocking(false).unwrap();
    }

    /// Discards the pings that have arrived so far. Returns whether no other arrives during this time.
    pub fn is_left_alone_for(&self, time: Duration) -> bool {
        self.forget_pings();
        self.socket.set_read_timeout(Some(time)).unwrap();
        let silent = self.receive(&mut [0; 64]).is_err();
        self.socket.set_read_timeout(Some(PATIENCE)).unwrap();
        silent
    }
}
