//! `/openapi.json`, the description of the endpoint: a file, completed with the tables of counters, settings and
//! findings.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use serde_json::{Map, Value, json};

use crate::catalogue;
use crate::config::{SETTINGS, Secrecy};
use crate::metrics::{Definition, definitions};

/// The description as JSON.
pub(super) static DESCRIPTION: LazyLock<String> = LazyLock::new(|| {
    let mut description: Value =
        serde_json::from_str(include_str!("openapi.json")).expect("the file is JSON");
    let status = &mut description["components"]["schemas"]["Status"]["properties"];
    status["totals"] = totals();
    status["settings"] = settings();
    description["components"]["schemas"]["Finding"]["properties"]["id"] = finding_ids();
    description.to_string()
});

fn totals() -> Value {
    let schema = |counter: &Definition| {
        let mut schema = if counter.reasons.is_empty() {
            count()
        } else {
            object(&counter.reasons.iter().map(|reason| ((*reason).to_owned(), count())).collect())
        };
        schema["description"] = counter.help.into();
        schema
    };
    let counters = definitions();
    object(&counters.iter().map(|counter| (counter.name.to_owned(), schema(counter))).collect())
}

fn settings() -> Value {
    let public = SETTINGS.iter().filter(|setting| setting.secrecy == Secrecy::Public);
    let schema = |about: String| json!({"type": "string", "description": about});
    let properties = public.map(|setting| (setting.name.to_owned(), schema(setting.plain_about())));
    let mut settings = object(&properties.collect());
    settings["description"] =
        "The effective settings, except those that can contain networks, paths or secrets.".into();
    settings
}

fn finding_ids() -> Value {
    let ids: BTreeSet<_> = catalogue::daemon::ALL.iter().map(|problem| problem.id).collect();
    json!({"enum": ids})
}

fn count() -> Value {
    json!({"type": "integer", "minimum": 0})
}

/// An object with exactly these properties.
fn object(properties: &Map<String, Value>) -> Value {
    let required: Vec<_> = properties.keys().cloned().collect();
    json!({
        "type": "object",
        "additionalProperties": false,
        "required": required,
        "properties": properties,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::guard::Refused;

    #[test]
    fn reasons_and_settings_are_filled_into_the_description() {
        let description: Value = serde_json::from_str(&DESCRIPTION).unwrap();
        let status = &description["components"]["schemas"]["Status"]["properties"];
        let refused = status["totals"]["properties"]["refused"]["required"].as_array().unwrap();
        assert_eq!(refused.len(), Refused::ALL.len());
        assert_eq!(status["totals"]["properties"]["pings"]["type"], "integer");
        assert_eq!(status["settings"]["properties"]["MAX_CLIENTS"]["type"], "string");
        assert!(status["settings"]["properties"]["ADMIN_TOKEN"].is_null());
    }
}
