//! The program on a terminal.

use std::fs::File;
use std::io::{Read, Write};
use std::process::{Child, Command};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use super::server::{until, within};

/// Both ends of a new terminal: ours, which is the screen and the keys, and the program's.
pub fn open() -> (File, File) {
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    // Not for a program that another test starts: it would keep the terminal open.
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let near = openpt(flags).unwrap();
    grantpt(&near).unwrap();
    unlockpt(&near).unwrap();
    let name = ptsname(&near, Vec::new()).unwrap().into_string().unwrap();
    let far = File::options().read(true).write(true).open(name).unwrap();
    (File::from(near), far)
}

/// Lets a program have the terminal for all that it reads and writes.
pub fn attach(command: &mut Command, far: File) {
    command.stdin(far.try_clone().unwrap()).stdout(far.try_clone().unwrap()).stderr(far);
}

/// The same command as the first of a session whose terminal is its standard input.
pub fn in_session(command: &Command) -> Command {
    let mut session = Command::new("setsid");
    session.args(["--ctty"]).arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => session.env(name, value),
            None => session.env_remove(name),
        };
    }
    session
}

/// A program on a terminal of its own, and what it wrote there; killed when dropped.
pub struct Terminal {
    child: Child,
    keys: File,
    screen: Arc<Mutex<Vec<u8>>>,
    /// Ends once the program's side is closed and all of it was read.
    reading: JoinHandle<()>,
}

impl Terminal {
    pub fn start(mut command: Command) -> Terminal {
        let (keys, far) = open();
        attach(&mut command, far);
        let child = command.spawn().unwrap();
        let (mut shown, screen) = (keys.try_clone().unwrap(), Arc::new(Mutex::new(Vec::new())));
        let written = Arc::clone(&screen);
        let reading = std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            // Fails when the other side is closed.
            while let Ok(count @ 1..) = shown.read(&mut bytes) {
                written.lock().unwrap().extend_from_slice(&bytes[..count]);
            }
        });
        Terminal { child, keys, screen, reading }
    }

    pub fn screen(&self) -> String {
        String::from_utf8_lossy(&self.screen.lock().unwrap()).into_owned()
    }

    pub async fn shows(&self, text: &str) {
        until(text, || self.screen().contains(text)).await;
    }

    pub fn type_keys(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).unwrap();
    }

    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).unwrap();
    }

    pub async fn ends(&mut self) -> Option<i32> {
        let mut code = None;
        let mut look = tokio::time::interval(Duration::from_millis(5));
        within("the end", async {
            while code.is_none() {
                look.tick().await;
                code = self.child.try_wait().unwrap();
            }
        })
        .await;
        until("all of the screen", || self.reading.is_finished()).await;
        code.unwrap().code()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
