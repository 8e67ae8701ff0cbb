//! The real program over real sockets.

mod configuration;
mod daemon;
mod lifecycle;
mod logs;
mod needs;
mod probing;
mod serving;

#[cfg(target_os = "linux")]
mod benching;
#[cfg(target_os = "linux")]
mod crowd;
#[cfg(target_os = "linux")]
mod failing;
#[cfg(target_os = "linux")]
mod network;
#[cfg(target_os = "linux")]
mod networks;
