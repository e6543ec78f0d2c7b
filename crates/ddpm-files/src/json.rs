//! A check of JSON that its readers do not make.

use std::{collections::HashSet, fmt};

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::error::Category;

/// Checks that no object of a JSON text has a key twice: readers would use one of the values without a word.
///
/// A text that is no JSON passes. Its reader reports the error.
///
/// # Errors
///
/// If a key is doubled. The error names the key and its line.
pub fn check_keys(json: &[u8]) -> serde_json::Result<()> {
    match serde_json::from_slice::<Unique>(json) {
        Err(error) if error.classify() == Category::Data => Err(error),
        _ => Ok(()),
    }
}

/// Any JSON value without doubled keys.
struct Unique;

impl<'de> Deserialize<'de> for Unique {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Self)
    }
}

impl<'de> Visitor<'de> for Unique {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self, A::Error> {
        let mut keys = HashSet::new();
        while let Some(key) = map.next_key::<String>()? {
            if keys.contains(&key) {
                return Err(A::Error::custom(format_args!("the key {key:?} is there twice")));
            }
            keys.insert(key);
            map.next_value::<Self>()?;
        }
        Ok(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self, A::Error> {
        while seq.next_element::<Self>()?.is_some() {}
        Ok(self)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_str<E>(self, _: &str) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_unit<E>(self) -> Result<Self, E> {
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::check_keys;

    #[test]
    fn a_doubled_key_is_found_at_any_depth() {
        for json in [
            r#"{"a": 1, "a": 1}"#,
            r#"{"a": 1, "\u0061": 2}"#,
            r#"[{"b": {"a": null, "c": [], "a": 0.5}}]"#,
            r#"{"b": {}, "c": [1, {"a": true, "a": "x"}]}"#,
        ] {
            let error = check_keys(json.as_bytes()).unwrap_err().to_string();
            assert!(error.contains("the key \"a\" is there twice at line 1"), "{error}");
        }
        for json in [r#"{"a": {"a": 1}, "b": [{"a": 1}, {"a": 1}]}"#, "3", "{", "NaN", ""] {
            check_keys(json.as_bytes()).unwrap();
        }
    }
}
