//! Running a child under strace, and reading what it wrote.

use std::collections::HashMap;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

/// Every call that changes files, names or descriptors.
const CALLS: &str = "open,openat,creat,close,dup,dup2,dup3,fcntl,write,pwrite64,writev,pwritev,\
    pwritev2,lseek,ftruncate,truncate,fallocate,rename,renameat,renameat2,unlink,unlinkat,mkdir,\
    mkdirat,rmdir,link,linkat,symlink,symlinkat,fsync,fdatasync,sync_file_range,syncfs,sync,\
    copy_file_range,sendfile";

/// Whether strace is there. Without it the harness fails, unless it was told to go without.
pub fn is_there() -> bool {
    let found = Command::new("strace").arg("--version").stdout(Stdio::null()).status();
    if found.is_ok_and(|status| status.success()) {
        return true;
    }
    assert!(
        std::env::var_os("CRASH_WITHOUT_STRACE").is_some(),
        "strace is missing: install it (Debian: apt-get install strace), or set \
         CRASH_WITHOUT_STRACE=1 to leave this proof out"
    );
    println!("  LEFT OUT: strace is missing and CRASH_WITHOUT_STRACE is set");
    false
}

/// Runs this binary again with `args` under strace and answers the trace; of `more` calls too.
pub fn record(args: &[&str], more: &str, trace: &Path, limit: Duration) -> Vec<Step> {
    let mut child = Command::new("strace")
        .args(["-f", "-qq", "-xx", "-s", "33554432", "-e", &format!("trace={CALLS}{more}")])
        .args(["-e", "signal=none", "-o"])
        .arg(trace)
        .arg(std::env::current_exe().expect("this binary"))
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .expect("starting strace");
    let status = super::wait_bounded(&mut child, limit).expect("the traced run took too long");
    assert!(
        status.success(),
        "the traced run failed: {status} (strace needs ptrace to be allowed)"
    );
    parse(&std::fs::read(trace).expect("the trace"))
}

/// What comes before a program so that its calls are written to `trace`, with their times. The process that is begun is
/// the program's own.
pub fn timed(trace: &Path) -> Vec<String> {
    let words = ["strace", "-D", "-f", "-qq", "-xx", "-s", "33554432", "-ttt", "-T", "-e"];
    let mut words: Vec<String> = words.map(str::to_owned).into();
    let trace = trace.to_str().expect("a path in UTF-8").to_owned();
    words.extend([format!("trace={CALLS}"), "-e".to_owned(), "signal=none".to_owned()]);
    words.extend(["-o".to_owned(), trace]);
    words
}

/// What a trace of [`timed`] has up to some time, in seconds since 1970, as [`parse`] reads it. A sync that had not
/// returned by then has not happened.
pub fn upto(trace: &[u8], time: f64) -> Vec<u8> {
    let mut text = Vec::new();
    for line in trace.split(|&b| b == b'\n').filter(|line| !line.is_empty()) {
        let line = String::from_utf8_lossy(line);
        let Some((pid, rest)) = line.split_once(' ') else { continue };
        let Some((at, call)) = rest.trim_start().split_once(' ') else { continue };
        let Ok(at) = at.parse::<f64>() else { continue };
        let took = call.strip_suffix('>').and_then(|it| it.rsplit_once('<')).map(|(_, took)| took);
        // Of a call in two lines the second has the time at which it returned.
        let took = took.filter(|_| !call.starts_with("<...")).and_then(|it| it.parse::<f64>().ok());
        let is_sync = call.starts_with("fsync") || call.starts_with("fdatasync");
        if at > time || is_sync && at + took.unwrap_or(0.0) > time {
            continue;
        }
        text.extend_from_slice(format!("{pid} {call}\n").as_bytes());
    }
    text
}

/// A call as it begins, and as it ends.
#[derive(Debug)]
pub enum Step {
    /// It begins; `call` is its place among all calls.
    Enter { call: usize },
    /// It has returned.
    Exit { call: usize },
    /// Its arguments and result; comes before both in the list of calls.
    Call(Call),
}

/// One system call.
#[derive(Debug)]
pub struct Call {
    /// The thread.
    pub thread: String,
    pub name: String,
    pub args: Vec<Arg>,
    /// What it returned; negative = failed or never returned.
    pub result: i64,
}

/// An argument, as far as it matters.
#[derive(Debug, Clone, PartialEq)]
pub enum Arg {
    Number(i64),
    Bytes(Vec<u8>),
    Word(String),
}

impl Call {
    pub fn number(&self, at: usize) -> i64 {
        match self.args.get(at) {
            Some(Arg::Number(number)) => *number,
            Some(Arg::Word(word)) if word == "AT_FDCWD" => -100,
            other => panic!("argument {at} of {}: {other:?}", self.name),
        }
    }

