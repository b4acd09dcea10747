//! How the log's compression is written in settings: by name, zstd at one level.

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serializer};
use tailmark_log::Compression;

/// zstd's level 1 keeps up with uploads; higher ones gain little on blocks of 48 KiB.
const ZSTD_LEVEL: i32 = 1;
const NAMES: [&str; 3] = ["none", "lz4", "zstd"];

pub(super) fn serialize<S: Serializer>(value: &Compression, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(match value {
        Compression::None => "none",
        Compression::Lz4 => "lz4",
        Compression::Zstd(_) => "zstd",
    })
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Compression, D::Error> {
    match String::deserialize(from)?.as_str() {
        "none" => Ok(Compression::None),
        "lz4" => Ok(Compression::Lz4),
        "zstd" => Ok(Compression::Zstd(ZSTD_LEVEL)),
        other => Err(D::Error::unknown_variant(other, &NAMES)),
    }
}

#[cfg(test)]
mod tests {
    use crate::config::Storage;

    #[test]
    fn every_name_is_read_and_written_and_no_other() {
        for name in super::NAMES {
            let text = format!("compression = \"{name}\"");
            let storage: Storage = toml::from_str(&text).unwrap();
            assert!(toml::to_string(&storage).unwrap().contains(&text), "{name}");
        }
        let error = toml::from_str::<Storage>("compression = \"best\"").unwrap_err().to_string();
        assert!(error.contains("unknown variant `best`, expected one of `none`, `lz4`, `zstd`"));
    }
}
