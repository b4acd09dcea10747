//! Figures of several rounds as one table: medians, spreads and ratios.

use std::fmt::Write;

use serde::Serialize;

use crate::peers::Target;
use crate::stats;
use crate::works::{Figure, Unit};

/// All that was measured, in the order in which it was first.
#[derive(Debug, Default)]
pub(crate) struct Table {
    rows: Vec<Row>,
}

#[derive(Debug)]
struct Row {
    name: String,
    unit: Unit,
    /// In the order of the columns.
    cells: Vec<(Target, Vec<f64>)>,
    /// The last of a target counts.
    notes: Vec<(Target, String)>,
}

/// One cell as JSON.
#[derive(Debug, Serialize)]
struct Cell<'a> {
    work: &'a str,
    unit: Unit,
    of: &'static str,
    median: f64,
    min: f64,
    max: f64,
    rounds: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<&'a str>,
    /// Tailmark's median by this one.
    #[serde(skip_serializing_if = "Option::is_none")]
    tailmark_ratio: Option<f64>,
}

impl Row {
    fn median(&self, target: Target) -> Option<f64> {
        let (_, values) = self.cells.iter().find(|(of, _)| *of == target)?;
        stats::median(values)
    }

    fn note(&self, target: Target) -> Option<&str> {
        let (_, note) = self.notes.iter().rfind(|(of, _)| *of == target)?;
        Some(note)
    }

    fn ratio(&self, target: Target) -> Option<f64> {
        stats::ratio(self.median(Target::Tailmark)?, self.median(target)?)
    }
}

impl Table {
    /// Adds what one round measured.
    pub(crate) fn add(&mut self, target: Target, figures: Vec<Figure>) {
        for Figure { name, unit, value, note } in figures {
            let found = self.rows.iter().position(|row| row.name == name);
            let at = found.unwrap_or_else(|| {
                self.rows.push(Row { name, unit, cells: Vec::new(), notes: Vec::new() });
                self.rows.len() - 1
            });
            self.rows[at].notes.extend(note.map(|note| (target, note)));
            let cells = &mut self.rows[at].cells;
            match cells.iter_mut().find(|(of, _)| *of == target) {
                Some((_, values)) => values.extend(value),
                None => {
                    cells.push((target, value.into_iter().collect()));
                    cells.sort_by_key(|(of, _)| *of);
                }
            }
        }
    }

    /// As markdown: a column for each that was measured, then one for each ratio.
    pub(crate) fn markdown(&self, targets: &[Target]) -> String {
        let others: Vec<_> = match targets.contains(&Target::Tailmark) {
            true => targets.iter().filter(|target| **target != Target::Tailmark).collect(),
            false => Vec::new(),
        };
        let mut text = String::from("| work |");
        for target in targets {
            let _ = write!(text, " {} |", target.name());
        }
        for target in &others {
            let _ = write!(text, " us / {} |", target.name());
        }
        let _ = write!(text, "\n|---|{}\n", "---|".repeat(targets.len() + others.len()));
        for row in &self.rows {
            let note = if row.unit.is_more_better() { "" } else { " (less is better)" };
            let _ = write!(text, "| {}{note} |", row.name);
            for target in targets {
                let values = row.cells.iter().find(|(of, _)| of == target);
                let value = values.map_or("-".into(), |(_, values)| cell(row.unit, values));
                let note = row.note(*target).map(|note| format!(", {note}"));
                let _ = write!(text, " {value}{} |", note.unwrap_or_default());
            }
            for target in &others {
                let ratio = row.ratio(**target);
                let _ =
                    write!(text, " {} |", ratio.map_or("-".into(), |ratio| format!("{ratio:.2}")));
            }
            text.push('\n');
        }
        text
    }

    /// One JSON object a cell, one a line.
    pub(crate) fn json(&self) -> serde_json::Result<String> {
        let mut text = String::new();
        for row in &self.rows {
            for (target, values) in &row.cells {
                let (Some(median), Some((min, max))) =
                    (stats::median(values), stats::range(values))
                else {
                    continue;
                };
                let cell = Cell {
                    work: &row.name,
                    unit: row.unit,
                    of: target.name(),
                    median,
                    min,
                    max,
                    rounds: values.len(),
                    note: row.note(*target),
                    tailmark_ratio: row.ratio(*target),
                };
                text.push_str(&serde_json::to_string(&cell)?);
                text.push('\n');
            }
        }
        Ok(text)
    }
}

