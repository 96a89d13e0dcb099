//! What a parked job is shown again: the task under way, and what is needed to go on with it.

use std::{fmt, str::FromStr, time::Duration};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

/// A task at a vendor. Holds no secret.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ticket {
    /// The name of the key that the task was started with.
    pub key: String,
    /// When its attempt made its first call: waits count as time of the attempt.
    pub started_at: DateTime<Utc>,
    /// The adapter's own; `None`: it has not answered yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<String>,
}

impl Ticket {
    /// How long its attempt has lasted; more than nothing.
    pub fn spent(&self, now: DateTime<Utc>) -> Duration {
        (now - self.started_at).to_std().unwrap_or_default().max(Duration::from_millis(1))
    }
}

/// As it is kept with its job.
impl fmt::Display for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&serde_json::to_string(self).map_err(|_| fmt::Error)?)
    }
}

impl FromStr for Ticket {
    type Err = serde_json::Error;

    fn from_str(text: &str) -> serde_json::Result<Self> {
        serde_json::from_str(text)
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;

    #[test]
    fn a_ticket_is_read_as_it_was_written() {
        let (key, started_at) = ("key-2".to_owned(), DateTime::UNIX_EPOCH);
        let ticket = Ticket { key, started_at, task: Some(r#"{"id":"t"}"#.to_owned()) };
        assert_eq!(ticket.spent(started_at + TimeDelta::seconds(7)), Duration::from_secs(7));
        assert_eq!(ticket.to_string().parse::<Ticket>().unwrap(), ticket);
        assert!("{".parse::<Ticket>().is_err());
    }
}
