//! The secret of a credential: what it may hold, and how it is read from a client's JSON.

use std::{borrow::Cow, collections::BTreeMap, fmt};

use secrecy::{ExposeSecret as _, SecretString, zeroize::Zeroizing};
use serde_json::value::RawValue;

use super::{CredentialMember, service_account};
use crate::vendor::Vendor;

/// The longest key or other text, in bytes.
const MAX_TEXT_BYTES: usize = 4096;
/// Keys of one credential.
const MAX_KEYS: usize = 16;
/// A key of this length or more can show its end without giving anything away.
const MIN_HINT_CHARS: usize = 20;
const HINT_CHARS: usize = 4;
/// How much of an unknown member's name a message repeats.
const MAX_NAME_CHARS: usize = 64;

/// What proves to a vendor who calls: members that this vendor knows, each checked.
///
/// It is made by [`Self::read`] and by opening an envelope, and nothing else turns it into text.
#[derive(Clone)]
pub struct CredentialSecret(BTreeMap<CredentialMember, Vec<SecretString>>);

/// Only which members are set.
impl fmt::Debug for CredentialSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CredentialSecret(")?;
        for (index, member) in self.0.keys().enumerate() {
            let comma = if index > 0 { ", " } else { "" };
            write!(f, "{comma}{member}")?;
        }
        f.write_str(")")
    }
}

/// What is wrong with one member. It never repeats a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberFault {
    /// Where: the member, and what leads further into it.
    pub path: Vec<MemberStep>,
    pub kind: MemberFaultKind,
    /// For a person.
    pub message: Cow<'static, str>,
}

/// One step on the way to a faulty value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MemberStep {
    Name(Cow<'static, str>),
    At(usize),
}

/// What sort of mistake it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemberFaultKind {
    /// It has to be there.
    Missing,
    NotText,
    NotList,
    /// The vendor's credentials have no such member.
    NotAllowed,
    /// The value breaks a rule.
    Value,
}

impl MemberFault {
    pub(super) fn of(
        name: impl Into<Cow<'static, str>>,
        kind: MemberFaultKind,
        message: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self { path: vec![MemberStep::Name(name.into())], kind, message: message.into() }
    }

    fn value(member: CredentialMember, message: impl Into<Cow<'static, str>>) -> Self {
        Self::of(member.as_str(), MemberFaultKind::Value, message)
    }

    fn not_text(member: CredentialMember) -> Self {
        Self::of(member.as_str(), MemberFaultKind::NotText, "Input should be a valid string")
    }

    /// The same, further inside.
    pub(super) fn at(mut self, step: MemberStep) -> Self {
        self.path.push(step);
        self
    }
}

