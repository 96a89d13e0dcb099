use secrecy::{ExposeSecret as _, SecretString};

use super::{Fixture, a_secret, account, acme, at};
use crate::{
    account::{ApiKey, KeyHash},
    id::ApiKeyId,
};

impl Fixture {
    async fn secrets_at(&self, name: &str, seconds: i64) -> Vec<String> {
        let secrets = self.list_webhook_secrets(&account(name), at(seconds)).await.unwrap();
        secrets.iter().map(|secret| secret.secret.expose_secret().to_owned()).collect()
    }
}

fn a_key(name: &str, seconds: i64) -> ApiKey {
    ApiKey {
        id: ApiKeyId::new(at(seconds)),
        account: acme(),
        other_accounts: Vec::new(),
        name: name.into(),
        prefix: "iq_01234".into(),
        hash: KeyHash::of(&SecretString::from(name)),
        created_at: at(seconds),
        revoked_at: None,
    }
}

pub async fn an_account_is_made_once(fixture: Fixture) {
    assert!(!fixture.account_exists(&acme()).await.unwrap());
    fixture.ensure_account(&acme(), &a_secret("one"), at(0)).await.unwrap();
    fixture.ensure_account(&acme(), &a_secret("two"), at(1)).await.unwrap();
    assert!(fixture.account_exists(&acme()).await.unwrap());
    assert!(!fixture.account_exists(&account("ACME")).await.unwrap());
    assert_eq!(fixture.secrets_at("acme", 2).await, ["whsec_one"]);
    let secret = fixture.list_webhook_secrets(&acme(), at(2)).await.unwrap().pop().unwrap();
    assert_eq!((secret.created_at, secret.expires_at), (at(0), None));
}

pub async fn a_key_comes_back_as_it_was_added(fixture: Fixture) {
    for name in ["acme", "z", "a"] {
        fixture.ensure_account(&account(name), &a_secret(name), at(0)).await.unwrap();
    }
    let key = ApiKey { other_accounts: vec![account("z"), account("a")], ..a_key("one", 1) };
    assert!(fixture.add_key(&key).await.unwrap());
    assert_eq!(fixture.find_key(&key.hash).await.unwrap(), Some(key));
    let unknown = KeyHash([7; 32]);
    assert_eq!(fixture.find_key(&unknown).await.unwrap(), None);
}

pub async fn a_key_is_added_once(fixture: Fixture) {
    fixture.ensure_account(&acme(), &a_secret("one"), at(0)).await.unwrap();
    let key = a_key("one", 1);
    assert!(fixture.add_key(&key).await.unwrap());
    let same = ApiKey { hash: key.hash, other_accounts: vec![acme()], ..a_key("two", 2) };
    assert!(!fixture.add_key(&same).await.unwrap());
    assert_eq!(fixture.list_keys(None).await.unwrap(), [key]);
}

pub async fn a_key_needs_its_accounts(fixture: Fixture) {
    assert!(fixture.add_key(&a_key("one", 1)).await.is_err());
    fixture.ensure_account(&acme(), &a_secret("one"), at(0)).await.unwrap();
    let further = ApiKey { other_accounts: vec![account("nowhere")], ..a_key("one", 1) };
    assert!(fixture.add_key(&further).await.is_err());
    assert!(fixture.list_keys(None).await.unwrap().is_empty(), "nothing half done");
}

pub async fn keys_are_listed_for_all_whose_account_they_open(fixture: Fixture) {
    for name in ["acme", "b", "c"] {
        fixture.ensure_account(&account(name), &a_secret(name), at(0)).await.unwrap();
    }
    let second = ApiKey { other_accounts: vec![account("b")], ..a_key("two", 2) };
    let first = a_key("one", 1);
    let third = ApiKey { account: account("b"), ..a_key("three", 3) };
    for key in [&second, &first, &third] {
        assert!(fixture.add_key(key).await.unwrap());
    }
    let all = fixture.list_keys(None).await.unwrap();
    assert_eq!(all, [first.clone(), second.clone(), third.clone()]);
    let of_acme = fixture.list_keys(Some(&acme())).await.unwrap();
    assert_eq!(of_acme, [first, second.clone()]);
    assert_eq!(fixture.list_keys(Some(&account("b"))).await.unwrap(), [second, third]);
    assert!(fixture.list_keys(Some(&account("c"))).await.unwrap().is_empty());
}

pub async fn a_revoked_key_stays_revoked(fixture: Fixture) {
    fixture.ensure_account(&acme(), &a_secret("one"), at(0)).await.unwrap();
    let key = a_key("one", 1);
    fixture.add_key(&key).await.unwrap();
    assert!(fixture.revoke_key(key.id, at(5)).await.unwrap());
    assert!(fixture.revoke_key(key.id, at(6)).await.unwrap());
    let found = fixture.find_key(&key.hash).await.unwrap().unwrap();
    assert_eq!(found.revoked_at, Some(at(5)), "the first time");
    assert!(!fixture.revoke_key(ApiKeyId::new(at(0)), at(5)).await.unwrap());
}

pub async fn a_rotated_secret_signs_until_its_end(fixture: Fixture) {
    fixture.ensure_account(&acme(), &a_secret("one"), at(0)).await.unwrap();
    fixture.ensure_account(&account("other"), &a_secret("other"), at(0)).await.unwrap();
    let rotate = async |name: &str, now, end| {
        fixture.rotate_webhook_secret(&acme(), &a_secret(name), at(now), at(end)).await.unwrap()
    };
    assert!(rotate("two", 10, 100).await);
    assert_eq!(fixture.secrets_at("acme", 99).await, ["whsec_two", "whsec_one"]);
    assert_eq!(fixture.secrets_at("acme", 100).await, ["whsec_two"]);
    // Rotated again before the first has ended: its end is not put off.
    assert!(rotate("three", 20, 110).await);
    assert_eq!(fixture.secrets_at("acme", 50).await, ["whsec_three", "whsec_two", "whsec_one"]);
    assert_eq!(fixture.secrets_at("acme", 105).await, ["whsec_three", "whsec_two"]);
    assert_eq!(fixture.secrets_at("acme", 110).await, ["whsec_three"]);
    // A leak: the old ones end at once.
    assert!(rotate("four", 30, 30).await);
    assert_eq!(fixture.secrets_at("acme", 30).await, ["whsec_four"]);
    assert_eq!(fixture.secrets_at("other", 50).await, ["whsec_other"]);
    let unknown = account("nowhere");
    let answer = fixture.rotate_webhook_secret(&unknown, &a_secret("x"), at(1), at(2)).await;
    assert!(!answer.unwrap());
}
