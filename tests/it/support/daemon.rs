//! The program itself: `tailmark serve` as a process, and commands against it.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

/// A running daemon; killed when dropped.
pub struct Daemon {
    child: Child,
    address: String,
}

impl Daemon {
    /// Starts `serve` on a free port with small slots, and waits until it is ready.
    pub fn start(dir: &Path) -> Daemon {
        Daemon::start_with(dir, "exec \"$0\" \"$@\"")
    }

    /// Starts `serve` on an address of the caller's, with settings from the environment.
    pub fn start_at(
        dir: &Path,
        address: std::net::SocketAddr,
        settings: &[(&str, &str)],
    ) -> Daemon {
        let mut command = program(&["serve", "--listen", &address.to_string(), "--data-dir"]);
        command.arg(dir).env("TAILMARK_STORAGE_MIN_FREE_BYTES", "0").envs(settings.to_vec());
        Daemon::ready(command)
    }

    /// The same, by a line of shell that must end by executing what it is given.
    pub fn start_with(dir: &Path, shell: &str) -> Daemon {
        let serve = program(&["serve", "--listen", "127.0.0.1:0", "--data-dir"]);
        let mut command = Command::new("sh");
        command.args(["-c", shell]).arg(serve.get_program()).args(serve.get_args());
        for (name, _) in serve.get_envs() {
            command.env_remove(name);
        }
        command.arg(dir).env("TAILMARK_STORAGE_SLOT_BYTES", "256 KiB");
        command.env("TAILMARK_STORAGE_MIN_FREE_BYTES", "0");
        Daemon::ready(command)
    }

    fn ready(mut command: Command) -> Daemon {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let rest = line.strip_prefix("ready on ").unwrap_or_else(|| panic!("not ready: {line:?}"));
        let address = format!("http://{}", rest.split(',').next().unwrap());
        Daemon { child, address }
    }

    /// Where it listens.
    pub fn address(&self) -> std::net::SocketAddr {
        self.address.trim_start_matches("http://").parse().unwrap()
    }

    /// Where it listens, as a URL.
    pub fn url(&self) -> &str {
        &self.address
    }

    /// Runs a command against it, with `input` on standard input.
    pub fn run(&self, args: &[&str], input: &[u8]) -> Output {
        let mut command = program(args);
        command.arg("--addr").arg(&self.address);
        feed(&mut command, input)
    }

    /// Runs a command that must succeed; answers its standard output.
    pub fn output(&self, args: &[&str], input: &[u8]) -> String {
        let output = self.run(args, input);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{args:?}: {said}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Asks it to stop and waits for its end; answers its exit code.
    pub fn stop(mut self) -> Option<i32> {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        self.child.wait().unwrap().code()
    }

    /// Waits for its end; answers its exit code.
    pub fn ended(mut self) -> Option<i32> {
        self.child.wait().unwrap().code()
    }

    /// Of its process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Kills it without warning.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The program with arguments, and nothing of this environment's settings.
pub fn program(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tailmark"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("TAILMARK_")) {
        command.env_remove(name);
    }
    command.env("XDG_CONFIG_HOME", "/nonexistent").args(args);
    command
}

/// Runs a command with `input` on standard input.
pub fn feed(command: &mut Command, input: &[u8]) -> Output {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_owned();
    let writer = std::thread::spawn(move || {
        // A command that fails early does not read all of it.
        let _ = stdin.write_all(&input);
    });
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    output
}
