//! Reading a file of settings: what a user names may be anything.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::Duration;

/// The commented default takes about 8 KiB.
const MAX_BYTES: u64 = 1 << 20;
/// For what is no file: somebody else writes it, perhaps after asking over a network. A daemon that waits
/// for ever, without a word, would be worse than one that does not start.
const PATIENCE: Duration = Duration::from_secs(30);

/// The text of a file, or of a pipe (`/dev/stdin`, `<(command)`), within bounds of size and time.
///
/// # Errors
/// What is wrong with it, in words where the system has none.
pub(super) fn read(path: &Path) -> io::Result<String> {
    let kind = path.metadata()?;
    if kind.is_dir() {
        return Err(io::Error::new(io::ErrorKind::IsADirectory, "it is a directory"));
    }
    if kind.is_file() {
        // Told before a byte is read.
        return if kind.len() > MAX_BYTES { Err(too_large()) } else { read_bounded(path) };
    }
    if kind.file_type().is_block_device() || kind.file_type().is_socket() {
        let problem = "it is a device or a socket; expected a file or a pipe";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, problem));
    }
    within(PATIENCE, path)
}

/// Opening a pipe waits for who writes to it, so even that is not done here.
fn within(patience: Duration, path: &Path) -> io::Result<String> {
    let (sender, receiver) = sync_channel(1);
    let path = path.to_owned();
    // Left behind when nothing comes: nothing can wake it, and it holds nothing that anybody needs.
    std::thread::Builder::new()
        .name("settings".into())
        .spawn(move || drop(sender.send(read_bounded(&path))))?;
    match receiver.recv_timeout(patience) {
        Ok(outcome) => outcome,
        Err(RecvTimeoutError::Timeout) => {
            let problem = format!("nobody wrote it to its end within {} s", patience.as_secs());
            Err(io::Error::new(io::ErrorKind::TimedOut, problem))
        }
        Err(RecvTimeoutError::Disconnected) => Err(io::ErrorKind::BrokenPipe.into()),
    }
}

fn read_bounded(path: &Path) -> io::Result<String> {
    let mut bytes = Vec::new();
    // One more than is allowed, to tell; what says that it is empty, as /proc does, may be endless.
    File::open(path)?.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(too_large());
    }
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        io::Error::new(io::ErrorKind::InvalidData, format!("it is no text: byte {at} is no UTF-8"))
    })
}

fn too_large() -> io::Error {
    let problem = format!("it has more than {} MiB; no file of settings has", MAX_BYTES >> 20);
    io::Error::new(io::ErrorKind::FileTooLarge, problem)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pipe_that_nobody_writes_to_is_given_up() {
        let dir = tempfile::tempdir().unwrap();
        let pipe = |name: &str| {
            let path = dir.path().join(name);
            assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
            path
        };
        let error = within(Duration::from_millis(20), &pipe("silent")).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        // The null control: one that somebody writes to is read.
        let written = pipe("written");
        let writer = written.clone();
        let writer = std::thread::spawn(move || std::fs::write(writer, "[log]\n"));
        assert_eq!(within(PATIENCE, &written).unwrap(), "[log]\n");
        writer.join().unwrap().unwrap();
    }
}
