//! `wakeupd-bench`. All its code is in the library, which is empty on systems other than Linux.

use std::process::ExitCode;

fn main() -> ExitCode {
    #[cfg(target_os = "linux")]
    return wakeupd_bench::run();
    #[cfg(not(target_os = "linux"))]
    {
        eprintln!("wakeupd-bench runs on Linux only");
        ExitCode::FAILURE
    }
}