impl CredentialSecret {
    /// Reads the members of a client's object; `null` counts as not given.
    ///
    /// # Errors
    /// All that is wrong: first what this vendor does not take, then its members in their order.
    pub fn read<'a>(
        vendor: Vendor,
        given: impl IntoIterator<Item = (&'a str, &'a RawValue)>,
    ) -> Result<Self, Vec<MemberFault>> {
        let allowed = CredentialMember::of_vendor(vendor);
        let mut faults = Vec::new();
        let mut raw = BTreeMap::new();
        for (name, value) in given {
            match allowed.iter().find(|member| member.as_str() == name) {
                _ if value.get() == "null" => {}
                Some(member) => _ = raw.insert(*member, value),
                None => faults.push(not_allowed(vendor, name)),
            }
        }
        let mut members = BTreeMap::new();
        for member in allowed {
            let Some(value) = raw.get(member) else { continue };
            match values(*member, value) {
                Ok(values) => _ = members.insert(*member, values),
                Err(mut fault) => faults.append(&mut fault),
            }
        }
        faults.extend(ways(vendor, |member| raw.contains_key(&member)));
        if faults.is_empty() { Ok(Self(members)) } else { Err(faults) }
    }

    /// A member with one value; of several keys the first.
    pub fn get(&self, member: CredentialMember) -> Option<&SecretString> {
        self.0.get(&member)?.first()
    }

    /// A member whose value is no secret, such as `region`.
    pub fn plain(&self, member: CredentialMember) -> Option<&str> {
        debug_assert!(!member.is_secret(), "{member} is a secret");
        self.get(member).map(secrecy::ExposeSecret::expose_secret)
    }

    /// All keys in the order in which they are to be tried.
    pub fn api_keys(&self) -> impl Iterator<Item = &SecretString> {
        let members = [CredentialMember::ApiKey, CredentialMember::ApiKeys];
        members.into_iter().filter_map(|member| self.0.get(&member)).flatten()
    }

    /// The members that are set, each with the number of its values.
    pub fn members(&self) -> impl Iterator<Item = (CredentialMember, usize)> {
        self.0.iter().map(|(member, values)| (*member, values.len()))
    }

    /// The last characters of each value of a member that is long enough to show them: `…wxyz`.
    pub fn hints(&self, member: CredentialMember) -> Vec<String> {
        // A key file ends in what is the same in all of them.
        if !member.is_secret() || member == CredentialMember::ServiceAccount {
            return Vec::new();
        }
        let values = self.0.get(&member).into_iter().flatten();
        values.filter_map(|value| hint(value.expose_secret())).collect()
    }

    /// The text that is sealed: the flat map as JSON.
    pub(super) fn to_plaintext(&self) -> Zeroizing<Vec<u8>> {
        let exposed: BTreeMap<&str, Vec<&str>> = self
            .0
            .iter()
            .map(|(member, values)| {
                let values = values.iter().map(secrecy::ExposeSecret::expose_secret);
                (member.as_str(), values.collect())
            })
            .collect();
        // Room from the start: a buffer that grows leaves copies behind.
        let texts = exposed.values().flatten().map(|text| 2 * text.len() + 64).sum();
        let mut bytes = Zeroizing::new(Vec::with_capacity(texts));
        serde_json::to_writer(&mut *bytes, &exposed).expect("texts are always JSON");
        bytes
    }

    /// `None`: it is not what [`Self::to_plaintext`] writes. Members of a newer release are left
    /// out.
    pub(super) fn of_plaintext(bytes: &[u8]) -> Option<Self> {
        let found: BTreeMap<String, Vec<SecretString>> = serde_json::from_slice(bytes).ok()?;
        let known = |(name, values): (String, Vec<SecretString>)| {
            Some((name.parse::<CredentialMember>().ok()?, values))
        };
        Some(Self(found.into_iter().filter_map(known).collect()))
    }
}

fn hint(value: &str) -> Option<String> {
    let n_chars = value.chars().count();
    let end = value.chars().skip(n_chars.saturating_sub(HINT_CHARS));
    (n_chars >= MIN_HINT_CHARS).then(|| format!("…{}", end.collect::<String>()))
}

fn not_allowed(vendor: Vendor, name: &str) -> MemberFault {
    let known: Vec<&str> =
        CredentialMember::of_vendor(vendor).iter().map(|member| member.as_str()).collect();
    let lower = name.to_ascii_lowercase();
    let address = ["url", "uri", "host", "endpoint", "address", "domain", "proxy"];
    let message = if address.iter().any(|word| lower.contains(word)) {
        format!(
            "A credential carries no address: addresses are the operator's: \
             vendors.{vendor}.base_url"
        )
    } else {
        format!("A credential of {vendor} takes {}", known.join(", "))
    };
    let name: String = name.chars().take(MAX_NAME_CHARS).collect();
    MemberFault::of(name, MemberFaultKind::NotAllowed, message)
}

