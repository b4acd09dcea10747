//! Strict readers of OpenMetrics text, and of the Prometheus text before it: what they do not know
//! is an error.

use std::collections::{BTreeMap, BTreeSet};

pub type Labels = BTreeMap<String, String>;

/// One page.
#[derive(Debug, Default)]
pub struct Page {
    /// Type of each family, by its name without suffixes.
    pub families: BTreeMap<String, String>,
    /// Value of each sample, by its full name and labels.
    pub samples: BTreeMap<(String, Labels), f64>,
}

impl Page {
    /// The sum over all samples of a name that have these labels.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let has = |all: &Labels| labels.iter().all(|(n, v)| all.get(*n).is_some_and(|x| x == v));
        self.samples
            .iter()
            .filter(|((sample, all), _)| sample == name && has(all))
            .map(|(_, value)| value)
            .sum()
    }

    /// Label names of all samples of a family.
    pub fn labels(&self, family: &str) -> BTreeSet<&str> {
        let of = self.samples.keys().filter(|(name, _)| family_of(name, &self.families) == family);
        of.flat_map(|(_, labels)| labels.keys().map(String::as_str)).collect()
    }
}

/// Reads a page, and checks what the format asks of it: one block a family, types before samples,
/// suffixes by type, no sample twice, cumulative buckets that end in `+Inf`, `# EOF` at the end.
#[track_caller]
pub fn parse(text: &str) -> Page {
    let mut page = Page::default();
    let mut current = String::new();
    let body = text.strip_suffix("# EOF\n").expect("no EOF");
    for line in body.lines() {
        if let Some(comment) = line.strip_prefix("# ") {
            let (what, rest) = comment.split_once(' ').expect(line);
            let (name, value) = rest.split_once(' ').expect(line);
            assert!(is_name(name), "{line}");
            match what {
                "HELP" => {
                    assert!(!page.families.contains_key(name), "twice: {line}");
                    current = name.to_owned();
                }
                "TYPE" => {
                    assert_eq!(name, current, "{line}");
                    assert!(["counter", "gauge", "histogram", "info"].contains(&value), "{line}");
                    page.families.insert(name.to_owned(), value.to_owned());
                }
                "UNIT" => {
                    assert_eq!(name, current, "{line}");
                    assert!(name.ends_with(&format!("_{value}")), "{line}");
                }
                _ => panic!("{line}"),
            }
            continue;
        }
        let (name, labels, value) = sample(line);
        assert_eq!(family_of(&name, &page.families), current, "{line}");
        let kind = page.families[&current].as_str();
        let suffix = &name[current.len()..];
        match kind {
            "counter" => assert!(suffix == "_total" && value >= 0.0, "{line}"),
            "gauge" => assert_eq!(suffix, "", "{line}"),
            "info" => assert!(suffix == "_info" && value == 1.0, "{line}"),
            _ => assert!(["_bucket", "_sum", "_count"].contains(&suffix), "{line}"),
        }
        assert_eq!(suffix == "_bucket", labels.contains_key("le"), "{line}");
        assert!(page.samples.insert((name, labels), value).is_none(), "twice: {line}");
    }
    check_buckets(&page);
    page
}

/// Reads a page of the format 0.0.4: types before samples, families by the names of their samples,
/// nothing of what only OpenMetrics has.
#[track_caller]
pub fn parse_classic(text: &str) -> Page {
    let mut page = Page::default();
    let mut current = String::new();
    assert!(text.ends_with('\n'), "no line end at the end");
    for line in text.lines() {
        if let Some(comment) = line.strip_prefix("# ") {
            let (what, rest) = comment.split_once(' ').unwrap_or_else(|| panic!("{line}"));
            let (name, value) = rest.split_once(' ').expect(line);
            match what {
                "HELP" => {
                    assert!(!page.families.contains_key(name), "twice: {line}");
                    current = name.to_owned();
                }
                "TYPE" => {
                    assert_eq!(name, current, "{line}");
                    assert!(["counter", "gauge", "histogram"].contains(&value), "{line}");
                    page.families.insert(name.to_owned(), value.to_owned());
                }
                _ => panic!("{line}"),
            }
            continue;
        }
        let (name, labels, value) = sample(line);
        let suffix = name.strip_prefix(&current).unwrap_or_else(|| panic!("{line}"));
        match page.families[&current].as_str() {
            "histogram" => assert!(["_bucket", "_sum", "_count"].contains(&suffix), "{line}"),
            _ => assert_eq!(suffix, "", "{line}"),
        }
        assert_eq!(suffix == "_bucket", labels.contains_key("le"), "{line}");
        assert!(page.samples.insert((name, labels), value).is_none(), "twice: {line}");
    }
    check_buckets(&page);
    page
}

fn check_buckets(page: &Page) {
    let mut series: BTreeMap<(String, Labels), Vec<(f64, f64)>> = BTreeMap::new();
    for ((name, labels), value) in &page.samples {
        if let Some(family) = name.strip_suffix("_bucket") {
            let mut labels = labels.clone();
            let bound = labels.remove("le").unwrap();
            let bound = if bound == "+Inf" { f64::INFINITY } else { bound.parse().unwrap() };
            series.entry((family.to_owned(), labels)).or_default().push((bound, *value));
        }
    }
    for ((family, labels), mut buckets) in series {
        buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
        assert!(buckets.windows(2).all(|pair| pair[0].1 <= pair[1].1), "{family}: {buckets:?}");
        let last = buckets.last().unwrap();
        assert_eq!(last.0, f64::INFINITY, "{family}");
        assert_eq!(page.samples[&(format!("{family}_count"), labels)], last.1, "{family}");
    }
}

/// The family that a sample belongs to.
pub fn family_of(name: &str, families: &BTreeMap<String, String>) -> String {
    let suffixes = ["", "_total", "_info", "_bucket", "_sum", "_count"];
    let family = suffixes.iter().filter_map(|suffix| name.strip_suffix(suffix));
    family.into_iter().find(|family| families.contains_key(*family)).unwrap_or(name).to_owned()
}

fn sample(line: &str) -> (String, Labels, f64) {
    let end = line.find(['{', ' ']).unwrap_or_else(|| panic!("{line}"));
    let (name, mut rest) = line.split_at(end);
    assert!(is_name(name), "{line}");
    let mut labels = Labels::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        while !rest.starts_with('}') {
            let (label, after) = rest.split_once("=\"").unwrap_or_else(|| panic!("{line}"));
            let label = label.trim_start_matches(',');
            assert!(is_name(label), "{line}");
            let (value, after) = quoted(after).unwrap_or_else(|| panic!("{line}"));
            // A bound is a number, however it is written.
            let value = match value.parse::<f64>() {
                Ok(bound) if label == "le" && bound.is_finite() => bound.to_string(),
                _ => value,
            };
            assert!(labels.insert(label.to_owned(), value).is_none(), "{line}");
            rest = after;
        }
        rest = &rest[1..];
    }
    let value = rest.strip_prefix(' ').unwrap_or_else(|| panic!("{line}"));
    (name.to_owned(), labels, value.parse().unwrap_or_else(|_| panic!("{line}")))
}

/// The text up to the closing quote, and what follows it.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => value.push(match chars.next()?.1 {
                'n' => '\n',
                c @ ('"' | '\\') => c,
                _ => return None,
            }),
            '\n' => return None,
            c => value.push(c),
        }
    }
    None
}

fn is_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|c| c.is_ascii_alphabetic() || c == b'_')
        && bytes.all(|c| c.is_ascii_alphanumeric() || c == b'_')
}
