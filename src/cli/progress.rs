//! Progress bars, on standard error where that is a terminal.

use std::fmt::Write;

use indicatif::{HumanFloatCount, ProgressBar, ProgressState, ProgressStyle};

use super::terminal::progress_target;

/// A bar of this length, if it is known, with a template of indicatif's.
pub(super) fn bar(length: Option<u64>, template: &str) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(length, progress_target());
    restyle(&bar, template);
    bar
}

/// Another template for what comes now.
pub(super) fn restyle(bar: &ProgressBar, template: &str) {
    if let Ok(style) = ProgressStyle::with_template(template) {
        // Whole events: the library says four digits of a fraction.
        let whole = |state: &ProgressState, out: &mut dyn Write| {
            let _ = write!(out, "{:.0}/s", HumanFloatCount(state.per_sec()));
        };
        bar.set_style(style.with_key("per_sec", whole));
    }
}

/// Of bytes; how many there are is said as it goes ([`show`]).
pub(super) fn bytes_bar(what: &str) -> ProgressBar {
    let template = "{bar:30} {bytes} of {total_bytes} WHAT, {bytes_per_sec}, {eta} left";
    bar(Some(0), &template.replace("WHAT", what))
}

/// Of events; how many there are is said as it goes ([`show`]).
pub(super) fn events_bar(what: &str) -> ProgressBar {
    let template = "{bar:30} {human_pos} of {human_len} events WHAT, {per_sec}, {eta} left";
    bar(Some(0), &template.replace("WHAT", what))
}

/// How far it is.
pub(super) fn show(bar: &ProgressBar, done: u64, total: u64) {
    bar.set_length(total);
    bar.set_position(done);
}
