use chrono::TimeDelta;

use super::{Fixture, a_secret, account, acme, at};
use crate::{
    credential::{Credential, CredentialName, Envelope, SealedCredential},
    id::{AccountId, CredentialId},
    store::{Added, NewCredential, Page, PageRequest},
    vendor::Vendor,
};

fn name(text: &str) -> CredentialName {
    text.parse().unwrap()
}

/// A credential of `acme` for OpenAI, put at [`at`] `seconds`.
fn a_credential(text: &str, seconds: i64) -> NewCredential {
    NewCredential {
        id: CredentialId::new(at(seconds)),
        account: acme(),
        name: name(text),
        vendor: Vendor::OpenAi,
        secret: Envelope(vec![0, 255, u8::try_from(seconds).unwrap()]),
        default: None,
        now: at(seconds),
    }
}

/// As it is stored when it is new.
fn stored(new: &NewCredential) -> SealedCredential {
    Credential {
        id: new.id,
        account: new.account.clone(),
        name: new.name.clone(),
        vendor: new.vendor,
        secret: new.secret.clone(),
        is_default: new.default.unwrap_or(false),
        created_at: new.now,
        updated_at: new.now,
        version: 1,
    }
}

impl Fixture {
    async fn with_accounts(self) -> Self {
        for account in [acme(), account("other")] {
            self.ensure_account(&account, &a_secret("one"), at(0)).await.unwrap();
        }
        self
    }

    async fn credential(&self, text: &str) -> Option<SealedCredential> {
        self.find_credential(&acme(), &name(text)).await.unwrap()
    }

    /// The names in a page of all vendors, oldest first.
    async fn credential_names(&self, account: &AccountId) -> Vec<String> {
        let page = PageRequest { after: None, before: None, limit: 1000, ascending: true };
        let Page { items, .. } = self.list_credentials(account, None, &page).await.unwrap();
        items.into_iter().map(|credential| credential.name.to_string()).collect()
    }

    /// The name of the default.
    async fn default_name(&self, account: &AccountId, vendor: Vendor) -> Option<String> {
        let found = self.find_default_credential(account, vendor).await.unwrap();
        found.map(|credential| credential.name.to_string())
    }
}

pub async fn a_credential_comes_back_as_it_was_put(fixture: Fixture) {
    let fixture = fixture.with_accounts().await;
    let new = NewCredential { default: Some(true), ..a_credential("main", 1) };
    let added = fixture.put_credential(&new).await.unwrap();
    assert_eq!(added, Added::New(stored(&new)));
    assert_eq!(fixture.credential("main").await, Some(stored(&new)));
    let default = fixture.find_default_credential(&acme(), Vendor::OpenAi).await.unwrap();
    assert_eq!(default, Some(stored(&new)));
    assert_eq!(fixture.credential("other").await, None);
}

pub async fn a_credential_put_again_has_the_next_version(fixture: Fixture) {
    let fixture = fixture.with_accounts().await;
    let first = a_credential("main", 1);
    fixture.put_credential(&first).await.unwrap();
    let second = a_credential("main", 2);
    let expected = SealedCredential {
        secret: second.secret.clone(),
        updated_at: at(2),
        version: 2,
        ..stored(&first)
    };
    let updated = fixture.put_credential(&second).await.unwrap();
    assert_eq!(updated, Added::Updated(expected.clone()));
    assert_eq!(fixture.credential("main").await, Some(expected));
    // Even with the same content.
    let again = fixture.put_credential(&second).await.unwrap();
    assert!(matches!(again, Added::Updated(Credential { version: 3, .. })), "{again:?}");
}

pub async fn a_credential_keeps_its_vendor(fixture: Fixture) {
    let fixture = fixture.with_accounts().await;
    let first = a_credential("main", 1);
    fixture.put_credential(&first).await.unwrap();
    let default =
        NewCredential { default: Some(true), vendor: Vendor::Xai, ..a_credential("x", 2) };
    fixture.put_credential(&default).await.unwrap();
    let elsewhere =
        NewCredential { vendor: Vendor::Xai, default: Some(true), ..a_credential("main", 3) };
    let refused = fixture.put_credential(&elsewhere).await.unwrap();
    assert_eq!(refused, Added::Conflict(stored(&first)));
    assert_eq!(fixture.credential("main").await, Some(stored(&first)), "nothing was written");
    assert_eq!(fixture.default_name(&acme(), Vendor::Xai).await.as_deref(), Some("x"));
}

pub async fn a_vendor_has_one_default_in_an_account(fixture: Fixture) {
    let fixture = fixture.with_accounts().await;
    let put = async |text: &str, default, change: &dyn Fn(&mut NewCredential)| {
        let mut new = NewCredential { default, ..a_credential(text, 1) };
        change(&mut new);
        fixture.put_credential(&new).await.unwrap();
    };
    put("a", Some(true), &|_| {}).await;
    put("b", None, &|_| {}).await;
    put("elsewhere", Some(true), &|new| new.vendor = Vendor::Xai).await;
    put("others", Some(true), &|new| new.account = account("other")).await;
    let default = async || fixture.default_name(&acme(), Vendor::OpenAi).await;
    assert_eq!(default().await.as_deref(), Some("a"));
    put("b", Some(true), &|_| {}).await;
    assert_eq!(default().await.as_deref(), Some("b"));
    let a = fixture.credential("a").await.unwrap();
    assert_eq!((a.is_default, a.version), (false, 1), "its content is the same");
    // A new secret alone leaves the choice as it is.
    put("b", None, &|_| {}).await;
    assert_eq!(default().await.as_deref(), Some("b"));
    put("b", Some(false), &|_| {}).await;
    assert_eq!(default().await, None);
    assert_eq!(fixture.default_name(&acme(), Vendor::Xai).await.as_deref(), Some("elsewhere"));
    let others = fixture.default_name(&account("other"), Vendor::OpenAi).await;
    assert_eq!(others.as_deref(), Some("others"));
}

