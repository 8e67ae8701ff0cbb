//! wakeupd, a UDP wake-up ping daemon.
//!
//! A client sends a heartbeat (any UDP datagram) and gets a ping every second, until it has sent no heartbeat
//! for a while. The registry of clients is a sharded map, and each shard has a slot of the second: pings
//! leave in an even stream, and no client needs a timer of its own.
//!
//! ```text
//! datagrams ─▶ net ─▶ listener ─▶ engine: guard, registry
//! the second ─▶ engine: schedule, registry ─▶ worker ─▶ net ─▶ pings
//! ```
//!
//! - The protocol, without I/O: [`engine`]; its bytes: [`wakeupd_protocol`].
//! - Around the engine: [`net`] is the socket, [`listener`] and [`worker`] drive the engine, [`daemon`]
//!   starts and stops them, [`shared`] is what they share, [`snapshot`] keeps the clients over a restart,
//!   [`metrics`] and [`counter`] count, [`watchdog`] finds stuck tasks, [`throttle`] limits the rate of log
//!   lines, [`threads`] starts threads, [`clock`] reads the clocks.
//! - For the operator: [`sampler`] samples the daemon's state every second, [`status`] reports that state
//!   with findings in the words of the [`catalogue`], [`http`] serves it, [`client`] is the client of that
//!   endpoint.
//! - The program: [`cli`], [`config`], [`logging`], [`output`], [`signals`], [`supervisor`], `doctor`, which
//!   checks the machine, and [`probe`], a client; [`ping_stats`] counts its pings.
//!
//! The load generator is a program of its own, `crates/bench`.
//!
//! `docs/architecture.md` says which module may import which, and why.

pub mod catalogue;
pub mod cli;
pub mod client;
pub mod clock;
pub mod config;
pub mod counter;
pub mod daemon;
pub mod disk;
#[cfg(target_os = "linux")]
pub mod doctor;
pub mod engine;
pub mod http;
pub mod listener;
pub mod logging;
pub mod machine;
pub mod memory;
pub mod metrics;
pub mod net;
pub mod output;
pub mod ping_stats;
pub mod probe;
pub mod sampler;
pub mod shared;
pub mod signals;
pub mod snapshot;
pub mod status;
pub mod supervisor;
pub mod threads;
pub mod throttle;
pub mod watchdog;
pub mod worker;