    pub fn bytes(&self, at: usize) -> &[u8] {
        match self.args.get(at) {
            Some(Arg::Bytes(bytes)) => bytes,
            other => panic!("argument {at} of {}: {other:?}", self.name),
        }
    }

    pub fn has_word(&self, word: &str) -> bool {
        self.args
            .iter()
            .any(|arg| matches!(arg, Arg::Word(text) if text.split('|').any(|w| w == word)))
    }
}

/// Most calls of this name that any one thread made: strace counts them by thread.
pub fn most_calls(steps: &[Step], name: &str) -> u64 {
    let mut counts: HashMap<&str, u64> = HashMap::new();
    for step in steps {
        if let Step::Call(call) = step
            && call.name == name
        {
            *counts.entry(&call.thread).or_default() += 1;
        }
    }
    counts.values().copied().max().unwrap_or(0)
}

/// Runs this binary again with `args`, with the `nth` call of `name` (of each thread; all from it
/// on if `sticky`) failing with `error`. The child must bound itself. Answers what it told.
pub fn inject(
    args: &[&str],
    (name, nth, error, sticky): (&str, u64, &str, bool),
    limit: Duration,
) -> (Option<std::process::ExitStatus>, String) {
    let when = if sticky { format!("{nth}+") } else { nth.to_string() };
    let what = format!("{name}:error={error}:when={when}");
    inject_where(args, &what, &[], Path::new("/dev/null"), limit)
}

/// The same, with what is injected as strace has it, and only of calls on `paths`, if there are any. What
/// was injected is in `trace`.
pub fn inject_where(
    args: &[&str],
    what: &str,
    paths: &[&Path],
    trace: &Path,
    limit: Duration,
) -> (Option<std::process::ExitStatus>, String) {
    let name = what.split(':').next().unwrap_or_default();
    let mut child = Command::new("strace")
        // Only this call is stopped at: it makes a run take a third less.
        .args(["--seccomp-bpf", "-f", "-qq", "-e", &format!("trace={name}"), "-o"])
        .arg(trace)
        .args(["-e", &format!("inject={what}"), "-e", "signal=none"])
        .args(paths.iter().flat_map(|path| ["-P".as_ref(), path.as_os_str()]))
        .arg(std::env::current_exe().expect("this binary"))
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("starting strace");
    let mut out = child.stdout.take().expect("stdout");
    let reader = std::thread::spawn(move || {
        let mut told = String::new();
        let _ = std::io::Read::read_to_string(&mut out, &mut told);
        told
    });
    let status = super::wait_bounded(&mut child, limit);
    (status, reader.join().expect("the reader"))
}

/// Reads a trace: begins and ends in the order in which they happened, each call once.
pub fn parse(text: &[u8]) -> Vec<Step> {
    let mut steps = Vec::new();
    // Per thread, the head of a line that was cut and the place of its Enter.
    let mut unfinished: HashMap<&[u8], (Vec<u8>, usize)> = HashMap::new();
    let mut calls = 0;
    for line in text.split(|&b| b == b'\n').filter(|line| !line.is_empty()) {
        let space = line.iter().position(|&b| b == b' ').expect("a line without a pid");
        let (pid, rest) = (&line[..space], line[space..].trim_ascii_start());
        if rest.starts_with(b"+++") || rest.starts_with(b"---") {
            continue;
        }
        if rest.ends_with(b"<detached ...>") {
            // The process is at its end: a call that never returned, or, as `???(`, none at all.
            if !rest.starts_with(b"???") && !rest.starts_with(b"<...") {
                steps.push(Step::Enter { call: usize::MAX });
            }
            continue;
        }
        if let Some(head) = rest.strip_suffix(b"<unfinished ...>") {
            unfinished.insert(pid, (head.to_vec(), steps.len()));
            steps.push(Step::Enter { call: usize::MAX });
            continue;
        }
        let (whole, enter) = if rest.starts_with(b"<...") {
            let at = find(rest, b"resumed>").expect("a resumed call") + b"resumed>".len();
            let (mut head, enter) = unfinished.remove(pid).expect("a resumed call has a head");
            head.extend_from_slice(&rest[at..]);
            (head, Some(enter))
        } else {
            (rest.to_vec(), None)
        };
        let call = calls;
        calls += 1;
        let thread = String::from_utf8_lossy(pid).into_owned();
        let parsed = Call { thread, ..parse_call(&whole) };
        match enter {
            Some(enter) => steps[enter] = Step::Enter { call },
            None => steps.push(Step::Enter { call }),
        }
        steps.push(Step::Call(parsed));
        steps.push(Step::Exit { call });
    }
    steps
}

fn find(text: &[u8], what: &[u8]) -> Option<usize> {
    text.windows(what.len()).position(|window| window == what)
}

