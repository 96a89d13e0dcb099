use std::time::Duration;

use super::{Fixture, a_job, account, acme, at};
use crate::{
    id::{InstanceId, JobId, ModelId},
    job::{Job, Json, Limits, Operation, Priority, Route},
    store::Submitted,
    vendor::Vendor,
};

pub async fn a_job_comes_back_as_it_was_submitted(fixture: Fixture) {
    let instance = fixture.instance().await;
    let job = a_job().with(|job| {
        job.operation = Operation::Execute;
        job.alias = Some("my \"alias\" – größer".into());
        job.vendor = Vendor::ModelZoo;
        job.model = "echo/with/slashes'; --".into();
        job.model_id = Some(ModelId::new(at(0)));
        job.retry_of = Some(JobId::new(at(0)));
        job.priority = Priority::High;
        job.limits = Limits {
            timeout: Duration::from_millis(1_500),
            num_retries: 10,
            total_timeout: Some(Duration::from_hours(7 * 24)),
        };
        job.route = Some(Route::Embeddings);
        job.credential = Some("team-a_2".parse().unwrap());
        job.stream = true;
        job.callback_url = Some("https://example.com/hook?a=b#c".into());
        job.metadata = Some(Json::parse(r#"{ "b": 1.50, "a" : "\u0000\"" }"#).unwrap());
        job.reply_to = Some(InstanceId::new(at(0)));
        job.run_at = Some(at(60));
        job.expires_at = Some(at(120));
    });
    let job = fixture.add(job, instance).await;
    let (found, result) = fixture.find_job(job.id, &acme()).await.unwrap().unwrap();
    assert_eq!(found, job);
    assert_eq!(result, None);
}

pub async fn json_survives_byte_for_byte(fixture: Fixture) {
    let instance = fixture.instance().await;
    let texts = [
        r#"{"b":1.50,"a":123456789012345678901234567890,"a":-0.0,"e":1E+2}"#,
        r#"{ "spaces" :	[ 1 ,2 ] , "escapes" : "\u0000\u00e4\/\"\\\ud83d\ude00" }"#,
        r#"{"emoji":"😀","quote":"it's","percent":"%s ?1 $1","line":"\n"}"#,
        "\"just a text\"",
        "null",
        "[]",
        "{}",
    ];
    for text in texts {
        let job = fixture.add(a_job().with_args(text), instance).await;
        let args = fixture.find_args(job.id, &acme()).await.unwrap().unwrap();
        assert_eq!(args.as_str(), text);
        let claim = fixture.claim_one(job.id, instance, at(1)).await.unwrap();
        assert_eq!(claim.args.as_str(), text);
        let outcome = crate::job::Outcome::Succeeded {
            response: Json::parse(text).unwrap(),
            usage: crate::usage::Usage::default(),
            vendor_request_id: None,
        };
        assert!(fixture.finish_one(&claim, outcome, at(2)).await);
        assert_eq!(fixture.result(job.id).await.response.unwrap().as_str(), text);
    }
}

pub async fn a_payload_of_five_megabytes_survives(fixture: Fixture) {
    let instance = fixture.instance().await;
    let text = format!(r#"{{"a":"{}"}}"#, "\\\"ä".repeat(1_250_000));
    let small = a_job();
    let small_id = small.0.job.id;
    let big = a_job().with_args(&text);
    let big_id = big.0.job.id;
    let answers = fixture.submit(&[big.build(), small.build()], instance).await.unwrap();
    assert_eq!(answers, [Submitted::Added, Submitted::Added]);
    let claim = fixture.claim_one(big_id, instance, at(1)).await.unwrap();
    assert!(claim.args.as_str() == text);
    let outcome = crate::job::Outcome::Succeeded {
        response: Json::parse(text.as_str()).unwrap(),
        usage: crate::usage::Usage::default(),
        vendor_request_id: None,
    };
    assert!(fixture.finish_one(&claim, outcome, at(2)).await);
    assert!(fixture.result(big_id).await.response.unwrap().as_str() == text);
    assert!(fixture.claim_one(small_id, instance, at(1)).await.is_some());
}

pub async fn an_empty_batch_is_no_work(fixture: Fixture) {
    let instance = fixture.instance().await;
    assert_eq!(fixture.submit(&[], instance).await.unwrap(), []);
    assert!(fixture.claim(&[], instance, at(0)).await.unwrap().is_empty());
    assert!(fixture.finish(&[], at(0)).await.unwrap().is_empty());
    assert!(fixture.revoked(instance, &[]).await.unwrap().is_empty());
}

pub async fn a_large_batch_is_stored_whole(fixture: Fixture) {
    let instance = fixture.instance().await;
    let jobs: Vec<_> = (0..1000).map(|n| a_job().with(|job| job.model = format!("m{n}"))).collect();
    let jobs: Vec<_> = jobs.into_iter().map(super::JobBuilder::build).collect();
    let answers = fixture.submit(&jobs, instance).await.unwrap();
    assert!(answers.len() == 1000 && answers.iter().all(|answer| *answer == Submitted::Added));
    let ids: Vec<_> = jobs.iter().map(|new| new.job.id).collect();
    let claims = fixture.claim(&ids, instance, at(1)).await.unwrap();
    assert_eq!(claims.len(), 1000);
    for new in &jobs {
        assert_eq!(fixture.job(new.job.id).await.model, new.job.model);
    }
}

/// The job that a submit answered it had made before.
#[track_caller]
fn repeated(answer: &Submitted) -> &Job {
    match answer {
        Submitted::Repeated(job) => job,
        other => panic!("{other:?} is not Repeated"),
    }
}

pub async fn the_same_key_and_body_answer_the_first_job(fixture: Fixture) {
    let instance = fixture.instance().await;
    let first = fixture.running(a_job().keyed("k", 1), instance).await.job;
    let second = a_job().keyed("k", 1).build();
    let answers = fixture.submit(std::slice::from_ref(&second), instance).await.unwrap();
    assert_eq!(*repeated(&answers[0]), first, "the first job, as it is now");
    assert_eq!(fixture.find_job(second.job.id, &acme()).await.unwrap(), None);
    assert_eq!(fixture.find_args(second.job.id, &acme()).await.unwrap(), None);
}

pub async fn the_same_key_with_another_body_is_refused(fixture: Fixture) {
    let instance = fixture.instance().await;
    fixture.add(a_job().keyed("k", 1), instance).await;
    let other = a_job().keyed("k", 2).build();
    let answers = fixture.submit(std::slice::from_ref(&other), instance).await.unwrap();
    assert_eq!(answers, [Submitted::KeyReused]);
    assert_eq!(fixture.find_job(other.job.id, &acme()).await.unwrap(), None);
}

pub async fn a_key_twice_in_a_batch_makes_one_job(fixture: Fixture) {
    let instance = fixture.instance().await;
    let batch = [
        a_job().build(),
        a_job().keyed("k", 1).build(),
        a_job().keyed("k", 1).build(),
        a_job().keyed("k", 2).build(),
        a_job().keyed("l", 2).build(),
    ];
    let answers = fixture.submit(&batch, instance).await.unwrap();
    assert_eq!(answers[0], Submitted::Added);
    assert_eq!(answers[1], Submitted::Added);
    assert_eq!(*repeated(&answers[2]), batch[1].job);
    assert_eq!(answers[3], Submitted::KeyReused);
    assert_eq!(answers[4], Submitted::Added);
    let mut stored = Vec::new();
    for new in &batch {
        stored.push(fixture.find_job(new.job.id, &acme()).await.unwrap().is_some());
    }
    assert_eq!(stored, [true, true, false, false, true]);
}

pub async fn keys_of_two_accounts_do_not_meet(fixture: Fixture) {
    let instance = fixture.instance().await;
    fixture.add(a_job().keyed("k", 1), instance).await;
    let other = account("other");
    // In one batch and over two.
    fixture.add(a_job().keyed("k", 2).of(&other), instance).await;
    let batch = [a_job().keyed("x", 1).build(), a_job().keyed("x", 2).of(&other).build()];
    let answers = fixture.submit(&batch, instance).await.unwrap();
    assert_eq!(answers, [Submitted::Added, Submitted::Added]);
}

pub async fn a_key_submitted_from_many_sides_makes_one_job(fixture: Fixture) {
    let instance = fixture.instance().await;
    let batches: Vec<_> =
        (0..16).map(|_| [a_job().build(), a_job().keyed("k", 1).build()]).collect();
    let submits = batches.iter().map(|batch| fixture.submit(batch, instance));
    let mut added = 0;
    let mut made = Vec::new();
    for (answers, batch) in futures::future::join_all(submits).await.into_iter().zip(&batches) {
        let answers = answers.unwrap();
        assert_eq!(answers[0], Submitted::Added, "its neighbour is not disturbed");
        match &answers[1] {
            Submitted::Added => {
                added += 1;
                made.push(batch[1].job.id);
            }
            answer => made.push(repeated(answer).id),
        }
    }
    assert_eq!(added, 1);
    assert!(made.iter().all(|id| *id == made[0]));
}
