//! Shared by the tests of the real program: the daemon's process, network namespaces, observers, and the needs of
//! a test.

pub mod browser;
#[cfg(target_os = "linux")]
pub mod control_group;
pub mod daemon;
#[macro_use]
pub mod needs;
#[cfg(target_os = "linux")]
pub mod network;
#[cfg(target_os = "linux")]
pub mod scene;
#[cfg(target_os = "linux")]
pub mod stranger;
pub mod web;
#[cfg(target_os = "linux")]
pub mod witness;
