//! Queries the running daemon and reports its own findings.

use std::fmt::Display;
use std::net::SocketAddr;

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::diagnosis::Diagnosis;
use crate::catalogue::machine::{DAEMON_REPORTS, DAEMON_WARNS};
use crate::catalogue::{Severity, daemon};
use crate::client::get;
use crate::config::Config;
use crate::output::{counted, printable};
use crate::status::Status;

const CHECK: &str = "running daemon";

/// The daemon's findings about buffers. The doctor checks the buffers itself.
const OF_BUFFERS: [&str; 2] = [daemon::RECEIVE_BUFFER_SMALL.id, daemon::SEND_BUFFER_SMALL.id];

/// Requests a path from a daemon's endpoint, and returns the response, or the reason why there is none.
pub(super) type Ask<'a> = &'a dyn Fn(&str) -> Result<Vec<u8>, String>;

/// Sends a request to the endpoint at `HTTP_ADDR` of these settings.
pub(super) fn ask(config: &Config, path: &str) -> Result<Vec<u8>, String> {
    let Some(address) = config.http_addr else {
        return Err("HTTP_ADDR is none, so the doctor cannot query the daemon".to_owned());
    };
    let answer = get(address, path, config.admin_token.as_ref())
        .map_err(|error| format!("http://{address} does not answer: {error}"))?;
    if answer.status.is_success() {
        return Ok(answer.body.to_vec());
    }
    let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    let detail = body["error"].as_str().unwrap_or_default();
    Err(format!("http://{address}{path} answers {}: {detail}", answer.status))
}

/// Requests a path and parses the response.
pub(super) fn read<T: DeserializeOwned>(ask: Ask, path: &str) -> Result<T, String> {
    serde_json::from_slice(&ask(path)?)
        .map_err(|error| format!("the response to {path} is invalid: {error}"))
}

/// Returns the status of the daemon on `address`. Rejects the status of a daemon on another UDP port.
pub(super) fn status(ask: Ask, address: SocketAddr) -> Result<Status, String> {
    let status: Status = read(ask, "/status")?;
    let port = status.address.port();
    if address.port() != 0 && address.port() != port {
        return Err(format!("HTTP_ADDR leads to another wakeupd, which serves UDP port {port}"));
    }
    Ok(status)
}

/// Judges the findings that the daemon itself reports.
pub(super) fn judge(status: &Result<Status, String>) -> Diagnosis {
    let status = match status {
        Ok(status) => status,
        Err(error) => return Diagnosis::unknown(CHECK, error),
    };
    let findings: Vec<_> = status
        .findings
        .iter()
        .filter(|finding| !OF_BUFFERS.contains(&finding.id.as_str()))
        .collect();
    if findings.is_empty() {
        let (clients, address) = (status.clients.total(), status.address);
        return Diagnosis::ok(
            CHECK,
            format!(
                "the daemon serves {} at {address}, and reports no problems",
                counted(clients as u64, "client", "clients")
            ),
        );
    }
    let summaries: Vec<_> = findings.iter().map(|finding| finding.summary.as_str()).collect();
    // Escaped one by one, so that a daemon cannot inject a command on a line of its own.
    let advice: Vec<_> = findings.iter().map(|finding| printable(&finding.advice)).collect();
    let is_critical = findings.iter().any(|finding| finding.severity == Severity::Critical);
    let problem = if is_critical { DAEMON_REPORTS } else { DAEMON_WARNS };
    let values: [(&str, &dyn Display); 2] =
        [("findings", &summaries.join(" ")), ("advice", &advice.join("\n"))];
    Diagnosis::finding(CHECK, problem.with(&values))
}

/// Builds a status for tests.
#[cfg(test)]
pub(super) fn fake(port: u16, clients: u64, receive_bytes: usize) -> Value {
    use crate::status::Totals;

    serde_json::json!({
        "version": "0.1.0", "address": format!("0.0.0.0:{port}"),
        "started": "2026-11-21T18:00:00Z", "uptime_seconds": 1.5, "ready": true, "stuck": [],
        "clients": {"ipv4": clients, "ipv6": 0, "max": 200_000},
        "guard": {"enforcing": true, "max_clients_per_address": 1, "max_clients_per_prefix": 1,
            "denied_networks": 0},
        "buffers": {"receive_bytes": receive_bytes, "wanted_receive_bytes": 800,
            "send_bytes": 400, "wanted_send_bytes": 400},
        "snapshot": null,
        "settings": {},
        "totals": Totals::default(),
        "lateness": {"buckets": []},
        "now": {"time": 0.0, "clients": 0, "heartbeats": 0, "pings": 0, "refused": 0,
            "failed_pings": 0, "skipped_pings": 0, "receive_drops": 0,
            "worst_lateness_seconds": 0.0},
        "findings": [],
    })
}

#[cfg(test)]
mod tests {
    use super::super::diagnosis::Outcome;
    use super::*;

    #[test]
    fn a_status_from_another_daemon_is_rejected() {
        let answer = |_: &str| Ok(fake(7000, 5, 800).to_string().into_bytes());
        let at = |port| SocketAddr::from(([0, 0, 0, 0], port));
        assert_eq!(status(&answer, at(7000)).unwrap().clients.total(), 5);
        assert!(status(&answer, at(0)).is_ok());
        let other = status(&answer, at(7001)).unwrap_err();
        assert!(other.ends_with("which serves UDP port 7000"), "{other}");
        let nonsense = status(&|_| Ok(b"<html>".to_vec()), at(0)).unwrap_err();
        assert!(nonsense.starts_with("the response to /status is invalid: "), "{nonsense}");
    }

    #[test]
    fn other_findings_of_the_daemon_become_one_finding() {
        let judged = |findings: Value| {
            let mut status = fake(7000, 5, 800);
            status["findings"] = findings;
            judge(&serde_json::from_value(status).map_err(|error| error.to_string()))
        };
        let finding = |id: &str| {
            serde_json::json!({"id": id, "severity": "warning", "summary": format!("{id} is so."),
                "advice": format!("Mend {id}."), "more": ""})
        };
        let small = finding("receive_buffer_small");
        let fine = judged(serde_json::json!([small]));
        assert_eq!(fine.result, Outcome::Ok);
        assert!(fine.seen.starts_with("the daemon serves 5 clients at 0.0.0.0:7000"), "{fine:?}");
        let sick = judged(serde_json::json!([finding("a"), small, finding("b")]));
        assert_eq!(sick.result, Outcome::Finding);
        assert_eq!(sick.seen, "The running daemon reports: a is so. b is so.");
        assert_eq!(sick.mend(), "# Mend a.\n# Mend b.");
        assert_eq!(judge(&Err("it is gone".into())).result, Outcome::Unknown);
    }
}
