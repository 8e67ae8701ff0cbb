//! The real program over real sockets.

#[macro_use]
#[path = "../support/mod.rs"]
mod support;

mod access;
mod command_line;
mod configuration;
mod deny_file;
mod env_file;
mod http;
mod lifecycle;
mod listing;
mod logs;
mod manual;
mod page;
mod probing;
mod serving;
mod status;

#[cfg(target_os = "linux")]
mod amplification;
#[cfg(target_os = "linux")]
mod bench_cleanup;
#[cfg(target_os = "linux")]
mod benching;
#[cfg(target_os = "linux")]
mod clocks;
#[cfg(target_os = "linux")]
mod closed;
#[cfg(target_os = "linux")]
mod congestion;
#[cfg(target_os = "linux")]
mod connections;
#[cfg(target_os = "linux")]
mod control;
#[cfg(target_os = "linux")]
mod crowd;
#[cfg(target_os = "linux")]
mod descriptors;
#[cfg(target_os = "linux")]
mod detection;
#[cfg(target_os = "linux")]
mod disks;
#[cfg(target_os = "linux")]
mod doctor;
#[cfg(target_os = "linux")]
mod doctor_files;
#[cfg(target_os = "linux")]
mod ending;
#[cfg(target_os = "linux")]
mod failing;
#[cfg(target_os = "linux")]
mod faults;
#[cfg(target_os = "linux")]
mod local_addresses;
#[cfg(target_os = "linux")]
mod loops;
#[cfg(target_os = "linux")]
mod memory;
#[cfg(target_os = "linux")]
mod moved;
#[cfg(target_os = "linux")]
mod neighbours;
#[cfg(target_os = "linux")]
mod networks;
#[cfg(target_os = "linux")]
mod notifications;
#[cfg(target_os = "linux")]
mod options;
#[cfg(target_os = "linux")]
mod outages;
#[cfg(target_os = "linux")]
mod restart;
#[cfg(target_os = "linux")]
mod senders;
#[cfg(target_os = "linux")]
mod signals;
#[cfg(target_os = "linux")]
mod snapshots;
#[cfg(target_os = "linux")]
mod spoofing;
#[cfg(target_os = "linux")]
mod standstill;
#[cfg(target_os = "linux")]
mod systemd;
#[cfg(target_os = "linux")]
mod threads;
#[cfg(target_os = "linux")]
mod wakeups;
