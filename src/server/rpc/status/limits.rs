//! What is over a limit, and the setting that the limit comes from.

use super::Failure;
use crate::server::permits::OverLimit;
use tailmark_record::Reason;

/// What a failure is about, and the setting. A field of a message goes by its last name.
const SETTINGS: &[(&str, &str)] = &[
    ("batch_bytes", "limits.batch_bytes"),
    ("batch_events", "limits.batch_events"),
    ("bytes_per_address", "limits.bytes_per_address"),
    ("bytes_per_principal", "limits.bytes_per_principal"),
    ("client_id", "limits.name_bytes"),
    ("connections", "limits.connections"),
    ("connections_per_address", "limits.connections_per_address"),
    ("connections_per_principal", "limits.connections_per_principal"),
    ("event", "limits.event_bytes"),
    ("events_per_address", "limits.events_per_address"),
    ("events_per_principal", "limits.events_per_principal"),
    ("header_bytes", "limits.header_bytes"),
    ("headers", "limits.headers"),
    ("id", "limits.name_bytes"),
    ("key", "limits.name_bytes"),
    ("message_bytes", "limits.message_bytes"),
    ("patterns", "limits.topic_bytes"),
    ("patterns_per_watch", "limits.patterns_per_watch"),
    ("room", "limits.topic_bytes"),
    ("rooms_per_chat", "limits.patterns_per_watch"),
    ("topic", "limits.topic_bytes"),
    ("topic_segments", "limits.topic_segments"),
    ("type", "limits.name_bytes"),
    ("uploads", "limits.uploads"),
    ("uploads_per_address", "limits.uploads_per_address"),
    ("uploads_per_connection", "limits.uploads_per_connection"),
    ("uploads_per_principal", "limits.uploads_per_principal"),
    ("user", "limits.name_bytes"),
    ("watches", "limits.watches"),
    ("watches_per_address", "limits.watches_per_address"),
    ("watches_per_connection", "limits.watches_per_connection"),
    ("watches_per_principal", "limits.watches_per_principal"),
];

/// Something larger than allowed. Who may change the limit finds it by its setting, if it has one.
pub(crate) fn over_limit(what: &str, limit: usize, actual: usize) -> Failure {
    let setting = setting(what).map_or_else(String::new, |name| format!(" ({name})"));
    let message = format!("{what}: {actual} is over the limit of {limit}{setting}");
    Failure::new(Reason::LimitExceeded, message).with("what", what).over(limit, actual)
}

/// A message that is no event, over a limit that no setting has.
pub(crate) fn long_question(limit: usize, actual: usize) -> Failure {
    let message = format!("message_bytes: {actual} is over the limit of {limit} for this call");
    Failure::new(Reason::LimitExceeded, message).with("what", "message_bytes").over(limit, actual)
}

/// One thing more than may be open at once.
pub(crate) fn too_many(over: OverLimit) -> Failure {
    over_limit(over.what, over.limit, over.actual)
}

/// A long message that did not come on while others waited for the room that it had.
pub(crate) fn gave_way(over: OverLimit) -> Failure {
    let message = "the message did not come on, and others waited for its room";
    Failure::new(Reason::LimitExceeded, message)
        .with("what", over.what)
        .over(over.limit, over.actual)
}

/// The setting that what is over a limit goes by, if it has one.
fn setting(what: &str) -> Option<&'static str> {
    let field = what.rsplit('.').next().unwrap_or(what);
    let field = field.split_once('[').map_or(field, |(name, _)| name);
    let found = SETTINGS.binary_search_by_key(&field, |(what, _)| what);
    Some(SETTINGS.get(found.ok()?)?.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_a_setting_that_there_is() {
        assert!(SETTINGS.is_sorted_by_key(|(what, _)| what), "it is searched in halves");
        let example = include_str!("../../../../config.toml");
        let limits = example.split("[limits]").nth(1).unwrap().split("\n[").next().unwrap();
        for (what, name) in SETTINGS {
            let key = name.strip_prefix("limits.").unwrap();
            let has = |line: &str| line.trim_start_matches("# ").starts_with(&format!("{key} = "));
            assert!(limits.lines().any(has), "{what}: config.toml has no {name}");
        }
    }

    #[test]
    fn a_field_goes_by_its_name() {
        assert_eq!(setting("event.topic"), Some("limits.topic_bytes"));
        assert_eq!(setting("patterns[3]"), Some("limits.topic_bytes"));
        assert_eq!(setting("watches"), Some("limits.watches"));
        assert_eq!(setting("erase_runs"), None);
    }
}
