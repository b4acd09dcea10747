//! Bytes, as base64 of any kind.

use base64::alphabet;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use base64::engine::{DecodePaddingMode, GeneralPurpose as Base64};
use base64::{DecodeError, Engine as _};
use serde::Deserialize;
use serde::de::{self, Deserializer};

use super::Text;
use crate::excerpt;

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
        engine
            .decode(text.as_bytes())
            .map(Data)
            .map_err(|error| de::Error::custom(not_base64(text.as_bytes(), &error)))
    }
}

/// What is wrong with a text that is no base64.
pub(super) fn not_base64(text: &[u8], error: &DecodeError) -> String {
    match error {
        DecodeError::InvalidByte(at, _) => {
            let found = String::from_utf8_lossy(text.get(*at..).unwrap_or_default());
            let found = found.chars().next().map(String::from).unwrap_or_default();
            format!("not base64: `{}` at character {}", excerpt(&found), at + 1)
        }
        _ => "not base64: its end is not there, or not as it should be".to_owned(),
    }
}
