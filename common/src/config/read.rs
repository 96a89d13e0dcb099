//! How settings are read beyond what serde does by itself.

use std::{fmt::Display, str::FromStr};

use secrecy::SecretString;
use serde::{
    Deserialize, Deserializer,
    de::{Error, SeqAccess, Visitor},
};
use url::Url;

/// For `#[serde(deserialize_with)]`: a URL. The error does not repeat it, for it may hold a secret.
pub(super) fn optional_url<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Url>, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?;
    text.map(|text| parse_url(&text)).transpose()
}

/// The same, of a URL that must be there.
pub(super) fn url<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Url, D::Error> {
    parse_url(&String::deserialize(deserializer)?)
}

fn parse_url<E: Error>(text: &str) -> Result<Url, E> {
    Url::parse(text).map_err(|error| E::custom(format!("is no URL: {error}")))
}

/// For `#[serde(deserialize_with)]`: a [`list`] whose entries are never shown.
pub(super) fn secrets<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<SecretString>, D::Error> {
    let texts: Vec<String> = list(deserializer)?;
    Ok(texts.into_iter().map(SecretString::from).collect())
}

/// For `#[serde(deserialize_with)]`: a list of texts, or (from the environment) one text with
/// commas; `[` and `]` around it and quotes around entries are taken as TOML's.
pub(super) fn list<'de, T, D>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    T: FromStr<Err: Display>,
    D: Deserializer<'de>,
{
    struct Entries;

    impl<'de> Visitor<'de> for Entries {
        type Value = Vec<String>;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("a list of texts, or one text with commas")
        }

        fn visit_str<E: Error>(self, text: &str) -> Result<Vec<String>, E> {
            let inner = text.trim();
            let inner =
                inner.strip_prefix('[').and_then(|inner| inner.strip_suffix(']')).unwrap_or(inner);
            let bare = |entry: &str| entry.trim().trim_matches(['"', '\'']).trim().to_owned();
            Ok(inner.split(',').map(bare).collect())
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<String>, A::Error> {
            let mut entries = Vec::new();
            while let Some(entry) = seq.next_element()? {
                entries.push(entry);
            }
            Ok(entries)
        }
    }

    let entries = deserializer.deserialize_any(Entries)?;
    let named = entries.iter().filter(|entry| !entry.is_empty());
    let parse = |entry: &String| {
        entry
            .parse()
            .map_err(|error| D::Error::custom(format!("'{entry}' cannot be used: {error}")))
    };
    named.map(parse).collect()
}
