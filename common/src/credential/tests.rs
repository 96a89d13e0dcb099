use proptest::prelude::*;
use rand::{SeedableRng as _, rngs::StdRng};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Value, json, value::RawValue};

use super::*;

const KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
const OTHER_KEY: &str = "fffefdfcfbfaf9f8f7f6f5f4f3f2f1f0efeeedecebeae9e8e7e6e5e4e3e2e1e0";

fn read(vendor: Vendor, members: &Value) -> Result<CredentialSecret, Vec<MemberFault>> {
    let texts: Vec<(&str, String)> = members
        .as_object()
        .unwrap()
        .iter()
        .map(|(name, value)| (name.as_str(), value.to_string()))
        .collect();
    let raw =
        texts.iter().map(|(name, text)| (*name, serde_json::from_str::<&RawValue>(text).unwrap()));
    CredentialSecret::read(vendor, raw)
}

/// What is refused, each as `kind member[.step]: message`.
#[track_caller]
fn refused(vendor: Vendor, members: &Value) -> Vec<String> {
    let faults = read(vendor, members).expect_err("it is refused");
    let step = |step: &MemberStep| match step {
        MemberStep::Name(name) => name.to_string(),
        MemberStep::At(index) => index.to_string(),
    };
    let words = |fault: &MemberFault| {
        let path: Vec<String> = fault.path.iter().map(step).collect();
        format!("{:?} {}: {}", fault.kind, path.join("."), fault.message)
    };
    faults.iter().map(words).collect()
}

fn key_file() -> Value {
    json!({
        "type": "service_account",
        "project_id": "acme-1",
        "private_key_id": "0123456789abcdef",
        "private_key": "-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n",
        "client_email": "runner@acme-1.iam.gserviceaccount.com",
        "client_id": "123",
        "auth_uri": "https://accounts.google.com/o/oauth2/auth",
        "token_uri": TOKEN_URI,
        "client_x509_cert_url": "https://www.googleapis.com/robot/v1/metadata/x509/x",
        "universe_domain": "googleapis.com",
    })
}

fn keys(current: Option<&str>, previous: &[&str]) -> MasterKeys {
    let key = |text: &str| MasterKey::parse(&SecretString::from(text)).unwrap();
    MasterKeys::new(current.map(key), previous.iter().map(|text| key(text)).collect())
}

fn sealed(keys: &MasterKeys, secret: &CredentialSecret, seed: u64) -> SealedCredential {
    let account: AccountId = "acme".parse().unwrap();
    let name: CredentialName = "main".parse().unwrap();
    let vendor = Vendor::OpenAi;
    let mut rng = StdRng::seed_from_u64(seed);
    let envelope = keys.seal(secret, (&account, &name, vendor), &mut rng).unwrap();
    let at = DateTime::UNIX_EPOCH;
    Credential {
        id: CredentialId::new(at),
        account,
        name,
        vendor,
        secret: envelope,
        is_default: true,
        created_at: at,
        updated_at: at,
        version: 3,
    }
}

fn a_secret() -> CredentialSecret {
    read(Vendor::OpenAi, &json!({ "api_key": "sk-very-secret", "project": "proj_1" })).unwrap()
}

#[test]
fn a_name_is_short_and_plain() {
    for good in ["a", "0", "team-a_2", &"x".repeat(63)] {
        assert_eq!(good.parse::<CredentialName>().unwrap().as_str(), good);
    }
    for bad in ["", "-a", "_a", "A", "a b", "ä", "a/b", "a.b", &"x".repeat(64)] {
        assert!(bad.parse::<CredentialName>().is_err(), "{bad:?}");
    }
}

