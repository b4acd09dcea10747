//! What is wrong between here and a server, step by step.
//!
//! Owns the questions and their order: name, TCP, TLS, who answers, the clock, the calls. Each step
//! says what it saw; those that cannot be taken any more are told as such. Knows no terminal.

mod answers;
mod page;
mod route;

use std::time::Duration;

use http::Uri;
use serde_json::Value;
use tailmark_client::{Client, Error, Options, TlsProblem};

use route::{Route, Target};

/// For each step, as a client waits.
const PATIENCE: Duration = Duration::from_secs(5);

/// How a step has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// It works, and something should be looked at.
    Warning,
    /// It does not work.
    Failure,
    /// It was not reached.
    Skipped,
}

impl Verdict {
    /// As one word.
    pub fn name(self) -> &'static str {
        match self {
            Verdict::Ok => "ok",
            Verdict::Warning => "warning",
            Verdict::Failure => "failure",
            Verdict::Skipped => "skipped",
        }
    }
}

/// One step.
#[derive(Clone, Debug)]
pub struct Step {
    /// Which.
    pub name: &'static str,
    /// How it has ended.
    pub verdict: Verdict,
    /// What was seen, in a sentence.
    pub text: String,
    /// What to do about it.
    pub hint: Option<String>,
    /// The same for programs, by name.
    pub facts: Vec<(&'static str, Value)>,
}

impl Step {
    fn new(name: &'static str, verdict: Verdict, text: impl Into<String>) -> Step {
        Step { name, verdict, text: text.into(), hint: None, facts: Vec::new() }
    }

    fn hint(mut self, hint: impl Into<String>) -> Step {
        self.hint = Some(hint.into());
        self
    }

    fn fact(mut self, name: &'static str, value: impl Into<Value>) -> Step {
        self.facts.push((name, value.into()));
        self
    }
}

/// Who knows what to do about an error.
pub struct Hints {
    /// Of a call.
    pub of_error: fn(&Error) -> Option<&'static str>,
    /// Of TLS.
    pub of_tls: fn(TlsProblem) -> Option<&'static str>,
}

/// All steps, in their order.
const STEPS: [&str; 11] = [
    "name", "tcp", "tls", "http", "clock", "ready", "grpc", "token", "rights", "stream", "version",
];

/// Looks at the way to the server at `url`, and tells of each step as it is taken; in the end of those,
/// too, that were not reached.
///
/// # Errors
/// When `url` is no address, or the options make no sense.
pub async fn examine(
    url: &str,
    options: Options,
    hints: &Hints,
    tell: impl FnMut(Step),
) -> Result<(), Error> {
    let tls = options.tls.clone();
    let client = Client::with_options(url, options)?;
    let mut report = Report { told: Vec::new(), tell };
    // The client has taken it for an address.
    if let Some(target) = url.parse::<Uri>().ok().and_then(|uri| Target::of(&uri)) {
        let route = Route { target, tls, hints };
        if route.walk(&mut report).await {
            answers::calls(&client, hints, &mut report).await;
        }
    }
    for name in STEPS {
        if !report.told.contains(&name) {
            report.tell(Step::new(name, Verdict::Skipped, "not reached"));
        }
    }
    Ok(())
}

/// Where steps are told.
struct Report<T> {
    told: Vec<&'static str>,
    tell: T,
}

impl<T: FnMut(Step)> Report<T> {
    /// Tells of a step; whether the next can be taken.
    fn tell(&mut self, step: Step) -> bool {
        let goes_on = step.verdict != Verdict::Failure;
        self.told.push(step.name);
        (self.tell)(step);
        goes_on
    }
}
