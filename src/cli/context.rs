//! `tailmark context`: servers by name, so that nobody types addresses.

use std::path::PathBuf;

use serde_json::json;

use super::address::{self, full};
use super::contexts::{Context, Contexts, DEFAULT};
use super::online::secured;
use super::output::{print_json, print_line, say};
use super::{Exit, Failure};
use crate::escape;
use tailmark_client::Client;

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Give a server a name
    Add(Add),
    /// Make a server the one that commands talk to; `default` is this machine's again
    Use(Use),
    /// List the servers that have names
    List(List),
    /// Forget a name
    Remove(Remove),
}

#[derive(Debug, clap::Args)]
pub(super) struct Add {
    /// What to call it
    #[arg(value_parser = parse_name)]
    name: String,
    /// Its address: URL or HOST:PORT
    #[arg(value_name = "URL")]
    url: String,
    /// A file with the token to show to it
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Who may vouch for it, as PEM
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// The certificate to show to it, as PEM
    #[arg(long, value_name = "FILE")]
    cert: Option<PathBuf>,
    /// The certificate's key, where it is not in the same file
    #[arg(long, value_name = "FILE", requires = "cert")]
    key: Option<PathBuf>,
    /// Make it the one that commands talk to
    #[arg(long = "use")]
    is_used: bool,
}

#[derive(Debug, clap::Args)]
pub(super) struct Use {
    /// Its name
    name: String,
}

#[derive(Debug, clap::Args)]
pub(super) struct List {
    /// Print one JSON object a line
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
pub(super) struct Remove {
    /// Its name
    name: String,
}

fn parse_name(text: &str) -> Result<String, String> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if text.is_empty() || text.len() > 64 || !text.chars().all(is_part) {
        return Err("expected up to 64 letters, digits, `-`, `_` and `.`".to_owned());
    }
    if text == DEFAULT {
        return Err(format!("`{DEFAULT}` is what is there without a context"));
    }
    Ok(text.to_owned())
}

pub(super) fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Add(args) => add(args),
        Command::Use(args) => switch(&args.name),
        Command::List(args) => list(args.json),
        Command::Remove(args) => remove(&args.name),
    }
}

fn add(args: Add) -> Result<(), Failure> {
    let addr =
        full(&args.url).map_err(|problem| Failure::new(Exit::Usage, format!("URL: {problem}")))?;
    let for_tls = [("--ca", &args.ca), ("--cert", &args.cert), ("--key", &args.key)];
    if let Some((flag, _)) = for_tls.iter().find(|(_, file)| file.is_some())
        && addr.starts_with("http://")
    {
        let hint = format!("an address with TLS begins with https://, as in {}", secured(&addr));
        return Err(Failure::new(Exit::Usage, format!("{flag}: {addr} has no TLS")).hint(hint));
    }
    // Of the address alone: files may come later.
    let checked = super::online::run(async { Ok(Client::new(&addr).map(drop)) })?;
    checked.map_err(|error| Failure::new(Exit::Usage, format!("URL: {error}")))?;
    // A command may be run anywhere.
    let file = |path: Option<PathBuf>| {
        path.map(std::path::absolute).transpose().map_err(|error| {
            Failure::new(Exit::Failure, "where this is run cannot be told").because(&error)
        })
    };
    let context = Context {
        addr,
        token_file: file(args.token_file)?,
        ca: file(args.ca)?,
        cert: file(args.cert)?,
        key: file(args.key)?,
    };
    let (name, is_used) = (args.name, args.is_used);
    let missing = [&context.token_file, &context.ca, &context.cert, &context.key];
    let missing = missing.into_iter().flatten().find(|path| !path.exists()).cloned();
    Contexts::change(|all| {
        if all.contexts.contains_key(&name) {
            let what = format!("there is a context {name} already");
            let hint = format!("`tailmark context remove {name}` forgets it");
            return Err(Failure::new(Exit::Usage, what).hint(hint));
        }
        all.contexts.insert(name.clone(), context);
        if is_used {
            all.current = Some(name.clone());
        }
        Ok(())
    })?;
    if let Some(path) = missing {
        say(&format!("{} is not there yet", path.display()));
    }
    if !is_used {
        say(&format!("`tailmark context use {name}` makes it the one that commands talk to"));
    }
    Ok(())
}

fn switch(name: &str) -> Result<(), Failure> {
    Contexts::change(|all| {
        all.current = all.get(name)?.is_some().then(|| name.to_owned());
        Ok(())
    })
}

fn remove(name: &str) -> Result<(), Failure> {
    Contexts::change(|all| {
        all.get(name)?;
        if all.contexts.remove(name).is_none() {
            return Err(Failure::new(Exit::Usage, format!("`{DEFAULT}` is always there")));
        }
        if all.current.as_deref() == Some(name) {
            all.current = None;
            say(&format!("commands talk to {} again", address::DEFAULT));
        }
        Ok(())
    })
}

fn list(as_json: bool) -> Result<(), Failure> {
    let all = Contexts::read()?;
    let standard = Context { addr: address::DEFAULT.to_owned(), ..Context::default() };
    let standard = [(DEFAULT, &standard)];
    let named = all.contexts.iter().map(|(name, context)| (name.as_str(), context));
    let current = all.current.as_deref().unwrap_or(DEFAULT);
    let width = all.contexts.keys().map(String::len).max().unwrap_or(0).max(DEFAULT.len());
    for (name, context) in standard.into_iter().chain(named) {
        let is_current = name == current;
        if as_json {
            let Context { addr, token_file, ca, cert, key } = context;
            let object = json!({
                "name": name, "addr": addr, "current": is_current, "token_file": token_file, "ca": ca,
                "cert": cert, "key": key,
            });
            print_json(object.to_string().as_bytes())?;
            continue;
        }
        let mark = if is_current { '*' } else { ' ' };
        let mut line = format!("{mark} {name:width$}  {}", escape::name(&context.addr));
        let files = [("token", &context.token_file), ("ca", &context.ca), ("cert", &context.cert)];
        for (what, file) in files {
            if let Some(file) = file {
                line.push_str(&format!("  {what} {}", escape::name(&file.display().to_string())));
            }
        }
        print_line(&line)?;
    }
    Ok(())
}
