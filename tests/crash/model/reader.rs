//! From the trace of a run to what happened to the disk.

use super::*;

impl Reader<'_> {
    /// A file, or a directory where the path ends in `/`, that was there and durable.
    pub(super) fn preload(&mut self, path: &Path, bytes: &[u8]) {
        let mut dir = ROOT;
        let names: Vec<_> = path.iter().map(|name| name.to_string_lossy().into_owned()).collect();
        for (depth, name) in names.into_iter().enumerate() {
            let place = (dir, name);
            let is_dir =
                depth + 1 < path.iter().count() || path.as_os_str().as_bytes().ends_with(b"/");
            let node = match self.lookup(&place) {
                Some(node) => node,
                None => self.create(place, is_dir),
            };
            self.settle(dir);
            dir = node;
        }
        let change = Change::Write { at: 0, bytes: bytes.to_vec() };
        self.push(Op::Data { node: dir, change });
        self.settle(dir);
    }

    fn settle(&mut self, node: usize) {
        self.push(Op::SyncBegin { call: usize::MAX, node });
        self.push(Op::SyncEnd { call: usize::MAX });
    }

    fn push(&mut self, op: Op) {
        self.recording.ops.push(op);
    }

    /// The directory and last part of a path; `None` outside the root.
    fn place(&self, dir: i64, path: &[u8]) -> Option<(usize, String)> {
        let path = std::str::from_utf8(path).ok()?;
        let (mut at, rest) = match path.strip_prefix(self.root) {
            Some(rest) => (ROOT, rest),
            None if path.starts_with('/') => return None,
            None => (self.fds.get(&dir)?.0, path),
        };
        let mut parts = rest.split('/').filter(|part| !part.is_empty() && *part != ".").peekable();
        while let Some(part) = parts.next() {
            if parts.peek().is_none() {
                return Some((at, part.to_owned()));
            }
            at = *self.names.get(&(at, part.to_owned()))?;
        }
        Some((at, String::new()))
    }

    fn lookup(&self, place: &(usize, String)) -> Option<usize> {
        if place.1.is_empty() { Some(place.0) } else { self.names.get(place).copied() }
    }

    fn create(&mut self, place: (usize, String), is_dir: bool) -> usize {
        let path = format!("{}/{}", self.recording.nodes[place.0].path, place.1);
        self.recording.nodes.push(Node { is_dir, path });
        let node = self.recording.nodes.len() - 1;
        self.names.insert(place.clone(), node);
        self.push(Op::Names { changes: vec![(place.0, place.1, Some(node))] });
        node
    }

    fn node(&self, fd: i64) -> Option<usize> {
        self.fds.get(&fd).map(|(node, _)| *node)
    }

    pub(super) fn enter(&mut self, at: usize, call: &Call) {
        if call.result < 0 && call.name != "close" {
            return;
        }
        match call.name.as_str() {
            "writev" if call.number(0) == 1 => {
                let text = String::from_utf8_lossy(call.bytes(1)).into_owned();
                text.lines().for_each(|line| self.told(line));
            }
            "write" | "pwrite64" | "writev" | "pwritev" | "pwritev2" => {
                self.write(call);
                let fd = call.number(0);
                if let Some(node) = self.node(fd).filter(|_| self.synced.contains(&fd)) {
                    self.push(Op::SyncBegin { call: at, node });
                }
            }
            "fsync" | "fdatasync" => {
                let Some(node) = self.node(call.number(0)) else { return };
                let info = &self.recording.nodes[node];
                let is_left_out = match self.without {
                    Without::Nothing => false,
                    Without::JournalSyncs => {
                        call.name == "fdatasync" && info.path.contains("/slot-")
                    }
                    Without::SegmentSyncs => !info.is_dir && info.path.contains("/.tmp-"),
                    Without::DirectorySyncs => info.is_dir,
                };
                if !is_left_out {
                    self.push(Op::SyncBegin { call: at, node });
                }
            }
            "close" => {
                self.fds.remove(&call.number(0));
            }
            _ => {}
        }
    }

    pub(super) fn exit(&mut self, at: usize, call: &Call) {
        if call.result < 0 {
            return;
        }
        match call.name.as_str() {
            "open" | "openat" | "creat" => self.open(call),
            "dup" | "dup2" | "dup3" => {
                if let Some(&entry) = self.fds.get(&call.number(0)) {
                    self.fds.insert(call.result, entry);
                }
            }
            "fcntl" if call.has_word("F_DUPFD") || call.has_word("F_DUPFD_CLOEXEC") => {
                if let Some(&entry) = self.fds.get(&call.number(0)) {
                    self.fds.insert(call.result, entry);
                }
            }
            "lseek" => {
                if let Some(entry) = self.fds.get_mut(&call.number(0)) {
                    entry.1 = call.result as usize;
                }
            }
            "ftruncate" => {
                if let Some(node) = self.node(call.number(0)) {
                    let change = Change::Resize(call.number(1) as usize);
                    self.push(Op::Data { node, change });
                }
            }
            "fallocate" => {
                if let Some(node) = self.node(call.number(0)) {
                    assert_eq!(call.number(1), 0, "fallocate with flags is not modelled");
                    let change = Change::Grow((call.number(2) + call.number(3)) as usize);
                    self.push(Op::Data { node, change });
                }
            }
            "mkdir" => self.mkdir(-100, call.bytes(0)),
            "mkdirat" => self.mkdir(call.number(0), call.bytes(1)),
            "rename" => self.rename((-100, call.bytes(0)), (-100, call.bytes(1))),
            "renameat" | "renameat2" => {
                self.rename((call.number(0), call.bytes(1)), (call.number(2), call.bytes(3)));
            }
            "unlink" | "rmdir" => self.unlink(-100, call.bytes(0)),
            "unlinkat" => self.unlink(call.number(0), call.bytes(1)),
            "fsync" | "fdatasync" => self.push(Op::SyncEnd { call: at }),
            "write" | "pwrite64" | "writev" | "pwritev" | "pwritev2"
                if self.synced.contains(&call.number(0)) =>
            {
                self.push(Op::SyncEnd { call: at });
            }
            "link" | "linkat" | "symlink" | "symlinkat" | "copy_file_range" | "sendfile"
            | "truncate" => {
                panic!("{} is not modelled: {:?}", call.name, call.args)
            }
            _ => {}
        }
    }

    fn told(&mut self, line: &str) {
        let mut words = line.split(' ');
        let kind = words.next().unwrap_or_default();
        let mut number = || words.next().and_then(|word| word.parse().ok()).unwrap_or(0);
        let told = match kind {
            "T" => Told::Tries { head: number(), oldest: number() },
            "A" => Told::Acked { head: number(), oldest: number() },
            "C" => Told::Closed,
            _ => return,
        };
        self.push(Op::Told(told));
    }

    fn write(&mut self, call: &Call) {
        let Some(node) = self.node(call.number(0)) else { return };
        let mut bytes = Vec::new();
        for arg in &call.args {
            if let Arg::Bytes(part) = arg {
                bytes.extend_from_slice(part);
            }
        }
        bytes.truncate(call.result as usize);
        let at = match call.name.as_str() {
            "pwrite64" | "pwritev" => match call.args.last() {
                Some(Arg::Number(at)) => *at as usize,
                other => panic!("{}: {other:?}", call.name),
            },
            "pwritev2" => call.number(call.args.len() - 2) as usize,
            _ => {
                let Some(entry) = self.fds.get_mut(&call.number(0)) else { return };
                entry.1 += bytes.len();
                entry.1 - bytes.len()
            }
        };
        // The tip tells of syncs, so what they make of it says nothing without them.
        let path = &self.recording.nodes[node].path;
        if self.without == Without::JournalSyncs && path.ends_with("/journal/tip") {
            return;
        }
        self.push(Op::Data { node, change: Change::Write { at, bytes } });
    }

    fn open(&mut self, call: &Call) {
        let (dir, path) = match call.name.as_str() {
            "openat" => (call.number(0), call.bytes(1)),
            _ => (-100, call.bytes(0)),
        };
        let Some(place) = self.place(dir, path) else { return };
        let node = match self.lookup(&place) {
            Some(node) => node,
            None => {
                assert!(
                    call.has_word("O_CREAT") || call.name == "creat" || place.0 == ROOT,
                    "{place:?} was opened but never created"
                );
                self.create(place, call.has_word("O_DIRECTORY"))
            }
        };
        if call.has_word("O_TRUNC") || call.name == "creat" {
            self.push(Op::Data { node, change: Change::Resize(0) });
        }
        assert!(!call.has_word("O_APPEND"), "O_APPEND is not modelled");
        self.fds.insert(call.result, (node, 0));
        // Each write of it is durable when it returns.
        match call.has_word("O_SYNC") || call.has_word("O_DSYNC") {
            true => self.synced.insert(call.result),
            false => self.synced.remove(&call.result),
        };
    }

    fn mkdir(&mut self, dir: i64, path: &[u8]) {
        if let Some(place) = self.place(dir, path)
            && !place.1.is_empty()
        {
            self.create(place, true);
        }
    }

    fn rename(&mut self, from: (i64, &[u8]), to: (i64, &[u8])) {
        let (Some(from), Some(to)) = (self.place(from.0, from.1), self.place(to.0, to.1)) else {
            return;
        };
        let node = self.names.remove(&from).expect("renaming what is there");
        self.names.insert(to.clone(), node);
        self.recording.nodes[node].path = format!("{}/{}", self.recording.nodes[to.0].path, to.1);
        let changes = vec![(from.0, from.1, None), (to.0, to.1, Some(node))];
        self.push(Op::Names { changes });
    }

    fn unlink(&mut self, dir: i64, path: &[u8]) {
        let Some(place) = self.place(dir, path) else { return };
        self.names.remove(&place);
        self.push(Op::Names { changes: vec![(place.0, place.1, None)] });
    }
}
