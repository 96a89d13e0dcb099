use super::{Fixture, account, acme, at};
use crate::{
    id::{ModelId, ModelServerId},
    job::Json,
    model::{IdentityType, Model, ModelServer, ModelStatus, ModelType},
    store::{Added, ModelFilter, PageRequest},
    vendor::Vendor,
};

pub(super) fn a_model(name: &str, seconds: i64) -> Model {
    Model {
        id: ModelId::new(at(seconds)),
        account: acme(),
        name: name.into(),
        vendor: Vendor::OpenAi,
        model_type: ModelType::ChatCompletion,
        vendor_configuration: Some(Json::parse(r#"{ "b":1.0, "a":2 }"#).unwrap()),
        metadata: Some(Json::parse(r#"{"big":12345678901234567890123}"#).unwrap()),
        status: ModelStatus::Ready,
        status_reason: Some("because".into()),
        default_callback_url: Some("https://example.com/hook".into()),
        created_at: at(seconds),
        created_by_user_id: "user-1".into(),
        created_by_identity_type: IdentityType::ServiceAccount,
    }
}

pub async fn a_model_comes_back_as_it_was_added(fixture: Fixture) {
    let model = a_model("ft:gpt-5:acme", 1);
    assert_eq!(fixture.add_model(&model, false).await.unwrap(), Added::New(model.clone()));
    assert_eq!(fixture.find_model(model.id, &acme()).await.unwrap(), Some(model.clone()));
    let by_name = fixture.find_model_by_name(&acme(), Vendor::OpenAi, "ft:gpt-5:acme").await;
    assert_eq!(by_name.unwrap(), Some(model));
    let bare = Model {
        vendor_configuration: None,
        metadata: None,
        status_reason: None,
        default_callback_url: None,
        ..a_model("bare", 2)
    };
    fixture.add_model(&bare, false).await.unwrap();
    assert_eq!(fixture.find_model(bare.id, &acme()).await.unwrap(), Some(bare));
}

pub async fn a_second_model_of_a_name_conflicts_or_updates(fixture: Fixture) {
    let first = a_model("m", 1);
    fixture.add_model(&first, true).await.unwrap();
    let second = Model {
        model_type: ModelType::Generic,
        vendor_configuration: None,
        metadata: Some(Json::parse("{}").unwrap()),
        status: ModelStatus::Failed,
        status_reason: Some("no adapter".into()),
        default_callback_url: Some("https://receiver.example/second".into()),
        created_by_user_id: "user-2".into(),
        ..a_model("m", 2)
    };
    assert_eq!(fixture.add_model(&second, false).await.unwrap(), Added::Conflict(first.clone()));
    assert_eq!(fixture.find_model(first.id, &acme()).await.unwrap(), Some(first.clone()));
    let updated = Model {
        model_type: second.model_type,
        vendor_configuration: second.vendor_configuration.clone(),
        metadata: second.metadata.clone(),
        status: second.status,
        status_reason: second.status_reason.clone(),
        default_callback_url: second.default_callback_url.clone(),
        ..first.clone()
    };
    assert_eq!(fixture.add_model(&second, true).await.unwrap(), Added::Updated(updated.clone()));
    assert_eq!(fixture.find_model(first.id, &acme()).await.unwrap(), Some(updated));
    assert_eq!(fixture.find_model(second.id, &acme()).await.unwrap(), None);
    // The same name at another vendor or in another account is another model.
    let elsewhere = Model { vendor: Vendor::Cohere, ..a_model("m", 3) };
    assert!(matches!(fixture.add_model(&elsewhere, false).await.unwrap(), Added::New(_)));
    let others = Model { account: account("other"), ..a_model("m", 4) };
    assert!(matches!(fixture.add_model(&others, false).await.unwrap(), Added::New(_)));
}

pub async fn a_model_added_from_many_sides_is_added_once(fixture: Fixture) {
    let models: Vec<_> = (0..8).map(|n| a_model("m", n)).collect();
    let adds = models.iter().map(|model| fixture.add_model(model, false));
    let added: Vec<_> = futures::future::join_all(adds).await;
    let added: Vec<_> = added.into_iter().map(Result::unwrap).collect();
    let n_new = added.iter().filter(|answer| matches!(answer, Added::New(_))).count();
    assert_eq!(n_new, 1, "{added:?}");
    assert!(!added.iter().any(|answer| matches!(answer, Added::Updated(_))));
}

pub async fn models_are_listed_filtered_and_counted(fixture: Fixture) {
    let mut models = Vec::new();
    for n in 0..5 {
        let model = a_model(&format!("m{n}"), n);
        fixture.add_model(&model, false).await.unwrap();
        models.push(model);
    }
    let cohere = Model { vendor: Vendor::Cohere, ..a_model("m0", 9) };
    fixture.add_model(&cohere, false).await.unwrap();
    let other = Model { account: account("other"), ..a_model("m0", 9) };
    fixture.add_model(&other, false).await.unwrap();
    let all = ModelFilter::default();
    let newest = PageRequest { after: None, before: None, limit: 2, ascending: false };
    let page = fixture.list_models(&acme(), &all, &newest).await.unwrap();
    assert_eq!((page.items, page.has_more), (vec![cohere.clone(), models[4].clone()], true));
    let next = PageRequest { after: Some(models[1].id), ..newest.clone() };
    let page = fixture.list_models(&acme(), &all, &next).await.unwrap();
    assert_eq!((page.items, page.has_more), (vec![models[0].clone()], false));
    let back = PageRequest { before: Some(models[2].id), ..newest.clone() };
    let page = fixture.list_models(&acme(), &all, &back).await.unwrap();
    assert_eq!((page.items, page.has_more), (vec![models[4].clone(), models[3].clone()], true));
    let oldest = PageRequest { ascending: true, ..newest.clone() };
    let page = fixture.list_models(&acme(), &all, &oldest).await.unwrap();
    assert_eq!(page.items, models[..2]);
    let named = ModelFilter { name: Some("m0".into()), vendor: None };
    let page = fixture.list_models(&acme(), &named, &newest).await.unwrap();
    assert_eq!(page.items, [cohere.clone(), models[0].clone()]);
    let both = ModelFilter { name: Some("m0".into()), vendor: Some(Vendor::Cohere) };
    let page = fixture.list_models(&acme(), &both, &newest).await.unwrap();
    assert_eq!(page.items, [cohere]);
    for (filter, count) in [(&all, 6), (&named, 2), (&both, 1)] {
        assert_eq!(fixture.count_models(&acme(), filter).await.unwrap(), count);
    }
    assert_eq!(fixture.count_models(&account("none"), &all).await.unwrap(), 0);
}

pub async fn another_accounts_model_is_not_there(fixture: Fixture) {
    let model = a_model("m", 1);
    fixture.add_model(&model, false).await.unwrap();
    let other = account("other");
    assert_eq!(fixture.find_model(model.id, &other).await.unwrap(), None);
    let by_name = fixture.find_model_by_name(&other, Vendor::OpenAi, "m").await.unwrap();
    assert_eq!(by_name, None);
    assert_eq!(fixture.find_model_by_name(&acme(), Vendor::Xai, "m").await.unwrap(), None);
}

pub(super) fn a_server(alias: Option<&str>, seconds: i64) -> ModelServer {
    ModelServer {
        id: ModelServerId::new(at(seconds)),
        account: acme(),
        name: "My server".into(),
        alias: alias.map(Into::into),
        model_deployment_id: "openai/gpt-5".into(),
        created_at: at(seconds),
    }
}

pub async fn a_model_server_is_found_by_id_and_alias(fixture: Fixture) {
    let server = a_server(Some("chat"), 1);
    let added = fixture.add_model_server(&server, Some("user-1")).await.unwrap();
    assert_eq!(added, Some(Added::New(server.clone())));
    let found = fixture.find_model_server(server.id, &acme()).await.unwrap();
    assert_eq!(found, Some(server.clone()));
    let found = fixture.find_model_server_by_alias("chat", &acme()).await.unwrap();
    assert_eq!(found, Some(server.clone()));
    assert_eq!(fixture.find_model_server_by_alias("Chat", &acme()).await.unwrap(), None);
    let other = account("other");
    assert_eq!(fixture.find_model_server(server.id, &other).await.unwrap(), None);
    assert_eq!(fixture.find_model_server_by_alias("chat", &other).await.unwrap(), None);
}

pub async fn an_alias_is_unique_within_its_account(fixture: Fixture) {
    let first = a_server(Some("chat"), 1);
    fixture.add_model_server(&first, Some("user-1")).await.unwrap();
    let second = a_server(Some("chat"), 2);
    let conflict = fixture.add_model_server(&second, Some("user-1")).await.unwrap();
    assert_eq!(conflict, Some(Added::Conflict(first.clone())));
    let others = ModelServer { account: account("other"), ..a_server(Some("chat"), 3) };
    assert_eq!(
        fixture.add_model_server(&others, Some("user-1")).await.unwrap(),
        Some(Added::New(others.clone()))
    );
    // Any number has none.
    let (bare, bare_too) = (a_server(None, 4), a_server(None, 5));
    fixture.add_model_server(&bare, Some("user-1")).await.unwrap();
    fixture.add_model_server(&bare_too, Some("user-1")).await.unwrap();
    let listed = fixture.list_model_servers(&acme()).await.unwrap();
    assert_eq!(listed, [first, bare, bare_too]);
    assert_eq!(fixture.list_model_servers(&account("other")).await.unwrap(), [others]);
}

pub async fn an_alias_added_from_many_sides_is_added_once(fixture: Fixture) {
    let servers: Vec<_> = (0..8).map(|n| a_server(Some("chat"), n)).collect();
    let adds = servers.iter().map(|server| fixture.add_model_server(server, Some("user-1")));
    let added: Vec<_> = futures::future::join_all(adds).await;
    let n_new =
        added.into_iter().filter(|answer| matches!(answer, Ok(Some(Added::New(_))))).count();
    assert_eq!(n_new, 1);
    assert_eq!(fixture.list_model_servers(&acme()).await.unwrap().len(), 1);
}
