//! What a watch may call itself, for figures.

/// Bytes of the longest name.
pub const MAX_BYTES: usize = 64;

/// What names are made of, in words.
pub const RULE: &str = "must be 1 to 64 letters and digits of ASCII, `.`, `_`, `-`, `:` or `/`";

/// Whether a watch may be called so: 1 to 64 letters and digits of ASCII, `.`, `_`, `-`, `:` or `/`.
pub fn is_name(text: &str) -> bool {
    let is_legal = |byte: u8| byte.is_ascii_alphanumeric() || b"._-:/".contains(&byte);
    (1..=MAX_BYTES).contains(&text.len()) && text.bytes().all(is_legal)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_short_and_plain() {
        for name in ["a", "billing", "eu/billing:2.v1_x-y", &"x".repeat(64)] {
            assert!(is_name(name), "{name}");
        }
        for name in ["", "a b", "é", "(others)", "a\n", "a\"", &"x".repeat(65)] {
            assert!(!is_name(name), "{name:?}");
        }
    }
}