/// The median, and the spread of more than one.
fn cell(unit: Unit, values: &[f64]) -> String {
    let (Some(median), Some((min, max))) = (stats::median(values), stats::range(values)) else {
        return "-".to_owned();
    };
    match values.len() {
        1 => written(unit, median),
        _ => {
            format!("{} ({} to {})", written(unit, median), written(unit, min), written(unit, max))
        }
    }
}

/// A value with its unit, in three digits.
pub(crate) fn written(unit: Unit, value: f64) -> String {
    match unit {
        Unit::PerSecond if value >= 1e6 => format!("{:.2} M/s", value / 1e6),
        Unit::PerSecond if value >= 1e5 => format!("{:.0} k/s", value / 1e3),
        Unit::PerSecond if value >= 1e4 => format!("{:.1} k/s", value / 1e3),
        Unit::PerSecond if value >= 1e3 => format!("{:.2} k/s", value / 1e3),
        Unit::PerSecond => format!("{value:.0} /s"),
        Unit::Millis if value >= 100.0 => format!("{value:.0} ms"),
        Unit::Millis if value >= 10.0 => format!("{value:.1} ms"),
        Unit::Millis => format!("{value:.2} ms"),
        Unit::Share if value < 0.1 => format!("{value:.3}"),
        Unit::Share => format!("{value:.2}"),
        Unit::Times => format!("{value:.1} times"),
        Unit::Bytes if value >= 1e6 => format!("{:.0} MB", value / 1e6),
        Unit::Bytes => format!("{:.1} KB", value / 1e3),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut table = Table::default();
        for (ours, limit) in [(2e6, 4e6), (1e6, 5e6), (3e6, 3e6)] {
            let figure = |value| vec![Figure::of("append", Unit::PerSecond, Some(value))];
            table.add(Target::Tonic, figure(limit));
            table.add(Target::Tailmark, figure(ours));
        }
        let few = Figure::of("append", Unit::PerSecond, None).noted(Some("of 7".into()));
        table.add(Target::File, vec![few]);
        let publish = |value| vec![Figure::of("publish", Unit::Millis, value)];
        table.add(Target::Tailmark, publish(Some(0.2)));
        table.add(Target::Tonic, publish(None));
        table
    }

    #[test]
    fn medians_spreads_and_ratios_are_in_the_table() {
        let expected = "\
| work | tailmark | limit: tonic | us / limit: tonic |
|---|---|---|---|
| append | 2.00 M/s (1.00 M/s to 3.00 M/s) | 4.00 M/s (3.00 M/s to 5.00 M/s) | 0.50 |
| publish (less is better) | 0.20 ms | - | - |
";
        assert_eq!(table().markdown(&[Target::Tailmark, Target::Tonic]), expected);
    }

    #[test]
    fn a_note_stands_in_its_cell() {
        let text = table().markdown(&[Target::File]);
        assert!(text.contains("| append | -, of 7 |"), "{text}");
    }

    #[test]
    fn without_us_there_are_no_ratios() {
        let text = table().markdown(&[Target::Tonic]);
        assert!(text.starts_with("| work | limit: tonic |\n|---|---|\n"), "{text}");
    }

    #[test]
    fn json_has_one_object_a_cell() {
        let text = table().json().unwrap();
        let cells: Vec<serde_json::Value> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(cells.len(), 3);
        assert_eq!(cells[1]["of"], "limit: tonic");
        assert_eq!((&cells[1]["rounds"], &cells[1]["tailmark_ratio"]), (&3.into(), &0.5.into()));
        assert_eq!((&cells[2]["unit"], &cells[2]["median"]), (&"ms".into(), &0.2.into()));
    }

    #[test]
    fn values_have_units() {
        for (unit, value, text) in [
            (Unit::PerSecond, 1_234_567.0, "1.23 M/s"),
            (Unit::PerSecond, 123_456.0, "123 k/s"),
            (Unit::PerSecond, 12_345.0, "12.3 k/s"),
            (Unit::PerSecond, 1_234.0, "1.23 k/s"),
            (Unit::PerSecond, 12.0, "12 /s"),
            (Unit::Millis, 0.123, "0.12 ms"),
            (Unit::Millis, 12.34, "12.3 ms"),
            (Unit::Millis, 3_700.0, "3700 ms"),
            (Unit::Bytes, 243e6, "243 MB"),
            (Unit::Share, 0.93, "0.93"),
            (Unit::Share, 0.0123, "0.012"),
            (Unit::Times, 1.96, "2.0 times"),
            (Unit::Bytes, 16_384.0, "16.4 KB"),
        ] {
            assert_eq!(written(unit, value), text);
        }
    }
}
