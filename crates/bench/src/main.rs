//! `wakeupd-bench`: the program, which is all in the library, because that is empty on other systems than Linux.

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
