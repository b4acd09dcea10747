//! What a disk may hold after the power went at some point of a recorded run.
//!
//! A file's bytes are durable once an fsync or fdatasync of it, begun after they were written, has
//! returned; a name once that happened to its directory. Of all the rest any subset may be there:
//! per page some earlier or later version of it, torn at sectors of 512 bytes; names in any subset, or, as a
//! journaling file system has it, the first of them up to some point. `sync_file_range` makes
//! nothing durable.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::strace::{Arg, Call, Step};

mod reader;

const PAGE: usize = 4096;
const SECTOR: usize = 512;
const ROOT: usize = 0;

/// What happened to the disk, in order.
#[derive(Debug)]
enum Op {
    /// Bytes of a file.
    Data {
        node: usize,
        change: Change,
    },
    /// Names.
    Names {
        changes: Vec<(usize, String, Option<usize>)>,
    },
    /// Begins; names what it will make durable once it has ended.
    SyncBegin {
        call: usize,
        node: usize,
    },
    SyncEnd {
        call: usize,
    },
    /// A line that the child told.
    Told(Told),
}

#[derive(Debug)]
enum Change {
    Write {
        at: usize,
        bytes: Vec<u8>,
    },
    Resize(usize),
    /// At least so long.
    Grow(usize),
}

/// A line of the script.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// About to reach this head and trim mark.
    Tries { head: u64, oldest: u64 },
    /// Durable: this head, this trim mark.
    Acked { head: u64, oldest: u64 },
    /// A clean stop.
    Closed,
}

#[derive(Debug)]
struct Node {
    is_dir: bool,
    path: String,
}

/// A recorded run.
#[derive(Debug)]
pub struct Recording {
    ops: Vec<Op>,
    nodes: Vec<Node>,
    /// Ops of the data of each node.
    data: HashMap<usize, Vec<usize>>,
    /// Places right after an operation that matters: names, syncs, journal writes, what was told.
    interesting: Vec<usize>,
    /// What was promised before the run began.
    before: Promise,
    /// Operations that laid out what was there before: no cut falls among them.
    laid_out: usize,
    /// Any sync makes all names durable that were there when it began, as with one journal for all of them.
    names_follow: bool,
}

/// What the script had been promised at the cut.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Promise {
    pub acked_head: u64,
    pub acked_oldest: u64,
    pub tried_head: u64,
    pub tried_oldest: u64,
}

/// What is left out of a recording, for the null controls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Without {
    Nothing,
    /// fdatasync of the journal's slots.
    JournalSyncs,
    /// fsync of a segment's files while it is built.
    SegmentSyncs,
    /// fsync of directories.
    DirectorySyncs,
}

struct Reader<'a> {
    root: &'a str,
    recording: Recording,
    /// The tree of names as the child sees it.
    names: HashMap<(usize, String), usize>,
    fds: HashMap<i64, (usize, usize)>,
    /// Descriptors that were opened with `O_SYNC`.
    synced: HashSet<i64>,
    without: Without,
}

impl Recording {
    /// Of a traced run that worked below `root`, which was empty when it began.
    pub fn new(steps: &[Step], root: &Path, without: Without) -> Recording {
        Recording::after(steps, root, without, &[], Promise::default())
    }

    /// The same where these files, all of them durable, were there when it began.
    pub fn after(
        steps: &[Step],
        root: &Path,
        without: Without,
        files: &[(PathBuf, Vec<u8>)],
        before: Promise,
    ) -> Recording {
        let root = root.to_str().expect("a path in UTF-8");
        let recording = Recording {
            ops: Vec::new(),
            nodes: vec![Node { is_dir: true, path: String::new() }],
            data: HashMap::new(),
            interesting: Vec::new(),
            before,
            laid_out: 0,
            names_follow: false,
        };
        let (names, fds, synced) = (HashMap::new(), HashMap::new(), HashSet::new());
        let mut reader = Reader { root, recording, names, fds, synced, without };
        files.iter().for_each(|(path, bytes)| reader.preload(path, bytes));
        reader.recording.laid_out = reader.recording.ops.len();
        let calls: Vec<&Call> = steps
            .iter()
            .filter_map(|step| if let Step::Call(call) = step { Some(call) } else { None })
            .collect();
        for step in steps {
            match step {
                Step::Enter { call: usize::MAX } | Step::Call(_) => {}
                Step::Enter { call } => reader.enter(*call, calls[*call]),
                Step::Exit { call } => reader.exit(*call, calls[*call]),
            }
        }
        reader.recording.index();
        reader.recording
    }

