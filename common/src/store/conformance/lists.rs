use super::{Fixture, a_job, account, acme, at};
use crate::{
    id::JobId,
    job::JobStatus,
    store::{JobFilter, PageRequest},
    vendor::Vendor,
};

/// Positions in `ids` of one page, and whether there is more.
async fn page(
    fixture: &Fixture,
    ids: &[JobId],
    after: Option<usize>,
    before: Option<usize>,
    ascending: bool,
) -> (Vec<usize>, bool) {
    let edge = |position: Option<usize>| position.map(|position| ids[position]);
    let request = PageRequest { after: edge(after), before: edge(before), limit: 3, ascending };
    let page = fixture.list_jobs(&acme(), &JobFilter::default(), &request).await.unwrap();
    let position = |id| ids.iter().position(|known| *known == id).unwrap();
    (page.items.iter().map(|job| position(job.id)).collect(), page.has_more)
}

pub async fn lists_are_paged_both_ways_in_both_orders(fixture: Fixture) {
    let instance = fixture.instance().await;
    let mut ids = Vec::new();
    for n in 0..8 {
        ids.push(fixture.add(a_job().made_at(n), instance).await.id);
        fixture.add(a_job().made_at(n).of(&account("other")), instance).await;
    }
    let page =
        async |after, before, ascending| page(&fixture, &ids, after, before, ascending).await;
    // Newest first, the default.
    assert_eq!(page(None, None, false).await, (vec![7, 6, 5], true));
    assert_eq!(page(Some(5), None, false).await, (vec![4, 3, 2], true));
    assert_eq!(page(Some(2), None, false).await, (vec![1, 0], false));
    assert_eq!(page(Some(3), None, false).await, (vec![2, 1, 0], false));
    assert_eq!(page(Some(0), None, false).await, (vec![], false));
    assert_eq!(page(None, Some(1), false).await, (vec![4, 3, 2], true));
    assert_eq!(page(None, Some(4), false).await, (vec![7, 6, 5], false));
    assert_eq!(page(None, Some(6), false).await, (vec![7], false));
    assert_eq!(page(None, Some(7), false).await, (vec![], false));
    // Oldest first.
    assert_eq!(page(None, None, true).await, (vec![0, 1, 2], true));
    assert_eq!(page(Some(2), None, true).await, (vec![3, 4, 5], true));
    assert_eq!(page(Some(5), None, true).await, (vec![6, 7], false));
    assert_eq!(page(None, Some(6), true).await, (vec![3, 4, 5], true));
    assert_eq!(page(None, Some(2), true).await, (vec![0, 1], false));
    // `after` wins.
    assert_eq!(page(Some(5), Some(1), false).await, (vec![4, 3, 2], true));
}

pub async fn lists_are_filtered(fixture: Fixture) {
    let instance = fixture.instance().await;
    let plain = fixture.add(a_job().made_at(1), instance).await.id;
    let zoo = a_job().made_at(2).with(|job| {
        job.vendor = Vendor::ModelZoo;
        job.model = "echo".into();
    });
    let zoo = fixture.add(zoo, instance).await.id;
    let other = a_job().made_at(3).with(|job| job.model = "echo".into());
    let other = fixture.ended(other, instance).await.id;
    let list = async |filter: JobFilter| {
        let all = PageRequest { after: None, before: None, limit: 1000, ascending: true };
        let page = fixture.list_jobs(&acme(), &filter, &all).await.unwrap();
        page.items.iter().map(|job| job.id).collect::<Vec<_>>()
    };
    let none = JobFilter::default();
    assert_eq!(list(none.clone()).await, [plain, zoo, other]);
    let filter = JobFilter { status: Some(JobStatus::Queued), ..none.clone() };
    assert_eq!(list(filter).await, [plain, zoo]);
    let filter = JobFilter { vendor: Some(Vendor::OpenAi), ..none.clone() };
    assert_eq!(list(filter).await, [plain, other]);
    let filter = JobFilter { model: Some("echo".into()), ..none.clone() };
    assert_eq!(list(filter).await, [zoo, other]);
    let filter = JobFilter {
        status: Some(JobStatus::Succeeded),
        vendor: Some(Vendor::OpenAi),
        model: Some("echo".into()),
    };
    assert_eq!(list(filter).await, [other]);
    let filter = JobFilter { model: Some("ech".into()), ..none };
    assert!(list(filter).await.is_empty());
}

pub async fn a_listed_job_is_whole(fixture: Fixture) {
    let instance = fixture.instance().await;
    let job = fixture.ended(a_job().calling_back("https://example.com"), instance).await;
    let request = PageRequest { after: None, before: None, limit: 1, ascending: false };
    let page = fixture.list_jobs(&acme(), &JobFilter::default(), &request).await.unwrap();
    assert_eq!(page.items, [job]);
    assert!(!page.has_more);
    assert_eq!(at(2), page.items[0].finished_at.unwrap());
}
