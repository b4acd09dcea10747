use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::storage::TopicStats;
use tailmark_record::{Seq, Timestamp};

const ORIGIN: Origin =
    Origin { first: Seq::new(100), first_at: Timestamp { seconds: -5, nanos: 999_999_999 } };

type Model = BTreeMap<String, (TopicStats, Vec<u32>)>;

fn at(seq: u64) -> Timestamp {
    Timestamp { seconds: -5 + (seq as i64 - 99) / 3, nanos: (seq % 1_000) as i32 }
}

/// Events of these topics, so many to a block.
fn collect(topics: &[String], per_block: u32) -> (Table, Model) {
    let (mut collector, mut model) = (Collector::default(), Model::new());
    for (nth, topic) in topics.iter().enumerate() {
        let (seq, block) = (100 + nth as u64, nth as u32 / per_block);
        collector.note(topic.as_bytes(), Seq::new(seq), at(seq), block).unwrap();
        let (stats, blocks) = model.entry(topic.clone()).or_default();
        *stats = TopicStats { events: stats.events + 1, last_seq: Seq::new(seq), last_at: at(seq) };
        if blocks.last() != Some(&block) {
            blocks.push(block);
        }
    }
    (collector.finish(ORIGIN).unwrap(), model)
}

fn rest(table: &Table, from: &str) -> Vec<(String, TopicStats, Vec<u32>)> {
    let mut cursor = Cursor::seek(table, &table.summary, ORIGIN, from).unwrap();
    let mut found = Vec::new();
    while let Some(name) = cursor.name() {
        let mut blocks = Vec::new();
        cursor.blocks().each(table, |block| blocks.push(block)).unwrap();
        found.push((name.to_owned(), *cursor.stats(), blocks));
        cursor.advance(table).unwrap();
    }
    found
}

fn expected(model: &Model, from: &str) -> Vec<(String, TopicStats, Vec<u32>)> {
    let rest = model.range(from.to_owned()..);
    rest.map(|(name, (stats, blocks))| (name.clone(), *stats, blocks.clone())).collect()
}

fn topic() -> impl Strategy<Value = String> {
    prop_oneof![
        3 => "[a-c]{1,3}(\\.[a-c]{1,2}){0,2}",
        1 => "[a-z]{200,250}",
        1 => "[αβ日]{1,4}",
    ]
}

proptest! {
    #[test]
    fn a_table_is_a_sorted_map(
        topics in prop::collection::vec(topic(), 1..400),
        per_block in 1..5u32,
        froms in prop::collection::vec(topic(), 0..8),
    ) {
        let (table, model) = collect(&topics, per_block);
        prop_assert_eq!(table.summary.topics, model.len() as u64);
        prop_assert_eq!(Summary::decode(&table.summary.encode()), Ok(table.summary.clone()));
        prop_assert_eq!(Bloom::decode(table.filter.bytes().to_vec()), Ok(table.filter.clone()));
        let names = model.keys().cloned().chain(froms).chain([String::new()]);
        for from in names {
            prop_assert_eq!(rest(&table, &from), expected(&model, &from));
            let found = find(&table, &table.summary, ORIGIN, &from).unwrap();
            let known = model.get(&from);
            prop_assert_eq!(found.map(|it| it.stats), known.map(|it| it.0));
            let may_have = table.filter.may_have(Bloom::hash(from.as_bytes()));
            prop_assert!(may_have || known.is_none(), "{} is told away", from);
            let begins = model.keys().any(|name| name.starts_with(&from));
            prop_assert!(table.summary.may_have(&from) || !begins, "{} is told away", from);
        }
    }
}

fn many() -> Vec<String> {
    let order = |n: u64| n * 7_919 % 20_000;
    (0..20_000).map(|n| format!("site.{}.sensor.{:05}", order(n) % 7, order(n))).collect()
}

#[test]
fn a_search_reads_a_page_a_level() {
    let (table, model) = collect(&many(), 4);
    assert!(table.summary.levels >= 1 && table.pages.len() > 100_000);
    for name in model.keys().step_by(97) {
        let cursor = Cursor::seek(&table, &table.summary, ORIGIN, name).unwrap();
        assert_eq!(cursor.name(), Some(name.as_str()));
        assert!(cursor.pages_read <= u64::from(table.summary.levels) + 2, "{name}");
    }
    let unknown = (0..20_000).map(|n| format!("site.{}.sensor.{n}x", n % 7));
    let told = unknown.filter(|name| !table.filter.may_have(Bloom::hash(name.as_bytes())));
    assert!(told.count() > 19_600, "the filter tells what is not there");
    assert!(table.filter.bytes().len() <= model.len() * 2);
}

/// Every bit counts: what is altered is told, whoever asks, or is never looked at.
#[test]
fn no_altered_page_or_list_is_taken() {
    let topics: Vec<_> = (0..15_000).map(|n| format!("t.{:03}", n * 7 % 500)).collect();
    let (table, model) = collect(&topics, 10);
    assert!(table.lists.len() > 10_000, "lists lie outside of their entries");
    let all = |table: &Table| -> Result<usize> {
        let mut cursor = Cursor::seek(table, &table.summary, ORIGIN, "")?;
        let mut blocks = 0;
        while cursor.name().is_some() {
            cursor.blocks().each(table, |_| blocks += 1)?;
            cursor.advance(table)?;
        }
        Ok(blocks)
    };
    assert_eq!(all(&table), Ok(model.values().map(|it| it.1.len()).sum()));
    for (at, bit) in (0..table.pages.len()).step_by(97).zip((0..8).cycle()) {
        let mut altered = table.clone();
        altered.pages[at] ^= 1 << bit;
        assert!(matches!(all(&altered), Err(Problem::Damaged(_))), "page byte {at}");
    }
    for (at, bit) in (0..table.lists.len()).step_by(53).zip((0..8).cycle()) {
        let mut altered = table.clone();
        altered.lists[at] ^= 1 << bit;
        assert!(matches!(all(&altered), Err(Problem::Damaged(_))), "list byte {at}");
    }
    // A page that lies where another did.
    let mut altered = table.clone();
    let Link { len, .. } = table.summary.root;
    altered.pages.rotate_left(len as usize);
    assert!(all(&altered).is_err());
    altered.pages.truncate(10);
    assert!(all(&altered).is_err());
}
