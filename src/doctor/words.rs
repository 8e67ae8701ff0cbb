//! What is said in more than one diagnosis.

/// The command that sets a kernel parameter now and at every start of the machine.
pub(super) fn set_sysctl(name: &str, value: u64) -> String {
    format!(
        "echo '{name} = {value}' | sudo tee -a /etc/sysctl.d/91-wakeupd-doctor.conf && sudo sysctl --system"
    )
}

/// `names` as a sentence lists them.
pub(super) fn list(names: &[String]) -> String {
    match names {
        [] => "none".to_owned(),
        [one] => one.clone(),
        [rest @ .., last] => format!("{} and {last}", rest.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_read_well() {
        let names = ["a", "b", "c"].map(str::to_owned);
        let lists = [0, 1, 2, 3].map(|count| list(&names[..count]));
        assert_eq!(lists, ["none", "a", "a and b", "a, b and c"]);
    }
}
