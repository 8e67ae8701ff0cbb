use std::time::Duration;

use super::settings::LOCAL_NETS;
use super::value::Value;
use super::*;
use crate::engine::guard::{Mode, Nat64Prefixes, Networks};
use crate::engine::registry::SHARDS;
use wakeupd_protocol::DEFAULT_PORT;

fn read(vars: &[(&str, &str)]) -> Result<(Config, Vec<Misspelt>), Mistakes> {
    Config::from_vars(vars.iter().map(|(name, value)| (name.into(), value.into())))
}

fn config(vars: &[(&str, &str)]) -> Config {
    read(vars).unwrap().0
}

#[test]
fn the_defaults_match_the_original() {
    let expected = Config {
        host: HostName::parse("0.0.0.0", HOST.values).unwrap(),
        port: DEFAULT_PORT,
        client_expiration_seconds: Duration::from_secs(120),
        worker_pool_size: 10,
        max_clients: 200_000,
        max_clients_per_address: 1_024,
        max_clients_per_prefix: 4_096,
        max_icmp_errors_per_second: 500,
        local_nets: LOCAL_NETS.default.parse().unwrap(),
        nat64_prefixes: Nat64Prefixes::default(),
        refuse_nets: Networks::default(),
        deny_file: None,
        guard_mode: Mode::Enforce,
        snapshot_path: None,
        snapshot_interval_seconds: Duration::from_secs(5),
        http_addr: Some(([127, 0, 0, 1], DEFAULT_PORT).into()),
        http_hosts: Hosts::default(),
        admin_token: None,
        log_level: LogLevel::Info,
        log_format: LogFormat::Text,
    };
    assert_eq!(config(&[]), expected);
    assert_eq!(config(&[("PORT", ""), ("HOST", "  "), ("LOG_LEVEL", "\"\"")]), expected);
}

#[test]
fn each_documented_default_matches_the_actual_default() {
    for (setting, value) in config(&[]).values() {
        assert_eq!(setting.default, value, "{}", setting.name);
    }
}

#[test]
fn each_setting_is_read_from_its_variable() {
    for setting in SETTINGS {
        let mistakes = read(&[(setting.name, "\u{1}")]).unwrap_err().to_string();
        assert!(mistakes.contains(&format!("  {}=", setting.name)), "{mistakes}");
    }
}

#[test]
fn the_status_shows_no_network_path_or_secret() {
    let public = config(&[]).public();
    let public: Vec<_> = public.keys().map(String::as_str).collect();
    let expected = [
        "CLIENT_EXPIRATION_SECONDS",
        "GUARD_MODE",
        "LOG_FORMAT",
        "LOG_LEVEL",
        "MAX_CLIENTS",
        "MAX_CLIENTS_PER_ADDRESS",
        "MAX_CLIENTS_PER_PREFIX",
        "MAX_ICMP_ERRORS_PER_SECOND",
        "PORT",
        "SNAPSHOT_INTERVAL_SECONDS",
        "WORKER_POOL_SIZE",
    ];
    assert_eq!(public, expected);
}

#[test]
fn a_number_out_of_range_is_rejected_with_the_range() {
    for setting in SETTINGS {
        let Values::Number { least, most, .. } = setting.values else { continue };
        let read = |number: u64| read(&[(setting.name, &number.to_string())]);
        for valid in [least, most] {
            let (config, _) = read(valid).unwrap();
            let shown = config.values().into_iter().find(|(it, _)| it.name == setting.name);
            assert_eq!(shown.unwrap().1, valid.to_string(), "{}", setting.name);
        }
        for invalid in [least.checked_sub(1), Some(most + 1)].into_iter().flatten() {
            let mistakes = read(invalid).unwrap_err().to_string();
            assert!(mistakes.contains(&setting.values.to_string()), "{mistakes}");
        }
    }
}

#[test]
fn surrounding_quotes_and_spaces_are_stripped() {
    for value in ["7000", " 7000 ", "\"7000\"", "'7000'", " \" 7000 \" ", "\t7000\n"] {
        assert_eq!(config(&[("PORT", value)]).port, 7000, "{value:?}");
    }
    for value in ["\"7000", "7000'", "\"7000'", "''7000''", "70 00"] {
        assert!(read(&[("PORT", value)]).is_err(), "{value:?}");
    }
}

#[test]
fn log_levels_have_the_names_and_numbers_of_python() {
    let spellings = [
        (LogLevel::NotSet, "NOTSET", "0"),
        (LogLevel::Debug, "DEBUG", "10"),
        (LogLevel::Info, "INFO", "20"),
        (LogLevel::Warning, "WARNING", "30"),
        (LogLevel::Warning, "WARN", "30"),
        (LogLevel::Error, "ERROR", "40"),
        (LogLevel::Critical, "CRITICAL", "50"),
        (LogLevel::Critical, "FATAL", "50"),
    ];
    for (level, name, number) in spellings {
        for text in [name, number, &name.to_lowercase()] {
            assert_eq!(config(&[("LOG_LEVEL", text)]).log_level, level, "{text}");
        }
    }
}

