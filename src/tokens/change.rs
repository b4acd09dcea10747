//! Changing the file: one at a time, and whole or not at all. Comments and order stay as they are.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use toml_edit::{ArrayOfTables, DocumentMut, Item};

use super::entry::{self, Entry};
use super::{Tokens, TokensError, io_error, text_of};
use crate::server::{TokenHash, new_token};
use tailmark_record::topic::{Meant, Pattern};
use tailmark_record::{Limits, Timestamp};

/// Whoever makes one has it; the daemon reads it.
const MODE: u32 = 0o600;
/// What a file that is there may allow beyond that.
const KEPT_MODE: u32 = 0o660;

/// A token that is wanted.
#[derive(Clone, Debug)]
pub struct New {
    /// Of the principal.
    pub name: String,
    /// What it may publish to, as patterns.
    pub publish: Vec<String>,
    /// What it may watch, as patterns.
    pub watch: Vec<String>,
    /// Whether it may do what concerns the log as a whole.
    pub admin: bool,
    /// From then on it is not taken.
    pub expires: Option<Timestamp>,
    /// Takes back the one of that name in the same step, where there is one.
    pub replaces: bool,
}

/// Gives out a token: it is returned, and what is kept of it is in the file.
///
/// # Errors
/// When there is one of this name, a pattern is none, or the file cannot be read or written.
pub fn create(path: &Path, new: New, now: Timestamp) -> Result<(String, Entry), TokensError> {
    let wrong = |what| move |problem| TokensError::Asked { what, problem };
    entry::check_name(&new.name).map_err(wrong("name"))?;
    let patterns = |texts: &[String]| {
        entry::check_patterns(texts.len())?;
        let limits = Limits::default();
        let read = |text: &String| {
            Pattern::parse(text, &limits)
                .map_err(|problem| format!("`{text}` {}", Meant::instead_of(text, &problem)))
        };
        texts.iter().map(read).collect::<Result<Vec<_>, String>>()
    };
    let token = new_token().map_err(|source| io_error("make a token for", path, source))?;
    let made = Entry {
        hash: Some(TokenHash::of(&token)),
        publish: patterns(&new.publish).map_err(wrong("publish"))?,
        watch: patterns(&new.watch).map_err(wrong("watch"))?,
        name: new.name.clone(),
        admin: new.admin,
        created: Some(now),
        expires: new.expires,
    };
    change(path, |tokens, document| {
        let old = tokens.tokens.iter().position(|entry| entry.name == made.name);
        if old.is_some() && !new.replaces {
            return Err(TokensError::Taken(made.name.clone()));
        }
        let list = document.entry("token").or_insert(Item::ArrayOfTables(ArrayOfTables::new()));
        if let Some(list) = list.as_array_of_tables_mut() {
            if let Some(old) = old {
                list.remove(old);
            }
            list.push(made.table());
        }
        Ok(())
    })?;
    Ok((token, made))
}

/// Takes a token back.
///
/// # Errors
/// When there is none of this name, or the file cannot be read or written.
pub fn revoke(path: &Path, name: &str) -> Result<Entry, TokensError> {
    change(path, |tokens, document| {
        let unknown = || TokensError::Unknown(name.to_owned());
        let at = tokens.tokens.iter().position(|entry| entry.name == name).ok_or_else(unknown)?;
        let list = document.get_mut("token").and_then(Item::as_array_of_tables_mut);
        list.ok_or_else(unknown)?.remove(at);
        Ok(tokens.tokens[at].clone())
    })
}

/// Reads the file, lets it be changed, and puts it in the place of the old one.
fn change<T>(
    path: &Path,
    change: impl FnOnce(&Tokens, &mut DocumentMut) -> Result<T, TokensError>,
) -> Result<T, TokensError> {
    // Where a link leads: it stays one.
    let path = &path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let _lock = lock(path)?;
    let text = text_of(path)?.unwrap_or_default();
    let tokens = Tokens::parse(path, &text)?;
    let broken = || io_error("change", path, io::ErrorKind::InvalidData.into());
    let mut document = entry::document(&text).ok_or_else(broken)?;
    let done = change(&tokens, &mut document)?;
    let text = document.to_string();
    // What would not be read would put everybody out.
    Tokens::parse(path, &text)?;
    replace(path, text.as_bytes()).map_err(|source| io_error("write", path, source))?;
    Ok(done)
}

/// Held by whoever changes the file. A file of its own: the other one is replaced.
fn lock(path: &Path) -> Result<File, TokensError> {
    let beside = beside(path, "lock");
    let open = || {
        let mut options = OpenOptions::new();
        // A link, put there by whoever may write here, would have us make a file anywhere.
        options.custom_flags(OFlags::NOFOLLOW.bits().cast_signed());
        let file = options.create(true).truncate(false).write(true).mode(MODE).open(&beside)?;
        file.lock()?;
        Ok(file)
    };
    open().map_err(|source| io_error("lock", &beside, source))
}

/// `.tokens.toml.lock` and the like, in the same directory.
fn beside(path: &Path, what: &str) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.{what}"))
}

/// Gives a new file the owner, the group and the mode of the one whose place it takes: the daemon's user may be
/// another than whoever gives out tokens.
///
/// # Errors
/// It can't be made readable for who could read the old one: what it says would not come into force.
fn keep_owner(file: &File, old: &std::fs::Metadata) -> io::Result<()> {
    use std::os::unix::fs::fchown;
    if fchown(file, Some(old.uid()), Some(old.gid())).is_err() {
        // Of a group one belongs to, one may do that much.
        let _ = fchown(file, None, Some(old.gid()));
    }
    let ours = file.metadata()?;
    let (has_owner, has_group) = (ours.uid() == old.uid(), ours.gid() == old.gid());
    // Bits of a group are for that group.
    let mode = if has_group { old.mode() & KEPT_MODE | MODE } else { MODE };
    const GROUP_READS: u32 = 0o040;
    if !has_owner && mode & GROUP_READS == 0 {
        let what =
            "its owner could not read what takes its place; run this as its owner, or as root";
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, what));
    }
    file.set_permissions(std::fs::Permissions::from_mode(mode))
}

fn replace(path: &Path, text: &[u8]) -> io::Result<()> {
    let new = beside(path, "new");
    // Left behind by somebody who was stopped; the lock is ours.
    let _ = std::fs::remove_file(&new);
    let mut file = OpenOptions::new().create_new(true).write(true).mode(MODE).open(&new)?;
    if let Ok(old) = path.metadata() {
        keep_owner(&file, &old).inspect_err(|_| drop(std::fs::remove_file(&new)))?;
    }
    file.write_all(text)?;
    file.sync_all()?;
    std::fs::rename(&new, path)?;
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    File::open(directory.unwrap_or(Path::new(".")))?.sync_all()
}
