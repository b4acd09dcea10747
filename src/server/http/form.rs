//! How an answer writes events: as ours, their bodies in one of two ways, or as CloudEvents.

use http::HeaderValue;

use super::query::Query;
use crate::server::Shared;
use crate::server::rpc::status::{self, Failure};
use tailmark_record::Event;
use tailmark_record::json::{Bodies, write_cloud_event, write_event_as};

/// The parameters that choose it.
pub(super) const PARAMETERS: [&str; 2] = ["json", "format"];

/// One way.
#[derive(Clone, Debug)]
pub(super) enum Form {
    /// As ours.
    Events(Bodies),
    /// As theirs; with the source of what did not come in as one.
    CloudEvents(String),
}

impl Form {
    /// What a query asks for.
    pub(super) fn of(query: &Query, shared: &Shared) -> Result<Form, Failure> {
        let expected = "expected text or value";
        let bodies = query.parsed("json", expected, Bodies::parse)?.unwrap_or_default();
        let expected = "expected events or cloudevents";
        let is_theirs = query.parsed("format", expected, |name| match name {
            "events" => Some(false),
            "cloudevents" => Some(true),
            _ => None,
        })?;
        if is_theirs == Some(true) && bodies == Bodies::Value {
            let problem =
                "does not go with format=cloudevents, whose data is a value where it is JSON";
            return Err(status::bad_field("json", problem));
        }
        Ok(match is_theirs {
            Some(true) => Form::CloudEvents(format!("urn:uuid:{}", shared.log.id())),
            _ => Form::Events(bodies),
        })
    }

    /// Appends an event as one JSON object.
    pub(super) fn write(&self, out: &mut Vec<u8>, event: &Event<'_>) {
        match self {
            Form::Events(bodies) => write_event_as(out, event, *bodies),
            Form::CloudEvents(source) => write_cloud_event(out, event, source),
        }
    }

    /// What one such object is.
    pub(super) fn content_type(&self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Form::Events(_) => "application/json",
            Form::CloudEvents(_) => "application/cloudevents+json",
        })
    }
}