#[test]
fn more_workers_than_shards_are_rejected() {
    assert_eq!(config(&[("WORKER_POOL_SIZE", "256")]).worker_pool_size, SHARDS);
    assert!(read(&[("WORKER_POOL_SIZE", "257")]).is_err());
}

#[test]
fn networks_are_normalized_when_parsed() {
    let networks = "::ffff:203.0.113.0/120,2001:db8::/32";
    let config = config(&[
        ("LOCAL_NETS", networks),
        ("REFUSE_NETS", networks),
        ("NAT64_PREFIXES", "2001:db8:64::/96,2001:db8::/32"),
    ]);
    let plain = "203.0.113.0/24,2001:db8::/32".parse().unwrap();
    assert_eq!((&config.local_nets, &config.refuse_nets), (&plain, &plain));
    let shown = config.to_string();
    assert!(shown.contains("\nNAT64_PREFIXES=2001:db8:64::/96,2001:db8::/32\n"), "{shown}");
    for (name, value, reason) in [
        ("LOCAL_NETS", "010.0.0.0/8", "leading zero"),
        ("REFUSE_NETS", "::ffff:0:0/90", "0.0.0.0/0 for all of IPv4"),
        ("NAT64_PREFIXES", "2001:db8::/33", "32, 40, 48, 56, 64 or 96"),
    ] {
        let mistakes = read(&[(name, value)]).unwrap_err().to_string();
        assert!(mistakes.contains(name) && mistakes.contains(reason), "{mistakes}");
    }
}

#[test]
fn an_empty_http_addr_disables_the_endpoint() {
    for text in ["", " ", "\"\"", "none", "NONE"] {
        assert_eq!(config(&[("HTTP_ADDR", text)]).http_addr, None, "{text:?}");
    }
    for (text, address) in [
        ("[::1]:80", "[::1]:80"),
        ("[fe80::1%2]:80", "[fe80::1%2]:80"),
        ("[::ffff:127.0.0.1]:80", "127.0.0.1:80"),
    ] {
        assert_eq!(config(&[("HTTP_ADDR", text)]).http_addr, address.parse().ok(), "{text}");
    }
    for text in ["7561", "localhost:7561", "127.0.0.1", "::1:80", "127.0.0.01:80"] {
        assert!(read(&[("HTTP_ADDR", text)]).is_err(), "{text}");
    }
}

#[test]
fn the_snapshot_path_must_name_a_file() {
    assert_eq!(config(&[("SNAPSHOT_PATH", "NONE")]).snapshot_path, None);
    let path = "/nowhere/as yet";
    assert_eq!(config(&[("SNAPSHOT_PATH", path)]).snapshot_path, Some(path.into()));
    for path in ["/", "/dev/null", "''a''", "a\tb"] {
        assert!(read(&[("SNAPSHOT_PATH", path)]).is_err(), "{path}");
    }
}

#[test]
fn the_token_is_never_printed() {
    let config = config(&[("ADMIN_TOKEN", "correct-horse-battery")]);
    let mistakes = read(&[("ADMIN_TOKEN", "too-short")]).unwrap_err();
    for shown in [config.to_string(), format!("{config:?}"), mistakes.to_string()] {
        assert!(!shown.contains("horse") && !shown.contains("too-short"), "{shown}");
    }
    assert!(config.to_string().contains("ADMIN_TOKEN=(hidden)"));
}

#[test]
fn hosts_are_addresses_or_names() {
    for host in ["127.0.0.1", "::", "fe80::1%eth0", "localhost", "my-host_1.example"] {
        assert_eq!(*config(&[("HOST", host)]).host, *host);
    }
    for host in ["two words", "[::]", "http://example", "a,b", "127.0.0.1/8", "localhost:7561"] {
        assert!(read(&[("HOST", host)]).is_err(), "{host}");
    }
    for host in ["010.0.0.1", "127.0.0.01", "127.1", "2130706433", "0x7f.0.0.1", "0x7F000001"] {
        let mistakes = read(&[("HOST", host)]).unwrap_err().to_string();
        assert!(mistakes.contains("four decimal numbers"), "{mistakes}");
    }
}

#[test]
fn control_characters_in_a_value_are_escaped() {
    let mistakes = read(&[("PORT", "\u{1b}[2J\n")]).unwrap_err().to_string();
    assert!(mistakes.contains(r#"PORT="\u{1b}[2J""#), "{mistakes}");
}
