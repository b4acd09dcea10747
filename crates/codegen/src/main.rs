//! Writes the types of `proto/` to where they are checked in, so that no user's build needs a
//! protobuf compiler: `cargo run -p tailmark-codegen`. With `--check` it writes nothing and fails
//! when what is checked in is not what it would write.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use prost::Message;

/// The types, the clients behind the feature `client`, and the descriptors for reflection.
const WIRE: &str = "crates/wire/src/generated";
/// The fields of the public sketches only, for tests that speak as their clients do.
const SEED: &str = "tests/it/seed";

fn main() -> anyhow::Result<()> {
    let check = match std::env::args().skip(1).collect::<Vec<_>>().as_slice() {
        [] => false,
        [flag] if flag == "--check" => true,
        _ => bail!("usage: tailmark-codegen [--check]"),
    };
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut stale = Vec::new();
    for (path, bytes) in generate(&root)? {
        let target = root.join(&path);
        if std::fs::read(&target).is_ok_and(|there| there == bytes) {
            continue;
        }
        if check {
            stale.push(path.display().to_string());
        } else {
            std::fs::write(&target, bytes).with_context(|| format!("cannot write {target:?}"))?;
            println!("wrote {}", path.display());
        }
    }
    if !stale.is_empty() {
        bail!("not what proto/ says: {}; run `cargo run -p tailmark-codegen`", stale.join(", "));
    }
    Ok(())
}

/// Every generated file, by its path below `root`.
fn generate(root: &Path) -> anyhow::Result<BTreeMap<PathBuf, Vec<u8>>> {
    const PROTOS: [&str; 2] = ["feed/v1/feed.proto", "chat/chat.proto"];
    let mut files = BTreeMap::new();

    let descriptors = protox::compile(PROTOS, [root.join("proto")])?;
    files.insert(Path::new(WIRE).join("descriptors.bin"), descriptors.encode_to_vec());
    let mut wire = tonic_prost_build::configure().build_server(false).bytes(".feed.v1");
    for package in ["feed.v1", "chat"] {
        wire = wire.client_mod_attribute(package, "#[cfg(feature = \"client\")]");
    }
    let out = tempfile::tempdir()?;
    wire.out_dir(out.path()).compile_fds(descriptors)?;
    take(out.path(), Path::new(WIRE), &mut files)?;

    let descriptors = protox::compile(PROTOS, [root.join(SEED)])?;
    let out = tempfile::tempdir()?;
    tonic_prost_build::configure()
        .build_server(false)
        .out_dir(out.path())
        .compile_fds(descriptors)?;
    take(out.path(), &Path::new(SEED).join("generated"), &mut files)?;
    Ok(files)
}

fn take(out: &Path, to: &Path, files: &mut BTreeMap<PathBuf, Vec<u8>>) -> anyhow::Result<()> {
    for entry in std::fs::read_dir(out)? {
        let entry = entry?;
        let text = std::fs::read(entry.path())?;
        files.insert(to.join(entry.file_name()), text);
    }
    Ok(())
}
