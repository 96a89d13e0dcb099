//! How Fireworks names models.

use std::borrow::Cow;

/// The full id of a model: what has a `/` or a `#` in it stays as it is, but for `models/…` and
/// `routers/…`, which are those of Fireworks' own account; so is a bare name.
///
/// Fireworks itself takes no bare name; other clients complete it in the same way.
pub(super) fn model(name: &str) -> Cow<'_, str> {
    if name.contains('#') {
        return Cow::Borrowed(name);
    }
    let own = ["models/", "routers/"].iter().any(|folder| name.starts_with(folder));
    match (own, name.contains('/')) {
        (true, _) => Cow::Owned(format!("accounts/fireworks/{name}")),
        (false, true) => Cow::Borrowed(name),
        (false, false) if name.ends_with("-fast") => {
            Cow::Owned(format!("accounts/fireworks/routers/{name}"))
        }
        (false, false) => Cow::Owned(format!("accounts/fireworks/models/{name}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_that_lack_an_account_are_completed() {
        for same in [
            "accounts/fireworks/models/llama-v3p1-8b-instruct",
            "accounts/acme/models/m#accounts/acme/deployments/d1",
            "m#d",
            "nomic-ai/nomic-embed-text-v1.5",
            "fireworks/qwen3-embedding-8b",
        ] {
            assert_eq!(model(same), same);
        }
        for (name, full) in [
            ("llama-v3p1-8b-instruct", "accounts/fireworks/models/llama-v3p1-8b-instruct"),
            ("models/x", "accounts/fireworks/models/x"),
            ("routers/x-fast", "accounts/fireworks/routers/x-fast"),
            ("glm-fast", "accounts/fireworks/routers/glm-fast"),
        ] {
            assert_eq!(model(name), full);
        }
    }
}
