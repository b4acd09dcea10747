//! Bytes, as base64 of any kind.

use base64::Engine as _;
use base64::alphabet;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use base64::engine::{DecodePaddingMode, GeneralPurpose as Base64};
use serde::Deserialize;
use serde::de::{self, Deserializer};

use super::Text;

#[derive(Debug, Default)]
pub(super) struct Data(pub(super) Vec<u8>);

/// Padding may be there or not, as proto3 JSON demands of readers.
const LENIENT: GeneralPurposeConfig = GeneralPurposeConfig::new()
    .with_decode_padding_mode(DecodePaddingMode::Indifferent)
    .with_decode_allow_trailing_bits(true);
pub(super) const STANDARD_LENIENT: Base64 = GeneralPurpose::new(&alphabet::STANDARD, LENIENT);
const URL_SAFE_LENIENT: Base64 = GeneralPurpose::new(&alphabet::URL_SAFE, LENIENT);

impl<'de> Deserialize<'de> for Data {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Text(text) = Text::deserialize(deserializer)?;
        let is_url_safe = text.bytes().any(|c| c == b'-' || c == b'_');
        let engine = if is_url_safe { &URL_SAFE_LENIENT } else { &STANDARD_LENIENT };
        engine.decode(text.as_bytes()).map(Data).map_err(|error| {
            de::Error::custom(format_args!("data: not base64: {}", lower_first(&error.to_string())))
        })
    }
}

fn lower_first(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |c| c.to_lowercase().chain(chars).collect())
}