#[test]
fn every_vendor_takes_its_own_members() {
    let entra = json!({ "tenant_id": "a-b", "client_id": "c", "client_secret": "d~e" });
    let aws =
        json!({ "access_key_id": "AKIA1", "secret_access_key": "a/b+c", "region": "eu-west-1" });
    for (vendor, members) in [
        (Vendor::OpenAi, json!({ "api_key": "k", "organization": "org-1", "project": "proj_1" })),
        (Vendor::Azure, entra),
        (Vendor::Azure, json!({ "api_keys": ["k"] })),
        (Vendor::Bedrock, aws),
        (Vendor::Bedrock, json!({ "api_key": "k", "region": null })),
        (Vendor::VertexAi, json!({ "service_account": key_file(), "location": "global" })),
        (Vendor::VertexAi, json!({ "api_key": "k", "project": "example.com:acme" })),
    ] {
        let secret = read(vendor, &members).unwrap_or_else(|e| panic!("{vendor} {members}: {e:?}"));
        let given = members.as_object().unwrap().values().filter(|value| !value.is_null());
        assert_eq!(secret.members().count(), given.count());
    }
    for &vendor in Vendor::ALL {
        let words = refused(vendor, &json!({})).join(" ");
        assert!(words.starts_with("Missing "), "{words}");
        let first = CredentialMember::of_vendor(vendor);
        assert!(first.contains(&CredentialMember::ApiKey), "{vendor}");
        read(vendor, &json!({ "api_key": "k" })).unwrap();
    }
}

#[test]
fn keys_are_tried_in_their_order() {
    let secret = read(Vendor::Xai, &json!({ "api_keys": ["b", "c"], "api_key": "a" })).unwrap();
    let keys: Vec<&str> = secret.api_keys().map(secrecy::ExposeSecret::expose_secret).collect();
    assert_eq!(keys, ["a", "b", "c"]);
    let members: Vec<_> = secret.members().collect();
    assert_eq!(members, [(CredentialMember::ApiKey, 1), (CredentialMember::ApiKeys, 2)]);
}

#[test]
fn all_mistakes_are_told_and_none_repeats_a_value() {
    let told = refused(
        Vendor::Azure,
        &json!({
            "base_url": "https://evil.example",
            "region": "x",
            "api_keys": ["ok", "with space", 7],
            "tenant_id": "../evil",
            "client_id": 5,
        }),
    );
    assert_eq!(
        told,
        [
            "NotAllowed base_url: A credential carries no address: addresses are the operator's: \
             vendors.azure.base_url",
            "NotAllowed region: A credential of azure takes api_key, api_keys, tenant_id, \
             client_id, client_secret",
            "Value api_keys.1: must be visible ASCII without spaces",
            "NotText api_keys.2: Input should be a valid string",
            "Value tenant_id: must be 1 to 128 letters, digits, '-' and '.', such as a UUID",
            "NotText client_id: Input should be a valid string",
            "Value tenant_id: a credential of azure holds one way in: api_key (or api_keys), or \
             tenant_id with client_id and client_secret",
        ]
    );
}

#[test]
fn what_belongs_together_is_asked_for_together() {
    assert_eq!(
        refused(Vendor::Bedrock, &json!({ "session_token": "t" })),
        [
            "Missing access_key_id: Field required: access_key_id with secret_access_key go together",
            "Missing secret_access_key: Field required: access_key_id with secret_access_key go \
             together",
        ]
    );
    assert_eq!(
        refused(Vendor::Bedrock, &json!({ "api_key": "k", "access_key_id": "a" })),
        ["Value access_key_id: a credential of bedrock holds one way in: api_key, or \
          access_key_id with secret_access_key"]
    );
}

#[test]
fn what_becomes_part_of_an_address_has_plain_characters() {
    for region in ["", "eu.evil.example", "a/b", "a#", "-a", "a-", "EU-1", "é", &"a".repeat(33)] {
        let members = json!({ "api_key": "k", "region": region });
        let told = refused(Vendor::Bedrock, &members);
        assert!(told[0].starts_with("Value region: must be"), "{region}: {told:?}");
    }
    for project in ["..", "a/b", "a?b", "a%2f", ""] {
        let members = json!({ "api_key": "k", "project": project });
        assert!(refused(Vendor::VertexAi, &members)[0].starts_with("Value project"), "{project}");
    }
}

#[test]
fn sizes_are_bounded() {
    read(Vendor::OpenAi, &json!({ "api_key": "k".repeat(4096) })).unwrap();
    for members in [
        json!({ "api_key": "k".repeat(4097) }),
        json!({ "api_key": "" }),
        json!({ "api_key": "k\n" }),
        json!({ "api_keys": [] }),
        json!({ "api_keys": vec!["k"; 17] }),
        json!({ "api_keys": "k" }),
        json!({ "api_key": ["k"] }),
        json!({ "k".repeat(5000): "k", "api_key": "k" }),
    ] {
        let told = refused(Vendor::OpenAi, &members);
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(told[0].len() < 300, "{}", told[0]);
    }
}

