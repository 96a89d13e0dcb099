use super::{
    Fixture, account, acme, at,
    models::{a_model, a_server},
};
use crate::{
    id::{InstanceId, ModelId, ModelServerId},
    job::Json,
    model::{Model, ModelServer, ModelStatus, ServerBackend, Sighting},
    store::{
        Added, NewInstance,
        serving::{Changed, MAX_BACKENDS, Removed, Renamed, RolledBack, Switched, Switching},
    },
    vendor::Vendor,
};

fn json(text: &str) -> Json {
    Json::parse(text).unwrap()
}

async fn added(fixture: &Fixture, model: Model) -> Model {
    let answer = fixture.add_model(&model, false).await.unwrap();
    assert!(matches!(answer, Added::New(_)), "{answer:?}");
    model
}

async fn find(fixture: &Fixture, id: ModelId) -> Model {
    fixture.find_model(id, &acme()).await.unwrap().unwrap()
}

pub async fn a_model_is_replaced_unless_it_has_changed_meanwhile(fixture: Fixture) {
    let old = added(&fixture, a_model("m", 1)).await;
    let new = Model {
        vendor_configuration: Some(json(r#"{"a":1e400}"#)),
        metadata: Some(json(r#"{ "x" : 1.0 }"#)),
        default_callback_url: None,
        // What is not configuration, metadata or callback address is left alone.
        name: "other".into(),
        created_by_user_id: "user-9".into(),
        ..old.clone()
    };
    let expected = Model {
        name: old.name.clone(),
        created_by_user_id: old.created_by_user_id.clone(),
        ..new.clone()
    };
    let done = fixture.replace_model(&old, &new).await.unwrap();
    assert_eq!(done, Changed::Done(expected.clone()));
    assert_eq!(find(&fixture, old.id).await, expected);
    assert_eq!(fixture.replace_model(&old, &new).await.unwrap(), Changed::Stale);
    // Away with all of it, and there again.
    let bare = Model { vendor_configuration: None, metadata: None, ..expected.clone() };
    assert_eq!(fixture.replace_model(&expected, &bare).await.unwrap(), Changed::Done(bare.clone()));
    assert_eq!(fixture.replace_model(&expected, &bare).await.unwrap(), Changed::Stale);
    assert_eq!(
        fixture.replace_model(&bare, &expected).await.unwrap(),
        Changed::Done(expected.clone())
    );
    let others = Model { account: account("other"), ..expected.clone() };
    assert_eq!(fixture.replace_model(&others, &bare).await.unwrap(), Changed::Missing);
    let unknown = Model { id: ModelId::new(at(9)), ..expected };
    assert_eq!(fixture.replace_model(&unknown, &bare).await.unwrap(), Changed::Missing);
}

pub async fn a_model_that_is_being_deployed_stays_as_it_is(fixture: Fixture) {
    let deploying = Model { status: ModelStatus::Deploying, ..a_model("m", 1) };
    let model = added(&fixture, deploying).await;
    let ready = added(&fixture, a_model("ready", 2)).await;
    let new = Model { metadata: None, ..model.clone() };
    let answer = fixture.replace_model(&model, &new).await.unwrap();
    assert_eq!(answer, Changed::Deploying(model.clone()));
    let answer = fixture.rename_model(model.id, &acme(), "x", true).await.unwrap();
    assert_eq!(answer, Renamed::Deploying(model.clone()));
    let answer = fixture.rename_model(ready.id, &acme(), "m", true).await.unwrap();
    assert_eq!(answer, Renamed::Deploying(model.clone()));
    let answer = fixture.delete_model(model.id, &acme()).await.unwrap();
    assert_eq!(answer, Removed::Deploying(model.clone()));
    let again = Model { metadata: None, ..a_model("m", 3) };
    let answer = fixture.add_model(&again, true).await.unwrap();
    assert_eq!(answer, Added::Conflict(model.clone()));
    assert_eq!(find(&fixture, model.id).await, model);
}

pub async fn a_model_takes_a_free_name_or_swaps_it(fixture: Fixture) {
    let a = added(&fixture, a_model("a", 1)).await;
    let b = added(&fixture, a_model("b", 2)).await;
    let elsewhere = added(&fixture, Model { vendor: Vendor::Cohere, ..a_model("c", 3) }).await;
    let others = added(&fixture, Model { account: account("other"), ..a_model("c", 4) }).await;
    let named = |model: &Model, name: &str| Model { name: name.into(), ..model.clone() };
    let rename =
        async |id, name, swap| fixture.rename_model(id, &acme(), name, swap).await.unwrap();
    assert_eq!(rename(a.id, "b", false).await, Renamed::Conflict(b.clone()));
    assert_eq!(rename(a.id, "a", false).await, Renamed::Done(a.clone()));
    assert_eq!(rename(a.id, "c", false).await, Renamed::Done(named(&a, "c")));
    assert_eq!(find(&fixture, elsewhere.id).await, elsewhere, "another vendor's name is another");
    assert_eq!(rename(a.id, "b", true).await, Renamed::Done(named(&a, "b")));
    assert_eq!(find(&fixture, a.id).await, named(&a, "b"));
    assert_eq!(find(&fixture, b.id).await, named(&b, "c"));
    assert_eq!(rename(b.id, "d", true).await, Renamed::Done(named(&b, "d")), "nobody to swap with");
    assert_eq!(rename(others.id, "e", true).await, Renamed::Missing);
    assert_eq!(rename(ModelId::new(at(9)), "e", true).await, Renamed::Missing);
}

pub async fn names_swapped_from_many_sides_stay_whole(fixture: Fixture) {
    let a = added(&fixture, a_model("a", 1)).await;
    let b = added(&fixture, a_model("b", 2)).await;
    let swaps = (0..16).map(|n| {
        let (id, name) = if n % 2 == 0 { (a.id, "b") } else { (b.id, "b") };
        let fixture = &fixture;
        async move { fixture.rename_model(id, &acme(), name, true).await.unwrap() }
    });
    for answer in futures::future::join_all(swaps).await {
        assert!(matches!(answer, Renamed::Done(_)), "{answer:?}");
    }
    let mut names = [find(&fixture, a.id).await.name, find(&fixture, b.id).await.name];
    names.sort();
    assert_eq!(names, ["a", "b"]);
}

pub async fn a_deleted_model_is_gone_and_its_name_free(fixture: Fixture) {
    let model = added(&fixture, a_model("m", 1)).await;
    assert_eq!(fixture.delete_model(model.id, &account("other")).await.unwrap(), Removed::Missing);
    assert_eq!(fixture.find_any_model(model.id).await.unwrap(), Some(model.clone()));
    fixture
        .put_sighting(&a_sighting(model.id, a_live_instance(&fixture, 1).await, 1))
        .await
        .unwrap();
    assert_eq!(fixture.delete_model(model.id, &acme()).await.unwrap(), Removed::Done);
    assert_eq!(fixture.delete_model(model.id, &acme()).await.unwrap(), Removed::Missing);
    assert_eq!(fixture.find_any_model(model.id).await.unwrap(), None);
    added(&fixture, a_model("m", 2)).await;
}

pub async fn a_model_that_a_server_runs_is_not_deleted(fixture: Fixture) {
    let model = added(&fixture, a_model("m", 1)).await;
    let server = a_server(Some("chat"), 2);
    fixture.add_model_server(&server, None).await.unwrap();
    let id = model.id.to_string();
    let switched = switch(&fixture, server.id, &id, 3).await;
    let Switched::Done { server, .. } = switched else { panic!("{switched:?}") };
    assert_eq!(
        fixture.delete_model(model.id, &acme()).await.unwrap(),
        Removed::InUse(server.clone())
    );
    switch(&fixture, server.id, "openai/gpt-5", 4).await;
    assert_eq!(fixture.delete_model(model.id, &acme()).await.unwrap(), Removed::Done);
    // It cannot come back to it, by either way.
    assert_eq!(roll_back(&fixture, server.id, 5).await, RolledBack::NoModel(id.clone()));
    assert_eq!(switch(&fixture, server.id, &id, 6).await, Switched::NoModel);
}

pub async fn a_deletion_and_a_switch_never_leave_a_server_without_its_model(fixture: Fixture) {
    let server = a_server(Some("chat"), 1);
    fixture.add_model_server(&server, None).await.unwrap();
    for round in 0..10 {
        let model = added(&fixture, a_model("m", 2 + round)).await;
        let id = model.id.to_string();
        let account = acme();
        let (switched, deleted) = futures::join!(
            switch(&fixture, server.id, &id, 20 + round),
            fixture.delete_model(model.id, &account),
        );
        let deleted = deleted.unwrap();
        let is_done = matches!(switched, Switched::Done { .. });
        assert_ne!(is_done, deleted == Removed::Done, "{switched:?} {deleted:?}");
        switch(&fixture, server.id, "openai/gpt-5", 40 + round).await;
        fixture.delete_model(model.id, &account).await.unwrap();
    }
}

pub async fn a_deletion_and_an_addition_never_leave_a_server_without_its_model(fixture: Fixture) {
    for round in 0..10 {
        let model = added(&fixture, a_model("m", 2 + round)).await;
        let id = model.id.to_string();
        let server = ModelServer { model_deployment_id: id, ..a_server(None, 20 + round) };
        let account = acme();
        let (server_added, deleted) = futures::join!(
            fixture.add_model_server(&server, None),
            fixture.delete_model(model.id, &account),
        );
        let (server_added, deleted) = (server_added.unwrap(), deleted.unwrap());
        assert_ne!(
            server_added.is_some(),
            deleted == Removed::Done,
            "{server_added:?} {deleted:?}"
        );
        fixture.delete_model_server(server.id, &account).await.unwrap();
        fixture.delete_model(model.id, &account).await.unwrap();
        assert_eq!(fixture.add_model_server(&server, None).await.unwrap(), None);
    }
}

async fn switch(fixture: &Fixture, id: ModelServerId, to: &str, seconds: i64) -> Switched {
    let switching = Switching { by: "user-2", now: at(seconds) };
    fixture.switch_model_server(id, &acme(), to, switching).await.unwrap()
}

async fn roll_back(fixture: &Fixture, id: ModelServerId, seconds: i64) -> RolledBack {
    let switching = Switching { by: "user-3", now: at(seconds) };
    fixture.roll_back_model_server(id, &acme(), switching).await.unwrap()
}

pub async fn a_switched_server_runs_the_new_model_and_knows_the_old(fixture: Fixture) {
    let server = a_server(Some("chat"), 1);
    fixture.add_model_server(&server, Some("user-1")).await.unwrap();
    let first = ServerBackend {
        number: 1,
        model_deployment_id: "openai/gpt-5".into(),
        since: at(1),
        by_user_id: Some("user-1".into()),
        rollback_to: None,
    };
    assert_eq!(fixture.list_backends(server.id).await.unwrap(), std::slice::from_ref(&first));
    let now =
        crate::model::ModelServer { model_deployment_id: "openai/gpt-6".into(), ..server.clone() };
    let done = Switched::Done { server: now.clone(), from: "openai/gpt-5".into() };
    assert_eq!(switch(&fixture, server.id, "openai/gpt-6", 2).await, done);
    // Said twice it is done once.
    let same = Switched::Done { server: now.clone(), from: "openai/gpt-6".into() };
    assert_eq!(switch(&fixture, server.id, "openai/gpt-6", 3).await, same);
    let found = fixture.find_model_server_by_alias("chat", &acme()).await.unwrap();
    assert_eq!(found, Some(now));
    let second = ServerBackend {
        number: 2,
        model_deployment_id: "openai/gpt-6".into(),
        since: at(2),
        by_user_id: Some("user-2".into()),
        rollback_to: Some(1),
    };
    assert_eq!(fixture.list_backends(server.id).await.unwrap(), [second, first]);
    let unknown = ModelServerId::new(at(9));
    assert_eq!(switch(&fixture, unknown, "openai/gpt-6", 4).await, Switched::Missing);
    let switching = Switching { by: "user-2", now: at(5) };
    let others = account("other");
    let answer = fixture.switch_model_server(server.id, &others, "x/y", switching).await.unwrap();
    assert_eq!(answer, Switched::Missing);
    let gone = ModelId::new(at(9)).to_string();
    assert_eq!(switch(&fixture, server.id, &gone, 6).await, Switched::NoModel);
}

pub async fn rollbacks_go_back_switch_by_switch(fixture: Fixture) {
    let server = a_server(None, 1);
    fixture.add_model_server(&server, None).await.unwrap();
    assert_eq!(roll_back(&fixture, server.id, 2).await, RolledBack::Nothing);
    for (seconds, to) in [(3, "openai/b"), (4, "openai/c")] {
        switch(&fixture, server.id, to, seconds).await;
    }
    let back = async |seconds| match roll_back(&fixture, server.id, seconds).await {
        RolledBack::Done { server, from } => (from, server.model_deployment_id),
        other => panic!("{other:?}"),
    };
    let names = |from: &str, to: &str| (from.to_owned(), to.to_owned());
    assert_eq!(back(5).await, names("openai/c", "openai/b"));
    assert_eq!(back(6).await, names("openai/b", "openai/gpt-5"));
    assert_eq!(roll_back(&fixture, server.id, 7).await, RolledBack::Nothing);
    switch(&fixture, server.id, "openai/d", 8).await;
    assert_eq!(back(9).await, names("openai/d", "openai/gpt-5"));
    let found = fixture.find_model_server(server.id, &acme()).await.unwrap().unwrap();
    assert_eq!(found.model_deployment_id, "openai/gpt-5");
    let numbers: Vec<_> = fixture.list_backends(server.id).await.unwrap();
    let numbers: Vec<_> = numbers.iter().map(|it| (it.number, it.rollback_to)).collect();
    assert_eq!(
        numbers,
        [(7, None), (6, Some(5)), (5, None), (4, Some(1)), (3, Some(2)), (2, Some(1)), (1, None)]
    );
    let switching = Switching { by: "user-2", now: at(10) };
    let unknown = ModelServerId::new(at(9));
    let answer = fixture.roll_back_model_server(unknown, &acme(), switching).await.unwrap();
    assert_eq!(answer, RolledBack::Missing);
}

pub async fn a_history_has_an_end(fixture: Fixture) {
    let server = a_server(None, 1);
    fixture.add_model_server(&server, None).await.unwrap();
    for n in 0..=MAX_BACKENDS {
        switch(&fixture, server.id, &format!("openai/{}", n % 2), 2 + n).await;
    }
    let backends = fixture.list_backends(server.id).await.unwrap();
    let ends = (backends[0].number, backends[backends.len() - 1].number);
    assert_eq!((i64::try_from(backends.len()).unwrap(), ends), (MAX_BACKENDS, (1002, 3)));
}

pub async fn a_deleted_server_is_gone_and_its_alias_free(fixture: Fixture) {
    let server = a_server(Some("chat"), 1);
    fixture.add_model_server(&server, None).await.unwrap();
    assert!(!fixture.delete_model_server(server.id, &account("other")).await.unwrap());
    assert!(fixture.delete_model_server(server.id, &acme()).await.unwrap());
    assert!(!fixture.delete_model_server(server.id, &acme()).await.unwrap());
    assert_eq!(fixture.find_model_server_by_alias("chat", &acme()).await.unwrap(), None);
    assert_eq!(fixture.list_backends(server.id).await.unwrap(), []);
    let next = a_server(Some("chat"), 2);
    assert_eq!(fixture.add_model_server(&next, None).await.unwrap(), Some(Added::New(next)));
}

async fn a_live_instance(fixture: &Fixture, seconds: i64) -> InstanceId {
    let id = InstanceId::new(at(seconds));
    let new = NewInstance { id, role: "worker", host: "test".into() };
    fixture.register(&new).await.unwrap();
    id
}

fn a_sighting(model: ModelId, instance: InstanceId, seconds: i64) -> Sighting {
    Sighting {
        model,
        instance,
        available: false,
        reason: Some("no answer".into()),
        since: at(seconds),
        updated_at: at(seconds + 1),
    }
}

pub async fn what_live_workers_see_of_a_model_is_known(fixture: Fixture) {
    let model = added(&fixture, a_model("m", 1)).await;
    let other = added(&fixture, a_model("n", 2)).await;
    let (one, two) = (a_live_instance(&fixture, 1).await, a_live_instance(&fixture, 2).await);
    let first = a_sighting(model.id, one, 10);
    fixture.put_sighting(&first).await.unwrap();
    let second = Sighting { available: true, reason: None, ..a_sighting(model.id, two, 20) };
    fixture.put_sighting(&second).await.unwrap();
    let third = a_sighting(other.id, two, 30);
    fixture.put_sighting(&third).await.unwrap();
    let seen = async |ids: &[ModelId], since| fixture.sightings(ids, at(since)).await.unwrap();
    assert_eq!(seen(&[model.id], 0).await, [first.clone(), second.clone()]);
    let both = [first.clone(), second.clone(), third.clone()];
    assert_eq!(seen(&[model.id, other.id], 11).await, both);
    assert_eq!(seen(&[model.id], 12).await, std::slice::from_ref(&second), "the other is old");
    assert_eq!(seen(&[], 0).await, []);
    // The next takes the place of the one before.
    let next = Sighting { since: at(40), ..second };
    fixture.put_sighting(&next).await.unwrap();
    assert_eq!(seen(&[model.id], 0).await, [first, next]);
    // A lost worker knows nothing any more.
    fixture.retire(two).await.unwrap();
    assert_eq!(seen(&[model.id, other.id], 0).await.len(), 1);
    // Of what is gone nothing is noted.
    fixture.put_sighting(&a_sighting(ModelId::new(at(9)), one, 50)).await.unwrap();
    assert_eq!(seen(&[ModelId::new(at(9))], 0).await, []);
}

pub async fn what_was_seen_long_ago_is_forgotten(fixture: Fixture) {
    let model = added(&fixture, a_model("m", 1)).await;
    let (one, two) = (a_live_instance(&fixture, 1).await, a_live_instance(&fixture, 2).await);
    let day = 24 * 60 * 60;
    for (instance, seconds) in [(one, 0), (two, 100), (two, day + 10)] {
        fixture.put_sighting(&a_sighting(model.id, instance, seconds)).await.unwrap();
    }
    let seen = fixture.sightings(&[model.id], at(0)).await.unwrap();
    assert_eq!(seen.iter().map(|it| it.instance).collect::<Vec<_>>(), [two]);
}
