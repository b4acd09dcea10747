//! `tailmark token`: gives out tokens, lists them, takes them back, and says what one may.

use std::path::PathBuf;

use super::online::{self, Target, token_of_environment};
use super::output::{count_text, print_json, print_line, say};
use super::{Exit, Failure};
use crate::config::{AuthMode, Config, Sources};
use crate::escape;
use crate::tokens::{self, Entry, Known, New, Tokens, TokensError};
use tailmark_record::json::Object;
use tailmark_record::{Timestamp, moment, units};
use tailmark_wire::feed_v1 as pb;
use tailmark_wire::{json, values};

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Give out a token; it is printed once, and only its hash is kept
    Create(Create),
    /// List the tokens that were given out, without the tokens
    List(List),
    /// Take a token back: what was begun with it ends within seconds
    Revoke(Revoke),
    /// Say what a token may (TAILMARK_TOKEN, or that of the context): as the server says that is named,
    /// else by the files of tokens and keys of the settings
    Check(Check),
}

// The file of tokens, by the settings: no doc comment, since clap would print it as help.
#[derive(Debug, clap::Args)]
struct Place {
    /// The file of settings that `serve` reads; auth.tokens_file says where the tokens are
    #[arg(long, env = "TAILMARK_CONFIG", hide_env_values = true, value_name = "FILE")]
    config: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
pub(super) struct Create {
    /// Who will have it: the name of the principal
    name: String,
    /// What may be published to: a topic, or a pattern as in orders.> (may be repeated)
    #[arg(long, value_name = "PATTERN")]
    publish: Vec<String>,
    /// What may be watched: a topic, or a pattern as in orders.> (may be repeated)
    #[arg(long, value_name = "PATTERN")]
    watch: Vec<String>,
    /// May also trim the log, and see what concerns it as a whole
    #[arg(long)]
    admin: bool,
    /// Is not taken any more after this time (90d, 12h) or from then on (2027-01-31T09:30:00Z)
    #[arg(long, value_name = "AGE|TIME", value_parser = parse_expiry)]
    expires: Option<Timestamp>,
    /// In the place of the one of that name, which is taken back
    #[arg(long)]
    replace: bool,
    #[command(flatten)]
    place: Place,
    /// Print one JSON object, with the token in it
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
pub(super) struct List {
    #[command(flatten)]
    place: Place,
    /// One object a token
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
pub(super) struct Revoke {
    /// Of the token
    name: String,
    #[command(flatten)]
    place: Place,
    /// Print the result as one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
pub(super) struct Check {
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    server: Target,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

pub(super) fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Create(args) => create(args),
        Command::List(args) => list(&args),
        Command::Revoke(args) => revoke(&args),
        Command::Check(args) => check(args),
    }
}

impl Place {
    fn settings(&self) -> Result<Config, Failure> {
        Ok(Sources::from_process(self.config.clone()).load()?.config)
    }
}

/// Reads a time to come.
fn parse_expiry(text: &str) -> Result<Timestamp, String> {
    let now = Timestamp::now();
    let at = match units::parse_duration(text) {
        Ok(time) => {
            let seconds = i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
            Some(Timestamp { seconds: now.seconds.saturating_add(seconds), nanos: 0 })
        }
        Err(_) => moment::time(text),
    };
    let expected = "expected a duration (90d, 12 hours) or a time (2027-01-31 or \
                    2027-01-31T09:30:00Z)";
    let at = at.filter(|at| at.is_valid()).ok_or(expected)?;
    if at <= now {
        return Err("lies in the past".to_owned());
    }
    Ok(at)
}

fn create(args: Create) -> Result<(), Failure> {
    let config = args.place.settings()?;
    let path = &config.auth.tokens_file;
    let Create { name, publish, watch, admin, expires, replace: replaces, .. } = args;
    let new = New { name, publish, watch, admin, expires, replaces };
    let (token, made) = tokens::create(path, new, Timestamp::now())?;
    if args.json {
        let mut out = Vec::new();
        write(&mut out, &made, Some(&token));
        print_json(&out)?;
    } else {
        print_line(&token)?;
    }
    if made.publish.is_empty() && made.watch.is_empty() && !made.admin {
        say("this token allows nothing; --publish, --watch and --admin say what it may");
    }
    say(&format!(
        "the token of {} was printed this once; {} keeps its hash, and a daemon that runs knows it within 2 s",
        escape::name(&made.name),
        escape::name(&path.display().to_string())
    ));
    if config.auth.mode == AuthMode::None {
        say("auth.mode is \"none\": a daemon with these settings asks for no token");
    }
    Ok(())
}

fn list(args: &List) -> Result<(), Failure> {
    let path = args.place.settings()?.auth.tokens_file;
    let Tokens { tokens, certificates } = Tokens::read(&path)?;
    let now = Timestamp::now();
    if args.json {
        let mut out = Vec::new();
        for entry in tokens.iter().chain(&certificates) {
            if !out.is_empty() {
                out.push(b'\n');
            }
            write(&mut out, entry, None);
        }
        return if out.is_empty() { Ok(()) } else { print_json(&out) };
    }
    for entry in tokens.iter().chain(&certificates) {
        print_line(&text(entry, now))?;
    }
    say(&format!(
        "{}, {}",
        count_text(tokens.len() as u64, "token"),
        count_text(certificates.len() as u64, "certificate")
    ));
    Ok(())
}

fn revoke(args: &Revoke) -> Result<(), Failure> {
    let path = args.place.settings()?.auth.tokens_file;
    let gone = tokens::revoke(&path, &args.name)?;
    if args.json {
        let mut out = Vec::new();
        let mut object = Object::open(&mut out);
        object.text("name", &gone.name);
        object.flag("revoked", true);
        object.close();
        return print_json(&out);
    }
    print_line(&format!("the token of {} is taken back", escape::name(&gone.name)))
}

fn check(args: Check) -> Result<(), Failure> {
    let Check { place, server, json } = args;
    let given = server.given()?.or_else(token_of_environment);
    let is_here = place.config.is_some() && !server.is_named();
    let server = if is_here { None } else { server.settle_if_named()? };
    if let Some((address, identity)) = server {
        let asked = online::run(async { Ok(identity.client(&address)?.principal().await?) });
        let principal = asked.map_err(|failure| failure.of_server(&address))?;
        return tell(&principal, json);
    }
    let token = given.ok_or_else(|| {
        Failure::new(Exit::Usage, "there is no token to check").hint("give it as TAILMARK_TOKEN")
    })?;
    let auth = place.settings()?.auth;
    let known = Known {
        tokens: &auth.tokens_file,
        keys: &auth.jwt_keys_file,
        issuer: &auth.jwt_issuer,
        audience: &auth.jwt_audience,
        algorithms: &auth.jwt_algorithms,
    };
    let principal = known.principal(&token)?.map_err(|why| {
        Failure::new(Exit::Failure, why).hint("`tailmark token list` names those that are known")
    })?;
    tell(&principal, json)
}

/// Who it is, and what they may.
fn tell(principal: &pb::Principal, as_json: bool) -> Result<(), Failure> {
    if as_json {
        return print_json(&json::principal(principal));
    }
    let name = match &*principal.name {
        "" => "nobody in particular: callers need not say who they are".to_owned(),
        name => escape::name(name).into_owned(),
    };
    let patterns = |texts: &[String]| match texts {
        [] => "nothing".to_owned(),
        texts => texts.iter().map(|text| escape::name(text)).collect::<Vec<_>>().join(" "),
    };
    let mut lines = vec![
        format!("principal    {name}"),
        format!("publish      {}", patterns(&principal.publish)),
        format!("watch        {}", patterns(&principal.watch)),
        format!("admin        {}", if principal.admin { "yes" } else { "no" }),
    ];
    if let Some(at) = principal.expires {
        lines.push(format!("expires      {}", values::from_timestamp(at)));
    }
    print_line(&lines.join("\n"))
}

fn write(out: &mut Vec<u8>, entry: &Entry, token: Option<&str>) {
    let texts = |texts: &[tailmark_record::topic::Pattern]| {
        texts.iter().map(|text| text.as_str().to_owned()).collect::<Vec<_>>()
    };
    let mut object = Object::open(out);
    object.text("name", &entry.name);
    object.text("kind", if entry.hash.is_some() { "token" } else { "certificate" });
    object.text("token", token.unwrap_or_default());
    object.texts("publish", &texts(&entry.publish));
    object.texts("watch", &texts(&entry.watch));
    object.flag("admin", entry.admin);
    object.time("created", entry.created);
    object.time("expires", entry.expires);
    object.close();
}

/// One line of a list.
fn text(entry: &Entry, now: Timestamp) -> String {
    let patterns = |name: &str, patterns: &[tailmark_record::topic::Pattern]| {
        let shown: Vec<_> = patterns.iter().map(|pattern| escape::name(pattern.as_str())).collect();
        if shown.is_empty() { String::new() } else { format!("  {name} {}", shown.join(" ")) }
    };
    let kind = if entry.hash.is_some() { "" } else { "  certificate" };
    let admin = if entry.admin { "  admin" } else { "" };
    let expires = entry.expires.map_or(String::new(), |at| {
        format!("  {} {at}", if at <= now { "expired" } else { "expires" })
    });
    format!(
        "{}{kind}{}{}{admin}{expires}",
        escape::name(&entry.name),
        patterns("publish", &entry.publish),
        patterns("watch", &entry.watch)
    )
}

impl From<TokensError> for Failure {
    fn from(error: TokensError) -> Failure {
        let (exit, hint) = match &error {
            TokensError::Taken(_) => {
                (Exit::Failure, "take it back first, `tailmark token revoke`, or say --replace")
            }
            TokensError::Unknown(_) => {
                (Exit::NotFound, "`tailmark token list` names those that are there")
            }
            TokensError::Io { .. } => {
                (Exit::Failure, "auth.tokens_file says where it is; --config names the settings")
            }
            _ => (Exit::Usage, "`tailmark token --help`, docs/security.md"),
        };
        if let TokensError::Asked { what: what @ ("publish" | "watch"), problem } = &error {
            let failure = Failure::new(exit, format!("--{what}: {problem}"));
            return failure.hint(
                "quote a pattern that has a `>` or `*`: a shell takes an unquoted one for itself",
            );
        }
        if let TokensError::Asked { what: "name", problem } = &error {
            return Failure::new(exit, format!("NAME: {problem}"));
        }
        let failure = Failure::new(exit, error.to_string());
        let source = std::error::Error::source(&error);
        source.map_or(Failure::new(exit, error.to_string()), |s| failure.because(s)).hint(hint)
    }
}