#[test]
fn a_key_file_keeps_what_calls_need_and_no_other_address() {
    for given in [key_file(), Value::from(key_file().to_string())] {
        let secret = read(Vendor::VertexAi, &json!({ "service_account": given })).unwrap();
        let text = secret.get(CredentialMember::ServiceAccount).unwrap().expose_secret();
        let kept: Value = serde_json::from_str(text).unwrap();
        assert_eq!(kept["private_key"], key_file()["private_key"]);
        assert_eq!(kept["token_uri"], TOKEN_URI);
        assert_eq!(text.matches("https://").count(), 1, "{text}");
    }
    let mut without = key_file();
    without.as_object_mut().unwrap().remove("token_uri");
    read(Vendor::VertexAi, &json!({ "service_account": without })).unwrap();
}

#[test]
fn a_key_file_that_leads_elsewhere_is_refused() {
    for (name, value, place) in [
        ("token_uri", json!("https://oauth2.googleapis.com.evil.example/token"), ".token_uri"),
        ("token_uri", json!("http://oauth2.googleapis.com/token"), ".token_uri"),
        ("universe_domain", json!("evil.example"), ".universe_domain"),
        ("type", json!("external_account"), ".type"),
        ("client_email", json!(""), ".client_email"),
        ("private_key", json!("nonsense"), ".private_key"),
        ("private_key", json!(5), ""),
    ] {
        let mut file = key_file();
        file[name] = value.clone();
        let told = refused(Vendor::VertexAi, &json!({ "service_account": file }));
        let start = format!("Value service_account{place}: must ");
        assert!(told.len() == 1 && told[0].starts_with(&start), "{name} {value}: {told:?}");
        assert!(!told[0].contains("evil") && !told[0].contains("nonsens"), "{told:?}");
    }
    for other in [json!("not JSON"), json!([]), json!(1), json!("x".repeat(40_000))] {
        let told = refused(Vendor::VertexAi, &json!({ "service_account": other }));
        assert!(told[0].starts_with("Value service_account: must "), "{told:?}");
    }
}

#[test]
fn only_a_long_key_shows_its_end() {
    let members = json!({ "api_keys": ["0123456789012345678", "01234567890123456wxyz"] });
    let secret = read(Vendor::Cohere, &members).unwrap();
    assert_eq!(secret.hints(CredentialMember::ApiKeys), ["…wxyz"]);
    assert!(secret.hints(CredentialMember::ApiKey).is_empty());
    let secret = read(Vendor::VertexAi, &json!({ "service_account": key_file() })).unwrap();
    assert!(secret.hints(CredentialMember::ServiceAccount).is_empty());
}

#[test]
fn debug_shows_no_secret() {
    let keys = keys(Some(KEY), &[OTHER_KEY]);
    let row = sealed(&keys, &a_secret(), 1);
    let shown = format!("{row:?} {:?} {keys:?}", keys.open(row.clone()).unwrap());
    assert!(shown.contains("CredentialSecret(api_key, project)"), "{shown}");
    for secret in ["sk-very-secret", KEY, OTHER_KEY] {
        assert!(!shown.contains(secret), "{shown}");
    }
}

#[test]
fn what_is_sealed_is_opened_and_looks_like_nothing() {
    let keys = keys(Some(KEY), &[]);
    let row = sealed(&keys, &a_secret(), 1);
    let again = sealed(&keys, &a_secret(), 2);
    assert_ne!(row.secret, again.secret, "a nonce is used once");
    let seen = row.secret.0.windows(6).any(|part| part == b"secret" || part == b"api_ke");
    assert!(!seen);
    let open = keys.open(row).unwrap();
    let key = open.secret.get(CredentialMember::ApiKey).unwrap();
    assert_eq!(key.expose_secret(), "sk-very-secret");
    assert_eq!(open.secret.plain(CredentialMember::Project), Some("proj_1"));
    assert_eq!((open.version, open.is_default), (3, true));
}

#[test]
fn the_format_is_this() {
    let keys = keys(Some(KEY), &[]);
    let Envelope(bytes) = sealed(&keys, &a_secret(), 1).secret;
    assert_eq!(bytes[0], 1);
    // The beginning of the SHA-256 of the bytes 0 to 31.
    assert_eq!(bytes[1..9], [0x63, 0x0d, 0xcd, 0x29, 0x66, 0xc4, 0x33, 0x66]);
    assert_eq!(keys.current().unwrap().id().to_string(), "630dcd2966c43366");
    let plaintext = br#"{"api_key":["sk-very-secret"],"project":["proj_1"]}"#;
    assert_eq!(bytes.len(), 1 + 8 + 24 + plaintext.len() + 16);
}

