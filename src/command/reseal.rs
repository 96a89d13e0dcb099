//! `inferq key reseal`: the step of a rotation after which older master keys can go.

use inferq_common::{
    credential::{MasterKeys, SealedCredential},
    store::SharedStore,
};
use serde_json::json;

use crate::{
    exit::{Failure, code},
    output, platform,
};

/// Credentials read at once.
const PAGE: u32 = 100;

/// Seals every credential with the present master key that another one has sealed. One that cannot
/// be opened is named, and the others are done all the same.
pub async fn run(store: &SharedStore, keys: &MasterKeys, json: bool) -> Result<(), Failure> {
    let present =
        keys.current().map_err(|error| Failure::new(code::CONFIG, error.to_string()))?.id();
    let failed = |error| platform::store_failure(&error);
    let (mut n_resealed, mut n_kept, mut unopened) = (0_u64, 0_u64, Vec::new());
    let mut after = None;
    loop {
        let page = store.all_credentials(after, PAGE).await.map_err(failed)?;
        let Some(last) = page.last() else { break };
        after = Some(last.id);
        for sealed in page {
            if sealed.secret.key_id() == Some(present) {
                n_kept += 1;
                continue;
            }
            let (id, version) = (sealed.id, sealed.version);
            match reseal(keys, sealed) {
                Ok(envelope) => {
                    // One that was put meanwhile is sealed with the present key by that.
                    let done = store.reseal_credential(id, version, &envelope);
                    n_resealed += u64::from(done.await.map_err(failed)?);
                }
                Err(problem) => unopened.push(problem),
            }
        }
    }
    if json {
        let n_unopened = unopened.len();
        output::json(&json!({"resealed": n_resealed, "kept": n_kept, "unopened": n_unopened}))?;
    } else {
        output::line(format_args!(
            "{n_resealed} sealed anew with master key {present}, {n_kept} were already"
        ))?;
    }
    if unopened.is_empty() {
        return Ok(());
    }
    Err(Failure::new(code::INVALID, unopened.join("\n")))
}

fn reseal(
    keys: &MasterKeys,
    sealed: SealedCredential,
) -> Result<inferq_common::credential::Envelope, String> {
    let place = format!("credential '{}' of account {}", sealed.name, sealed.account);
    let open = keys.open(sealed).map_err(|problem| format!("{place}: {problem}"))?;
    let owner = (&open.account, &open.name, open.vendor);
    let sealed = keys.seal(&open.secret, owner, &mut rand::rng());
    sealed.map_err(|problem| format!("{place}: {problem}"))
}