    /// The same on a file system that has one journal for all names (ext4, XFS): what a program relies on that syncs new
    /// files, and not their directories.
    pub fn with_one_journal(mut self) -> Recording {
        self.names_follow = true;
        self
    }

    pub fn len(&self) -> usize {
        self.ops.len()
    }

    fn index(&mut self) {
        for (at, op) in self.ops.iter().enumerate() {
            let matters = match op {
                Op::Data { node, .. } => {
                    self.data.entry(*node).or_default().push(at);
                    !self.nodes[*node].path.contains("/.tmp-")
                }
                Op::SyncBegin { .. } | Op::SyncEnd { .. } | Op::Names { .. } | Op::Told(_) => true,
            };
            if matters && at >= self.laid_out {
                self.interesting.push(at + 1);
            }
        }
    }

    /// Figures of what was recorded.
    pub fn summary(&self) -> String {
        let count = |what: &dyn Fn(&Op) -> bool| self.ops.iter().filter(|op| what(op)).count();
        let bytes: usize = self
            .ops
            .iter()
            .map(|op| match op {
                Op::Data { change: Change::Write { bytes, .. }, .. } => bytes.len(),
                _ => 0,
            })
            .sum();
        format!(
            "{} operations: {} writes of {:.1} MB, {} changes of names, {} syncs, {} acks; {} slot \
             files, {} segments built, {} thrown away, {} clean stops",
            self.ops.len(),
            count(&|op| matches!(op, Op::Data { change: Change::Write { .. }, .. })),
            bytes as f64 / 1e6,
            count(&|op| matches!(op, Op::Names { .. })),
            count(&|op| matches!(op, Op::SyncEnd { .. })),
            count(&|op| matches!(op, Op::Told(Told::Acked { .. }))),
            self.renamed(|name| name.starts_with("slot-")),
            self.renamed(|name| name.starts_with("0000")),
            self.renamed(|name| name.starts_with("trash-")),
            count(&|op| matches!(op, Op::Told(Told::Closed))),
        )
    }

    /// How many names that satisfy `is` were given by a rename.
    pub fn renamed(&self, is: impl Fn(&str) -> bool) -> usize {
        let given = |op: &Op| match op {
            Op::Names { changes } if changes.len() == 2 => {
                changes[1].2.is_some() && is(&changes[1].1)
            }
            _ => false,
        };
        self.ops.iter().filter(|op| given(op)).count()
    }

    /// Segments built with a revision above the first.
    pub fn folds(&self) -> usize {
        self.renamed(|name| name.starts_with("0000") && !name.ends_with("-1"))
    }

    /// A place to cut: half of them anywhere, half where something matters.
    pub fn random_cut(&self, rng: &mut StdRng) -> usize {
        if rng.random_bool(0.05) {
            // The creation of the log, or its recovery.
            self.interesting[rng.random_range(0..self.interesting.len().min(100))]
        } else if rng.random_bool(0.5) {
            self.interesting[rng.random_range(0..self.interesting.len())]
        } else {
            rng.random_range(self.laid_out..=self.ops.len())
        }
    }

    pub fn promise(&self, cut: usize) -> Promise {
        let mut promise = self.before;
        for op in &self.ops[..cut] {
            match op {
                Op::Told(Told::Tries { head, oldest }) => {
                    promise.tried_head = promise.tried_head.max(*head);
                    promise.tried_oldest = promise.tried_oldest.max(*oldest);
                }
                Op::Told(Told::Acked { head, oldest }) => {
                    promise.acked_head = promise.acked_head.max(*head);
                    promise.acked_oldest = promise.acked_oldest.max(*oldest);
                    promise.tried_oldest = promise.tried_oldest.max(*oldest);
                }
                _ => {}
            }
        }
        promise
    }