#[test]
fn an_envelope_opens_for_its_own_credential_only() {
    let keys = keys(Some(KEY), &[]);
    let row = sealed(&keys, &a_secret(), 1);
    let moved = [
        Credential { account: "other".parse().unwrap(), ..row.clone() },
        Credential { name: "other".parse().unwrap(), ..row.clone() },
        Credential { vendor: Vendor::Xai, ..row.clone() },
    ];
    for moved in moved {
        assert_eq!(keys.open(moved).unwrap_err(), SealError::Damaged);
    }
}

#[test]
fn a_rotated_key_opens_and_a_lost_one_is_named() {
    let old = keys(Some(OTHER_KEY), &[]);
    let row = sealed(&old, &a_secret(), 1);
    let rotated = keys(Some(KEY), &[OTHER_KEY]);
    rotated.open(row.clone()).unwrap();
    let anew = sealed(&rotated, &a_secret(), 1);
    keys(Some(KEY), &[]).open(anew).unwrap();
    let lost = keys(Some(KEY), &[]).open(row.clone()).unwrap_err();
    assert_eq!(lost, SealError::UnknownKey(old.current().unwrap().id()));
    assert!(lost.to_string().contains("previous_master_keys"));
    assert_eq!(keys(None, &[]).open(row.clone()).unwrap_err(), SealError::NoMasterKey);
    keys(None, &[OTHER_KEY]).open(row).unwrap();
    let (account, name) = ("a".parse().unwrap(), "n".parse().unwrap());
    let mut rng = StdRng::seed_from_u64(1);
    let sealed = MasterKeys::default().seal(&a_secret(), (&account, &name, Vendor::Xai), &mut rng);
    assert_eq!(sealed.unwrap_err(), SealError::NoMasterKey);
}

#[test]
fn a_master_key_is_32_bytes_in_base64_or_hex() {
    let id = |text: &str| MasterKey::parse(&SecretString::from(text)).map(|key| key.id());
    let expected = id(KEY).unwrap();
    let hex = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f".to_owned();
    for same in [&hex, &hex.to_uppercase(), KEY.trim_end_matches('='), &format!(" {KEY}\n")] {
        assert_eq!(id(same), Ok(expected), "{same}");
    }
    assert_eq!(
        id("-_-_-_-_-_-_-_-_-_-_-_-_-_-_-_-_-_-_-_-_-_8"),
        id("+/+/+/+/+/+/+/+/+/+/+/+/+/+/+/+/+/+/+/+/+/8=")
    );
    for bad in ["", "short", &hex[2..], &format!("{hex}00"), "%%%"] {
        assert_eq!(id(bad), Err(InvalidMasterKey), "{bad}");
    }
    let made = generate_master_key(&mut StdRng::seed_from_u64(1));
    assert_eq!(made.expose_secret().len(), 44);
    MasterKey::parse(&made).unwrap();
}

proptest! {
    #[test]
    fn no_bytes_at_all_make_opening_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), format in 0u8..3) {
        let keys = keys(Some(KEY), &[]);
        let mut row = sealed(&keys, &a_secret(), 1);
        row.secret = Envelope(bytes.clone());
        prop_assert!(keys.open(row.clone()).is_err());
        row.secret = Envelope([&[format], &bytes[..]].concat());
        prop_assert!(keys.open(row).is_err());
    }

    #[test]
    fn one_changed_bit_is_found(at in 0usize..100, bit in 0u8..8) {
        let keys = keys(Some(KEY), &[]);
        let mut row = sealed(&keys, &a_secret(), 1);
        let at = at % row.secret.0.len();
        row.secret.0[at] ^= 1 << bit;
        prop_assert!(keys.open(row).is_err());
    }

    #[test]
    fn any_key_survives(key in "[!-~]{1,300}") {
        let secret = read(Vendor::OpenAi, &json!({ "api_key": key })).unwrap();
        let keys = keys(Some(KEY), &[]);
        let open = keys.open(sealed(&keys, &secret, 1)).unwrap();
        prop_assert_eq!(open.secret.get(CredentialMember::ApiKey).unwrap().expose_secret(), &key);
    }
}
