//! wakeupd, a UDP wake-up ping daemon.
//!
//! A client sends a heartbeat (any UDP datagram) and is pinged every second until no heartbeat has
//! come for a while. The registry of clients is a sharded map, and a shard is a slot of the second,
//! so that pings leave in an even stream and no client needs a timer of its own:
//!
//! ```text
//! datagrams ─▶ net ─▶ listener ─▶ guard: may it register? ─▶ registry: refresh
//!                                                                │
//! the second ─▶ schedule: which shard is due ─▶ worker ─▶ registry: sweep ─▶ net ─▶ pings
//! ```
//!
//! - The core, pure and without a clock: [`engine`].
//! - Around it: [`net`] is the socket, [`listener`] and [`worker`] join the core to it, [`daemon`]
//!   starts and stops them, [`state`] is what they share, [`snapshot`] keeps the clients over a restart,
//!   [`metrics`] counts, [`health`] finds stuck tasks, [`throttle`] keeps the log readable, [`threads`]
//!   starts threads, and [`wire`] and [`clock`] hold the protocol and the time.
//! - For the operator: [`monitor`] looks at all that every second, [`status`] says in words how it is,
//!   [`http`] tells it, and [`ask`] asks.
//! - The program: [`cli`], [`config`], [`logging`], [`output`], [`signals`], [`supervisor`], `doctor`, which
//!   looks at the machine, and the clients: [`probe`] is one and `bench` many, [`tally`] counts what comes to one,
//!   [`args`] are the arguments of both.
//!
//! `docs/architecture.md` says who may import whom, and why.

pub mod args;
pub mod ask;
#[cfg(target_os = "linux")]
pub mod bench;
pub mod cli;
pub mod clock;
pub mod config;
pub mod daemon;
pub mod disk;
#[cfg(target_os = "linux")]
pub mod doctor;
pub mod engine;
pub mod health;
pub mod http;
pub mod listener;
pub mod logging;
pub mod machine;
pub mod memory;
pub mod metrics;
pub mod monitor;
pub mod net;
pub mod output;
pub mod probe;
pub mod signals;
pub mod snapshot;
pub mod state;
pub mod status;
pub mod supervisor;
pub mod tally;
pub mod threads;
pub mod throttle;
pub mod wire;
pub mod worker;