fn parse_call(line: &[u8]) -> Call {
    let open = line.iter().position(|&b| b == b'(').expect("a call without arguments");
    let name = String::from_utf8_lossy(&line[..open]).into_owned();
    let mut at = open + 1;
    let mut args = Vec::new();
    let mut word = Vec::new();
    let mut depth = 0;
    loop {
        let Some(&byte) = line.get(at) else { panic!("an open end: {}", lossy(line)) };
        match byte {
            b'"' => {
                let end = at + 1 + line[at + 1..].iter().position(|&b| b == b'"').expect("a quote");
                args.push(Arg::Bytes(unhex(&line[at + 1..end])));
                assert!(!line[end + 1..].starts_with(b"..."), "strace cut {name} short");
                at = end;
                word.clear();
                word.push(0);
            }
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth -= 1,
            b')' if depth == 0 => break,
            b',' => push_word(&mut args, &mut word),
            b' ' => {}
            other => word.push(other),
        }
        at += 1;
    }
    push_word(&mut args, &mut word);
    let tail = String::from_utf8_lossy(&line[at + 1..]);
    let result = tail.trim().trim_start_matches('=').trim();
    let result = result.split([' ', '<']).next().unwrap_or_default();
    Call { thread: String::new(), name, args, result: result.parse().unwrap_or(-1) }
}

/// `name=value` of a structure counts as its value; what follows a string does not count.
fn push_word(args: &mut Vec<Arg>, word: &mut Vec<u8>) {
    let text = String::from_utf8_lossy(word).into_owned();
    word.clear();
    if text.is_empty() || text.contains('\0') || text.ends_with('=') {
        return;
    }
    let value = text.rsplit('=').next().unwrap_or_default();
    let number = match value.strip_prefix("0x") {
        Some(hex) => i64::from_str_radix(hex, 16),
        None if value.len() > 1 && value.starts_with('0') => i64::from_str_radix(value, 8),
        None => value.parse(),
    };
    args.push(number.map_or_else(|_| Arg::Word(value.to_owned()), Arg::Number));
}

fn unhex(text: &[u8]) -> Vec<u8> {
    let digit = |b: u8| match b {
        b'0'..=b'9' => b - b'0',
        b'a'..=b'f' => b - b'a' + 10,
        other => panic!("not a hex digit: {other}"),
    };
    // "\x41\x42"
    text.chunks_exact(4).map(|four| digit(four[2]) << 4 | digit(four[3])).collect()
}

fn lossy(line: &[u8]) -> String {
    String::from_utf8_lossy(&line[..line.len().min(300)]).into_owned()
}

pub fn self_test() {
    let text = b"12 openat(AT_FDCWD, \"\\x2f\\x61\", O_RDWR|O_CREAT|O_CLOEXEC, 0666) = 3\n\
        12 pwritev(3, [{iov_base=\"\\x41\\x42\", iov_len=2}, {iov_base=\"\\x43\", iov_len=1}], 2, 8192 <unfinished ...>\n\
        13 fsync(4) = -1 EIO (Input/output error)\n\
        12 <... pwritev resumed>) = 3\n\
        13 fsync(4 <unfinished ...>\n\
        14 ???( <detached ...>\n\
        13 <... fsync resumed> <detached ...>\n\
        12 close(3 <detached ...>\n";
    let steps = parse(text);
    let calls: Vec<_> = steps
        .iter()
        .filter_map(|step| match step {
            Step::Call(call) => Some(call),
            _ => None,
        })
        .collect();
    assert_eq!(calls.len(), 3);
    assert_eq!(calls[0].bytes(1), b"/a");
    assert!(calls[0].has_word("O_CREAT"));
    assert_eq!((calls[1].name.as_str(), calls[1].result), ("fsync", -1));
    let [
        Arg::Number(3),
        Arg::Bytes(one),
        Arg::Number(2),
        Arg::Bytes(two),
        Arg::Number(1),
        Arg::Number(2),
        Arg::Number(8192),
    ] = calls[2].args.as_slice()
    else {
        panic!("{:?}", calls[2])
    };
    assert_eq!((one.as_slice(), two.as_slice()), (&b"AB"[..], &b"C"[..]));
    assert!(matches!(steps[3], Step::Enter { call: 2 }), "{steps:?}");
    let timed =
        b"7  10.5 fsync(3) = 0 <2.0>\n8 11.0 fsync(4) = 0 <0.5>\n8 13.0 fsync(5) = 0 <0.1>\n\
        9 11.0 write(1, \"\\x41\", 1) = 1 <9.0>\n9 11.1 fsync(6 <unfinished ...>\n";
    let known = upto(timed, 12.0);
    let expected =
        "8 fsync(4) = 0 <0.5>\n9 write(1, \"\\x41\", 1) = 1 <9.0>\n9 fsync(6 <unfinished ...>\n";
    assert_eq!(String::from_utf8_lossy(&known), expected);
    let never = steps.iter().filter(|step| matches!(step, Step::Enter { call: usize::MAX }));
    assert_eq!(never.count(), 2, "{steps:?}");
}