    /// Whether a write to a slot of the journal was not synced yet.
    pub fn is_writing_journal(&self, cut: usize) -> bool {
        match self.ops[..cut].iter().rev().find(|op| !matches!(op, Op::Told(_))) {
            Some(Op::Data { node, .. } | Op::SyncBegin { node, .. }) => {
                self.nodes[*node].path.contains("/journal/slot-")
            }
            _ => false,
        }
    }

    /// What was under way at a cut, in one word: for the table of where the cuts fell.
    pub fn phase(&self, cut: usize) -> &'static str {
        for op in self.ops[..cut].iter().rev().take(40) {
            match op {
                Op::Data { node, .. } | Op::SyncBegin { node, .. } => {
                    let path = &self.nodes[*node].path;
                    return match path {
                        path if path.contains("trash-") => "throwing away",
                        path if path.contains("segments") => "sealing",
                        path if path.contains("journal/slot") && !path.contains(".new") => "commit",
                        path if path.contains("slot-") => "allocating",
                        path if path.contains("log.meta") => "log.meta",
                        _ => "start and stop",
                    };
                }
                Op::Names { changes } => {
                    let name = &changes[changes.len() - 1].1;
                    return match name {
                        name if name.starts_with("trash-") => "throwing away",
                        name if name.starts_with("0000") => "sealing",
                        name if name.starts_with("slot-") => "allocating",
                        name if name.starts_with("log.meta") => "log.meta",
                        _ if changes[0].2.is_none() => "throwing away",
                        _ => "sealing",
                    };
                }
                _ => {}
            }
        }
        "start and stop"
    }

    /// Builds in `target` one thing that the disk may hold.
    pub fn image(&self, cut: usize, seed: u64, target: &Path) {
        let mut rng = StdRng::seed_from_u64(seed);
        let durable_upto = self.durable_upto(cut);
        let upto = |node: usize| durable_upto.get(&node).copied().unwrap_or(0);
        let any = durable_upto.values().copied().max().unwrap_or(0);
        let names_upto = |dir: usize| if self.names_follow { any } else { upto(dir) };
        let names = self.names(cut, &names_upto, &mut rng);
        let mut children: BTreeMap<usize, Vec<(&str, usize)>> = BTreeMap::new();
        for ((dir, name), node) in &names {
            children.entry(*dir).or_default().push((name, *node));
        }
        // How much of what was not synced survives: nothing, little, half, most, all.
        let mut keep = [0.0, 0.1, 0.5, 0.9, 1.0][rng.random_range(0..5)];
        let mut open = vec![(ROOT, target.to_owned())];
        let mut visited = HashSet::new();
        while let Some((dir, path)) = open.pop() {
            if !visited.insert(dir) {
                continue;
            }
            std::fs::create_dir_all(&path).expect("image");
            let mut entries = children.get(&dir).cloned().unwrap_or_default();
            entries.sort();
            for (name, node) in entries {
                let path = path.join(name);
                if self.nodes[node].is_dir {
                    open.push((node, path));
                    continue;
                }
                if rng.random_bool(0.3) {
                    keep = [0.0, 0.1, 0.5, 0.9, 1.0][rng.random_range(0..5)];
                }
                let bytes = self.content(node, cut, upto(node), keep, &mut rng);
                std::fs::write(&path, bytes).expect("image");
            }
        }
    }

    /// Per node: ops below this place are durable.
    fn durable_upto(&self, cut: usize) -> HashMap<usize, usize> {
        let mut begun = HashMap::new();
        let mut durable = HashMap::new();
        for (at, op) in self.ops[..cut].iter().enumerate() {
            match op {
                Op::SyncBegin { call, node } => {
                    begun.insert(*call, (*node, at));
                }
                Op::SyncEnd { call } => {
                    if let Some((node, begin)) = begun.remove(call) {
                        let upto: &mut usize = durable.entry(node).or_default();
                        *upto = begin.max(*upto);
                    }
                }
                _ => {}
            }
        }
        durable
    }

    fn names(
        &self,
        cut: usize,
        upto: &impl Fn(usize) -> usize,
        rng: &mut StdRng,
    ) -> BTreeMap<(usize, String), usize> {
        let pending: Vec<usize> = (0..cut)
            .filter(|&at| match &self.ops[at] {
                Op::Names { changes } => changes.iter().any(|(dir, ..)| at >= upto(*dir)),
                _ => false,
            })
            .collect();
        let is_ordered = self.names_follow || rng.random_bool(0.5);
        let first_lost = pending.get(rng.random_range(0..=pending.len())).copied().unwrap_or(cut);
        let share = [0.0, 0.5, 0.9][rng.random_range(0..3)];
        let mut names = BTreeMap::new();
        for (at, op) in self.ops[..cut].iter().enumerate() {
            let Op::Names { changes } = op else { continue };
            let survives = if is_ordered { at < first_lost } else { rng.random_bool(share) };
            for (dir, name, node) in changes {
                // A rename within a directory is whole or absent; across two, each by itself.
                if at < upto(*dir) || survives {
                    match node {
                        Some(node) => names.insert((*dir, name.clone()), *node),
                        None => names.remove(&(*dir, name.clone())),
                    };
                }
            }
        }
        names
    }

    fn content(
        &self,
        node: usize,
        cut: usize,
        upto: usize,
        keep: f64,
        rng: &mut StdRng,
    ) -> Vec<u8> {
        let Some(ops) = self.data.get(&node) else { return Vec::new() };
        let changes = |range: std::ops::Range<usize>| {
            ops.iter().filter(move |&&at| range.contains(&at)).map(|&at| match &self.ops[at] {
                Op::Data { change, .. } => change,
                other => unreachable!("{other:?}"),
            })
        };
        let mut bytes = Vec::new();
        for change in changes(0..upto) {
            apply(&mut bytes, change);
        }
        let pending: Vec<&Change> = changes(upto..cut).collect();
        if pending.is_empty() {
            return bytes;
        }
        // How long the file is by its inode: at any time since the sync.
        let mut lengths = vec![bytes.len()];
        let mut by_page: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for (at, change) in pending.iter().enumerate() {
            let last = lengths[lengths.len() - 1];
            match change {
                Change::Write { at: offset, bytes } => {
                    lengths.push(last.max(offset + bytes.len()));
                    for page in offset / PAGE..(offset + bytes.len()).div_ceil(PAGE) {
                        by_page.entry(page).or_default().push(at);
                    }
                }
                Change::Resize(len) => lengths.push(*len),
                Change::Grow(len) => lengths.push(last.max(*len)),
            }
        }
        let longest = lengths.iter().copied().max().unwrap_or(0);
        let len = match rng.random_bool(keep) {
            true => lengths[lengths.len() - 1],
            false => lengths[rng.random_range(0..lengths.len())],
        };
        bytes.resize(longest.next_multiple_of(PAGE).max(bytes.len()), 0);
        for (page, writes) in by_page {
            let range = page * PAGE..(page + 1) * PAGE;
            let version = |count: usize| {
                let mut out = bytes[range.clone()].to_vec();
                for &at in &writes[..count] {
                    let Change::Write { at: offset, bytes } = pending[at] else { continue };
                    let from = range.start.max(*offset);
                    let to = range.end.min(offset + bytes.len());
                    out[from - range.start..to - range.start]
                        .copy_from_slice(&bytes[from - offset..to - offset]);
                }
                out
            };
            let pick = |rng: &mut StdRng| {
                if rng.random_bool(keep) { writes.len() } else { rng.random_range(0..writes.len()) }
            };
            let mut survivor = version(pick(rng));
            if rng.random_bool(0.3) {
                // The page was being written: some of its sectors are of another version.
                let other = version(pick(rng).min(rng.random_range(0..=writes.len())));
                for sector in 0..PAGE / SECTOR {
                    if rng.random_bool(0.5) {
                        let range = sector * SECTOR..(sector + 1) * SECTOR;
                        survivor[range.clone()].copy_from_slice(&other[range]);
                    }
                }
            }
            bytes[range].copy_from_slice(&survivor);
        }
        bytes.resize(len, 0);
        bytes
    }
}

fn apply(bytes: &mut Vec<u8>, change: &Change) {
    match change {
        Change::Write { at, bytes: new } => {
            if bytes.len() < at + new.len() {
                bytes.resize(at + new.len(), 0);
            }
            bytes[*at..at + new.len()].copy_from_slice(new);
        }
        Change::Resize(len) => bytes.resize(*len, 0),
        Change::Grow(len) => bytes.resize(bytes.len().max(*len), 0),
    }
}