pub async fn credentials_are_listed_page_by_page(fixture: Fixture) {
    let fixture = fixture.with_accounts().await;
    for (seconds, text) in [(1, "a"), (2, "b"), (3, "c")] {
        fixture.put_credential(&a_credential(text, seconds)).await.unwrap();
    }
    let other = NewCredential { vendor: Vendor::Azure, ..a_credential("d", 4) };
    fixture.put_credential(&other).await.unwrap();
    assert_eq!(fixture.credential_names(&acme()).await, ["a", "b", "c", "d"]);
    let page = |after, ascending| PageRequest { after, before: None, limit: 2, ascending };
    let listed = async |vendor, page| {
        let page = fixture.list_credentials(&acme(), vendor, &page).await.unwrap();
        let names: Vec<String> = page.items.iter().map(|one| one.name.to_string()).collect();
        (names.join(" "), page.items.last().map(|one| one.id), page.has_more)
    };
    let (names, last, more) = listed(None, page(None, false)).await;
    assert_eq!((names.as_str(), more), ("d c", true));
    let (names, _, more) = listed(None, page(last, false)).await;
    assert_eq!((names.as_str(), more), ("b a", false));
    let (names, ..) = listed(Some(Vendor::Azure), page(None, true)).await;
    assert_eq!(names, "d");
    let (names, ..) = listed(Some(Vendor::Cohere), page(None, true)).await;
    assert_eq!(names, "");
}

pub async fn a_deleted_credential_is_gone(fixture: Fixture) {
    let fixture = fixture.with_accounts().await;
    let first = NewCredential { default: Some(true), ..a_credential("main", 1) };
    fixture.put_credential(&first).await.unwrap();
    let deleted = fixture.delete_credential(&acme(), &first.name).await.unwrap();
    assert_eq!(deleted, Some(first.id));
    assert_eq!(fixture.delete_credential(&acme(), &first.name).await.unwrap(), None);
    assert_eq!(fixture.credential("main").await, None);
    assert_eq!(fixture.default_name(&acme(), Vendor::OpenAi).await, None);
    // The same name is another credential, of whatever vendor.
    let second = NewCredential { vendor: Vendor::Cohere, ..a_credential("main", 2) };
    let added = fixture.put_credential(&second).await.unwrap();
    assert_eq!(added, Added::New(stored(&second)));
}

pub async fn another_account_sees_no_credential(fixture: Fixture) {
    let fixture = fixture.with_accounts().await;
    let other = account("other");
    let new = NewCredential { default: Some(true), ..a_credential("main", 1) };
    fixture.put_credential(&new).await.unwrap();
    assert_eq!(fixture.find_credential(&other, &new.name).await.unwrap(), None);
    assert_eq!(fixture.default_name(&other, Vendor::OpenAi).await, None);
    assert!(fixture.credential_names(&other).await.is_empty());
    assert_eq!(fixture.delete_credential(&other, &new.name).await.unwrap(), None);
    let theirs = NewCredential { account: other.clone(), ..a_credential("main", 2) };
    assert!(matches!(fixture.put_credential(&theirs).await.unwrap(), Added::New(_)));
    assert_eq!(fixture.credential("main").await, Some(stored(&new)));
}

pub async fn a_credential_put_from_many_sides_is_one(fixture: Fixture) {
    let fixture = fixture.with_accounts().await;
    let all: Vec<_> = (0..8)
        .map(|n| {
            let text = if n % 2 == 0 { "even" } else { "odd" };
            NewCredential { default: Some(true), ..a_credential(text, n) }
        })
        .collect();
    let puts = all.iter().map(|new| fixture.put_credential(new));
    let answers = futures::future::try_join_all(puts).await.unwrap();
    let n_new = answers.iter().filter(|answer| matches!(answer, Added::New(_))).count();
    assert_eq!(n_new, 2);
    let (even, odd) = (fixture.credential("even").await, fixture.credential("odd").await);
    let (even, odd) = (even.unwrap(), odd.unwrap());
    assert_eq!((even.version, odd.version), (4, 4));
    assert!(even.is_default != odd.is_default, "one of them is the default");
    assert!(even.updated_at - even.created_at < TimeDelta::seconds(8));
}

pub async fn a_credential_is_sealed_anew_unless_it_changed(fixture: Fixture) {
    let fixture = fixture.with_accounts().await;
    let mine = NewCredential { default: Some(true), ..a_credential("main", 1) };
    let theirs = NewCredential { account: account("other"), ..a_credential("main", 2) };
    for new in [&mine, &theirs] {
        fixture.put_credential(new).await.unwrap();
    }
    let all = fixture.all_credentials(None, 10).await.unwrap();
    assert_eq!(all, [stored(&mine), stored(&theirs)]);
    assert_eq!(fixture.all_credentials(None, 1).await.unwrap(), [stored(&mine)]);
    assert_eq!(fixture.all_credentials(Some(mine.id), 10).await.unwrap(), [stored(&theirs)]);
    let anew = Envelope(vec![9, 9]);
    assert!(fixture.reseal_credential(mine.id, 1, &anew).await.unwrap());
    let resealed = SealedCredential { secret: anew.clone(), ..stored(&mine) };
    assert_eq!(fixture.credential("main").await, Some(resealed), "it is the same version");
    assert!(!fixture.reseal_credential(mine.id, 2, &anew).await.unwrap());
    assert!(!fixture.reseal_credential(CredentialId::new(at(0)), 1, &anew).await.unwrap());
}
