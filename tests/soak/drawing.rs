//! The chart: one panel for each figure, restarts as lines across.

use std::fmt::Write as _;

use crate::samples::{Figure, Samples};

const WIDTH: f64 = 860.0;
const LEFT: f64 = 60.0;
const HEIGHT: f64 = 110.0;
const STEP: f64 = 150.0;

pub fn svg(samples: &Samples) -> String {
    let end = samples.all.last().map_or(1.0, |last| last.seconds);
    let x = |seconds: f64| LEFT + (WIDTH - LEFT - 20.0) * seconds / end;
    let mut svg = String::new();
    let total = STEP * 3.0 + 20.0;
    let _ = writeln!(
        svg,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {total}\" font-family=\"sans-serif\" \
         font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>"
    );
    let panels: [(&str, &str, Figure); 3] = [
        ("resident memory, MiB", "#1f6feb", |one| one.rss_mib),
        ("threads", "#8250df", |one| one.threads),
        ("open descriptors", "#bc4c00", |one| one.descriptors),
    ];
    for (number, (title, color, of)) in panels.into_iter().enumerate() {
        let top = 24.0 + STEP * number as f64;
        let most = samples.all.iter().map(of).fold(1.0, f64::max) * 1.1;
        let y = |value: f64| top + HEIGHT * (1.0 - value / most);
        let bottom = top + HEIGHT;
        let _ = writeln!(svg, "<text x=\"{LEFT}\" y=\"{}\">{title}</text>", top - 8.0);
        for part in [0.0, 0.5, 1.0] {
            let (value, at) = (most * part, y(most * part));
            let _ = writeln!(
                svg,
                "<line x1=\"{LEFT}\" x2=\"{}\" y1=\"{at:.1}\" y2=\"{at:.1}\" stroke=\"#d0d7de\"/>\
                 <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{value:.0}</text>",
                WIDTH - 20.0,
                LEFT - 6.0,
                at + 4.0
            );
        }
        for at in &samples.restarts {
            let at = x(*at);
            let _ = writeln!(
                svg,
                "<line x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{top}\" y2=\"{bottom}\" stroke=\"#57606a\" stroke-dasharray=\"3 3\"/>"
            );
        }
        let mut points = String::new();
        let every = (samples.all.len() / 800).max(1);
        for one in samples.all.iter().step_by(every) {
            let _ = write!(points, "{:.1},{:.1} ", x(one.seconds), y(of(one)));
        }
        let _ = writeln!(
            svg,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{color}\" stroke-width=\"1.3\"/>",
            points.trim_end()
        );
    }
    let _ = writeln!(
        svg,
        "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">0 to {:.0} minutes; dashed: stopped or killed, and started again</text>\n</svg>",
        WIDTH - 20.0,
        total - 8.0,
        end / 60.0
    );
    svg
}
