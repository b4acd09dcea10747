//! What a shell says, as JSON.

use serde::Deserialize;
use serde::de::{self, Deserializer};

use super::{Data, Object, Text, Time};
use crate::Erased;

pub(super) fn write(object: &mut Object<'_>, erased: &Erased<'_>) {
    object.bytes("rest_digest", &erased.rest_digest);
    object.bytes("payload_digest", &erased.payload_digest);
    object.text("reason", erased.reason);
    object.time("erased_at", Some(erased.erased_at));
    object.text("erasure", erased.erasure);
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ErasedJson<'a> {
    #[serde(alias = "restDigest")]
    rest_digest: Digest,
    #[serde(alias = "payloadDigest")]
    payload_digest: Digest,
    #[serde(borrow, default)]
    reason: Text<'a>,
    #[serde(alias = "erasedAt")]
    erased_at: Time,
    #[serde(borrow, default)]
    erasure: Text<'a>,
}

impl ErasedJson<'_> {
    pub(super) fn erased(&self) -> Erased<'_> {
        Erased {
            rest_digest: self.rest_digest.0,
            payload_digest: self.payload_digest.0,
            reason: &self.reason.0,
            erased_at: self.erased_at.0.unwrap_or_default(),
            erasure: &self.erasure.0,
        }
    }
}

#[derive(Debug)]
struct Digest([u8; 16]);

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Data(bytes) = Data::deserialize(deserializer)?;
        let digest = <[u8; 16]>::try_from(bytes.as_slice());
        digest.map(Digest).map_err(|_| de::Error::custom("a digest has 16 bytes"))
    }
}