/// What is wrong with the choice of members.
fn ways(vendor: Vendor, has: impl Fn(CredentialMember) -> bool) -> Vec<MemberFault> {
    let ways = CredentialMember::ways(vendor);
    let words: Vec<&str> = ways.iter().map(|way| way.words).collect();
    let words = words.join(", or ");
    let chosen: Vec<_> = ways.iter().filter(|way| way.members.iter().any(|m| has(*m))).collect();
    match chosen.as_slice() {
        [] => {
            let first = ways.first().and_then(|way| way.members.first());
            let name = first.map_or("api_key", |member| member.as_str());
            let message = format!("Field required: a credential of {vendor} holds {words}");
            vec![MemberFault::of(name, MemberFaultKind::Missing, message)]
        }
        [way] => {
            let missing = way.required.iter().filter(|member| !has(**member));
            missing
                .map(|member| {
                    let message = format!("Field required: {} go together", way.words);
                    MemberFault::of(member.as_str(), MemberFaultKind::Missing, message)
                })
                .collect()
        }
        [_, further @ ..] => {
            let member = further.first().and_then(|way| way.members.iter().find(|m| has(**m)));
            let message = format!("a credential of {vendor} holds one way in: {words}");
            member.map(|member| MemberFault::value(*member, message)).into_iter().collect()
        }
    }
}

/// Reads and checks the values of one member.
fn values(member: CredentialMember, raw: &RawValue) -> Result<Vec<SecretString>, Vec<MemberFault>> {
    match member {
        CredentialMember::ApiKeys => keys(raw),
        CredentialMember::ServiceAccount => {
            service_account::read(raw).map(|text| vec![text]).map_err(|fault| vec![fault])
        }
        member => one(member, raw).map(|text| vec![text]).map_err(|fault| vec![fault]),
    }
}

fn keys(raw: &RawValue) -> Result<Vec<SecretString>, Vec<MemberFault>> {
    let member = CredentialMember::ApiKeys;
    let Ok(list) = serde_json::from_str::<Vec<&RawValue>>(raw.get()) else {
        let message = "Input should be a valid list";
        return Err(vec![MemberFault::of(member.as_str(), MemberFaultKind::NotList, message)]);
    };
    if !(1..=MAX_KEYS).contains(&list.len()) {
        let message = format!("must hold 1 to {MAX_KEYS} keys, not {}", list.len());
        return Err(vec![MemberFault::value(member, message)]);
    }
    let (mut keys, mut faults) = (Vec::new(), Vec::new());
    for (index, raw) in list.into_iter().enumerate() {
        match one(member, raw) {
            Ok(key) => keys.push(key),
            Err(fault) => faults.push(fault.at(MemberStep::At(index))),
        }
    }
    if faults.is_empty() { Ok(keys) } else { Err(faults) }
}

fn one(member: CredentialMember, raw: &RawValue) -> Result<SecretString, MemberFault> {
    let text: SecretString =
        serde_json::from_str(raw.get()).map_err(|_| MemberFault::not_text(member))?;
    check(member, text.expose_secret()).map_err(|rule| MemberFault::value(member, rule))?;
    Ok(text)
}

/// What a value must be. Some become part of a vendor's host name or path, where a stray character
/// could lead the operator's server elsewhere.
fn check(member: CredentialMember, text: &str) -> Result<(), String> {
    use CredentialMember::{AccessKeyId, Location, Project, Region, TenantId};
    let word = |max: usize, signs: &[u8]| {
        let first = text.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
        let all = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || signs.contains(&byte));
        first && all && text.len() <= max
    };
    let upper = text.bytes().any(|byte| byte.is_ascii_uppercase());
    match member {
        Region | Location if !word(32, b"-") || upper || text.ends_with('-') => {
            Err("must be 1 to 32 of a-z, 0-9 and '-', such as us-east-1".to_owned())
        }
        TenantId if !word(128, b"-.") => {
            Err("must be 1 to 128 letters, digits, '-' and '.', such as a UUID".to_owned())
        }
        AccessKeyId if !word(128, b"_") => {
            Err("must be 1 to 128 letters, digits and '_'".to_owned())
        }
        Project if !word(128, b"-_.:") => {
            Err("must be 1 to 128 letters, digits, '-', '_', '.' and ':'".to_owned())
        }
        // They travel in headers and forms.
        _ if text.is_empty() || text.len() > MAX_TEXT_BYTES => {
            Err(format!("must have 1 to {MAX_TEXT_BYTES} characters"))
        }
        _ if !text.bytes().all(|byte| byte.is_ascii_graphic()) => {
            Err("must be visible ASCII without spaces".to_owned())
        }
        _ => Ok(()),
    }
}
